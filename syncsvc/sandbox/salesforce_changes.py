"""The replication resources: which rows of an object were updated or deleted in a span of time."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response

from syncsvc.sandbox.salesforce_http import addressed, answer
from syncsvc.sandbox.salesforce_org import Org
from syncsvc.sandbox.salesforce_refusals import ApiError
from syncsvc.sandbox.salesforce_tables import stamp

_KEPT_DAYS = 15  # that deletions are told of at most
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


class Changes:
    """Tells what changed, as far as no uncommitted write could still come before it."""

    def __init__(self, org: Org) -> None:
        """Watch `org`."""
        self._org = org

    def updated(self, request: Request, _: bytes) -> Response:
        """Answer with the ids of rows that changed in a span of time and are there."""
        table, (begin, end) = addressed(self._org, request), self._span(request, days=30)
        low, high = (bisect_left(table.keys, moment) for moment in (begin, end))
        ids = [key[-18:] for key in table.keys[low:high]]
        alive = [key for key in ids if not table.rows[key].get("IsDeleted")]
        return answer({"ids": alive, "latestDateCovered": self._covered(end)})

    def deleted(self, request: Request, _: bytes) -> Response:
        """Answer with the ids of rows that were deleted in a span of time, purged ones included."""
        table, (begin, end) = addressed(self._org, request), self._span(request, days=_KEPT_DAYS)
        knobs, now = self._org.knobs, self._org.clock.now()
        earliest = max(now - timedelta(days=_KEPT_DAYS), self._org.trimmed.get(table.name, _EVER))
        if knobs.refuses_trimmed and table.name in self._org.trimmed and begin < stamp(earliest):
            raise _bad_date("startDate before org's replication log")
        low, high = (bisect_left(table.keys, moment) for moment in (max(begin, stamp(earliest)), end))
        rows = [table.rows[key[-18:]] for key in table.keys[low:high]]
        gone = {row["Id"]: row["SystemModstamp"] for row in rows if row.get("IsDeleted")}
        logged = dict(self._org.purged[table.name])
        if knobs.deletions_name_restored:
            logged |= self._org.restored[table.name]
        gone |= {key: when for key, when in logged.items() if begin <= when < end}
        if len(gone) > knobs.deletions_limit:
            told = f"exceeded {knobs.deletions_limit} ids: narrow the date range"
            raise ApiError(400, "EXCEEDED_ID_LIMIT", told)
        return answer(
            {
                "deletedRecords": [{"id": key, "deletedDate": when} for key, when in sorted(gone.items())],
                "earliestDateAvailable": stamp(earliest),
                "latestDateCovered": self._covered(end),
            }
        )

    def _covered(self, end: str) -> str:
        oldest = self._org.settle()
        return min(end, stamp(self._org.clock.now()), *([stamp(oldest)] if oldest else []))

    def _span(self, request: Request, *, days: int) -> tuple[str, str]:
        try:
            begin, end = (datetime.fromisoformat(request.query_params[name]) for name in ("start", "end"))
            late = end - begin > timedelta(minutes=1)
            recent = begin >= self._org.clock.now() - timedelta(days=days)
        except (KeyError, ValueError, TypeError):
            raise _bad_date("start and end must be times with a zone") from None
        if not late or not recent:
            late_told = "startDate must be more than one minute before endDate"
            raise _bad_date(late_told if recent else "startDate before org's limit")
        return stamp(begin.replace(second=0)), stamp(end.replace(second=0))


def _bad_date(told: str) -> ApiError:
    return ApiError(400, "INVALID_REPLICATION_DATE", told)
