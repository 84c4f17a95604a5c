"""Places: how many threads of a process have a transaction open at once; the others wait in their order."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """So many places; a thread has one at most, however often it takes it."""

    def __init__(self, count: int) -> None:
        """Begin with all of them free."""
        self._lock = threading.Lock()
        self._free = count
        self._waiting: deque[threading.Lock] = deque()
        self._moved = time.monotonic()
        self._mine = threading.local()

    @contextmanager
    def taken(self, *, patience: float) -> Iterator[None]:
        """Have a place while the block runs.

        Raises TimeoutError where for `patience` seconds nobody gave one back: then what is done with them
        does not go on. However many wait, each gets its turn as long as it does.
        """
        depth = getattr(self._mine, "depth", 0)
        if not depth:
            self._take(patience)
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            if not depth:
                self._give_back()

    def _take(self, patience: float) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        while not turn.acquire(timeout=patience):
            with self._lock:
                if time.monotonic() - self._moved >= patience and turn in self._waiting:
                    self._waiting.remove(turn)
                    raise TimeoutError

    def _give_back(self) -> None:
        with self._lock:
            self._moved = time.monotonic()
            if self._waiting:
                self._waiting.popleft().release()  # it has the place now
            else:
                self._free += 1
