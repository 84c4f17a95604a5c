"""Where a poll by modification time stands: overlap, a delayed second pass, and silence when idle.

Change feeds lie near now: rows become visible late with an old stamp, stamps are equal, indexes lag. So a
poll re-reads what it has read, in two tiers:

- a *quick* pass reads from shortly before where the last one ended (`overlap_of`), every cycle;
- a *full* pass reads from `since`, before which everything has been read for good; it comes `lag / 2` after
  changes were seen, until a full pass sees nothing younger than `lag`. Each change is thus read a handful
  of times in all, however long the poll runs, and a row that shows up to `lag` late is found.

When nothing changes, every pass is a full one over an empty range: one request, the cursor stays the same.
Inside a window a connector pages by keyset (`after`), so a cursor can point into the middle of one.

What a feed does not tell at all, such as deletions that left no record to be modified, is *looked* for:
seldom, after a full pass, and no further than a lag ago, so that what changes do tell of it was told before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Self

import orjson

from syncsvc.errors import CursorError

_SHARE_OF_LAG = 20
_LEAST_OVERLAP = timedelta(seconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def overlap_of(lag: timedelta) -> timedelta:
    """Return how far back a quick pass reads: 30 s for a lag of 10 minutes, never less than a second."""
    return max(_LEAST_OVERLAP, lag / _SHARE_OF_LAG)


def _to_ms(value: datetime) -> int:
    return (value - _EPOCH) // timedelta(milliseconds=1)


def _from_ms(value: object) -> datetime:
    if type(value) is not int:
        raise TypeError
    return _EPOCH + timedelta(milliseconds=value)


@dataclass(frozen=True, slots=True)
class Window:
    """The stretch of modification times `[start, until]`, both included, that is being read.

    `after` is the keyset position of the last page that was handed out, as the connector wrote it; `newest`
    the latest stamp seen so far.
    """

    start: datetime
    until: datetime
    full: bool
    after: str = ""
    newest: datetime | None = None

    def advanced(self, after: str, newest: datetime | None) -> Window:
        """Return the window after one more page, whose latest stamp is `newest`."""
        latest = max(filter(None, (self.newest, newest)), default=None)
        return replace(self, after=after, newest=latest)


@dataclass(frozen=True, slots=True)
class Look:
    """What ended before `since` has been looked for; the next look is due then, by the server's clock.

    `every` is how often looks were wanted when this one was made, None where an older version made it.
    """

    since: datetime
    due: datetime
    every: timedelta | None = None


def _look(data: dict[str, object]) -> Look:
    every = data.get("every")
    if every is not None and not isinstance(every, int):
        raise TypeError
    wanted = None if every is None else timedelta(milliseconds=every)
    return Look(since=_from_ms(data["since"]), due=_from_ms(data["due"]), every=wanted)


def _window(data: dict[str, object]) -> Window:
    full, after = data["full"], data["after"]
    if not isinstance(full, bool) or not isinstance(after, str):
        raise TypeError
    return Window(
        start=_from_ms(data["start"]),
        until=_from_ms(data["until"]),
        full=full,
        after=after,
        newest=_from_ms(data["newest"]) if "newest" in data else None,
    )


@dataclass(frozen=True, slots=True)
class PollCursor:
    """A resume point: what has been read for good, how far quick passes came, and a window begun.

    `look` is the last one, None where there was none yet.
    """

    since: datetime
    read: datetime | None = None
    recheck: datetime | None = None
    window: Window | None = None
    look: Look | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that `encode` wrote; raises CursorError for anything else."""
        try:
            data = orjson.loads(text)
            window, look = data.get("window"), data.get("look")
            return cls(
                since=_from_ms(data["since"]),
                read=_from_ms(data["read"]) if "read" in data else None,
                recheck=_from_ms(data["recheck"]) if "recheck" in data else None,
                window=None if window is None else _window(window),
                look=None if look is None else _look(look),
            )
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise CursorError("the stored cursor is not one of this connector's") from error

    def encode(self) -> str:
        """Return the cursor as plain text; equal cursors give equal text."""
        data: dict[str, object] = {"since": _to_ms(self.since)}
        if self.read is not None:
            data["read"] = _to_ms(self.read)
        if self.recheck is not None:
            data["recheck"] = _to_ms(self.recheck)
        if self.window is not None:
            data["window"] = {
                "start": _to_ms(self.window.start),
                "until": _to_ms(self.window.until),
                "full": self.window.full,
                "after": self.window.after,
            } | ({} if self.window.newest is None else {"newest": _to_ms(self.window.newest)})
        if self.look is not None:
            look, every = self.look, self.look.every
            data["look"] = {"since": _to_ms(look.since), "due": _to_ms(look.due)} | (
                {} if every is None else {"every": every // timedelta(milliseconds=1)}
            )
        return orjson.dumps(data, option=orjson.OPT_SORT_KEYS).decode()

    def open(self, now: datetime, *, lag: timedelta) -> Window:
        """Return the window to read: the one begun, else the next one up to `now` (the server's clock)."""
        if self.window is not None:
            return self.window
        if self.read is None or self.recheck is None or now >= self.recheck:
            return Window(self.since, max(now, self.since), full=True)
        start = max(self.since, self.read - overlap_of(lag))
        return Window(start, max(now, start), full=False)

    def within(self, window: Window) -> PollCursor:
        """Return the cursor that continues in the middle of `window`."""
        return replace(self, window=window)

    def closed(self, window: Window, *, seen_until: datetime, lag: timedelta) -> PollCursor:
        """Return the cursor after the last page of `window`.

        `seen_until` is the server's clock when the window's first page was asked for: what was stamped later
        may not have been seen, whatever our own clock says. A connector that hands out cursors inside a
        window draws `until` in to that moment before, as a run that continues the window cannot know it.
        Without news the cursor is as it was before.
        """
        before = replace(self, window=None)
        until = min(window.until, seen_until)
        if window.newest is None:
            return before
        if not window.full:
            known = self.read is not None and window.newest <= self.read
            if known and until <= window.newest + overlap_of(lag):
                return before  # what was read before is read again while it lies within the overlap
            return replace(before, read=max(until, self.read or until))
        settled = max(self.since, until - lag)
        if window.newest < settled:
            return replace(before, since=settled, read=None, recheck=None)
        return replace(before, since=settled, read=until, recheck=until + lag / 2)

    def looks(self, window: Window, *, every: timedelta) -> bool:
        """Return whether a look is due after `window`, which was read; zero means that none ever is.

        Where looks are wanted more often than at the last one, the next does not wait for when it was due.
        """
        if not every or not window.full:
            return False
        if self.look is None or window.until >= self.look.due:
            return True
        sooner = self.look.every is not None and every < self.look.every
        return sooner and window.until >= self.look.since + every

    def looked(self, since: datetime, *, due: datetime, every: timedelta) -> PollCursor:
        """Return the cursor after a look that told what had ended by `since`; one is wanted so often."""
        return replace(self, look=Look(since, due, every))
