"""The knobs of the wallet simulator: one for everything that the vendor's documents leave open.

Documented are the fields of a row, the limit of 2000, the abilities and the shapes of good answers (imports
page, older and newer version, seen 2026-11). The default of a knob is the strict reading, or that of a
Laravel server where the documents are silent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from enum import StrEnum


class PageVersion(StrEnum):
    """Which version of the vendor's imports page the server follows."""

    OLD = "old"  # storecard required, welcome_email, no birthday, dates of any form
    NEW = "new"  # storecard optional, points an integer, welcome_mail, birthday, dates YYYY-MM-DD, flags 0/1


class PointsMode(StrEnum):
    """What the points of a row do."""

    ADD = "add"  # they are awarded
    SET = "set"  # they become the member's points


class LogTime(StrEnum):
    """The form of `last_updated` in the import log; the zone of local times is `WalletKnobs.zone`."""

    ISO_Z = "iso_z"  # 2026-11-22T08:00:00Z
    ISO_MICROS = "iso_micros"  # 2026-11-22T08:00:00.123456Z
    ISO_OFFSET = "iso_offset"  # 2026-11-22T09:00:00+01:00
    NAIVE = "naive"  # 2026-11-22 09:00:00
    DATE_ONLY = "date_only"  # 2026-11-22
    EPOCH_S = "epoch_s"  # 1795334400
    EPOCH_MS = "epoch_ms"  # 1795334400123
    EPOCH_S_TEXT = "epoch_s_text"  # "1795334400"


class LogBrand(StrEnum):
    """Where the import log looks for `brand_id`; with both, the body wins."""

    QUERY = "query"
    BODY = "body"
    BOTH = "both"


class BadRows(StrEnum):
    """What happens to a request in which some rows break a rule."""

    REFUSE_ALL = "refuse_all"  # 422, nothing is applied
    APPLY_GOOD = "apply_good"  # 422, though the good rows are applied
    DROP = "drop"  # an answer of success; the bad rows are dropped, and not counted in imported_members


class Duplicates(StrEnum):
    """What happens when one request names a member twice."""

    REFUSE = "refuse"  # a broken rule of each of the rows
    APPLY_EACH = "apply_each"
    LAST_WINS = "last_wins"


class EmptyField(StrEnum):
    """What null or an empty text in an optional field does."""

    REFUSE = "refuse"
    CLEAR = "clear"
    IGNORE = "ignore"


class ImportedMembers(StrEnum):
    """What `imported_members` counts."""

    ROWS = "rows"
    NEW_MEMBERS = "new_members"


class ErrorInside(StrEnum):
    """Whether an answer of success carries an error; the answers of the last two are alike."""

    NONE = "none"
    APPLIED = "applied"
    NOT_APPLIED = "not_applied"


@dataclass(slots=True)
class WalletKnobs:
    """What the documents leave open; may be turned while the simulator serves.

    `abilities` are those of each token; a token that is missing is unauthenticated. `apply_seconds` is how
    long after its answer an import is applied, `log_lag_seconds` how long after that the log shows it (with
    the time at which it was applied), both by the simulator's clock. `redirected` are the statuses that
    become a redirect to an HTML page for a request that does not ask for JSON first.
    """

    page: PageVersion = PageVersion.OLD
    points: PointsMode = PointsMode.ADD
    abilities: dict[str, set[str]] = field(default_factory=dict, repr=False)

    bad_rows: BadRows = BadRows.REFUSE_ALL
    errors_named: bool = True  # False: a 422 that says nothing about rows or fields
    duplicates: Duplicates = Duplicates.REFUSE
    empty_fields: EmptyField = EmptyField.REFUSE
    unknown_fields_refused: bool = True
    zero_points_refused: bool = False
    negative_points_refused: bool = True
    max_points: int | None = None
    max_text: int | None = None  # characters of any text in a row
    tags: frozenset[str] | None = None  # None: any tag_id is known
    locations: frozenset[str] | None = None  # None: any location_id is known
    overwrite_profile: bool = True  # False: the profile of an existing member stays as it was

    success_status: int = 200
    imported_members: ImportedMembers = ImportedMembers.ROWS
    error_inside: ErrorInside = ErrorInside.NONE
    foreign_organization_status: int = 403  # or 404
    malformed_status: int = 400  # a body that is not the JSON it claims to be; or 422
    dies_after_rows: int | None = None  # applies so many rows of an import, then answers 500
    max_body: int | None = None  # bytes; beyond, 413
    redirected: frozenset[int] = frozenset({401})

    apply_seconds: float = 0.0
    log_lag_seconds: float = 0.0
    zero_moves_log: bool = True
    foreign_moves_log: bool = True
    log_brand: LogBrand = LogBrand.BOTH
    log_time: LogTime = LogTime.ISO_Z
    log_emails_lowered: bool = False
    log_shuffled: bool = True
    zone: tzinfo = UTC

    rate_per_minute: int | None = None  # requests of one token
    retry_after: bool = True  # whether a 429 says how long to wait


def _seconds(at: datetime) -> int:
    return math.floor(at.timestamp())


_FORMS: Mapping[LogTime, Callable[[datetime, tzinfo], str | int]] = {
    LogTime.ISO_Z: lambda at, _: f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
    LogTime.ISO_MICROS: lambda at, _: f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
    LogTime.ISO_OFFSET: lambda at, zone: at.astimezone(zone).isoformat(timespec="seconds"),
    LogTime.NAIVE: lambda at, zone: f"{at.astimezone(zone):%Y-%m-%d %H:%M:%S}",
    LogTime.DATE_ONLY: lambda at, zone: f"{at.astimezone(zone):%Y-%m-%d}",
    LogTime.EPOCH_S: lambda at, _: _seconds(at),
    LogTime.EPOCH_MS: lambda at, _: _seconds(at) * 1000 + at.microsecond // 1000,
    LogTime.EPOCH_S_TEXT: lambda at, _: str(_seconds(at)),
}


def log_value(at: datetime, knobs: WalletKnobs) -> str | int:
    """Return a time as the import log would send it."""
    return _FORMS[LogTime(knobs.log_time)](at, knobs.zone)
