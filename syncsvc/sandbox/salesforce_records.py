"""The record resources: one row of an object, and collections of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from itertools import groupby
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from syncsvc.sandbox.salesforce_http import (
    MAX_RECORDS,
    addressed,
    answer,
    as_object,
    read_object,
    refused,
    version_path,
)
from syncsvc.sandbox.salesforce_org import Org, Write
from syncsvc.sandbox.salesforce_refusals import ApiError, malformed, missing, unsupported_object
from syncsvc.sandbox.salesforce_saves import Item, Outcome, Saves
from syncsvc.sandbox.salesforce_tables import Row, Table, long_id, stamp
from syncsvc.sandbox.soql import parse

_MAX_CHUNKS = 10


class Records:
    """Reads and writes rows; what is written is noted in the org's `writes`, with its results."""

    def __init__(self, org: Org) -> None:
        """Serve the rows of `org`."""
        self._org = org
        self._saves = Saves(org)

    def get(self, request: Request, _: bytes) -> Response:
        """Answer with a row, or with those of its fields that were asked for."""
        table = addressed(self._org, request)
        row = self._row(table, request)
        if row.get("IsDeleted"):
            raise missing()
        names = request.query_params.get("fields")
        wanted = ",".join(kind.name for kind in self._org.visible(table)) if names is None else names
        query = parse(f"SELECT {wanted} FROM {table.name}", self._org)
        return answer(query.render(row, version_path(request)))

    def _row(self, table: Table, request: Request) -> Row:
        row = table.rows.get(long_id(request.path_params["record_id"]) or "")
        if row is None:
            raise missing()
        return row

    def create(self, request: Request, body: bytes) -> Response:
        """Create a row."""
        result = self._save_one(request, addressed(self._org, request), None, read_object(request, body))
        if isinstance(result, list):
            return refused(result)
        return answer({"id": result, "success": True, "errors": []}, 201)

    def update(self, request: Request, body: bytes) -> Response:
        """Change a row, unless it was modified since the time that was given."""
        table, fields = addressed(self._org, request), read_object(request, body)
        row = self._row(table, request)
        if "Id" in fields or "id" in fields:
            raise ApiError(400, "INVALID_FIELD", "The Id field should not be specified in the sobject data.")
        if (since := request.headers.get("if-unmodified-since")) is not None:
            try:
                limit = parsedate_to_datetime(since)
            except ValueError:
                raise ApiError(400, "INVALID_REQUEST", "invalid If-Unmodified-Since header") from None
            if row["LastModifiedDate"] > stamp(limit if limit.tzinfo else limit.replace(tzinfo=UTC)):
                raise ApiError(412, "PRECONDITION_FAILED", "the record was modified since")
        result = self._save_one(request, table, row["Id"], fields)
        return refused(result) if isinstance(result, list) else Response(status_code=204)

    def delete(self, request: Request, _: bytes) -> Response:
        """Put a row into the recycle bin."""
        table = addressed(self._org, request)
        row = self._saves.locate(table, self._row(table, request)["Id"])
        self._org.bump(table.name, row["Id"], {"IsDeleted": True}, visible_after=0)
        self._log(request, [(table, row["Id"], {})], [row["Id"]])
        return Response(status_code=204)

    def collection(self, request: Request, body: bytes, *, create: bool) -> Response:
        """Create or change many rows, and answer with a result for each."""
        content = read_object(request, body)
        records = content.get("records")
        if not isinstance(records, list) or not isinstance(content.get("allOrNone", False), bool):
            raise malformed("records")
        if len(records) > MAX_RECORDS:
            told = f"record limit reached. cannot submit more than {MAX_RECORDS} records into this call"
            raise ApiError(400, "EXCEEDED_ID_LIMIT", told)
        items = [self._named(as_object(record)) for record in records]
        if len(list(groupby(table.name for table, _, _ in items))) > _MAX_CHUNKS:
            told = f"Cannot have more than {_MAX_CHUNKS} chunks in a single operation."
            raise ApiError(400, "LIMIT_EXCEEDED", f"{told} Please rearrange the data to reduce chunking.")
        results = self._save(request, items, create=create, all_or_none=content.get("allOrNone", False))
        return answer(self._log(request, items, results))

    def _named(self, record: Mapping[str, Any]) -> Item:
        attributes = record.get("attributes")
        name = attributes.get("type") if isinstance(attributes, dict) else None
        table = self._org.table(name) if isinstance(name, str) else None
        if table is None:
            raise ApiError(400, "INVALID_TYPE", unsupported_object(str(name)))
        fields = {key: value for key, value in record.items() if key not in {"attributes", "id", "Id"}}
        return table, record.get("id", record.get("Id")), fields

    def _save_one(
        self, request: Request, table: Table, record_id: str | None, content: Mapping[str, Any]
    ) -> Outcome:
        fields = {name: value for name, value in content.items() if name != "attributes"}
        items = [(table, record_id, fields)]
        results = self._save(request, items, create=record_id is None, all_or_none=False)
        self._log(request, items, results)
        return results[0]

    def _save(
        self, request: Request, items: Sequence[Item], *, create: bool, all_or_none: bool
    ) -> list[Outcome]:
        headers = request.headers
        allow = re.search(r"\ballowSave=true\b", headers.get("sforce-duplicate-rule-header", ""))
        assign = headers.get("sforce-auto-assign", "TRUE").upper() != "FALSE"
        return self._saves.save(
            items, create=create, all_or_none=all_or_none, allow_duplicates=allow is not None, assign=assign
        )

    def _log(
        self, request: Request, items: Sequence[Item], results: Sequence[Outcome]
    ) -> list[dict[str, Any]]:
        answers: list[dict[str, Any]] = []
        for (_, record_id, _), result in zip(items, results, strict=True):
            if isinstance(result, str):
                answers.append({"id": result, "success": True, "errors": []})
                continue
            errors = [
                {"statusCode": error.code, "message": error.message, "fields": list(error.fields or ())}
                for error in result
            ]
            named = {"id": record_id} if record_id and self._org.knobs.failed_items_name_id else {}
            answers.append({**named, "success": False, "errors": errors})
        written = tuple({"type": table.name, "id": key, **fields} for table, key, fields in items)
        kept = {name: value for name, value in request.headers.items() if name.startswith(("sforce-", "if-"))}
        route = request.scope["route"].path
        self._org.writes.append(Write(request.method, route, written, kept, tuple(answers)))
        return answers
