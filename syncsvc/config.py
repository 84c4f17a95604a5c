"""The configuration of one organization; `service` has that of the service around it.

These are the words of the TOML file as types: frozen, unknown keys refused, every default safe. Reading
files, and the checks that look at more than one table, are in `configfile`. Secrets are references only.
"""

from __future__ import annotations

import re
from datetime import UTC, timedelta, tzinfo
from enum import StrEnum
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from syncsvc.maps import MappingTest, MemberMap, WriteBackMap
from syncsvc.settings import Duration, Email, Secret, Settings, Share, Text, Url, UrlPath

MAX_BATCH = 2000  # users in one import request; Wallet App API page "imports"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LEAST_HISTORY = timedelta(days=7)


class FirstRun(StrEnum):
    """What the contacts of a connector's first read mean; contacts that come later are imported."""

    IMPORT = "import"  # the member and the full balance
    ADOPT_POINTS = "adopt_points"  # the member; the points are in the wallet already
    ADOPT = "adopt"  # member and points are in the wallet already; nothing is sent


class Points(StrEnum):
    """What an import does with points."""

    ADD = "add"
    SET = "set"
    OFF = "off"


class OnDoubt(StrEnum):
    """What becomes of points that stay in doubt past `give_up_after`."""

    HOLD = "hold"
    AWARD = "award"
    SKIP = "skip"


class Evidence(StrEnum):
    """The least grade of evidence that settles a row in doubt by itself."""

    WINDOW = "window"
    UNANIMOUS = "unanimous"
    WITNESS = "witness"


class LogBrandIn(StrEnum):
    """Where the request for the import log carries its brand."""

    QUERY = "query"
    BODY = "body"


class WelcomeFlag(StrEnum):
    """How this wallet spells the flag that asks for a welcome mail."""

    WELCOME_EMAIL = "welcome_email"
    WELCOME_MAIL = "welcome_mail"


class OnGone(StrEnum):
    """What becomes of a member whose contact is deleted or no longer matches `where`."""

    KEEP = "keep"
    EXPIRE = "expire"


class OnEmailChange(StrEnum):
    """What becomes of the member when its contact's email changes."""

    HOLD = "hold"
    MOVE = "move"
    MOVE_WITH_POINTS = "move_with_points"


def _a_week(value: timedelta) -> timedelta:
    if value < _LEAST_HISTORY:
        raise ValueError(
            'is too short: what happens to an import can be known a day later; write "7d" or more'
        )
    return value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta():
        raise ValueError("is zero; give a duration above zero")
    return value


def _name(value: Any) -> Any:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("is not a name; use at most 64 letters, digits, dots, hyphens and underscores")
    return value


Positive = Annotated[Duration, AfterValidator(_positive)]
History = Annotated[Duration, AfterValidator(_a_week)]
Name = Annotated[
    str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})
]
"""A name that may stand in a state, a log and a metric."""


class ScheduleConfig(Settings):
    """The `[schedule]` table: how often things are done."""

    every: Positive = Field(
        default=timedelta(seconds=60),
        description="how often a cycle begins; one that still runs is not begun again",
    )
    sweep_every: Positive = Field(
        default=timedelta(hours=24),
        description="how often everything is read again, to heal what polling missed and find what vanished",
    )
    log_every: Positive = Field(
        default=timedelta(minutes=5),
        description="how often the import log is read; it is also read around every delivery of points",
    )
    stuck_after: Positive = Field(
        default=timedelta(minutes=15),
        description="how long a cycle may make no progress before it is told as stuck",
    )


