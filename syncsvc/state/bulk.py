"""Statements for many rows: compiled once, run over tuples.

SQLAlchemy's own way takes a dict a row and looks at each value, which costs more than the database does.
The statements are still built from the tables; only the rows pass by.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Table, Update, bindparam, update

Row = tuple[Any, ...]


class Bulk:
    """One statement to be run once for every row, a tuple in the order of `names`."""

    def __init__(self, statement: Insert | Update, names: Sequence[str]) -> None:
        """Take a statement whose bound parameters are called `names`."""
        self._statement = statement
        self._names = tuple(names)
        self._compiled: dict[str, tuple[str, list[int] | None]] = {}

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Run the statement for every row, inside the caller's transaction."""
        if not rows:
            return
        text, order = self._compile(connection)
        if order is not None:
            rows = [tuple([row[place] for place in order]) for row in rows]
        connection.exec_driver_sql(text, list(rows))

    def _compile(self, connection: Connection) -> tuple[str, list[int] | None]:
        dialect = connection.dialect
        known = self._compiled.get(dialect.name)
        if known is None:
            compiled = self._statement.compile(dialect=dialect)
            order = [self._names.index(name) for name in compiled.positiontup or self._names]
            known = str(compiled), None if order == list(range(len(order))) else order
            self._compiled[dialect.name] = known
        return known


def insert_rows(table: Table, names: Sequence[str]) -> Bulk:
    """Return the statement that inserts rows with these columns."""
    return Bulk(table.insert().values({name: bindparam(name) for name in names}), names)


def update_rows(table: Table, keys: Sequence[str], names: Sequence[str]) -> Bulk:
    """Return the statement that updates these columns; a row holds them first, then the key."""
    found = [table.c[key] == bindparam(f"key_{key}") for key in keys]
    values = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in names}
    bound = [*(f"new_{name}" for name in names), *(f"key_{key}" for key in keys)]
    return Bulk(update(table).where(*found).values(values), bound)
