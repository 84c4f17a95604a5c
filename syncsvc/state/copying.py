"""Copies a state, row by row, from one kind of storage to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy import Connection, Table, func, select, text
from sqlmodel import SQLModel

from syncsvc.state import interventions, tables  # noqa: F401 - they declare the tables on the metadata
from syncsvc.state.bulk import insert_rows

_PAGE = 2000

Told = Callable[[str, int, int], None]
"""Called with a table's name, how many of its rows are copied, and how many there are."""


def copy_tables(source: Connection, target: Connection, told: Told | None = None) -> Mapping[str, int]:
    """Copy every row of every table into tables that are empty; returns how many, by table.

    Numbers that were given away are not given away again. Both connections are in transactions, which the
    caller ends.
    """
    copied = {}
    for table in SQLModel.metadata.sorted_tables:
        copied[table.name] = _copy(source, target, table, told)
        if list(table.primary_key) == [table.c.get("id")] and table.c.id.type.python_type is int:
            _go_on_counting(source, target, table)
    return copied


def rows_of(connection: Connection) -> Mapping[str, int]:
    """Return how many rows each table has."""
    return {it.name: _count(connection, it) for it in SQLModel.metadata.sorted_tables}


def _count(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0


def _copy(source: Connection, target: Connection, table: Table, told: Told | None) -> int:
    insert = insert_rows(table, [column.name for column in table.columns])
    done, whole = 0, _count(source, table) if told else 0
    rows = source.execute(select(table), execution_options={"yield_per": _PAGE})
    for page in rows.partitions(_PAGE):
        insert.run(target, [tuple(row) for row in page])
        done += len(page)
        if told:
            told(table.name, done, whole)
    return done


def _go_on_counting(source: Connection, target: Connection, table: Table) -> None:
    highest: int = max(target.scalar(select(func.max(table.c.id))) or 0, _given_away(source, table))
    if not highest:
        return
    named = {"b_table": table.name, "b_highest": highest}
    if target.dialect.name == "sqlite":
        target.execute(text("UPDATE sqlite_sequence SET seq = :b_highest WHERE name = :b_table"), named)
    else:
        target.execute(text("SELECT setval(pg_get_serial_sequence(:b_table, 'id'), :b_highest)"), named)


def _given_away(source: Connection, table: Table) -> int:
    """Return the highest number that was given to a row, as far as the storage remembers."""
    if source.dialect.name == "sqlite":
        asked = text("SELECT seq FROM sqlite_sequence WHERE name = :b_table")
        return int(source.scalar(asked, {"b_table": table.name}) or 0)
    name = source.scalar(text("SELECT pg_get_serial_sequence(:b_table, 'id')"), {"b_table": table.name})
    last, called = source.execute(text(f"SELECT last_value, is_called FROM {name}")).one()
    return int(last) if called else 0
