"""What a Dynamics environment's contact table must be like."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from syncsvc.model import STATUS_LENGTH, Problem
from syncsvc.remote.connector import Needs
from syncsvc.remote.spelling import did_you_mean

Attributes = Collection[Mapping[str, Any]]
"""Columns as the environment's metadata describes them."""

Definitions = Mapping[str, Mapping[str, Any]]
"""The table's columns by the names that queries use."""

ENTITY = "EntityDefinitions(LogicalName='contact')"
DEFINITION = (
    f"{ENTITY}?$select=ChangeTrackingEnabled&$expand=Attributes("
    "$select=LogicalName,AttributeType,AttributeOf,IsValidForRead,IsValidForUpdate,SourceType)"
)
DATES = f"{ENTITY}/Attributes/Microsoft.Dynamics.CRM.DateTimeAttributeMetadata?$select=LogicalName,Format"
LINES = f"{ENTITY}/Attributes/Microsoft.Dynamics.CRM.StringAttributeMetadata?$select=LogicalName,MaxLength"
UNTRACKED = Problem(
    "table contact",
    "Dynamics does not track changes of contacts",
    "turn on Track changes under the table's advanced options in Power Apps; it cannot be turned off again",
)

_LOOKUPS = {"Lookup", "Customer", "Owner"}
_TEXTS = {"String", "Memo"}
_SOURCES = {1: "calculated", 2: "a rollup", 3: "a formula"}


def by_name(attributes: Attributes) -> dict[str, Mapping[str, Any]]:
    """Return columns by the names that queries use; those that belong to another column have none."""
    return {_shown(it): it for it in attributes if it.get("AttributeOf") is None}


def problems(needs: Needs, known: Definitions, *, dates: Attributes, lines: Attributes) -> Iterator[Problem]:
    """Yield what is wrong with the columns that are read and written; `dates` and `lines` are of a kind."""
    unfit = {str(it.get("LogicalName")) for it in dates if it.get("Format") == "DateOnly"}
    unfit |= {str(it.get("LogicalName")) for it in lines if _length(it) < STATUS_LENGTH}
    for name in sorted(needs.read):
        yield from _of_read(name, known)
    for fact, name in sorted(needs.write.items()):
        yield from _of_fact(fact, name, known, unfit)


def _length(attribute: Mapping[str, Any]) -> int:
    length = attribute.get("MaxLength")
    return length if type(length) is int else STATUS_LENGTH


def _shown(attribute: Mapping[str, Any]) -> str:
    name = str(attribute.get("LogicalName"))
    return f"_{name}_value" if attribute.get("AttributeType") in _LOOKUPS else name


def _of_read(name: str, known: Definitions) -> Iterator[Problem]:
    where = f"column {name}"
    if name not in known:
        remedy = "use the logical name shown in the column's advanced options; a lookup's is _NAME_value"
        yield Problem(where, "Dynamics' contacts have no such column", did_you_mean(name, known) + remedy)
        return
    if known[name].get("IsValidForRead") is False:
        yield Problem(where, "the column cannot be read", "map another one")
    source = _SOURCES.get(known[name].get("SourceType") or 0)
    if source:
        yield Problem(
            where,
            f"the column is {source}: its changes are none of the contact, so that sweeps alone see them",
            "map the columns it is made of, or one that a flow copies it to",
        )


def _of_fact(fact: str, name: str, known: Definitions, unfit: Collection[str]) -> Iterator[Problem]:
    where = f"write_back.{fact}"
    kinds, made = _TEXTS, f"single line of text, {STATUS_LENGTH} characters or more"
    if fact == "last_updated":
        kinds, made = {"DateTime"}, "date and time"
    if name not in known:
        fitting = [it for it, attribute in known.items() if attribute.get("AttributeType") in kinds]
        yield Problem(
            where,
            f"Dynamics' contacts have no column {name}",
            f"{did_you_mean(name, fitting)}create it in Power Apps: {made}, under a publisher's prefix",
        )
        return
    if known[name].get("IsValidForUpdate") is False or known[name].get("SourceType"):
        yield Problem(where, f"the column {name} cannot be written", "name one that can be edited")
    elif known[name].get("AttributeType") not in kinds or name in unfit:
        yield Problem(where, f"the column {name} is of another type or size", f"name or create one: {made}")
