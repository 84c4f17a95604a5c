"""A Dynamics 365 environment to test syncsvc against: strict, over HTTP, with a clock and faults of its own.

One Entra tenant with one app, and the contact table of one Dataverse environment with change tracking. What a
person or another app does there is done through the methods; what syncsvc does comes in over HTTP. Facts and
their sources: docs/connectors/dynamics.md. What no document settles is a knob.
"""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from syncsvc.sandbox.clock import Clock, RealClock
from syncsvc.sandbox.dynamics_access import Access, LoginError
from syncsvc.sandbox.dynamics_batches import carried_out, operations
from syncsvc.sandbox.dynamics_calls import Call, Calls
from syncsvc.sandbox.dynamics_columns import TYPES, Column
from syncsvc.sandbox.dynamics_knobs import DynamicsKnobs
from syncsvc.sandbox.dynamics_queries import Queries
from syncsvc.sandbox.dynamics_refusals import Refusal
from syncsvc.sandbox.dynamics_table import ACTIVE, INACTIVE, Row, Table
from syncsvc.sandbox.faults import FaultPlan, FaultyApp

__all__ = ["Column", "DynamicsKnobs", "DynamicsSimulator", "Wrote"]

_LOGIN = "/oauth2/v2.0/token"
_JSON = "application/json; odata.metadata=minimal"


@dataclass(frozen=True, slots=True)
class Wrote:
    """One contact written over HTTP, and what it was given; its values stay out of the repr."""

    record_id: str
    values: Mapping[str, Any] = field(repr=False)


