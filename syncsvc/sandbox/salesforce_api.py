"""The doors of the Salesforce simulator: tokens, SOAP login, and the REST resources that a sync uses.

Facts are from the REST API Developer Guide and Salesforce Help of 2026 where no other source stands beside
them. Whatever an org is told here it decides in `salesforce`; nothing is kept here but query results.
"""

from __future__ import annotations

import base64
import binascii
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import jwt
import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from syncsvc.sandbox.soql import ApiError, Field, Query, Row, Table, long_id, parse, stamp, unsupported_object

if TYPE_CHECKING:
    from syncsvc.sandbox.salesforce import SalesforceSimulator

_OLDEST, _NEWEST = 31, 68  # 7.0 to 30.0 are retired; 68.0 is Winter '27
_LAST_SOAP_LOGIN = 64  # login() is gone from 65.0 on (Salesforce Help 005132110, 2026-04-30)
_LOGIN_HOSTS = ("login.salesforce.com", "test.salesforce.com")
_MAX_HEAD = 16_384  # bytes of URI and headers together
_MAX_RECORDS = 200
_MAX_CHUNKS = 10
_JWT_SECONDS = 300
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_DATA = "/services/data/v{version}"
_MISSING = ApiError(404, "NOT_FOUND", "The requested resource does not exist")

Handler = Callable[[Request, bytes], Response]
Item = tuple[Table, object, Mapping[str, Any]]  # the object, the id that was given, and the fields to write
Outcome = str | list[ApiError]  # the record's id, or what refused it


@dataclass(slots=True)
class Session:
    """A token that was granted: when it was last used, and how often."""

    used: datetime
    calls: int = 0


@dataclass(frozen=True, slots=True)
class _Result:
    """The rows of one query, as they were when it ran."""

    query: Query
    rows: Sequence[Row]
    made: datetime


class _OAuthError(Exception):
    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.body = {"error": error, "error_description": description}


