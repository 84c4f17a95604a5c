"""HubSpot contacts: sweeps by the list, polls by search, writes back in batches.

A sweep walks the list endpoint, which reads the records themselves. A poll asks search for what was modified
inside a window and walks that by record id, never by offset: search pages no further than 10,000 hits, and
one bulk edit gives more contacts than that the same millisecond. The search index lags, hence `overlap`.

Deletions appear in neither: a contact that a complete sweep did not bring is gone. A property that vanishes
in HubSpot is left out of the answers without a word: every sweep begins by asking for the schema, and a page
with a contact that lacks a property asks again, so a vanished property is an error and never empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal
from urllib.parse import quote

import orjson
from pydantic import Field

from connectors import hubspot_schema
from connectors.hubspot_api import (
    HubSpotApi,
    accepted,
    following,
    named_ids,
    objects,
    raise_for_schema,
    reason,
    records,
)
from syncsvc.errors import CursorError, SchemaError, TransientError
from syncsvc.model import Contact, Page, Problem, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Missing, Needs
from syncsvc.remote.transport import Network
from syncsvc.remote.window import PollCursor, Window
from syncsvc.settings import Duration, Reserve, Secret, Url
from syncsvc.settings import Settings as Table

LIST_PAGE = 100  # contacts guide 2026-03: at most 100 a page
SEARCH_PAGE = 200  # search guide 2026-03: at most 200 a page
SEARCH_CEILING = 10_000  # search guide 2026-03: offsets end here
BATCH = 100  # object APIs guide 2026-03: at most 100 inputs
LONG_NAMES = 2_400  # characters of property names; search guide 2026-03: a body ends at 3,000
DATE_STEP = timedelta(seconds=1)  # a Date header has whole seconds, rounded down
MODIFIED = "lastmodifieddate"  # contacts alone: search finds nothing by hs_lastmodifieddate, without a word
MERGED = "hs_merged_object_ids"

_EARLIEST = 1000  # milliseconds; a search from the epoch on ends in a 500 (recorded by estuary/connectors)
_ABSENT = object()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PASSING = frozenset({"RATE_LIMITS", "INTERNAL_ERROR", "SERVICE_UNAVAILABLE"})


class HubSpotSettings(Table):
    """The keys of a HubSpot account."""

    token: Secret = Field(
        examples=[{"env": "HUBSPOT_TOKEN"}], description="a service key or a private app's token"
    )
    base_url: Url = Field(default="https://api.hubapi.com", description="HubSpot's API")
    api_version: Literal["2026-03", "2026-09", "v3"] = Field(
        default="2026-03", description="version of the API; v3 is unsupported from September 2027 on"
    )
    overlap: Duration = Field(
        default=timedelta(minutes=10), description="how late a change may appear in HubSpot's search index"
    )
    reserve: Reserve = Field(
        default="5%",
        description="calls of the day that are left to the account's other apps: a number or a share",
    )
    timeout: Duration = Field(default=timedelta(seconds=60), description="for the whole of each call")


class HubSpot:
    """The contacts of one HubSpot account; see `syncsvc.remote.connector.Connector`.

    Its key needs the scopes crm.objects.contacts.read, and crm.objects.contacts.write to write back.
    """

    Settings: ClassVar[type[Table]] = HubSpotSettings

    def __init__(self, settings: HubSpotSettings, needs: Needs, network: Network) -> None:
        """Make no request yet."""
        self._lag = settings.overlap
        self._needs = needs
        self._network = network
        self._api = HubSpotApi(
            network.client(settings.base_url, timeout=settings.timeout.total_seconds()),
            token=settings.token,
            version=settings.api_version,
            reserve=settings.reserve,
            network=network,
        )
        self._fields = tuple(needs.fields)
        self._required = frozenset(self._fields)
        self._wanted = sorted({*needs.fields, MODIFIED, MERGED})
        self._apart = len(orjson.dumps(self._wanted)) > LONG_NAMES
        self._paged = [MODIFIED] if self._apart else self._wanted

    def check(self) -> list[Problem]:
        """Return what is wrong with the properties that are read and written; one request."""
        return hubspot_schema.problems(self._needs, self._definitions())

    def missing(self) -> list[Missing]:
        """Return the properties that are written back and do not exist; one request."""
        return hubspot_schema.missing(self._needs, self._definitions())

    def create(self, missing: Missing) -> None:
        """Make a property that `missing` named; needs the scope crm.schemas.contacts.write.

        Raises SchemaError where the name is taken by an archived property.
        """
        path = self._api.properties
        answer = self._api.ask("POST", path, json=hubspot_schema.made_for(missing.fact, missing.name))
        if answer.status == 409:
            raise SchemaError(
                f"HubSpot does not make the contact property {missing.name}: the name is taken, perhaps by "
                "an archived property: restore that one, or name another",
                fields=[missing.name],
            )
        accepted(answer, f"POST {path}")

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield the contacts of a sweep (None), or those modified since; see `Connector.changes`.

        Raises SchemaError where a property that is mapped or written has vanished.
        """
        if cursor is None:
            return self._sweep(None, "")
        position = _sweep_position(cursor)
        return self._poll(PollCursor.parse(cursor)) if position is None else self._sweep(*position)

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order; see `Connector.write_back`.

        Raises SchemaError where a property that is written does not exist or is read-only.
        """
        for start in range(0, len(values), BATCH):
            batch = values[start : start + BATCH]
            outcomes = self._update(batch)
            for value in batch:
                yield outcomes.get(value.record_id) or self._follow(value)

    def close(self) -> None:
        """Give back the connections."""
        self._api.close()

    def _definitions(self) -> dict[str, dict[str, Any]]:
        """Return the contact properties that are not archived."""
        results = objects(self._api.document("GET", self._api.properties).get("results"))
        return {str(entry.get("name")): entry for entry in results if not entry.get("archived")}

    def _require(self, names: Collection[str]) -> None:
        lost = sorted(set(names) - self._definitions().keys())
        if lost:
            raise SchemaError(
                f"HubSpot has no contact property {', '.join(lost)}: "
                "restore it, or take it out of the configuration",
                fields=lost,
            )

    def _sweep(self, start: datetime | None, after: str) -> Iterator[Page]:
        before = self._network.now()
        self._require(self._needs.fields)
        start = start or before + self._api.ahead
        vouched: set[str] = set()
        while True:
            params = {"limit": str(LIST_PAGE), "properties": ",".join(self._paged)}
            answer = self._api.ask(
                "GET", self._api.contacts, params=params | ({"after": after} if after else {})
            )
            if answer.status == 400 and after:
                raise CursorError("HubSpot does not take the position of the sweep any more")
            document = accepted(answer, f"GET {self._api.contacts}")
            contacts = self._read(records(document), vouched)
            position = following(document)
            if position is None:
                polls = PollCursor(since=start - self._lag, read=start, recheck=start + self._lag / 2)
                yield Page(contacts, polls.encode())
                return
            if position == after:
                raise TransientError("HubSpot's list of contacts does not move on")
            after = position
            yield Page(contacts, _sweep_cursor(start, after))

    def _poll(self, cursor: PollCursor) -> Iterator[Page]:
        window = cursor.open(self._network.now() + self._api.ahead, lag=self._lag)
        if window.after and not window.after.isdecimal():
            raise CursorError("the stored cursor is not one of this connector's")
        vouched: set[str] = set()
        while True:
            before = self._network.now()
            document = self._search(window)
            found, last = records(document), following(document) is None
            expected = None
            if not window.after:
                # HubSpot's clock ends the window, at the moment of its first search: what is stamped later
                # may belong to ids that are behind us by then, and is left to the next window.
                until = max(window.start, before + self._api.ahead)
                window, expected = replace(window, until=until), document.get("total")
            if found:
                reached = max(int(record["id"]) for record in found)
                if reached <= int(window.after or 0):
                    raise TransientError("HubSpot's search does not move on")
                newest = max(_stamp(record) or window.until for record in found)
                window = window.advanced(str(reached), newest)
            contacts = self._read(found, vouched)
            if last:
                closed = cursor.closed(window, seen_until=window.until, lag=self._lag)
                yield Page(contacts, closed.encode(), expected)
                return
            yield Page(contacts, cursor.within(window).encode(), expected)

    def _search(self, window: Window) -> dict[str, Any]:
        """Return the next page of the window that has hits, or its last."""
        filters = [(MODIFIED, "GTE", str(max(_EARLIEST, _milliseconds(window.start))))]
        if window.after:
            filters += [
                (MODIFIED, "LTE", str(_milliseconds(window.until + DATE_STEP))),
                ("hs_object_id", "GT", window.after),
            ]
        body = {
            "filterGroups": [
                {
                    "filters": [
                        {"propertyName": name, "operator": operator, "value": value}
                        for name, operator, value in filters
                    ]
                }
            ],
            "sorts": [{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
            "properties": self._paged,
            "limit": SEARCH_PAGE,
        }
        while True:
            document = self._api.document("POST", f"{self._api.contacts}/search", json=body)
            position = following(document)
            # A page can be empty though there is a next one: only then is there no id to go on from.
            if position is None or records(document):
                return document
            if not position.isdecimal() or int(position) + SEARCH_PAGE > SEARCH_CEILING:
                raise TransientError("HubSpot's search gives empty pages without end")
            body["after"] = position

    def _read(self, found: Sequence[dict[str, Any]], vouched: set[str]) -> list[Contact]:
        """Return records as contacts; raises SchemaError where a property has vanished.

        `vouched` are the properties that a contact lacked though they exist: asked about once per read.
        """
        if self._apart:
            found = self._hydrated([record["id"] for record in found])
        contacts = [self._contact(record) for record in found]
        short = [contact.fields for contact in contacts if len(contact.fields) < len(self._required)]
        absent = {name for fields in short for name in self._required - fields.keys()}
        if absent - vouched:
            self._require(absent)
            vouched |= absent
        return contacts

    def _hydrated(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the records with every property, for names too long for a URL and for a search.

        A record that was deleted or merged away since its id was read is not among them.
        """
        found = []
        for start in range(0, len(ids), BATCH):
            asked = ids[start : start + BATCH]
            body = {"inputs": [{"id": record_id} for record_id in asked], "properties": self._wanted}
            document = self._api.document("POST", f"{self._api.contacts}/batch/read", json=body)
            found += [record for record in records(document) if record["id"] in asked]
        return found

    def _contact(self, record: Mapping[str, Any]) -> Contact:
        properties, record_id = record["properties"], record["id"]
        absorbed = properties.get(MERGED)
        fields = {
            # An empty property is null in one answer and "" in another.
            name: value or None if type(value) is str else None if value is None else str(value)
            for name in self._fields
            if (value := properties.get(name, _ABSENT)) is not _ABSENT
        }
        if not absorbed:
            return Contact(record_id, fields)
        merged = tuple(old for old in str(absorbed).split(";") if old and old != record_id)
        return Contact(record_id, fields, merged_from=merged)

    def _update(self, values: Sequence[WriteBack]) -> dict[str, WriteOutcome]:
        """Return what became of the records that HubSpot's answer names, by the id that was sent."""
        path = f"{self._api.contacts}/batch/update"
        # With a trace id each, the good ones pass beside a bad one (error handling guide 2026-03).
        inputs = [
            {
                "id": value.record_id,
                "objectWriteTraceId": value.record_id,
                "properties": {name: _written(content) for name, content in value.values.items()},
            }
            for value in values
        ]
        answer = self._api.ask("POST", path, json={"inputs": inputs})
        if answer.status in {400, 409, 413}:
            refusal = answer.document
            raise_for_schema(refusal)
            if len(values) > 1:
                middle = len(values) // 2
                return self._update(values[:middle]) | self._update(values[middle:])
            record_id = values[0].record_id
            return {record_id: WriteOutcome(record_id, Written.REFUSED, reason(refusal))}
        document = accepted(answer, f"POST {path}")
        sent = {value.record_id for value in values}
        outcomes = {}
        for error in objects(document.get("errors")):
            raise_for_schema(error)
            result, detail = _result(error)
            for record_id in sent & named_ids(error) or (sent if len(sent) == 1 else set()):
                outcomes[record_id] = WriteOutcome(record_id, result, detail)
        for record in records(document):
            if record["id"] in sent:
                outcomes[record["id"]] = WriteOutcome(record["id"], Written.WRITTEN)
        return outcomes

    def _follow(self, value: WriteBack) -> WriteOutcome:
        """Write a value of which HubSpot's answer said nothing: its record was merged into another.

        A batch update leaves out the ids that were merged away (object APIs guide 2026-03); a read by such
        an id gives the record that lives on.
        """
        path = f"{self._api.contacts}/{quote(value.record_id, safe='')}"
        answer = self._api.ask("GET", path, params={"properties": "hs_object_id"})
        if answer.status == 404:
            return WriteOutcome(value.record_id, Written.GONE)
        lives_as = str(accepted(answer, f"GET {path}").get("id"))
        outcome = self._update([replace(value, record_id=lives_as)]).get(lives_as)
        if outcome is None:
            return WriteOutcome(value.record_id, Written.RETRY, "HubSpot did not say what became of it")
        merged = outcome.result is Written.WRITTEN and lives_as != value.record_id
        return replace(outcome, result=Written.MERGED) if merged else outcome


def _result(error: Mapping[str, Any]) -> tuple[Written, str]:
    category = error.get("category")
    if category == "OBJECT_NOT_FOUND":
        return Written.GONE, ""
    return Written.RETRY if category in _PASSING else Written.REFUSED, reason(error)


def _sweep_cursor(start: datetime, after: str) -> str:
    return orjson.dumps({"sweep": _milliseconds(start), "after": after}).decode()


def _sweep_position(cursor: str) -> tuple[datetime, str] | None:
    """Return where a sweep goes on and when it began, None where the cursor is not a sweep's."""
    try:
        data = orjson.loads(cursor)
        if "sweep" not in data:
            return None
        return _EPOCH + timedelta(milliseconds=data["sweep"]), str(data["after"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise CursorError("the stored cursor is not one of this connector's") from error


def _milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


def _stamp(record: Mapping[str, Any]) -> datetime | None:
    try:
        at = datetime.fromisoformat(record["properties"][MODIFIED])
    except (KeyError, TypeError, ValueError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _written(content: str | datetime) -> str:
    if isinstance(content, str):
        return content
    return content.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
