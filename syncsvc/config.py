"""The configuration of one organization, and of the service around it.

These are the words of the TOML file as types: frozen, unknown keys refused, every default safe. Reading
files, and the checks that look at more than one table, are in `configfile`. Secrets are references only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, timedelta, tzinfo
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from syncsvc.settings import Duration, Secret, Settings, Url

MAX_BATCH = 2000  # users in one import request; Wallet App API page "imports"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PORTS = 65536


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


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta():
        raise ValueError("is zero; give a duration above zero")
    return value


def _share(value: Any) -> float:
    found = re.fullmatch(r"(\d{1,3}(?:\.\d+)?) ?%", value) if isinstance(value, str) else None
    if found is None or float(found[1]) > 100:  # noqa: PLR2004 - a share is at most the whole
        raise ValueError('is not a share; write it as text, such as "30%"')
    return float(found[1]) / 100


def _plain(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("is not a plain value; write text, a number, true or false")  # noqa: TRY004 - pydantic collects ValueError only
    return value


def _name(value: Any) -> Any:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("is not a name; use at most 64 letters, digits, dots, hyphens and underscores")
    return value


def _email(value: str) -> str:
    if not re.fullmatch(r"[^\s@]+@[^\s@]+\.[^\s@]+", value):
        raise ValueError('is not an email; write one of your own, such as "sync-witness@acme.example"')
    return value


def _path(value: str) -> str:
    if not value.startswith("/") or "?" in value or "#" in value or any(map(str.isspace, value)):
        raise ValueError('is not a path; write it from the root, such as "/v2/import"')
    return value


Positive = Annotated[Duration, AfterValidator(_positive)]
Email = Annotated[StrictStr, AfterValidator(_email)]
UrlPath = Annotated[StrictStr, AfterValidator(_path)]
Share = Annotated[
    float,
    BeforeValidator(_share),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,3}(\.\d+)? ?%$", "examples": ["30%"]}),
]
"""A share of the whole, written "30%", held as 0.3."""
Plain = Annotated[str | int | float | bool, BeforeValidator(_plain)]
"""A plain value written in the file."""
Text = Annotated[StrictStr, Field(min_length=1)]
Name = Annotated[
    str, BeforeValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})
]
"""A name that may stand in a state, a log and a metric."""


class ServiceConfig(Settings):
    """The `[service]` table: what the whole process shares."""

    state: Text = "sqlite:///syncsvc.db"
    listen: StrictStr = "127.0.0.1:9464"
    page_token: Secret | None = None  # what the status page is shown for; needed beyond loopback
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    ca_file: StrictStr = ""

    @field_validator("state")
    @classmethod
    def _check_state(cls, value: str) -> str:
        if value.startswith("sqlite:///") and ":memory:" not in value and len(value) > len("sqlite:///"):
            return value
        raise ValueError("is not a state; write sqlite:///FILE")

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and not (host and port.isascii() and port.isdigit() and int(port) < _PORTS):
            raise ValueError('is not an address; write "HOST:PORT", or "" to turn it off')
        return value


class ScheduleConfig(Settings):
    """The `[schedule]` table: how often things are done."""

    every: Positive = timedelta(seconds=60)
    sweep_every: Positive = timedelta(hours=24)
    log_every: Positive = timedelta(minutes=5)
    stuck_after: Positive = timedelta(minutes=15)


class WalletConfig(Settings):
    """The `[wallet]` table: how this organization's wallet is reached, and what an award means there."""

    base_url: Url = "https://api.walletapp.co"
    token: Secret
    log_token: Secret | None = None
    brand_id: Text | None = None
    storecard: Text | None = None
    points: Points = Points.ADD
    batch_size: StrictInt = Field(default=MAX_BATCH, ge=1, le=MAX_BATCH)
    timeout: Positive = timedelta(seconds=120)
    settle_after: Positive = timedelta(minutes=5)
    give_up_after: Positive = Field(default=timedelta(hours=1), validate_default=True)
    on_doubt: OnDoubt = OnDoubt.HOLD
    evidence: Evidence = Evidence.WINDOW
    witness: Email | None = Field(default=None, validate_default=True)
    import_path: UrlPath = "/v2/import"
    log_path: UrlPath = "/import/log"
    log_brand_in: LogBrandIn = LogBrandIn.QUERY
    timezone: StrictStr = "UTC"
    welcome_flag: WelcomeFlag = WelcomeFlag.WELCOME_EMAIL

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

    on_gone: OnGone = OnGone.KEEP
    on_email_change: OnEmailChange = OnEmailChange.HOLD