class DynamicsSimulator:
    """One environment. `app` is what a server serves, `knobs` and `faults` may be changed while it does.

    `requests` counts what was served, refusals included, by method and resource: `("GET", "contacts")`,
    `("POST", "$batch")`, `("POST", "token")`; `writes` holds every contact written over HTTP, in order. All
    methods may be called from any thread; they raise KeyError for a contact that is not there, Refusal for
    values not taken.
    """

    def __init__(
        self,
        *,
        tenant: str = "sandbox.example",
        client_id: str = "11111111-2222-3333-4444-555555555555",
        client_secret: str = "sandbox-secret",  # noqa: S107 - the simulator's own, worth nothing elsewhere
        clock: Clock | None = None,
        faults: FaultPlan | None = None,
        seed: int = 0,
        knobs: DynamicsKnobs | None = None,
    ) -> None:
        """Begin with no contacts and Dataverse's own columns."""
        self.clock = clock or RealClock()
        self.knobs = knobs or DynamicsKnobs()
        self.faults = faults or FaultPlan(seed=seed)
        self.requests: Counter[tuple[str, str]] = Counter()
        self.writes: list[Wrote] = []
        self._lock = threading.RLock()
        self._random = Random(seed)
        self._table = Table(clock=self.clock, knobs=self.knobs, seed=seed)
        self._queries = Queries(self._table, clock=self.clock, knobs=self.knobs)
        self._calls = Calls(self._table, self._queries, knobs=self.knobs, wrote=self._wrote)
        self.access = Access(
            tenant=tenant,
            client_id=client_id,
            client_secret=client_secret,
            clock=self.clock,
            knobs=self.knobs,
            seed=seed,
        )
        self.app: ASGIApp = FaultyApp(self._serve, self.faults, clock=self.clock)

    # What people and other apps do.

    def define(
        self,
        name: str,
        kind: str = "String",
        *,
        length: int = 100,
        updatable: bool = True,
        date_only: bool = False,
        source: int = 0,
    ) -> None:
        """Add a column of an AttributeType, such as "Memo"; raises ValueError for a type there is not."""
        if kind not in TYPES:
            raise ValueError(f"{name}: there is no type {kind}")
        column = Column(name, kind, length, updatable=updatable, date_only=date_only, source=source)
        with self._lock:
            self._table.define(column)

    def drop_column(self, name: str) -> None:
        """Delete a column, by its name in queries."""
        with self._lock:
            self._table.drop(name)

    def create_many(self, contacts: Iterable[Mapping[str, Any]]) -> list[str]:
        """Add contacts and return their ids in order."""
        with self._lock:
            return [self._table.create(self._table.checked(values)).id for values in contacts]

    def update(self, record_id: str, values: Mapping[str, Any]) -> None:
        """Change a contact; the change commits `commit_delay` later."""
        with self._lock:
            self._table.update(self._live(record_id), self._table.checked(values), late=True)

    def deactivate(self, record_id: str) -> None:
        """Make a contact inactive, as the button in the app does."""
        with self._lock:
            self._table.update(self._live(record_id), {"statecode": INACTIVE, "statuscode": 2})

    def activate(self, record_id: str) -> None:
        """Make a contact active again."""
        with self._lock:
            self._table.update(self._live(record_id), {"statecode": ACTIVE, "statuscode": 1})

    def delete(self, record_id: str) -> None:
        """Delete a contact."""
        with self._lock:
            self._table.delete(self._live(record_id))

    def restore(self, record_id: str) -> None:
        """Restore a deleted contact under its id."""
        with self._lock:
            self._table.restore(record_id)

    def merge(self, target: str, subordinate: str) -> None:
        """Merge two active contacts into the first; the second is deactivated and names its master."""
        with self._lock:
            self._table.merge(self._live(target), self._live(subordinate), {})

    def contact(self, record_id: str) -> dict[str, Any]:
        """Return every value of a contact as it truly is, by the names that queries use."""
        with self._lock:
            return dict(self._live(record_id).values)

    def contacts(self) -> list[dict[str, Any]]:
        """Return every contact, inactive ones included, in the order of ids."""
        with self._lock:
            return [dict(row.values) for row in self._table]

    def forget_links(self) -> None:
        """Let every delta and next link given out so far be expired."""
        with self._lock:
            self._queries.forgotten = self.clock.now().replace(microsecond=999_999)

    def _live(self, record_id: str) -> Row:
        row = self._table.find(record_id)
        if row is None:
            raise KeyError(record_id)
        return row

    def _wrote(self, record_id: str, values: Mapping[str, Any]) -> None:
        self.writes.append(Wrote(record_id, dict(values)))

    # What comes in over HTTP.

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        with self._lock:
            answer = self._answer(request, body)
        await answer(scope, receive, send)

    def _answer(self, request: Request, body: bytes) -> Response:
        origin = f"{request.url.scheme}://{request.headers['host']}"
        path = request.url.path
        if path.endswith(_LOGIN) and request.method == "POST":
            self.requests["POST", "token"] += 1
            return self._login(path.removesuffix(_LOGIN).strip("/"), body, origin)
        raw = scope_target(request.scope)
        call = Call(request.method, raw, dict(request.headers.items()), body, origin)
        told: dict[str, str] = {}
        try:
            self.requests[call.method, call.resource.partition("(")[0]] += 1
            self.access.admit(call.headers.get("authorization", ""))
            if call.method == "POST" and call.resource == "$batch":
                found = operations(call, length_needed=self.knobs.length_needed)
                told = self.access.count(len(found))
                unique = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
                status, kind, content = carried_out(call, found, self._calls.answer, unique=unique)
                return Response(content, status, headers={**told, "OData-Version": "4.0"}, media_type=kind)
            told = self.access.count(1)
            reply = self._calls.answer(call)
        except Refusal as refusal:
            return self._response(refusal.status, refusal.body, {**told, **refusal.headers})
        return self._response(reply.status, reply.body, {**told, **reply.headers})

    def _login(self, tenant: str, body: bytes, origin: str) -> Response:
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        try:
            granted = self.access.grant(tenant, form, environment=origin)
        except LoginError as error:
            return Response(orjson.dumps(error.body), error.status, media_type="application/json")
        return Response(orjson.dumps(granted), 200, media_type="application/json")

    @staticmethod
    def _response(status: int, body: Any, headers: Mapping[str, str]) -> Response:
        content = b"" if body is None else orjson.dumps(body)
        kind = None if body is None else _JSON
        return Response(content, status, headers={**headers, "OData-Version": "4.0"}, media_type=kind)


def scope_target(scope: Scope) -> str:
    """Return the path and query of a request as they were sent."""
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path
