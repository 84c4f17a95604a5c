"""Who may use the REST API: sessions, the versions that are served, and the org's limits.

Facts are from the REST API Developer Guide and Salesforce Help of 2026.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncsvc.sandbox.salesforce_http import Handler, answer, refused
from syncsvc.sandbox.salesforce_org import Org
from syncsvc.sandbox.salesforce_refusals import ApiError, missing

DATA = "/services/data/v{version}"
OLDEST = 31  # 7.0 to 30.0 are retired
_NEWEST = 68  # 68.0 is Winter '27


class Access:
    """Admits requests, and counts them."""

    def __init__(self, org: Org, *, jobs_left: Callable[[], int]) -> None:
        """Guard `org`; `jobs_left` is the number of query jobs that may still be made."""
        self._org = org
        self._jobs_left = jobs_left
        self._calls: deque[datetime] = deque()

    def route(self, method: str, path: str, handler: Handler) -> Route:
        """Return the route of a resource below `DATA`, whose handler sees the requests that are admitted."""
        org, template = self._org, DATA + path

        async def endpoint(request: Request) -> Response:
            body = await request.body()
            with org.lock:
                org.settle()
                org.requests[method, template] += 1
                try:
                    self._admit(request)
                    given = handler(request, body)
                except ApiError as error:
                    given = refused([error])
                usage = f"api-usage={self._used()}/{org.knobs.daily_requests}"
                if given.status_code < 400 or org.knobs.usage_on_refusals:
                    given.headers["Sforce-Limit-Info"] = "; ".join(filter(None, (usage, org.knobs.app_usage)))
                return given

        return Route(template, endpoint, methods=[method])

    def _admit(self, request: Request) -> None:
        org, now = self._org, self._org.clock.now()
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme not in {"", "Bearer", "OAuth"}:
            raise ApiError(401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE")
        session = org.sessions.get(token)
        idle = timedelta(seconds=org.knobs.token_seconds)
        spent = (
            session is not None
            and org.knobs.token_calls is not None
            and session.calls >= org.knobs.token_calls
        )
        if org.revoked or session is None or spent or now - session.used > idle:
            org.sessions.pop(token, None)
            raise ApiError(401, "INVALID_SESSION_ID", org.revoked or "Session expired or invalid")
        session.used, session.calls = now, session.calls + 1
        version = request.path_params["version"]
        if not re.fullmatch(r"[1-9]\d?\.0", version) or int(version[:-2]) > _NEWEST:
            raise missing()
        if int(version[:-2]) < OLDEST:
            raise ApiError(410, "UNSUPPORTED_API_VERSION", "The requested API version is retired")
        if self._used() >= org.knobs.daily_requests:
            raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        self._calls.append(now)
        if org.knobs.running_elsewhere >= org.knobs.concurrent_requests:
            told = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
            raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", told)

    def _used(self) -> int:
        """Return how many calls of the last 24 hours count, those of other clients included."""
        begin = self._org.clock.now() - timedelta(hours=24)
        while self._calls and self._calls[0] <= begin:
            self._calls.popleft()
        return len(self._calls) + self._org.knobs.foreign_requests

    async def versions(self, _: Request) -> Response:
        """Answer with the versions that are served, to anyone."""
        seasons = ("Spring", "Summer", "Winter")
        listed = [
            {
                "label": f"{seasons[number % 3]} '{number // 3 + 4 + (number % 3 == 2)}",
                "url": f"/services/data/v{number}.0",
                "version": f"{number}.0",
            }
            for number in range(OLDEST, _NEWEST + 1)
        ]
        return answer(listed)

    def limits(self, _: Request, __: bytes) -> Response:
        """Answer with the org's limits and what is left of them."""
        if not self._org.knobs.may_view_setup:
            raise ApiError(403, "FORBIDDEN", "You don't have permission to view this resource.")
        most = self._org.knobs.daily_requests
        jobs = {"Max": self._org.knobs.daily_query_jobs, "Remaining": max(0, self._jobs_left())}
        left = max(0, most - self._used())
        return answer({"DailyApiRequests": {"Max": most, "Remaining": left}, "DailyBulkV2QueryJobs": jobs})
