"""What a HubSpot account's contact properties must be like, and how one that is missing is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from syncsvc.model import Problem
from syncsvc.remote.connector import Missing, Needs
from syncsvc.remote.spelling import did_you_mean

Definitions = Mapping[str, Mapping[str, Any]]
"""The account's properties by name, as HubSpot describes them, without archived ones."""

GROUP = "contactinformation"
_TYPES = {"last_updated": ("datetime", "string"), "status": ("string", "enumeration")}
_FIELD_TYPES = {"datetime": "date", "string": "text"}


def problems(needs: Needs, known: Definitions) -> list[Problem]:
    """Return what is wrong with the properties that are read and written."""
    found = [
        Problem(
            f"property {name}",
            "HubSpot has no such contact property, or it is archived",
            did_you_mean(name, known) + "use the internal name shown in the property's settings",
        )
        for name in sorted(needs.read - known.keys())
    ]
    found += [
        Problem(
            f"property {name}",
            "HubSpot calculates it: its changes move no modification time, so that sweeps alone see them",
            "map a property that people or workflows write, such as one that a workflow copies it to",
        )
        for name in sorted(needs.read & known.keys())
        if known[name].get("calculated")
    ]
    for fact, name in sorted(needs.write.items()):
        found += _of_fact(fact, name, known)
    return found


def missing(needs: Needs, known: Definitions) -> list[Missing]:
    """Return the properties that are written back and do not exist."""
    return [
        Missing(fact, name, f"contact property {name} ({_words(made_for(fact, name))})")
        for fact, name in sorted(needs.write.items())
        if name not in known
    ]


def made_for(fact: str, name: str) -> dict[str, str]:
    """Return what makes a property that can hold a fact (properties guide 2026-03)."""
    kind = _TYPES.get(fact, ("string",))[0]
    return {
        "name": name,
        "label": f"Wallet {fact.replace('_', ' ')}",
        "groupName": GROUP,
        "type": kind,
        "fieldType": _FIELD_TYPES[kind],
    }


def _words(made: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in made.items() if key != "name")


def _of_fact(fact: str, name: str, known: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    where, types = f"write_back.{fact}", _TYPES.get(fact, ("string",))
    if name not in known:
        yield Problem(
            where,
            f"HubSpot has no contact property {name}, or it is archived",
            f"{did_you_mean(name, known)}create it with `syncsvc setup`, or by hand: name {name}, "
            f"{_words(made_for(fact, name))}; or restore it where HubSpot says that the name is taken",
        )
        return
    definition = known[name]
    metadata = definition.get("modificationMetadata")
    if isinstance(metadata, dict) and metadata.get("readOnlyValue"):
        yield Problem(where, f"the contact property {name} is read-only", "name one that can be edited")
    if definition.get("type") not in types:
        yield Problem(
            where,
            f"the contact property {name} is of another type than {' or '.join(types)}",
            f"name or create a property of the type {types[0]}",
        )
