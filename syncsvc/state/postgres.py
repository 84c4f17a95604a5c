"""The state on a PostgreSQL server: organizations write at once, those who write for one of them in turn.

A write transaction begins by taking the lock of its organization; nothing is read before that, so that what
is read is what the one before it has left. A read transaction sees one moment.
"""

from __future__ import annotations

import contextlib
import importlib.util
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool
from sqlmodel import SQLModel

from syncsvc.errors import LeaseLostError, StateError, StateUnreadyError
from syncsvc.state import migrations
from syncsvc.state.adapters import adapters
from syncsvc.state.copying import copy_tables
from syncsvc.state.lease import Lease
from syncsvc.state.leases import LEASE, Leases, SharedLeases
from syncsvc.state.mark import Mark, barred_on_server, mark_on_server, refuse_barred
from syncsvc.state.places import Places
from syncsvc.state.recognition import Recognition
from syncsvc.state.replicas import process_name, serving
from syncsvc.state.server import Server, is_read_only, require_nobody_older, telling
from syncsvc.state.sqlite import StateFile
from syncsvc.state.turns import alone, key_of
from syncsvc.stateurl import server_options

AT_ONCE = 10
"""Transactions that a process has open at once; others wait."""
_NESTED = 2
"""More transactions that one who has one open may begin: to read while it writes, or two lists at once."""

_DEFAULTS = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_LIMITS = {
    "statement_timeout": "5min",
    "lock_timeout": "30s",
    "idle_in_transaction_session_timeout": "5min",
}
"""How long a statement runs, waits for a lock, or lies idle; what the URL has in `options` prevails."""

_READS = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITES = "BEGIN ISOLATION LEVEL READ COMMITTED"
_WAITED = 30.0  # seconds, where every connection is in use


def connect(url: str) -> Engine:
    """Return an engine for the server that `service.state` names; nothing is asked of it yet.

    Raises StateError where the driver is not installed.
    """
    if importlib.util.find_spec("psycopg") is None:
        raise StateError("state is on PostgreSQL, whose driver is missing: pip install 'syncsvc[postgres]'")
    given = {**_DEFAULTS, "application_name": process_name(), **server_options(url)}
    engine = create_engine(
        "postgresql+psycopg://",
        connect_args={**given, "context": adapters()},
        paramstyle="format",  # what `bulk` binds is in the order of the statement
        hide_parameters=True,
        use_native_hstore=False,
        poolclass=QueuePool,
        pool_size=AT_ONCE,
        max_overflow=AT_ONCE * _NESTED,
        pool_timeout=_WAITED,
        pool_use_lifo=True,  # those that are not needed grow old, and are closed
        pool_recycle=1800,
    )
    limits = "; ".join(f"SET {name} = '{value}'" for name, value in _LIMITS.items() if name not in str(given))

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.autocommit = True  # `begin` says it all in one message to the server
        connection.execute(f"{limits}; SET TIME ZONE 'UTC'" if limits else "SET TIME ZONE 'UTC'")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        said = connection.get_execution_options().get("begin", _WRITES)
        cursor = connection.connection.cursor()
        cursor.execute(said)
        connection.info["begun"] = cursor

    return engine


