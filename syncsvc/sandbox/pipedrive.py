"""A Pipedrive company to test and show syncsvc against: its persons, strictly, over HTTP, in one file.

    GET          /api/v2/persons        a page of persons
    GET, PATCH   /api/v2/persons/{id}   one person
    GET          /api/v2/personFields   a page of the fields that persons have

It refuses what API v2 refuses, and beside that the parameters that nobody here uses. What a person or another
app does is done through the methods. Facts and their sources: `docs/connectors/pipedrive.md`.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncsvc.sandbox.clock import Clock, RealClock
from syncsvc.sandbox.faults import FaultPlan, FaultyApp

WINDOW = timedelta(seconds=2)  # of the burst limit (Rate limiting, 2026)
KEPT = timedelta(days=30)  # a deleted person (Persons, 2026)
LIST, ONE, UPDATE = 10, 1, 5  # API tokens that a question costs (Persons, 2026)
INVALID = "ERR_SCHEMA_VALIDATION_FAILED"  # recorded by public projects

_SYNCED = ("birthday", "job_title", "notes", "postal_address")
_BLANK = {"name": "", "emails": [], "phones": [], "owner_id": 1, "visible_to": 7, "label_ids": []}
_KEYS = r"\w+(,\w+){0,14}"  # at most 15 custom fields (Persons, 2026)
_PAGED = {"cursor": ".+", "limit": r"[1-9]\d?|[1-4]\d\d|500"}  # 500 entries at most (Pagination, 2026)
_LISTED = _PAGED | {"custom_fields": _KEYS, "sort_by": "id", "sort_direction": "asc"}
_LISTED |= {"updated_since": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"}  # fractions were seen refused
_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "varchar": lambda it: isinstance(it, str) and len(it) <= 255,
    "text": lambda it: isinstance(it, str) and len(it) <= 65_000,
    "double": lambda it: type(it) in {int, float},
    "date": lambda it: isinstance(it, str) and bool(re.fullmatch(r"\d{4}-\d\d-\d\d", it)),
    "enum": lambda it: type(it) is int,
    "set": lambda it: isinstance(it, list) and bool(it) and all(type(one) is int for one in it),
    "address": lambda it: isinstance(it, dict) and isinstance(it.get("value"), str),
    "monetary": lambda it: isinstance(it, dict) and type(it.get("value")) in {int, float},
}


@dataclass(slots=True)
class PipedriveKnobs:
    """How the simulated company behaves; may be changed while it serves. Persons are named by id.

    What is marked *unverified* no document settles: its default is what was seen, or asks more of a client.
    """

    lists_deleted: bool = False  # lists tell deleted persons; unverified, seen left out
    shows_deleted: bool = True  # a deleted person is told by its id; unverified, seen for deals
    deleted_status: int = 400  # of its edit: 400, 404, 410; unverified, 400 seen for deals
    unknown_keys: str = "ignored"  # in a list's question: refused, ignored, null; unverified
    omits_empty: bool = True  # a custom field without a value is not told; unverified
    empty_is_null: bool = False  # an empty list is null, as in v1; unverified
    tells_end: bool = True  # the last page has a next_cursor of null, else none; unverified
    restore_moves: bool = True  # restoring a person updates it; unverified
    contact_sync: bool = False  # persons have the fields that come with it
    commit_delay: float = 0.0  # seconds from a change, and its update_time, until it is seen
    short_pages: bool = False  # pages hold half of what was asked for
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)  # id: what answers its updates

    limits: bool = True
    burst: int = 20  # requests in two seconds, by API token: a Lite plan's
    daily: int = 30_000  # API tokens a day of the whole company: a Lite plan's with one seat
    elsewhere: int = 0  # of them, spent by its other apps
    tells_daily: bool = True  # answers tell them, which no document says and staff calls optional
    retry_after: bool = False  # a 429 tells it; unverified


@dataclass(frozen=True, slots=True)
class Person:
    """A person as it is between two changes; `values` are what it has beside custom fields."""

    id: int
    added: datetime
    updated: datetime
    values: Mapping[str, Any] = field(repr=False)
    custom: Mapping[str, Any] = field(repr=False)
    deleted: bool = False


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure of the simulator
    """A request that the server refuses."""

    def __init__(self, status: int, error: str, code: str = "") -> None:
        """Hold the answer."""
        super().__init__(f"{status} {code}")
        self.status = status
        self.body: dict[str, Any] = {"success": False, "error": error, "data": None, "additional_data": None}
        self.body["error_info"] = "Please check developers.pipedrive.com"
        self.body |= {"code": code} if code else {}


class PipedriveSimulator:
    """One company. `app` is what a server serves, `knobs` and `faults` may be changed while it does.

    `requests` counts what was served, refusals included, by method and route: `("GET", "persons")`,
    `("PATCH", "persons/{id}")`, `("GET", "personFields")`. All methods may be called from any thread.
    """

    def __init__(
        self,
        *,
        token: str = "pipedrive-sandbox",  # noqa: S107 - of a simulator
        clock: Clock | None = None,
        seed: int = 0,
        knobs: PipedriveKnobs | None = None,
    ) -> None:
        """Begin with no persons and no custom fields."""
        self.clock, self.token = clock or RealClock(), token
        self.knobs, self.faults = knobs or PipedriveKnobs(), FaultPlan(seed=seed)
        self.requests: Counter[tuple[str, str]] = Counter()
        self._seed, self._given, self._ids = seed, 0, itertools.count(1)
        self._fields: dict[str, tuple[str, str]] = {}  # name and type by key
        self._persons: dict[int, Person] = {}  # as they are
        self._seen: dict[int, Person] = {}  # as anybody sees them
        self._late: list[tuple[datetime, Person]] = []
        self._burst: deque[datetime] = deque()
        self._spent: Counter[date] = Counter()
        self._lock = threading.RLock()
        one = "/api/v2/persons/{id:int}"
        routes = [
            Route("/api/v2/persons", self._serving(self._list, LIST, "persons")),
            Route(one, self._serving(self._one, ONE, "persons/{id}")),
            Route(one, self._serving(self._patch, UPDATE, "persons/{id}"), methods=["PATCH"]),
            Route("/api/v2/personFields", self._serving(self._list_fields, LIST, "personFields")),
        ]
        self.app = FaultyApp(Starlette(routes=routes), self.faults, clock=self.clock)

    def define(self, name: str, kind: str = "varchar") -> str:
        """Add a custom field and return its key, 40 characters that are others in each company."""
        key = hashlib.sha1(f"{self._seed} {name}".encode()).hexdigest()  # noqa: S324 - no secret
        self._fields[key] = (name, kind)
        return key

    def drop(self, key: str) -> None:
        """Delete a custom field; raises KeyError where there is none."""
        del self._fields[key]

    def create_many(self, persons: Iterable[Mapping[str, Any]]) -> list[str]:
        """Add persons at one instant and return their ids; each is given as the API takes it."""
        with self._lock:
            now, made = self._now(), []
            for given in persons:
                blank = Person(next(self._ids), now, now, _BLANK, {})
                made.append(self._change(blank, given, now))
            return [str(person.id) for person in made]

    def update(self, record_id: str, given: Mapping[str, Any]) -> None:
        """Change a live person; raises KeyError where there is none, Refusal for what the API refuses."""
        with self._lock:
            self._change(self._live(record_id), given, self._now())

    def delete(self, record_id: str) -> None:
        """Mark a live person as deleted, which it is for good after 30 days; raises KeyError."""
        with self._lock:
            self._show(replace(self._live(record_id), deleted=True, updated=self._now()))

    def restore(self, record_id: str) -> None:
        """Bring a deleted person back under its id; raises KeyError where it is gone for good."""
        with self._lock:
            person = self._persons[int(record_id)]
            updated = self._now() if self.knobs.restore_moves else person.updated
            self._show(replace(person, deleted=False, updated=updated))

    def erase(self, record_id: str) -> None:
        """Remove a person without a trace; raises KeyError where there is none."""
        with self._lock:
            self._seen.pop(self._persons.pop(int(record_id)).id, None)

    def merge(self, winner: str, loser: str) -> None:
        """Give `winner` what it lacks and `loser` has, and delete `loser`; raises KeyError."""
        with self._lock:
            lives, ends, now = self._live(winner), self._live(loser), self._now()
            values = {name: value or ends.values[name] for name, value in lives.values.items()}
            self._show(replace(lives, values=values, custom={**ends.custom, **lives.custom}, updated=now))
            self._show(replace(ends, deleted=True, updated=now))

    def person(self, record_id: str) -> dict[str, Any]:
        """Return a live person as it truly is, in the API's form; raises KeyError where there is none."""
        with self._lock:
            return self._told(self._live(record_id), None)

    def forget_cursors(self) -> None:
        """Refuse every cursor that was given out so far."""
        self._given += 1

    def _now(self) -> datetime:
        return self.clock.now().astimezone(UTC).replace(microsecond=0)

    def _live(self, record_id: str) -> Person:
        if (person := self._persons[int(record_id)]).deleted:
            raise KeyError(record_id)
        return person

    def _change(self, person: Person, given: Any, now: datetime) -> Person:
        self._check(given)
        values = {**person.values, **{name: it for name, it in given.items() if name != "custom_fields"}}
        custom = {**person.custom, **given.get("custom_fields", {})}
        filled = {key: value for key, value in custom.items() if value not in (None, "")}
        return self._show(replace(person, values=values, custom=filled, updated=now))

    def _show(self, person: Person) -> Person:
        self._persons[person.id] = person
        if self.knobs.commit_delay:
            self._late.append((self.clock.now() + timedelta(seconds=self.knobs.commit_delay), person))
        else:
            self._seen[person.id] = person
        return person

    def _settle(self) -> None:
        """Let everybody see what is due by now, and forget who was deleted 30 days ago."""
        now = self.clock.now()
        for at, person in self._late:
            seen = self._seen.get(person.id, person)
            if at <= now and person.id in self._persons and seen.updated <= person.updated:
                self._seen[person.id] = person
        self._late = [(at, person) for at, person in self._late if at > now]
        for person in [it for it in self._seen.values() if it.deleted and it.updated + KEPT <= now]:
            self.erase(str(person.id))

    def _serving(
        self, serve: Callable[[Request, Any], dict[str, Any]], cost: int, route: str
    ) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            with self._lock:
                self.requests[request.method, route] += 1
                try:
                    self._count(request.headers.get("x-api-token"), cost)
                    self._settle()
                    answer, status = {"success": True, **serve(request, _parsed(body))}, 200
                except Refusal as refusal:
                    answer, status = refusal.body, refusal.status
                body = orjson.dumps(answer)
                return Response(body, status, self._limits(status), "application/json")

        return endpoint

    def _count(self, token: str | None, cost: int) -> None:
        """Count a request, or refuse it; what is refused counts for none."""
        if token != self.token:
            raise Refusal(401, "unauthorized access")
        now = self.clock.now()
        while self._burst and self._burst[0] + WINDOW <= now:
            self._burst.popleft()
        if self.knobs.limits and (len(self._burst) >= self.knobs.burst or self._left() < cost):
            raise Refusal(429, "request over limit")
        self._burst.append(now)
        self._spent[now.date()] += cost

    def _left(self) -> int:
        return max(0, self.knobs.daily - self.knobs.elsewhere - self._spent[self.clock.now().date()])

    def _limits(self, status: int) -> dict[str, str]:
        """Return what an answer tells of the limits."""
        ends = self._burst[0] + WINDOW - self.clock.now() if self._burst else WINDOW
        told = {"x-ratelimit-limit": self.knobs.burst, "x-ratelimit-reset": math.ceil(ends.total_seconds())}
        told["x-ratelimit-remaining"] = max(0, self.knobs.burst - len(self._burst))
        if self.knobs.tells_daily:
            told["x-daily-ratelimit-token-limit"] = self.knobs.daily
            told["x-daily-ratelimit-token-remaining"] = self._left()
        if self.knobs.retry_after and status == 429:
            told["retry-after"] = told["x-ratelimit-reset"]
        return {name: str(it) for name, it in told.items()} if self.knobs.limits else {}

    def _list(self, request: Request, _: Any) -> dict[str, Any]:
        query = _query(request, _LISTED)
        keys, since = _keys(query), query.get("updated_since", "0001-01-01T00:00:00Z")
        if self.knobs.unknown_keys == "refused" and (lost := {*(keys or ())} - self._fields.keys()):
            raise Refusal(400, f"custom_fields: {lost} is not allowed", INVALID)
        start = datetime.fromisoformat(since)
        found = [
            (it.id, it)
            for it in self._seen.values()
            if it.updated >= start and (self.knobs.lists_deleted or not it.deleted)
        ]
        return self._page(found, query, "id", lambda it: self._told(it, keys))

    def _one(self, request: Request, _: Any) -> dict[str, Any]:
        keys = _keys(_query(request, {"custom_fields": _KEYS}))
        person = self._seen.get(request.path_params["id"])
        if person is None or (person.deleted and not self.knobs.shows_deleted):
            raise Refusal(404, "Person not found", "ERR_NOT_FOUND")
        return {"data": self._told(person, keys)}

    def _patch(self, request: Request, body: Any) -> dict[str, Any]:
        _query(request, {})
        self._check(body)
        person, record_id = self._persons.get(request.path_params["id"]), str(request.path_params["id"])
        if person is None or (person.deleted and self.knobs.deleted_status != 400):
            raise Refusal(self.knobs.deleted_status if person else 404, "Person not found", "ERR_NOT_FOUND")
        if person.deleted:
            raise Refusal(400, "Entity is deleted. You must first restore it", "ERR_PERSON_DELETED")
        if record_id in self.knobs.refused:
            status, code = self.knobs.refused[record_id]
            raise Refusal(status, f"not for {person.values['name']}", code)
        return {"data": self._told(self._change(person, body, self._now()), None)}

    def _list_fields(self, request: Request, _: Any) -> dict[str, Any]:
        query = _query(request, _PAGED)
        fields = [("Name", "name", "varchar", False), ("Email", "email", "varchar", False)]
        fields += [(name, key, kind, True) for key, (name, kind) in self._fields.items()]
        names = ("field_name", "field_code", "field_type", "is_custom_field")
        entries = [(n, dict(zip(names, it, strict=True), options=None)) for n, it in enumerate(fields)]
        return self._page(entries, query, "order", lambda it: it)

    def _page(
        self, places: list[tuple[int, Any]], query: Mapping[str, str], order: str, told: Callable[[Any], Any]
    ) -> dict[str, Any]:
        """Return a page; a cursor names the next one's first entry, in the form of the documents' example."""
        limit = int(query.get("limit", "100"))
        size = -(-limit // 2) if self.knobs.short_pages else limit
        mark = {"field": order, "sortDirection": "asc", "given": self._given}
        if "cursor" in query:
            try:
                found = json.loads(base64.urlsafe_b64decode(query["cursor"] + "=="))
                start = found.pop("fieldValue")
            except (ValueError, KeyError, AttributeError):
                found = None
            if found != mark:
                raise Refusal(400, "cursor is not allowed", INVALID)
            places = [it for it in places if it[0] >= start]
        places.sort(key=lambda it: it[0])
        page, following = [told(it) for _, it in places[:size]], None
        if len(places) > size:
            marker = json.dumps(mark | {"fieldValue": places[size][0]}).encode()
            following = base64.urlsafe_b64encode(marker).decode().rstrip("=")
        more = {"additional_data": {"next_cursor": following}} if following or self.knobs.tells_end else {}
        return {"data": None if not page and self.knobs.empty_is_null else page, **more}

    def _told(self, person: Person, keys: Collection[str] | None) -> dict[str, Any]:
        first, _, last = person.values["name"].partition(" ")
        told = {"id": person.id, "first_name": first, "last_name": last or None, **person.values}
        told |= {"org_id": None, "picture_id": None, "is_deleted": person.deleted}
        told |= {"add_time": _iso(person.added), "update_time": _iso(person.updated)}
        told |= dict.fromkeys(_SYNCED if self.knobs.contact_sync else ())
        asked = self._fields.keys() if keys is None else self._fields.keys() & set(keys)
        empty = {} if self.knobs.omits_empty else dict.fromkeys(asked)
        if self.knobs.unknown_keys == "null":
            empty |= dict.fromkeys({*(keys or ())} - self._fields.keys())
        return told | {
            "custom_fields": empty | {key: it for key, it in person.custom.items() if key in asked}
        }

    def _check(self, given: Any) -> None:
        """Raise Refusal for what no person can be given: text is no number, and the reverse."""
        if not isinstance(given, Mapping) or not isinstance(given.get("custom_fields", {}), dict):
            raise Refusal(400, "the body is not allowed", INVALID)
        for key, value in given.get("custom_fields", {}).items():
            if key not in self._fields or not (value is None or _TYPES[self._fields[key][1]](value)):
                raise Refusal(400, f"{key}: {value!r} is not allowed", INVALID)
        for name, value in given.items():
            if name in {"emails", "phones"}:
                fits = isinstance(value, list) and all(type(it.get("value")) is str for it in value)
            else:
                fits = name == "custom_fields" or (name == "name" and isinstance(value, str) and bool(value))
            if not fits:
                raise Refusal(400, f"{name}: {value!r} is not allowed", INVALID)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        raise Refusal(400, "the body is no JSON", INVALID) from None


def _query(request: Request, allowed: Mapping[str, str]) -> Mapping[str, str]:
    """Return the parameters of a request; v2 was seen to refuse those that it does not know."""
    for name, value in request.query_params.items():
        if not re.fullmatch(allowed.get(name, "(?!)"), value):
            raise Refusal(400, f"{name}: {value} is not allowed", INVALID)
    return request.query_params


def _keys(query: Mapping[str, str]) -> list[str] | None:
    """Return the custom fields that are asked for, None where all are."""
    return query["custom_fields"].split(",") if "custom_fields" in query else None


def _iso(at: datetime) -> str:
    return f"{at.isoformat()[:19]}Z"
