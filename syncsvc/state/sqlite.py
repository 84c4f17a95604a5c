"""The state in a file of SQLite: one process runs cycles on it, others may read it and add a decision.

SQLite runs in WAL mode with synchronous FULL: what is committed survives a power cut. Every write transaction
begins with BEGIN IMMEDIATE, since a deferred one lets another writer in after our first SELECT.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy import exc as sa_exc
from sqlalchemy.pool import NullPool

from syncsvc.errors import StateError
from syncsvc.state import locks, migrations
from syncsvc.state.lease import Lease
from syncsvc.state.leases import LEASE, Leases, SoleLeases
from syncsvc.state.mark import NOTHING, Mark, MarkedGate, look_beside, mark_of
from syncsvc.state.surroundings import unusable

_READERS_KEPT = 16
"""Connections that are kept for the next readers; more are made where more read at once."""

_PATIENCE = "PRAGMA busy_timeout = 10000"
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    _PATIENCE,
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -4096",
    "PRAGMA secure_delete = ON",  # what is erased is overwritten: payloads hold personal data
)


def _as_it_is(value: Any) -> Any:
    return value


# Without an adapter the driver looks for one in every None and bytes it binds, by an exception that it drops:
# a tenth of what storing a page costs.
for _kind in (type(None), bytes):
    sqlite3.register_adapter(_kind, _as_it_is)


def path_of(url: str) -> Path:
    """Return the file that `service.state` names; raises StateError where it names none that we can use."""
    parsed = make_url(url)
    if not parsed.database or parsed.database == ":memory:":
        raise StateError("state must name a file, such as sqlite:///syncsvc.db: a restart must find it again")
    return Path(parsed.database)


def _connect(path: Path) -> Engine:
    url = URL.create("sqlite", database=str(path))
    engine = create_engine(
        url,
        connect_args={"check_same_thread": False},
        hide_parameters=True,
        poolclass=NullPool,  # a `StateFile` keeps its own; SQLAlchemy's lets the 16th reader wait, and fail
    )

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late
        cursor = connection.cursor()
        for pragma in _PRAGMAS:
            cursor.execute(pragma)
        cursor.close()

    return engine


@contextlib.contextmanager
def _for_migrations(path: Path) -> Iterator[Engine]:
    """Give an engine whose transactions SQLAlchemy begins, as the tool that migrates expects."""
    engine = _connect(path)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.connection.cursor().execute("BEGIN IMMEDIATE")

    try:
        yield engine
    finally:
        engine.dispose()


@contextlib.contextmanager
def _transaction(connection: Connection, begin: str) -> Iterator[None]:
    """Begin, and commit or roll back, what is done with a connection.

    Said to the driver itself: a cycle has dozens of transactions, and a listener that SQLAlchemy calls at
    each makes every statement dearer.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - it is what we connect with
    driver.execute(begin)
    try:
        yield
        driver.commit()
    except BaseException:
        driver.rollback()
        raise


