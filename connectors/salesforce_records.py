"""Reading one object of a Salesforce org by queries.

Reading never relies on the server's query locators, which live two days and are evicted at will: every page
is a query of its own that goes on by keyset from the last row. So INVALID_QUERY_LOCATOR cannot happen, and a
cursor is good for as long as it is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from connectors.salesforce_api import Session
from syncsvc.errors import LostAnswerError, SchemaError
from syncsvc.model import Contact, FieldValue
from syncsvc.remote.connector import Needs
from syncsvc.remote.window import PollCursor

MAX_QUERY = 12_000
"""Bytes of an encoded query; URL and headers together may have 16,384 (seen 2026-11)."""

MERGEABLE = frozenset({"Account", "Contact", "Lead"})
"""The objects that have MasterRecordId (Object Reference, v67.0)."""

CONVERTIBLE = "Lead"
"""The object whose records end by becoming contacts."""

ID = r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?"
"""A record id, as a regular expression."""


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
        page_size: int,
    ) -> None:
        """Make no request yet; `name` is the object's, `page_size` the rows of one query."""
        self.name = name
        self.fields = needs.fields
        self._session = session
        self._page_size = page_size
        keys = ["Id", "SystemModstamp", "IsDeleted"] + ["MasterRecordId"] * (name in MERGEABLE)
        keys += ["IsConverted"] * (name == CONVERTIBLE)
        # SOQL refuses a column named twice, in whatever case.
        columns = {column.casefold(): column for column in [*needs.fields, *keys]}
        self._columns = ", ".join(columns.values())

    def query(self, resource: str, where: list[str], order: str, *, persons: bool) -> Rows:
        """Return the next rows that match all of `where`; `queryAll` shows deleted ones too."""
        soql = f"{self.select(where, persons=persons)} ORDER BY {order} LIMIT {self._page_size}"
        return self.ask(resource, soql)

    def select(self, where: list[str], *, persons: bool) -> str:
        """Return a query, without an order, for all that match all of `where`.

        Where `persons` are told apart, an Account is a person, and a Contact is none: as a contact a person
        could not be written, and would come twice.
        """
        return f"SELECT {self._columns} FROM {self.name}{self._chosen(where, persons=persons)}"

    def _chosen(self, where: list[str], *, persons: bool) -> str:
        kind = "TRUE" if self.name == "Account" else "FALSE"
        conditions = [*where, f"IsPersonAccount = {kind}"] if persons else where
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""

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

    def states(self, ids: Sequence[str], *, persons: bool) -> Iterator[Mapping[str, Any]]:
        """Yield Id, IsDeleted and, where the object has it, MasterRecordId of those records that are there.

        Those in the recycle bin are; where `persons` are told apart, the records of the other kind are not.
        """
        columns = ", ".join(["Id", "IsDeleted"] + ["MasterRecordId"] * (self.name in MERGEABLE))
        named, after = ", ".join(f"'{record_id}'" for record_id in ids), ""
        while True:
            where = [f"Id IN ({named})"] + [f"Id > '{after}'"] * bool(after)
            chosen = self._chosen(where, persons=persons)
            soql = f"SELECT {columns} FROM {self.name}{chosen} ORDER BY Id LIMIT {self._page_size}"
            rows = self.ask("queryAll", soql)
            yield from rows.records
            if rows.last:
                return
            after = rows.records[-1]["Id"]

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


def _value(record: Mapping[str, Any], path: str) -> FieldValue:
    value: Any = record
    for part in path.split("."):
        value = None if value is None else value[part]
    if isinstance(value, dict | list):
        raise SchemaError(f"{path} is a compound field: map its parts", fields=[path])
    return None if value == "" else value
