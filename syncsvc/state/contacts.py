"""A contact row as it was stored, and whether what was read now differs from it."""

from __future__ import annotations

from typing import NamedTuple

from syncsvc.rules.intake import ContactState, Intake
from syncsvc.state.bulk import insert_rows, update_rows
from syncsvc.state.tables import CONTACT

ACTIVE, EXCLUDED, QUARANTINED, GONE = (
    ContactState  # looked up on the class, each costs more than a comparison
)


class Known(NamedTuple):
    """A contact as it was stored before."""

    record_id: str
    member_id: int | None
    state: int
    fingerprint: bytes | None
    points: int | None
    written_at: int | None
    written_status: str | None
    write_due: int
    first_read: int


KNOWN = [CONTACT.c[name] for name in Known._fields]
_KEY = ("connector_id", "record_id")
_CONTENT = ("member_id", "state", "fingerprint", "points")
_WRITTEN = ("written_at", "written_status", "write_due")
INSERT = insert_rows(CONTACT, (*_KEY, *_CONTENT, "seen", *_WRITTEN, "first_read"))
UPDATE = update_rows(CONTACT, _KEY, (*_CONTENT, *_WRITTEN, "first_read"))


def differs(before: Known | None, row: Intake, *, sweeping: bool) -> bool:
    """Return whether a contact that was read is news; a `sweeping` read looks at held email changes again."""
    if before is None:
        return row.state is not GONE
    if row.state is GONE:
        passes_on = row.merged_into is not None and before.member_id is not None
        return bool(before.state != GONE or passes_on)
    if sweeping and before.state == QUARANTINED and row.state is ACTIVE:
        return True  # its email change was held: what held it may be over
    return bool(
        before.fingerprint != row.fingerprint
        or before.state == GONE
        or before.points != row.points
        or before.written_at != row.written_at
        or before.written_status != row.written_status
    )


def same_profile(before: Known | None, row: Intake) -> bool:
    """Return whether a contact maps to the same profile as before."""
    return before is not None and row.state is ACTIVE and before.fingerprint == row.fingerprint


def same_content(before: Known | None, row: Intake) -> bool:
    """Return whether a contact was read as it was before, also one that is refused."""
    return before is not None and before.fingerprint == row.fingerprint
