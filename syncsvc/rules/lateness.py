"""Rows that land late: a row that was taken as not applied, applied after all, behind a newer one.

The wallet carries an import out when it likes. Whoever sent a row again, or a newer profile, on proof that
the first had not been applied, learns only from the log that it was: its member's entry moves once more, and
no import that is known to have landed explains it. Somebody else may have moved it, so it is a suspicion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from syncsvc.rules.settling import CLOCK_RESOLUTION, opening

LATEST = timedelta(days=1)
"""A row that did not land within this time after it was sent never does."""


@dataclass(frozen=True, slots=True)
class SentRow:
    """What was sent of a member, as far as a later move of its entry may come from it.

    `landed` is one that counts as applied; the others are neither proven applied nor refused by an answer.
    `proven` is one that landed by more than a movement of its own entry, which somebody else may have made.
    `differs` says that its profile is another than the one delivered last. `paid_again` are points of it that
    were taken as not awarded and have been sent anew, `owed` such as have not been sent yet. `log_before` is
    the entry as it was read before.
    """

    batch: int
    position: int
    sent_at: datetime
    landed: bool
    proven: bool
    differs: bool
    paid_again: int
    owed: int
    log_before: str | None


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a member's entry: what it read before (its text, the time it means), and its time now."""

    before: str | None
    before_at: datetime | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Late:
    """The row that may most likely have landed late; `overwrote` says that a newer profile may be gone.

    `doubted` says that nothing proves any more that it was not applied, and that its points can still wait.
    """

    row: SentRow
    overwrote: bool
    doubted: bool


def late_row(
    sent: Sequence[SentRow], move: Move, *, resolution: timedelta, longest: timedelta
) -> Late | None:
    """Return what may have landed late with a move, None where a row in time explains it or nothing can have.

    `sent` is in the order in which it was sent; an import moves the entry within `longest` of its request.
    """
    landed = [it for it in sent if it.landed]
    in_time = [it for it in sent if _explains(it, move, resolution=resolution, longest=longest)][-1:]
    possible = in_time or [it for it in sent if it.sent_at <= move.at <= it.sent_at + LATEST]
    waiting = [it for it in possible if not it.proven]
    newer = max((it.batch for it in landed if it.sent_at <= move.at + resolution), default=0)
    overwriting = [it for it in waiting if it.batch < newer and it.differs]
    doubted = [it for it in waiting if it.owed]
    found = doubted or [it for it in waiting if it.paid_again] or overwriting
    return Late(found[0], bool(overwriting), bool(doubted)) if found else None


def _explains(row: SentRow, move: Move, *, resolution: timedelta, longest: timedelta) -> bool:
    """Return whether a move can be the one that a row made in time, and that was not seen before."""
    opens = opening(row.sent_at, resolution)
    seen = move.before != row.log_before and move.before_at is not None and move.before_at >= opens
    return not seen and opens <= move.at <= row.sent_at + longest + resolution + CLOCK_RESOLUTION
