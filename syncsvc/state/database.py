"""The state database: a file of SQLite (`sqlite`), or tables of a PostgreSQL server (`postgres`).

Those who run cycles open it; others may read it beside them and add a person's decisions.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import orjson
from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Engine,
    Row,
    String,
    Table,
    Update,
    bindparam,
    literal,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.selectable import TableValuedAlias

from syncsvc.errors import StateError
from syncsvc.state.lease import Lease
from syncsvc.state.leases import LEASE, Leases
from syncsvc.state.mark import Mark, bar, look_beside
from syncsvc.state.postgres import StateServer
from syncsvc.state.sqlite import StateFile, path_of
from syncsvc.stateurl import state_problem

Record = Row[*tuple[Any, ...]]
"""A row of a query, by column name."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)


def to_ms(at: datetime) -> int:
    """Return a time as the tables hold it."""
    return (at - _EPOCH) // _MS


def from_ms(value: int) -> datetime:
    """Return a time as the code holds it: aware UTC."""
    return _EPOCH + value * _MS


def among(column: ColumnElement[Any], values: Iterable[str | int]) -> ColumnElement[bool]:
    """Return `column IN values` for any number of values, bound as one parameter.

    One statement text for every page, and a plan that looks each value up in the column's index.
    """
    return _InList(column, literal(as_list(values), String))


