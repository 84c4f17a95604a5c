"""The HTTP face of the HubSpot simulator: both path families, the same answers.

`/crm/v3/objects/contacts` and `/crm/objects/{2026-03|2026-09}/contacts` with everything under them, the
properties API likewise, and the token endpoint. A request is authenticated, counted against the limits,
checked for its scope and carried out, in that order.
"""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from syncsvc.sandbox.hubspot_access import READ, SCHEMA, WRITE, Access
from syncsvc.sandbox.hubspot_answers import (
    Call,
    Reply,
    expect_keys,
    properties_of,
    record_answer,
    record_number,
    written_answer,
)
from syncsvc.sandbox.hubspot_batches import Batches, Wrote
from syncsvc.sandbox.hubspot_filters import parse_query
from syncsvc.sandbox.hubspot_knobs import HubSpotKnobs
from syncsvc.sandbox.hubspot_properties import parse_definition
from syncsvc.sandbox.hubspot_records import Record, Records
from syncsvc.sandbox.hubspot_refusals import (
    Refusal,
    generic_problem,
    invalid,
    not_found,
    not_unique_property,
    property_exists,
    property_not_found,
)
from syncsvc.sandbox.hubspot_search import SearchIndex

Endpoint = Callable[[Call], Reply]

_KINDS = {"contacts", "contact", "CONTACT", "0-1"}
_VERSIONS = {"v3", "2026-03", "2026-09"}
_JSON = "application/json;charset=utf-8"


