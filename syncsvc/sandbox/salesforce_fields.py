"""The fields of an org: those that every org has, and the values that a field can hold."""

from __future__ import annotations

import re
from datetime import date, datetime

from syncsvc.sandbox.salesforce_refusals import ApiError, CallError
from syncsvc.sandbox.salesforce_tables import IDS, NUMBERS, TEXT, Field, Value, long_id, stamp

_EMAIL = re.compile(r"[^\s@,;<>()\"]+@[^\s@.,;<>()\"]+(?:\.[^\s@.,;<>()\"]+)+")
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


def _texts(length: int, *names: str) -> list[Field]:
    return [Field(name, "string", length) for name in names]


def _fixed(kind: str, *names: str, parent: str = "") -> list[Field]:
    return [Field(name, kind, updateable=False, parent=parent) for name in names]


_SYSTEM = [
    *_fixed("id", "Id"),
    *_fixed("datetime", "CreatedDate", "LastModifiedDate", "SystemModstamp"),
    *_fixed("reference", "CreatedById", "LastModifiedById", parent="User"),
]
_OWNED = [
    *_SYSTEM,
    *_fixed("boolean", "IsDeleted"),
    *_fixed("date", "LastActivityDate"),
    Field("OwnerId", "reference", parent="User"),
    Field("Description", "textarea", 32_000),
]
_PERSON = [
    *_OWNED,
    Field("LastName", "string", 80, required=True),
    *_texts(40, "FirstName", "Salutation"),
    Field("Name", "string", 121, updateable=False),
    Field("Email", "email", 80),
    Field("Phone", "phone", 40),
    Field("MobilePhone", "phone", 40),
    Field("HasOptedOutOfEmail", "boolean"),
    Field("EmailBouncedDate", "datetime"),
]
STANDARD: dict[str, tuple[str, list[Field]]] = {
    "Contact": (
        "003",
        [
            *_PERSON,
            *_fixed("reference", "MasterRecordId", parent="Contact"),
            Field("AccountId", "reference", parent="Account"),
            Field("Birthdate", "date"),
            *_texts(40, "MailingCity", "MailingCountry", "MailingPostalCode"),
        ],
    ),
    "Lead": (
        "00Q",
        [
            *_PERSON,
            *_fixed("reference", "MasterRecordId", parent="Lead"),
            Field("Company", "string", 255, required=True),
            Field("Status", "picklist", 255),
            *_fixed("boolean", "IsConverted"),
            *_fixed("date", "ConvertedDate"),
            *_fixed("reference", "ConvertedContactId", parent="Contact"),
            *_fixed("reference", "ConvertedAccountId", parent="Account"),
        ],
    ),
    "Account": (
        "001",
        [
            *_OWNED,
            *_fixed("reference", "MasterRecordId", parent="Account"),
            Field("Name", "string", 255, required=True),
            Field("Phone", "phone", 40),
            Field("Website", "url", 255),
        ],
    ),
    "User": ("005", [*_SYSTEM, *_texts(80, "Username", "Name", "Email"), Field("IsActive", "boolean")]),
    "Organization": (
        "00D",
        [*_SYSTEM, *_texts(80, "Name", "OrganizationType"), Field("IsSandbox", "boolean")],
    ),
}


def _unreadable(kind: str, value: object) -> CallError:
    token = "VALUE_STRING value " if isinstance(value, str) else "value "
    told = f"Cannot deserialize instance of {kind} from {token}{value} or request may be missing a required"
    return CallError(400, "JSON_PARSER_ERROR", f"{told} field at [line:1, column:2]")


def _from_text(kind: Field, text: str) -> Value:
    if kind.length and len(text) > kind.length:
        told = f"{kind.name}: data value too large: {text} (max length={kind.length})"
        raise ApiError(400, "STRING_TOO_LONG", told, fields=(kind.name,))
    if kind.type == "email" and not _EMAIL.fullmatch(text):
        told = f"{kind.name}: invalid email address: {text}"
        raise ApiError(400, "INVALID_EMAIL_ADDRESS", told, fields=(kind.name,))
    if kind.values is not None and text not in kind.values:
        told = f"{kind.name}: bad value for restricted picklist field: {text}"
        raise ApiError(400, "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", told, fields=(kind.name,))
    if kind.type in TEXT:
        return text
    if kind.type in IDS:
        full = long_id(text)
        if full is None:
            told = f"{kind.name}: id value of incorrect type: {text}"
            raise ApiError(400, "MALFORMED_ID", told, fields=(kind.name,))
        return full
    try:
        if kind.type == "datetime" and _DATETIME.fullmatch(text):
            return stamp(datetime.fromisoformat(text))
        if kind.type == "date" and _DATE.fullmatch(text):
            return date.fromisoformat(text).isoformat()
    except (ValueError, OverflowError):
        pass
    raise _unreadable(kind.type, text)


def stored(kind: Field, value: object) -> Value:
    """Return a value as it is stored; raises ApiError or CallError where the field cannot hold it."""
    if value is None or value == "":
        return kind.empty
    if isinstance(value, str):
        return _from_text(kind, value)
    if isinstance(value, bool):
        if kind.type == "boolean":
            return value
    elif isinstance(value, int | float) and kind.type in NUMBERS:
        if kind.type != "int":
            return float(value)
        if isinstance(value, int):
            return value
    raise _unreadable(kind.type, value)
