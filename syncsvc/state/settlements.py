"""Settles batches: what became of each row, under the id it was claimed by.

Only here does an award become credited; `membership` credits what was adopted or moved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Update,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    null,
    select,
    update,
)

from syncsvc.config import Points
from syncsvc.rules.settling import Grade
from syncsvc.state.books import Credit, append
from syncsvc.state.bulk import Bulk, put_rows, update_rows
from syncsvc.state.codes import Entry, Lane, Outcome
from syncsvc.state.database import Record, as_list, change_row, one_of, to_ms
from syncsvc.state.doubtful import DoubtfulBatch, doubtful
from syncsvc.state.late import latest, send_unproven_again, unsure
from syncsvc.state.payloads import OF_MEMBER, silence
from syncsvc.state.scope import UNSETTLED_BATCHES, Scope
from syncsvc.state.stakes import count
from syncsvc.state.stakes import settle as settle_stakes
from syncsvc.state.tables import BATCH, BATCH_ROW, MEMBER, PAYLOAD, QUARANTINE


class Ruling(NamedTuple):
    """What became of a row, and on what it rests; `field` is the one the wallet refused."""

    outcome: Outcome
    grade: Grade
    field: str = ""

    @property
    def may_land_late(self) -> bool:
        """Whether a row may be applied yet for all that is known, while others of its member are sent."""
        match self.outcome:
            case Outcome.HELD | Outcome.RELEASED | Outcome.SKIPPED:
                return True
            case Outcome.REFUTED:
                return self.grade is not Grade.ANSWER
            case _:
                return self.grade is Grade.WINDOW

    @property
    def may_be_under_way(self) -> bool:
        """Whether a row may be applied yet since the wallet itself did not say what became of it."""
        return self.outcome is Outcome.RELEASED or self.grade is not Grade.ANSWER


class _OpenRow(NamedTuple):
    """A row of a batch without a final outcome; a row of the database costs more at each look."""

    position: int
    member_id: int
    account_id: int | None
    points: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What is remembered of an answer."""

    status: int | None = None
    import_id: str | None = None
    imported: int | None = None
    detail: str = ""


_CREDITS = {Outcome.LANDED, Outcome.SKIPPED}
_UNSETTLED = {Outcome.DOUBT, Outcome.HELD}
_BATCH = select(BATCH).where(BATCH.c.id == bindparam("b_batch"))
_OF_BATCH = BATCH_ROW.c.batch_id == bindparam("b_batch")
_OPEN_ROWS = (
    select(BATCH_ROW.c.position, BATCH_ROW.c.member_id, BATCH_ROW.c.account_id, BATCH_ROW.c.points)
    .where(_OF_BATCH, BATCH_ROW.c.outcome < Outcome.LANDED)
    .order_by(BATCH_ROW.c.position)
)
_LEAST = select(func.min(BATCH_ROW.c.outcome)).where(_OF_BATCH)
_THESE = and_(_OF_BATCH, one_of(BATCH_ROW.c.position, "b_positions"))
"""The condition for rows of a batch by position; `_OF_MEMBERS` joins their members."""
_OF_MEMBERS = and_(_THESE, MEMBER.c.id == BATCH_ROW.c.member_id)
_RULED = update(BATCH_ROW).where(_THESE).values(outcome=bindparam("b_outcome"), grade=bindparam("b_grade"))
_BALANCES = select(MEMBER.c.id, MEMBER.c.credited).where(_OF_MEMBERS)
_OWNERS = select(MEMBER.c.owner_connector, MEMBER.c.owner_record).where(
    _OF_MEMBERS, MEMBER.c.owner_record.is_not(None)
)
_OVERWRITTEN = select(MEMBER.c.id, MEMBER.c.delivered).where(
    _OF_MEMBERS, MEMBER.c.delivered.is_not(None), MEMBER.c.delivered.is_distinct_from(BATCH_ROW.c.fingerprint)
)
_UNSURE = update_rows(MEMBER, ("id",), ("delivered",))
_KEPT = (
    select(PAYLOAD.c.member_id, PAYLOAD.c.content)
    .join(MEMBER, OF_MEMBER)
    .join(BATCH_ROW, BATCH_ROW.c.member_id == MEMBER.c.id)
    .where(_THESE, MEMBER.c.wanted == BATCH_ROW.c.fingerprint)
)
_ANY_LATE = (
    select(MEMBER.c.id)
    .where(MEMBER.c.brand == bindparam("b_brand"), MEMBER.c.late_until.is_not(None))
    .limit(1)
)
_KEPT_FOR_LATE = _KEPT.where(MEMBER.c.late_until.is_not(None))
_REFUSED = put_rows(QUARANTINE)
_OF_MEMBER = update(MEMBER).where(MEMBER.c.id == bindparam("b_id"))
_POINTS: ColumnElement[int] = bindparam("b_points")
_CREDITED = Bulk(_OF_MEMBER.values(credited=MEMBER.c.credited + _POINTS), ["b_points", "b_id"])
_FREED = Bulk(_OF_MEMBER.values(unsettled=MEMBER.c.unsettled - _POINTS), ["b_points", "b_id"])
_ABANDONED = select(BATCH.c.id, BATCH.c.lane, BATCH.c.row_count).where(
    UNSETTLED_BATCHES, BATCH.c.outcome == Outcome.OPEN
)
_ANY_DOUBT = select(BATCH.c.id).where(UNSETTLED_BATCHES, BATCH.c.outcome == Outcome.DOUBT).limit(1)


