"""Which row may have landed late with a move of its member's entry, over every combination."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from syncsvc.rules.lateness import LATEST, Late, Move, SentRow, late_row

SECOND = timedelta(seconds=1)
SETTLE = timedelta(minutes=5)
NOON = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SENT, NEWER = NOON, NOON + 400 * SECOND
BEFORE = "before"


def row(
    batch: int,
    at: datetime,
    *,
    landed: bool = False,
    proven: bool | None = None,
    differs: bool = False,
    paid: int = 0,
    owed: int = 0,
    log_before: str | None = BEFORE,
) -> SentRow:
    proven = landed if proven is None else proven
    return SentRow(batch, 0, at, landed, proven, differs, paid, owed, log_before)


OLD = row(1, SENT, differs=True)
PAID = row(1, SENT, paid=40)
LANDED = row(2, NEWER, landed=True)
SEEN = Move("newer", NEWER, NEWER + 60 * SECOND)


def judge(sent: list[SentRow], move: Move, *, resolution: timedelta = SECOND) -> Late | None:
    return late_row(sent, move, resolution=resolution, longest=SETTLE)


@pytest.mark.parametrize("seen", [False, True])
@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("differs", [False, True])
@pytest.mark.parametrize("paid", [0, 40])
@pytest.mark.parametrize("owed", [0, 40])
def test_a_row_is_late_where_it_overwrites_or_pays_and_no_landed_row_explains_the_move(
    *, seen: bool, landed: bool, differs: bool, paid: int, owed: int
) -> None:
    old = row(1, SENT, differs=differs, paid=paid, owed=owed)
    move = SEEN if seen else Move(BEFORE, SENT - 60 * SECOND, SEEN.at)
    found = judge([old, LANDED] if landed else [old], move)
    explained = landed and not seen
    overwrote = landed and differs
    suspected = overwrote or paid or owed
    expected = None if explained or not suspected else Late(old, overwrote, doubted=owed > 0)
    assert found == expected


def test_the_move_that_a_landed_row_makes_is_explained_for_as_long_as_it_can_take() -> None:
    for late, explained in ((SETTLE, True), (SETTLE + 3 * SECOND, False)):
        move = Move(BEFORE, SENT - 60 * SECOND, NEWER + late)
        assert (judge([OLD, LANDED], move) is None) is explained


def test_a_second_move_is_not_explained_by_a_row_whose_own_was_seen() -> None:
    assert judge([OLD, LANDED], SEEN) == Late(OLD, overwrote=True, doubted=False)
    unread = Move(BEFORE, NEWER, SEEN.at)  # as it was read before the row was sent, whatever time it tells
    assert judge([OLD, LANDED], unread) is None


def test_a_move_before_the_newer_row_overwrote_nothing() -> None:
    assert judge([OLD, LANDED], Move(BEFORE, None, NEWER - 5 * SECOND)) is None


def test_a_row_that_was_sent_after_the_newer_one_is_not_behind_it() -> None:
    newest = row(3, NEWER + 10 * SECOND, differs=True)
    assert judge([LANDED, newest], SEEN) is None


@pytest.mark.parametrize(("after", "late"), [(LATEST, True), (LATEST + SECOND, False), (-3 * SECOND, False)])
def test_a_row_lands_within_a_day_or_never_and_not_before_it_was_sent(
    after: timedelta, *, late: bool
) -> None:
    assert (judge([PAID], Move("x", SENT - LATEST, SENT + after)) is not None) is late


def test_a_lost_row_that_was_applied_in_time_explains_its_own_move() -> None:
    lost = row(2, NEWER)
    move = Move(BEFORE, SENT - 60 * SECOND, NEWER + SECOND)
    assert judge([row(1, SENT, owed=40), lost], move) is None
    assert judge([row(1, SENT, owed=40)], move) == Late(row(1, SENT, owed=40), overwrote=False, doubted=True)
    early = Move(BEFORE, SENT - 60 * SECOND, SENT + SECOND)  # the log showed it too late
    assert judge([row(1, SENT, owed=40)], early) == Late(row(1, SENT, owed=40), overwrote=False, doubted=True)


def test_points_that_can_still_wait_are_named_before_those_that_were_paid() -> None:
    waits = row(3, SENT, owed=7)
    assert judge([PAID, waits], SEEN) == Late(waits, overwrote=False, doubted=True)


def test_points_are_named_first_and_then_the_oldest() -> None:
    others = [row(3, SENT, differs=True), row(4, SENT, paid=7), LANDED]
    sent = [OLD, *(it for it in others if not it.landed), row(5, NEWER, landed=True)]
    assert judge(sent, SEEN) == Late(sent[2], overwrote=True, doubted=False)
    assert judge([OLD, others[0], row(5, NEWER, landed=True)], SEEN) == Late(
        OLD, overwrote=True, doubted=False
    )


@pytest.mark.parametrize("resolution", [timedelta(milliseconds=1), SECOND, timedelta(days=1)])
def test_a_landed_row_explains_its_own_move_at_every_resolution(resolution: timedelta) -> None:
    for offset, late in itertools.product((0, 3600, 86_399), (0, 1, 299)):
        sent = NOON.replace(hour=0) + offset * SECOND
        steps = (sent + late * SECOND - NOON.replace(hour=0)) // resolution
        told = NOON.replace(hour=0) + steps * resolution
        move = Move(BEFORE, told - resolution - 2 * SECOND, told)
        landed = row(2, sent, landed=True)
        assert (
            judge([row(1, sent - SETTLE, differs=True, paid=1), landed], move, resolution=resolution) is None
        )
