"""What the Dynamics simulator answers when it refuses: the error bodies, one function each.

Dataverse's errors have a code and a message; the code "is frequently empty" (Compose HTTP requests and handle
errors, 2023-04). Codes are from the documents and from answers that public projects recorded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BAD_QUERY = "0x80060888"
BAD_PAYLOAD = "0x80048d19"
NOT_THERE = "0x80040217"


class Refusal(Exception):  # noqa: N818 - it is an answer, not a failure of the simulator
    """A request that the server refuses: the status, the error's code and message, and headers to add."""

    def __init__(
        self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None
    ) -> None:
        """Hold the answer."""
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any] | None:
        """The JSON of the answer; a 401 has none."""
        return None if self.status == 401 else {"error": {"code": self.code, "message": self.message}}


def unknown_column(name: str) -> Refusal:
    """Return the 400 for a column that a query names and the table lacks."""
    told = f"Could not find a property named '{name}' on type 'Microsoft.Dynamics.CRM.contact'."
    return Refusal(400, BAD_QUERY, told)


def bad_query(message: str) -> Refusal:
    """Return the 400 for a query that cannot be carried out."""
    return Refusal(400, BAD_QUERY, message)


def untracked_option(name: str) -> Refusal:
    """Return the 400 for a query option that cannot be tracked."""
    told = f'The "{name}" query parameter isn\'t supported when Change Tracking is enabled.'
    return Refusal(400, BAD_QUERY, told)


def not_tracked() -> Refusal:
    """Return the 400 for tracking a table that has not been enabled for it."""
    return Refusal(400, BAD_QUERY, "Change tracking is not enabled for the entity 'contact'.")


def expired(status: int) -> Refusal:
    """Return the refusal of a delta link that is too old (ExpiredVersionStamp)."""
    told = "Version stamp associated with the client has expired. Please perform a full sync."
    return Refusal(status, "0x80044352", told)


def not_there(record_id: str) -> Refusal:
    """Return the 404 for a contact that is not there."""
    return Refusal(404, NOT_THERE, f"contact With Id = {record_id} Does Not Exist")


def no_resource(path: str) -> Refusal:
    """Return the 404 for a path that names nothing."""
    return Refusal(404, "0x8006088a", f"Resource not found for the segment '{path}'.")


def bad_payload(message: str) -> Refusal:
    """Return the 400 for a body that does not fit the table."""
    told = f"Error identified in Payload provided by the user for Entity :'contacts'. {message}"
    return Refusal(400, BAD_PAYLOAD, told)


def too_long(name: str, length: int) -> Refusal:
    """Return the 400 for a text that is longer than its column."""
    told = f"The length of the '{name}' attribute of the 'contact' entity exceeded the maximum allowed length"
    return Refusal(400, "0x80044331", f"A validation error occurred.  {told} of '{length}'.")


def plugin(message: str) -> Refusal:
    """Return the 400 that a plug-in causes, with the words of whoever wrote it."""
    return Refusal(400, "0x80040265", message)


def timed_out() -> Refusal:
    """Return the 500 for a row that another transaction keeps locked."""
    return Refusal(500, "0x80044151", "Generic SQL error. Timeout expired.")


def denied(privilege: str) -> Refusal:
    """Return the 403 for a privilege that the application user lacks."""
    return Refusal(403, "0x80040220", f"Principal user is missing {privilege} privilege.")


def no_member() -> Refusal:
    """Return the 403 for an app that is not a user of the environment."""
    return Refusal(403, "0x80072560", "The user is not a member of the organization.")


def unauthorized() -> Refusal:
    """Return the 401 for a token that is missing, unknown or past its time."""
    challenge = "Bearer authorization_uri=https://login.microsoftonline.com/common/oauth2/authorize"
    return Refusal(401, "", "", {"WWW-Authenticate": challenge})


def limited(code: str, message: str, wait: float | None) -> Refusal:
    """Return the 429 of one of the three service protection limits; `wait` in seconds."""
    return Refusal(429, code, message, {} if wait is None else {"Retry-After": str(max(1, round(wait)))})


def precondition(message: str) -> Refusal:
    """Return the 412 for a condition that does not hold."""
    return Refusal(412, "0x80060882", message)
