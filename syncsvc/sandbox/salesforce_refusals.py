"""How Salesforce refuses: the errors that its answers carry, and its words for what it does not know."""

from __future__ import annotations


class ApiError(Exception):
    """A request that Salesforce answers with an error instead of carrying it out."""

    def __init__(
        self, status: int, code: str, message: str, *, fields: tuple[str, ...] | None = None
    ) -> None:
        """Hold the HTTP status, and what the error's body says."""
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields


class CallError(ApiError):
    """An error of one record that fails the whole call it came with."""


_REFERENCE = "Please reference your WSDL or the describe call for the appropriate names."


def _custom(what: str) -> str:
    noun = "custom field name" if what == "field" else "entity name"
    return (
        f"If you are attempting to use a custom {what}, be sure to append the '__c' after the {noun}."
        f" {_REFERENCE}"
    )


def missing() -> ApiError:
    """Return the refusal of a path that names nothing."""
    return ApiError(404, "NOT_FOUND", "The requested resource does not exist")


def unsupported_object(name: str) -> str:
    """Return what Salesforce says about an object it does not have."""
    return f"sObject type '{name}' is not supported. {_custom('object')}"


def unknown_column(name: str, entity: str) -> str:
    """Return what Salesforce says about a field that the object does not have."""
    return f"No such column '{name}' on entity '{entity}'. {_custom('field')}"


def unknown_relationship(name: str) -> str:
    """Return what Salesforce says about a parent that the object does not have."""
    return f"Didn't understand relationship '{name}' in field path. {_REFERENCE}"


def malformed(what: str) -> ApiError:
    """Return the refusal of a body that is not what the resource takes."""
    return ApiError(400, "JSON_PARSER_ERROR", f"Unexpected content at [line:1, column:1]: {what}")
