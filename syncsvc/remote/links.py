"""Where a poll by delta links stands: overlap without a time to go back to, and silence when idle.

Some CRMs hand out links (or tokens) that give whatever has changed since they were given. They are opaque,
and may count past changes that commit later, or that were made while the pages before them were read. So none
is trusted while it is young. Three are kept, oldest first: before `base` everything has been read for good,
`middle` is to be the next base, `last` is the latest.

- a *quick* pass reads from `last`, every cycle;
- a *full* pass reads from `base`, every `lag / 2` after changes were seen, until nothing is younger. `middle`
  becomes the base once a full pass has begun `lag` after it was given: what it had counted past was visible.

No link is older than the first sweep: after a sweep the base is a time, and full passes ask for what was
modified since. When nothing changes, every pass is a full one that brings nothing: one request, the cursor
stays the same, until the base is `keep` old. Then it is renewed in the same way, as links expire.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Self

from pydantic import ValidationError

from syncsvc.errors import CursorError
from syncsvc.settings import Settings

_CLOCK_STEP = timedelta(seconds=2)
"""How far two Date headers are off at most, each rounded down to a second."""


class Mark(Settings):
    """A link and when it was given, by the server's clock; without a link, what was modified since then."""

    at: datetime
    link: str = ""


class Pass(Settings):
    """A read that has begun: where it goes on, and whether it has brought anything yet.

    A `timed` one asks for what was modified since `base`; the changes since `last` are read after it.
    """

    began: datetime
    full: bool
    link: str = ""
    timed: bool = False
    news: bool = False

    def advanced(self, link: str, *, news: bool) -> Pass:
        """Return the pass after one more page."""
        return self.model_copy(update={"link": link, "news": self.news or news})


class Sweep(Settings):
    """A sweep that has begun, and the link to its next page."""

    began: datetime
    link: str


class LinkCursor(Settings):
    """A resume point, of a sweep or of a poll; good for one query, as links are, which `query` names."""

    query: str
    sweep: Sweep | None = None
    base: Mark | None = None
    middle: Mark | None = None
    last: Mark | None = None
    due: datetime | None = None
    reading: Pass | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the cursor that `encode` wrote; raises CursorError for anything else."""
        try:
            cursor = cls.model_validate_json(text)
        except ValidationError as error:
            raise CursorError("the stored cursor is not one of this connector's") from error
        whole = cursor.base is not None and (cursor.middle is None) == (cursor.last is None)
        if not whole and cursor.sweep is None:
            raise CursorError("the stored cursor points nowhere")
        return cursor

    @classmethod
    def swept(cls, query: str, *, began: datetime, mark: Mark, lag: timedelta) -> Self:
        """Return the cursor after a sweep that `began` then and ended with the link of `mark`."""
        return cls(query=query, base=Mark(at=began - lag), middle=mark, last=mark, due=mark.at)

    def encode(self) -> str:
        """Return the cursor as plain text; equal cursors give equal text."""
        return self.model_dump_json(exclude_defaults=True)

    def links(self) -> Iterator[str]:
        """Yield every link in the cursor."""
        for holder in (self.sweep, self.base, self.middle, self.last, self.reading):
            if holder is not None and holder.link:
                yield holder.link

    def open(self, now: datetime) -> Pass:
        """Return the pass that was begun, else the one that is due; `now` is by the server's clock."""
        if self.reading is not None:
            return self.reading
        assert self.base is not None  # noqa: S101 - parsed above; a sweep is not polled
        if self.due is not None and self.last is not None and now < self.due:
            return Pass(began=now, full=False, link=self.last.link)
        return Pass(began=now, full=True, link=self.base.link, timed=not self.base.link)

    def within(self, reading: Pass) -> Self:
        """Return the cursor that continues in the middle of a pass."""
        return self.model_copy(update={"reading": reading})

    def closed(self, reading: Pass, mark: Mark, *, lag: timedelta, keep: timedelta) -> Self:
        """Return the cursor after a pass that ended with the link of `mark`; without news it is as before.

        Where a CRM gives no new link as nothing changed, `mark` is the one that was asked.
        """
        assert self.base is not None  # noqa: S101 - as above
        before = self.model_copy(update={"reading": None})
        if not reading.full:
            return before.model_copy(update={"last": mark}) if reading.news else before
        base, middle, began = self.base, self.middle, reading.began
        settled = middle is not None and middle.at + lag + _CLOCK_STEP <= began
        if settled and middle is not None:
            base, middle = middle, self.last if self.last != middle else None
        if base.link and not reading.news and (began - base.at < keep or mark == base):
            return type(self)(query=self.query, base=base)
        middle = middle or mark
        old_enough = middle.at + lag + _CLOCK_STEP
        # The next poll tells whether anything is younger than a new base; else half a lag is waited.
        due = began if settled else min(old_enough, began + lag / 2)
        if due < old_enough < due + lag / 10:
            due = old_enough
        return type(self)(query=self.query, base=base, middle=middle, last=mark, due=due)
