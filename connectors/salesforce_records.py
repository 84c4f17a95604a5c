"""Reading one object of a Salesforce org: sweeps by Id, polls by SystemModstamp.

Reading never relies on the server's query locators, which live two days and are evicted at will: every page
is a query of its own that goes on by keyset from the last row. So INVALID_QUERY_LOCATOR cannot happen, and a
cursor is good for as long as it is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        has_persons: Callable[[], bool],
    ) -> None:
        """Make no request yet; `name` is the object's, `page_size` the rows of one query.

        `has_persons` tells whether the object has records of person accounts.
        """
        self._session = session
        self._object = name
        self._needs = needs
        self._overlap = overlap
        self._page_size = page_size
        self._has_persons = has_persons
        keys = ["Id", "SystemModstamp", "IsDeleted"] + ["MasterRecordId"] * (self._object in MERGEABLE)
        keys += ["IsConverted"] * (self._object == CONVERTIBLE)
        # SOQL refuses a column named twice, in whatever case.
        columns = {name.casefold(): name for name in [*needs.fields, *keys]}
        self._columns = ", ".join(columns.values())

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield pages of changed contacts; see `Connector.changes`.

        A person account is read as an Account and never as a Contact, which it is too: it can be written
        through the account alone. Beside persons, other accounts are left out. A lead that was converted is
        gone: it can neither be seen nor edited any more, and lives on as a contact.

        Raises SchemaError where a field is missing or the fields make the query too long.
        """
        if cursor is None:
            yield from self._sweep(None, "", persons=self._has_persons())
            return
        try:
            data = json.loads(cursor)
            persons = "persons" in data
            start = datetime.fromtimestamp(data["sweep"] / 1000, UTC) if "sweep" in data else None
            after = re.fullmatch(ID, data["after"])[0] if start else ""  # type: ignore[index] # TypeError below
        except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
            raise CursorError("the stored cursor is not one of this connector's") from error
        if start:
            yield from self._sweep(start, after, persons=persons)
        else:
            yield from self._poll(PollCursor.parse(cursor), persons=persons)

    def _sweep(self, start: datetime | None, after: str, *, persons: bool) -> Iterator[Page]:
        living = ["IsConverted = FALSE"] if self._object == CONVERTIBLE else []
        while True:
            where = [*living, f"Id > '{after}'"] if after else living
            rows = self._query("query", where, "Id", persons=persons)
            start = start or rows.asked
            if rows.last:
                poll = PollCursor(start - self._overlap, read=start, recheck=start + self._overlap / 2)
                yield self._page(rows, poll.encode(), persons=persons)
                return
            after = rows.records[-1]["Id"]
            position = {"sweep": round(start.timestamp() * 1000), "after": after}
            yield self._page(rows, json.dumps(position), persons=persons)

    def _poll(self, cursor: PollCursor, *, persons: bool) -> Iterator[Page]:
        window, rows = self._first(cursor, persons=persons)
        while True:
            if rows.records:
                stamp = datetime.fromisoformat(rows.records[-1]["SystemModstamp"])
                window = window.advanced(f"{literal(stamp)} {rows.records[-1]['Id']}", stamp)
            if rows.last:
                closed = cursor.closed(window, seen_until=window.until, lag=self._overlap)
                yield self._page(rows, closed.encode(), persons=persons)
                return
            yield self._page(rows, cursor.within(window).encode(), persons=persons)
            rows = self._query("queryAll", _stretch(window), "SystemModstamp, Id", persons=persons)

    def _first(self, cursor: PollCursor, *, persons: bool) -> tuple[Window, Rows]:
        """Return the window to read and its next rows; the window's end is by the server's clock."""

        def read(where: list[str]) -> Rows:
            return self._query("queryAll", where, "SystemModstamp, Id", persons=persons)

        if cursor.window is not None:
            return cursor.window, read(_stretch(cursor.window))
        window = cursor.open(self._session.now(), lag=self._overlap)
        # Only its answer tells the time it was asked at, so the first query has no end.
        rows = read(_stretch(window)[:1])
        due = cursor.open(rows.asked, lag=self._overlap)
        if due.full and not window.full:
            window, rows = due, read(_stretch(due)[:1])
        return replace(window, until=max(rows.asked, window.start)), rows

    def _query(self, resource: str, where: list[str], order: str, *, persons: bool) -> Rows:
        """Return the next rows that match all of `where`; `queryAll` shows deleted ones too."""
        kind = "TRUE" if self._object == "Account" else "FALSE"
        conditions = [*where, f"IsPersonAccount = {kind}"] if persons else where
        chosen = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        soql = f"SELECT {self._columns} FROM {self._object}{chosen} ORDER BY {order} LIMIT {self._page_size}"
        return self.ask(resource, soql)

    def ask(self, resource: str, soql: str) -> Rows:
        """Return the rows of any query, `resource` being query or queryAll.

        Raises SchemaError where it is too long.
        """
        params = {"q": soql}
        if len(urlencode(params)) > MAX_QUERY:
            raise SchemaError(
                f"{len(self._needs.fields)} fields of {self._object} make too long a query: map fewer"
            )
        reply = self._session.call("GET", resource, params=params)
        try:
            records, done = reply.body["records"], reply.body["done"]
        except (TypeError, KeyError) as error:
            raise LostAnswerError(f"GET {resource}: the answer is not that of a query") from error
        if not records and not done:
            raise LostAnswerError(f"GET {resource}: the answer is empty and yet not the last")
        # The server may send fewer rows than asked for: the rest is fetched by keyset too.
        return Rows(records, done and len(records) < self._page_size, reply.asked)

    def _page(self, rows: Rows, cursor: str, *, persons: bool) -> Page:
        if persons:
            cursor = json.dumps({**json.loads(cursor), "persons": True})
        return Page([self._contact(record) for record in rows.records], cursor)

    def _contact(self, record: Mapping[str, Any]) -> Contact:
        return Contact(
            record_id=record["Id"],
            fields={
                name: _value(record, name) for name in self._needs.fields if name.split(".")[0] in record
            },
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
