"""How a request to the REST API is read, and how an answer or a refusal is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from syncsvc.sandbox.salesforce_org import Org
from syncsvc.sandbox.salesforce_refusals import ApiError, malformed, missing
from syncsvc.sandbox.salesforce_tables import Table

MAX_RECORDS = 200  # that a call may carry

Handler = Callable[[Request, bytes], Response]  # a request and its whole body


def answer(content: Any, status: int = 200) -> Response:
    """Return an answer in JSON."""
    return Response(orjson.dumps(content), status, media_type="application/json;charset=UTF-8")


def refused(errors: Sequence[ApiError]) -> Response:
    """Return the answer that names the errors, with the status of the first."""
    body = []
    for error in errors:
        fields = {} if error.fields is None else {"fields": list(error.fields)}
        body.append({"message": error.message, "errorCode": error.code, **fields})
    return answer(body, errors[0].status)


def read_object(request: Request, body: bytes) -> dict[str, Any]:
    """Return the JSON object of a body; raises ApiError where it is none, or claims to be of another type."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(
            415, "UNSUPPORTED_MEDIA_TYPE", "Content type specified is not supported by the resource"
        )
    try:
        content = orjson.loads(body)
    except ValueError:
        raise malformed("not JSON") from None
    return as_object(content)


def as_object(content: Any) -> dict[str, Any]:
    """Return what is an object in JSON; raises ApiError for all else."""
    if not isinstance(content, dict):
        raise malformed("not an object")
    return content


def addressed(org: Org, request: Request) -> Table:
    """Return the object that the path names; raises ApiError where there is none."""
    table = org.table(request.path_params["sobject"])
    if table is None:
        raise missing()
    return table


def version_path(request: Request) -> str:
    """Return the path of the API's version that was asked, such as "/services/data/v67.0"."""
    return f"/services/data/v{request.path_params['version']}"
