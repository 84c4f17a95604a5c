"""Statements for many rows: compiled once, run over tuples.

SQLAlchemy's own way takes a dict a row and looks at each value, which costs more than the database does.
The statements are still built from the tables; only the rows pass by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import orjson
from sqlalchemy import Connection, Insert, Table, Update, bindparam, update
from sqlalchemy.dialects.postgresql import Insert as Upsert
from sqlalchemy.dialects.postgresql import insert  # its ON CONFLICT is SQLite's too

Row = tuple[Any, ...]

_TOGETHER = 250  # rows of one INSERT, since each statement costs; far below SQLite's 32,766 bound values


class Bulk:
    """One statement to be run once for every row, a tuple in the order of `names`."""

    def __init__(self, statement: Insert | Update, names: Sequence[str]) -> None:
        """Take a statement whose bound parameters are called `names`, in their order in the statement."""
        self._statement = statement
        self.names = list(names)
        self._texts: dict[str, str] = {}

    def run(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Run the statement for every row, inside the caller's transaction; returns how many it changed."""
        return connection.exec_driver_sql(self._text(connection), list(rows)).rowcount if rows else 0

    def _text(self, connection: Connection) -> str:
        dialect = connection.dialect
        if dialect.name not in self._texts:
            compiled = self._statement.compile(dialect=dialect)
            assert compiled.positiontup in (None, self.names)  # noqa: S101 - else rows would be stored askew
            self._texts[dialect.name] = str(compiled)
        return self._texts[dialect.name]


class BulkInsert(Bulk):
    """An INSERT, which takes many rows in one statement."""

    def __init__(self, statement: Insert, names: Sequence[str]) -> None:
        """Take a statement whose bound parameters are called `names`, in their order in the statement."""
        super().__init__(statement, names)
        self._longer: dict[str, str] = {}

    def run(self, connection: Connection, rows: Sequence[Row]) -> int:
        """Insert the rows, inside the caller's transaction; returns how many are new."""
        whole, new = len(rows) - len(rows) % _TOGETHER, 0
        for begin in range(0, whole, _TOGETHER):
            values = tuple(chain.from_iterable(rows[begin : begin + _TOGETHER]))
            new += connection.exec_driver_sql(self._long(connection), values).rowcount
        return new + super().run(connection, rows[whole:])

    def _long(self, connection: Connection) -> str:
        name = connection.dialect.name
        if name not in self._longer:
            head, _, rest = self._text(connection).partition(" VALUES ")
            values, unless, taken = rest.partition(" ON CONFLICT ")
            self._longer[name] = f"{head} VALUES {', '.join([values] * _TOGETHER)}{unless}{taken}"
        return self._longer[name]


def run_alike(
    connection: Connection, one: Bulk, many: Bulk, alike: Mapping[Row, Sequence[str | int]]
) -> None:
    """Give rows values that some of them share: `alike` says by the values which, each by its key.

    `many` takes the values and a list of keys (JSON), `one` the values and a key: cheaper for a row alone.
    """
    one.run(connection, [(*values, *keys) for values, keys in alike.items() if len(keys) == 1])
    shared = [(values, keys) for values, keys in alike.items() if len(keys) > 1]
    many.run(connection, [(*values, orjson.dumps(keys).decode()) for values, keys in shared])


def insert_rows(
    table: Table, names: Sequence[str], *, unless_taken: bool = False, replacing: bool = False
) -> BulkInsert:
    """Return the statement that inserts rows with these columns, named in the table's order.

    A row whose key another one has is left out with `unless_taken`, and takes its place when `replacing`.
    """
    statement = insert(table).values({name: bindparam(name) for name in names}).inline()  # returns nothing
    if unless_taken:
        statement = statement.on_conflict_do_nothing()
    if replacing:
        statement = _replacing(statement, table)
    return BulkInsert(statement, names)


def put_rows(table: Table) -> Insert:
    """Return the statement that inserts rows, each in the place of one with the same key."""
    return _replacing(insert(table), table)


def _replacing(statement: Upsert, table: Table) -> Upsert:
    key = [column.name for column in table.primary_key]
    others = {column.name: statement.excluded[column.name] for column in table.c if column.name not in key}
    return statement.on_conflict_do_update(index_elements=key, set_=others)


def update_rows(table: Table, keys: Sequence[str], names: Sequence[str]) -> Bulk:
    """Return the statement that updates these columns, named in the table's order.

    A row holds them first, then the key.
    """
    found = [table.c[key] == bindparam(f"key_{key}") for key in keys]
    values = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in names}
    bound = [*(f"new_{name}" for name in names), *(f"key_{key}" for key in keys)]
    return Bulk(update(table).where(*found).values(values), bound)