class BrakesConfig(Settings):
    """The `[brakes]` table: limits that hold a delivery before its first request; shares are 0 to 1."""

    max_share: Share = 0.30
    max_gone_share: Share = 0.05
    max_points_per_member: StrictInt | None = Field(default=None, ge=0)
    max_points_per_cycle: StrictInt | None = Field(default=None, ge=0)


class FieldRule(Settings):
    """Where one wallet field comes from: exactly one of `field`, `template`, `cel` and `value`.

    `values` translates what was found, `default` stands in where nothing was found or `values` does not list
    it, `format` says how a date is written in the CRM. Plain text in the file is a template.
    """

    field: Text | None = None
    template: Text | None = None
    cel: Text | None = None
    value: Plain | None = None
    values: dict[str, Plain] | None = None
    default: Plain | None = None
    format: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"template": value}
        if not isinstance(value, Mapping | FieldRule):
            raise ValueError('is neither text nor a table; write "{Field}" or { field = "Field" }')  # noqa: TRY004 - pydantic collects ValueError only
        return value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("field", "template", "cel", "value") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"needs exactly one of field, template, cel and value, has {found}")
        return self


class MemberMap(Settings):
    """The `member` table of a connector: wallet field = rule. What is not named here is not sent."""

    email: FieldRule
    brand_id: FieldRule | None = None
    name: FieldRule | None = None
    points: FieldRule | None = None
    storecard: FieldRule | None = None
    phone_number: FieldRule | None = None
    birthday: FieldRule | None = None
    licenseplate: FieldRule | None = None
    start_date: FieldRule | None = None
    expires_at: FieldRule | None = None
    external_reference: FieldRule | None = None
    tag_id: FieldRule | None = None
    location_id: FieldRule | None = None
    welcome_email: FieldRule | None = None
    update_mail: FieldRule | None = None

    def rules(self) -> Iterator[tuple[str, FieldRule]]:
        """Yield each mapped wallet field with its rule, in the order above."""
        for name in type(self).model_fields:
            rule = getattr(self, name)
            if rule is not None:
                yield name, rule


class WriteBackMap(Settings):
    """The `write_back` table of a connector: wallet fact = CRM field."""

    last_updated: Text | None = None
    status: Text | None = None

    @field_validator("status")
    @classmethod
    def _check_status(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and value == info.data.get("last_updated"):
            raise ValueError("is the field of last_updated; name another")
        return value


def _wallet_field(value: Any) -> Any:
    if value != "where" and value not in MemberMap.model_fields:
        raise ValueError(f"is no wallet field; known are {', '.join(MemberMap.model_fields)}")
    return value


WalletField = Annotated[StrictStr, BeforeValidator(_wallet_field)]


class MappingTest(Settings):
    """A sample record and what it must become: a member, a refusal of one field (or `where`), or excluded.

    Only the wallet fields that `member` names are compared; "" says that a field must not be set.
    """

    record: dict[str, Plain]
    record_id: Text = "sample"
    member: dict[WalletField, Plain] | None = None
    refused: WalletField | None = None
    excluded: StrictBool = False

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if (self.member is not None) + (self.refused is not None) + self.excluded != 1:
            raise ValueError('needs exactly one of member = {...}, refused = "FIELD" and excluded = true')
        return self


class ConnectorConfig(Settings):
    """One `[connectors.NAME]` table: what every connector has, and in `settings` the keys of its own type."""

    type: Text
    where: StrictStr = ""
    member: MemberMap
    write_back: WriteBackMap = WriteBackMap()
    tests: tuple[MappingTest, ...] = ()
    settings: Settings = Settings()


class OrganizationConfig(Settings):
    """One organization file; `name` is the key of its state, logs and metrics.

    The order of `connectors` is the order in the file: the order of ownership.
    """

    organization_id: Text
    name: Name
    first_run: FirstRun
    schedule: ScheduleConfig = ScheduleConfig()
    wallet: WalletConfig
    policy: PolicyConfig = PolicyConfig()
    brakes: BrakesConfig = BrakesConfig()
    connectors: dict[Name, ConnectorConfig]
