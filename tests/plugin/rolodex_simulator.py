"""A CRM that does not exist: its API, kept strictly, in memory.

    GET   /v1/fields                          fields: each its name and type, which is text or time
    GET   /v1/contacts?fields=&after=&limit=  contacts: each its id, fields; next: id or null; newest: number
    GET   /v1/changes?fields=&since=&limit=   contacts: each its id, change, deleted, fields; more: bool
    PATCH /v1/contacts                        contacts: each its id, fields -> results: each its id, status

A page has at most 500 contacts, a PATCH at most 100. A status is ok, gone, invalid or busy. Every change has
the next number; a contact stands among the changes once, under its last one. A field that does not exist is a
422 that names it under `unknown`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from syncsvc.sandbox.clock import Clock
from syncsvc.sandbox.faults import FaultPlan, FaultyApp

PAGE, BATCH = 500, 100
TYPES = {"mail": "text", "name": "text", "note": "text", "wallet_at": "time", "wallet_status": "text"}


class RolodexSimulator:
    """One account; `app` is what is served."""

    def __init__(self, *, key: str, clock: Clock) -> None:
        self.records: dict[str, dict[str, str]] = {}
        self.changed: dict[str, int] = {}
        self.states: dict[str, str] = {}  # contacts that are invalid, or busy
        self.asked: Counter[str] = Counter()
        self.faults = FaultPlan()
        self._key = key
        self._newest = 0
        routes = [
            Route("/v1/fields", self._fields),
            Route("/v1/contacts", self._list),
            Route("/v1/contacts", self._patch, methods=["PATCH"]),
            Route("/v1/changes", self._changes),
        ]
        self.app = FaultyApp(Starlette(routes=routes), self.faults, clock=clock)

    def put(self, record_id: str, **values: str) -> None:
        self.records[record_id] = {**dict.fromkeys(TYPES, ""), **self.records.get(record_id, {}), **values}
        self._touch(record_id)

    def delete(self, record_id: str) -> dict[str, str]:
        self._touch(record_id)
        return self.records.pop(record_id)

    def erase(self, record_id: str) -> None:
        del self.records[record_id], self.changed[record_id]

    def _touch(self, record_id: str) -> None:
        self._newest += 1
        self.changed[record_id] = self._newest

    def _refusal(self, request: Request, names: Sequence[str] = (), *, size: int = 0) -> JSONResponse | None:
        self.asked[request.url.path] += 1
        if request.headers.get("authorization") != f"Bearer {self._key}":
            return JSONResponse({"message": "unauthorized"}, 401)
        if unknown := [name for name in names if name not in TYPES]:
            return JSONResponse({"unknown": unknown}, 422)
        return JSONResponse({"message": "too many"}, 400) if size > PAGE else None

    async def _fields(self, request: Request) -> JSONResponse:
        fields = [{"name": name, "type": kind} for name, kind in TYPES.items()]
        return self._refusal(request) or JSONResponse({"fields": fields})

    async def _list(self, request: Request) -> JSONResponse:
        names, size = request.query_params["fields"].split(","), int(request.query_params["limit"])
        if refusal := self._refusal(request, names, size=size):
            return refusal
        after = int(request.query_params["after"] or 0)
        left = sorted((it for it in self.records if int(it) > after), key=int)
        page = [{"id": it, "fields": self._only(it, names)} for it in left[:size]]
        following = left[size - 1] if len(left) > size else None
        return JSONResponse({"contacts": page, "next": following, "newest": self._newest})

    async def _changes(self, request: Request) -> JSONResponse:
        names, size = request.query_params["fields"].split(","), int(request.query_params["limit"])
        if refusal := self._refusal(request, names, size=size):
            return refusal
        since = int(request.query_params["since"])
        left = sorted((number, it) for it, number in self.changed.items() if number > since)
        page = [
            {"id": it, "change": number, "deleted": it not in self.records, "fields": self._only(it, names)}
            for number, it in left[:size]
        ]
        return JSONResponse({"contacts": page, "more": len(left) > size})

    def _only(self, record_id: str, names: Sequence[str]) -> dict[str, str]:
        record = self.records.get(record_id)
        return {} if record is None else {name: record[name] for name in names}

    async def _patch(self, request: Request) -> JSONResponse:
        contacts = (await request.json())["contacts"]
        names = {name for contact in contacts for name in contact["fields"]}
        if refusal := self._refusal(request, sorted(names), size=len(contacts) - BATCH + PAGE):
            return refusal
        return JSONResponse({"results": [{"id": it["id"], "status": self._write(**it)} for it in contacts]})

    def _write(self, id: str, fields: dict[str, Any]) -> str:  # noqa: A002 - the API's word
        if id not in self.records:
            return "gone"
        if id in self.states:
            return self.states[id]
        for name, value in fields.items():
            if TYPES[name] == "time":
                datetime.strptime(value, "%Y-%m-%dT%H:%M:%S%z")
        self.put(id, **fields)
        return "ok"
