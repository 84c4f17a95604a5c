"""The poll cursor against a feed that lies near now: late rows, equal stamps, wrong clocks, cut-off reads."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncsvc.errors import CursorError
from syncsvc.remote.window import PollCursor, Window, overlap_of

HOUR = timedelta(hours=1)
START = datetime(2026, 11, 2, 12, tzinfo=UTC)
LAG = timedelta(minutes=10)
PAGE = 2
SECOND = timedelta(seconds=1)

fixed = settings(max_examples=300, derandomize=True, database=None, deadline=None)


@dataclass(frozen=True)
class Row:
    """A change: its id, its stamp, and when the feed begins to show it."""

    number: int
    stamp: datetime
    visible: datetime


@dataclass
class Feed:
    """Rows by id, read in pages that take a while; counts how often each row was read."""

    rows: list[Row]
    now: datetime = START
    reads: Counter[int] = field(default_factory=Counter)

    def page(self, window: Window) -> tuple[list[Row], bool]:
        shown = [
            row
            for row in sorted(self.rows, key=lambda row: row.number)
            if row.visible <= self.now
            and window.start <= row.stamp <= window.until
            and row.number > int(window.after or -1)
        ]
        self.reads.update(row.number for row in shown[:PAGE])
        return shown[:PAGE], len(shown) <= PAGE

    def poll(self, text: str, *, skew: timedelta, pause: timedelta, pages: int | None = None) -> str:
        """Return the cursor after one poll, or after `pages` pages where that is less."""
        cursor = PollCursor.parse(text)
        window = cursor.open(self.now + skew, lag=LAG)
        if cursor.window is None:
            asked = self.now.replace(microsecond=0)  # as a Date header says it
            window = replace(window, until=max(window.start, min(window.until, asked)))
        while True:
            rows, last = self.page(window)
            self.now += pause
            if rows:
                window = window.advanced(str(rows[-1].number), max(row.stamp for row in rows))
            if last:
                return cursor.closed(window, seen_until=window.until, lag=LAG).encode()
            text = cursor.within(window).encode()
            pages = None if pages is None else pages - 1
            if pages == 0:
                return text

    def calm(self, text: str, *, skew: timedelta = timedelta()) -> str:
        """Poll until nothing can be outstanding: past the last row, the lag, the rechecks, a slow clock."""
        end = max([self.now, *(row.visible for row in self.rows)]) + 3 * LAG + abs(skew)
        while self.now < end:
            self.now += timedelta(minutes=1)
            text = self.poll(text, skew=skew, pause=timedelta())
        return text


def row(number: int, at: float, late: float = 0.0) -> Row:
    stamp = START + timedelta(seconds=at)
    return Row(number, stamp, stamp + timedelta(seconds=late))


def after_sweep() -> PollCursor:
    return PollCursor(since=START - LAG, read=START, recheck=START + LAG / 2)


milliseconds = st.integers(0, 3_600_000).map(lambda ms: ms / 1000)
lateness = st.one_of(st.just(LAG.total_seconds()), st.integers(0, 600_000).map(lambda ms: ms / 1000))
rows = st.lists(st.tuples(milliseconds, lateness), max_size=12).map(
    lambda drawn: [row(number, at, late) for number, (at, late) in enumerate(drawn)]
)
polls = st.lists(
    st.tuples(st.integers(0, 900_000), st.one_of(st.none(), st.integers(1, 3)), st.integers(0, 20_000)),
    max_size=25,
)
cursors = st.sampled_from([PollCursor(since=START - LAG), after_sweep()])
skews = st.sampled_from([timedelta(), timedelta(hours=2), timedelta(hours=-2), timedelta(seconds=-3)])


@fixed
@given(rows, polls, cursors, skews)
def test_no_change_is_lost_that_appears_within_the_lag(
    changes: list[Row], when: list[tuple[int, int | None, int]], cursor: PollCursor, skew: timedelta
) -> None:
    feed, text = Feed(changes), cursor.encode()
    for gap, pages, pause in when:
        feed.now += timedelta(milliseconds=gap)
        text = feed.poll(text, skew=skew, pause=timedelta(milliseconds=pause), pages=pages)
    feed.calm(text, skew=skew)
    assert set(feed.reads) == {one.number for one in changes}


@fixed
@given(rows, cursors, skews)
def test_idle_poll_reads_nothing_and_keeps_the_cursor(
    changes: list[Row], cursor: PollCursor, skew: timedelta
) -> None:
    feed = Feed(changes)
    text = feed.calm(cursor.encode(), skew=skew)
    feed.reads.clear()
    for _ in range(30):
        feed.now += timedelta(minutes=1)
        assert feed.poll(text, skew=skew, pause=timedelta()) == text
    assert not feed.reads


@fixed
@given(rows, st.integers(30, 900), cursors)
def test_each_change_is_read_a_handful_of_times_however_long_the_poll_runs(
    changes: list[Row], every: int, cursor: PollCursor
) -> None:
    feed, text = Feed(changes), cursor.encode()
    while feed.now < START + timedelta(hours=2):
        feed.now += timedelta(seconds=every)
        text = feed.poll(text, skew=timedelta(), pause=timedelta())
    assert max(feed.reads.values(), default=0) <= 6


def test_quick_pass_leaves_behind_what_lies_before_the_overlap() -> None:
    feed = Feed([row(1, at=-300), row(2, at=40)])
    feed.now += timedelta(seconds=60)
    feed.poll(after_sweep().encode(), skew=timedelta(), pause=timedelta())
    assert feed.reads == {2: 1}


def test_full_pass_comes_half_a_lag_after_a_change_and_finds_what_appeared_late() -> None:
    feed = Feed([row(1, at=40), row(2, at=1, late=200)])
    text = after_sweep().encode()
    for _ in range(4):
        feed.now += timedelta(minutes=1)
        text = feed.poll(text, skew=timedelta(), pause=timedelta())
    assert feed.reads[2] == 0
    feed.now = START + LAG / 2
    feed.poll(text, skew=timedelta(), pause=timedelta())
    assert feed.reads[2] == 1


def test_a_change_is_not_read_again_by_every_quick_pass() -> None:
    feed, text = Feed([row(1, at=55)]), after_sweep().encode()
    feed.now += timedelta(seconds=60)
    for _ in range(8):
        text = feed.poll(text, skew=timedelta(), pause=timedelta())
        feed.now += overlap_of(LAG)
    assert feed.now < START + LAG / 2 + overlap_of(LAG)
    assert feed.reads[1] <= 3


def test_clock_of_ours_that_is_ahead_does_not_end_the_window_after_what_was_seen() -> None:
    cursor = PollCursor(since=START)
    window = cursor.open(START + timedelta(hours=5), lag=LAG).advanced("1", START + SECOND)
    closed = cursor.closed(window, seen_until=START + LAG * 2, lag=LAG)
    assert closed == PollCursor(since=START + LAG)


def test_clock_of_ours_that_is_behind_leaves_a_window_of_nothing() -> None:
    window = PollCursor(since=START).open(START - LAG, lag=LAG)
    assert (window.start, window.until, window.full) == (START, START, True)


def test_window_keeps_the_latest_stamp_of_all_its_pages() -> None:
    window = Window(START, START + LAG, full=False).advanced("1", START + SECOND).advanced("2", START)
    assert window.advanced("3", None).newest == START + SECOND


def test_window_begun_is_the_window_that_goes_on() -> None:
    window = after_sweep().open(START + LAG, lag=LAG).advanced("17", START + SECOND)
    cursor = PollCursor.parse(after_sweep().within(window).encode())
    assert cursor.open(START + 9 * LAG, lag=LAG) == window


times = st.integers(-(10**12), 10**13).map(lambda ms: START + timedelta(milliseconds=ms))
windows = st.builds(Window, times, times, full=st.booleans(), after=st.text(), newest=st.none() | times)
any_cursor = st.builds(PollCursor, times, st.none() | times, st.none() | times, st.none() | windows)


@fixed
@given(any_cursor)
def test_cursor_survives_being_stored(cursor: PollCursor) -> None:
    assert PollCursor.parse(cursor.encode()) == cursor
    assert PollCursor.parse(cursor.encode()).encode() == cursor.encode()


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text()
keys = st.sampled_from(["since", "read", "recheck", "window", "start", "until", "full", "after", "newest"])
documents = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(keys | st.text(), inner), max_leaves=8
)


@fixed
@given(st.text() | documents.map(lambda document: orjson.dumps(document).decode(errors="replace")))
def test_text_that_is_no_cursor_is_refused_and_nothing_else_happens(text: str) -> None:
    try:
        cursor = PollCursor.parse(text)
    except CursorError:
        return
    data = orjson.loads(text)
    written = orjson.loads(cursor.encode())
    assert {name: data[name] for name in written} == written


@pytest.mark.parametrize("name", ["since", "read", "recheck", "start", "until", "full", "after", "newest"])
@pytest.mark.parametrize("value", ["x", None, 1.5, [], {}, 10**17])
def test_cursor_with_a_wrong_value_anywhere_is_refused(name: str, value: object) -> None:
    if name in {"full", "after"} and value == "x":
        value = 1
    window = {"start": 1, "until": 2, "full": True, "after": "3", "newest": 2}
    data: dict[str, object] = {"since": 1, "read": 2, "recheck": 3, "window": window}
    PollCursor.parse(orjson.dumps(data).decode())
    (window if name in window else data)[name] = value
    with pytest.raises(CursorError):
        PollCursor.parse(orjson.dumps(data).decode())


# Looks for what no change tells


def test_look_comes_after_a_full_pass_when_it_is_due_and_not_before() -> None:
    never = PollCursor(since=START)
    full = replace(never.open(START, lag=LAG), until=START)
    assert never.looks(full, every=HOUR)
    assert not never.looks(replace(full, full=False), every=HOUR)
    assert not never.looks(full, every=timedelta())
    looked = PollCursor.parse(never.looked(START - LAG, due=START + HOUR, every=HOUR).encode())
    assert looked.look is not None
    assert looked.look.since == START - LAG
    assert not looked.looks(replace(full, until=START + HOUR - SECOND), every=HOUR)
    assert looked.looks(replace(full, until=START + HOUR), every=HOUR)


def test_look_that_is_wanted_more_often_does_not_wait_for_when_it_was_due() -> None:
    looked = PollCursor.parse(PollCursor(START).looked(START - LAG, due=START + HOUR, every=HOUR).encode())
    full = replace(looked.open(START, lag=LAG), until=START + LAG, full=True)
    assert not looked.looks(full, every=HOUR)
    assert not looked.looks(full, every=2 * HOUR)
    assert looked.looks(full, every=LAG)
    put_off = PollCursor(START).looked(START - LAG, due=START + HOUR, every=LAG)
    assert not put_off.looks(full, every=LAG), "an account that is asked less often than wanted stays so"


def test_what_changes_bring_leaves_the_last_look_as_it_is() -> None:
    cursor = PollCursor(since=START).looked(START - LAG, due=START + HOUR, every=HOUR)
    for newest in (None, START, START + HOUR):
        window = Window(START, START + HOUR, full=True, newest=newest)
        assert cursor.closed(window, seen_until=START + HOUR, lag=LAG).look == cursor.look
        assert PollCursor.parse(cursor.within(window).encode()).look == cursor.look


@pytest.mark.parametrize(
    "look",
    [
        1,
        [],
        {"since": 1},
        {"since": "x", "due": 1},
        {"since": 1, "due": 1e3},
        {"since": 1, "due": 1, "every": "1"},
    ],
)
def test_look_of_another_form_is_none_of_ours(look: object) -> None:
    with pytest.raises(CursorError):
        PollCursor.parse(orjson.dumps({"since": 1, "look": look}).decode())
