"""What is known of a batch in doubt, put together: how long to wait, and what its witness says."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from syncsvc.rules.settling import Decision, Finding, Grade, Sighting, Terms
from syncsvc.stages.settle import conditions
from syncsvc.state.codes import Outcome
from syncsvc.state.settlements import DoubtfulBatch

SECOND = timedelta(seconds=1)
SENT = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
TERMS = Terms(timedelta(minutes=5), timedelta(hours=1), Grade.WINDOW, Decision.HOLD)
SEEN = {
    Finding.UNMOVED: Sighting("a", "a", SENT - timedelta(days=1)),
    Finding.IN_WINDOW: Sighting("a", "b", SENT + SECOND),
    Finding.ELSEWHERE: Sighting("a", "b", SENT + timedelta(hours=2)),
    Finding.MUTE: Sighting("a", None, None),
}


def batch(**facts: Any) -> DoubtfulBatch:
    known: dict[str, Any] = {
        "id": 1,
        "brand_id": "brand-1",
        "sent_at": SENT,
        "claimed_at": SENT,
        "moved_at": SENT,
        "moved": 0,
        "resolution": SECOND,
        "slowest": timedelta(),
        "read_at": SENT + timedelta(minutes=2),
        "unshown": (),
        "rows": {},
        "open": {},
        "witness": None,
        "witness_seen": SEEN[Finding.UNMOVED],
        "short": False,
        "restored": False,
    }
    return DoubtfulBatch(**known | facts)


def expected(outcome: Outcome | None, finding: Finding, *, short: bool) -> Finding | None:
    """What the witness says of its batch, read a second time."""
    if outcome is None:
        return None
    if outcome is Outcome.LANDED:
        return Finding.IN_WINDOW
    if outcome is Outcome.REFUTED:
        return Finding.UNMOVED
    if outcome is Outcome.DOUBT:
        return Finding.MUTE if short and finding is Finding.UNMOVED else finding
    return Finding.MUTE  # under way, refused, or given up: it has no word


def test_the_witness_says_what_became_of_its_row_or_what_its_entry_shows() -> None:
    for outcome, finding, short in itertools.product([None, *Outcome], Finding, (False, True)):
        _, doubt = conditions(batch(witness=outcome, witness_seen=SEEN[finding], short=short), TERMS)
        assert doubt.witness is expected(outcome, finding, short=short), (outcome, finding, short)
        assert doubt.short is short


@pytest.mark.parametrize(
    ("slowest", "unshown", "minutes"),
    [
        (0, (), 5),
        (100, (), 5),
        (101, (), 5.05),
        (400, (), 20),
        (0, (200,), 10),
        (150, (200, 120), 10),
        (0, (3601,), 5),  # older than `give_up_after`: the log will never show it
    ],
)
def test_nothing_is_settled_sooner_than_three_times_the_slowest_that_was_seen(
    slowest: int, unshown: tuple[int, ...], minutes: float
) -> None:
    late = [it * SECOND for it in unshown]
    terms, _ = conditions(batch(slowest=slowest * SECOND, unshown=late), TERMS)
    assert terms.settle_after == timedelta(minutes=minutes)


def test_ages_count_to_the_beginning_of_the_reading_that_is_judged() -> None:
    moved = SENT + timedelta(minutes=1)
    _, doubt = conditions(batch(moved_at=moved), TERMS)
    assert (doubt.age, doubt.quiet) == (timedelta(minutes=2), timedelta(minutes=1))
