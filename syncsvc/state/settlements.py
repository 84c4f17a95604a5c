"""Settles batches: what became of each row, under the id it was claimed by.

Only here does an award become credited; `membership` credits what was adopted or moved.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, and_, bindparam, case, func, select, update

from syncsvc.config import Points
from syncsvc.rules.settling import Grade, Sighting
from syncsvc.rules.values import tell_the_same
from syncsvc.state.books import Credit, append
from syncsvc.state.codes import Entry, Lane, Outcome
from syncsvc.state.confirmations import unshown
from syncsvc.state.database import Record, among, from_ms, to_ms
from syncsvc.state.late import latest
from syncsvc.state.scope import Scope
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, MEMBER, QUARANTINE

_LATE = {Outcome.HELD, Outcome.RELEASED, Outcome.SKIPPED}
"""With these nobody knows whether a row was applied, and other rows of its member may be sent."""


@dataclass(frozen=True, slots=True)
class DoubtfulBatch:
    """A batch with rows in doubt: what the log shows of its rows, by position.

    `open` are the rows still in doubt, with their points. Rows that have landed stay evidence for those.
    `read_at` is when that reading of the log began; `unshown` is how old then the batches were that landed
    and that the log does not show yet. `witness` is what became of the witness's row, None where it did not
    ride; `witness_seen` is its entry. `short` says that the log leaves out members it had shown.
    """

    id: int
    brand_id: str
    sent_at: datetime
    claimed_at: datetime
    moved_at: datetime
    moved: int
    resolution: timedelta
    slowest: timedelta
    read_at: datetime
    unshown: Sequence[timedelta]
    rows: Mapping[int, Sighting]
    open: Mapping[int, int]
    witness: Outcome | None
    witness_seen: Sighting
    short: bool


class Ruling(NamedTuple):
    """What became of a row, and on what it rests; `field` is the one the wallet refused."""

    outcome: Outcome
    grade: Grade
    field: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is remembered of an answer."""

    status: int | None = None
    import_id: str | None = None
    imported: int | None = None
    detail: str = ""


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

        An award becomes credited here, and only for rows that landed. Released rows keep points away from
        their members for `quiet_for`, so that a row that lands late does not disturb the evidence. `witness`
        is what became of the witness's row, where that is news.
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
        batch = connection.execute(select(BATCH).where(BATCH.c.id == batch_id)).one()
        listed = (
            select(
                BATCH_ROW,
                MEMBER.c.credited,
                MEMBER.c.wanted,
                MEMBER.c.late_until,
                MEMBER.c.owner_connector,
                MEMBER.c.owner_record,
            )
            .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
            .where(self._scope.rows_of(batch_id))
        )
        open_rows = [row for row in connection.execute(listed) if row.position in rulings]
        groups: dict[Outcome, list[Record]] = defaultdict(list)
        for row in open_rows:
            groups[rulings[row.position].outcome].append(row)
        for outcome, rows in groups.items():
            self._settle_group(connection, batch, outcome, rows, rulings, now=now, quiet_for=quiet_for)
        if open_rows:
            connection.execute(
                update(BATCH_ROW)
                .where(BATCH_ROW.c.batch_id == batch_id, BATCH_ROW.c.position == bindparam("b_position"))
                .values(outcome=bindparam("b_outcome"), grade=bindparam("b_grade")),
                [
                    {
                        "b_position": row.position,
                        "b_outcome": int(rulings[row.position].outcome),
                        "b_grade": rulings[row.position].grade,
                    }
                    for row in open_rows
                ],
            )
        least = connection.scalar(
            select(func.min(BATCH_ROW.c.outcome)).where(BATCH_ROW.c.batch_id == batch_id)
        )
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
        connection.execute(update(BATCH).where(BATCH.c.id == batch_id).values(values))
        members = [*{it for row in open_rows for it in (row.member_id, _account(row))}]
        self._scope.refresh(connection, members)
        self._scope.mark_for_write_back(connection, members)

    def abandoned(self) -> list[tuple[int, Lane, int]]:
        """Return the batches that were claimed and have no outcome: id, lane, rows."""
        condition = and_(self._scope.unsettled_batches(), BATCH.c.outcome == Outcome.OPEN)
        with self._scope.database.reading() as connection:
            found = connection.execute(select(BATCH.c.id, BATCH.c.lane, BATCH.c.row_count).where(condition))
            return [(row.id, Lane(row.lane), row.row_count) for row in found]

    def in_doubt(self) -> bool:
        """Return whether any batch has rows in doubt."""
        condition = and_(self._scope.unsettled_batches(), BATCH.c.outcome == Outcome.DOUBT)
        with self._scope.database.reading() as connection:
            return connection.scalar(select(BATCH.c.id).where(condition).limit(1)) is not None

    def doubtful(self, *, held: bool = False) -> Iterator[DoubtfulBatch]:
        """Yield every batch with rows in doubt (or `held`), each with what the log shows of them now."""
        unproven = [Outcome.DOUBT, Outcome.HELD] if held else [Outcome.DOUBT]
        condition = and_(self._scope.unsettled_batches(), BATCH.c.outcome.in_(unproven))
        facts = [
            *(
                BRAND.c.brand_id,
                BRAND.c.resolution_ms,
                BRAND.c.slowest_ms,
                BRAND.c.log_read_at,
                BRAND.c.log_short_at,
            ),
            *(BRAND.c.witness_value, BRAND.c.witness_log_at),
        ]
        listed = select(BATCH, *facts).join(BRAND, BRAND.c.id == BATCH.c.brand)
        with self._scope.database.reading() as connection:
            batches = connection.execute(listed.where(condition).order_by(BATCH.c.id)).all()
        for batch in batches:
            with self._scope.database.reading() as connection:
                rows = connection.execute(
                    select(
                        BATCH_ROW.c.position,
                        BATCH_ROW.c.points,
                        BATCH_ROW.c.outcome,
                        BATCH_ROW.c.log_before,
                        MEMBER.c.log_value,
                        MEMBER.c.log_at,
                    )
                    .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
                    .where(
                        BATCH_ROW.c.batch_id == batch.id,
                        BATCH_ROW.c.outcome.in_([*unproven, Outcome.LANDED]),
                    )
                    .order_by(BATCH_ROW.c.position)
                ).all()
                late = unshown(connection, batch.brand)
            read_at = from_ms(batch.log_read_at or batch.claimed_at)
            yield DoubtfulBatch(
                id=batch.id,
                brand_id=batch.brand_id,
                sent_at=from_ms(batch.sent_at),
                claimed_at=from_ms(batch.claimed_at),
                moved_at=from_ms(batch.moved_at or batch.claimed_at),
                moved=batch.moved,
                resolution=timedelta(milliseconds=batch.resolution_ms or 1000),
                slowest=timedelta(milliseconds=batch.slowest_ms),
                read_at=read_at,
                unshown=[read_at - from_ms(claimed) for _, claimed, visible in late if not visible],
                rows={
                    row.position: self._sighting(row.log_before, row.log_value, row.log_at) for row in rows
                },
                witness=None if batch.witness is None else Outcome(batch.witness),
                witness_seen=self._sighting(batch.witness_before, batch.witness_value, batch.witness_log_at),
                open={row.position: row.points for row in rows if row.outcome in unproven},
                short=batch.log_short_at is not None,
            )

    def _sighting(self, before: str | None, now: str | None, at: int | None) -> Sighting:
        restated = tell_the_same(before, now, zone=self._scope.rules.zone)
        return Sighting(before, now, None if at is None else from_ms(at), restated)

    def note_movement(self, batch_id: int, moved: int, *, now: datetime) -> None:
        """Remember that `moved` of a batch's entries have moved by now."""
        with self._scope.database.writing() as connection:
            seen = {"moved": moved, "moved_at": to_ms(now)}
            connection.execute(update(BATCH).where(BATCH.c.id == batch_id).values(seen))

    def _settle_group(
        self,
        connection: Connection,
        batch: Record,
        outcome: Outcome,
        rows: Sequence[Record],
        rulings: Mapping[int, Ruling],
        *,
        now: datetime,
        quiet_for: timedelta,
    ) -> None:
        values: dict[str, Any] = {}
        if outcome is not Outcome.DOUBT:
            # A row that was held has let its member go, who may ride in another batch by now.
            values["open_batch"] = case((MEMBER.c.open_batch == batch.id, None), else_=MEMBER.c.open_batch)
        if outcome is Outcome.LANDED:
            values["delivered"] = bindparam("b_fingerprint")
            # Where the payload stays, in case that an older row lands late, its mails have been sent.
            kept = [it for it in rows if it.late_until is not None and it.wanted == it.fingerprint]
            self._forget_mails(connection, [row.member_id for row in kept])
        if outcome in {Outcome.LANDED, Outcome.SKIPPED}:
            self._credit(connection, batch, outcome, rows, rulings, now=now)
        if outcome in {Outcome.LANDED, Outcome.SKIPPED, Outcome.DOUBT, Outcome.RELEASED}:
            values["introduced"] = 1
        if outcome is Outcome.RELEASED and self._scope.rules.points is Points.ADD:
            values["quiet_until"] = to_ms(now + quiet_for)
        answered = all(rulings[row.position].grade is Grade.ANSWER for row in rows)
        if outcome in _LATE or (outcome is Outcome.REFUTED and not answered):
            values["late_until"] = latest(batch.sent_at)
        if outcome is Outcome.REFUSED:
            values["refused"] = bindparam("b_fingerprint")
            self._quarantine(connection, rows, rulings, now)
        frees = batch.lane == Lane.POINTS and outcome not in {Outcome.DOUBT, Outcome.HELD}
        self._update_members(connection, rows, values, frees=frees)

    @staticmethod
    def _update_members(
        connection: Connection, rows: Sequence[Record], values: dict[str, Any], *, frees: bool
    ) -> None:
        """Set `values` on the members of rows; `frees` their points, on whose account they are."""
        freed = {"unsettled": MEMBER.c.unsettled - bindparam("b_points")} if frees else {}
        accounts = [
            {"b_id": row.account_id, "b_points": row.points} for row in rows if row.account_id is not None
        ]
        members = [
            {"b_id": row.member_id, "b_points": row.points, "b_fingerprint": row.fingerprint} for row in rows
        ]
        own = [it for it, row in zip(members, rows, strict=True) if row.account_id is None]
        others = [it for it, row in zip(members, rows, strict=True) if row.account_id is not None]
        for changes, chosen in ((values | freed, own), (values, others), (freed, accounts)):
            if changes and chosen:
                mine = MEMBER.c.id == bindparam("b_id")
                connection.execute(update(MEMBER).where(mine).values(changes), chosen)

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
        sets = self._scope.rules.points is Points.SET
        credits_ = [
            Credit(
                entry,
                row.points - row.credited if sets else row.points,
                rulings[row.position].grade,
                batch.id,
                row.member_id,
            )
            for row in rows
        ]
        for row in rows:
            if row.account_id is not None and row.points:  # its history went to another member meanwhile
                credits_.append(Credit(Entry.MOVED_OUT, -row.points, member_id=row.member_id))
                credits_.append(Credit(Entry.MOVED_IN, row.points, member_id=row.account_id))
        earning = [credit for credit in credits_ if credit.points]
        if earning:
            connection.execute(
                update(MEMBER)
                .where(MEMBER.c.id == bindparam("b_id"))
                .values(credited=MEMBER.c.credited + bindparam("b_points")),
                [{"b_id": credit.member_id, "b_points": credit.points} for credit in earning],
            )
            append(connection, self._scope.organization_id, earning, now=now)

    @staticmethod
    def _forget_mails(connection: Connection, member_ids: Sequence[int]) -> None:
        if not member_ids:
            return
        listed = select(MEMBER.c.id, MEMBER.c.payload).where(
            among(MEMBER.c.id, member_ids), MEMBER.c.payload.is_not(None)
        )
        silenced = []
        for row in connection.execute(listed):
            content = orjson.loads(row.payload)
            if content["mails"]:
                silenced.append({"b_id": row.id, "b_payload": orjson.dumps(content | {"mails": []})})
        if silenced:
            connection.execute(
                update(MEMBER).where(MEMBER.c.id == bindparam("b_id")).values(payload=bindparam("b_payload")),
                silenced,
            )

    @staticmethod
    def _quarantine(
        connection: Connection, rows: Sequence[Record], rulings: Mapping[int, Ruling], now: datetime
    ) -> None:
        owned = [row for row in rows if row.owner_record is not None]
        if owned:
            connection.execute(
                QUARANTINE.insert().prefix_with("OR REPLACE", dialect="sqlite"),
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
