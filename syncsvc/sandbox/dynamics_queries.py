"""Queries of the Dynamics simulator: plain ones, tracked ones, and the links that go on from either.

Links are opaque to a client. Here a delta token is `VERSION!TIME` as in Microsoft's example, and a paging
cookie carries where its query stands, so that both are as good after any restart of the server.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote, urlencode
from xml.sax.saxutils import quoteattr

from syncsvc.sandbox.clock import Clock
from syncsvc.sandbox.dynamics_columns import Column
from syncsvc.sandbox.dynamics_knobs import DynamicsKnobs
from syncsvc.sandbox.dynamics_refusals import (
    Refusal,
    bad_query,
    expired,
    not_tracked,
    unknown_column,
    untracked_option,
)
from syncsvc.sandbox.dynamics_table import Row, Table, by_id

MOST_ROWS = 5000  # of a page (Page results, 2024-07)

_OPTIONS = {"$select", "$filter", "$orderby", "$top", "$count", "$skiptoken", "$deltatoken"}
_UNTRACKED = ("$filter", "$orderby", "$expand", "$top")
_TOKEN = re.compile(r"(\d+)!(\d\d/\d\d/\d{4} \d\d:\d\d:\d\d)")
_COOKIE = re.compile(
    r'<cookie pagenumber="(\d+)" pagingcookie="([^"]*)" istracking="(True|False)" taken="([^"]*)" />'
)
_CLAUSE = re.compile(r"(\w+) (eq|ne|gt|ge|lt|le) (\S+)")
_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda one, other: bool(one == other),
    "ne": lambda one, other: bool(one != other),
    "gt": lambda one, other: bool(one > other),
    "ge": lambda one, other: bool(one >= other),
    "lt": lambda one, other: bool(one < other),
    "le": lambda one, other: bool(one <= other),
}


_Change = Row | tuple[int, str]  # a row, or the version and the id of a deletion


@dataclass(frozen=True, slots=True)
class Asked:
    """A query of the contacts: the address of the table, the options by name, and the preferences."""

    url: str
    options: Mapping[str, str]
    preferences: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """The most rows of a page."""
        asked = self.preferences.get("odata.maxpagesize", "")
        return min(MOST_ROWS, int(asked)) if asked.isdecimal() and int(asked) else MOST_ROWS

    def link(self, **tokens: str) -> str:
        """Return the address of the same query with a token; the options stay as they are."""
        kept = {name: it for name, it in self.options.items() if name not in {"$skiptoken", "$deltatoken"}}
        pairs = {**kept, **{f"${name}": it for name, it in tokens.items()}}
        return f"{self.url}?{urlencode(pairs, quote_via=quote, safe='$,')}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a query stands: its page's number, what was told last, and the token that was taken at first."""

    number: int = 1
    after: str = ""
    tracking: bool = False
    token: str = ""

    def encode(self) -> str:
        told = quote(quote(self.after))
        return (
            f"<cookie pagenumber={quoteattr(str(self.number))} pagingcookie={quoteattr(told)} "
            f"istracking={quoteattr(str(self.tracking))} taken={quoteattr(quote(self.token))} />"
        )