def one_of(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Return `column IN` the values that are bound as `name` by `as_list`; like `among`, built once."""
    return _InList(column, bindparam(name, type_=String))


def as_list(values: Iterable[str | int]) -> str:
    """Return any number of values as one, to be bound where `one_of` names it."""
    return orjson.dumps(list(values)).decode()


class _InList(FunctionElement[bool]):
    """A column's value is among those of a list in JSON."""

    inherit_cache = True
    name = "in_list"
    type = Boolean()

    # Else SQLite is asked whether it is = 1, which no index answers.

    def self_group(self, against: Any = None) -> Any:
        """Stand as a condition by itself."""
        del against
        return self

    def _negate(self) -> Any:
        return UnaryExpression(self, operator=operators.inv, type_=self.type)


@compiles(_InList)
def _in_json(element: _InList, compiler: Any, **options: Any) -> str:
    column, values = (compiler.process(it, **options) for it in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({values}))"


@compiles(_InList, "postgresql")
def _in_array(element: _InList, compiler: Any, **options: Any) -> str:
    column, values = element.clauses
    kind = compiler.dialect.type_compiler_instance.process(column.type)
    listed = (
        f"SELECT value::{kind} FROM json_array_elements_text(({compiler.process(values, **options)})::json)"
    )
    return f"{compiler.process(column, **options)} = ANY (ARRAY({listed}))"


def each_of(name: str) -> TableValuedAlias:
    """Return the keys and values that are bound as `name` by `as_object`: `key` and `value` of a table."""
    return _Pairs(bindparam(name, type_=String)).table_valued("key", "value", name="pairs")


def as_object(values: Mapping[str, str]) -> str:
    """Return any number of texts by their keys as one value, to be bound where `each_of` names it."""
    return orjson.dumps(values).decode()


class _Pairs(FunctionElement[str]):
    """The members of an object in JSON."""

    inherit_cache = True
    name = "pairs"


@compiles(_Pairs)
def _each(element: _Pairs, compiler: Any, **options: Any) -> str:
    (values,) = element.clauses
    return f"json_each({compiler.process(values, **options)})"


@compiles(_Pairs, "postgresql")
def _each_text(element: _Pairs, compiler: Any, **options: Any) -> str:
    (values,) = element.clauses
    return f"json_each_text(({compiler.process(values, **options)})::json)"


def change_row(connection: Connection, table: Table, row_id: int, values: Mapping[str, Any]) -> None:
    """Give the row with this id these values, inside the caller's transaction."""
    bound = {f"b_{name}": value for name, value in values.items()}
    connection.execute(_row_changed(table, tuple(sorted(values))), bound | {"b_id": row_id})


@cache
def _row_changed(table: Table, names: tuple[str, ...]) -> Update:
    values = {name: bindparam(f"b_{name}", type_=table.c[name].type) for name in names}
    return update(table).where(table.c.id == bindparam("b_id")).values(values)


class Storage(Protocol):
    """Where a state is kept, opened; see `StateFile` and `StateServer`."""

    engine: Engine

    @property
    def leases(self) -> Leases:
        """Whose the cycles of each organization are."""

    @property
    def runs_cycles(self) -> bool:
        """Whether this process runs cycles, and is not beside one that does."""

    def writing(
        self, organization: int | None, lease: Lease | None = None
    ) -> AbstractContextManager[Connection]:
        """Give a connection inside one write transaction, the only one of its organization.

        With its lease, raises LeaseLostError where another process has it.
        """

    def reading(self) -> AbstractContextManager[Connection]:
        """Give a connection inside one read transaction: everything in it is of one moment."""

    def known(self) -> Mark:
        """Return how far the state has come by what is in it."""

    def reached(self, batch: int) -> None:
        """Write down outside of the state that this batch was claimed, where that can be."""

    def mark(self, known: Mark) -> None:
        """Write down outside of the state that it has come so far, where that can be."""

    @property
    def place(self) -> str:
        """Where it is, told without its password."""

    def shed(self) -> None:
        """Take what has been erased out of logs of ours that still hold it, where that is free."""

    def scrub(self) -> bool:
        """Take out what has been erased wherever it is in our reach; returns whether it could."""

    def close(self) -> None:
        """Give everything back, once a write under way has ended."""


def kind_of(url: str) -> type[StateFile | StateServer]:
    """Return what keeps the state that `service.state` names; raises StateError where nothing does."""
    if url.startswith("sqlite://"):
        return StateFile
    if problem := state_problem(url, secret=True):
        raise StateError(f"state {problem}")
    return StateServer


class Database:
    """An open state database, or the part of it that one organization writes."""

    def __init__(self, storage: Storage, organization: int | None = None, lease: Lease | None = None) -> None:
        """Write for an organization, or for none; see `open` and `of`."""
        self._storage = storage
        self._organization = organization
        self._lease = lease

    @staticmethod
    def exists(url: str) -> bool:
        """Return whether there is a state already."""
        return kind_of(url).exists(url)

    @classmethod
    def open(cls, url: str, lease: timedelta = LEASE) -> Self:
        """Return the database for a process that runs cycles, created and migrated where needed.

        `lease` is how long the cycles of an organization stay with a process that is not heard of. Raises
        StateError where it cannot be used, where another process runs cycles on a file, or where a file knows
        less than was sent.
        """
        return cls(kind_of(url).open(url, lease))

    @classmethod
    def open_older(cls, url: str) -> Self:
        """Return the database as `open` does, one that knows less than was sent too: see `Restoration`."""
        return cls(kind_of(url).open(url, LEASE, older=True))

    @classmethod
    def open_original(cls, url: str) -> tuple[Self, bool]:
        """Return the database to be copied, and whether anything says that it is the newest.

        Raises StateError as `open` does, but for a file beside which nothing says so, as a backup.
        """
        kind = kind_of(url)
        unsure = kind is StateFile and look_beside(path_of(url)).missing
        return cls(kind.open(url, LEASE, older=unsure)), not unsure

    @classmethod
    def open_for_copy(cls, url: str, original: Database) -> Self:
        """Return the database to copy another one to, created where needed.

        Raises StateError as `open` does; but a file that is gone, or holds nothing, is no older state where
        the original knows all that was sent by what was there.
        """
        kind = kind_of(url)
        if kind is StateFile:
            StateFile.refuse_copy(url, original.known())
        return cls(kind.open(url, LEASE, older=True))

    @classmethod
    def open_beside(cls, url: str) -> Self:
        """Return the database beside a process that runs cycles: to be read, and for a person's decisions.

        Raises StateError where there is none yet, or where it is of another version.
        """
        return cls(kind_of(url).open_beside(url))

    @classmethod
    @contextlib.contextmanager
    def scratch(cls, url: str) -> Iterator[Self]:
        """Give a private copy to try things on, empty where there is no state yet; deleted at the end."""
        with tempfile.TemporaryDirectory(prefix="syncsvc-") as folder:
            copy = Path(folder) / "scratch.db"
            kind_of(url).copy_to(url, copy)
            with cls.open_older(f"sqlite:///{copy}") as database:  # nothing is sent on it
                yield database

    def of(self, organization: int, lease: Lease | None = None) -> Database:
        """Return the database to write for one organization: its writers take turns, the others go on.

        Whoever runs its cycles shows the lease with every write.
        """
        return Database(self._storage, organization, lease)

    @property
    def leases(self) -> Leases:
        """Whose the cycles of each organization are."""
        return self._storage.leases

    @property
    def runs_cycles(self) -> bool:
        """Whether this is the process that runs cycles, and not one beside it."""
        return self._storage.runs_cycles

    def writing(self) -> AbstractContextManager[Connection]:
        """Give a connection inside one write transaction, committed at the end of the block.

        Nobody else writes for its organization meanwhile. Raises StateError where the database refuses (a
        full disk, a read-only file, a server that is away). Where a server is lost at the very end, nobody
        knows whether it was committed: then too StateError is raised, and the caller goes on as after a
        death there. Raises LeaseLostError where it writes by a lease that another process has by now.
        """
        return self._storage.writing(self._organization, self._lease)

    def reading(self) -> AbstractContextManager[Connection]:
        """Give a connection inside one read transaction: everything in it is of one moment."""
        return self._storage.reading()

    def reached(self, batch: int) -> None:
        """Let a state that does not know this batch, or any before it, be refused from now on.

        A server's state cannot be told from an older one.
        """
        self._storage.reached(batch)

    @property
    def place(self) -> str:
        """Where it is, told without a password."""
        return self._storage.place

    def bar(self, why: str) -> None:
        """Let no cycle run on this state until somebody takes it on; see `mark.bar`."""
        with self.writing() as connection:
            bar(connection, why)

    def known(self) -> Mark:
        """Return how far the state has come by what is in it."""
        return self._storage.known()

    def mark(self, known: Mark) -> None:
        """Let a state that knows less than this be refused here from now on, or one of another history."""
        self._storage.mark(known)

    def shed(self) -> None:
        """Empty the write-ahead log of a file: it still holds what has been erased there since.

        Where somebody reads, this does nothing; the next call makes up for it. A server's log is not ours.
        """
        self._storage.shed()

    def scrub(self) -> bool:
        """Take out what has been erased, free pages and log included as far as they are ours to reach.

        Returns whether it could: not while somebody reads for long.
        """
        return self._storage.scrub()

    def close(self) -> None:
        """Give everything back, once a write under way has ended; another process can open it now."""
        self._storage.close()

    def __enter__(self) -> Self:
        """Return the database."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
