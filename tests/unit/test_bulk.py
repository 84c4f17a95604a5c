"""Statements for many rows: every row is stored once and as it was given, however many there are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    create_engine,
    select,
)

from syncsvc.state.bulk import insert_rows, update_rows

THINGS = Table(
    "thing",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String),
    Column("content", LargeBinary),
    Column("count", Integer, nullable=False, server_default="7"),
)
INSERT = insert_rows(THINGS, ("id", "name", "content"))
UPDATE = update_rows(THINGS, ("id",), ("name", "content"))


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        THINGS.create(connection)
        yield connection
    engine.dispose()


def stored(connection: Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in connection.execute(select(THINGS).order_by(THINGS.c.id))]


@pytest.mark.parametrize("count", [0, 1, 249, 250, 251, 499, 500, 501])
def test_every_row_is_inserted_once_around_the_length_of_a_statement(
    connection: Connection, count: int
) -> None:
    rows = [(number, f"thing {number}", None if number % 2 else b"%d" % number) for number in range(count)]
    INSERT.run(connection, rows)
    assert stored(connection) == [(*row, 7) for row in rows]


def test_rows_are_updated_each_by_its_key(connection: Connection) -> None:
    INSERT.run(connection, [(number, "old", b"old") for number in range(3)])
    UPDATE.run(connection, [("new", None, 2), ("newer", b"n", 0)])
    assert stored(connection) == [(0, "newer", b"n", 7), (1, "old", b"old", 7), (2, "new", None, 7)]


def test_nothing_to_do_is_done(connection: Connection) -> None:
    UPDATE.run(connection, [])
    assert stored(connection) == []


def test_rows_whose_key_is_taken_are_left_out_and_not_counted(connection: Connection) -> None:
    INSERT.run(connection, [(number, "first", None) for number in (0, 251)])
    rows = [(number, "second", None) for number in range(253)]
    assert insert_rows(THINGS, ("id", "name", "content"), unless_taken=True).run(connection, rows) == 251
    assert [row[:2] for row in stored(connection) if row[1] == "first"] == [(0, "first"), (251, "first")]
    assert len(stored(connection)) == 253
