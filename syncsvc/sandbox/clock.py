"""The clock of a simulator: the real one, or one that a test moves by hand; answers are dated by it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Protocol

from starlette.types import Message, Send


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


def dating(send: Send, clock: Clock) -> Send:
    """Return a `send` whose answers tell the clock's time in their Date, unless they bring one."""

    async def dated(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            if all(name.lower() != b"date" for name, _ in headers):
                now = format_datetime(clock.now().astimezone(UTC), usegmt=True)
                headers.append((b"date", now.encode()))
            message = {**message, "headers": headers}
        await send(message)

    return dated
