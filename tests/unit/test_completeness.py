"""Which readings of the import log may prove that an entry did not move."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from syncsvc.rules.completeness import BELIEVED_AFTER, Completeness, Seen, judge_reading

HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    ("shown", "known", "short"),
    [
        (0, 0, False),
        (1, 1, False),
        (0, 1, True),
        (9, 10, True),
        (19, 20, False),
        (95, 100, False),
        (94, 100, True),
    ],
)
def test_a_reading_is_short_that_leaves_out_more_than_a_twentieth(
    shown: int, known: int, *, short: bool
) -> None:
    assert judge_reading(shown=shown, known=known, short_for=None) == Completeness(shown, known, short, short)


def test_a_short_log_is_believed_after_a_day_but_never_an_empty_one() -> None:
    assert judge_reading(shown=5, known=10, short_for=BELIEVED_AFTER - HOUR).short
    assert not judge_reading(shown=5, known=10, short_for=BELIEVED_AFTER).short
    assert judge_reading(shown=0, known=10, short_for=100 * BELIEVED_AFTER).short


@pytest.mark.parametrize(
    ("shown", "short_for", "news"), [(9, None, True), (9, HOUR, False), (10, HOUR, True), (10, None, False)]
)
def test_it_is_news_when_a_log_becomes_short_or_whole(
    shown: int, short_for: timedelta | None, *, news: bool
) -> None:
    assert judge_reading(shown=shown, known=10, short_for=short_for).news is news


def test_members_are_seen_once_whatever_their_order() -> None:
    seen, chosen = Seen(), random.Random(1).sample(range(1, 100_000), 5_000)
    assert seen.add([]) == set()
    assert seen.add(chosen[:3_000]) == set()
    assert seen.add(chosen[2_000:]) == set(chosen[2_000:3_000])
    assert seen.add(chosen) == set(chosen)
    assert seen.count == 5_000
    assert [it for it in range(120_000) if it in seen] == sorted(chosen)
