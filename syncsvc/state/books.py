"""The ledger: every point that counts as credited, and on what proof.

Rows are only ever added. Each row's digest covers the row and the digest before it, so that a row changed or
removed by hand breaks the chain for whoever follows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, bindparam, select

from syncsvc.rules.settling import Grade
from syncsvc.state.bulk import insert_rows
from syncsvc.state.codes import Entry
from syncsvc.state.database import to_ms
from syncsvc.state.tables import LEDGER

FIRST = bytes(16)
"""What the first row of a ledger follows."""

_LAST = (
    select(LEDGER.c.digest)
    .where(LEDGER.c.organization_id == bindparam("b_organization"))
    .order_by(LEDGER.c.id.desc())
    .limit(1)
)
_ADDED = insert_rows(
    LEDGER, ("organization_id", "member_id", "batch_id", "entry", "points", "at", "grade", "digest")
)


class Credit(NamedTuple):
    """Points for one member's account, and why; `grade` is what they rest on."""

    entry: Entry
    points: int
    grade: Grade = Grade.POLICY
    batch_id: int | None = None
    member_id: int = 0

    def of(self, member_id: int) -> Credit:
        """Return the same credit for a member."""
        return self._replace(member_id=member_id)


def append(connection: Connection, organization_id: int, entries: Sequence[Credit], *, now: datetime) -> None:
    """Add rows to an organization's ledger, in order, inside the caller's transaction."""
    digest = connection.scalar(_LAST, {"b_organization": organization_id}) or FIRST
    at = to_ms(now)
    rows = []
    for credit in entries:
        digest = link(digest, credit, at)
        what = int(credit.entry), credit.points, at, str(credit.grade), digest
        rows.append((organization_id, credit.member_id, credit.batch_id, *what))
    _ADDED.run(connection, rows)


def link(before: bytes, credit: Credit, at: int) -> bytes:
    """Return the digest of a ledger row that follows the one with the digest `before`."""
    row = credit.member_id, credit.batch_id, int(credit.entry), credit.points, at, str(credit.grade)
    return blake2b(before + orjson.dumps(row), digest_size=16).digest()
