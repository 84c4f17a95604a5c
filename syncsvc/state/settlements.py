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
from syncsvc.state.bulk import Bulk, put_rows
from syncsvc.state.codes import Entry, Lane, Outcome
from syncsvc.state.database import Record, as_list, change_row, one_of, to_ms
from syncsvc.state.doubtful import DoubtfulBatch, doubtful
from syncsvc.state.late import latest, send_unproven_again, unsure
from syncsvc.state.payloads import silence
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
_OPEN_ROWS = (
    select(
        BATCH_ROW,
        MEMBER.c.credited,
        MEMBER.c.wanted,
        MEMBER.c.delivered,
        MEMBER.c.late_until,
        MEMBER.c.owner_connector,
        MEMBER.c.owner_record,
    )
    .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
    .where(BATCH_ROW.c.batch_id == bindparam("b_batch"), BATCH_ROW.c.outcome < Outcome.LANDED)
)
_LEAST = select(func.min(BATCH_ROW.c.outcome)).where(BATCH_ROW.c.batch_id == bindparam("b_batch"))
_RULED = (
    update(BATCH_ROW)
    .where(BATCH_ROW.c.batch_id == bindparam("b_batch"), one_of(BATCH_ROW.c.position, "b_positions"))
    .values(outcome=bindparam("b_outcome"), grade=bindparam("b_grade"))
)
_PAYLOADS = select(PAYLOAD.c.member_id, PAYLOAD.c.content).where(one_of(PAYLOAD.c.member_id, "b_members"))
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
def _settled(outcome: Outcome, *, own: bool, quiet: bool, late: bool, frees: bool) -> Bulk:
    """Return what an outcome makes of a row's member; its points are credited and `frees` here if its `own`.

    The statement's names say what a row of it holds.
    """
    values: dict[str, Any] = {}  # in the order of the table
    names: list[str] = []
    if outcome is Outcome.LANDED:
        values["delivered"] = bindparam("b_fingerprint")
        names.append("b_fingerprint")
    if outcome is Outcome.RELEASED:
        values["delivered"] = bindparam("b_delivered")
        names.append("b_delivered")
    if outcome is Outcome.REFUSED:
        values["refused"] = bindparam("b_fingerprint")
        names.append("b_fingerprint")
    if own and outcome in _CREDITS:
        values["credited"] = MEMBER.c.credited + bindparam("b_credit")
        names.append("b_credit")
    if own and frees:
        values["unsettled"] = MEMBER.c.unsettled - _POINTS
        names.append("b_points")
    if outcome is not Outcome.DOUBT:
        # A row that was held has let its member go, who may ride in another batch by now.
        rides = MEMBER.c.open_batch == bindparam("b_batch")
        values["open_batch"] = case((rides, null()), else_=MEMBER.c.open_batch)
        names.append("b_batch")
    if quiet:
        until: ColumnElement[int] = bindparam("b_quiet_until")
        values["quiet_until"] = case((MEMBER.c.quiet_until > until, MEMBER.c.quiet_until), else_=until)
        names += ["b_quiet_until", "b_quiet_until"]
    if late:
        values["late_until"] = bindparam("b_late_until")
        names.append("b_late_until")
    if outcome in {Outcome.LANDED, Outcome.SKIPPED, Outcome.DOUBT, Outcome.RELEASED}:
        values["introduced"] = literal_column("1")
    return Bulk(_OF_MEMBER.values(values), [*names, "b_id"])


