"""Points history that goes along: a merge or a new email brings what was credited to the member it leads to.

An heir inherits when it owns its member. Until then what it will bring is remembered in `inheritance`: its
record may not be read yet, be in quarantine, or share its member with a contact that was there first.

What is unsettled goes along too: with its rows where the member is left, else as a stake in them (`stakes`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, and_, bindparam, delete, select, tuple_

from syncsvc.state.books import Credit
from syncsvc.state.bulk import put_rows
from syncsvc.state.codes import Entry
from syncsvc.state.database import as_list, one_of
from syncsvc.state.member import Member
from syncsvc.state.stakes import Stakes
from syncsvc.state.tables import INHERITANCE


@dataclass(slots=True, eq=False)
class Bequest:
    """What an heir brings along from `source`.

    `taken` says that it was taken out of the source, with its unsettled rows; else the source lives on with
    it, the heir counts the same points as credited too, and has a stake in what is unsettled. `stored_for`
    is the record it is remembered for.
    """

    source: Member
    credited: int
    unsettled: int
    taken: bool = False
    stored_for: str | None = None


_REMEMBERED = select(INHERITANCE).where(
    INHERITANCE.c.connector_id == bindparam("b_connector"), one_of(INHERITANCE.c.record_id, "b_ids")
)
_WAITING = select(INHERITANCE.c.connector_id, INHERITANCE.c.record_id)
_PUT = put_rows(INHERITANCE)


class Inheritances:
    """What the contacts of one page leave behind and bring along."""

    def __init__(
        self, connection: Connection, connector_id: int, credits_: list[tuple[Member, Credit]]
    ) -> None:
        """Work inside the transaction of `connection`; moves of points are added to `credits_`."""
        self._connection = connection
        self._connector_id = connector_id
        self._credits = credits_
        self._stakes = Stakes(connection, connector_id)
        self._bequests: dict[str, list[Bequest]] = defaultdict(list)
        self._rows: dict[Member, Member] = {}
        self._staked: list[tuple[str, Bequest, Member | None]] = []
        self._done: list[tuple[str, Member]] = []

    def remembered(self, record_ids: Collection[str]) -> dict[str, list[tuple[int, int, int]]]:
        """Return what is remembered for these records: (id of the source, points, of stakes) by record."""
        these = {"b_connector": self._connector_id, "b_ids": as_list(record_ids)}
        rows = self._connection.execute(_REMEMBERED, these).all()
        staked = self._stakes.waiting([row.record_id for row in rows]) if rows else {}
        found = defaultdict(list)
        for row in rows:
            points = staked.get((row.record_id, row.member_id), 0)
            found[row.record_id].append((row.member_id, row.points, points))
        return found

    def remember(self, record_id: str, source: Member, points: int, staked: int) -> None:
        """Bring in what is remembered for a record."""
        self._bequests[record_id].append(Bequest(source, points, staked, stored_for=record_id))

    def bringing(self, heirs: Collection[tuple[int, str]]) -> set[tuple[int, str]]:
        """Return those of these contacts, of any connector, that have something to bring along yet."""
        if not heirs:
            return set()
        key = tuple_(INHERITANCE.c.connector_id, INHERITANCE.c.record_id)
        found = self._connection.execute(_WAITING.where(key.in_(heirs)))
        here = {(self._connector_id, it) for it in self._bequests}
        return {(row.connector_id, row.record_id) for row in found} | here.intersection(heirs)

    def take(self, source: Member, heir: str) -> None:
        """Set aside all that a member without contacts was credited, and what of it is unsettled."""
        self._bequests[heir].append(Bequest(source, source.credited, source.unsettled, taken=True))
        source.earned = source.credited = source.unsettled = 0

    def copy(self, source: Member, heir: str) -> None:
        """Let an heir count what a member was paid that lives on with other contacts.

        What of it is unsettled the heir counts as that, and as credited if its row lands.
        """
        self._bequests[heir].append(Bequest(source, source.credited, source.unsettled))

    def grant(self, source: Member, heir: str, points: int) -> None:
        """Let an heir count points as credited which a member that lives on has, or will be paid."""
        self._bequests[heir].append(Bequest(source, points, 0))

    def drop(self, source: Member, record_id: str) -> None:
        """Forget what was remembered of a member for a record that owned it again since.

        What this page brings it from there stays: it may be the heir of another contact that left.
        """
        found = self._bequests.pop(record_id, [])
        past = [it for it in found if it.source is source and it.stored_for is not None]
        self._done += [(record_id, source)] if past else []
        kept = [it for it in found if it not in past]
        if kept:
            self._bequests[record_id] = kept

    def pass_on(self, record_id: str, heir: str) -> None:
        """Let what a record would have brought along go to the one it was merged into."""
        found = self._bequests.pop(record_id, [])
        if found:
            self._bequests[heir] += found

    def waiting(self) -> list[str]:
        """Return the records that have something to bring along."""
        return list(self._bequests)

    def deposit(self, record_id: str, member: Member, is_left: Callable[[Member], bool]) -> list[Member]:
        """Let a record that owns `member` bring along what waits for it; returns the members that changed.

        `is_left` says whether a member has no contacts any more.
        """
        bequests = self._bequests.pop(record_id, [])
        for it in bequests:
            if it.stored_for is not None:
                self._done.append((it.stored_for, it.source))
                if it.source is not member and is_left(it.source):
                    it.credited, it.unsettled, it.taken = it.source.credited, it.source.unsettled, True
                    it.source.earned = it.source.credited = it.source.unsettled = 0
            if it.source is member:
                self._give_back(it)
            else:
                self._give(it, member)
                if not it.taken:
                    self._staked.append((record_id, it, member))
        return [member, *(it.source for it in bequests)] if bequests else []

    def keep(self) -> Iterable[Member]:
        """Give back what found no heir on this page and remember it; returns the members that changed."""
        for bequests in self._bequests.values():
            for it in bequests:
                if not it.taken:
                    continue
                if it.source.owner_record is None:
                    self._give_back(it)
                    it.source.earned = it.source.credited  # what never arrives is earned by the heir
                else:  # another contact has taken the member over, with a history of its own
                    it.source.unsettled += it.unsettled
                    self._credits.append((it.source, Credit(Entry.MOVED_OUT, -it.credited)))
                yield it.source

    def save(self) -> None:
        """Write what is remembered from now on, and to whom unsettled rows belong."""
        moved = {
            (record_id, it.source): it
            for record_id, bequests in self._bequests.items()
            for it in bequests
            if it.stored_for != record_id
        }
        self._done += [(it.stored_for, it.source) for it in moved.values() if it.stored_for is not None]
        staked = [*self._staked, *((record_id, it, None) for (record_id, _), it in moved.items())]
        staked = [it for it in staked if it[1].unsettled]
        new = [it for it in staked if it[1].stored_for is None]
        # Read before anything moves: these are the rows of before this page.
        rows = self._stakes.open_rows({_id(it.source) for _, it, _ in new}) if new else {}
        if self._rows:
            self._stakes.move({_id(source): _id(member) for source, member in self._rows.items()})
        for record_id, it, member in staked:
            if it.stored_for is not None:
                heir = None if member is None else _id(member)
                self._stakes.pass_on(it.stored_for, _id(it.source), record_id, heir)
        for record_id, source in self._done:
            self._forget(record_id, source)
        for record_id, it, member in new:
            heir = None if member is None else _id(member)
            self._stakes.hold(rows[_id(it.source)], _id(it.source), record_id, heir)
        kept = [(*it, bequest) for it, bequest in moved.items() if bequest.credited or bequest.unsettled]
        if kept:
            self._connection.execute(
                _PUT,
                [
                    {
                        "connector_id": self._connector_id,
                        "record_id": record_id,
                        "member_id": source.id,
                        "points": it.credited,
                    }
                    for record_id, source, it in kept
                ],
            )

    def _forget(self, record_id: str, source: Member) -> None:
        mine = and_(
            INHERITANCE.c.connector_id == self._connector_id,
            INHERITANCE.c.record_id == record_id,
            INHERITANCE.c.member_id == source.id,
        )
        self._connection.execute(delete(INHERITANCE).where(mine))
        self._stakes.drop(record_id, _id(source))

    @staticmethod
    def _give_back(it: Bequest) -> None:
        if it.taken:
            it.source.credited += it.credited
            it.source.unsettled += it.unsettled

    def _give(self, it: Bequest, member: Member) -> None:
        member.credited += it.credited
        member.unsettled += it.unsettled
        if it.credited:
            if it.taken:
                self._credits.append((it.source, Credit(Entry.MOVED_OUT, -it.credited)))
            self._credits.append((member, Credit(Entry.MOVED_IN, it.credited)))
        if it.unsettled and it.taken:
            self._rows[it.source] = member


def _id(member: Member) -> int:
    assert member.id is not None  # noqa: S101 - members are inserted before what they inherit is saved
    return member.id
