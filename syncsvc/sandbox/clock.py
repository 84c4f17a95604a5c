"""The clock of a simulator: the real one, or one that a test moves by hand."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Tells the time in UTC."""

    def now(self) -> datetime:
        """Return the time."""


class RealClock:
    """The machine's wall clock."""

    def now(self) -> datetime:
        """Return the time."""
        return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        """Stand at `start`, an aware time."""
        self._now = start
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the time."""
        return self._now

    def advance(self, by: timedelta) -> None:
        """Move forward."""
        with self._lock:
            self._now += by