def _still_delivered(row: Record) -> bytes | None:
    """Return what counts as delivered where a row may have overwritten it, of which nobody heard."""
    if row.delivered is None or row.delivered == row.fingerprint:
        return row.delivered  # type: ignore[no-any-return]
    return unsure(row.delivered)


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
        open_rows = [row for row in connection.execute(_OPEN_ROWS, this) if row.position in rulings]
        groups: dict[tuple[Outcome, bool, bool], list[Record]] = defaultdict(list)
        for row in open_rows:
            ruling = rulings[row.position]
            groups[ruling.outcome, ruling.may_land_late, ruling.may_be_under_way].append(row)
        for rows in groups.values():
            self._settle_group(connection, batch, rows, rulings, now=now, quiet_for=quiet_for)
        heirs = self._settle_stakes(connection, batch, open_rows, rulings, now=now)
        self._rule(connection, batch_id, {row.position: rulings[row.position] for row in open_rows})
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
        members = [*{it for row in open_rows for it in (row.member_id, _account(row))}, *heirs]
        self._scope.refresh(connection, members)
        self._scope.mark_for_write_back(connection, members)

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
        rows: Sequence[Record],
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

    @staticmethod
    def _rule(connection: Connection, batch_id: int, rulings: Mapping[int, Ruling]) -> None:
        alike: dict[tuple[Outcome, Grade], list[int]] = defaultdict(list)
        for position, ruling in rulings.items():
            alike[ruling.outcome, ruling.grade].append(position)
        for (outcome, grade), positions in alike.items():
            ruled = {"b_outcome": outcome, "b_grade": grade, "b_positions": as_list(positions)}
            connection.execute(_RULED, {"b_batch": batch_id, **ruled})

    def _settle_group(
        self,
        connection: Connection,
        batch: Record,
        rows: Sequence[Record],
        rulings: Mapping[int, Ruling],
        *,
        now: datetime,
        quiet_for: timedelta,
    ) -> None:
        alike = rulings[rows[0].position]  # in everything but the grade
        outcome, late = alike.outcome, alike.may_land_late
        if outcome in _CREDITS:
            self._credit(connection, batch, outcome, rows, rulings, now=now)
        if outcome is Outcome.REFUSED:
            self._quarantine(connection, rows, rulings, now)
        if outcome is Outcome.LANDED:
            # Where the payload stays, in case that it is sent again, its mails have been sent.
            stays = [it for it in rows if late or it.late_until is not None]
            kept = [it for it in stays if it.wanted == it.fingerprint]
            self._forget_mails(connection, [row.member_id for row in kept])
        adds = self._scope.rules.points is Points.ADD
        quiet = adds and alike.may_be_under_way and quiet_for > timedelta()
        frees = batch.lane == Lane.POINTS and outcome not in _UNSETTLED
        quiet_until, late_until = to_ms(now + quiet_for), latest(batch.sent_at)
        members: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        for row in rows:
            members[row.account_id is None].append(
                {
                    "b_id": row.member_id,
                    "b_batch": batch.id,
                    "b_points": row.points,
                    "b_credit": self._credit_of(batch, row),
                    "b_fingerprint": row.fingerprint,
                    "b_delivered": _still_delivered(row),
                    "b_quiet_until": quiet_until,
                    "b_late_until": late_until,
                }
            )
        for own, bound in members.items():
            settled = _settled(outcome, own=own, quiet=quiet, late=late, frees=frees)
            settled.run(connection, [tuple([it[name] for name in settled.names]) for it in bound])
        if frees:  # the points of such a row are on another member's account
            _FREED.run(connection, [(it.points, it.account_id) for it in rows if it.account_id is not None])

    def _credit(
        self,
        connection: Connection,
        batch: Record,
        outcome: Outcome,
        rows: Sequence[Record],
        rulings: Mapping[int, Ruling],
        *,
        now: datetime,
    ) -> None:
        entry = Entry.AWARDED if outcome is Outcome.LANDED else Entry.SKIPPED
        credits_ = [
            Credit(entry, self._credit_of(batch, row), rulings[row.position].grade, batch.id, row.member_id)
            for row in rows
        ]
        # Those of an own account are credited with what else becomes of it: see `_settled`.
        beside = [credit for credit, row in zip(credits_, rows, strict=True) if row.account_id is not None]
        moved = []
        for row in rows:
            if row.account_id is not None and row.points:  # its history went to another member meanwhile
                moved.append(Credit(Entry.MOVED_OUT, -row.points, member_id=row.member_id))
                moved.append(Credit(Entry.MOVED_IN, row.points, member_id=row.account_id))
                count(connection, row.account_id, row.member_id, -batch.id, row.points)
        _CREDITED.run(connection, [(credit.points, credit.member_id) for credit in (*beside, *moved)])
        earning = [credit for credit in (*credits_, *moved) if credit.points]
        if earning:
            append(connection, self._scope.organization_id, earning, now=now)

    def _credit_of(self, batch: Record, row: Record) -> int:
        """Return what a row is credited with where it landed; `wallet.points` may be another since."""
        sets = self._scope.rules.points is Points.SET and batch.lane == Lane.PROFILE
        return int(row.points - row.credited if sets else row.points)

    @staticmethod
    def _forget_mails(connection: Connection, member_ids: Sequence[int]) -> None:
        if not member_ids:
            return
        silence(connection, connection.execute(_PAYLOADS, {"b_members": as_list(member_ids)}).all())

    @staticmethod
    def _quarantine(
        connection: Connection, rows: Sequence[Record], rulings: Mapping[int, Ruling], now: datetime
    ) -> None:
        owned = [row for row in rows if row.owner_record is not None]
        if owned:
            connection.execute(
                _REFUSED,
                [
                    {
                        "connector_id": row.owner_connector,
                        "record_id": row.owner_record,
                        "side": "wallet",
                        "field": rulings[row.position].field,
                        "reason": f"the wallet refuses the field {rulings[row.position].field}",
                        "since": to_ms(now),
                    }
                    for row in owned
                ],
            )


def _account(row: Record) -> int:
    """Return the member whose points a row's are: another one where its history was moved since."""
    return int(row.member_id if row.account_id is None else row.account_id)
