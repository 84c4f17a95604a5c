"""Reading one object of a Salesforce org: queries, and polls by SystemModstamp.

Reading never relies on the server's query locators, which live two days and are evicted at will: every page
is a query of its own that goes on by keyset from the last row. So INVALID_QUERY_LOCATOR cannot happen, and a
cursor is good for as long as it is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from connectors.salesforce_api import Session
from syncsvc.errors import CursorError, LostAnswerError, SchemaError
from syncsvc.model import Contact, FieldValue, Page
from syncsvc.remote.connector import Needs
from syncsvc.remote.window import PollCursor, Window

MAX_QUERY = 12_000
"""Bytes of an encoded query; URL and headers together may have 16,384 (seen 2026-11)."""

MERGEABLE = frozenset({"Account", "Contact", "Lead"})
"""The objects that have MasterRecordId (Object Reference, v67.0)."""

CONVERTIBLE = "Lead"
"""The object whose records end by becoming contacts."""

ID = r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?"
"""A record id, as a regular expression."""

_AFTER = re.compile(rf"(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{{3}})?Z) ({ID})")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one query, whether they are the last ones, and the server's clock when it was asked."""

    records: Sequence[Mapping[str, Any]]
    last: bool
    asked: datetime


class Records:
    """The records of one object, as pages of contacts."""

    def __init__(
        self,
        session: Session,
        name: str,
        *,
        needs: Needs,
        overlap: timedelta,
        page_size: int,
    ) -> None:
        """Make no request yet; `name` is the object's, `page_size` the rows of one query."""
        self.name = name
        self.fields = needs.fields
        self._session = session
        self._overlap = overlap
        self._page_size = page_size
        keys = ["Id", "SystemModstamp", "IsDeleted"] + ["MasterRecordId"] * (name in MERGEABLE)
        keys += ["IsConverted"] * (name == CONVERTIBLE)
        # SOQL refuses a column named twice, in whatever case.
        columns = {column.casefold(): column for column in [*needs.fields, *keys]}
        self._columns = ", ".join(columns.values())

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
                yield Page(self.contacts(rows), self.cursor(closed, persons=persons))
                return
            within = cursor.within(window)
            yield Page(self.contacts(rows), self.cursor(within, persons=persons))
            rows = self.query("queryAll", _stretch(window), "SystemModstamp, Id", persons=persons)

    def _first(self, cursor: PollCursor, *, persons: bool) -> tuple[Window, Rows]:
        """Return the window to read and its next rows; the window's end is by the server's clock."""

        def read(where: list[str]) -> Rows:
            return self.query("queryAll", where, "SystemModstamp, Id", persons=persons)

        if cursor.window is not None:
            return cursor.window, read(_stretch(cursor.window))
        window = cursor.open(self._session.now(), lag=self._overlap)
        # Only its answer tells the time it was asked at, so the first query has no end.
        rows = read(_stretch(window)[:1])
        due = cursor.open(rows.asked, lag=self._overlap)
        if due.full and not window.full:
            window, rows = due, read(_stretch(due)[:1])
        return replace(window, until=max(rows.asked, window.start)), rows

    def query(self, resource: str, where: list[str], order: str, *, persons: bool) -> Rows:
        """Return the next rows that match all of `where`; `queryAll` shows deleted ones too."""
        soql = f"{self.select(where, persons=persons)} ORDER BY {order} LIMIT {self._page_size}"
        return self.ask(resource, soql)

    def select(self, where: list[str], *, persons: bool) -> str:
        """Return a query, without an order, for all that match all of `where`.

        Where `persons` are told apart, an Account is a person, and a Contact is none: as a contact a person
        could not be written, and would come twice.
        """
        kind = "TRUE" if self.name == "Account" else "FALSE"
        conditions = [*where, f"IsPersonAccount = {kind}"] if persons else where
        chosen = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT {self._columns} FROM {self.name}{chosen}"

    def ask(self, resource: str, soql: str) -> Rows:
        """Return the rows of any query, `resource` being query or queryAll.

        Raises SchemaError where it is too long.
        """
        params = {"q": soql}
        if len(urlencode(params)) > MAX_QUERY:
            raise SchemaError(f"{len(self.fields)} fields of {self.name} make too long a query: map fewer")
        reply = self._session.call("GET", resource, params=params)
        try:
            records, done = reply.body["records"], reply.body["done"]
        except (TypeError, KeyError) as error:
            raise LostAnswerError(f"GET {resource}: the answer is not that of a query") from error
        if not records and not done:
            raise LostAnswerError(f"GET {resource}: the answer is empty and yet not the last")
        # The server may send fewer rows than asked for: the rest is fetched by keyset too.
        return Rows(records, done and len(records) < self._page_size, reply.asked)

    def cursor(self, poll: PollCursor, *, persons: bool) -> str:
        """Return a poll's position as a cursor."""
        text = poll.encode()
        return json.dumps({**json.loads(text), "persons": True}) if persons else text

    def contacts(self, rows: Rows) -> list[Contact]:
        """Return rows as contacts."""
        return [self._contact(record) for record in rows.records]

    def _contact(self, record: Mapping[str, Any]) -> Contact:
        return Contact(
            record_id=record["Id"],
            fields={name: _value(record, name) for name in self.fields if name.split(".")[0] in record},
            gone=record["IsDeleted"] or record.get("IsConverted", False),
            merged_into=record.get("MasterRecordId"),
        )


def literal(stamp: datetime) -> str:
    """Return a time as queries and writes take it."""
    # Comparisons ignore milliseconds today (seen 2026-11); a stamp that has some is repeated as it came.
    precision = "milliseconds" if stamp.microsecond else "seconds"
    return stamp.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


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


def _value(record: Mapping[str, Any], path: str) -> FieldValue:
    value: Any = record
    for part in path.split("."):
        value = None if value is None else value[part]
    if isinstance(value, dict | list):
        raise SchemaError(f"{path} is a compound field: map its parts", fields=[path])
    return None if value == "" else value
