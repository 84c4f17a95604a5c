"""A deadline for the whole of a call: httpx limits each wait, and not how many of them there are."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any

import httpcore


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

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data: bytes = self._stream.read(max_bytes, self._left(timeout))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        lease = self._deadline.left()
        if lease <= 0:
            raise httpcore.WriteTimeout("the lease is over")
        self._stream.write(buffer, min(self._left(timeout), lease))

    def start_tls(self, *args: Any, **kwargs: Any) -> _TimedStream:
        return _TimedStream(self._stream.start_tls(*args, **kwargs), self._deadline)

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
