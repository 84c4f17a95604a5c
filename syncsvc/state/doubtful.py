"""Batches with rows in doubt, and what the import log shows of each row: what settling is decided by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import bindparam, select

from syncsvc.rules.settling import Sighting
from syncsvc.rules.values import tell_the_same
from syncsvc.state.codes import RESTORED, Outcome
from syncsvc.state.confirmations import unshown
from syncsvc.state.database import as_list, from_ms, one_of
from syncsvc.state.scope import UNSETTLED_BATCHES, Scope
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, MEMBER


@dataclass(frozen=True, slots=True)
class DoubtfulBatch:
    """A batch with rows in doubt: what the log shows of its rows, by position.

    `open` are the rows still in doubt, with their points. Rows that have landed stay evidence for those.
    `read_at` is when that reading of the log began; `unshown` is how old then the batches were that landed
    and that the log does not show yet. `witness` is what became of the witness's row, None where it did not
    ride; `witness_seen` is its entry. `short` says that the log leaves out members it had shown,
    `restored` that it stands for what may have been sent at any time after `sent_at`, in whole or in part.
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
    restored: bool


_DOUBTFUL = (
    select(
        BATCH,
        BRAND.c.brand_id,
        BRAND.c.resolution_ms,
        BRAND.c.slowest_ms,
        BRAND.c.log_read_at,
        BRAND.c.log_short_at,
        BRAND.c.witness_value,
        BRAND.c.witness_log_at,
    )
    .join(BRAND, BRAND.c.id == BATCH.c.brand)
    .where(UNSETTLED_BATCHES, one_of(BATCH.c.outcome, "b_outcomes"))
    .order_by(BATCH.c.id)
)
_EVIDENCE = (
    select(
        BATCH_ROW.c.position,
        BATCH_ROW.c.points,
        BATCH_ROW.c.outcome,
        BATCH_ROW.c.log_before,
        MEMBER.c.log_value,
        MEMBER.c.log_at,
    )
    .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
    .where(BATCH_ROW.c.batch_id == bindparam("b_batch"), one_of(BATCH_ROW.c.outcome, "b_outcomes"))
    .order_by(BATCH_ROW.c.position)
)


def doubtful(scope: Scope, *, held: bool = False) -> Iterator[DoubtfulBatch]:
    """Yield every batch with rows in doubt (or `held`), each with what the log shows of them now."""
    unproven = [Outcome.DOUBT, Outcome.HELD] if held else [Outcome.DOUBT]
    with scope.database.reading() as connection:
        batches = connection.execute(_DOUBTFUL, scope.bound(b_outcomes=as_list(unproven))).all()
    for batch in batches:
        evidence = {"b_batch": batch.id, "b_outcomes": as_list([*unproven, Outcome.LANDED])}
        with scope.database.reading() as connection:
            rows = connection.execute(_EVIDENCE, evidence).all()
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
            rows={row.position: _sighting(scope, row.log_before, row.log_value, row.log_at) for row in rows},
            witness=None if batch.witness is None else Outcome(batch.witness),
            witness_seen=_sighting(scope, batch.witness_before, batch.witness_value, batch.witness_log_at),
            open={row.position: row.points for row in rows if row.outcome in unproven},
            short=batch.log_short_at is not None,
            restored=batch.cycle == RESTORED,
        )


def _sighting(scope: Scope, before: str | None, now: str | None, at: int | None) -> Sighting:
    restated = tell_the_same(before, now, zone=scope.rules.zone)
    return Sighting(before, now, None if at is None else from_ms(at), restated)
