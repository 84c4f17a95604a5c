"""What the tables are made of: kinds of columns, and how keys and indexes are named."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, SmallInteger, Table, text
from sqlmodel import Field, SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def time_column(*, nullable: bool = True) -> Any:
    """Return a column for milliseconds since 1970 UTC, or for any large number."""
    return Field(default=None, sa_column=Column(BigInteger, nullable=nullable))


def fingerprint_column() -> Any:
    """Return a column for 16 bytes, or none."""
    return Field(default=None, sa_column=Column(LargeBinary(16), nullable=True))


def small_column(default: int = 0) -> Any:
    """Return a column for a code or a flag."""
    return Field(sa_column=Column(SmallInteger, nullable=False, server_default=text(str(default))))


def count_column() -> Any:
    """Return a column for a whole number that begins at 0."""
    return Field(sa_column=Column(BigInteger, nullable=False, server_default=text("0")))


def table(row: type[SQLModel]) -> Table:
    """Return the Core table behind a class; on a server its numbers are as large as in a file."""
    made: Table = row.__table__  # type: ignore[attr-defined]
    for column in made.columns:
        if type(column.type) is Integer:
            column.type = Integer().with_variant(BigInteger(), "postgresql")
    return made


def where_index(condition: str, name: str, *columns: str) -> Index:
    """Return an index of the rows that meet a condition, which are few."""
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))
