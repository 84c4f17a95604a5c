"""What members count of others: points that were paid there, and that a contact brought along.

`credited` of a member is what was paid to itself and the most that it counts of each other member. So a
history that comes twice, with the owner of a shared member and with who stays behind, counts once.

A member that was left and emptied begins a new life: what is paid to it then counts beside what was before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson
from sqlalchemy import Connection, bindparam, delete, select

from syncsvc.state.bulk import insert_rows
from syncsvc.state.database import as_list, one_of
from syncsvc.state.histories import COUNTED
from syncsvc.state.member import Member


class Origin(NamedTuple):
    """Where points were paid: a member, in one of its lives."""

    member: int
    life: int


def read_parts(text: str | None) -> dict[Origin, int]:
    """Return points by where they were paid, from their JSON."""
    return {Origin(member, life): points for member, life, points in orjson.loads(text or "[]")}


def parts_text(parts: Mapping[Origin, int]) -> str | None:
    """Return points by where they were paid as JSON, None where there are none."""
    return orjson.dumps([[*origin, points] for origin, points in parts.items()]).decode() if parts else None


_OF = select(COUNTED).where(COUNTED.c.heir_id == bindparam("b_heir"))
_INSERT = insert_rows(COUNTED, ("heir_id", "source_id", "life", "points"))
_OLD = delete(COUNTED).where(one_of(COUNTED.c.heir_id, "b_heirs"))


@dataclass(slots=True)
class _Counts:
    """What a member counts of others; a row of its own tells its life, where that is not the first."""

    life: int = 0
    parts: dict[Origin, int] = field(default_factory=dict)


class Counted:
    """What the members of one page count of others."""

    def __init__(self, connection: Connection) -> None:
        """Work inside the transaction of `connection`."""
        self._connection = connection
        self._of: dict[Member, _Counts] = {}
        self._changed: dict[Member, None] = {}

    def parts(self, member: Member, points: int) -> dict[Origin, int]:
        """Return where `points` that a member is credited with were paid."""
        counts = self._counts(member)
        return {self.now(member): points - sum(counts.parts.values()), **counts.parts}

    def now(self, member: Member) -> Origin:
        """Return where what a member is paid now counts as paid."""
        return Origin(member.id or 0, self._counts(member).life)

    def own(self, member: Member) -> int:
        """Return the points that were paid to a member itself in its present life."""
        return member.credited - sum(self._counts(member).parts.values())

    def empty(self, member: Member) -> None:
        """Let a member begin a new life, in which it counts nothing."""
        self._of[member] = _Counts(self._counts(member).life + 1)
        self._changed[member] = None

    def refill(self, member: Member, parts: Mapping[Origin, int]) -> None:
        """Let a member have its former life back, with what it counted then."""
        life = self._counts(member).life - 1
        kept = {origin: points for origin, points in parts.items() if origin != (member.id, life)}
        self._of[member] = _Counts(life, kept)

    def add(self, member: Member, parts: Mapping[Origin, int]) -> int:
        """Let a member count points by where they were paid; returns by how many it counts more."""
        counts, own, now, more = self._counts(member), self.own(member), self.now(member), 0
        for origin, points in parts.items():
            known = own if origin == now else counts.parts.get(origin, 0)
            if points > known:
                more += points - known
                if origin != now:
                    counts.parts[origin] = points
        self._changed[member] = None
        return more

    def save(self) -> None:
        """Write what has changed; the members have been inserted by now."""
        if not self._changed:
            return
        self._connection.execute(_OLD, {"b_heirs": as_list(it.id or 0 for it in self._changed)})
        rows = []
        for heir in self._changed:
            counts, number = self._of[heir], heir.id or 0
            rows += [(number, *origin, points) for origin, points in counts.parts.items()]
            rows += [(number, number, counts.life, 0)] if counts.life else []
        _INSERT.run(self._connection, rows)

    def _counts(self, member: Member) -> _Counts:
        if member not in self._of:
            counts = self._of[member] = _Counts()
            rows = self._connection.execute(_OF, {"b_heir": member.id}) if member.id is not None else ()
            for row in rows:
                if row.source_id == member.id and not row.points:
                    counts.life = row.life
                else:
                    counts.parts[Origin(row.source_id, row.life)] = row.points
        return self._of[member]
