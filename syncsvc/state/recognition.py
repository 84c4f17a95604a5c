"""Whether a server still knows what was sent: one that takes over may lack what was committed last.

A process remembers the newest batch that it claimed, and looks for it on every new connection: after a
failover all of them are new.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any

from sqlalchemy import Engine, event

from syncsvc.errors import StateError
from syncsvc.state.mark import BARRED, HISTORY, TAKE_ON, told
from syncsvc.state.replicas import process_name
from syncsvc.state.server import Server

_KNOWN = (
    f"SELECT (SELECT value FROM meta WHERE name = '{HISTORY}'),"
    " EXISTS (SELECT FROM batch WHERE id = %(batch)s)"
)
_BAR = (
    f"INSERT INTO meta (name, value) VALUES ('{BARRED}', %(why)s)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)


class Recognition:
    """What one process that runs cycles has sent on a server."""

    def __init__(self, server: Server, engine: Engine) -> None:
        """Look at every connection from now on."""
        self._server = server
        self._batch = 0
        self._lock = threading.Lock()
        with contextlib.closing(engine.raw_connection()) as pooled:
            self._history, _ = self._look(pooled.driver_connection)
        event.listen(engine, "connect", self._connected)

    def reached(self, batch: int) -> None:
        """Remember that this batch was claimed, before its request leaves."""
        with self._lock:
            self._batch = max(batch, self._batch)

    def _look(self, connection: Any) -> tuple[bytes | None, bool]:
        history, known = connection.execute(_KNOWN, {"batch": self._batch}).fetchone()
        return history, known

    def _connected(self, connection: Any, _record: Any) -> None:
        """Raise StateError where the server does not know that batch, and let no cycle run on it any more.

        A state that somebody has taken on since is another one.
        """
        if not self._batch:
            return
        history, known = self._look(connection)
        if known or history != self._history:
            return
        why = f"does not know batch {self._batch:,}, which {process_name()} has sent from it, and"
        # It may be read-only yet: then the next connection bars it.
        with contextlib.suppress(Exception), connection.transaction():
            connection.execute(_BAR, {"why": why.encode()})
            connection.execute("UPDATE lease SET fence = fence + 1, owner = NULL")
        connection.close()
        raise StateError(f"{told(self._server, why)}. {TAKE_ON}")