@cache
def _settled(outcome: Outcome, *, sets: bool, quiet: bool, late: bool, frees: bool) -> Update:
    """Return what an outcome makes of the members of `_THESE` rows, and of the rows' points that are theirs.

    `sets` says that a row's points are the balance, and not more of it: no history moves out of such a row.
    """
    theirs = BATCH_ROW.c.account_id.is_(None)
    points = case((theirs, BATCH_ROW.c.points), else_=0)
    values: dict[str, Any] = {}
    if outcome is Outcome.LANDED:
        values["delivered"] = BATCH_ROW.c.fingerprint
    if outcome is Outcome.REFUSED:
        values["refused"] = BATCH_ROW.c.fingerprint
    if outcome in _CREDITS:
        values["credited"] = BATCH_ROW.c.points if sets else MEMBER.c.credited + points
    if frees:
        values["unsettled"] = MEMBER.c.unsettled - points
    if outcome is not Outcome.DOUBT:
        # A row that was held has let its member go, who may ride in another batch by now.
        rides = MEMBER.c.open_batch == BATCH_ROW.c.batch_id
        values["open_batch"] = case((rides, null()), else_=MEMBER.c.open_batch)
    if quiet:
        until: ColumnElement[int] = bindparam("b_quiet_until")
        values["quiet_until"] = case((MEMBER.c.quiet_until > until, MEMBER.c.quiet_until), else_=until)
    if late:
        values["late_until"] = bindparam("b_late_until")
    if outcome in {Outcome.LANDED, Outcome.SKIPPED, Outcome.DOUBT, Outcome.RELEASED}:
        values["introduced"] = literal_column("1")
    return update(MEMBER).where(_OF_MEMBERS).values(values)


