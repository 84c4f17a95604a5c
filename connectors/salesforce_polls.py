"""Polls of one Salesforce object by SystemModstamp, and looks for deletions that leave no stamp."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from connectors.salesforce_api import Session
from connectors.salesforce_deleted import Deletions
from connectors.salesforce_records import ID, Records, Rows, literal
from syncsvc.errors import CursorError, TransientError
from syncsvc.model import Contact, Page
from syncsvc.remote.window import PollCursor, Window

_AFTER = re.compile(rf"(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{{3}})?Z) ({ID})")


class Polls:
    """Reads what has changed of one object."""

    def __init__(
        self,
        session: Session,
        records: Records,
        deletions: Deletions,
        *,
        overlap: timedelta,
        every: timedelta,
    ) -> None:
        """Make no request yet; `every` is the time between two looks for deletions, zero for none."""
        self._session = session
        self._records = records
        self._deletions = deletions
        self._overlap = overlap
        self._every = every

    def polled(self, cursor: str) -> Iterator[Page]:
        """Yield what changed since a poll's cursor, deleted records included.

        Raises CursorError for a cursor of anything else, and SchemaError where a field is missing.
        """
        poll = PollCursor.parse(cursor)
        yield from self._poll(poll, persons="persons" in json.loads(cursor))

    def _poll(self, cursor: PollCursor, *, persons: bool) -> Iterator[Page]:
        window, rows = self._first(cursor, persons=persons)
        while True:
            if rows.records:
                stamp = datetime.fromisoformat(rows.records[-1]["SystemModstamp"])
                window = window.advanced(f"{literal(stamp)} {rows.records[-1]['Id']}", stamp)
            if rows.last:
                closed = cursor.closed(window, seen_until=window.until, lag=self._overlap)
                yield Page(self._records.contacts(rows), self._records.cursor(closed, persons=persons))
                if closed.looks(window, every=self._every):
                    yield self._look(closed, window.until, persons=persons)
                return
            within = cursor.within(window)
            yield Page(self._records.contacts(rows), self._records.cursor(within, persons=persons))
            rows = self._records.query("queryAll", _stretch(window), "SystemModstamp, Id", persons=persons)

    def ended(self, *, persons: bool) -> list[Contact]:
        """Return who was deleted while the org remembers, as a sweep begins: told for certain.

        The sweep itself needs none of it: what cannot be told is found by its absence.
        """
        if not self._every:
            return []
        try:
            return self._deletions.between(None, self._session.now() - self._overlap, persons=persons)[0]
        except TransientError:
            return []

    def _look(self, cursor: PollCursor, now: datetime, *, persons: bool) -> Page:
        """Return what was deleted since the last look, as far as polls have told all that they can of it."""
        since = cursor.look.since if cursor.look is not None else None
        gone, told = self._deletions.between(since, now - self._overlap, persons=persons)
        looked = cursor.looked(told, due=now + self._every, every=self._every)
        return Page(gone, self._records.cursor(looked, persons=persons))

    def _first(self, cursor: PollCursor, *, persons: bool) -> tuple[Window, Rows]:
        """Return the window to read and its next rows; the window's end is by the server's clock."""

        def read(where: list[str]) -> Rows:
            return self._records.query("queryAll", where, "SystemModstamp, Id", persons=persons)

        if cursor.window is not None:
            return cursor.window, read(_stretch(cursor.window))
        window = cursor.open(self._session.now(), lag=self._overlap)
        # Only its answer tells the time it was asked at, so the first query has no end.
        rows = read(_stretch(window)[:1])
        due = cursor.open(rows.asked, lag=self._overlap)
        if due.full and not window.full:
            window, rows = due, read(_stretch(due)[:1])
        return replace(window, until=max(rows.asked, window.start)), rows


def _stretch(window: Window) -> list[str]:
    """Return the conditions for what is left of a window, its beginning first.

    Stamps are whole seconds, rounded down: so is the beginning, and the end is rounded up.
    """
    beginning = f"SystemModstamp >= {literal(window.start.replace(microsecond=0))}"
    if window.after:
        at = _AFTER.fullmatch(window.after)
        if at is None:
            raise CursorError("the stored cursor is not one of this connector's")
        beginning = f"(SystemModstamp > {at[1]} OR (SystemModstamp = {at[1]} AND Id > '{at[2]}'))"
    end = window.until.replace(microsecond=0) + timedelta(seconds=bool(window.until.microsecond))
    return [beginning, f"SystemModstamp <= {literal(end)}"]