class WalletConfig(Settings):
    """The `[wallet]` table: how this organization's wallet is reached, and what an award means there."""

    base_url: Url = Field(
        default="https://api.walletapp.co",
        description="the Wallet App API",
    )
    token: Secret = Field(
        examples=[{"env": "ACME_WALLET_TOKEN"}], description="the bearer token, with the ability `import`"
    )
    log_token: Secret | None = Field(
        default=None,
        examples=[{"env": "ACME_LOG_TOKEN"}],
        description="the token of the import log, with the ability `brand.import`; if none, `token` is used",
    )
    brand_id: Text | None = Field(
        default=None, examples=["brand-1"], description="the brand of members whose map gives none"
    )
    storecard: Text | None = Field(
        default=None, examples=["card-1"], description="the storecard of members whose map gives none"
    )
    points: Points = Field(
        default=Points.ADD,
        description="an import adds its points, or sets the balance to them, or none are ever sent (off)",
    )
    batch_size: StrictInt = Field(default=MAX_BATCH, ge=1, le=MAX_BATCH, description="members of one import")
    timeout: Positive = Field(
        default=timedelta(seconds=120),
        description="for the whole of each call; an import without an answer by then is in doubt",
    )
    settle_after: Positive = Field(
        default=timedelta(minutes=5),
        description="how long after a request an unmoved log entry proves that nothing was awarded",
    )
    give_up_after: Positive = Field(
        default=timedelta(hours=1),
        validate_default=True,
        description="how long proof is looked for before `on_doubt` decides; at least `settle_after`",
    )
    on_doubt: OnDoubt = Field(
        default=OnDoubt.HOLD,
        description="points that stay in doubt are kept back for a person, sent again, or given up (skip)",
    )
    evidence: Evidence = Field(
        default=Evidence.WINDOW,
        description="the least grade of evidence that settles points in doubt by itself",
    )
    witness: Email | None = Field(
        default=None,
        validate_default=True,
        examples=["sync-witness@acme.example"],
        description="an email of your own that nobody else awards: its log entry proves each batch of points",
    )
    import_path: UrlPath = Field(default="/v2/import", description="path of the import")
    log_path: UrlPath = Field(default="/import/log", description="path of the import log")
    log_brand_in: LogBrandIn = Field(
        default=LogBrandIn.QUERY,
        description="where the request for the log names its brand",
    )
    timezone: StrictStr = Field(default="UTC", description="zone of times in the log that carry none")
    welcome_flag: WelcomeFlag = Field(
        default=WelcomeFlag.WELCOME_EMAIL,
        description="how this wallet spells the flag that asks for a welcome mail",
    )

    @field_validator("give_up_after")
    @classmethod
    def _check_order(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if value < info.data.get("settle_after", value):
            raise ValueError("is shorter than settle_after; make it at least as long")
        return value

    @field_validator("witness")
    @classmethod
    def _check_witness(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("evidence") is Evidence.WITNESS:
            raise ValueError('is missing, and evidence = "witness" rests on it; name an email of your own')
        return value

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, value: str) -> str:
        try:
            _zone(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("is not a known time zone; write one such as Europe/Amsterdam") from None
        return value

    @property
    def zone(self) -> tzinfo:
        """The zone of log times that carry none."""
        return _zone(self.timezone)


def _zone(name: str) -> tzinfo:
    return UTC if name == "UTC" else ZoneInfo(name)


class PolicyConfig(Settings):
    """The `[policy]` table: what happens when a contact goes or changes its email."""

    on_gone: OnGone = Field(
        default=OnGone.KEEP,
        description="a member whose contact is deleted, or left out by `where`, is kept, or expires today",
    )
    on_email_change: OnEmailChange = Field(
        default=OnEmailChange.HOLD,
        description="a contact with a new email is held, or its member moves, without points or with them",
    )
    keep_history: History = Field(
        default=timedelta(days=365),
        description="how long it is kept what cycles did, batches held and people decided; 7 days at least",
    )


class BrakesConfig(Settings):
    """The `[brakes]` table: limits that hold a delivery before its first request; shares are 0 to 1."""

    max_share: Share = Field(
        default=0.30,
        description="the most of the known members that may change in one cycle, from 100 members on",
    )
    max_gone_share: Share = Field(
        default=0.05,
        description="the most contacts of a connector that one sweep may find gone, and the most members "
        "that one cycle may expire; of fewer than 100, half of them or 10",
    )
    max_elsewhere: StrictInt = Field(
        default=0,
        ge=0,
        description="the most members of a connector's first read who may be awarded points, or mailed, "
        "though the import log shows them already: another state, or another tool, has imported them",
    )
    max_points_per_member: StrictInt | None = Field(
        default=None,
        ge=0,
        examples=[5000],
        description="the most points that one member may be sent in a cycle; without it, any number",
    )
    max_points_per_cycle: StrictInt | None = Field(
        default=None,
        ge=0,
        examples=[1_000_000],
        description="the most points that a cycle may send in all; without it, any number",
    )


class ConnectorConfig(Settings):
    """One `[connectors.NAME]` table: what every connector has, and in `settings` the keys of its own type."""

    type: Text = Field(
        examples=["salesforce"],
        description="the kind of CRM: salesforce, hubspot, dynamics, pipedrive, csv, or a plug-in's",
    )
    where: StrictStr = Field(
        default="",
        examples=["Email != '' && !HasOptedOutOfEmail"],
        description="which contacts are meant, as CEL over the record's fields; an empty field is '' there",
    )
    member: MemberMap = Field(description="wallet field = where it comes from; `email` is needed")
    write_back: WriteBackMap = Field(
        default=WriteBackMap(), description="wallet fact = CRM field that it is written to"
    )
    tests: tuple[MappingTest, ...] = Field(
        default=(), description="sample records and what they must map to, run by `check`"
    )
    settings: Settings = Field(
        default=Settings(), description="the keys of its own type, which stand in the same table"
    )


class AlertsConfig(Settings):
    """The `[alerts]` table: who is told when something changes."""

    webhook: Secret | None = Field(
        default=None,
        examples=[{"env": "ACME_ALERTS"}],
        description='the URL that takes `{"text": ...}`, as Slack\'s incoming webhooks do; it is a secret',
    )


class OrganizationConfig(Settings):
    """One organization file; `name` is the key of its state, logs and metrics.

    The order of `connectors` is the order in the file: the order of ownership.
    """

    organization_id: Text = Field(
        examples=["01JC0000000000000000000000"], description="the wallet organization"
    )
    name: Name = Field(
        examples=["acme"],
        description="the key of its state, logs and metrics; without it, the name of the file",
    )
    first_run: FirstRun = Field(
        examples=["import"],
        description="contacts of a first read are sent with their balance, without points, or not at all",
    )
    schedule: ScheduleConfig = Field(default=ScheduleConfig(), description="how often things are done")
    wallet: WalletConfig = Field(
        description="how this organization's wallet is reached, and what an award means there"
    )
    policy: PolicyConfig = Field(
        default=PolicyConfig(), description="what happens when a contact goes or changes its email"
    )
    brakes: BrakesConfig = Field(
        default=BrakesConfig(), description="limits that hold a delivery before its first request"
    )
    alerts: AlertsConfig = Field(default=AlertsConfig(), description="who is told when something changes")
    connectors: dict[Name, ConnectorConfig] = Field(
        description="one table for each CRM account; the first that knows an email owns the member"
    )
