"""The tables of an org: their fields, and their committed rows in sorted indexes.

Ids and times are held as Salesforce writes them, so that the order of texts is the one to search by.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Value = str | int | float | bool | None
Row = Mapping[str, Any]

TEXT = frozenset({"string", "email", "phone", "textarea", "picklist", "url"})
IDS = frozenset({"id", "reference"})
NUMBERS = frozenset({"double", "currency", "percent", "int"})


def stamp(moment: datetime) -> str:
    """Return a time as Salesforce writes it: UTC, whole seconds; the order of texts is that of times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def long_id(text: str) -> str | None:
    """Return the 18-character form of a 15- or 18-character id, or None where it is neither.

    The last three characters say which of the others are capitals.
    """
    if not re.fullmatch(r"[A-Za-z0-9]{15}(?:[A-Z0-5]{3})?", text):
        return None
    suffix = ""
    for begin in (0, 5, 10):
        bits = sum(1 << place for place in range(5) if text[begin + place].isupper())
        suffix += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[bits]
    return text[:15] + suffix if text[15:] in {"", suffix} else None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object; values are as JSON shows them, times as `stamp` writes them."""

    name: str
    type: str = "string"
    length: int = 0
    updateable: bool = True
    calculated: bool = False
    rolled_up: bool = False  # calculated from the records below it: a change of it moves its row's stamp
    required: bool = False
    values: tuple[str, ...] | None = None  # of a restricted picklist
    parent: str = ""  # the object that a reference names, reached by this field's name less its "Id"

    @property
    def filterable(self) -> bool:
        """Whether a query may filter and sort by it; long text cannot be."""
        return self.type != "textarea"

    @property
    def empty(self) -> Value:
        """What it holds when nothing was ever set."""
        return False if self.type == "boolean" else None


class Table:
    """The committed rows of one object, sorted by id, and by SystemModstamp and id."""

    def __init__(self, name: str, prefix: str, fields: Iterable[Field]) -> None:
        """Begin empty; ids of this object begin with `prefix`."""
        self.name = name
        self.prefix = prefix
        self.fields = {field.name.lower(): field for field in fields}
        self.rows: dict[str, Row] = {}
        self.ids: list[str] = []
        self.keys: list[str] = []

    def put(self, row: Row) -> None:
        """Add a row, or replace the one with its id."""
        old = self.rows.get(row["Id"])
        if old is None:
            insort(self.ids, row["Id"])
        else:
            del self.keys[bisect_left(self.keys, _key(old))]
        insort(self.keys, _key(row))
        self.rows[row["Id"]] = row

    def extend(self, rows: Iterable[Row]) -> None:
        """Add many new rows at once."""
        new = {row["Id"]: row for row in rows}
        self.rows.update(new)
        self.ids.extend(new)
        self.ids.sort()
        self.keys.extend(map(_key, new.values()))
        self.keys.sort()

    def remove(self, row_id: str) -> Row:
        """Take a row away and return it."""
        row = self.rows.pop(row_id)
        del self.ids[bisect_left(self.ids, row_id)]
        del self.keys[bisect_left(self.keys, _key(row))]
        return row


def _key(row: Row) -> str:
    return str(row["SystemModstamp"] + row["Id"])
