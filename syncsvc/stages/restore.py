"""Restore: a state that was put back is taken on, before anything is sent of an organization."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from syncsvc.errors import OperatorError, TransientError
from syncsvc.rules.brakes import Brake
from syncsvc.state.store import Store


def take_on(store: Store, paused: Collection[str | None], *, now: datetime) -> tuple[int, int]:
    """Put what is owed in doubt once every connector was read in whole; returns rows and points.

    Raises TransientError where one has not been, OperatorError where that waits for a person.
    """
    found = store.restoration.put_back
    if found is None:
        return 0, 0
    unread = [
        name
        for name, connector in store.connectors.items()
        if name in found.connectors and store.intake.progress(connector).cursor is None
    ]
    if not unread:
        store.holds.lapse([Brake.ELSEWHERE], now=now)  # in doubt now, or held anew
        return store.restoration.doubt_what_is_owed(now=now)
    told = f"the state was put back by {found.by}: nothing is sent before {', '.join(unread)} was read"
    waiting = [it for it in unread if it in paused]
    if waiting:
        raise OperatorError(f"{told}; paused is {', '.join(waiting)}: syncsvc resume lets it go on")
    raise TransientError(told)
