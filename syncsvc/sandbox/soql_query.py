"""A query that was understood: what it selects, the rows that can meet its conditions, and in which order.

Conditions carry bounds, so that a query is answered from the indexes of its table. Rows without an order, and
ties within one, come in no order to rely on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from syncsvc.sandbox.salesforce_tables import TEXT, Field, Row, Table, Value

_TOP = "~"  # sorts after every id and every time
_STAMP_WIDTH = len("2026-01-01T00:00:00.000+0000")
_ID_WIDTH = 18


class Span(NamedTuple):
    """Bounds, both included, outside of which no row can meet a condition."""

    low_key: str = ""
    high_key: str = _TOP
    low_id: str = ""
    high_id: str = _TOP

    def both(self, other: Span) -> Span:
        """Return the bounds of rows that are within these and the other ones."""
        low_key, high_key = max(self.low_key, other.low_key), min(self.high_key, other.high_key)
        low_id, high_id = max(self.low_id, other.low_id), min(self.high_id, other.high_id)
        second = low_key[:_STAMP_WIDTH]
        if len(second) == _STAMP_WIDTH and high_key.startswith(second):
            low_key, high_key = max(low_key, second + low_id), min(high_key, second + high_id)
        return Span(low_key, high_key, low_id, high_id)

    def either(self, other: Span) -> Span:
        """Return bounds that hold these and the other ones."""
        return Span(
            min(self.low_key, other.low_key),
            max(self.high_key, other.high_key),
            min(self.low_id, other.low_id),
            max(self.high_id, other.high_id),
        )


_ANYWHERE = Span()


@dataclass(frozen=True, slots=True)
class Condition:
    """What a row must meet, and where such rows can be."""

    test: Callable[[Row], bool]
    span: Span = _ANYWHERE


@dataclass(frozen=True, slots=True)
class Path:
    """A field, and the references to follow to its row."""

    hops: tuple[tuple[Field, Table], ...]
    field: Field

    @property
    def name(self) -> str:
        """The field's name as a query writes it, through its parents."""
        return ".".join([*(via.name.removesuffix("Id") for via, _ in self.hops), self.field.name])

    def read(self, row: Row | None) -> Any:
        """Return the value for a row; None where a reference on the way is empty."""
        for via, table in self.hops:
            row = table.rows.get(row.get(via.name) or "") if row else None
        return None if row is None else row.get(self.field.name, self.field.empty)

    def folded(self, row: Row) -> str | None:
        """Return the text for a row as texts are compared: without case, and None where empty."""
        value = self.read(row)
        return value.casefold() if value else None

    def span(self, operator: str, values: Iterable[Value]) -> Span:
        """Return the bounds of rows where the field stands to one of the values as the operator says."""
        texts = [value for value in values if isinstance(value, str)]
        if self.hops or self.field.name not in {"Id", "SystemModstamp"} or not texts:
            return _ANYWHERE
        low, high = min(texts), max(texts)
        if self.field.name == "Id":
            return Span(low_id="" if "<" in operator else low, high_id=_TOP if ">" in operator else high)
        after, until = low + _TOP, high + _TOP
        low_key = {"=": low, ">=": low, ">": after}.get(operator, "")
        return Span(low_key=low_key, high_key={"=": until, "<=": until, "<": high}.get(operator, _TOP))


class Order(NamedTuple):
    """One field to sort by."""

    path: Path
    descending: bool
    nulls_first: bool

    def key(self, row: Row) -> tuple[bool, Any]:
        """Return what a row is sorted by, before a descending order turns it round."""
        value = self.path.read(row)
        if isinstance(value, str) and self.path.field.type in TEXT:
            value = value.casefold()
        return ((value is not None) == self.nulls_first) != self.descending, 0 if value is None else value


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was understood; `columns` is empty for COUNT()."""

    table: Table
    columns: tuple[Path, ...]
    where: Condition
    order: tuple[Order, ...]
    limit: int | None

    def run(self, *, deleted: bool) -> list[Row]:
        """Return the rows that match, in order; those deleted too where asked for."""
        keys, span = self.table.keys, self.where.span
        by_key = keys[bisect_left(keys, span.low_key) : bisect_right(keys, span.high_key + _TOP)]
        ids = self.table.ids
        by_id = ids[bisect_left(ids, span.low_id) : bisect_right(ids, span.high_id)]
        sorted_by = ["." if order.path.hops else order.path.field.name for order in self.order]
        one_way = len({order.descending for order in self.order}) == 1
        source = min(by_key, by_id, key=len)
        natural = {"Id": by_id, "SystemModstamp Id": by_key}.get(" ".join(sorted_by))
        in_order = natural is not None and one_way and len(natural) <= 10 * len(source)
        if natural is not None and in_order:
            source = natural[::-1] if self.order[0].descending else natural
        found: list[Row] = []
        enough = self.limit if in_order else None
        for key in source:
            if enough is not None and len(found) >= enough:
                break
            row = self.table.rows[key[-_ID_WIDTH:]]
            if (deleted or not row.get("IsDeleted")) and self.where.test(row):
                found.append(row)
        if not in_order:
            found.sort(key=lambda row: row["Id"][::-1])
            for order in reversed(self.order):
                found.sort(key=order.key, reverse=order.descending)
        return found[: self.limit]

    def render(self, row: Row, base: str) -> dict[str, Any]:
        """Return a row as JSON shows it, its fields in the order selected; `base` is the version's path."""
        shown = _head(self.table, row, base)
        for path in self.columns:
            place, parent = shown, row
            for via, table in path.hops:
                name, above = via.name.removesuffix("Id"), table.rows.get(parent.get(via.name) or "")
                if above is None:
                    place[name] = None
                    break
                place, parent = place.setdefault(name, _head(table, above, base)), above
            else:
                place[path.field.name] = parent.get(path.field.name, path.field.empty)
        return shown


def _head(table: Table, row: Row, base: str) -> dict[str, Any]:
    return {"attributes": {"type": table.name, "url": f"{base}/sobjects/{table.name}/{row['Id']}"}}
