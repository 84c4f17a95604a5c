"""What the HubSpot simulator answers when it refuses: the error bodies, one function each.

Shapes are those of HubSpot's error-handling guide (2026-03) and of answers recorded by public projects; every
field beyond `status` and `message` is one that a client may not rely on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure of the simulator
    """A request that HubSpot refuses: the status, the body without its ids, and headers to add."""

    def __init__(
        self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> None:
        """Hold the answer."""
        super().__init__(f"{status} {body.get('category', body.get('message', ''))}")
        self.status = status
        self.body = dict(body)
        self.headers = dict(headers or {})

    def entry(self, context: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return the refusal as one entry of a 207 answer's `errors`, its context widened by `context`."""
        return {
            "status": "error",
            "category": self.body["category"],
            "message": self.body["message"],
            "errors": self.body.get("errors", []),
            "context": {**self.body.get("context", {}), **context},
            "links": {},
        }


@dataclass(frozen=True, slots=True)
class BadValue:
    """One property value that HubSpot does not take."""

    name: str
    code: str
    message: str = field(repr=False)


def _error(category: str, message: str, **more: Any) -> dict[str, Any]:
    return {"status": "error", "message": message, "category": category, **more}


def generic_problem() -> dict[str, Any]:
    """Return the body that search gives to a request it can say nothing about (recorded, 2020 to 2026)."""
    return {"status": "error", "message": "There was a problem with the request."}


def invalid(message: str, **more: Any) -> Refusal:
    """Return a 400 with a message."""
    return Refusal(400, _error("VALIDATION_ERROR", message, **more))


def not_deserialized(kind: str, value: object) -> Refusal:
    """Return the 400 for JSON of the wrong form; `kind` is the server's name of the type it wanted."""
    shown = orjson.dumps(value).decode()
    return invalid(
        f"Invalid input JSON on line 1, column 1: Cannot deserialize value of type `{kind}` from {shown}"
    )


def bad_values(problems: Sequence[BadValue]) -> Refusal:
    """Return the 400 for property values, which names every one of them twice."""
    listed = [
        {"isValid": False, "message": problem.message, "error": problem.code, "name": problem.name}
        for problem in problems
    ]
    return invalid(
        f"Property values were not valid: {orjson.dumps(listed).decode()}",
        errors=[
            {
                "message": problem.message,
                "code": problem.code,
                "context": {"propertyName": [problem.name]},
            }
            for problem in problems
        ],
    )


def duplicate_ids(ids: Sequence[str]) -> Refusal:
    """Return the 400 for a batch that names a record twice."""
    return invalid(
        f"Duplicate IDs found in batch input: [{', '.join(ids)}]. IDs must be unique",
        context={"ids": list(ids)},
    )


def not_unique_property() -> Refusal:
    """Return the 400 for writing by a property that does not identify contacts."""
    return invalid("Unable to perform update/upsert by non-unique 0-1 property")


def conflict(existing: str | None) -> Refusal:
    """Return the 409 for an email that a contact has, be it a secondary one; None = one of the batch."""
    if existing is None:
        return Refusal(409, _error("CONFLICT", "Contact already exists"))
    message = f"Contact already exists. Existing ID: {existing}"
    return Refusal(409, _error("CONFLICT", message, context={"existingId": [existing]}))


def property_exists(name: str) -> Refusal:
    """Return the 409 for a property name that is taken."""
    return Refusal(409, _error("OBJECT_ALREADY_EXISTS", f"A property named '{name}' already exists."))


def not_found() -> Refusal:
    """Return the 404 for a single record."""
    return Refusal(404, _error("OBJECT_NOT_FOUND", "resource not found"), {"X-HubSpot-NotFound": "true"})


def property_not_found(name: str) -> Refusal:
    """Return the 404 for a property."""
    return Refusal(
        404,
        _error("OBJECT_NOT_FOUND", f"Property definition for contacts.{name} does not exist"),
        {"X-HubSpot-NotFound": "true"},
    )


def missing_records(ids: Sequence[str], trace_ids: Sequence[str] = ()) -> dict[str, Any]:
    """Return the one entry of a 207 answer that names every record which is not there."""
    context = {"ids": list(ids)} | ({"objectWriteTraceId": list(trace_ids)} if trace_ids else {})
    return {
        "status": "error",
        "category": "OBJECT_NOT_FOUND",
        "message": "Could not get some CONTACT objects, they may be deleted or not exist. "
        "Check that ids are valid.",
        "errors": [],
        "context": context,
        "links": {},
    }


def not_authenticated() -> Refusal:
    """Return the 401 for a token that is missing, unknown or revoked."""
    return Refusal(
        401,
        _error(
            "INVALID_AUTHENTICATION",
            "Authentication credentials not found. This API supports OAuth 2.0 authentication.",
        ),
    )


def token_expired(at: str) -> Refusal:
    """Return the 401 for a token past its time; `at` is that time in ISO form."""
    return Refusal(
        401,
        _error(
            "EXPIRED_AUTHENTICATION",
            "The OAuth token used to make this call expired 0 second(s) ago.",
            context={"expire time": [at]},
        ),
    )


def scopes_missing(scopes: Sequence[str]) -> Refusal:
    """Return the 403 that names the scopes which would be needed."""
    message = "This app hasn't been granted all required scopes to make this call."
    return Refusal(
        403,
        _error(
            "MISSING_SCOPES",
            message,
            errors=[{"message": message, "context": {"requiredGranularScopes": list(scopes)}}],
        ),
    )


def oauth_refused(error: str, status: str, message: str) -> Refusal:
    """Return the 400 of the token endpoint: RFC 6749 fields and HubSpot's older ones."""
    return Refusal(400, {"error": error, "error_description": message, "status": status, "message": message})
