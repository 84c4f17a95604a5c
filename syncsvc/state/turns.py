"""Whose turn it is on a server: locks that the server gives up by itself when the connection is gone.

Advisory locks: postgresql.org/docs/15/explicit-locking.html#ADVISORY-LOCKS.
"""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from sqlalchemy import Engine

from syncsvc.errors import StateError
from syncsvc.state.server import Server

_LOOKS, _A_LOOK = 10, 0.05  # the server takes a moment to see that a process has died


def key_of(schema: int, what: str) -> int:
    """Return the number of a lock: of `what`, in the tables of one schema."""
    digest = blake2b(f"syncsvc {schema} {what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def holder(connection: Any, schema: int) -> str | None:
    """Return the process that runs cycles on a state, None for none; `connection` is the driver's."""
    key = key_of(schema, "cycles") % 2**64
    asked = (
        "SELECT coalesce(nullif(a.application_name, ''), 'unknown') FROM pg_locks l"
        " JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()"
        " LEFT JOIN pg_stat_activity a ON a.pid = l.pid"
        " WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1"
        f" AND l.classid = {key >> 32} AND l.objid = {key % 2**32}"
    )
    found = connection.execute(asked).fetchone()
    return None if found is None else str(found[0] or "unknown")


class Turn:
    """The right of one process to run cycles on a state: held as long as its connection lives."""

    def __init__(self, server: Server, engine: Engine, schema: int) -> None:
        """Take nothing yet."""
        self._server = server
        self._engine = engine
        self._schema = schema
        self._key = key_of(schema, "cycles")
        self._connection: Any = None  # the driver's own: no pool closes it
        self._lock = threading.Lock()

    def take(self) -> None:
        """Make it this process's turn; raises StateError where it is another's."""
        pooled = self._engine.raw_connection()
        self._connection = pooled.driver_connection
        pooled.detach()
        for _ in range(_LOOKS):
            taken = self._connection.execute(f"SELECT pg_try_advisory_lock({self._key})").fetchone()
            if taken[0]:
                return
            time.sleep(_A_LOOK)
        who = holder(self._connection, self._schema) or "another process"
        self.end()
        raise StateError(f"{self._server} is in use by {who}: one process runs cycles on a state")

    def keep(self) -> None:
        """Make sure that it still is this process's turn, as the server sees it; else take it again.

        Nothing is sent where the connection lives. Raises StateError where another process has it now.
        """
        with self._lock:
            if self._connection is None or not _lives(self._connection):
                self.end()
                self._engine.dispose()  # the others are of the same time
                self.take()

    @contextlib.contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Let one process at a time do `what`, waiting for another one that does."""
        key = key_of(self._schema, what)
        self._connection.execute(f"SELECT pg_advisory_lock({key})")
        try:
            yield
        finally:
            if not self._connection.closed:
                self._connection.execute(f"SELECT pg_advisory_unlock({key})")

    def end(self) -> None:
        """Let another process have it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _lives(connection: Any) -> bool:
    """Whether the server has not closed a connection on which nothing is awaited."""
    if connection.closed:
        return False
    readable, _, _ = select.select([connection.fileno()], [], [], 0)
    if readable:
        with contextlib.suppress(Exception):
            connection.execute("SELECT 1")  # a notice, or the end
    return not connection.closed
