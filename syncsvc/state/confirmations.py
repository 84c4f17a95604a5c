"""Stores what the import log says: when members last received points, in the wallet's own words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from itertools import chain
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    String,
    and_,
    bindparam,
    func,
    or_,
    select,
    update,
)

from syncsvc.config import WalletConfig
from syncsvc.rules.completeness import Completeness, Seen, judge_reading
from syncsvc.rules.lateness import Move
from syncsvc.rules.values import instant_or_none
from syncsvc.state.bulk import Bulk, run_alike, update_rows
from syncsvc.state.codes import Lane, Outcome
from syncsvc.state.database import as_list, as_object, change_row, each_of, from_ms, one_of, to_ms
from syncsvc.state.late import LandedLate, forget_past, notice
from syncsvc.state.scope import OURS, THIS_BRAND, Scope
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, MEMBER
from syncsvc.state.witness import note_witness

_RECENT = 20  # of the newest batches; older ones teach nothing new
_SHOWN = 0.5


def unshown(connection: Connection, brand: int) -> list[tuple[int, int, bool]]:
    """Return the recent points batches that landed and that no reading of the log has shown so far.

    Each with its id, when it was claimed (milliseconds), and whether most of its entries have moved now.
    """
    found = connection.execute(_UNSHOWN, {"b_brand": brand})
    return [(batch, claimed, shown >= _SHOWN * rows) for batch, claimed, rows, shown in found]


def _unshown() -> Select[Any]:
    newest = (
        select(BATCH.c.id, BATCH.c.claimed_at, BATCH.c.lane, BATCH.c.outcome, BATCH.c.moved_at)
        .where(BATCH.c.brand == bindparam("b_brand"))
        .order_by(BATCH.c.id.desc())
        .limit(_RECENT)
        .subquery()
    )
    moved = MEMBER.c.log_value.is_distinct_from(BATCH_ROW.c.log_before)
    return (
        select(newest.c.id, newest.c.claimed_at, func.count().label("all"), func.count().filter(moved))
        .join(BATCH_ROW, BATCH_ROW.c.batch_id == newest.c.id)
        .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
        .where(newest.c.lane == Lane.POINTS, newest.c.outcome == Outcome.LANDED, newest.c.moved_at.is_(None))
        .group_by(newest.c.id, newest.c.claimed_at)
    )


def _slowest() -> Select[Any]:
    """Return how long the landed batches of one cycle took, by brand."""
    took = MEMBER.c.log_at - BATCH.c.sent_at
    return (
        select(BRAND.c.id, BRAND.c.slowest_ms, func.max(took).label("took"))
        .join(BATCH, BATCH.c.brand == BRAND.c.id)
        .join(BATCH_ROW, BATCH_ROW.c.batch_id == BATCH.c.id)
        .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
        .where(
            OURS,
            BATCH.c.cycle == bindparam("b_cycle"),
            BATCH_ROW.c.outcome == Outcome.LANDED,
            MEMBER.c.log_value.is_distinct_from(BATCH_ROW.c.log_before),
            # An entry beyond that was moved by others, or tells no time that has been.
            took <= bindparam("b_most"),
        )
        .group_by(BRAND.c.id, BRAND.c.slowest_ms)
    )


def _overdue() -> Select[Any]:
    last = (
        select(BATCH.c.settled_at)
        .where(BATCH.c.brand == BRAND.c.id)
        .order_by(BATCH.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    read_at = BRAND.c.log_read_at
    late = or_(read_at.is_(None), read_at <= bindparam("b_due"), last > read_at)
    return select(BRAND.c.id).where(OURS, late).limit(1)


_UNSHOWN, _SLOWEST, _OVERDUE = _unshown(), _slowest(), _overdue()
_BRANDS = select(BRAND.c.brand_id).where(OURS).order_by(BRAND.c.id)
_BRAND = select(BRAND).where(THIS_BRAND)
_READ_AT = select(BRAND.c.log_read_at).where(THIS_BRAND)
_RESOLUTION = select(BRAND.c.resolution_ms).where(THIS_BRAND)
_MORE_KNOWN = update(BRAND).where(THIS_BRAND).values(log_known=BRAND.c.log_known + bindparam("b_new"))
_TOLD = each_of("b_entries")
# Of members that have not moved, nearly all, nothing is made but the id. What was told is named once: SQLite
# makes it anew each time.
_ENTRIES = (
    select(MEMBER.c.id, func.nullif(_TOLD.c.value, MEMBER.c.log_value))
    .join(BRAND, and_(BRAND.c.id == MEMBER.c.brand, THIS_BRAND))
    .join(_TOLD, _TOLD.c.key == MEMBER.c.email_key)
)
_BEFORE = select(
    MEMBER.c.id,
    MEMBER.c.log_value,
    MEMBER.c.log_at,
    and_(MEMBER.c.late_until.is_not(None), MEMBER.c.open_batch.is_(None)),
).where(one_of(MEMBER.c.id, "b_members"))
_ENTRY = update_rows(MEMBER, ("id",), ("log_value", "log_at"))
# Members of one import have one time, as a rule.
_SAME_ENTRY = Bulk(
    update(MEMBER)
    .where(one_of(MEMBER.c.id, "b_members"))
    .values(log_value=bindparam("b_text", type_=String), log_at=bindparam("b_at", type_=BigInteger)),
    ["b_text", "b_at", "b_members"],
)
_ENTERED = select(MEMBER.c.id).where(MEMBER.c.brand == bindparam("b_brand"), MEMBER.c.log_value.is_not(None))
_SLOWER = update_rows(BRAND, ("id",), ("slowest_ms",))
_SHOWN_AT = update_rows(BATCH, ("id",), ("moved_at",))


class Confirmations:
    """The transactions of reading the log."""

    def __init__(self, scope: Scope, wallet: WalletConfig) -> None:
        """Work within one organization, whose wallet is configured so."""
        self._scope = scope
        self._settle_after = wallet.settle_after
        self._most = wallet.give_up_after // timedelta(milliseconds=1)

    def brands(self) -> list[str]:
        """Return every brand that has come up, in that order."""
        with self._scope.database.reading() as connection:
            return list(connection.scalars(_BRANDS, self._scope.bound()))

    def last_read(self, brand_id: str) -> int | None:
        """Return when a brand's log was last read whole, in milliseconds, or None."""
        with self._scope.database.reading() as connection:
            return connection.scalar(_READ_AT, self._of(brand_id))

    def overdue(self, due: datetime) -> bool:
        """Return whether a log was read whole by `due` at last, or before its newest batch was settled."""
        with self._scope.database.reading() as connection:
            return connection.scalar(_OVERDUE, self._scope.bound(b_due=to_ms(due))) is not None

    def resolution(self, brand_id: str) -> timedelta:
        """Return how exactly a brand's log tells the time; a second until it is known."""
        with self._scope.database.reading() as connection:
            known = connection.scalar(_RESOLUTION, self._of(brand_id))
        return timedelta(milliseconds=known or 1000)

    @property
    def zone(self) -> tzinfo:
        """The zone of the log's times that carry none."""
        return self._scope.rules.zone

    def record(self, brand_id: str, entries: Mapping[str, str], seen: Seen) -> tuple[int, LandedLate]:
        """Make the members' times what the log says; returns how many moved, and which old rows may have.

        `entries` are the wallet's texts by case-folded email; emails that are no member are ignored. A member
        that `seen` holds already, from earlier in the same log, keeps the later time. Nothing is written
        where nothing moved.
        """
        with self._scope.database.reading() as connection:
            moved: dict[tuple[str, int | None], list[int]] = defaultdict(list)
            new, late = 0, LandedLate()
            suspicious: dict[int, Move] = {}
            listed = connection.execute(_ENTRIES, self._of(brand_id, b_entries=as_object(entries))).all()
            twice = seen.add([member for member, _ in listed])
            texts = {member: text for member, text in listed if text is not None}
            known = connection.execute(_BEFORE, {"b_members": as_list(texts)}).all() if texts else []
            for member, before, before_at, waits in known:
                text = texts[member]
                instant = instant_or_none(text, zone=self.zone)
                at = None if instant is None else to_ms(instant.at)
                if member in twice and (at is None or (before_at is not None and at <= before_at)):
                    continue
                moved[text, at].append(member)
                new += before is None
                if waits and instant is not None:
                    last = None if before_at is None else from_ms(before_at)
                    suspicious[member] = Move(before, last, instant.at)
        if moved:
            with self._scope.database.writing() as connection:
                run_alike(connection, _ENTRY, _SAME_ENTRY, moved)
                if new:
                    connection.execute(_MORE_KNOWN, self._of(brand_id, b_new=new))
                members = list(chain.from_iterable(moved.values()))
                self._scope.mark_for_write_back(connection, members)
                late = notice(connection, self._scope, brand_id, suspicious, settle_after=self._settle_after)
        return sum(map(len, moved.values())), late

    def record_witness(self, brand_id: str, entries: Mapping[str, str]) -> bool:
        """Remember the witness's entry where it is among these; returns whether others have moved it."""
        witness = self._scope.rules.witness
        text = None if witness is None else entries.get(witness.casefold())
        if text is None:
            return False
        entry = text, instant_or_none(text, zone=self.zone)
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
            brand = connection.execute(_BRAND, self._of(brand_id)).one()
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
            change_row(connection, BRAND, brand.id, values)
            _SHOWN_AT.run(connection, [(to_ms(now), batch) for batch, _ in shown])
        return found

    @staticmethod
    def _forget_unseen(connection: Connection, brand: int, seen: Seen) -> None:
        entered = connection.scalars(_ENTERED, {"b_brand": brand})
        _SAME_ENTRY.run(connection, [(None, None, as_list(it for it in entered if it not in seen))])

    def measure(self, cycle: str) -> None:
        """Learn from this cycle's landed batches how long an import takes to be carried out."""
        with self._scope.database.reading() as connection:
            listed = connection.execute(_SLOWEST, self._scope.bound(b_cycle=cycle, b_most=self._most)).all()
        news = [(row.took, row.id) for row in listed if row.took is not None and row.took > row.slowest_ms]
        if news:
            with self._scope.database.writing() as connection:
                _SLOWER.run(connection, news)

    def _of(self, brand_id: str, **values: Any) -> dict[str, Any]:
        return self._scope.bound(b_brand_id=brand_id, **values)
