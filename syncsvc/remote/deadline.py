"""A deadline for the whole of a call: httpx limits each wait, and not how many of them there are.

What ends, ends for the system too: it holds bytes back while the other side is silent, and would send them
once that is heard of again, even for a process that has stopped, and after a connection was closed.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import httpcore

_PIECE = 65536  # bytes that are written between two looks at what is left
_SILENCE = getattr(socket, "TCP_USER_TIMEOUT", None)  # of Linux; RFC 5482
_AT_ONCE = struct.pack("ii", 1, 0)  # closed within 0 seconds: what has not left is dropped


def for_ever() -> float:
    """Return the seconds that are left where nothing ends."""
    return math.inf


class Deadline(threading.local):
    """When the call that this thread makes must be over, on the monotonic clock.

    `left` tells for how many seconds anything may be written yet: who has no lease any more writes nothing.
    """

    until = math.inf
    left: Callable[[], float] = staticmethod(for_ever)


class _TimedStream:
    """A connection whose waits end at the call's deadline."""

    def __init__(self, stream: Any, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

        self._socket: socket.socket | None = stream.get_extra_info("socket")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            data: bytes = self._stream.read(max_bytes, self._left(timeout))
        except httpcore.TimeoutException:
            self._drop()
            raise
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            for begin in range(0, len(buffer), _PIECE):
                lease = self._deadline.left()
                if lease <= 0:
                    raise httpcore.WriteTimeout("the lease is over")
                left = min(self._left(timeout), lease)
                if begin == 0:
                    self._bear_silence(left)
                self._stream.write(buffer[begin : begin + _PIECE], left)
        except httpcore.TimeoutException:
            self._drop()
            raise

    def start_tls(self, *args: Any, **kwargs: Any) -> _TimedStream:
        return _TimedStream(self._stream.start_tls(*args, **kwargs), self._deadline)

    def _bear_silence(self, seconds: float) -> None:
        """Let the system give up what the other side has not taken within that time."""
        if self._socket is not None and _SILENCE is not None:
            with contextlib.suppress(OSError):  # a system that does not know it; or what is written tells
                self._socket.setsockopt(socket.IPPROTO_TCP, _SILENCE, max(1, int(seconds * 1000)))

    def _drop(self) -> None:
        """Let nothing that is still on its way leave: a wait took too long."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)

    def _left(self, timeout: float | None) -> float:
        left = self._deadline.until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the call took too long")
        return left if timeout is None else min(left, timeout)


class TimedBackend:
    """Makes connections that keep to the deadline of the call."""

    def __init__(self, backend: Any, deadline: Deadline) -> None:
        """Let `backend` make them."""
        self._backend = backend
        self._deadline = deadline

    def connect_tcp(self, *args: Any, **kwargs: Any) -> _TimedStream:
        """Return a new connection."""
        return _TimedStream(self._backend.connect_tcp(*args, **kwargs), self._deadline)
