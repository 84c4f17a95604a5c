"""The numbers of rows that are made many at once: known before, so that other rows can name them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection, Select, Table, bindparam, func, select


def new_ids(connection: Connection, table: Table, count: int) -> Sequence[int]:
    """Return so many numbers that no row of a table has, ascending, for rows of this transaction.

    On a server other organizations take numbers at the same time, so that there may be gaps.
    """
    if connection.dialect.name == "sqlite":
        highest: int = connection.scalar(_highest(table)) or 0
        return range(highest + 1, highest + count + 1)
    return sorted(connection.scalars(_drawn(table), {"b_count": count}))


@cache
def _highest(table: Table) -> Select[Any]:
    return select(func.max(table.c.id))


@cache
def _drawn(table: Table) -> Select[Any]:
    drawn = func.nextval(func.pg_get_serial_sequence(table.name, "id"))
    return select(drawn).select_from(func.generate_series(1, bindparam("b_count")))
