from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from syncsvc.errors import CursorError
from syncsvc.remote.links import LinkCursor, Mark, Pass, Sweep

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
LAG = 10 * MINUTE
KEEP = timedelta(days=1)


def at(minutes: float) -> datetime:
    return NOON + minutes * MINUTE


def calm(minutes: float = 0) -> LinkCursor:
    return LinkCursor(query="q", base=Mark(at=at(minutes), link="first"))


def polled(cursor: LinkCursor, minutes: float, *, news: bool, link: str = "") -> tuple[Pass, LinkCursor]:
    """Poll in one page that takes no time."""
    reading = cursor.open(at(minutes))
    mark = Mark(at=at(minutes), link=link or f"at {minutes:g}")
    return reading, cursor.closed(reading.advanced("", news=news), mark, lag=LAG, keep=KEEP)


def test_idle_poll_reads_from_the_base_and_leaves_the_cursor() -> None:
    reading, after = polled(calm(), 60, news=False)
    assert (reading.link, reading.full, after) == ("first", True, calm())


def test_quick_pass_reads_from_the_latest_link() -> None:
    _, after = polled(calm(), 1, news=True)
    reading, after = polled(after, 2, news=True)
    assert (reading.link, reading.full) == ("at 1", False)
    reading, _ = polled(after, 3, news=False)
    assert reading.link == "at 2"


def test_quick_pass_without_news_leaves_the_cursor() -> None:
    _, after = polled(calm(), 1, news=True)
    assert polled(after, 2, news=False)[1] == after


def test_link_becomes_the_base_once_a_full_pass_began_a_lag_after_it() -> None:
    _, cursor = polled(calm(), 1, news=True)
    bases = {}
    for minute in range(2, 16):
        reading, cursor = polled(cursor, minute, news=True)
        bases |= {minute: reading.link} if reading.full else {}
    assert bases == {6: "first", 12: "first", 13: "at 1"}
    assert cursor.base == Mark(at=at(1), link="at 1")


def test_cursor_comes_to_rest_when_nothing_is_younger_than_its_base() -> None:
    _, cursor = polled(calm(), 0, news=True)
    minute = 0
    while cursor.due is not None:
        minute += 1
        reading = cursor.open(at(minute))
        # The change of minute 0 is told again by every pass from the base before it.
        _, cursor = polled(cursor, minute, news=reading.link == "first")
        assert minute < 40
    assert cursor == LinkCursor(query="q", base=Mark(at=at(0), link="at 0"))
    assert minute <= 13


def test_after_a_sweep_what_was_modified_is_asked_for_until_a_link_is_old_enough() -> None:
    mark = Mark(at=at(2), link="swept")
    cursor = LinkCursor.swept("q", began=at(0), mark=mark, lag=LAG)
    assert cursor.base == Mark(at=at(-10))
    first = cursor.open(at(2))
    assert (first.full, first.timed, first.link) == (True, True, "")
    for minute in (2, 7.1, 12.2):
        reading, cursor = polled(cursor, minute, news=True)
        assert reading.timed
    assert cursor.base == mark


def test_base_is_renewed_before_links_expire_though_nothing_changes() -> None:
    cursor, minute, moves = calm(), 0, 0
    while minute < 5 * 24 * 60:
        minute += 1
        _, following = polled(cursor, minute, news=False)
        moves += following != cursor
        cursor = following
        assert cursor.base is not None
        assert at(minute) - cursor.base.at < KEEP + 2 * LAG
    assert moves <= 5 * 4, "a few writes of the cursor a day"


def test_pass_that_was_begun_goes_on_as_it_was() -> None:
    cursor = calm()
    reading = cursor.open(at(1)).advanced("page 2", news=True)
    resumed = LinkCursor.parse(cursor.within(reading).encode())
    again = resumed.open(at(500))
    assert (again, again.began, again.news) == (reading, at(1), True)
    closed = resumed.closed(again.advanced("", news=False), Mark(at=at(500), link="l"), lag=LAG, keep=KEEP)
    assert closed.reading is None
    assert closed.last == Mark(at=at(500), link="l")


def test_cursor_survives_as_text() -> None:
    cursor = LinkCursor.swept("a,b", began=at(0), mark=Mark(at=at(1.5), link="/x?y=1"), lag=LAG)
    sweep = LinkCursor(query="a", sweep=Sweep(began=at(0), link="/x?page=2"))
    for one in (calm(), cursor, cursor.within(cursor.open(at(2))), sweep):
        assert LinkCursor.parse(one.encode()) == one
        assert LinkCursor.parse(one.encode()).encode() == one.encode()
    assert set(cursor.links()) == {"/x?y=1"}
    assert list(sweep.links()) == ["/x?page=2"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"query": "a"}',
        '{"query": "a", "base": {"at": "x"}}',
        '{"query": "a", "base": {"at": "2026-11-02T12:00:00Z"}, "last": {"at": "2026-11-02T12:00:00Z"}}',
        '{"query": "a", "base": {"at": "2026-11-02T12:00:00Z"}, "more": 1}',
    ],
)
def test_text_that_is_no_cursor_is_none(text: str) -> None:
    with pytest.raises(CursorError):
        LinkCursor.parse(text)


class Feed:
    """A feed whose links count too far: past changes that commit later, and from a read's last page on."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.changes: list[tuple[float, float]] = []  # when it was made, and when it shows

    def change(self, minute: float) -> None:
        late = self.rng.choice([0.0, 0.0, self.rng.uniform(0, LAG / MINUTE)])
        self.changes.append((minute, minute + late))

    def since(self, made_after: float, now: float) -> set[int]:
        return {n for n, (made, shows) in enumerate(self.changes) if made > made_after and shows <= now}


@pytest.mark.parametrize("seed", range(20))
def test_every_change_is_read_whatever_a_link_counts_past(seed: int) -> None:
    rng = random.Random(seed)
    feed, minute, cursor = Feed(rng), 0.0, calm()
    cursor = LinkCursor(query="q", base=Mark(at=NOON, link="0"))
    read: set[int] = set()
    tellings = 0
    while minute < 640 or cursor.due is not None:
        minute += rng.uniform(0.2, 8)
        if minute < 600 and rng.random() < 0.3:
            feed.change(minute)
        reading = cursor.open(at(minute))
        took = rng.uniform(0, 0.5)
        found = feed.since(float(reading.link), minute)
        tellings += len(found)
        read |= found
        if minute < 600 and rng.random() < 0.2:
            feed.change(minute + took)  # while the pages were read, and before the link is given
        minute += took
        mark = Mark(at=at(minute), link=str(minute))
        cursor = cursor.closed(reading.advanced("", news=bool(found)), mark, lag=LAG, keep=KEEP)
        assert minute < 2000
    assert read == set(range(len(feed.changes))), f"seed {seed}"
    assert tellings <= 8 * len(feed.changes)