class StateFile:
    """An open state file."""

    def __init__(
        self,
        path: Path,
        engine: Engine,
        *,
        cycles: int | None,
        gate: int | None,
        marked: MarkedGate | None = None,
    ) -> None:
        """Hold the engine and the descriptors of the two lock files; see `open`."""
        self.path = path
        self.engine = engine
        self.leases: Leases = SoleLeases()
        self._cycles = cycles
        self._gate = gate
        self._marked = marked
        self._write_lock = threading.RLock()
        self._writer: Connection | None = None
        self._readers: list[Connection] = []  # those that nobody reads with now

    @staticmethod
    def exists(url: str) -> bool:
        """Return whether there is a file already."""
        return path_of(url).exists()

    @classmethod
    def open(cls, url: str, lease: timedelta = LEASE, *, older: bool = False) -> Self:
        """Return the file for the one process that runs cycles, created and migrated where needed.

        Raises StateError where it cannot be used, where another process runs cycles on it, or where it knows
        less than was sent; one that is `older` is opened to be taken on.
        """
        del lease  # it lasts as long as the file is open
        path = path_of(url)
        with contextlib.ExitStack() as undo:
            with _told(path, OSError):
                cycles = locks.take(path)
            undo.callback(os.close, cycles)
            with _told(path, OSError):
                gate = locks.open_gate(path)
                undo.callback(os.close, gate)
                marked = MarkedGate(gate)
                if not path.exists() and not older:
                    marked.refuse_older(path, NOTHING)
                create_private(path)
                engine = _connect(path)
                undo.callback(engine.dispose)
                with locks.passing(gate):
                    with _for_migrations(path) as changing:
                        migrations.upgrade(changing)
                    known = _known(engine)
                    if not older:
                        marked.refuse_older(path, known)
                        marked.move(known)
            undo.pop_all()
        return cls(path, engine, cycles=cycles, gate=gate, marked=marked)

    @classmethod
    def open_beside(cls, url: str) -> Self:
        """Return the file beside a process that runs cycles: to be read, and for a person's decisions.

        Raises StateError where there is none yet, or where it is of another version.
        """
        path = path_of(url)
        if not path.exists():
            with _told(path, OSError):
                look_beside(path).refuse_older(path, NOTHING)
            raise StateError(f"there is no state in {path} yet: run a cycle first, with `once` or `run`")
        with contextlib.ExitStack() as undo, _told(path, OSError):
            engine = _connect(path)
            undo.callback(engine.dispose)
            migrations.require_current(engine)
            gate = locks.open_gate(path)
            undo.pop_all()
        return cls(path, engine, cycles=None, gate=gate)

    @staticmethod
    def refuse_copy(url: str, known: Mark) -> None:
        """Raise StateError where a state that knows this much may not be copied to this place.

        What is beside it tells how much was sent from there; nothing is made or changed.
        """
        path = path_of(url)
        with _told(path, OSError):
            look_beside(path).refuse_copy(path, known)

    @staticmethod
    def copy_to(url: str, copy: Path) -> None:
        """Make a private copy of the file, where there is one; nothing is made where there is none."""
        path = path_of(url)
        if path.exists():
            with _told(path, sqlite3.Error):
                create_private(copy)
                # Read only, so that closing it never moves the log of the original into the original.
                uri = f"{path.absolute().as_uri()}?mode=ro"
                with contextlib.closing(sqlite3.connect(uri, uri=True)) as source:
                    source.execute("VACUUM INTO ?", (str(copy),))

    @property
    def place(self) -> str:
        """See `Storage`."""
        return str(self.path.absolute())

    @property
    def runs_cycles(self) -> bool:
        """Whether this is the process that runs cycles, and not one beside it."""
        return self._cycles is not None

    @contextlib.contextmanager
    def writing(self, organization: int | None, lease: Lease | None = None) -> Iterator[Connection]:
        """Give a connection inside one write transaction; one at a time, whatever `organization` it is of."""
        del organization, lease  # every lease is held by the process that has the file
        with self._write_lock, locks.passing(self._gate), _told(self.path):
            if self._writer is None:
                self._writer = self.engine.connect()
            with _transaction(self._writer, "BEGIN IMMEDIATE"):
                yield self._writer

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection inside one read transaction: everything in it is of one moment."""
        with _told(self.path):
            try:
                connection = self._readers.pop()
            except IndexError:
                connection = self.engine.connect()
            try:
                with _transaction(connection, "BEGIN"):
                    yield connection
            except BaseException:
                connection.close()
                raise
            if len(self._readers) < _READERS_KEPT:
                self._readers.append(connection)
            else:
                connection.close()

    def known(self) -> Mark:
        """Return how far the file has come by what is in it."""
        with _told(self.path):
            return _known(self.engine)

    def reached(self, batch: int) -> None:
        """Write down beside the file that this batch was claimed, before its request leaves."""
        if self._marked is not None:
            with _told(self.path, OSError):
                if not self._marked.reach(batch):
                    self._marked.move(_known(self.engine))

    def mark(self, known: Mark) -> None:
        """Write down beside the file how far it has come, whatever was written there before."""
        with _told(self.path, OSError):
            if self._marked is not None:
                self._marked.move(known)

    def shed(self) -> None:
        """Empty the write-ahead log into the file: it still holds what has been erased there since.

        Where somebody reads, this does nothing; the next call makes up for it.
        """
        with self._write_lock, locks.passing(self._gate), _told(self.path):
            if self._writer is not None:
                cursor = self._writer.connection.cursor()
                cursor.execute("PRAGMA busy_timeout = 0")
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                cursor.execute(_PATIENCE)
                cursor.close()

    def scrub(self) -> bool:
        """Write the file anew without free pages, and empty the write-ahead log; returns whether it could.

        It cannot while somebody reads for more than ten seconds.
        """
        with (
            self._write_lock,
            locks.passing(self._gate),
            _told(self.path, sqlite3.Error),
            contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection,
        ):
            connection.execute(_PATIENCE)
            connection.execute("PRAGMA temp_store = MEMORY")
            try:
                connection.execute("VACUUM")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                return False
            (blocked, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not blocked

    def close(self) -> None:
        """Give everything back, once a write under way has ended; another process can open it now."""
        with self._write_lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            while self._readers:
                self._readers.pop().close()
            self.engine.dispose()
            for descriptor in (self._cycles, self._gate):
                if descriptor is not None:
                    os.close(descriptor)
            self._cycles = self._gate = None


def _known(engine: Engine) -> Mark:
    with engine.connect() as connection:
        opened = connection.connection.driver_connection
        assert isinstance(opened, sqlite3.Connection)  # noqa: S101 - of a file it is
        return mark_of(opened)


def create_private(path: Path) -> None:
    """Make a file that nobody else can read; one that is there is made so."""
    # Created here and not by the driver, so that nobody else can read it at any moment.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)


@contextlib.contextmanager
def _told(path: Path, *others: type[Exception]) -> Iterator[None]:
    """Turn what the database says of itself, and `others`, into StateError; a mistake of ours stays one."""
    try:
        yield
    except sqlite3.DatabaseError as error:  # as a transaction begins or ends
        if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
            raise unusable(path, error) from error
        raise
    except sa_exc.DBAPIError as error:
        if isinstance(error, sa_exc.OperationalError) or type(error) is sa_exc.DatabaseError:
            raise unusable(path, error) from error
        raise
    except others as error:
        raise unusable(path, error) from error
