"""The Salesforce connector: polls one object by SystemModstamp, and writes facts back in collections.

Reading never relies on the server's query locators, which live two days and are evicted at will: every page
is a query of its own that goes on by keyset from the last row. So INVALID_QUERY_LOCATOR cannot happen, and a
cursor is good for as long as it is kept.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, Self
from urllib.parse import urlencode

from pydantic import AfterValidator, Field, model_validator

from connectors import salesforce_schema
from connectors.salesforce_auth import Auth, Password, Session
from syncsvc.errors import CredentialsError, CursorError, LostAnswerError, OperatorError, SchemaError
from syncsvc.model import Contact, FieldValue, Page, Problem, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Needs
from syncsvc.remote.transport import Network
from syncsvc.remote.window import PollCursor, Window
from syncsvc.settings import Duration, Settings, Url

CHUNK = 200
"""Records of one collection update (REST guide, sObject Collections, v67.0)."""

MAX_QUERY = 12_000
"""Bytes of an encoded query; URL and headers together may have 16,384 (seen 2026-11)."""

MAX_HALVINGS = 32
"""How often one write-back halves chunks that a trigger fails: enough to single out four records."""

SOAP_LOGIN_UNTIL = 64
"""The last API version that has a SOAP login (Salesforce help 005132110, 2026-04)."""

_MERGEABLE = {"Account", "Contact", "Lead"}  # those that have MasterRecordId (Object Reference, v67.0)
_LOST = {"ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY"}
_UNWRITABLE = {"INVALID_FIELD", "INVALID_FIELD_FOR_INSERT_UPDATE"}
_TRIGGER_FAILED = "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"
_ID = r"[A-Za-z0-9]{15}(?:[A-Za-z0-9]{3})?"
_AFTER = re.compile(rf"(\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{{3}})?Z) ({_ID})")
# Else an assignment rule hands the record to somebody else, and a duplicate rule refuses the write.
_WRITE_HEADERS = {"Sforce-Auto-Assign": "FALSE", "Sforce-Duplicate-Rule-Header": "allowSave=true"}


def _https(url: str) -> str:
    if not url.startswith("https://"):
        raise ValueError("use https: Salesforce is spoken to over TLS alone, to a loopback address too")
    return url


class SalesforceSettings(Settings):
    """The keys of a Salesforce connector."""

    url: Annotated[Url, AfterValidator(_https)] = Field(description="the org's My Domain")
    object: str = Field(
        default="Contact", pattern=r"^[A-Za-z]\w*$", description="Contact, Lead, Account, ..."
    )
    api_version: str = Field(default="67.0", pattern=r"^\d{2,3}\.0$")
    auth: Auth
    overlap: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(minutes=10)
    timeout: Annotated[Duration, Field(gt=timedelta(0))] = timedelta(seconds=60)
    page_size: int = Field(default=2000, ge=1, le=2000, description="rows of one query")

    @model_validator(mode="after")
    def _soap_login_has_ended(self) -> Self:
        if isinstance(self.auth, Password) and float(self.api_version) > SOAP_LOGIN_UNTIL:
            raise ValueError(f'auth flow "password" needs an api_version of at most {SOAP_LOGIN_UNTIL}.0')
        return self


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of one query, whether they are the last ones, and the server's clock when it was asked."""

    records: Sequence[Mapping[str, Any]]
    last: bool
    asked: datetime


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one record of a collection update."""

    codes: frozenset[str]
    fields: frozenset[str]

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        errors = [] if item["success"] else item["errors"]
        fields = {str(name) for error in errors for name in error.get("fields") or ()}
        return cls(frozenset(str(error["statusCode"]) for error in errors), frozenset(fields))

    def outcome(self, record_id: str) -> WriteOutcome:
        named = f" ({', '.join(sorted(self.fields))})" if self.fields else ""
        detail = ", ".join(sorted(self.codes)) + named
        if not self.codes:
            return WriteOutcome(record_id, Written.WRITTEN)
        if self.codes & {*_LOST, "MALFORMED_ID"}:
            return WriteOutcome(record_id, Written.GONE, detail)
        if self.codes == {"UNABLE_TO_LOCK_ROW"}:
            return WriteOutcome(record_id, Written.RETRY, detail)
        return WriteOutcome(record_id, Written.REFUSED, detail)


class Salesforce:
    """One object of one Salesforce org, as the engine sees a CRM."""

    Settings = SalesforceSettings

    def __init__(self, settings: SalesforceSettings, needs: Needs, network: Network) -> None:
        """Be ready to work; makes no request yet."""
        self._object = settings.object
        self._overlap = settings.overlap
        self._page_size = settings.page_size
        self._needs = needs
        self._session = Session(
            settings.url,
            auth=settings.auth,
            version=settings.api_version,
            timeout=settings.timeout.total_seconds(),
            network=network,
        )
        keys = ["Id", "SystemModstamp", "IsDeleted"] + ["MasterRecordId"] * (self._object in _MERGEABLE)
        # SOQL refuses a column named twice, in whatever case.
        columns = {name.casefold(): name for name in [*needs.fields, *keys]}
        self._columns = ", ".join(columns.values())

    def close(self) -> None:
        """Give back connections; the connector is not used again."""
        self._session.close()

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield pages of changed contacts; see `Connector.changes`.

        Contacts that only mirror a person account are left out: they can be written through the account
        alone. Raises SchemaError where a field is missing or the fields make the query too long.
        """
        if cursor is None:
            yield from self._sweep(None, "", persons=self._has_person_accounts())
            return
        try:
            data = json.loads(cursor)
            persons = "persons" in data
            start = datetime.fromtimestamp(data["sweep"] / 1000, UTC) if "sweep" in data else None
            after = re.fullmatch(_ID, data["after"])[0] if start else ""  # type: ignore[index] # TypeError below
        except (ValueError, KeyError, TypeError, OverflowError, OSError) as error:
            raise CursorError("the stored cursor is not one of this connector's") from error
        if start:
            yield from self._sweep(start, after, persons=persons)
        else:
            yield from self._poll(PollCursor.parse(cursor), persons=persons)

    def _sweep(self, start: datetime | None, after: str, *, persons: bool) -> Iterator[Page]:
        while True:
            rows = self._query("query", [f"Id > '{after}'"] if after else [], "Id", persons=persons)
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
                window = window.advanced(f"{_literal(stamp)} {rows.records[-1]['Id']}", stamp)
            if rows.last:
                closed = cursor.closed(window, seen_until=window.until, lag=self._overlap)
                yield self._page(rows, closed.encode(), persons=persons)
                return
            yield self._page(rows, cursor.within(window).encode(), persons=persons)
            rows = self._query("queryAll", _stretch(window), "SystemModstamp, Id", persons=persons)

    def _first(self, cursor: PollCursor, *, persons: bool) -> tuple[Window, _Rows]:
        """Return the window to read and its next rows; the window's end is by the server's clock."""

        def read(where: list[str]) -> _Rows:
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

    def _query(self, resource: str, where: list[str], order: str, *, persons: bool) -> _Rows:
        """Return the next rows that match all of `where`; `queryAll` shows deleted ones too."""
        conditions = [*where, "IsPersonAccount = FALSE"] if persons else where
        chosen = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        soql = f"SELECT {self._columns} FROM {self._object}{chosen} ORDER BY {order} LIMIT {self._page_size}"
        return self._ask(resource, soql)

    def _ask(self, resource: str, soql: str) -> _Rows:
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
        return _Rows(records, done and len(records) < self._page_size, reply.asked)

    def _page(self, rows: _Rows, cursor: str, *, persons: bool) -> Page:
        if persons:
            cursor = json.dumps({**json.loads(cursor), "persons": True})
        return Page([self._contact(record) for record in rows.records], cursor)

    def _contact(self, record: Mapping[str, Any]) -> Contact:
        return Contact(
            record_id=record["Id"],
            fields={
                name: _value(record, name) for name in self._needs.fields if name.split(".")[0] in record
            },
            gone=record["IsDeleted"],
            merged_into=record.get("MasterRecordId"),
        )

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order; see `Connector.write_back`.

        A record that was merged away passes its values on to the one it was merged into, unless that one is
        written in the same call. Raises SchemaError where a field cannot be written on any record.
        """
        yield from self._write(values, known={value.record_id for value in values})

    def _write(self, values: Sequence[WriteBack], *, known: Collection[str]) -> Iterator[WriteOutcome]:
        waiting = deque(values[at : at + CHUNK] for at in range(0, len(values), CHUNK))
        halvings = MAX_HALVINGS
        while waiting:
            chunk = waiting.popleft()
            results = self._update(chunk)
            failed = [result for result in results if _TRIGGER_FAILED in result.codes]
            if halvings and len(failed) > 1 and all(result.codes for result in results):
                # One record can make a trigger fail for all that came with it.
                halvings -= 1
                waiting.extendleft([chunk[len(chunk) // 2 :], chunk[: len(chunk) // 2]])
                continue
            yield from self._outcomes(chunk, results, known=known)

    def _update(self, chunk: Sequence[WriteBack]) -> list[_Result]:
        records = [
            {"attributes": {"type": self._object}, "id": value.record_id}
            | {name: _wire(content) for name, content in value.values.items()}
            for value in chunk
        ]
        body = {"allOrNone": False, "records": records}
        reply = self._session.call("PATCH", "composite/sobjects", json=body, headers=_WRITE_HEADERS)
        try:
            # By position: a failed item need not name its record.
            results = [_Result.of(item) for item, _ in zip(reply.body, chunk, strict=True)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LostAnswerError(
                "PATCH composite/sobjects: the answer has not one result per record"
            ) from error
        if all(result.codes & _UNWRITABLE for result in results):
            fields = sorted(
                {name for result in results for name in result.fields} or self._needs.write.values()
            )
            raise SchemaError(
                f"{self._object}: {', '.join(fields)} cannot be written: give the user edit access to it",
                fields=fields,
            )
        return results

    def _outcomes(
        self, chunk: Sequence[WriteBack], results: Sequence[_Result], *, known: Collection[str]
    ) -> Iterator[WriteOutcome]:
        pairs = list(zip(chunk, results, strict=True))
        # Whether a record was merged or truly deleted, only its row in the recycle bin tells.
        masters = self._masters([value.record_id for value, result in pairs if result.codes & _LOST])
        moved: dict[str, WriteBack] = {}
        for value in chunk:
            master = masters.get(value.record_id[:15])
            if master and master not in known:
                moved.setdefault(master, WriteBack(master, value.values))
        anew = dict(zip(moved, self._write(list(moved.values()), known={*known, *moved}), strict=True))
        for value, result in pairs:
            master = masters.get(value.record_id[:15])
            if master is None:
                yield result.outcome(value.record_id)
                continue
            there = anew.get(master, WriteOutcome(master, Written.MERGED))
            yield replace(there, result=Written.MERGED) if there.result is Written.WRITTEN else there

    def _masters(self, record_ids: Sequence[str]) -> dict[str, str]:
        """Return, by the first 15 characters of their ids, what the merged ones among the records became."""
        wanted = [f"'{record_id}'" for record_id in record_ids if re.fullmatch(_ID, record_id)]
        if not wanted or self._object not in _MERGEABLE:
            return {}
        rows = self._ask(
            "queryAll", f"SELECT Id, MasterRecordId FROM {self._object} WHERE Id IN ({', '.join(wanted)})"
        )
        return {row["Id"][:15]: row["MasterRecordId"] for row in rows.records if row["MasterRecordId"]}

    def check(self) -> list[Problem]:
        """Return what keeps this connector from working; see `Connector.check`.

        Also tells of mapped formula fields: polls do not see them change.
        """
        try:
            return salesforce_schema.problems(self._object, self._needs, cache(self._describe))
        except CredentialsError:
            raise
        except OperatorError as error:
            return [
                Problem("object", str(error), "name an object the user may see, and a current api_version")
            ]

    def _describe(self, name: str) -> dict[str, Any]:
        body = self._session.call("GET", f"sobjects/{name}/describe").body
        if not isinstance(body, dict) or "fields" not in body:
            raise LostAnswerError(f"GET sobjects/{name}/describe: the answer is not a description")
        return body

    def _has_person_accounts(self) -> bool:
        # The field exists only where the feature is on; an Account's own row is the person itself.
        return self._object == "Contact" and salesforce_schema.has(
            "IsPersonAccount", self._describe("Contact")
        )


def _literal(stamp: datetime) -> str:
    # Comparisons ignore milliseconds today (seen 2026-11); a stamp that has some is repeated as it came.
    precision = "milliseconds" if stamp.microsecond else "seconds"
    return stamp.astimezone(UTC).isoformat(timespec=precision).replace("+00:00", "Z")


def _stretch(window: Window) -> list[str]:
    """Return the conditions for what is left of a window, its beginning first.

    Stamps are whole seconds, rounded down: so is the beginning, and the end is rounded up.
    """
    beginning = f"SystemModstamp >= {_literal(window.start.replace(microsecond=0))}"
    if window.after:
        at = _AFTER.fullmatch(window.after)
        if at is None:
            raise CursorError("the stored cursor is not one of this connector's")
        beginning = f"(SystemModstamp > {at[1]} OR (SystemModstamp = {at[1]} AND Id > '{at[2]}'))"
    end = window.until.replace(microsecond=0) + timedelta(seconds=bool(window.until.microsecond))
    return [beginning, f"SystemModstamp <= {_literal(end)}"]


def _value(record: Mapping[str, Any], path: str) -> FieldValue:
    value: Any = record
    for part in path.split("."):
        value = None if value is None else value[part]
    if isinstance(value, dict | list):
        raise SchemaError(f"{path} is a compound field: map its parts", fields=[path])
    return None if value == "" else value


def _wire(value: str | datetime) -> str:
    return value if isinstance(value, str) else _literal(value.replace(microsecond=0))