def build_app(org: SalesforceSimulator) -> ASGIApp:
    """Return the application that serves the org."""
    rest = _Rest(org)
    login = _Login(org)
    row = _DATA + "/sobjects/{sobject}/{record_id}"
    routes = [
        login.route("/services/oauth2/token", login.token),
        login.route("/services/Soap/u/{version}", login.soap),
        Route("/services/data", rest.versions, methods=["GET"]),
        rest.route("GET", "/limits", rest.limits),
        rest.route("GET", "/query", partial(rest.query, deleted=False)),
        rest.route("GET", "/queryAll", partial(rest.query, deleted=True)),
        rest.route("GET", "/query/{locator}", rest.more),
        rest.route("GET", "/queryAll/{locator}", rest.more),
        rest.route("PATCH", "/composite/sobjects", partial(rest.collection, create=False)),
        rest.route("POST", "/composite/sobjects", partial(rest.collection, create=True)),
        rest.route("GET", "/sobjects", rest.describe_global),
        rest.route("POST", "/sobjects/{sobject}", rest.create),
        rest.route("GET", "/sobjects/{sobject}", rest.basic),
        rest.route("GET", "/sobjects/{sobject}/describe", rest.describe),
        rest.route("GET", "/sobjects/{sobject}/updated", rest.updated),
        rest.route("GET", "/sobjects/{sobject}/deleted", rest.deleted),
        rest.route("GET", row.removeprefix(_DATA), rest.get),
        rest.route("PATCH", row.removeprefix(_DATA), rest.update),
        rest.route("DELETE", row.removeprefix(_DATA), rest.delete),
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


def _json(content: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json;charset=UTF-8")


def _refused(errors: Sequence[ApiError]) -> Response:
    body = []
    for error in errors:
        fields = {} if error.fields is None else {"fields": list(error.fields)}
        body.append({"message": error.message, "errorCode": error.code, **fields})
    return _json(body, errors[0].status)


async def _no_resource(_: Request, __: Exception) -> Response:
    return _refused([_MISSING])


async def _no_method(request: Request, error: Exception) -> Response:
    allowed = (error.headers or {}).get("Allow", "") if isinstance(error, HTTPException) else ""
    told = f"HTTP Method '{request.method}' not allowed. Allowed are {allowed}"
    return _refused([ApiError(405, "METHOD_NOT_ALLOWED", told)])


def _instance(org: SalesforceSimulator, request: Request) -> str:
    return org.instance_url.rstrip("/") or f"{request.url.scheme}://{request.headers['host']}"


class _Login:
    """Grants tokens."""

    def __init__(self, org: SalesforceSimulator) -> None:
        self._org = org
        self._logins: deque[datetime] = deque()

    def route(self, path: str, handler: Handler) -> Route:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            with self._org.lock:
                self._org.requests[request.method, path] += 1
                return handler(request, body)

        return Route(path, endpoint, methods=["POST"])

    def token(self, request: Request, body: bytes) -> Response:
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        try:
            self._check_grant(request, form)
        except _OAuthError as error:
            return _json(error.body, 400)
        instance = _instance(self._org, request)
        answer = {
            "access_token": self._grant(),
            "signature": base64.b64encode(self._org.random.randbytes(32)).decode(),
            "scope": "api",
            "instance_url": instance,
            "id": f"{instance}/id/{self._org.org_id}/{self._org.user_id}",
            "token_type": "Bearer",
            "issued_at": str(int(self._org.clock.now().timestamp() * 1000)),
        }
        return _json(answer)

    def _check_grant(self, request: Request, form: Mapping[str, str]) -> None:
        if self._org.knobs.grant_error:
            raise _OAuthError(*self._org.knobs.grant_error)
        match form.get("grant_type"):
            case "client_credentials":
                if request.headers["host"].partition(":")[0] in _LOGIN_HOSTS:
                    raise _OAuthError("invalid_grant", "request not supported on this domain")
                self._check_client(request, form)
            case "password":
                self._check_client(request, form)
                self._check_password(form)
            case grant if grant == _JWT_GRANT:
                self._check_assertion(request, form)
            case _:
                raise _OAuthError("unsupported_grant_type", "grant type not supported")
        if not self._within_rate():
            raise _OAuthError("invalid_grant", "login rate exceeded")

    def _within_rate(self) -> bool:
        now = self._org.clock.now()
        while self._logins and self._logins[0] <= now - timedelta(hours=1):
            self._logins.popleft()
        if len(self._logins) >= self._org.knobs.login_limit:
            return False
        self._logins.append(now)
        return True

    def _grant(self) -> str:
        token = f"{self._org.org_id[:15]}!{self._org.random.randbytes(24).hex()}"
        self._org.sessions[token] = Session(self._org.clock.now())
        return token

    def _check_client(self, request: Request, form: Mapping[str, str]) -> None:
        scheme, _, basic = request.headers.get("authorization", "").partition(" ")
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        if scheme.lower() == "basic":
            try:
                client_id, _, secret = base64.b64decode(basic, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                client_id = ""
        if client_id != self._org.client_id:
            raise _OAuthError("invalid_client_id", "client identifier invalid")
        if secret != self._org.client_secret:
            raise _OAuthError("invalid_client", "invalid client credentials")

    def _check_password(self, form: Mapping[str, str]) -> None:
        org = self._org
        given = (form.get("username"), form.get("password"))
        if not org.knobs.password_grant or given != (org.username, org.password + org.security_token):
            raise _OAuthError("invalid_grant", "authentication failure")

    def _check_assertion(self, request: Request, form: Mapping[str, str]) -> None:
        audiences = [*(f"https://{host}" for host in _LOGIN_HOSTS), _instance(self._org, request)]
        audiences.append(f"https://{request.headers['host']}")
        # The org's clock may stand elsewhere than this machine's, so times are checked against it below.
        options: Any = {"require": ["iss", "sub", "aud", "exp"]}
        options |= {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
        try:
            claims = jwt.decode(
                form.get("assertion", ""),
                self._org.public_key,
                algorithms=["RS256"],
                audience=audiences,
                options=options,
            )
            left = float(claims["exp"]) - self._org.clock.now().timestamp()
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _OAuthError("invalid_grant", "invalid assertion") from None
        if claims["iss"] != self._org.client_id:
            raise _OAuthError("invalid_client_id", "client identifier invalid")
        if not 0 < left <= _JWT_SECONDS:
            raise _OAuthError("invalid_grant", "invalid assertion")
        if claims["sub"] != self._org.username or not self._org.knobs.approved:
            raise _OAuthError("invalid_grant", "user hasn't approved this consumer")

    def soap(self, request: Request, body: bytes) -> Response:
        version = request.path_params["version"]
        major = int(version[:-2]) if re.fullmatch(r"\d{1,3}\.0", version) else 0
        if not _OLDEST <= major <= _LAST_SOAP_LOGIN:
            return _fault("UNSUPPORTED_API_VERSION", "Invalid Api version specified on URL")
        if not self._org.knobs.soap_login:
            return _fault("INVALID_OPERATION", "SOAP API login() is disabled by default in this org.")
        try:
            tree = ET.fromstring(body)  # noqa: S314 - loopback only, and expat bounds the growth of entities
        except ET.ParseError:
            return _fault("INVALID_SOAP_HEADER", "the envelope is not well-formed")
        namespace = "{urn:partner.soap.sforce.com}"
        given = [tree.findtext(f".//{namespace}login/{namespace}{name}") for name in ("username", "password")]
        org = self._org
        if given != [org.username, org.password + org.security_token]:
            told = "Invalid username, password, security token; or user locked out."
            return _fault("INVALID_LOGIN", told)
        if not self._within_rate():
            return _fault("LOGIN_RATE_EXCEEDED", "login rate exceeded")
        server = f"{_instance(org, request)}/services/Soap/u/{version}/{org.org_id[:15]}"
        return _envelope(
            '<loginResponse xmlns="urn:partner.soap.sforce.com"><result>'
            f"<metadataServerUrl>{server.replace('/u/', '/m/')}</metadataServerUrl>"
            f"<passwordExpired>false</passwordExpired><sandbox>false</sandbox><serverUrl>{server}</serverUrl>"
            f"<sessionId>{self._grant()}</sessionId><userId>{org.user_id}</userId>"
            f"<userInfo><organizationId>{org.org_id}</organizationId>"
            f"<sessionSecondsValid>{org.knobs.token_seconds:.0f}</sessionSecondsValid></userInfo>"
            "</result></loginResponse>",
            200,
        )


def _envelope(body: str, status: int) -> Response:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope'
        ' xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns:sf="urn:fault.partner.soap.sforce.com"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
    )
    return Response(text, status, media_type="text/xml;charset=utf-8")


def _fault(code: str, message: str) -> Response:
    told = escape(message)
    return _envelope(
        f"<soapenv:Fault><faultcode>sf:{code}</faultcode><faultstring>{code}: {told}</faultstring>"
        '<detail><sf:LoginFault xsi:type="sf:LoginFault">'
        f"<sf:exceptionCode>{code}</sf:exceptionCode><sf:exceptionMessage>{told}</sf:exceptionMessage>"
        "</sf:LoginFault></detail></soapenv:Fault>",
        500,
    )


class _Rest:
    """The REST resources, each within a session and the org's limits."""

    def __init__(self, org: SalesforceSimulator) -> None:
        self._org = org
        self._used = 0
        self._results: dict[str, _Result] = {}
        self._queries = 0

    def route(self, method: str, path: str, handler: Handler) -> Route:
        org, template = self._org, _DATA + path

        async def endpoint(request: Request) -> Response:
            body = await request.body()
            with org.lock:
                org.settle()
                org.requests[method, template] += 1
                try:
                    self._admit(request)
                    answer = handler(request, body)
                except ApiError as error:
                    answer = _refused([error])
                usage = f"api-usage={self._used}/{org.knobs.daily_requests}"
                answer.headers["Sforce-Limit-Info"] = "; ".join(filter(None, (usage, org.knobs.app_usage)))
                return answer

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
            raise _MISSING
        if int(version[:-2]) < _OLDEST:
            raise ApiError(410, "UNSUPPORTED_API_VERSION", "The requested API version is retired")
        if self._used >= org.knobs.daily_requests:
            raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        self._used += 1
        if org.knobs.running_elsewhere >= org.knobs.concurrent_requests:
            told = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
            raise ApiError(403, "REQUEST_LIMIT_EXCEEDED", told)

    async def versions(self, _: Request) -> Response:
        seasons = ("Spring", "Summer", "Winter")
        listed = [
            {
                "label": f"{seasons[number % 3]} '{number // 3 + 4 + (number % 3 == 2)}",
                "url": f"/services/data/v{number}.0",
                "version": f"{number}.0",
            }
            for number in range(_OLDEST, _NEWEST + 1)
        ]
        return _json(listed)

    def limits(self, _: Request, __: bytes) -> Response:
        if not self._org.knobs.may_view_setup:
            raise ApiError(403, "FORBIDDEN", "You don't have permission to view this resource.")
        most = self._org.knobs.daily_requests
        jobs = {"Max": 10_000, "Remaining": 10_000}
        return _json(
            {"DailyApiRequests": {"Max": most, "Remaining": most - self._used}, "DailyBulkV2QueryJobs": jobs}
        )

    def query(self, request: Request, _: bytes, *, deleted: bool) -> Response:
        text = request.query_params.get("q")
        if not text:
            raise ApiError(400, "MALFORMED_QUERY", "A query string has to be specified")
        query = parse(text, self._org)
        rows = query.run(deleted=deleted)
        if not query.columns:
            return _json({"totalSize": len(rows), "done": True, "records": []})
        self._queries += 1
        locator = str(long_id(f"0r8Sb0{self._queries:09}"))
        self._results[locator] = _Result(query, rows, self._org.clock.now())
        return self._page(request, locator, 0)

    def more(self, request: Request, _: bytes) -> Response:
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
        base, end = f"/services/data/v{request.path_params['version']}", begin + size
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
        return _json(page)

    def _table(self, request: Request) -> Table:
        table = self._org.table(request.path_params["sobject"])
        if table is None:
            raise _MISSING
        return table

    def _fields(self, table: Table) -> list[Field]:
        return [kind for kind in table.fields.values() if self._org.field(table, kind.name)]

    def _summary(self, table: Table) -> dict[str, Any]:
        verbs = "createable deletable queryable replicateable retrieveable searchable undeletable updateable"
        able = dict.fromkeys(verbs.split(), True)
        return {"name": table.name, "label": table.name, "keyPrefix": table.prefix, "custom": False, **able}

    def describe_global(self, _: Request, __: bytes) -> Response:
        listed = [self._summary(table) for table in self._org.tables]
        return _json({"encoding": "UTF-8", "maxBatchSize": _MAX_RECORDS, "sobjects": listed})

    def basic(self, request: Request, _: bytes) -> Response:
        return _json({"objectDescribe": self._summary(self._table(request)), "recentItems": []})

    def describe(self, request: Request, _: bytes) -> Response:
        table = self._table(request)
        fields = [_describe(kind, writable=self._org.writable(table, kind)) for kind in self._fields(table)]
        return _json(
            {**self._summary(table), "fields": fields, "childRelationships": [], "recordTypeInfos": []}
        )

    def get(self, request: Request, _: bytes) -> Response:
        table = self._table(request)
        row = self._row(table, request)
        if row.get("IsDeleted"):
            raise _MISSING
        names = request.query_params.get("fields")
        wanted = ",".join(kind.name for kind in self._fields(table)) if names is None else names
        query = parse(f"SELECT {wanted} FROM {table.name}", self._org)
        return _json(query.render(row, f"/services/data/v{request.path_params['version']}"))

    def _row(self, table: Table, request: Request) -> Row:
        row = table.rows.get(long_id(request.path_params["record_id"]) or "")
        if row is None:
            raise _MISSING
        return row

    def create(self, request: Request, body: bytes) -> Response:
        result = self._save_one(request, self._table(request), None, _object(_read(request, body)))
        if isinstance(result, list):
            return _refused(result)
        return _json({"id": result, "success": True, "errors": []}, 201)

    def update(self, request: Request, body: bytes) -> Response:
        table, fields = self._table(request), _object(_read(request, body))
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
        return _refused(result) if isinstance(result, list) else Response(status_code=204)

    def delete(self, request: Request, _: bytes) -> Response:
        table = self._table(request)
        row = self._org.locate(table, self._row(table, request)["Id"])
        self._org.delete(table.name, row["Id"], visible_after=0)
        self._log(request, [(table, row["Id"], {})], [row["Id"]])
        return Response(status_code=204)

    def collection(self, request: Request, body: bytes, *, create: bool) -> Response:
        content = _object(_read(request, body))
        records = content.get("records")
        if not isinstance(records, list) or not isinstance(content.get("allOrNone", False), bool):
            raise _malformed("records")
        if len(records) > _MAX_RECORDS:
            told = f"record limit reached. cannot submit more than {_MAX_RECORDS} records into this call"
            raise ApiError(400, "EXCEEDED_ID_LIMIT", told)
        items = [self._named(_object(record)) for record in records]
        if len(list(groupby(table.name for table, _, _ in items))) > _MAX_CHUNKS:
            told = f"Cannot have more than {_MAX_CHUNKS} chunks in a single operation."
            raise ApiError(400, "LIMIT_EXCEEDED", f"{told} Please rearrange the data to reduce chunking.")
        results = self._save(request, items, create=create, all_or_none=content.get("allOrNone", False))
        return _json(self._log(request, items, results))

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
        return self._org.save(
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
        self._org.note_write(request.method, request.scope["route"].path, request.headers, items, answers)
        return answers

    def updated(self, request: Request, _: bytes) -> Response:
        table, (begin, end) = self._table(request), self._span(request, days=30)
        low, high = (bisect_left(table.keys, moment) for moment in (begin, end))
        ids = [key[-18:] for key in table.keys[low:high]]
        alive = [key for key in ids if not table.rows[key].get("IsDeleted")]
        return _json({"ids": alive, "latestDateCovered": self._covered(end)})

    def deleted(self, request: Request, _: bytes) -> Response:
        table, (begin, end) = self._table(request), self._span(request, days=15)
        low, high = (bisect_left(table.keys, moment) for moment in (begin, end))
        rows = [table.rows[key[-18:]] for key in table.keys[low:high]]
        gone = {row["Id"]: row["SystemModstamp"] for row in rows if row.get("IsDeleted")}
        gone |= {key: when for key, when in self._org.purged[table.name].items() if begin <= when < end}
        return _json(
            {
                "deletedRecords": [{"id": key, "deletedDate": when} for key, when in sorted(gone.items())],
                "earliestDateAvailable": stamp(self._org.clock.now() - timedelta(days=15)),
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
            raise ApiError(
                400, "INVALID_REPLICATION_DATE", "start and end must be times with a zone"
            ) from None
        if not late or not recent:
            told = (
                "startDate must be more than one minute before endDate"
                if recent
                else "startDate before org's limit"
            )
            raise ApiError(400, "INVALID_REPLICATION_DATE", told)
        return stamp(begin.replace(second=0)), stamp(end.replace(second=0))


def _describe(kind: Field, *, writable: bool) -> dict[str, Any]:
    parent = (
        {"referenceTo": [kind.parent], "relationshipName": kind.name.removesuffix("Id")}
        if kind.parent
        else {}
    )
    custom = kind.name.endswith("__c")
    return {
        "name": kind.name,
        "label": kind.name,
        "type": kind.type,
        "length": kind.length,
        "createable": writable,
        "updateable": writable,
        "calculated": kind.calculated,
        "custom": custom,
        "nillable": not kind.required and kind.type != "boolean",
        "filterable": kind.filterable,
        "sortable": kind.filterable,
        "permissionable": custom,
        "unique": False,
        "idLookup": kind.type == "id" or kind.name == "Email",
        "picklistValues": [],
        "referenceTo": [],
        "relationshipName": None,
        **parent,
    }


def _malformed(what: str) -> ApiError:
    return ApiError(400, "JSON_PARSER_ERROR", f"Unexpected content at [line:1, column:1]: {what}")


def _read(request: Request, body: bytes) -> Any:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(
            415, "UNSUPPORTED_MEDIA_TYPE", "Content type specified is not supported by the resource"
        )
    try:
        return orjson.loads(body)
    except ValueError:
        raise _malformed("not JSON") from None


def _object(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise _malformed("not an object")
    return content
