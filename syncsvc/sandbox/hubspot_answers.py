"""How the HubSpot simulator's endpoints read a request and word an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from syncsvc.sandbox.hubspot_knobs import HubSpotKnobs
from syncsvc.sandbox.hubspot_properties import iso
from syncsvc.sandbox.hubspot_records import Record, Records
from syncsvc.sandbox.hubspot_refusals import Refusal, generic_problem, invalid, not_deserialized

DEFAULTS = ("createdate", "email", "firstname", "hs_object_id", "lastmodifieddate", "lastname")
ALWAYS = ("createdate", "hs_object_id", "lastmodifieddate")


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as far as an endpoint cares. `version` is `v3` or a date; `query` may repeat a name."""

    version: str
    path: Mapping[str, str] = field(repr=False)
    query: Mapping[str, Sequence[str]] = field(repr=False)
    raw: bytes = field(repr=False)

    def flag(self, name: str) -> bool:
        """Return a query parameter that is true or false."""
        return self.query.get(name, ["false"])[-1].lower() == "true"

    def names(self, name: str) -> list[str]:
        """Return a query parameter that is a list: repeated, or with commas."""
        return [part for value in self.query.get(name, []) for part in value.split(",") if part]

    def number(self, name: str, default: int) -> int:
        """Return a query parameter that is a whole number; raises the 400 for any other text."""
        text = self.query.get(name, [str(default)])[-1]
        if not text.isdecimal():
            raise invalid(f"{name} must be a number")
        return int(text)

    def body(self) -> dict[str, Any]:
        """Return the JSON object that was sent; raises the 400 for anything else."""
        try:
            parsed = orjson.loads(self.raw)
        except orjson.JSONDecodeError:
            raise Refusal(400, generic_problem()) from None
        if not isinstance(parsed, dict):
            raise not_deserialized("Request", parsed)
        return parsed


@dataclass(frozen=True, slots=True)
class Reply:
    """The status and the JSON of an answer; None = no body."""

    status: int
    body: Any = None


def expect_keys(body: Mapping[str, Any], allowed: set[str], knobs: HubSpotKnobs) -> None:
    """Raise the 400 for JSON keys that no schema knows."""
    unknown = sorted(body.keys() - allowed)
    if unknown and knobs.refuse_unknown_keys:
        raise invalid(f'Invalid input JSON on line 1, column 1: Unrecognized field "{unknown[0]}"')


def properties_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `properties` of a write; raises the 400 where they are not an object."""
    properties = body.get("properties")
    if not isinstance(properties, dict):
        raise not_deserialized("java.util.LinkedHashMap", properties)
    return properties


def record_number(text: object) -> int:
    """Return a record id as a number, 0 (which no record has) where it is none."""
    return int(str(text)) if str(text).isdecimal() else 0


def record_answer(
    records: Records, record: Record, names: Iterable[str] = (), *, history: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a contact as every reading endpoint gives it: the named properties, or the default ones."""
    wanted = dict.fromkeys((*ALWAYS, *(names or DEFAULTS)))
    answer: dict[str, Any] = {
        "id": str(record.id),
        "properties": records.values(wanted, record),
        "createdAt": iso(record.created),
        "updatedAt": iso(record.updated),
        "archived": record.archived is not None,
    }
    if record.archived is not None:
        answer["archivedAt"] = iso(record.archived)
    if history:
        answer["propertiesWithHistory"] = {
            name: [
                {"value": version.value, "timestamp": iso(version.at), "sourceType": version.source}
                | ({"sourceId": "1"} if version.source == "INTEGRATION" else {})
                for version in record.versions(name)
            ]
            for name in history
            if records.known(name)
        }
    return answer


def written_answer(records: Records, record: Record, values: Iterable[str]) -> dict[str, Any]:
    """Return a contact as writing endpoints give it: what was written and a few computed properties."""
    return record_answer(records, record, tuple(values) or ALWAYS)
