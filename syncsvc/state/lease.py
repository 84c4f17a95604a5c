"""The right to run one organization's cycles, for as long as its holder is heard of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from syncsvc.errors import LeaseLostError
from syncsvc.state.replicas import Holder

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # which goes on while the machine sleeps


def steady() -> float:
    """Return seconds on a clock that never goes back, and stops for nothing where the system has one."""
    return time.clock_gettime(_CLOCK)


@dataclass(slots=True)
class Session:
    """The time during which a process may hold leases; `until` is on its steady clock."""

    id: str
    until: float
    over: bool = False


@dataclass(slots=True, kw_only=True)
class Lease:
    """The right to run one organization's cycles; `since` is when it was claimed, by the server's clock."""

    organization: int
    fence: int
    since: datetime | None
    name: str  # what others are told of this process; empty where there are no others
    session: Session
    give_back: Callable[[Lease], None]
    now: Callable[[], datetime]  # what all who may hold it agree on
    users: int = 1
    closed: bool = field(default=False)

    @property
    def shared(self) -> bool:
        """Whether another process could take it."""
        return bool(self.name)

    @property
    def holder(self) -> Holder | None:
        """What others are told of it, None where there are no others."""
        if self.since is None:
            return None
        return Holder(self.name, self.since, self.now() + timedelta(seconds=self.left()))

    @property
    def lost(self) -> bool:
        """Whether it is over, for good."""
        return self.closed or self.session.over

    def left(self) -> float:
        """Return for how many seconds from now nobody else can hold it; none or less where that is over."""
        return 0.0 if self.lost else self.session.until - steady()

    def check(self) -> None:
        """Raise LeaseLostError where it is over."""
        if self.lost:
            raise LeaseLostError("another process may run the cycles of this organization by now")

    def close(self) -> None:
        """Give it back, once everybody has who was given it."""
        self.give_back(self)
