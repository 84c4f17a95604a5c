"""Stores what the import log says: when members last received points, in the wallet's own words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select, update

from syncsvc.config import WalletConfig
from syncsvc.rules.completeness import Completeness, Seen, judge_reading
from syncsvc.rules.lateness import Move
from syncsvc.rules.values import Instant
from syncsvc.state.codes import Lane, Outcome
from syncsvc.state.database import among, from_ms, to_ms
from syncsvc.state.late import LandedLate, forget_past, notice
from syncsvc.state.scope import Scope
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, MEMBER
from syncsvc.state.witness import note_witness

_RECENT = 20  # of the newest batches; older ones teach nothing new
_SHOWN = 0.5


def unshown(connection: Connection, brand: int) -> list[tuple[int, int, bool]]:
    """Return the recent points batches that landed and that no reading of the log has shown so far.

    Each with its id, when it was claimed (milliseconds), and whether most of its entries have moved now.
    """
    newest = (
        select(BATCH.c.id, BATCH.c.claimed_at, BATCH.c.lane, BATCH.c.outcome, BATCH.c.moved_at)
        .where(BATCH.c.brand == brand)
        .order_by(BATCH.c.id.desc())
        .limit(_RECENT)
        .subquery()
    )
    moved = MEMBER.c.log_value.is_distinct_from(BATCH_ROW.c.log_before)
    listed = (
        select(newest.c.id, newest.c.claimed_at, func.count().label("all"), func.count().filter(moved))
        .join(BATCH_ROW, BATCH_ROW.c.batch_id == newest.c.id)
        .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
        .where(newest.c.lane == Lane.POINTS, newest.c.outcome == Outcome.LANDED, newest.c.moved_at.is_(None))
        .group_by(newest.c.id, newest.c.claimed_at)
    )
    found = connection.execute(listed)
    return [(batch, claimed, shown >= _SHOWN * rows) for batch, claimed, rows, shown in found]


class Confirmations:
    """The transactions of reading the log."""

    def __init__(self, scope: Scope, wallet: WalletConfig) -> None:
        """Work within one organization, whose wallet is configured so."""
        self._scope = scope
        self._settle_after = wallet.settle_after
        self._most = wallet.give_up_after // timedelta(milliseconds=1)

    def brands(self) -> list[str]:
        """Return every brand that has come up, in that order."""
        mine = BRAND.c.organization_id == self._scope.organization_id
        with self._scope.database.reading() as connection:
            return list(connection.scalars(select(BRAND.c.brand_id).where(mine).order_by(BRAND.c.id)))

    def last_read(self, brand_id: str) -> int | None:
        """Return when a brand's log was last read whole, in milliseconds, or None."""
        with self._scope.database.reading() as connection:
            return connection.scalar(select(BRAND.c.log_read_at).where(self._is(brand_id)))

    def behind(self) -> bool:
        """Return whether a batch was settled after its brand's log was last read whole."""
        last = (
            select(BATCH.c.settled_at)
            .where(BATCH.c.brand == BRAND.c.id)
            .order_by(BATCH.c.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        mine = BRAND.c.organization_id == self._scope.organization_id
        with self._scope.database.reading() as connection:
            return (
                connection.scalar(select(BRAND.c.id).where(mine, last > BRAND.c.log_read_at).limit(1))
                is not None
            )

    def resolution(self, brand_id: str) -> timedelta:
        """Return how exactly a brand's log tells the time; a second until it is known."""
        with self._scope.database.reading() as connection:
            known = connection.scalar(select(BRAND.c.resolution_ms).where(self._is(brand_id)))
        return timedelta(milliseconds=known or 1000)

    def record(
        self, brand_id: str, entries: Mapping[str, tuple[str, Instant | None]], seen: Seen
    ) -> tuple[int, LandedLate]:
        """Make the members' times what the log says; returns how many moved, and which old rows may have.

        `entries` are (the wallet's text, the time it means or None) by case-folded email; emails that are
        no member are ignored. A member that `seen` holds already, from earlier in the same log, keeps the
        later time. Nothing is written where nothing moved.
        """
        with self._scope.database.reading() as connection:
            columns = (
                MEMBER.c.id,
                MEMBER.c.email_key,
                MEMBER.c.log_value,
                MEMBER.c.log_at,
                MEMBER.c.late_until,
                MEMBER.c.open_batch,
            )
            listed = select(*columns).join(BRAND, and_(BRAND.c.id == MEMBER.c.brand, self._is(brand_id)))
            moved, new, late = [], 0, LandedLate()
            suspicious: dict[int, Move] = {}
            for row in connection.execute(listed.where(among(MEMBER.c.email_key, entries))):
                text, instant = entries[row.email_key]
                at = None if instant is None else to_ms(instant.at)
                again = not seen.add(row.id)
                if again and (at is None or (row.log_at is not None and at <= row.log_at)):
                    continue
                if row.log_value != text:
                    moved.append({"b_id": row.id, "b_value": text, "b_at": at})
                    new += row.log_value is None
                    if row.late_until is not None and row.open_batch is None and instant is not None:
                        suspicious[row.id] = Move(
                            row.log_value, None if row.log_at is None else from_ms(row.log_at), instant.at
                        )
        if moved:
            with self._scope.database.writing() as connection:
                connection.execute(
                    update(MEMBER)
                    .where(MEMBER.c.id == bindparam("b_id"))
                    .values(log_value=bindparam("b_value"), log_at=bindparam("b_at")),
                    moved,
                )
                if new:
                    known = {"log_known": BRAND.c.log_known + new}
                    connection.execute(update(BRAND).where(self._is(brand_id)).values(known))
                self._scope.mark_for_write_back(connection, [row["b_id"] for row in moved])
                late = notice(connection, self._scope, brand_id, suspicious, settle_after=self._settle_after)
        return len(moved), late

    def record_witness(self, brand_id: str, entries: Mapping[str, tuple[str, Instant | None]]) -> bool:
        """Remember the witness's entry where it is among these; returns whether others have moved it."""
        witness = self._scope.rules.witness
        entry = None if witness is None else entries.get(witness.casefold())
        if entry is None:
            return False
        with self._scope.database.writing() as connection:
            brand = self._scope.brand(connection, brand_id)
            return note_witness(connection, brand, entry, settle_after=self._settle_after)

    def finish(
        self, brand_id: str, seen: Seen, *, began: datetime, now: datetime, resolution: timedelta | None
    ) -> Completeness:
        """Remember that a brand's log was read to its end from `began` on, and how exactly it tells the time.

        Returns how complete it was. Members that a complete log does not show have no entry any more.

        Learns how long the log takes to show an import: from a batch that had landed, that the reading before
        did not show, and that this one does.
        """
        values: dict[str, int | None] = {"log_read_at": to_ms(began)}
        if resolution is not None:
            values["resolution_ms"] = resolution // timedelta(milliseconds=1)
        with self._scope.database.writing() as connection:
            brand = connection.execute(select(BRAND).where(self._is(brand_id))).one()
            shown = [(it, claimed) for it, claimed, visible in unshown(connection, brand.id) if visible]
            late = [claimed for _, claimed in shown if brand.log_read_at and brand.log_read_at > claimed]
            if late:
                values["slowest_ms"] = max(brand.slowest_ms, min(self._most, to_ms(now) - min(late)))
            short_for = None if brand.log_short_at is None else began - from_ms(brand.log_short_at)
            found = judge_reading(shown=seen.count, known=brand.log_known, short_for=short_for)
            if found.news:
                values["log_short_at"] = to_ms(began) if found.short else None
            if seen.count < brand.log_known and not found.short:
                values["log_known"] = seen.count
                self._forget_unseen(connection, brand.id, seen)
            forget_past(connection, self._scope, brand.id, now=now)
            connection.execute(update(BRAND).where(BRAND.c.id == brand.id).values(values))
            if shown:
                visible_now = update(BATCH).where(among(BATCH.c.id, [batch for batch, _ in shown]))
                connection.execute(visible_now.values(moved_at=to_ms(now)))
        return found

    @staticmethod
    def _forget_unseen(connection: Connection, brand: int, seen: Seen) -> None:
        entered = select(MEMBER.c.id).where(MEMBER.c.brand == brand, MEMBER.c.log_value.is_not(None))
        gone = [it for it in connection.scalars(entered) if it not in seen]
        nothing = {"log_value": None, "log_at": None}
        connection.execute(update(MEMBER).where(among(MEMBER.c.id, gone)).values(nothing))

    def measure(self, cycle: str) -> None:
        """Learn from this cycle's landed batches how long an import takes to be carried out."""
        slowest = (
            select(BATCH.c.brand, func.max(MEMBER.c.log_at - BATCH.c.sent_at).label("took"))
            .join(BATCH_ROW, BATCH_ROW.c.batch_id == BATCH.c.id)
            .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
            .where(
                BATCH.c.cycle == cycle,
                BATCH_ROW.c.outcome == Outcome.LANDED,
                MEMBER.c.log_value.is_distinct_from(BATCH_ROW.c.log_before),
                # An entry beyond that was moved by others, or tells no time that has been.
                MEMBER.c.log_at - BATCH.c.sent_at <= self._most,
            )
            .group_by(BATCH.c.brand)
        )
        with self._scope.database.reading() as connection:
            took = [
                (row.brand, row.took)
                for row in connection.execute(slowest.join(BRAND, BRAND.c.id == BATCH.c.brand))
            ]
            known = dict(connection.execute(select(BRAND.c.id, BRAND.c.slowest_ms)).all())
        news = [{"b_id": brand, "b_took": ms} for brand, ms in took if ms is not None and ms > known[brand]]
        if news:
            with self._scope.database.writing() as connection:
                connection.execute(
                    update(BRAND)
                    .where(BRAND.c.id == bindparam("b_id"))
                    .values(slowest_ms=bindparam("b_took")),
                    news,
                )

    def _is(self, brand_id: str) -> ColumnElement[bool]:
        return and_(BRAND.c.organization_id == self._scope.organization_id, BRAND.c.brand_id == brand_id)
