"""The processes that share a state on a server, as everybody can see them: their names, and who holds what.

Whoever asks shows the driver's own `execute`: some have a transaction open, and some have none.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

Ask = Callable[[str], Any]
"""Runs a statement and returns the driver's cursor."""

NOW = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
"""The server's time in milliseconds, in its SQL."""

_LONGEST = 63  # characters of a name, as the server shows them
_HELD = (
    "SELECT lease.organization_id, replica.id, replica.name, lease.taken_at, replica.expires_at"
    f" FROM lease JOIN replica ON replica.id = lease.owner WHERE replica.expires_at > {NOW}"
)
_HOLDER = f"{_HELD} AND lease.organization_id = "
_SERVING = f"SELECT name FROM replica WHERE serves = 1 AND expires_at > {NOW} ORDER BY name"
_ALIVE = f"SELECT name FROM replica WHERE expires_at > {NOW} ORDER BY name"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who runs an organization's cycles, by the server's clock.

    Its lease began at `since`, and ends at `until` where the process is not heard of before.
    """

    name: str
    since: datetime
    until: datetime


def process_name(number: int | None = None) -> str:
    """Return what others are told of a process of this machine, this one where no number is given."""
    return f"syncsvc {os.getpid() if number is None else number} on {socket.gethostname()}"[:_LONGEST]


def is_of_this_machine(name: str) -> bool:
    """Return whether a process is of this machine; each container is a machine of its own."""
    number = name.split()[1:2]
    return bool(number) and number[0].isdecimal() and name == process_name(int(number[0]))


def serving(ask: Ask) -> list[str]:
    """Return the names of the services that organizations are spread over."""
    return [name for (name,) in ask(_SERVING).fetchall()]


def alive(ask: Ask) -> list[str]:
    """Return the names of all processes that may hold leases, commands too."""
    return [name for (name,) in ask(_ALIVE).fetchall()]


def holders(ask: Ask) -> dict[int, tuple[str, Holder]]:
    """Return the session and the holder of each organization that somebody holds."""
    return {it: (session, _holder(*facts)) for it, session, *facts in ask(_HELD).fetchall()}


def holder_of(organization: int, ask: Ask) -> Holder | None:
    """Return who holds an organization, None for nobody."""
    row = ask(f"{_HOLDER}{organization:d}").fetchone()
    return None if row is None else _holder(*row[2:])


def _holder(name: str, since: int, until: int) -> Holder:
    return Holder(name, datetime.fromtimestamp(since / 1000, UTC), datetime.fromtimestamp(until / 1000, UTC))
