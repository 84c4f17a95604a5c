"""Copies a state, row by row, from one kind of storage to another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Table, func, select, text
from sqlmodel import SQLModel

from syncsvc.errors import StateError
from syncsvc.state import histories, interventions, tables  # noqa: F401 - they declare the tables on the metadata
from syncsvc.state.bulk import insert_rows
from syncsvc.state.mark import Mark

if TYPE_CHECKING:
    from syncsvc.state.database import Database

_PAGE = 2000

Told = Callable[[str, int, int], None]
"""Called with a table's name, how many of its rows are copied, and how many there are."""
_Counted = Callable[[str, int], None]

_IDLE = "SET LOCAL idle_in_transaction_session_timeout = '5min'"
"""Said to a server that is copied to: it waits while the source is read. A cycle's limit is far shorter, for
others wait for it; for a state that holds nothing yet, nobody does."""


def _tables() -> list[Table]:
    """Return what is copied; who runs cycles is a matter of each place."""
    return [it for it in SQLModel.metadata.sorted_tables if it not in (tables.LEASE, tables.REPLICA)]


def copy_tables(source: Connection, target: Connection, told: _Counted | None = None) -> Mapping[str, int]:
    """Copy every row of every table into tables that are empty; returns how many, by table.

    Numbers that were given away are not given away again. Both connections are in transactions, which the
    caller ends. `told` is called with a table's name and how many of its rows are copied.
    """
    copied = {}
    for table in _tables():
        copied[str(table.name)] = _copy(source, target, table, told)
        if [it.name for it in table.primary_key] == ["id"] and table.c.id.type.python_type is int:
            _go_on_counting(source, target, table)
    return copied


def copy_state(source: Database, target: Database, told: Told | None = None) -> Mapping[str, int]:
    """Copy a whole state into one that holds nothing, all or none of it; returns how many rows, by table.

    Raises StateError where the target holds anything, or holds anything else at the end.
    """
    with source.reading() as read:
        there = rows_of(read)  # before the target waits in a transaction: it takes long where there are many
        return _copy_all(read, target, there, source.known(), told)


def _copy_all(
    read: Connection, target: Database, there: Mapping[str, int], known: Mark, told: Told | None
) -> Mapping[str, int]:
    with target.writing() as written:
        if written.dialect.name == "postgresql":
            written.execute(text(_IDLE))
        if taken := [name for name, rows in rows_of(written).items() if rows]:
            raise StateError(
                f"the state to copy to is not empty: it has rows in {', '.join(taken)}; name another one, or "
                "empty it if nobody needs it: what is there is never written over"
            )
        tell = None if told is None else lambda table, done: told(table, done, there[table])
        copied = copy_tables(read, written, tell)
        if (found := rows_of(written)) != there or copied != found:
            differing = ", ".join(name for name, rows in found.items() if rows != there[name])
            raise StateError(f"the copy has other rows than the original in {differing}: nothing was copied")
        target.mark(known)  # before it is committed: whoever is killed in between can copy again
        return copied


def rows_of(connection: Connection) -> Mapping[str, int]:
    """Return how many rows each table has."""
    return {str(it.name): _count(connection, it) for it in _tables()}


def _count(connection: Connection, table: Table) -> int:
    return connection.scalar(select(func.count()).select_from(table)) or 0


def _copy(source: Connection, target: Connection, table: Table, told: _Counted | None) -> int:
    insert = insert_rows(table, [column.name for column in table.columns])
    done = 0
    rows = source.execute(select(table), execution_options={"yield_per": _PAGE})
    for page in rows.partitions(_PAGE):
        insert.run(target, [tuple(row) for row in page])
        done += len(page)
        if told:
            told(table.name, done)
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
