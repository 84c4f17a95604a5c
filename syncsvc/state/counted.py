"""What members count of others: points that were paid there, and that a contact brought along.

`credited` of a member is what was paid to itself and the most that it counts of each other member. So a
history that comes twice, with the owner of a shared member and with who stays behind, counts once.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, delete, select

from syncsvc.state.bulk import insert_rows
from syncsvc.state.database import as_list, one_of
from syncsvc.state.histories import COUNTED
from syncsvc.state.member import Member

_OF = select(COUNTED.c.source_id, COUNTED.c.points).where(COUNTED.c.heir_id == bindparam("b_heir"))
_INSERT = insert_rows(COUNTED, ("heir_id", "source_id", "points"))
_OLD = delete(COUNTED).where(one_of(COUNTED.c.heir_id, "b_heirs"))
_CLOSED = delete(COUNTED).where(one_of(COUNTED.c.source_id, "b_sources"))


class Counted:
    """What the members of one page count of others."""

    def __init__(self, connection: Connection) -> None:
        """Work inside the transaction of `connection`."""
        self._connection = connection
        self._of: dict[Member, dict[int, int]] = {}
        self._changed: dict[Member, None] = {}
        self._closed: set[int] = set()

    def of(self, member: Member) -> dict[int, int]:
        """Return what a member counts of others: points by the member that they were paid to."""
        return dict(self._counts(member))

    def own(self, member: Member) -> int:
        """Return the points that were paid to a member itself."""
        return member.credited - sum(self._counts(member).values())

    def empty(self, member: Member) -> dict[int, int]:
        """Return what a member counts of others, and let it count nothing of them.

        It begins anew: what others count of it is theirs for good, and no more compared with what it is paid.
        """
        counts = self._counts(member)
        self._of[member] = {}
        self._changed[member] = None
        assert member.id is not None  # noqa: S101 - only known members are left
        self._closed.add(member.id)
        return counts

    def refill(self, member: Member, counts: Mapping[int, int]) -> None:
        """Take back that a member was emptied."""
        self._of[member] = dict(counts)
        self._closed.discard(member.id or 0)

    def add(self, member: Member, parts: Mapping[int, int], *, lasting: bool = True) -> int:
        """Let a member count points by where they were paid; returns by how many it counts more.

        Those that are not `lasting` were paid before their member began anew.
        """
        counts, own, more = self._counts(member), self.own(member), 0
        for source, points in parts.items():
            known = own if source == member.id else counts.get(source, 0)
            if points > known:
                more += points - known
                if lasting and source != member.id:
                    counts[source] = points
        self._changed[member] = None
        return more

    def forget(self, member: Member, source: int) -> None:
        """Let what a member counts of another be its own, since it has taken all of it."""
        self._counts(member).pop(source, None)

    def save(self) -> None:
        """Write what has changed; the members have been inserted by now."""
        if not self._changed:
            return
        self._connection.execute(_OLD, {"b_heirs": as_list(it.id or 0 for it in self._changed)})
        if self._closed:
            self._connection.execute(_CLOSED, {"b_sources": as_list(self._closed)})
        rows = [
            (heir.id, source, points)
            for heir in self._changed
            for source, points in self._of[heir].items()
            if source not in self._closed
        ]
        _INSERT.run(self._connection, rows)

    def _counts(self, member: Member) -> dict[int, int]:
        if member not in self._of:
            rows = self._connection.execute(_OF, {"b_heir": member.id}) if member.id is not None else ()
            self._of[member] = {row.source_id: row.points for row in rows}
        return self._of[member]
