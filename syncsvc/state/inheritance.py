"""Points history that goes along: a merge or a new email brings what was credited to the member it leads to.

An heir inherits when it owns its member. Until then what it will bring is remembered in `inheritance`: its
record may not be read yet, be in quarantine, or share its member with a contact that was there first.

Where nobody stays at a member, it is emptied: its points and its unsettled rows go along, and it begins anew
for whoever comes. Where others stay, it keeps both, and the heir counts them too: what was paid, once
(`counted`), and what is unsettled, by a stake (`stakes`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import chain

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    case,
    delete,
    literal_column,
    or_,
    select,
    tuple_,
    update,
)

from syncsvc.state.bequest import Bequest, Remembered, both, kept, parts_of
from syncsvc.state.books import Credit
from syncsvc.state.bulk import put_rows
from syncsvc.state.codes import Entry
from syncsvc.state.counted import Counted, Origin
from syncsvc.state.database import as_list, one_of
from syncsvc.state.histories import INHERITANCE
from syncsvc.state.member import Member
from syncsvc.state.stakes import OpenRow, Stakes, stake_of

_REMEMBERED = select(INHERITANCE).where(
    INHERITANCE.c.connector_id == bindparam("b_connector"), one_of(INHERITANCE.c.record_id, "b_ids")
)
_BRINGS = select(
    INHERITANCE.c.connector_id, INHERITANCE.c.record_id, INHERITANCE.c.member_id, INHERITANCE.c.life
).where(or_(INHERITANCE.c.points > 0, stake_of(INHERITANCE).exists()))
_PUT = put_rows(INHERITANCE)
_IS_OWED = and_(INHERITANCE.c.member_id == bindparam("b_source"), INHERITANCE.c.owed > literal_column("0"))
_OWED = select(INHERITANCE.c.connector_id, INHERITANCE.c.record_id).where(_IS_OWED)
_OWING = select(INHERITANCE.c.member_id).where(
    one_of(INHERITANCE.c.member_id, "b_sources"), INHERITANCE.c.owed > literal_column("0")
)
_LESS: ColumnElement[int] = bindparam("b_unpaid")
_UNPAID = (
    update(INHERITANCE)
    .where(_IS_OWED)
    .values(
        points=INHERITANCE.c.points - case((INHERITANCE.c.owed < _LESS, INHERITANCE.c.owed), else_=_LESS),
        owed=0,
    )
)


class Inheritances:
    """What the contacts of one page leave behind and bring along."""

    def __init__(
        self,
        connection: Connection,
        connector_id: int,
        credits_: list[tuple[Member, Credit]],
        *,
        counts: bool,
    ) -> None:
        """Work inside the transaction of `connection`; moves of points are added to `credits_`.

        Where balances are set, nobody `counts` what was paid elsewhere: what waits is forgotten.
        """
        self._counts = counts
        self._connection = connection
        self._connector_id = connector_id
        self._credits = credits_
        self._stakes = Stakes(connection, connector_id)
        self._counted = Counted(connection)
        self._bequests: dict[str, list[Bequest]] = defaultdict(list)
        self._rows: dict[Member, dict[tuple[int, int], int]] = {}
        self._empty: set[Member] = set()
        self._emptied: dict[Member, Member] = {}
        self._staked: list[tuple[str, Bequest, Member]] = []
        self._done: list[tuple[str, Member]] = []
        self._unpaid: list[tuple[int, int, list[OpenRow]]] = []

    def remembered(self, record_ids: Collection[str]) -> Mapping[str, list[Remembered]]:
        """Return what is remembered for these records."""
        these = {"b_connector": self._connector_id, "b_ids": as_list(record_ids)}
        rows = self._connection.execute(_REMEMBERED, these).all()
        staked = self._stakes.waiting([row.record_id for row in rows]) if rows else {}
        found = defaultdict(list)
        for row in rows:
            shares = staked.get((row.record_id, row.member_id), [])
            what = Remembered(row.member_id, row.points, row.owed, parts_of(row), shares)
            found[row.record_id].append(what)
        return found

    def remember(self, record_id: str, source: Member, what: Remembered) -> None:
        """Bring in what is remembered for a record of a member."""
        bequest = Bequest(source, what.points, what.rows, what.parts, what.owed, stored_for=record_id)
        self._bequests[record_id].append(bequest)

    def bringing(self, heirs: Mapping[tuple[int, str], Member]) -> set[tuple[int, str]]:
        """Return those of these contacts, of any connector, that have something to bring to these members."""
        if not heirs:
            return set()
        key = tuple_(INHERITANCE.c.connector_id, INHERITANCE.c.record_id)
        rows = self._connection.execute(_BRINGS.where(key.in_(list(heirs)))).all()
        found = [((row.connector_id, row.record_id), Origin(row.member_id, row.life)) for row in rows]
        stored = {it for it, origin in found if origin != self._counted.now(heirs[it])}
        return stored | {(self._connector_id, it) for it in self._bequests}.intersection(heirs)

    def take(self, source: Member, heir: str) -> None:
        """Empty a member without contacts for an heir: all that it was credited, and what is unsettled."""
        bequest = Bequest(source, 0, [])
        self._empty_for(bequest)
        self._bequests[heir].append(bequest)

    def copy(self, source: Member, heir: str) -> None:
        """Let an heir count what a member was paid, and what is unsettled; others stay with it."""
        rows = self._stakes.open_rows(_id(source)) if source.unsettled else []
        parts = self._counted.parts(source, source.credited)
        self._bequests[heir].append(Bequest(source, source.credited, rows, parts))

    def grant(self, source: Member, heir: str) -> None:
        """Let an heir count what a member was paid that lives on alone, and what it is yet to be paid.

        Of what is unsettled beyond that, and not to be sent again where it did not arrive, it has a stake.
        """
        points = max(source.credited, source.earned)
        beyond = source.credited + source.unsettled - points
        rows = []
        for row in self._stakes.open_rows(_id(source)) if beyond > 0 else ():
            rows.append(row._replace(points=min(row.points, beyond)))
            beyond -= rows[-1].points
        kept = [row for row in rows if row.points]
        owed = points - source.credited
        self._bequests[heir].append(Bequest(source, points, kept, self._counted.parts(source, points), owed))

    def stop_paying(self, member: Member) -> None:
        """Let nobody count what a member is owed and will not be paid, as another contact has it now.

        Who did so has a stake in what is unsettled instead.
        """
        if member.id is None:
            return
        unpaid = max(0, member.earned - member.credited)
        rows = self._stakes.open_rows(member.id) if unpaid and member.unsettled else []
        self._unpaid.append((member.id, unpaid, rows))
        for it in chain.from_iterable(self._bequests.values()):
            if it.source is member and it.owed:
                own = next(iter(it.parts))
                less = min(it.owed, unpaid)
                it.credited, it.parts = it.credited - less, {**it.parts, own: it.parts[own] - less}
                it.owed, it.rows = 0, rows if unpaid else it.rows

    def drop(self, source: Member, record_id: str) -> None:
        """Forget what was remembered of a member's present life for a record that owned it again since.

        What this page brings it from there stays: it may be the heir of another contact that left.
        """
        found = self._bequests.pop(record_id, [])
        mine = [it for it in found if it.source is source and it.stored_for is not None]
        past = [it for it in mine if next(iter(it.parts)) == self._counted.now(source)]
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

    def come_back(self, record_id: str, member: Member) -> None:
        """Let a member count what it was paid for a record that is about to own it again.

        Others may have taken that along since.
        """
        for it in self._bequests.get(record_id, ()) if self._counts else ():
            if it.source is member and it.stored_for is not None:
                self._make_up(it, member)

    def deposit(self, record_id: str, member: Member, is_left: Callable[[Member], bool]) -> list[Member]:
        """Let a record that owns `member` bring along what waits for it; returns the members that changed.

        `is_left` says whether a member has no contacts any more.
        """
        if not self._counts:
            waited = self._bequests.pop(record_id, [])
            self._done += [(it.stored_for, it.source) for it in waited if it.stored_for is not None]
            return []
        for it in self._bequests.get(record_id, ()):
            if it.owed and it.source is not member and not is_left(it.source):
                self.stop_paying(it.source)
                it.source.earned = min(it.source.earned, it.source.credited)  # it is earned by the heir now
        bequests = self._bequests.pop(record_id, [])
        for it in bequests:
            if it.stored_for is not None:
                self._done.append((it.stored_for, it.source))
            if it.source is member:
                self._give_back(it)
                if not it.taken:
                    self._stake(record_id, it, member)
            elif it.stored_for is not None and is_left(it.source):
                self._make_up(it, member)
                self._stake(record_id, it, member)
                if it.source not in self._empty:
                    rest = Bequest(it.source, 0, [])
                    self._empty_for(rest)
                    self._give(record_id, rest, member)
            else:
                self._give(record_id, it, member)
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
        moved = [
            (record_id, it)
            for record_id, bequests in self._bequests.items()
            for it in bequests
            if it.stored_for != record_id
        ]
        if self._unpaid:
            asked = {"b_sources": as_list(source_id for source_id, _, _ in self._unpaid)}
            owing = set(self._connection.scalars(_OWING, asked))
            for source_id, unpaid, rows in self._unpaid:
                if source_id in owing:
                    self._stop_paying(source_id, unpaid, rows)
        if self._emptied:
            self._stakes.move({_id(source): _id(member) for source, member in self._emptied.items()})
        changed = {(record_id, it.source) for record_id, it in moved}
        waiting = self._waiting(changed)
        self._done += [(it.stored_for, it.source) for _, it in moved if it.stored_for is not None]
        self._done += changed  # what was remembered there before is part of what is from now on
        for record_id, source in self._done:
            self._forget(record_id, source)
        for record_id, it, member in self._staked:
            self._stakes.give(it.rows, _id(it.source), record_id, _id(member))
        for (record_id, source), it in waiting.items():
            self._stakes.give(it.rows, _id(source), record_id, None)
        if self._rows:
            self._stakes.count_once(_id(member) for member in self._rows)
        self._counted.save()
        self._put(waiting)

    def _stop_paying(self, source: int, unpaid: int, rows: Sequence[OpenRow]) -> None:
        this = {"b_source": source}
        waiting = self._connection.execute(_OWED, this).all() if rows else []
        for it in waiting:  # who had a stake in a part of them has one in the whole
            self._stakes.drop(it.record_id, source, connector=it.connector_id)
            self._stakes.give(rows, source, it.record_id, None, connector=it.connector_id)
        self._connection.execute(_UNPAID, {**this, "b_unpaid": unpaid})

    def _waiting(self, changed: Collection[tuple[str, Member]]) -> dict[tuple[str, Member], Bequest]:
        """Return what records bring from members from now on: all of it, once, where it comes twice."""
        found: dict[tuple[str, Member], Bequest] = {}
        for record_id, bequests in self._bequests.items():
            for it in bequests:
                key = record_id, it.source
                if key in changed and (it.credited or it.rows):
                    found[key] = both(found[key], it) if key in found else it
        return found

    def _put(self, waiting: Mapping[tuple[str, Member], Bequest]) -> None:
        if waiting:
            self._connection.execute(
                _PUT,
                [
                    {
                        "connector_id": self._connector_id,
                        "record_id": record_id,
                        "member_id": source.id,
                        "points": it.credited,
                        "owed": it.owed,
                        **kept(source.id or 0, it.parts),
                    }
                    for (record_id, source), it in waiting.items()
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

    def _empty_for(self, it: Bequest) -> None:
        """Let a member that is left begin anew, and all that it has be a bequest."""
        source, it.taken = it.source, True
        self.stop_paying(source)
        it.rows = self._stakes.open_rows(_id(source)) if source.unsettled else []
        it.credited, it.parts = source.credited, self._counted.parts(source, source.credited)
        self._counted.empty(source)
        source.earned = source.credited = source.unsettled = 0
        self._empty.add(source)

    def _give_back(self, it: Bequest) -> None:
        if it.taken:
            it.source.credited += it.credited
            it.source.unsettled += it.unsettled
            self._counted.refill(it.source, it.parts)
            self._empty.discard(it.source)

    def _make_up(self, it: Bequest, member: Member) -> None:
        """Let a member count what is remembered, though others may have taken it along since.

        Not what the source was owed and has not been paid: nobody waits for that any more.
        """
        source, own = it.source, next(iter(it.parts))
        unpaid = min(it.owed, max(0, source.earned - source.credited))
        parts = {**it.parts, own: it.parts[own] - unpaid}
        self._credit(member, self._counted.add(member, parts))

    def _give(self, record_id: str, it: Bequest, member: Member) -> None:
        if it.taken and it.credited:
            self._credits.append((it.source, Credit(Entry.MOVED_OUT, -it.credited)))
        self._credit(member, self._counted.add(member, it.parts))
        if it.taken:
            self._emptied[it.source] = member
            self._count_rows(it.rows, member)
        else:
            self._stake(record_id, it, member)

    def _stake(self, record_id: str, it: Bequest, member: Member) -> None:
        """Let a member count rows that stay on another account, or were moved to another by now."""
        if it.rows:
            self._staked.append((record_id, it, member))
            self._count_rows(it.rows, member)

    def _count_rows(self, rows: Iterable[OpenRow], member: Member) -> None:
        """Let a member count rows as unsettled, each once."""
        if member not in self._rows:
            known = member.id is not None and member not in self._empty
            found = self._stakes.open_rows(_id(member)) if known else []
            self._rows[member] = {(row.batch_id, row.position): row.points for row in found}
        mine = self._rows[member]
        for row in rows:
            key = row.batch_id, row.position
            before, mine[key] = mine.get(key, 0), max(mine.get(key, 0), row.points)
            member.unsettled += mine[key] - before

    def _credit(self, member: Member, points: int) -> None:
        if points:
            member.credited += points
            self._credits.append((member, Credit(Entry.MOVED_IN, points)))


def _id(member: Member) -> int:
    assert member.id is not None  # noqa: S101 - members are inserted before what they inherit is saved
    return member.id
