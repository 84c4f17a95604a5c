"""The HTTP face of the Salesforce simulator: which resource answers which path, and what the edge refuses.

Facts are from the REST API Developer Guide and Salesforce Help of 2026 where no other source stands beside
them, here and in the modules of the resources.
"""

from __future__ import annotations

from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from syncsvc.sandbox.salesforce_access import Access
from syncsvc.sandbox.salesforce_changes import Changes
from syncsvc.sandbox.salesforce_describe import Describe
from syncsvc.sandbox.salesforce_http import refused
from syncsvc.sandbox.salesforce_jobs import Jobs
from syncsvc.sandbox.salesforce_login import Login
from syncsvc.sandbox.salesforce_org import Org
from syncsvc.sandbox.salesforce_queries import Queries
from syncsvc.sandbox.salesforce_records import Records
from syncsvc.sandbox.salesforce_refusals import ApiError, missing

_MAX_HEAD = 16_384  # bytes of URI and headers together


def build_app(org: Org) -> ASGIApp:
    """Return the application that serves the org."""
    jobs, login = Jobs(org), Login(org)
    access = Access(org, jobs_left=jobs.left)
    changes, describe, queries, records = Changes(org), Describe(org), Queries(org), Records(org)
    row, job = "/sobjects/{sobject}/{record_id}", "/jobs/query/{job_id}"
    routes = [
        login.route("/services/oauth2/token", login.token),
        login.route("/services/Soap/u/{version}", login.soap),
        Route("/services/data", access.versions, methods=["GET"]),
        access.route("GET", "/limits", access.limits),
        access.route("GET", "/query", partial(queries.query, deleted=False)),
        access.route("GET", "/queryAll", partial(queries.query, deleted=True)),
        access.route("GET", "/query/{locator}", queries.more),
        access.route("GET", "/queryAll/{locator}", queries.more),
        access.route("PATCH", "/composite/sobjects", partial(records.collection, create=False)),
        access.route("POST", "/composite/sobjects", partial(records.collection, create=True)),
        access.route("POST", "/jobs/query", jobs.create),
        access.route("GET", job, jobs.show),
        access.route("PATCH", job, jobs.change),
        access.route("DELETE", job, jobs.delete),
        access.route("GET", f"{job}/results", jobs.results),
        access.route("GET", "/sobjects", describe.everything),
        access.route("POST", "/sobjects/{sobject}", records.create),
        access.route("GET", "/sobjects/{sobject}", describe.basic),
        access.route("GET", "/sobjects/{sobject}/describe", describe.full),
        access.route("GET", "/sobjects/{sobject}/updated", changes.updated),
        access.route("GET", "/sobjects/{sobject}/deleted", changes.deleted),
        access.route("GET", row, records.get),
        access.route("PATCH", row, records.update),
        access.route("DELETE", row, records.delete),
    ]
    refusals = {404: _no_resource, 405: _no_method}
    gzip = Middleware(GZipMiddleware, minimum_size=1000, compresslevel=1)
    return _Edge(Starlette(routes=routes, exception_handlers=refusals, middleware=[gzip]))


class _Edge:
    """Refuses heads that are too long, and knows a path with or without its last slash as the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            uri = len(scope["raw_path"]) + len(scope["query_string"])
            head = uri + sum(len(name) + len(value) + 4 for name, value in scope["headers"])
            if head > _MAX_HEAD:
                status, told = (414, "URI Too Long") if uri > _MAX_HEAD else (431, "Header Fields Too Large")
                page = f"<html><head><title>Error {status}</title></head><body>{told}</body></html>"
                await Response(page, status, media_type="text/html")(scope, receive, send)
                return
            scope = {**scope, "path": scope["path"].rstrip("/") or "/"}
        await self._app(scope, receive, send)


async def _no_resource(_: Request, __: Exception) -> Response:
    return refused([missing()])


async def _no_method(request: Request, error: Exception) -> Response:
    allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
    told = f"HTTP Method '{request.method}' not allowed. Allowed are {allowed}"
    return refused([ApiError(405, "METHOD_NOT_ALLOWED", told)])
