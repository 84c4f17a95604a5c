"""The columns of the contact table of the Dynamics simulator: their types, and the values that they take."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from syncsvc.sandbox.dynamics_refusals import bad_payload, too_long

GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TEXT = frozenset({"String", "Memo"})
_LOOKUPS = frozenset({"Lookup", "Customer", "Owner"})
_WHOLE = frozenset({"Integer", "BigInt", "Picklist", "State", "Status"})
_NUMBERS = frozenset({"Decimal", "Double", "Money"})
TYPES = TEXT | _LOOKUPS | _WHOLE | _NUMBERS | {"Boolean", "DateTime", "Uniqueidentifier"}
_OTHERS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "Boolean": ("Edm.Boolean", lambda value: isinstance(value, bool)),
    **dict.fromkeys(_WHOLE, ("Edm.Int32", lambda value: type(value) is int)),
    **dict.fromkeys(_NUMBERS, ("Edm.Decimal", lambda value: type(value) in {int, float})),
}
_GUIDS = ("Edm.Guid", lambda value: isinstance(value, str) and re.fullmatch(GUID, value.lower()) is not None)


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `kind` is its AttributeType, `source` 0 simple, 1 calculated, 2 rollup, 3 formula."""

    name: str
    kind: str = "String"
    length: int = 100
    readable: bool = True
    updatable: bool = True
    date_only: bool = False
    source: int = 0
    of: str | None = None

    @property
    def shown(self) -> str:
        """The column's name in queries and answers: a lookup's is `_name_value` (Query data, 2024)."""
        return f"_{self.name}_value" if self.kind in _LOOKUPS else self.name

    def checked(self, value: Any, *, empty_is_null: bool) -> Any:
        """Return a value as it is stored; raises the Refusal for one that does not fit."""
        if value is None or (value == "" and empty_is_null and self.kind in TEXT):
            return None
        if self.kind in TEXT:
            if not isinstance(value, str):
                raise self._unfit(value, "Edm.String")
            if len(value) > self.length:
                raise too_long(self.name, self.length)
            return value
        if self.kind == "DateTime":
            return self._time(value)
        name, fits = _OTHERS.get(self.kind, _GUIDS)
        if not fits(value):
            raise self._unfit(value, name)
        return value.lower() if isinstance(value, str) else value

    def _time(self, value: Any) -> str:
        kind = "Edm.Date" if self.date_only else "Edm.DateTimeOffset"
        try:
            at = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise self._unfit(value, kind) from None
        if self.date_only:
            return at.date().isoformat()
        if at.tzinfo is None:
            raise self._unfit(value, kind)
        return stamp(at)

    @staticmethod
    def _unfit(value: Any, kind: str) -> Exception:
        return bad_payload(f"Cannot convert the literal '{value}' to the expected type '{kind}'.")


def stamp(at: datetime) -> str:
    """Return a time as Dataverse writes it: in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def own_columns() -> list[Column]:
    """Return the columns that every contact table has, as far as the simulator knows them."""
    return [
        Column("contactid", "Uniqueidentifier", updatable=False),
        Column("firstname", length=50),
        Column("lastname", length=50),
        Column("fullname", length=160, updatable=False),
        Column("emailaddress1"),
        Column("jobtitle"),
        Column("telephone1", length=50),
        Column("birthdate", "DateTime", date_only=True),
        Column("donotemail", "Boolean"),
        Column("creditlimit", "Money"),
        Column("parentcustomerid", "Customer"),
        Column("parentcustomeridname", of="parentcustomerid", updatable=False),
        Column("masterid", "Lookup", updatable=False),
        Column("merged", "Boolean", updatable=False),
        Column("statecode", "State"),
        Column("statuscode", "Status"),
        Column("createdon", "DateTime", updatable=False),
        Column("modifiedon", "DateTime", updatable=False),
        Column("versionnumber", "BigInt", updatable=False),
        Column("openrevenue_rollup", "Money", source=2, updatable=False),
    ]
