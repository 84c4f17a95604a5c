"""Recomputes the books from their rows: every sum, every proof, and the chain of the ledger.

    member.earned = what its owner's contact says        member.credited  = its ledger rows
    member.unsettled = its unsettled rows and stakes     member.open_batch = the batch its open row is in
    batch.points, row_count, outcome = its rows          landed and skipped rows = ledger rows, one to one
    each ledger row's digest follows from the one before  rows settled by a person = their decisions
    a balance that was set = its ledger rows until then

A ledger row that is removed or changed breaks the chain behind it; removed from the end, it is missed by the
member it credited and by the batch row it stands for. What was sent is kept as a digest only, since it
is personal: `batch.digest` cannot be recomputed, and is not. Of batches whose rows are older than the
history that is kept, the ledger alone is verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, func, or_, select

from syncsvc.rules.intake import ContactState
from syncsvc.rules.settling import Grade
from syncsvc.state.books import FIRST, Credit, link
from syncsvc.state.codes import Entry, Lane, Outcome
from syncsvc.state.database import Record
from syncsvc.state.scope import Scope
from syncsvc.state.stakes import unsettled_of
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, CONNECTOR, CONTACT, DECISION, LEDGER, MEMBER
from syncsvc.state.twice import Found

_PAGE = 1000
_SETTLED = {Outcome.LANDED: Entry.AWARDED, Outcome.SKIPPED: Entry.SKIPPED}


@dataclass(frozen=True, slots=True)
class Difference:
    """Where the books do not balance: the row, what is wrong with it, and what to do."""

    where: str
    what: str
    remedy: str


_COMPARE = "compare this row with a backup of the state from before; the side that agrees with it is right"
_CHANGED = (
    "a row was changed, removed or inserted here by hand: compare it and the one before it with a backup "
    "of the state from before"
)
_READ = "run `syncsvc sweep`: it reads the contact again; where it stays, compare with a backup"
_UNSETTLED = "stop the service and look at `syncsvc doubt`; the member is sent nothing, or too early"


class Audit:
    """The check behind `books --verify`."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope
        self._members = MEMBER.c.brand.in_(self._brands())
        self._batches = BATCH.c.brand.in_(self._brands())
        self._ledger = LEDGER.c.organization_id == scope.organization_id

    def differences(self) -> Iterator[Difference]:
        """Yield every difference, all of one moment, read in pages; nothing is written."""
        checks: tuple[Callable[[Connection], Iterator[Difference]], ...] = (
            self._chain,
            self._credited,
            self._unsettled,
            self._open,
            self._earned,
            self._of_batches,
            self._unproven_rows,
            self._unsent_entries,
            self._unrecorded,
            self._balances,
        )
        with self._scope.database.reading() as connection:
            for check in checks:
                yield from check(connection)

    def _brands(self) -> Select[tuple[int]]:
        return select(BRAND.c.id).where(BRAND.c.organization_id == self._scope.organization_id)

    def _chain(self, connection: Connection) -> Iterator[Difference]:
        before = FIRST
        for row in _stream(connection, select(LEDGER).where(self._ledger).order_by(LEDGER.c.id)):
            if row.digest != _follows(before, row):
                yield Difference(
                    _entry(row.id), "its digest does not follow from the row before it", _CHANGED
                )
            before = row.digest

    def _credited(self, connection: Connection) -> Iterator[Difference]:
        mine = select(_sum(LEDGER.c.points)).where(LEDGER.c.member_id == MEMBER.c.id, self._ledger)
        for row in self._unequal(connection, MEMBER.c.credited, mine.scalar_subquery()):
            what = f"{row.stored:,} points credited, but its ledger rows add up to {row.found:,}"
            yield Difference(_member(row), what, _COMPARE)

    def _unsettled(self, connection: Connection) -> Iterator[Difference]:
        for row in self._unequal(connection, MEMBER.c.unsettled, unsettled_of(MEMBER.c.id)):
            what = f"{row.stored:,} points unsettled, but its unsettled batch rows add up to {row.found:,}"
            yield Difference(_member(row), what, _COMPARE)

    def _open(self, connection: Connection) -> Iterator[Difference]:
        mine = select(func.min(BATCH_ROW.c.batch_id)).where(
            BATCH_ROW.c.member_id == MEMBER.c.id, BATCH_ROW.c.outcome < Outcome.HELD
        )
        for row in self._unequal(connection, MEMBER.c.open_batch, mine.scalar_subquery()):
            stored, found = (
                f"batch {it}" if it is not None else "no batch" for it in (row.stored, row.found)
            )
            yield Difference(
                _member(row), f"it waits for {stored}, but its open row is in {found}", _UNSETTLED
            )

    def _earned(self, connection: Connection) -> Iterator[Difference]:
        said = (
            select(CONTACT.c.points)
            .where(
                CONTACT.c.connector_id == MEMBER.c.owner_connector,
                CONTACT.c.record_id == MEMBER.c.owner_record,
                CONTACT.c.state == ContactState.ACTIVE,
                CONTACT.c.fingerprint.is_not(None),  # else it is about to be read anew
            )
            .scalar_subquery()
        )
        for row in self._unequal(connection, MEMBER.c.earned, func.coalesce(said, MEMBER.c.earned)):
            what = f"{row.stored:,} points earned, but its contact was read with {row.found:,}"
            yield Difference(_member(row), what, _READ)

    def _unequal(
        self, connection: Connection, stored: ColumnElement[Any], found: ColumnElement[Any]
    ) -> Iterator[Record]:
        named = (MEMBER.c.id, CONNECTOR.c.name, MEMBER.c.owner_record)
        listed = (
            select(*named, stored.label("stored"), found.label("found"))
            .outerjoin(CONNECTOR, CONNECTOR.c.id == MEMBER.c.owner_connector)
            .where(self._members, stored.is_distinct_from(found))
            .order_by(MEMBER.c.id)
        )
        return _stream(connection, listed)

    def _of_batches(self, connection: Connection) -> Iterator[Difference]:
        def of_rows(value: ColumnElement[Any]) -> Any:
            return select(value).where(BATCH_ROW.c.batch_id == BATCH.c.id).scalar_subquery()

        found = select(
            BATCH.c.id,
            BATCH.c.lane,
            BATCH.c.points,
            BATCH.c.row_count,
            BATCH.c.outcome,
            BATCH.c.settled_at,
            of_rows(_sum(BATCH_ROW.c.points)).label("sum"),
            of_rows(func.count()).label("count"),
            of_rows(func.min(BATCH_ROW.c.outcome)).label("least"),
        ).where(self._batches, BATCH.c.pruned == 0)
        for row in _stream(connection, found.order_by(BATCH.c.id)):
            where = f"batch {row.id}"
            if row.row_count != row.count:
                what = f"it was sent with {row.row_count:,} rows, of which {row.count:,} are there"
                yield Difference(where, what, _COMPARE)
            if row.lane == Lane.POINTS and row.points != row.sum:
                what = f"it was sent with {row.points:,} points, but its rows add up to {row.sum:,}"
                yield Difference(where, what, _COMPARE)
            if row.outcome != row.least or (row.outcome >= Outcome.LANDED) != (row.settled_at is not None):
                told = Outcome(row.outcome).name.lower()
                least = "unknown" if row.least is None else Outcome(row.least).name.lower()
                what = f"it counts as {told}, but the least settled of its rows is {least}"
                yield Difference(where, what, _UNSETTLED)

    def _unproven_rows(self, connection: Connection) -> Iterator[Difference]:
        mine = and_(
            LEDGER.c.batch_id == BATCH_ROW.c.batch_id,
            LEDGER.c.member_id == BATCH_ROW.c.member_id,
            self._ledger,
        )
        found = select(_sum(LEDGER.c.points)).where(mine).scalar_subquery()
        entries = select(func.count()).where(mine).scalar_subquery()
        settled = BATCH_ROW.c.outcome.in_(list(_SETTLED))
        awards = and_(BATCH.c.lane == Lane.POINTS, settled)
        listed = (
            select(BATCH_ROW, found.label("found"), entries.label("entries"), BATCH.c.lane)
            .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
            .where(
                self._batches,
                or_(
                    and_(awards, BATCH_ROW.c.points != found),
                    and_(awards, entries != case((BATCH_ROW.c.points == 0, 0), else_=1)),
                    and_(~settled, entries > 0),
                ),
            )
            .order_by(BATCH_ROW.c.batch_id, BATCH_ROW.c.position)
        )
        for row in _stream(connection, listed):
            outcome = Outcome(row.outcome).name.lower()
            what = (
                f"{row.points:,} points of member {row.member_id}, {outcome}, but the ledger has "
                f"{row.entries} rows of {row.found:,} points for it"
            )
            yield Difference(f"batch {row.batch_id} row {row.position}", what, _COMPARE)

    def _unsent_entries(self, connection: Connection) -> Iterator[Difference]:
        """Find ledger rows that no settled row, or nobody of this organization, stands behind."""
        for outcome, entry in _SETTLED.items():
            row_of = select(BATCH_ROW.c.position).where(
                BATCH_ROW.c.member_id == LEDGER.c.member_id,
                BATCH_ROW.c.batch_id == LEDGER.c.batch_id,
                BATCH_ROW.c.outcome == outcome,
            )
            pruned = select(BATCH.c.id).where(BATCH.c.id == LEDGER.c.batch_id, BATCH.c.pruned == 1)
            unsent = and_(LEDGER.c.entry == entry, ~row_of.exists(), ~pruned.exists())
            listed = select(LEDGER).where(self._ledger, unsent)
            for row in _stream(connection, listed.order_by(LEDGER.c.id)):
                what = (
                    f"{row.points:,} points of member {row.member_id} {entry.name.lower()} by batch "
                    f"{row.batch_id}, which has no row of it that is {outcome.name.lower()}"
                )
                yield Difference(_entry(row.id), what, _COMPARE)
        owner = select(MEMBER.c.id).where(MEMBER.c.id == LEDGER.c.member_id, self._members)
        strange = or_(
            ~owner.exists(),
            and_(LEDGER.c.entry.not_in(list(_SETTLED.values())), LEDGER.c.batch_id.is_not(None)),
        )
        for row in _stream(connection, select(LEDGER).where(self._ledger, strange).order_by(LEDGER.c.id)):
            what = (
                f"{row.points:,} points of member {row.member_id}, which are no member's of this organization"
            )
            if row.batch_id is not None:
                what = (
                    f"{row.points:,} points that no import awarded, yet batch {row.batch_id} stands by them"
                )
            yield Difference(_entry(row.id), what, _COMPARE)

    def _balances(self, connection: Connection) -> Iterator[Difference]:
        """Find rows that set a balance (points = "set") to which the ledger of their member does not add up.

        Rows of profiles that stand in the ledger have set one; those that changed none stand in no ledger.
        """
        before = LEDGER.alias("before")
        until = and_(before.c.member_id == LEDGER.c.member_id, before.c.id <= LEDGER.c.id)
        reached = select(_sum(before.c.points)).where(until).scalar_subquery()
        listed = (
            select(LEDGER.c.id, BATCH_ROW.c.member_id, BATCH_ROW.c.points, reached.label("reached"))
            .join(BATCH, BATCH.c.id == LEDGER.c.batch_id)
            .join(
                BATCH_ROW,
                and_(BATCH_ROW.c.batch_id == BATCH.c.id, BATCH_ROW.c.member_id == LEDGER.c.member_id),
            )
            .where(self._ledger, BATCH.c.lane == Lane.PROFILE, BATCH_ROW.c.points != reached)
            .order_by(LEDGER.c.id)
        )
        for row in _stream(connection, listed):
            what = (
                f"member {row.member_id} was set to {row.points:,} points, but its ledger rows add up to "
                f"{row.reached:,} there"
            )
            yield Difference(_entry(row.id), what, _COMPARE)

    def _unrecorded(self, connection: Connection) -> Iterator[Difference]:
        """Find rows that were settled in the name of a person, and decisions that settled nothing."""
        said = DECISION.c.batch_id == BATCH_ROW.c.batch_id, DECISION.c.position == BATCH_ROW.c.position
        settles = DECISION.c.choice.not_in(list(Found))  # what people find out later settles nothing
        decided = select(DECISION.c.id).where(*said, settles, DECISION.c.points == BATCH_ROW.c.points)
        listed = (
            select(BATCH_ROW)
            .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
            .where(self._batches, (BATCH_ROW.c.grade == Grade.PERSON) != decided.exists())
        )
        for row in _stream(connection, listed.order_by(BATCH_ROW.c.batch_id, BATCH_ROW.c.position)):
            what = f"its {row.points:,} points and what a person decided on them (`doubt --history`) differ"
            yield Difference(f"batch {row.batch_id} row {row.position}", what, _COMPARE)


def _follows(before: bytes, row: Record) -> bytes | None:
    """Return the digest a ledger row should have, None where it holds what no row can."""
    try:
        entry, grade = Entry(row.entry), Grade(row.grade)
    except ValueError:
        return None
    return link(before, Credit(entry, row.points, grade, row.batch_id, row.member_id), row.at)


def _sum(points: ColumnElement[Any]) -> ColumnElement[int]:
    return func.coalesce(func.sum(points), 0)


def _stream(connection: Connection, statement: Select[Any]) -> Iterator[Record]:
    yield from connection.execute(statement, execution_options={"yield_per": _PAGE})


def _entry(number: int) -> str:
    return f"ledger row {number}"


def _member(row: Record) -> str:
    owner = f"{row.name} {row.owner_record}" if row.owner_record is not None else "owned by no contact"
    return f"member {row.id} ({owner})"