class Settlements:
    """The transactions of settling."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def settle(
        self,
        batch_id: int,
        rulings: Mapping[int, Ruling],
        *,
        now: datetime,
        facts: Facts | None = None,
        quiet_for: timedelta = timedelta(),
        witness: Outcome | None = None,
    ) -> None:
        """Record what became of a batch's rows, by position; rows not named stay as they are.

        An award becomes credited here, and only for rows that landed. Rows of which no answer says what
        became of them keep points away from their members for `quiet_for`, so that one that is carried out
        yet does not disturb the evidence of the next. `witness` is what became of the witness's row, where
        that is news.

        Once none of the batch is in doubt any more, profiles are due again that count as delivered on the
        movement of their own entry alone: see `send_unproven_again`.
        """
        with self._scope.database.writing() as connection:
            self.settle_in(
                connection, batch_id, rulings, now=now, facts=facts, quiet_for=quiet_for, witness=witness
            )

    def settle_in(
        self,
        connection: Connection,
        batch_id: int,
        rulings: Mapping[int, Ruling],
        *,
        now: datetime,
        facts: Facts | None = None,
        quiet_for: timedelta = timedelta(),
        witness: Outcome | None = None,
    ) -> None:
        """Do what `settle` does, inside the caller's transaction."""
        this = {"b_batch": batch_id}
        batch = connection.execute(_BATCH, this).one()
        found = map(_OpenRow._make, connection.execute(_OPEN_ROWS, this).all())
        rows = [row for row in found if row.position in rulings]
        groups: dict[Ruling, list[_OpenRow]] = defaultdict(list)
        for row in rows:
            groups[rulings[row.position]].append(row)
        for ruling, alike in groups.items():
            self._settle_group(connection, batch, ruling, alike, now=now, quiet_for=quiet_for)
        heirs = self._settle_stakes(connection, batch, rows, rulings, now=now)
        for ruling, alike in groups.items():
            ruled = {"b_outcome": ruling.outcome, "b_grade": ruling.grade}
            connection.execute(_RULED, _these(batch, alike) | ruled)
        least = connection.scalar(_LEAST, this)
        values: dict[str, Any] = {"outcome": least}
        if least is not None and least >= Outcome.LANDED:
            values["settled_at"] = to_ms(now)
        if batch.witness is not None and batch.witness <= Outcome.DOUBT:
            if witness is None and least is not None and least > Outcome.DOUBT:
                witness = Outcome.SKIPPED  # nobody will know, and nothing waits for it
            if witness is not None:
                values |= {"witness": witness, "witness_until": to_ms(now)}
        if facts is not None:
            values |= {
                "status": facts.status,
                "import_id": facts.import_id,
                "imported": facts.imported,
                "detail": facts.detail,
            }
        change_row(connection, BATCH, batch_id, values)
        if batch.outcome == Outcome.DOUBT and least is not None and least > Outcome.DOUBT:
            send_unproven_again(connection, self._scope, batch_id)
        accounts = [row.account_id for row in rows if row.account_id is not None]
        members = [*(row.member_id for row in rows), *accounts, *heirs]
        self._scope.refresh(connection, members)
        self._scope.mark_for_status(connection, members)

    def abandoned(self) -> list[tuple[int, Lane, int]]:
        """Return the batches that were claimed and have no outcome: id, lane, rows."""
        with self._scope.database.reading() as connection:
            found = connection.execute(_ABANDONED, self._scope.bound())
            return [(row.id, Lane(row.lane), row.row_count) for row in found]

    def in_doubt(self) -> bool:
        """Return whether any batch has rows in doubt."""
        with self._scope.database.reading() as connection:
            return connection.scalar(_ANY_DOUBT, self._scope.bound()) is not None

    def doubtful(self, *, held: bool = False) -> Iterator[DoubtfulBatch]:
        """Yield every batch with rows in doubt (or `held`), each with what the log shows of them now."""
        return doubtful(self._scope, held=held)

    def note_movement(self, batch_id: int, moved: int, *, now: datetime) -> None:
        """Remember that `moved` of a batch's entries have moved by now."""
        with self._scope.database.writing() as connection:
            change_row(connection, BATCH, batch_id, {"moved": moved, "moved_at": to_ms(now)})

    def _settle_stakes(
        self,
        connection: Connection,
        batch: Record,
        rows: Sequence[_OpenRow],
        rulings: Mapping[int, Ruling],
        *,
        now: datetime,
    ) -> set[int]:
        """Settle the stakes in rows that have an outcome now; returns the members that held them."""
        outcomes = {row.position: rulings[row.position].outcome for row in rows if row.points}
        credited = {at: it in _CREDITS for at, it in outcomes.items() if it not in _UNSETTLED}
        if batch.lane != Lane.POINTS or not credited:
            return set()
        return settle_stakes(connection, self._scope, batch.id, credited, now=now)

    def _settle_group(
        self,
        connection: Connection,
        batch: Record,
        ruling: Ruling,
        rows: Sequence[_OpenRow],
        *,
        now: datetime,
        quiet_for: timedelta,
    ) -> None:
        outcome, these = ruling.outcome, _these(batch, rows)
        sets = self._scope.rules.points is Points.SET and batch.lane == Lane.PROFILE
        if outcome in _CREDITS:
            self._credit(connection, batch, ruling, rows, sets=sets, now=now)
        if outcome is Outcome.REFUSED:
            self._quarantine(connection, these, ruling.field, now)
        if outcome is Outcome.LANDED:
            # Where the payload stays, in case that it is sent again, its mails have been sent.
            self._forget_mails(connection, batch, these, all_stay=ruling.may_land_late)
        if outcome is Outcome.RELEASED:
            overwritten = connection.execute(_OVERWRITTEN, these)
            _UNSURE.run(connection, [(unsure(delivered), member) for member, delivered in overwritten])
        adds = self._scope.rules.points is Points.ADD
        frees = batch.lane == Lane.POINTS and outcome not in _UNSETTLED
        settled = _settled(
            outcome,
            sets=sets,
            quiet=adds and ruling.may_be_under_way and quiet_for > timedelta(),
            late=ruling.may_land_late,
            frees=frees,
        )
        times = {"b_quiet_until": to_ms(now + quiet_for), "b_late_until": latest(batch.sent_at)}
        connection.execute(settled, these | times)
        if frees:  # the points of such a row are on another member's account
            _FREED.run(connection, [(it.points, it.account_id) for it in rows if it.account_id is not None])

    def _credit(
        self,
        connection: Connection,
        batch: Record,
        ruling: Ruling,
        rows: Sequence[_OpenRow],
        *,
        sets: bool,
        now: datetime,
    ) -> None:
        """Add the rows' points to the ledger, and to balances where they are not their own member's.

        With `sets`, what a row adds is what the balance differs by; `wallet.points` may be another since.
        """
        entry = Entry.AWARDED if ruling.outcome is Outcome.LANDED else Entry.SKIPPED
        before = dict(connection.execute(_BALANCES, _these(batch, rows)).all()) if sets else {}
        entries, beside = [], []
        for row in rows:
            points = row.points - before.get(row.member_id, 0)
            if points:
                entries.append(Credit(entry, points, ruling.grade, batch.id, row.member_id))
            if row.account_id is not None:  # else credited with what else becomes of it: see `_settled`
                beside.append((points, row.member_id))
        moved = []
        for row in rows:
            if row.account_id is not None and row.points:  # its history went to another member meanwhile
                moved.append(Credit(Entry.MOVED_OUT, -row.points, member_id=row.member_id))
                moved.append(Credit(Entry.MOVED_IN, row.points, member_id=row.account_id))
                count(connection, row.account_id, row.member_id, -batch.id, row.points)
        _CREDITED.run(connection, [*beside, *((it.points, it.member_id) for it in moved)])
        if entries or moved:
            append(connection, self._scope.organization_id, [*entries, *moved], now=now)

    @staticmethod
    def _forget_mails(
        connection: Connection, batch: Record, these: dict[str, Any], *, all_stay: bool
    ) -> None:
        # Nearly always nobody has such a row, which is known for less than asking for each of them costs.
        if all_stay or connection.scalar(_ANY_LATE, {"b_brand": batch.brand}) is not None:
            kept = _KEPT if all_stay else _KEPT_FOR_LATE
            silence(connection, connection.execute(kept, these).all())

    @staticmethod
    def _quarantine(connection: Connection, these: dict[str, Any], field: str, now: datetime) -> None:
        owners = connection.execute(_OWNERS, these).all()
        if owners:
            why = {"side": "wallet", "field": field, "reason": f"the wallet refuses the field {field}"}
            rows = [
                {"connector_id": connector, "record_id": record, "since": to_ms(now), **why}
                for connector, record in owners
            ]
            connection.execute(_REFUSED, rows)


def _these(batch: Record, rows: Sequence[_OpenRow]) -> dict[str, Any]:
    """Return the parameters that name these rows of a batch."""
    return {"b_batch": batch.id, "b_positions": as_list(row.position for row in rows)}
