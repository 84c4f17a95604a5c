"""Bulk API 2.0 query jobs: a query is taken in, carried out in a while, and its results handed out as CSV.

Facts are from the Bulk API 2.0 guide of 2026: states, limits, what a query may not hold, header row on every
page. The codes of refusals are documented nowhere; they stand in `_undocumented`.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from syncsvc.sandbox.salesforce_http import answer, read_object
from syncsvc.sandbox.salesforce_org import Org
from syncsvc.sandbox.salesforce_refusals import ApiError, malformed, missing
from syncsvc.sandbox.salesforce_tables import Row, long_id, stamp
from syncsvc.sandbox.soql import parse
from syncsvc.sandbox.soql_query import Path, Query

_OLDEST = 47  # the first version with query jobs
_DELIMITERS = {"COMMA": ",", "TAB": "\t", "SEMICOLON": ";", "PIPE": "|", "CARET": "^", "BACKQUOTE": "`"}
_ENDINGS = {"LF": "\n", "CRLF": "\r\n"}
_KEYS = frozenset({"operation", "query", "contentType", "columnDelimiter", "lineEnding"})


@dataclass(slots=True)
class Job:
    """One query job: what was asked, and the rows that were there when it was."""

    id: str
    query: Query
    operation: str
    delimiter: str
    ending: str
    version: str
    created: datetime
    rows: Sequence[Row] = field(repr=False)
    aborted: bool = False


class Jobs:
    """Carries out query jobs, and keeps their results as long as the knobs say."""

    def __init__(self, org: Org) -> None:
        """Query `org`."""
        self._org = org
        self._jobs: dict[str, Job] = org.jobs
        self._made = 0

    def create(self, request: Request, body: bytes) -> Response:
        """Take in a job."""
        _refuse_version(request)
        content = read_object(request, body)
        if unknown := sorted(content.keys() - _KEYS):
            raise malformed(f"Unrecognized field {unknown[0]}")
        if not self._org.knobs.bulk_api:
            raise _undocumented("FEATURENOTENABLED", "Bulk API is not enabled for this org or user")
        operation, text = content.get("operation"), content.get("query")
        delimiter, ending = content.get("columnDelimiter", "COMMA"), content.get("lineEnding", "LF")
        known = delimiter in _DELIMITERS and ending in _ENDINGS and content.get("contentType", "CSV") == "CSV"
        if operation not in {"query", "queryAll"} or not isinstance(text, str) or not known:
            raise malformed("operation, query, contentType, columnDelimiter or lineEnding")
        query = parse(text, self._org)
        self._refuse(query)
        if self.left() <= 0:
            told = f"Max bulk v2 query jobs ({self._org.knobs.daily_query_jobs}) per 24 hrs has been reached"
            raise _undocumented("API_ERROR", told)
        self._made += 1
        job = Job(
            id=str(long_id(f"750Sb0{self._made:09}")),
            query=query,
            operation=operation,
            delimiter=delimiter,
            ending=ending,
            version=request.path_params["version"],
            created=self._org.clock.now(),
            rows=query.run(deleted=operation == "queryAll")[::-1],  # chunks end in any order
        )
        self._jobs[job.id] = job
        return answer(self._told(job, "UploadComplete"))

    def _refuse(self, query: Query) -> None:
        if not query.columns:
            raise _undocumented("API_ERROR", "Aggregate Queries not supported in Bulk Query")
        if query.order or query.limit is not None:
            raise _undocumented("API_ERROR", "ORDER BY and LIMIT are not supported in Bulk Query")
        if any(path.field.type in {"address", "location"} for path in query.columns):
            raise _undocumented("API_ERROR", "Selecting compound data not supported in Bulk Query")

    def left(self) -> int:
        """Return how many jobs may still be made of those that 24 hours allow."""
        since = self._org.clock.now() - timedelta(hours=24)
        made = sum(job.created > since for job in self._jobs.values())
        return self._org.knobs.daily_query_jobs - made - self._org.knobs.foreign_query_jobs

    def show(self, request: Request, _: bytes) -> Response:
        """Answer with a job and its state."""
        job = self._job(request)
        state = self._state(job)
        processed = len(job.rows) if state == "JobComplete" else 0
        more: dict[str, Any] = {"jobType": "V2Query", "numberRecordsProcessed": processed, "retries": 0}
        if state == "Failed":
            more["errorMessage"] = self._org.knobs.job_failure
        return answer({**self._told(job, state), **more, "totalProcessingTime": 100})

    def results(self, request: Request, _: bytes) -> Response:
        """Answer with a page of results, its header row first, and where the next one begins."""
        job = self._job(request)
        if self._state(job) != "JobComplete":
            raise _undocumented("INVALIDJOBSTATE", "the job is not complete")
        begin, most = 0, self._org.knobs.job_page
        if "locator" in request.query_params:
            begin = _offset(request.query_params["locator"])
            if not 0 < begin < len(job.rows):
                raise _undocumented("INVALID_QUERY_LOCATOR", "invalid query locator")
        if (asked := request.query_params.get("maxRecords")) is not None:
            if not re.fullmatch(r"[1-9][0-9]{0,9}", asked):
                raise _undocumented("INVALID_PARAMETER", "maxRecords")
            most = min(most, int(asked))
        rows = job.rows[begin : begin + most]
        end = begin + len(rows)
        locator = base64.urlsafe_b64encode(str(end).encode()).decode() if end < len(job.rows) else "null"
        headers = {"Sforce-NumberOfRecords": str(len(rows)), "Sforce-Locator": locator}
        return Response(_csv(job, rows), media_type="text/csv", headers=headers)

    def change(self, request: Request, body: bytes) -> Response:
        """Abort a job, the only change there is."""
        job, content = self._job(request), read_object(request, body)
        if content != {"state": "Aborted"}:
            raise malformed("state")
        if self._state(job) not in {"UploadComplete", "InProgress"}:
            raise _undocumented("INVALIDJOBSTATE", "the job has ended")
        job.aborted = True
        return answer(self._told(job, "Aborted"))

    def delete(self, request: Request, _: bytes) -> Response:
        """Throw away a job that has ended, with its results."""
        job = self._job(request)
        if self._state(job) in {"UploadComplete", "InProgress"}:
            raise _undocumented("INVALIDJOBSTATE", "the job has not ended")
        del self._jobs[job.id]
        return Response(status_code=204)

    def _job(self, request: Request) -> Job:
        _refuse_version(request)
        job = self._jobs.get(long_id(request.path_params["job_id"]) or "")
        oldest = self._org.clock.now() - timedelta(seconds=self._org.knobs.job_results_seconds)
        if job is None or job.created < oldest:
            raise missing()
        return job

    def _state(self, job: Job) -> str:
        if job.aborted:
            return "Aborted"
        age = (self._org.clock.now() - job.created).total_seconds()
        if age < self._org.knobs.job_seconds:
            return "InProgress" if age > self._org.knobs.job_seconds / 2 else "UploadComplete"
        return "Failed" if self._org.knobs.job_failure else "JobComplete"

    def _told(self, job: Job, state: str) -> dict[str, Any]:
        return {
            "id": job.id,
            "operation": job.operation,
            "object": job.query.table.name,
            "createdById": self._org.user_id,
            "createdDate": stamp(job.created),
            "systemModstamp": stamp(job.created),
            "state": state,
            "concurrencyMode": "Parallel",
            "contentType": "CSV",
            "apiVersion": float(job.version),
            "lineEnding": job.ending,
            "columnDelimiter": job.delimiter,
        }


def _undocumented(code: str, message: str) -> ApiError:
    return ApiError(400, code, message)


def _refuse_version(request: Request) -> None:
    if float(request.path_params["version"]) < _OLDEST:
        raise missing()


def _offset(locator: str) -> int:
    try:
        return int(base64.urlsafe_b64decode(locator))
    except ValueError:
        return 0


def _csv(job: Job, rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    columns = job.query.columns
    writer = csv.writer(
        text,
        delimiter=_DELIMITERS[job.delimiter],
        lineterminator=_ENDINGS[job.ending],
        quoting=csv.QUOTE_ALL,
    )
    writer.writerow(path.name for path in columns)
    writer.writerows([_cell(path, row) for path in columns] for row in rows)
    return text.getvalue()


def _cell(path: Path, row: Row) -> str:
    value = path.read(row)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if path.field.type == "datetime":
        return str(value).replace("+0000", "Z")
    return str(value)