class StateServer:
    """An open state on a server."""

    def __init__(
        self, server: Server, engine: Engine, schema: int, lease: timedelta | None, *, older: bool = False
    ) -> None:
        """Hold the engine and the number of the schema that the tables are in; see `open`.

        `lease` is how long leases last, None beside those who hold them.
        """
        self.server = server
        self.engine = engine
        self.leases: Leases = SharedLeases(
            server, engine, schema, process_name(), lease or LEASE, older=older
        )
        self.runs_cycles = lease is not None
        self._recognition = Recognition(server, engine) if lease is not None and not older else None
        self._schema = schema
        self._idle = (lease or LEASE) // timedelta(milliseconds=2)
        self._closed = False
        self._quiet = threading.Condition()
        self._writers = 0
        self._places = Places(AT_ONCE)
        self._turns: dict[int | None, threading.RLock] = {}

    @classmethod
    def exists(cls, url: str) -> bool:
        """Return whether there is a state already."""
        with _looked_at(url) as (_, engine):
            return migrations.form(engine) is not None

    @classmethod
    def open(cls, url: str, lease: timedelta = LEASE, *, older: bool = False) -> Self:
        """Return the state for a process that runs cycles, made and migrated where needed.

        Raises StateError where it cannot be used or no cycle may run on it (else an `older` one looks as any
        other), as StateUnreadyError where that passes: an older version works with what is to be migrated.
        """
        with contextlib.ExitStack() as undo:
            server, engine = undo.enter_context(_opened(url))
            with telling(server):
                schema = server.examine(engine, writes=True)
                with alone(engine, schema, "migrate"):
                    require_nobody_older(server, engine)
                    migrations.upgrade(engine)
                if not older:
                    with engine.connect() as connection:
                        refuse_barred(server, connection)
                opened = cls(server, engine, schema, lease, older=older)
            undo.pop_all()
        return opened

    @classmethod
    def open_beside(cls, url: str) -> Self:
        """Return the state beside the processes that run cycles: to be read, and for a person's decisions.

        Raises StateError where there is none yet, or where it is of another version.
        """
        with contextlib.ExitStack() as undo:
            server, engine = undo.enter_context(_opened(url))
            with telling(server):
                schema = server.examine(engine, writes=False)
                if migrations.form(engine) is None:
                    raise StateError(
                        f"there is no state in {server} yet: run a cycle first, with `once` or `run`"
                    )
                migrations.require_current(engine)
            undo.pop_all()
        return cls(server, engine, schema, None)

    @classmethod
    def services(cls, url: str) -> tuple[str, list[str]]:
        """Return what a state is called, and the names of the services that were heard of lately."""
        with _looked_at(url) as (server, engine):
            server.examine(engine, writes=False)
            if migrations.form(engine) != migrations.forms()[0]:
                return str(server), []
            with engine.connect() as connection:
                return str(server), serving(connection.connection.cursor().execute)

    @classmethod
    def barred(cls, url: str) -> str | None:
        """Return why no cycle may run on the state, None where any may."""
        with _looked_at(url) as (server, engine), engine.connect() as connection:
            return barred_on_server(server, connection)

    @classmethod
    def look(cls, url: str) -> tuple[str, ...]:
        """Return what there is to say of the state, with nothing made or changed.

        Raises StateError where a process that runs cycles could not work with it.
        """
        with _looked_at(url) as (server, engine):
            server.examine(engine, writes=True)
            form = migrations.form(engine)
            require_nobody_older(server, engine)
            if form == migrations.forms()[0]:
                with engine.connect() as connection:
                    refuse_barred(server, connection)
        _, names = cls.services(url)
        run = "runs" if len(names) == 1 else "run"
        facts = [f"{server} is in use by {', '.join(names)}, which {run} cycles on it"] if names else []
        head = migrations.forms()[0]
        if form is None:
            facts.append(migrations.none_yet(server))
        elif form not in migrations.forms():
            raise migrations.too_new(form)
        elif form != head:
            facts.append(f"{server} is of form {form}: the next cycle brings it to {head}")
        return tuple(facts)

    @classmethod
    def copy_to(cls, url: str, copy: Path) -> None:
        """Make a private copy in a file, where there is a state; nothing is made where there is none."""
        if cls.exists(url):
            source = cls.open_beside(url)
            try:
                target = StateFile.open(f"sqlite:///{copy}")
                try:
                    with source.reading() as read, target.writing(None) as written:
                        copy_tables(read, written)
                finally:
                    target.close()
            finally:
                source.close()

    @property
    def place(self) -> str:
        """See `Storage`."""
        return str(self.server)

    def known(self) -> Mark:
        """Return how far the state has come by what is in it."""
        with self.reading() as connection:
            return mark_on_server(connection)

    def reached(self, batch: int) -> None:
        """Remember that this batch was claimed: a server that takes over must know it."""
        if self._recognition is not None:
            self._recognition.reached(batch)

    def mark(self, known: Mark) -> None:
        """Do nothing: no file beside a server would be where its state is put back."""

    @contextlib.contextmanager
    def writing(self, organization: int | None, lease: Lease | None = None) -> Iterator[Connection]:
        """Give a connection inside one write transaction, the only one of its organization.

        Without an organization it is the only one of those without. With a lease, raises LeaseLostError where
        the organization was claimed since by another process: claims take the same lock, so nobody can begin
        to before this transaction has ended. It ends by itself where this process stops within it.
        """
        with self._quiet:
            if self._closed:
                raise StateError("the state database is closed")
            self._writers += 1
        # Its writers take turns here already: who waits on the server would hold a place of all.
        turn = self._turns.setdefault(organization, threading.RLock())
        try:
            with turn, telling(self.server):
                if lease is not None:
                    lease.check()
                key = key_of(
                    self._schema, "state" if organization is None else f"organization {organization}"
                )
                said = (
                    f"{_WRITES}; SET LOCAL idle_in_transaction_session_timeout = {self._idle};"
                    f" SELECT pg_advisory_xact_lock({key})"
                )
                if lease is not None:  # of a moment after the lock was taken: each statement sees its own
                    said += f"; SELECT fence FROM lease WHERE organization_id = {lease.organization}"
                with self._begun(said) as connection:
                    if lease is not None and _last(connection) != lease.fence:
                        raise LeaseLostError("another process runs the cycles of this organization by now")
                    yield connection
        finally:
            with self._quiet:
                self._writers -= 1
                self._quiet.notify_all()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection inside one read transaction: everything in it is of one moment."""
        with telling(self.server), self._begun(_READS) as connection:
            yield connection

    def shed(self) -> None:
        """Do nothing: the server's write-ahead log is not ours."""

    def scrub(self) -> bool:
        """Let the server take out what has been erased; returns whether it could.

        What is dead is gone from the tables then, as far as no transaction that is open can see it. The
        server's log, its replicas and its backups are its operator's.
        """
        skipped: list[Any] = []  # who does not own a table is told in a notice alone
        with telling(self.server), self.engine.connect() as connection:
            driver = connection.connection.driver_connection
            assert driver is not None  # noqa: S101 - it is connected
            driver.add_notice_handler(skipped.append)
            try:
                tables = ", ".join(f'"{it}"' for it in SQLModel.metadata.tables)
                connection.connection.cursor().execute(f"VACUUM {tables}")
            finally:
                driver.remove_notice_handler(skipped.append)
        return not skipped

    def close(self) -> None:
        """Give everything back, once a write under way has ended; another process can open it now."""
        with self._quiet:
            self._quiet.wait_for(lambda: not self._writers)
            self._closed = True
        self.leases.close()
        self.engine.dispose()

    @contextlib.contextmanager
    def _placed(self) -> Iterator[None]:
        """Wait for a place among those who have a transaction open, unless this thread has one already.

        Else a thousand organizations would take every connection that the server has; and with all in use,
        those that need a second one would wait for each other.
        """
        with contextlib.ExitStack() as place:
            try:
                place.enter_context(self._places.taken(patience=_WAITED))
            except TimeoutError:
                raise StateUnreadyError(
                    f"{self.server} cannot be used: it is too slow for those who wait; a service tries again"
                ) from None
            yield

    @contextlib.contextmanager
    def _begun(self, said: str) -> Iterator[Connection]:
        """Give a connection in a transaction that has begun, on a new connection where a kept one is dead."""
        with contextlib.ExitStack() as opened:
            opened.enter_context(self._placed())
            for last in (False, True):
                connection = opened.enter_context(self.engine.connect()).execution_options(begin=said)
                try:
                    transaction = connection.begin()
                except self.engine.dialect.loaded_dbapi.OperationalError:
                    broken = connection.connection.driver_connection.closed  # type: ignore[union-attr]
                    connection.invalidate()
                    if last or not broken:
                        raise
                    self.engine.dispose()  # the others are of the same time
                else:
                    break
            try:
                with transaction:
                    yield connection
            except Exception as error:
                if is_read_only(error):  # the server may be written again, and this connection never
                    connection.invalidate()
                    self.engine.dispose()  # the others are of the same time
                raise
            if self._closed:  # meanwhile, while a list was being read: the pool does not come back for it
                connection.invalidate()


def _last(connection: Connection) -> Any:
    """Return the one value of the last of the statements that a transaction began with."""
    cursor = connection.info.pop("begun")
    while cursor.nextset():
        pass
    row = cursor.fetchone()
    return None if row is None else row[0]


@contextlib.contextmanager
def _looked_at(url: str) -> Iterator[tuple[Server, Engine]]:
    with _opened(url) as (server, engine):
        with telling(server):
            yield server, engine
        engine.dispose()


@contextlib.contextmanager
def _opened(url: str) -> Iterator[tuple[Server, Engine]]:
    engine = connect(url)
    try:
        yield Server.named(url), engine
    except BaseException:
        engine.dispose()
        raise
