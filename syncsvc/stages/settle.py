"""Settle: batches that a crash or a lost answer left open, against what the import log shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from syncsvc.rules.settling import Decision, Doubt, Finding, Grade, Terms, find, find_witness, weigh
from syncsvc.state.codes import Lane, Outcome
from syncsvc.state.doubtful import DoubtfulBatch
from syncsvc.state.settlements import Ruling, Settlements

_PATIENCE = 3
"""`settle_after` is never below this many times the slowest answer of the log that was ever seen."""

_OUTCOMES = {
    Decision.LANDED: Outcome.LANDED,
    Decision.REFUTED: Outcome.REFUTED,
    Decision.AWARD: Outcome.REFUTED,
    Decision.HOLD: Outcome.HELD,
    Decision.SKIP: Outcome.SKIPPED,
}

_MOVED = {Finding.IN_WINDOW, Finding.ELSEWHERE}


@dataclass(slots=True)
class Settled:
    """What settling came to, in rows; `points` are those of the rows that landed."""

    landed: int = 0
    refuted: int = 0
    held: int = 0
    skipped: int = 0
    points: int = 0

    def add(self, other: Settled) -> None:
        """Count what another round of settling came to."""
        self.landed += other.landed
        self.refuted += other.refuted
        self.held += other.held
        self.skipped += other.skipped
        self.points += other.points


def settle_abandoned(
    settlements: Settlements, *, settle_after: timedelta, now: datetime, anew: bool = False
) -> int:
    """Make every batch without an outcome either in doubt or free to be sent again; returns the rows.

    Called before anything is sent: such a batch was claimed by a process that died, and its request may or
    may not have left. Points rows are in doubt from then on; profile rows are safe to send again. With `anew`
    the time for its entries to move begins now: its sender was alive until we took over, and may have sent it
    at the last moment.
    """
    rows = 0
    for batch_id, lane, count in settlements.abandoned():
        outcome = Outcome.DOUBT if lane is Lane.POINTS else Outcome.RELEASED
        ruling = Ruling(outcome, Grade.ANSWER)
        if anew and outcome is Outcome.DOUBT:
            settlements.note_movement(batch_id, 0, now=now)
        settlements.settle(
            batch_id,
            dict.fromkeys(range(count), ruling),
            now=now,
            quiet_for=settle_after,
            witness=Outcome.DOUBT,
        )
        rows += count
    return rows


def settle_doubts(settlements: Settlements, terms: Terms, *, now: Callable[[], datetime]) -> Settled:
    """Decide every row in doubt that the log, as it was last read, decides."""
    settled = Settled()
    for batch in settlements.doubtful():
        _settle(batch, settlements, terms, now(), settled)
    return settled


def conditions(batch: DoubtfulBatch, terms: Terms) -> tuple[Terms, Doubt]:
    """Return the terms as they hold for a batch, and what has been seen of it when the log was last read."""
    # A batch that landed and is not in the log yet says that the log is at least that late.
    late = max((it for it in batch.unshown if it <= terms.give_up_after), default=timedelta())
    terms = replace(terms, settle_after=max(terms.settle_after, _PATIENCE * max(batch.slowest, late)))
    if batch.restored:  # what moved tells nothing of when, and how much: a person decides at once
        terms = replace(terms, evidence=Grade.WITNESS, give_up_after=timedelta(), on_doubt=Decision.HOLD)
    doubt = Doubt(
        sent_at=batch.sent_at,
        age=batch.read_at - batch.claimed_at,
        quiet=batch.read_at - batch.moved_at,
        resolution=batch.resolution,
        short=batch.short,
    )
    witness = _witness(batch, doubt, terms)
    if batch.short and batch.witness is Outcome.DOUBT and witness is Finding.UNMOVED:
        witness = Finding.MUTE
    return terms, replace(doubt, witness=witness)


def _witness(batch: DoubtfulBatch, doubt: Doubt, terms: Terms) -> Finding | None:
    match batch.witness:
        case None:
            return None
        case Outcome.LANDED:
            return Finding.IN_WINDOW
        case Outcome.REFUTED:
            return Finding.UNMOVED
        case Outcome.DOUBT:
            return find_witness(batch.witness_seen, doubt, terms.settle_after)
        case _:
            return Finding.MUTE


def _settle(
    batch: DoubtfulBatch, settlements: Settlements, terms: Terms, now: datetime, settled: Settled
) -> None:
    terms, doubt = conditions(batch, terms)
    rows = list(batch.rows.values())
    moved = sum(find(row, doubt, terms.settle_after) in _MOVED for row in rows) + (doubt.witness in _MOVED)
    if moved > batch.moved:
        settlements.note_movement(batch.id, moved, now=now)
        doubt = replace(doubt, quiet=timedelta())
    rulings = {
        position: Ruling(_OUTCOMES[decision], grade)
        for position, (decision, grade) in zip(batch.rows, weigh(rows, doubt, terms), strict=True)
        if position in batch.open and decision is not Decision.WAIT
    }
    witness = None
    if batch.witness is Outcome.DOUBT:
        still = min(doubt.age, doubt.quiet) > terms.settle_after
        if doubt.witness is Finding.IN_WINDOW:
            witness = Outcome.LANDED
        elif doubt.witness is Finding.UNMOVED and still:
            witness = Outcome.REFUTED
    if not rulings and witness is None:
        return
    quiet_for = batch.claimed_at + terms.settle_after - now
    settlements.settle(batch.id, rulings, now=now, quiet_for=quiet_for, witness=witness)
    for position, ruling in rulings.items():
        settled.landed += ruling.outcome is Outcome.LANDED
        settled.points += batch.open[position] if ruling.outcome is Outcome.LANDED else 0
        settled.refuted += ruling.outcome is Outcome.REFUTED
        settled.held += ruling.outcome is Outcome.HELD
        settled.skipped += ruling.outcome is Outcome.SKIPPED