class HubSpotApi:
    """The endpoints over one account's records; `requests` counts by method and route, in every version."""

    def __init__(
        self,
        *,
        records: Records,
        index: SearchIndex,
        access: Access,
        knobs: HubSpotKnobs,
        lock: threading.RLock,
        wrote: Wrote,
        seed: int,
    ) -> None:
        """Serve `records` and `index`; each request holds `lock` while it is carried out."""
        self._records = records
        self._index = index
        self._access = access
        self._knobs = knobs
        self._lock = lock
        self._wrote = wrote
        self._random = random.Random(seed)
        self.requests: Counter[tuple[str, str]] = Counter()
        batches = Batches(records, knobs, wrote=wrote, seed=seed)
        served: list[tuple[str, str, str, Endpoint]] = [
            ("GET", "/contacts", READ, self._list),
            ("POST", "/contacts", WRITE, self._create),
            ("POST", "/contacts/search", READ, self._search),
            ("POST", "/contacts/merge", WRITE, self._merge),
            ("POST", "/contacts/gdpr-delete", WRITE, self._gdpr_delete),
            ("POST", "/contacts/batch/read", READ, batches.read),
            ("POST", "/contacts/batch/create", WRITE, batches.create),
            ("POST", "/contacts/batch/update", WRITE, batches.update),
            ("POST", "/contacts/batch/upsert", WRITE, batches.upsert),
            ("POST", "/contacts/batch/archive", WRITE, batches.archive),
            ("GET", "/contacts/{id}", READ, self._read),
            ("PATCH", "/contacts/{id}", WRITE, self._update),
            ("DELETE", "/contacts/{id}", WRITE, self._archive),
            ("GET", "/properties/contacts", READ, self._properties),
            ("POST", "/properties/contacts", SCHEMA, self._define),
            ("GET", "/properties/contacts/{id}", READ, self._property),
        ]
        routes = [Route("/oauth/{version}/token", self._token, methods=["POST"])]
        for method, route, scope, endpoint in served:
            serve = self._serving(method, route, scope, endpoint)
            routes.extend(Route(path, serve, methods=[method]) for path in _paths(route))
        self._app = Starlette(routes=routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._app(scope, receive, send)

    def _serving(self, method: str, route: str, scope: str, endpoint: Endpoint) -> Callable[[Request], Any]:
        async def serve(request: Request) -> Response:
            raw = await request.body()
            with self._lock:
                self.requests[method, route] += 1
                headers: dict[str, str] = {}
                try:
                    token = self._access.identify(request.headers.get("authorization"))
                    headers = self._access.admit(token, search=route == "/contacts/search")
                    self._access.permit(scope)
                    reply = endpoint(_call(request, raw))
                except Refusal as refusal:
                    return self._refused(refusal, headers)
                return self._response(reply.status, reply.body, headers)

        return serve

    async def _token(self, request: Request) -> Response:
        raw = await request.body()
        with self._lock:
            self.requests["POST", "/oauth/token"] += 1
            if request.path_params["version"] not in _VERSIONS | {"v1"}:
                return Response(status_code=404)
            try:
                answer = self._access.refresh(dict(parse_qsl(raw.decode("utf-8", "replace"))))
            except Refusal as refusal:
                return self._refused(refusal, {})
            return self._response(200, answer, {})

    def _list(self, call: Call) -> Reply:
        history = call.names("propertiesWithHistory")
        most = self._knobs.history_page_max if history else self._knobs.list_page_max
        limit = call.number("limit", self._knobs.list_page_default)
        if not 1 <= limit <= most:
            raise invalid(f"limit must be between 1 and {most}")
        page, following = self._records.page(call.number("after", 0), limit, archived=call.flag("archived"))
        names = call.names("properties")
        results = [record_answer(self._records, record, names, history=history) for record in page]
        return Reply(200, {"results": results} | _paging(following, "/crm/v3/objects/contacts"))

    def _read(self, call: Call) -> Reply:
        record = self._addressed(call, archived=call.flag("archived"))
        names = call.names("properties")
        history = call.names("propertiesWithHistory")
        return Reply(200, record_answer(self._records, record, names, history=history))

    def _create(self, call: Call) -> Reply:
        body = call.body()
        expect_keys(body, {"properties", "associations", "objectWriteTraceId"}, self._knobs)
        if body.get("associations"):
            raise invalid("Associations are not part of this account")
        values = self._records.checked(properties_of(body))
        if call.version == "2026-09":
            self._records.require(None, values)
        record = self._records.create(values, at=self._records.now(), source="INTEGRATION")
        self._wrote(record, values)
        return Reply(201, written_answer(self._records, record, values))

    def _update(self, call: Call) -> Reply:
        record = self._addressed(call)
        body = call.body()
        expect_keys(body, {"properties", "objectWriteTraceId"}, self._knobs)
        values = self._records.checked(properties_of(body))
        if call.version == "2026-09":
            self._records.require(record, values)
        self._records.update(record, values, at=self._records.now(), source="INTEGRATION")
        self._wrote(record, values)
        return Reply(200, written_answer(self._records, record, values))

    def _archive(self, call: Call) -> Reply:
        record_id = record_number(call.path["id"])
        if self._records.find(record_id, archived=True) is None:
            self._records.archive(self._records.needed(record_id))
        return Reply(204)

    def _merge(self, call: Call) -> Reply:
        body = call.body()
        expect_keys(body, {"primaryObjectId", "objectIdToMerge"}, self._knobs)
        winner, loser = (
            self._records.needed(record_number(body.get(key)))
            for key in ("primaryObjectId", "objectIdToMerge")
        )
        merged = self._records.merge(winner, loser, at=self._records.now())
        self._wrote(merged, {})
        return Reply(200, record_answer(self._records, merged))

    def _gdpr_delete(self, call: Call) -> Reply:
        body = call.body()
        expect_keys(body, {"objectId", "idProperty"}, self._knobs)
        if body.get("idProperty") == "email":
            record = self._records.find_email(str(body.get("objectId")))
        else:
            number = record_number(body.get("objectId"))
            record = self._records.find(number) or self._records.find(number, archived=True)
        if record is None:
            raise not_found()
        self._records.purge(record)
        return Reply(204)

    def _search(self, call: Call) -> Reply:
        if len(call.raw.decode("utf-8", "replace")) > self._knobs.search_text_max:
            raise Refusal(400, generic_problem())
        query = parse_query(call.body(), self._records.known, self._knobs)
        self._index.advance(self._records.now())
        found = self._index.find(query)
        phantoms = self._knobs.phantom_hits if found else 0
        limit = max(1, query.limit // 2) if self._knobs.short_search_pages else query.limit
        end = query.after + limit
        hits = found[max(0, query.after - phantoms) : max(0, end - phantoms)]
        rows = [
            record_answer(
                self._records, Record(hit.id, hit.properties, hit.created, hit.updated), query.properties
            )
            for hit in hits
            if self._records.find(hit.id) and not self._records.merged_away(hit.id)
        ]
        if self._knobs.shuffled_search_pages:
            self._random.shuffle(rows)
        total = len(found) + phantoms
        following = end if end < total else None
        paging = _paging(following, "/crm/v3/objects/contacts/search")
        return Reply(200, {"total": total, "results": rows} | paging)

    def _properties(self, call: Call) -> Reply:
        archived = call.flag("archived")
        definitions = self._records.definitions.values()
        return Reply(200, {"results": [one.answer() for one in definitions if one.archived is archived]})

    def _property(self, call: Call) -> Reply:
        definition = self._records.definitions.get(call.path["id"])
        if definition is None or definition.archived is not call.flag("archived"):
            raise property_not_found(call.path["id"])
        return Reply(200, definition.answer())

    def _define(self, call: Call) -> Reply:
        definition = parse_definition(call.body(), created=self._records.now())
        if self._records.known(definition.name):
            raise property_exists(definition.name)
        self._records.define(definition)
        return Reply(201, definition.answer())

    def _addressed(self, call: Call, *, archived: bool = False) -> Record:
        by = call.query.get("idProperty", ["hs_object_id"])[-1]
        if by == "email":
            record = None if archived else self._records.find_email(call.path["id"])
            if record is None:
                raise not_found()
            return record
        if by != "hs_object_id":
            raise not_unique_property()
        return self._records.needed(record_number(call.path["id"]), archived=archived)

    def _refused(self, refusal: Refusal, headers: Mapping[str, str]) -> Response:
        return self._response(refusal.status, refusal.body, {**headers, **refusal.headers})

    def _response(self, status: int, body: Any, headers: Mapping[str, str]) -> Response:
        correlation = str(uuid.UUID(int=self._random.getrandbits(128)))
        if isinstance(body, dict) and body.get("status") == "error":
            body = {**body, "correlationId": correlation}
        content = b"" if body is None else orjson.dumps(body)
        return Response(
            content,
            status_code=status,
            headers={**headers, "X-HubSpot-Correlation-Id": correlation},
            media_type=None if body is None else _JSON,
        )


def _paths(route: str) -> list[str]:
    if route.startswith("/properties"):
        rest = route.removeprefix("/properties/contacts")
        return [f"/crm/v3/properties/{{kind}}{rest}", f"/crm/properties/{{version}}/{{kind}}{rest}"]
    rest = route.removeprefix("/contacts")
    return [f"/crm/v3/objects/{{kind}}{rest}", f"/crm/objects/{{version}}/{{kind}}{rest}"]


def _call(request: Request, raw: bytes) -> Call:
    version = request.path_params.get("version", "v3")
    dated = "version" in request.path_params
    if version not in _VERSIONS or dated is (version == "v3"):
        raise Refusal(404, {"status": "error", "message": "no such version of the API"})
    if request.path_params["kind"] not in _KINDS:
        raise invalid("Unable to infer object type")
    if raw and not request.headers.get("content-type", "").lower().startswith("application/json"):
        raise Refusal(415, {"status": "error", "message": "HTTP 415 Unsupported Media Type"})
    query: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        query.setdefault(name, []).append(value)
    return Call(version, request.path_params, query, raw)


def _paging(following: int | None, link: str) -> dict[str, Any]:
    # The link stays v3 whatever was asked for, as HubSpot's may: `after` is what to follow.
    if following is None:
        return {}
    return {"paging": {"next": {"after": str(following), "link": f"{link}?after={following}"}}}
