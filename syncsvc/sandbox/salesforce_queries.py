"""The query resources: SOQL asked over HTTP, its result kept, and handed out in pages behind a locator."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from syncsvc.sandbox.salesforce_http import answer, version_path
from syncsvc.sandbox.salesforce_org import Org
from syncsvc.sandbox.salesforce_refusals import ApiError
from syncsvc.sandbox.salesforce_tables import Row, long_id
from syncsvc.sandbox.soql import parse
from syncsvc.sandbox.soql_query import Query


@dataclass(frozen=True, slots=True)
class _Result:
    """The rows of one query, as they were when it ran."""

    query: Query
    rows: Sequence[Row]
    made: datetime


class Queries:
    """Answers queries, and keeps as many of their results as the knobs say."""

    def __init__(self, org: Org) -> None:
        """Query `org`."""
        self._org = org
        self._results: dict[str, _Result] = {}
        self._queries = 0

    def query(self, request: Request, _: bytes, *, deleted: bool) -> Response:
        """Answer with the first page of a query, deleted rows included where asked for."""
        text = request.query_params.get("q")
        if not text:
            raise ApiError(400, "MALFORMED_QUERY", "A query string has to be specified")
        query = parse(text, self._org)
        rows = query.run(deleted=deleted)
        if not query.columns:
            return answer({"totalSize": len(rows), "done": True, "records": []})
        self._queries += 1
        locator = str(long_id(f"0r8Sb0{self._queries:09}"))
        self._results[locator] = _Result(query, rows, self._org.clock.now())
        return self._page(request, locator, 0)

    def more(self, request: Request, _: bytes) -> Response:
        """Answer with a later page."""
        locator, _, offset = request.path_params["locator"].partition("-")
        result = self._results.get(locator)
        oldest = self._org.clock.now() - timedelta(seconds=self._org.knobs.locator_seconds)
        begin = int(offset) if re.fullmatch(r"[0-9]{1,9}", offset) else 0
        if result is None or result.made < oldest or not 0 < begin < len(result.rows):
            raise ApiError(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        return self._page(request, locator, begin)

    def _page(self, request: Request, locator: str, begin: int) -> Response:
        result = self._results.pop(locator)
        query, total = result.query, len(result.rows)
        asked = re.search(r"batchSize=(\d{1,5})", request.headers.get("sforce-query-options", ""))
        size = min(max(200, int(asked[1])) if asked else 2000, 2000, self._org.knobs.page_size)
        base, end = version_path(request), begin + size
        rows: Sequence[Row | None] = result.rows[begin:end]
        if begin and self._org.knobs.live_pages:
            rows = [query.table.rows.get(row["Id"]) for row in result.rows[begin:end]]
        page: dict[str, Any] = {"totalSize": total, "done": end >= total}
        if total > size:
            self._results[locator] = result
            while len(self._results) > self._org.knobs.locator_limit:
                del self._results[next(iter(self._results))]
        if end < total:
            resource = request.url.path.removeprefix(base).split("/")[1]
            page["nextRecordsUrl"] = f"{base}/{resource}/{locator}-{end}"
        page["records"] = [query.render(row, base) for row in rows if row]
        return answer(page)
