"""One cycle of the real service in a process of its own, and what it cost.

    python bench/ours.py ORGANIZATION.toml [--pull | --sweep] [--profile]

With `--pull` the cycle ends before its first delivery, with `--sweep` it reads everything again. `--profile`
prints to stderr where the time goes: functions by their own time, and statements by how often they run.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import io
import pstats
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meter import metered, tell
from sqlalchemy import Engine, event

from connectors.hubspot import HubSpot
from syncsvc.configfile import load
from syncsvc.cycle import Cycle
from syncsvc.organization import ConnectorTypes, open_organization
from syncsvc.remote.transport import Network
from syncsvc.state.database import Database
from syncsvc.watch.log import configure

_FUNCTIONS = 45
_STATEMENTS = 25
_TYPES: ConnectorTypes = {"hubspot": HubSpot}


class Writes:
    """What was written to the state since this was made, as another connection sees it."""

    def __init__(self, state: Path, connections: list[sqlite3.Connection]) -> None:
        """Look at the file and its log from outside; `connections` are those of the service."""
        self._files = (state, state.with_name(state.name + "-wal"))
        self._connections = connections
        self._observer = sqlite3.connect(state)
        self._before = self._version(), self._rows(), self._bytes()

    def facts(self) -> dict[str, Any]:
        """Return whether anything was committed, how many rows were changed, and how far the files grew."""
        committed, rows, size = self._before
        found = {
            "committed": self._version() != committed,
            "rows": self._rows() - rows,
            "grown": self._bytes() - size,
        }
        self._observer.close()
        return found

    def _version(self) -> int:
        return int(self._observer.execute("PRAGMA data_version").fetchone()[0])

    def _rows(self) -> int:
        return sum(connection.total_changes for connection in self._connections)

    def _bytes(self) -> int:
        return sum(file.stat().st_size for file in self._files if file.exists())


@contextlib.contextmanager
def _profiled(*, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    statements: Counter[str] = Counter()

    @event.listens_for(Engine, "before_cursor_execute")
    def count(_c: Any, _cursor: Any, statement: str, _p: Any, _context: Any, many: bool) -> None:  # noqa: FBT001 - the library's signature
        statements[("many " if many else "one  ") + re.sub(r"\s+", " ", statement)[:150]] += 1

    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        told = io.StringIO()
        stats = pstats.Stats(profile, stream=told).strip_dirs()
        stats.sort_stats("tottime").print_stats(_FUNCTIONS)
        stats.sort_stats("cumulative").print_stats(_FUNCTIONS)
        sys.stderr.write(told.getvalue())
        for statement, times in statements.most_common(_STATEMENTS):
            sys.stderr.write(f"{times:8d}  {statement}\n")


def main() -> None:
    """Run one cycle and print what it cost and came to."""
    parser = argparse.ArgumentParser(description="One cycle of the service, measured.")
    parser.add_argument("organization", type=Path)
    parser.add_argument("--pull", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    connections: list[sqlite3.Connection] = []

    @event.listens_for(Engine, "connect")
    def keep(connection: Any, _record: Any) -> None:
        connections.append(connection.driver_connection if hasattr(connection, "driver_connection") else connection)

    facts: dict[str, Any] = {}
    installation = load(options.organization, {name: it.Settings for name, it in _TYPES.items()})
    configure(format="json", level="info")
    state = Path(installation.service.state.removeprefix("sqlite:///"))
    network = Network()
    with (
        Database.open(installation.service.state) as database,
        open_organization(installation.organizations[0], database, types=_TYPES, network=network) as organization,
    ):
        writes = Writes(state, connections)
        cycle = Cycle(organization, full=options.sweep, send=not options.pull)
        with _profiled(wanted=options.profile), metered(facts):
            report = cycle.run()
        facts |= writes.facts() | {"report": report.facts()}
    tell(facts)


if __name__ == "__main__":
    main()
