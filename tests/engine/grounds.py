"""What the labs keep their state on: a file of SQLite each, or a database on a PostgreSQL server.

SYNCSVC_STATE=postgresql lets every test of the engine run on the server; else those do that conftest chooses.
"""

from __future__ import annotations

import builtins
import functools
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import psycopg
from postgres import Postgres
from sqlalchemy import event

from syncsvc.state.database import Database
from syncsvc.state.tables import META


class Ground(Protocol):
    """Where one lab's state is; it is looked at beside the process, and given back at the end."""

    @property
    def state(self) -> str: ...
    def rows(self, statement: str) -> list[tuple[Any, ...]]: ...
    def contents(self) -> str: ...
    def change(self, statement: str) -> int: ...
    def restore(self, contents: str) -> None: ...
    def kept(self) -> Any: ...
    def put_back(self, kept: Any) -> None: ...
    def bytes(self, value: builtins.bytes) -> str: ...
    def holds(self, text: str) -> bool: ...
    def written(self) -> object: ...
    def hasten(self, database: Database) -> None: ...
    def end(self) -> None: ...


@functools.cache
def _new_state() -> bytes:
    """Return the file of a state that holds nothing: making its tables anew takes longer than many a test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        Database.open(f"sqlite:///{path}").close()
        return path.read_bytes()


class File:
    """A state file in a lab's folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "lab.db"
        self._gate = folder / "lab.db.gate"
        if not self._path.exists():
            self._path.write_bytes(_new_state())

    @property
    def state(self) -> str:
        return f"sqlite:///{self._path}"

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self._path)) as connection:
            return connection.execute(statement).fetchall()

    def contents(self) -> str:
        with closing(sqlite3.connect(self._path)) as connection:
            return "\n".join(connection.iterdump())

    def change(self, statement: str) -> int:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            return connection.execute(statement).rowcount

    def bytes(self, value: builtins.bytes) -> str:
        return f"x'{value.hex()}'"

    def restore(self, contents: str) -> None:
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("PRAGMA foreign_keys = OFF")
            tables = [
                it for (it,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            for table in tables:
                connection.execute(f"DELETE FROM {table}")
            for line in contents.split(";\n"):
                if line.startswith(("INSERT INTO", 'DELETE FROM "sqlite_sequence"')):
                    connection.execute(line)

    def kept(self) -> tuple[sqlite3.Connection, builtins.bytes]:
        """Return a copy of all there is, in memory, and the mark beside it."""
        copy = sqlite3.connect(":memory:")
        with closing(sqlite3.connect(self._path)) as connection:
            connection.backup(copy)
        return copy, self._gate.read_bytes()

    def put_back(self, kept: tuple[sqlite3.Connection, builtins.bytes]) -> None:
        """Let a copy take the place of what there is; nobody may be in a transaction."""
        copy, mark = kept
        with closing(sqlite3.connect(self._path)) as connection:
            _wait_for_no_disk(connection, None)
            copy.backup(connection)
        self._gate.write_bytes(mark)  # else it would be taken for an older state, which is refused

    def holds(self, text: str) -> bool:
        """Return whether a text is anywhere on the disk, free pages and log included."""
        files = b"".join(it.read_bytes() for it in self._path.parent.glob("lab.db*"))
        return text.casefold().encode() in files.lower()

    def written(self) -> object:
        """Return what is another once anything was written, even if it was the same."""
        return self._path.with_name("lab.db-wal").stat().st_size

    def hasten(self, database: Database) -> None:
        """Let commits wait for no disk."""
        event.listen(database._storage.engine, "connect", _wait_for_no_disk)
        database._storage.engine.dispose()  # connections made before

    def end(self) -> None:
        pass


def _wait_for_no_disk(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF")


_NAMES = sorted(set(META.metadata.tables) - {"lease", "replica"})  # who writes is no part of what is written


class Tables:
    """A database of the test server; given back, another lab may have it."""

    def __init__(self, state: str, free: list[str]) -> None:
        self._free = free
        self.state = state
        self._beside = psycopg.connect(self.state.replace("+psycopg", "", 1), autocommit=True)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return self._beside.execute(statement.encode()).fetchall()

    def contents(self) -> str:
        return "\0".join("".join(sorted(self._copied(name))) for name in _NAMES)

    def _copied(self, name: str) -> Iterator[str]:
        with self._beside.cursor() as cursor, cursor.copy(f"COPY {name} TO STDOUT".encode()) as copy:
            yield from (builtins.bytes(it).decode() for it in copy)

    def change(self, statement: str) -> int:
        return self._beside.execute(statement.encode()).rowcount

    def bytes(self, value: builtins.bytes) -> str:
        return f"'\\x{value.hex()}'::bytea"

    def restore(self, contents: str) -> None:
        with self._beside.transaction(), self._beside.cursor() as cursor:
            cursor.execute("SET LOCAL session_replication_role = replica")
            for name, rows in zip(_NAMES, contents.split("\0"), strict=True):
                cursor.execute(f"DELETE FROM {name}".encode())
                with cursor.copy(f"COPY {name} FROM STDIN".encode()) as copy:
                    copy.write(rows)

    def kept(self) -> str:
        return self.contents()

    def put_back(self, kept: str) -> None:
        self.restore(kept)

    def holds(self, text: str) -> bool:
        """Return whether a text is in any row; the server's files are not ours to look at."""
        found, hexes = self.contents().lower(), text.encode().hex()
        return text.casefold() in found or hexes in found

    def written(self) -> object:
        return [self.rows(f"SELECT ctid::text, xmin::text FROM {name} ORDER BY 1") for name in _NAMES]

    def hasten(self, database: Database) -> None:
        """Do nothing: the server waits for no disk."""

    def end(self) -> None:
        self._beside.close()
        self._free.append(self.state)

    def empty(self) -> None:
        counters = self.rows("SELECT relname FROM pg_class WHERE relkind = 'S'")
        names = sorted(META.metadata.tables)
        said = ["SET session_replication_role = replica", *(f"DELETE FROM {name}" for name in names)]
        said += [f"ALTER SEQUENCE {name} RESTART" for (name,) in counters]
        self._beside.execute("; ".join([*said, "RESET session_replication_role"]).encode())


class Grounds:
    """Makes the ground of each lab; `server` is set while tests run on it."""

    def __init__(self) -> None:
        self.server: Postgres | None = None
        self._free: list[str] = []
        self._made: dict[Path, Ground] = {}

    def of(self, folder: Path) -> Ground:
        """Return the ground of the lab in a folder, the same for another lab there."""
        if folder not in self._made:
            self._made[folder] = File(folder) if self.server is None else self._tables(self.server)
        return self._made[folder]

    def _tables(self, server: Postgres) -> Tables:
        if not self._free:
            return Tables(server.database(), self._free)
        found = Tables(self._free.pop(), self._free)
        found.empty()
        return found

    def end(self, folder: Path) -> None:
        """Let others have what the lab in a folder stood on."""
        self._made.pop(folder).end()


GROUNDS = Grounds()
