"""The ways to other machines: connections that all clients of a network share, and how they are made.

A thousand organizations ask the same few servers. With connections of its own each would make one anew every
minute, with the handshakes of TCP and TLS, and let it stand open meanwhile; together they keep a few warm.
"""

from __future__ import annotations

import ssl
import threading

import httpx

from syncsvc.remote.deadline import Deadline, TimedBackend
from syncsvc.settings import LOOPBACK

_KEPT = 64
"""Connections that stay open while nobody uses them; each takes a descriptor."""

_KEPT_SECONDS = 30.0
"""Shorter than servers keep them, since a request on one that is just being closed may be lost."""

_DIRECT = {f"all://{f'[{host}]' if ':' in host else host}": None for host in sorted(LOOPBACK)}


class Ways:
    """The connections of a network, closed when the last client leaves them."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        """Make no connection yet; `deadline` is that of whichever thread calls."""
        self.deadline = Deadline()
        self._tls = tls
        self._lock = threading.Lock()
        self._http: httpx.Client | None = None
        self._clients = 0

    def take(self) -> httpx.Client:
        """Return the way for one more client, which leaves it once."""
        with self._lock:
            if self._http is None:
                self._http = self._made()
            self._clients += 1
            return self._http

    def leave(self) -> None:
        """Close every connection where this was the last client."""
        with self._lock:
            self._clients -= 1
            if self._clients == 0 and self._http is not None:
                self._http.close()
                self._http = None

    def _made(self) -> httpx.Client:
        http = httpx.Client(
            verify=self._tls,
            follow_redirects=False,
            mounts=_DIRECT,
            # No limit on connections: organizations that wait for an answer must keep none from asking.
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=_KEPT, keepalive_expiry=_KEPT_SECONDS
            ),
            headers={"Accept": "application/json"},
        )
        for transport in (http._transport, *http._mounts.values()):  # noqa: SLF001 - no public way in
            pool = getattr(transport, "_pool", None)
            if pool is not None:
                pool._network_backend = TimedBackend(pool._network_backend, self.deadline)  # noqa: SLF001 - the same
        return http
