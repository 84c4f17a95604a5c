"""HubSpot contacts: sweeps by the list, polls by search, writes back in batches.

A sweep walks the list endpoint, which reads the records themselves. A poll asks search for what was modified
inside a window and walks that by record id, never by offset: search pages no further than 10,000 hits, and
one bulk edit gives more contacts than that the same millisecond. The search index lags, hence `overlap`.

Deletions appear in neither. Who was archived stands in the recycle bin, which sweeps read first, and polls
now and then (`hubspot_bin`); else a contact that a complete sweep did not bring is gone.

A property that vanishes in HubSpot is left out of the answers without a word: every sweep begins by asking
for the schema, and a page with a contact that lacks a property asks again, so a vanished property is an error
and never empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, Self

import orjson
from pydantic import Field

from connectors import hubspot_schema
from connectors.hubspot_api import (
    MERGED,
    HubSpotApi,
    accepted,
    following,
    objects,
)
from connectors.hubspot_bin import FULL_EVERY, RecycleBin
from connectors.hubspot_pages import MODIFIED, Pages, Properties, Record, RecordPage, stamp
from connectors.hubspot_writes import Writes
from syncsvc.errors import CursorError, SchemaError, TransientError
from syncsvc.model import Contact, Page, Problem, WriteBack, WriteOutcome
from syncsvc.remote.connector import Missing, Needs
from syncsvc.remote.transport import Network
from syncsvc.remote.window import Look, PollCursor, Window
from syncsvc.settings import Duration, Reserve, Secret, Url
from syncsvc.settings import Settings as Table

LIST_PAGE = 100  # contacts guide 2026-03: at most 100 a page
SEARCH_PAGE = 200  # search guide 2026-03: at most 200 a page
SEARCH_CEILING = 10_000  # search guide 2026-03: offsets end here
BATCH = 100  # object APIs guide 2026-03: at most 100 inputs
LONG_NAMES = 2_400  # characters of property names; search guide 2026-03: a body ends at 3,000
DATE_STEP = timedelta(seconds=1)  # a Date header has whole seconds, rounded down

_EARLIEST = 1000  # milliseconds; a search from the epoch on ends in a 500 (recorded by estuary/connectors)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    deletions_every: Duration = Field(
        default=timedelta(hours=1),
        description='how often, beside polls, the recycle bin is read; "0s": never, sweeps tell deletions',
    )
    reserve: Reserve = Field(
        default="5%",
        description="calls of the day that are left to the account's other apps: a number or a share",
    )
    timeout: Duration = Field(default=timedelta(seconds=60), description="for the whole of each call")


@dataclass(frozen=True, slots=True)
class SweepPosition:
    """Where a sweep stands: `in_bin` among the archived contacts, else among the live ones, behind `after`.

    `start` is HubSpot's clock when it began, None before its first request.
    """

    start: datetime | None = None
    after: str = ""
    in_bin: bool = False

    @property
    def began(self) -> datetime:
        """The start of a sweep that has begun."""
        assert self.start is not None  # noqa: S101 - set with the first request
        return self.start

    def encode(self) -> str:
        """Return it as a cursor."""
        data = {"sweep": _milliseconds(self.began), "after": self.after}
        return orjson.dumps(data | ({"bin": True} if self.in_bin else {})).decode()

    @classmethod
    def parse(cls, cursor: str) -> Self | None:
        """Return the position that `encode` wrote, None for a cursor that is of no sweep."""
        try:
            data = orjson.loads(cursor)
            if "sweep" not in data:
                return None
            start = _EPOCH + timedelta(milliseconds=data["sweep"])
            return cls(start, str(data["after"]), in_bin=bool(data.get("bin")))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise CursorError("the stored cursor is not one of this connector's") from error


class HubSpot:
    """The contacts of one HubSpot account; see `syncsvc.remote.connector.Connector`.

    Its key needs the scopes crm.objects.contacts.read, and crm.objects.contacts.write to write back.
    """

    Settings: ClassVar[type[Table]] = HubSpotSettings

    def __init__(self, settings: HubSpotSettings, needs: Needs, network: Network) -> None:
        """Make no request yet."""
        self._lag = settings.overlap
        self._every = settings.deletions_every
        self._needs = needs
        self._network = network
        self._api = HubSpotApi(
            network.client(settings.base_url, timeout=settings.timeout.total_seconds()),
            token=settings.token,
            version=settings.api_version,
            reserve=settings.reserve,
            network=network,
        )
        self._bin = RecycleBin(self._api)
        self._writes = Writes(self._api)
        self._pages = Pages(needs.fields)
        self._required = frozenset(needs.fields)
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
            return self._sweep(SweepPosition(in_bin=bool(self._every)))
        position = SweepPosition.parse(cursor)
        return self._poll(PollCursor.parse(cursor)) if position is None else self._sweep(position)

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order; see `Connector.write_back`.

        Raises SchemaError where a property that is written does not exist or is read-only.
        """
        return self._writes.write(values)

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

    def _sweep(self, at: SweepPosition) -> Iterator[Page]:
        before = self._network.now()
        self._require(self._needs.fields)
        at = replace(at, start=at.start or before + self._api.ahead)
        settled = at.began - self._lag
        ended: list[Contact] = []
        while at.in_bin:
            # First, so that a contact that is restored meanwhile is found alive by what follows.
            ended, after = self._bin.page(at.after, before=settled)
            at = replace(at, after=after, in_bin=bool(after))
            if after:
                yield Page(ended, at.encode())
        vouched: set[str] = set()
        while True:
            params = {"limit": str(LIST_PAGE), "properties": ",".join(self._paged)}
            params |= {"after": at.after} if at.after else {}
            answer = self._api.read(self._pages.read, "GET", self._api.contacts, params=params)
            if answer.status == 400 and at.after:
                raise CursorError("HubSpot does not take the position of the sweep any more")
            page = accepted(answer, f"GET {self._api.contacts}")
            contacts, ended = [*ended, *self._read(page.results, vouched)], []
            position = following(page.paging)
            if position is None:
                look = Look(settled, due=at.began + self._every, every=self._every)
                polls = PollCursor(settled, read=at.began, recheck=at.began + self._lag / 2, look=look)
                yield Page(contacts, polls.encode())
                return
            if position == at.after:
                raise TransientError("HubSpot's list of contacts does not move on")
            at = replace(at, after=position)
            yield Page(contacts, at.encode())

    def _poll(self, cursor: PollCursor) -> Iterator[Page]:
        window = cursor.open(self._network.now() + self._api.ahead, lag=self._lag)
        if window.after and not window.after.isdecimal():
            raise CursorError("the stored cursor is not one of this connector's")
        vouched: set[str] = set()
        while True:
            before = self._network.now()
            page = self._search(window)
            found, last = page.results, following(page.paging) is None
            expected = None
            if not window.after:
                # HubSpot's clock ends the window, at the moment of its first search: what is stamped later
                # may belong to ids that are behind us by then, and is left to the next window.
                until = max(window.start, before + self._api.ahead)
                window, expected = replace(window, until=until), page.total
            if found:
                reached = max(int(record.id) for record in found)
                if reached <= int(window.after or 0):
                    raise TransientError("HubSpot's search does not move on")
                newest = max(stamp(record) or window.until for record in found)
                window = window.advanced(str(reached), newest)
            contacts = self._read(found, vouched)
            if last:
                closed = cursor.closed(window, seen_until=window.until, lag=self._lag)
                yield Page(contacts, closed.encode(), expected)
                if closed.looks(window, every=self._every):
                    since = closed.look.since if closed.look is not None else None
                    ended, complete = self._bin.look(since, before=window.until - self._lag)
                    due = window.until + (self._every if complete else max(self._every, FULL_EVERY))
                    looked = closed.looked(window.until - self._lag, due=due, every=self._every)
                    yield Page(ended, looked.encode())
                return
            yield Page(contacts, cursor.within(window).encode(), expected)

    def _search(self, window: Window) -> RecordPage[Properties]:
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
            page = self._listed(f"{self._api.contacts}/search", body)
            position = following(page.paging)
            # A page can be empty though there is a next one: only then is there no id to go on from.
            if position is None or page.results:
                return page
            if not position.isdecimal() or int(position) + SEARCH_PAGE > SEARCH_CEILING:
                raise TransientError("HubSpot's search gives empty pages without end")
            body["after"] = position

    def _listed(self, path: str, body: Mapping[str, Any]) -> RecordPage[Properties]:
        return accepted(self._api.read(self._pages.read, "POST", path, json=body), f"POST {path}")

    def _read(self, found: Sequence[Record[Properties]], vouched: set[str]) -> list[Contact]:
        """Return records as contacts; raises SchemaError where a property has vanished.

        `vouched` are the properties that a contact lacked though they exist: asked about once per read.
        """
        if self._apart:
            found = self._hydrated([record.id for record in found])
        contacts = [self._pages.contact(record) for record in found]
        short = [contact.fields for contact in contacts if len(contact.fields) < len(self._required)]
        absent = {name for fields in short for name in self._required - fields.keys()}
        if absent - vouched:
            self._require(absent)
            vouched |= absent
        return contacts

    def _hydrated(self, ids: Sequence[str]) -> list[Record[Properties]]:
        """Return the records with every property, for names too long for a URL and for a search.

        A record that was deleted or merged away since its id was read is not among them.
        """
        found: list[Record[Properties]] = []
        for start in range(0, len(ids), BATCH):
            asked = ids[start : start + BATCH]
            body = {"inputs": [{"id": record_id} for record_id in asked], "properties": self._wanted}
            page = self._listed(f"{self._api.contacts}/batch/read", body)
            found += [record for record in page.results if record.id in asked]
        return found


def _milliseconds(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)
