"""What the Dynamics simulator tells of its contact table: EntityDefinitions and the attributes below it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from syncsvc.sandbox.dynamics_columns import Column
from syncsvc.sandbox.dynamics_refusals import bad_query
from syncsvc.sandbox.dynamics_table import Table

_EXPAND = re.compile(r"Attributes\(\$select=([\w,]+)\)")


def entity(table: Table, options: Mapping[str, str], *, tracking: bool) -> dict[str, Any]:
    """Return the definition of the contact table, with its attributes where they are asked for."""
    _only(options, {"$select", "$expand"})
    known = {
        "LogicalName": "contact",
        "EntitySetName": "contacts",
        "PrimaryIdAttribute": "contactid",
        "ChangeTrackingEnabled": tracking,
    }
    document = _picked(known, options.get("$select"))
    if "$expand" in options:
        wanted = _EXPAND.fullmatch(options["$expand"])
        if wanted is None:
            raise bad_query("Could not expand what is asked for.")
        document["Attributes"] = attributes(table, {"$select": wanted[1]})
    return document


def attributes(table: Table, options: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return every column as metadata shows it."""
    _only(options, {"$select"})
    return [_picked(_attribute(it), options.get("$select")) for it in table.columns.values()]


def line_columns(table: Table, options: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the columns of a line of text, with what only these have."""
    _only(options, {"$select"})
    return [
        _picked(_attribute(it) | {"MaxLength": it.length, "Format": "Text"}, options.get("$select"))
        for it in table.columns.values()
        if it.kind == "String"
    ]


def date_columns(table: Table, options: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the columns of dates and times, with what only these have."""
    _only(options, {"$select"})
    return [
        _picked(_attribute(it) | _dating(it), options.get("$select"))
        for it in table.columns.values()
        if it.kind == "DateTime"
    ]


def _attribute(column: Column) -> dict[str, Any]:
    return {
        "LogicalName": column.name,
        "AttributeType": column.kind,
        "AttributeOf": column.of,
        "IsValidForRead": column.readable,
        "IsValidForUpdate": column.updatable,
        "SourceType": column.source,
    }


def _dating(column: Column) -> dict[str, Any]:
    kind = "DateOnly" if column.date_only else "DateAndTime"
    behaviour = {"Value": "DateOnly" if column.date_only else "UserLocal"}
    return {"Format": kind, "DateTimeBehavior": behaviour}


def _picked(known: Mapping[str, Any], select: str | None) -> dict[str, Any]:
    names: Sequence[str] = [*known] if select is None else select.split(",")
    for name in names:
        if name not in known:
            raise bad_query(f"Could not find a property named '{name}'.")
    return {**{name: known[name] for name in names}, "MetadataId": "00000000-0000-0000-0000-0000000000aa"}


def _only(options: Mapping[str, str], allowed: set[str]) -> None:
    for name in options:
        if name not in allowed:
            raise bad_query(f"The query parameter {name} is not supported.")