class Queries:
    """Reads the contact table."""

    def __init__(self, table: Table, *, clock: Clock, knobs: DynamicsKnobs) -> None:
        """Read `table`."""
        self._table = table
        self._clock = clock
        self._knobs = knobs
        self._pages = 0
        self.forgotten = datetime.min.replace(tzinfo=UTC)
        """Links that were given out before this time are as good as expired."""

    def read(self, asked: Asked) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the document of a page and the headers that tell which preferences were applied."""
        for name in asked.options:
            if name not in _OPTIONS:
                raise bad_query(f"The query parameter {name} is not supported.")
        columns = selected(self._table, asked.options.get("$select"))
        place = self._place(asked.options)
        tracks = "odata.track-changes" in asked.preferences
        if tracks or place.tracking or "$deltatoken" in asked.options:
            document = self._tracked(asked, columns, place)
        else:
            document = self._plain(asked, columns, place)
        applied = [f"odata.maxpagesize={asked.size}"] if "odata.maxpagesize" in asked.preferences else []
        applied += ["odata.track-changes"] if tracks else []
        return document, {"Preference-Applied": ",".join(applied)} if applied else {}

    def _plain(self, asked: Asked, columns: Sequence[Column], place: _Place) -> dict[str, Any]:
        options = asked.options
        found = list(filter(self._filter(options.get("$filter", "")), self._ordered(options)))
        total = len(found)
        if "$orderby" in options:  # simple paging: by the number of rows that came before
            passed = int(place.after or 0)
        else:
            passed = bisect_right(found, place.after, key=lambda row: row.id)
        if "$top" in options:
            found, size = found[: int(options["$top"])], MOST_ROWS
        else:
            size = self._size(asked)
        page, more = found[passed : passed + size], len(found) > passed + size
        document = self._document(asked, columns, "") | {"value": [shown(it, columns) for it in page]}
        if options.get("$count") == "true":
            document["@odata.count"] = min(total, MOST_ROWS)
        if more:
            after = page[-1].id if page else place.after
            if "$orderby" in options:
                after = str(passed + len(page))
            document["@odata.nextLink"] = asked.link(skiptoken=_Place(place.number + 1, after).encode())
        return document

    def _ordered(self, options: Mapping[str, str]) -> list[Row]:
        rows = by_id(self._table.rows())
        for clause in reversed(options.get("$orderby", "").split(",")):
            name, _, way = clause.strip().partition(" ")
            if name:
                (column,) = self._table.selected([name])
                key = column.shown
                rows.sort(
                    key=lambda row: (row.values[key] is not None, row.values[key]), reverse=way == "desc"
                )
        return rows

    def _filter(self, text: str) -> Callable[[Row], bool]:
        """Return the test of a conjunction of comparisons; raises the 400 for any other filter."""
        tests: list[tuple[str, Callable[[Any, Any], bool], Any]] = []
        for clause in filter(None, text.split(" and ")):
            parsed = _CLAUSE.fullmatch(clause.strip())
            if parsed is None:
                raise bad_query(f"Syntax error in the filter '{clause}'.")
            name, operator, literal = parsed.groups()
            (column,) = self._table.selected([name])
            tests.append((name, _TESTS[operator], _literal(column, literal)))

        def matches(row: Row) -> bool:
            return all(
                row.values[name] is not None and test(row.values[name], it) for name, test, it in tests
            )

        return matches

    def _tracked(self, asked: Asked, columns: Sequence[Column], place: _Place) -> dict[str, Any]:
        if not self._knobs.tracking:
            raise not_tracked()
        for name in _UNTRACKED:
            if name in asked.options:
                raise untracked_option(name)
        given = asked.options.get("$deltatoken")
        since = 0 if given is None else self._since(given)
        token = place.token or self._token()
        if place.token:
            self._since(place.token)
        changed: list[_Change] = [*self._table.changed_since(since)]
        gone = [] if given is None else self._table.deleted_since(since)
        told = [*changed, *gone]
        left = told[bisect_right(told, place.after, key=self._position) :]
        size = self._size(asked)
        page, more = left[:size], len(left) > size
        if given is not None and not left and not place.after and self._knobs.idle_answer != "whole":
            return {}
        document = self._document(asked, columns, "" if given is None else "/$delta")
        document["value"] = [
            shown(one, columns) if isinstance(one, Row) else self._tombstone(asked, one[1]) for one in page
        ]
        if not more:
            at_end = self._knobs.token_at_end
            return document | {"@odata.deltaLink": asked.link(deltatoken=self._token() if at_end else token)}
        after = self._position(page[-1]) if page else place.after
        following = _Place(place.number + 1, after, tracking=True, token=token)
        tokens = {"skiptoken": following.encode()} | ({} if given is None else {"deltatoken": given})
        return document | {"@odata.nextLink": asked.link(**tokens)}

    def _position(self, one: _Change) -> str:
        """Return where an entry stands: rows come before deletions, each in their own order."""
        if not isinstance(one, Row):
            return f"1 {one[0]:020}"
        return f"0 {one.version:020}" if self._knobs.by_version else f"0 {one.id}"

    def _token(self) -> str:
        version = self._table.version
        return f"{version}!{self._clock.now():%m/%d/%Y %H:%M:%S}"

    def _since(self, token: str) -> int:
        parsed = _TOKEN.fullmatch(token)
        if parsed is None:
            raise bad_query("The delta token is not valid.")
        taken = datetime.strptime(parsed[2], "%m/%d/%Y %H:%M:%S").replace(tzinfo=UTC)
        oldest = self._clock.now() - timedelta(days=self._knobs.expire_days)
        if taken < oldest or taken < self.forgotten:
            raise expired(self._knobs.expired_status)
        return int(parsed[1])

    def _place(self, options: Mapping[str, str]) -> _Place:
        if "$skiptoken" not in options:
            return _Place()
        cookie = _COOKIE.fullmatch(options["$skiptoken"])
        if cookie is None:
            raise bad_query("Invalid paging token.")
        number, after, tracking, token = cookie.groups()
        return _Place(int(number), unquote(unquote(after)), tracking == "True", unquote(token))

    def _size(self, asked: Asked) -> int:
        self._pages += 1
        if not self._knobs.short_pages:
            return asked.size
        return self._pages % 2 * max(1, asked.size // 2)

    def _document(self, asked: Asked, columns: Sequence[Column], kind: str) -> dict[str, Any]:
        named = f"({','.join(column.shown for column in columns)})" if "$select" in asked.options else ""
        root = asked.url.rpartition("/")[0]
        return {"@odata.context": f"{root}/$metadata#contacts{named}{kind}"}

    @staticmethod
    def _tombstone(asked: Asked, record_id: str) -> dict[str, Any]:
        context = f"{asked.url.rpartition('/')[0]}/$metadata#contacts/$deletedEntity"
        return {"@odata.context": context, "id": record_id, "reason": "deleted"}


def shown(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    """Return a row as answers show it: the columns that were selected, and always its key and its ETag."""
    named = {column.shown: row.values.get(column.shown) for column in columns}
    return {"@odata.etag": f'W/"{row.version}"', **named, "contactid": row.id}


def selected(table: Table, select: str | None) -> list[Column]:
    """Return the columns of a `$select`, of all there are where it is None."""
    if select is None:
        return [it for it in table.columns.values() if it.readable and it.of is None]
    if not select:
        raise unknown_column("")
    return table.selected(select.split(","))


def _literal(column: Column, literal: str) -> Any:
    words: dict[str, Any] = {"true": True, "false": False}
    plain: Any = words.get(literal, literal.strip("'"))
    if re.fullmatch(r"-?\d+", literal):
        plain = int(literal)
    try:
        return column.checked(plain, empty_is_null=False)
    except Refusal as refusal:
        raise bad_query(refusal.message) from None
