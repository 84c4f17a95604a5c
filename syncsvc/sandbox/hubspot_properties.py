"""Contact properties in the HubSpot simulator: their definitions, and which values they take.

Sources: properties guide 2026-03 (types, formats), recorded refusals of public projects.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from syncsvc.sandbox.hubspot_refusals import BadValue, invalid

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MS = 86_400_000
_MS_MAX = 253_402_300_799_999  # 9999-12-31
_EMAIL = re.compile(r"[^@\s,;]+@[^@\s,;]+\.[^@\s,;.]+")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_NUMBER = re.compile(r"-?\d{1,18}(\.\d{1,18})?")
_MS = re.compile(r"-?\d{1,15}")

FIELD_TYPES = {
    "string": {"text", "textarea", "html", "phonenumber", "file", "calculation_equation"},
    "number": {"number", "calculation_equation"},
    "date": {"date"},
    "datetime": {"date"},
    "enumeration": {"select", "radio", "checkbox", "booleancheckbox", "calculation_equation"},
    "bool": {"booleancheckbox", "calculation_equation"},
}
_GROUPS = {
    "contactinformation",
    "contact_activity",
    "conversioninformation",
    "order",
    "socialmediainformation",
}


def to_ms(at: datetime) -> int:
    """Return milliseconds since 1970; `at` is aware."""
    return (at - _EPOCH) // timedelta(milliseconds=1)


def iso(ms: int) -> str:
    """Return the form in which HubSpot answers times: `2020-02-29T03:30:17.000Z`."""
    at = _EPOCH + timedelta(milliseconds=ms)
    return at.isoformat(timespec="milliseconds")[:-6] + "Z"


def instant_ms(text: str) -> int | None:
    """Return the milliseconds that an epoch-ms text or an ISO instant with a zone stands for, else None."""
    if _MS.fullmatch(text):
        ms = int(text)
        return ms if abs(ms) <= _MS_MAX else None
    if "T" not in text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return to_ms(at) if at.tzinfo else None


def number(text: str) -> int | float | None:
    """Return the number that a text stands for, else None."""
    if not _NUMBER.fullmatch(text):
        return None
    return float(text) if "." in text else int(text)


@dataclass(frozen=True, slots=True)
class Definition:
    """A contact property; `options` are the only values of an enumeration, where there are any."""

    name: str
    type: str
    field_type: str
    read_only: bool = False
    hidden: bool = False
    archived: bool = False
    label: str = ""
    group: str = "contactinformation"
    options: tuple[str, ...] = ()
    standard: bool = False
    created: int = 0

    def answer(self) -> dict[str, Any]:
        """Return the definition as the properties API gives it."""
        return {
            "name": self.name,
            "label": self.label or self.name,
            "type": self.type,
            "fieldType": self.field_type,
            "description": "",
            "groupName": self.group,
            "options": [
                {"label": option, "value": option, "hidden": False, "displayOrder": place}
                for place, option in enumerate(self.options)
            ],
            "displayOrder": -1,
            "calculated": self.read_only and not self.standard,
            "externalOptions": False,
            "hasUniqueValue": False,
            "hidden": self.hidden,
            "formField": not self.read_only,
            "hubspotDefined": self.standard,
            "dataSensitivity": "non_sensitive",
            "modificationMetadata": {
                "archivable": not self.standard,
                "readOnlyDefinition": self.standard,
                "readOnlyValue": self.read_only,
            },
            "createdAt": iso(self.created),
            "updatedAt": iso(self.created),
            "archived": self.archived,
        }


def _standard(name: str, type_: str = "string", field_type: str = "text", **more: Any) -> Definition:
    return Definition(name, type_, field_type, standard=True, **more)


STANDARD = (
    _standard("email"),
    _standard("firstname"),
    _standard("lastname"),
    _standard("phone", field_type="phonenumber"),
    _standard("mobilephone", field_type="phonenumber"),
    _standard("company"),
    _standard("jobtitle"),
    _standard("address"),
    _standard("city"),
    _standard("zip"),
    _standard("country"),
    _standard("website"),
    _standard(
        "lifecyclestage",
        "enumeration",
        "radio",
        options=("subscriber", "lead", "marketingqualifiedlead", "opportunity", "customer", "other"),
    ),
    _standard("createdate", "datetime", "date", read_only=True),
    _standard("lastmodifieddate", "datetime", "date", read_only=True),
    _standard("hs_object_id", "number", "number", read_only=True),
    _standard("hs_additional_emails", read_only=True),
    _standard("hs_merged_object_ids", "enumeration", "checkbox", read_only=True),
    # Contacts have it, hidden and never filled: reading gives null, filtering finds nothing, without a word.
    _standard("hs_lastmodifieddate", "datetime", "date", read_only=True, hidden=True),
)

COMPUTED = frozenset({"createdate", "lastmodifieddate", "hs_object_id"})
"""Properties that follow from the record itself and are kept nowhere else."""


def canonical(definition: Definition, raw: object) -> str | BadValue:
    """Return the text that HubSpot keeps for a value it takes ("" = emptied), else what is wrong with it."""
    if isinstance(raw, bool):
        text = "true" if raw else "false"
    elif isinstance(raw, str | int | float):
        text = str(raw)
    else:
        return _bad(definition, "INVALID_VALUE", raw, "a text")
    take = _email if definition.name == "email" else _TAKEN_AS.get(definition.type)
    return take(definition, text) if take and text else text


def _email(definition: Definition, text: str) -> str | BadValue:
    address = text.strip().lower()
    if not _EMAIL.fullmatch(address):
        return _bad(definition, "INVALID_EMAIL", text, "a valid email address")
    return address


def _datetime(definition: Definition, text: str) -> str | BadValue:
    ms = instant_ms(text)
    if ms is None:
        return _bad(definition, "INVALID_LONG", text, "a valid long or ISO instant")
    return iso(ms)


def _date(definition: Definition, text: str) -> str | BadValue:
    ms = instant_ms(text) if _MS.fullmatch(text) else _midnight(text)
    if ms is None:
        return _bad(definition, "INVALID_DATE", text, "a valid date")
    if ms % _DAY_MS:
        message = f"{text} is at {iso(ms)[11:-1]} UTC, not midnight!"
        return BadValue(definition.name, "INVALID_DATE", message)
    return iso(ms)[:10]


def _midnight(text: str) -> int | None:
    try:
        date.fromisoformat(text)
    except ValueError:
        return None
    return instant_ms(f"{text}T00:00:00Z") if len(text) == len("2026-11-22") else None


def _number(definition: Definition, text: str) -> str | BadValue:
    return text if number(text) is not None else _bad(definition, "INVALID_DOUBLE", text, "a valid number")


def _option(definition: Definition, text: str) -> str | BadValue:
    options = ("true", "false") if definition.type == "bool" else definition.options
    if options and not set(text.split(";")) <= set(options):
        return _bad(definition, "INVALID_OPTION", text, f"one of the allowed options: {[*options]}")
    return text


_TAKEN_AS = {
    "datetime": _datetime,
    "date": _date,
    "number": _number,
    "enumeration": _option,
    "bool": _option,
}


def _bad(definition: Definition, code: str, value: object, wanted: str) -> BadValue:
    return BadValue(definition.name, code, f"{value} was not {wanted}.")


def unknown_property(name: str) -> BadValue:
    """Return what is wrong with writing a property that does not exist."""
    return BadValue(name, "PROPERTY_DOESNT_EXIST", f'Property "{name}" does not exist')


def read_only_property(name: str) -> BadValue:
    """Return what is wrong with writing a property that HubSpot fills itself."""
    return BadValue(name, "READ_ONLY_VALUE", f'"{name}" is a read only property; its value cannot be set.')


def parse_definition(body: dict[str, Any], *, created: int) -> Definition:
    """Return the property that a POST asks for; raises Refusal where HubSpot would not make it."""
    absent = [key for key in ("name", "label", "groupName", "type", "fieldType") if not body.get(key)]
    if absent:
        raise invalid(f"Invalid input JSON: some required fields were not set: {absent}")
    if not all(isinstance(body[key], str) for key in ("name", "label", "groupName", "type", "fieldType")):
        raise invalid("Invalid input JSON: a text was expected")
    if not _NAME.fullmatch(body["name"]):
        raise invalid(
            "Property names must begin with a letter and hold lower-case letters, digits and _ only"
        )
    if body["groupName"] not in _GROUPS:
        raise invalid(f"Property group {body['groupName']} does not exist")
    if body["fieldType"] not in FIELD_TYPES.get(body["type"], set()):
        raise invalid(f"fieldType {body['fieldType']} does not fit type {body['type']}")
    options: Sequence[dict[str, Any]] = body.get("options") or ()
    return Definition(
        body["name"],
        body["type"],
        body["fieldType"],
        hidden=bool(body.get("hidden")),
        label=body["label"],
        group=body["groupName"],
        options=tuple(str(option.get("value")) for option in options),
        created=created,
    )
