"""What the books say: an organization's points by member, cycle, batch and day, and on what they rest."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal_column, select

from syncsvc.state.codes import Entry, Lane, Outcome
from syncsvc.state.database import Record, from_ms
from syncsvc.state.histories import STAKE
from syncsvc.state.scope import UNSETTLED_BATCHES, Scope
from syncsvc.state.stakes import OF_ITS_ROW, unsettled_of
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, CONNECTOR, LEDGER, MEMBER
from syncsvc.state.twice import PaidTwice, found_twice, paid_twice
from syncsvc.state.witness import WitnessStanding, witness_standings

_DAY_MS = timedelta(days=1) // timedelta(milliseconds=1)
_PAGE = 1000


class By(StrEnum):
    """What the books can be listed by."""

    MEMBER = "member"
    CYCLE = "cycle"
    BATCH = "batch"
    DAY = "day"


@dataclass(frozen=True, slots=True)
class Rest:
    """How many points stand in the ledger for one reason, on one grade of evidence."""

    entry: str
    grade: str
    rows: int
    points: int


@dataclass(frozen=True, slots=True)
class Summary:
    """An organization's points: `earned = credited + in_flight + in_doubt + held + owed - fallen_behind`.

    `fallen_behind` are points by which totals in the CRM fell below what was credited: later growth makes
    them good first. `mode` is the configured `wallet.points`. `paid_twice` are rows of which the wallet may
    have awarded more than the books hold, and that nobody has looked into yet; `found_twice` are points of
    which somebody found so. Points of `witnesses` are nobody's, and stand beside these books.
    """

    mode: str
    members: int
    earned: int
    credited: int
    in_flight: int
    in_doubt: int
    held: int
    owed: int
    fallen_behind: int
    members_fallen: int
    ledger_rows: int
    rests_on: tuple[Rest, ...]
    paid_twice: tuple[PaidTwice, ...]
    found_twice: int
    witnesses: tuple[WitnessStanding, ...]


class Accounts:
    """The queries behind `books`."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def summary(self) -> Summary:
        """Return the sums of the whole organization, all of one moment."""
        owed = _owed()
        members = select(
            func.count(),
            _sum(MEMBER.c.earned),
            _sum(MEMBER.c.credited),
            func.coalesce(func.sum(owed).filter(owed > 0), 0),
            func.coalesce(-func.sum(owed).filter(owed < 0), 0),
            func.count().filter(owed < 0),
        ).where(MEMBER.c.brand.in_(self._brands()))
        unsettled = (
            select(*[_sum(BATCH_ROW.c.points, BATCH_ROW.c.outcome == it) for it in _UNSETTLED])
            .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
            .where(UNSETTLED_BATCHES, BATCH.c.lane == Lane.POINTS)
        )
        staked = (
            select(*[_sum(STAKE.c.points, BATCH_ROW.c.outcome == it) for it in _UNSETTLED])
            .join(BATCH_ROW, OF_ITS_ROW)
            .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
            .where(UNSETTLED_BATCHES, STAKE.c.heir_id.is_not(None))
        )
        rests = (
            select(LEDGER.c.entry, LEDGER.c.grade, func.count(), func.sum(LEDGER.c.points))
            .where(LEDGER.c.organization_id == self._scope.organization_id)
            .group_by(LEDGER.c.entry, LEDGER.c.grade)
            .order_by(LEDGER.c.entry, LEDGER.c.grade)
        )
        with self._scope.database.reading() as connection:
            count, earned, credited, positive, fallen, behind = connection.execute(members).one()
            counted = [connection.execute(it, self._scope.bound()).one() for it in (unsettled, staked)]
            in_flight, in_doubt, held = (sum(both) for both in zip(*counted, strict=True))
            found = [
                Rest(Entry(entry).name.lower(), grade, rows, points)
                for entry, grade, rows, points in connection.execute(rests)
            ]
            twice = tuple(paid_twice(connection, self._scope))
            found_so = found_twice(connection, self._scope)
            witnesses = tuple(witness_standings(connection, self._scope))
        return Summary(
            mode=self._scope.rules.points,
            members=count,
            earned=earned,
            credited=credited,
            in_flight=in_flight,
            in_doubt=in_doubt,
            held=held,
            owed=positive,
            fallen_behind=fallen,
            members_fallen=behind,
            ledger_rows=sum(it.rows for it in found),
            rests_on=tuple(found),
            paid_twice=twice,
            found_twice=found_so,
            witnesses=witnesses,
        )

    def witnesses(self) -> list[WitnessStanding]:
        """Return how the witness stands in each brand."""
        with self._scope.database.reading() as connection:
            return witness_standings(connection, self._scope)

    def adopted(self) -> int:
        """Return the points that count as credited since they were in the wallet already."""
        mine = LEDGER.c.organization_id == self._scope.organization_id
        with self._scope.database.reading() as connection:
            return (
                connection.scalar(select(_sum(LEDGER.c.points)).where(mine, LEDGER.c.entry == Entry.ADOPTED))
                or 0
            )

    def rows(self, by: By, *, show_values: bool = False) -> Generator[dict[str, Any]]:
        """Yield the books line by line: the newest first, members in order.

        A member is named by its number and the CRM record that owns it; by email only with `show_values`.
        Read while it is yielded, all of one moment, in pages.
        """
        statement, build = {
            By.MEMBER: (self._members(), _member),
            By.CYCLE: (self._ledger(func.coalesce(BATCH.c.cycle, literal_column("''"))), _cycle),
            By.DAY: (self._ledger(LEDGER.c.at // literal_column(str(_DAY_MS))), _day),
            By.BATCH: (self._batches(), _batch),
        }[by]
        with self._scope.database.reading() as connection:
            for row in _stream(connection, statement):
                line = build(row)
                if show_values and by is By.MEMBER:
                    line["email"] = row.email or row.email_key
                yield line

    def _members(self) -> Select[Any]:
        unsettled = [
            unsettled_of(MEMBER.c.id, BATCH_ROW.c.outcome == outcome).label(outcome.name.lower())
            for outcome in _UNSETTLED
        ]
        listed = select(
            MEMBER.c.id,
            MEMBER.c.email_key,
            MEMBER.c.email,
            MEMBER.c.owner_record,
            MEMBER.c.earned,
            MEMBER.c.credited,
            _owed().label("owed"),
            BRAND.c.brand_id,
            CONNECTOR.c.name,
            *unsettled,
        )
        return (
            listed.join(BRAND, BRAND.c.id == MEMBER.c.brand)
            .outerjoin(CONNECTOR, CONNECTOR.c.id == MEMBER.c.owner_connector)
            .where(MEMBER.c.brand.in_(self._brands()))
            .order_by(MEMBER.c.id)
        )

    def _ledger(self, key: ColumnElement[Any]) -> Select[Any]:
        sums = [
            _sum(LEDGER.c.points, LEDGER.c.entry.in_(them)).label(name) for name, them in _COLUMNS.items()
        ]
        return (
            select(
                key.label("key"),
                func.count().label("rows"),
                func.count(LEDGER.c.member_id.distinct()).label("members"),
                func.min(LEDGER.c.at).label("first"),
                func.sum(LEDGER.c.points).label("credited"),
                *sums,
            )
            .outerjoin(BATCH, BATCH.c.id == LEDGER.c.batch_id)
            .where(LEDGER.c.organization_id == self._scope.organization_id)
            .group_by(key)
            .order_by(func.max(LEDGER.c.id).desc())
        )

    def _batches(self) -> Select[Any]:
        def points(condition: ColumnElement[bool]) -> Any:
            of_batch = select(_sum(BATCH_ROW.c.points)).where(BATCH_ROW.c.batch_id == BATCH.c.id, condition)
            return of_batch.scalar_subquery()

        outcomes = [points(BATCH_ROW.c.outcome == it).label(it.name.lower()) for it in Outcome]
        return (
            select(BATCH, BRAND.c.brand_id, *outcomes)
            .join(BRAND, BRAND.c.id == BATCH.c.brand)
            .where(BATCH.c.brand.in_(self._brands()), BATCH.c.lane == Lane.POINTS, BATCH.c.pruned == 0)
            .order_by(BATCH.c.id.desc())
        )

    def _brands(self) -> Select[tuple[int]]:
        return select(BRAND.c.id).where(BRAND.c.organization_id == self._scope.organization_id)


_UNSETTLED = (Outcome.OPEN, Outcome.DOUBT, Outcome.HELD)
_COLUMNS = {
    "awarded": [Entry.AWARDED],
    "skipped": [Entry.SKIPPED],
    "adopted": [Entry.ADOPTED],
    "moved": [Entry.MOVED_OUT, Entry.MOVED_IN],
}


def _sum(points: ColumnElement[Any], condition: ColumnElement[bool] | None = None) -> ColumnElement[int]:
    added = func.sum(points)
    return func.coalesce(added if condition is None else added.filter(and_(condition)), 0)


def _owed() -> ColumnElement[int]:
    return MEMBER.c.earned - MEMBER.c.credited - MEMBER.c.unsettled


def _stream(connection: Connection, statement: Select[Any]) -> Iterator[Record]:
    yield from connection.execute(statement, execution_options={"yield_per": _PAGE})


def _member(row: Record) -> dict[str, Any]:
    return {
        "member": row.id,
        "brand": row.brand_id,
        "connector": row.name,
        "record": row.owner_record,
        "earned": row.earned,
        "credited": row.credited,
        "in_flight": row.open,
        "in_doubt": row.doubt,
        "held": row.held,
        "owed": max(row.owed, 0),
        "fallen_behind": max(-row.owed, 0),
    }


def _entries(row: Record) -> dict[str, Any]:
    named = {name: getattr(row, name) for name in _COLUMNS}
    return {"rows": row.rows, "members": row.members, **named, "credited": row.credited}


def _cycle(row: Record) -> dict[str, Any]:
    return {"cycle": row.key or None, "since": from_ms(row.first), **_entries(row)}


def _day(row: Record) -> dict[str, Any]:
    return {"day": from_ms(row.key * _DAY_MS).date().isoformat(), **_entries(row)}


def _batch(row: Record) -> dict[str, Any]:
    return {
        "batch": row.id,
        "brand": row.brand_id,
        "cycle": row.cycle,
        "sent_at": from_ms(row.sent_at or row.claimed_at),
        "rows": row.row_count,
        "points": row.points,
        "landed": row.landed,
        "in_flight": row.open,
        "in_doubt": row.doubt,
        "held": row.held,
        "not_applied": row.refuted + row.released + row.refused,
        "skipped": row.skipped,
        "import_id": row.import_id,
    }
