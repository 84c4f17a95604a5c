"""The operations of the Dynamics simulator's Web API, each the same alone and inside a batch."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import orjson

from syncsvc.sandbox.dynamics_columns import GUID
from syncsvc.sandbox.dynamics_knobs import DynamicsKnobs
from syncsvc.sandbox.dynamics_metadata import attributes, date_columns, entity, line_columns
from syncsvc.sandbox.dynamics_queries import Asked, Queries, selected, shown
from syncsvc.sandbox.dynamics_refusals import (
    Refusal,
    bad_payload,
    bad_query,
    denied,
    no_resource,
    plugin,
    precondition,
    timed_out,
)
from syncsvc.sandbox.dynamics_table import Row, Table

ROOT = re.compile(r"/api/data/v9\.[0-2]/")
_ONE = re.compile(rf"contacts\(({GUID})\)")
_ENTITY = "EntityDefinitions(LogicalName='contact')"
_USER = "00000000-0000-0000-0000-000000000001"
_LINES = f"{_ENTITY}/Attributes/Microsoft.Dynamics.CRM.StringAttributeMetadata"
_DATES = f"{_ENTITY}/Attributes/Microsoft.Dynamics.CRM.DateTimeAttributeMetadata"

Wrote = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Call:
    """One request: method, target (path and query), headers by lower-case name, and the body."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    origin: str = ""

    @property
    def resource(self) -> str:
        """What is asked for, below the API's root; raises the 404 for a path outside of it."""
        path = unquote(urlsplit(self.target).path)
        root = ROOT.match(path)
        if root is None:
            raise no_resource(path)
        return path[root.end() :]

    @property
    def root(self) -> str:
        """The address of the API's root, without its last slash."""
        root = ROOT.match(urlsplit(self.target).path)
        return f"{self.origin}{root[0].rstrip('/') if root else ''}"

    @property
    def options(self) -> dict[str, str]:
        """The query options by name."""
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @property
    def preferences(self) -> dict[str, str]:
        """The preferences by name, with their values ("" where one has none)."""
        named = (one.strip().partition("=") for one in self.headers.get("prefer", "").split(","))
        return {name.strip().lower(): value.strip().strip('"') for name, _, value in named if name}

    def json(self) -> dict[str, Any]:
        """Return the body's object; raises a 400 where it is none, a 415 where it is not declared as JSON."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal(415, "0x80060890", "The content type is not supported: use application/json.")
        try:
            content = orjson.loads(self.body)
        except ValueError:
            raise bad_payload("The body is not JSON.") from None
        if not isinstance(content, dict):
            raise bad_payload("The body is not an object.")
        return content


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its status, the JSON of its body (None = no body), and headers to add."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Calls:
    """Carries out single operations; a batch hands its parts to it too."""

    def __init__(self, table: Table, queries: Queries, *, knobs: DynamicsKnobs, wrote: Wrote) -> None:
        """Serve `table`; `wrote` is told what every write of a contact gave it."""
        self._table = table
        self._queries = queries
        self._knobs = knobs
        self._wrote = wrote
        self._resources: dict[tuple[str, str], Callable[[Call], Reply]] = {
            ("GET", "contacts"): self._read,
            ("POST", "contacts"): self._create,
            ("POST", "Merge"): self._merge,
            ("GET", "WhoAmI"): lambda _: Reply(200, {"UserId": _USER}),
            ("GET", _ENTITY): self._entity,
            ("GET", f"{_ENTITY}/Attributes"): lambda call: _listed(attributes(table, call.options)),
            ("GET", _DATES): lambda call: _listed(date_columns(table, call.options)),
            ("GET", _LINES): lambda call: _listed(line_columns(table, call.options)),
        }

    def answer(self, call: Call) -> Reply:
        """Return the answer to one operation; raises a Refusal for what the server does not do."""
        for header in ("odata-version", "odata-maxversion"):
            if call.headers.get(header, "4.0") != "4.0":
                raise bad_query(f"The {header} is not supported.")
        resource = call.resource
        one = _ONE.fullmatch(resource.lower())
        if one:
            return self._one(call, one[1])
        serve = self._resources.get((call.method, resource))
        if serve is not None:
            return serve(call)
        if resource in {known for _, known in self._resources}:
            raise Refusal(405, "0x8006088b", f"The method {call.method} is not allowed on {resource}.")
        raise no_resource(resource)

    def _read(self, call: Call) -> Reply:
        self._may_read()
        asked = Asked(f"{call.root}/contacts", call.options, call.preferences)
        document, headers = self._queries.read(asked)
        if not document and self._knobs.idle_answer == "none":
            return Reply(204, None, headers)
        return Reply(200, document, headers)

    def _entity(self, call: Call) -> Reply:
        return Reply(200, entity(self._table, call.options, tracking=self._knobs.tracking))

    def _one(self, call: Call, record_id: str) -> Reply:
        match call.method:
            case "GET":
                self._may_read()
                columns = selected(self._table, call.options.get("$select"))
                return Reply(200, shown(self._table.needed(record_id), columns))
            case "PATCH":
                return self._update(call, record_id)
            case "DELETE":
                self._table.delete(self._table.needed(record_id))
                return Reply(204)
        raise Refusal(405, "0x8006088b", f"The method {call.method} is not allowed on a contact.")

    def _create(self, call: Call, record_id: str = "") -> Reply:
        content = call.json()
        values = self._table.checked(content)
        row = self._table.create(values, record_id=record_id)
        self._wrote(row.id, content)
        return self._written(call, row, created=True)

    def _update(self, call: Call, record_id: str) -> Reply:
        condition = call.headers.get("if-match")
        row = self._table.find(record_id)
        if row is None:
            # Without a condition an update of what is not there creates it (Conditional operations, 2022-04).
            if condition is not None:
                self._table.needed(record_id)
            return self._create(call, record_id)
        if call.headers.get("if-none-match") == "*":
            raise precondition("A record with matching key values already exists.")
        if condition not in {None, "*", f'W/"{row.version}"'}:
            raise precondition(
                "The version of the existing record doesn't match the RowVersion property provided."
            )
        content = call.json()
        values = self._table.checked(content)
        if record_id in self._knobs.forbidden:
            raise denied("prvWriteContact")
        if record_id in self._knobs.locked:
            raise timed_out()
        if record_id in self._knobs.refused:
            raise plugin(self._knobs.refused[record_id])
        if row.merged and not self._knobs.merged_writable:
            raise plugin("The contact was merged and cannot be changed.")
        self._table.update(row, values)
        self._wrote(record_id, content)
        return self._written(call, self._table.needed(record_id), created=False)

    def _written(self, call: Call, row: Row, *, created: bool) -> Reply:
        headers = {} if not created else {"OData-EntityId": f"{call.root}/contacts({row.id})"}
        if call.preferences.get("return") != "representation":
            return Reply(204, None, headers)
        columns = selected(self._table, call.options.get("$select"))
        applied = {"Preference-Applied": "return=representation"}
        return Reply(201 if created else 200, shown(row, columns), headers | applied)

    def _merge(self, call: Call) -> Reply:
        body = call.json()
        target, subordinate = self._named(body, "Target"), self._named(body, "Subordinate")
        if not isinstance(body.get("PerformParentingChecks"), bool):
            raise bad_payload("PerformParentingChecks is missing.")
        content = dict(body.get("UpdateContent") or {})
        content.pop("@odata.type", None)
        self._table.merge(target, subordinate, self._table.checked(content))
        return Reply(204)

    def _named(self, body: Mapping[str, Any], name: str) -> Row:
        named = body.get(name)
        if not isinstance(named, dict) or named.get("@odata.type") != "Microsoft.Dynamics.CRM.contact":
            raise bad_payload(f"{name} needs an @odata.type of a table that can be merged.")
        return self._table.needed(str(named.get("contactid")).lower())

    def _may_read(self) -> None:
        if not self._knobs.may_read:
            raise denied("prvReadContact")


def _listed(rows: list[dict[str, Any]]) -> Reply:
    return Reply(200, {"value": rows})
