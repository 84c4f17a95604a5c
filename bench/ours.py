"""One cycle of the real service in a process of its own, and what it cost.

    python bench/ours.py ORGANIZATION.toml [--pull | --sweep | --warm] [--profile]

With `--pull` the cycle ends before its first delivery, with `--sweep` it reads everything again, and with
`--warm` each line of standard input asks for one more cycle, as a service runs them. `--profile`
prints to stderr where the time goes (it about doubles it): functions by their own and their whole time, and
statements with how often they ran, for how long, and by which plan.
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
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from meter import metered, tell
from sqlalchemy import Engine, event

import syncsvc.__main__  # noqa: F401 - the process is set up as a start of the service does it
from syncsvc import cycle as cycles
from syncsvc.configfile import load
from syncsvc.organization import open_organization
from syncsvc.plugins import InstalledSettings, InstalledTypes
from syncsvc.remote.transport import Network
from syncsvc.state.database import Database
from syncsvc.watch.log import configure

_FUNCTIONS = 45
_STATEMENTS = 25
_WIDTH = 180


class Rows:
    """Rows that the service's connections have inserted, updated or deleted, those closed since included."""

    def __init__(self) -> None:
        """Watch every connection that is made from now on."""
        self._open: list[sqlite3.Connection] = []
        self._closed = 0
        event.listen(Engine, "connect", self._connected)
        event.listen(Engine, "close", self._closing)

    def changed(self) -> int:
        """Return how many by now."""
        return self._closed + sum(connection.total_changes for connection in self._open)

    def _connected(self, connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            self._open.append(connection)

    def _closing(self, connection: Any, _record: Any) -> None:
        if connection in self._open:
            self._open.remove(connection)
            self._closed += connection.total_changes


class Writes:
    """What was written to the state since this was made."""

    def __init__(self, state: Path, rows: Rows) -> None:
        """Look at the file and its log from outside; `rows` are counted inside."""
        self._files = (state, state.with_name(state.name + "-wal"))
        self._changed = rows
        self._observer = sqlite3.connect(state)
        self._before = self._version(), rows.changed(), self._bytes()

    def facts(self) -> dict[str, Any]:
        """Return whether anything was committed, how many rows were changed, and how far the files grew."""
        committed, rows, size = self._before
        found = {
            "committed": self._version() != committed,
            "rows": self._changed.changed() - rows,
            "grown": self._bytes() - size,
        }
        self._observer.close()
        return found

    def _version(self) -> int:
        # Another connection's data_version moves with every commit that changed the file.
        return int(self._observer.execute("PRAGMA data_version").fetchone()[0])

    def _bytes(self) -> int:
        return sum(file.stat().st_size for file in self._files if file.exists())


class Statements:
    """Every statement that runs: how often, for how long, and by which plan."""

    def __init__(self) -> None:
        """Watch from now on."""
        self._times: Counter[str] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._plans: dict[str, str] = {}
        self._began = 0.0
        event.listen(Engine, "before_cursor_execute", self._before)
        event.listen(Engine, "after_cursor_execute", self._after)

    def show(self) -> None:
        """Print them to stderr, the longest first."""
        for statement, seconds in sorted(self._seconds.items(), key=lambda it: -it[1])[:_STATEMENTS]:
            text = re.sub(r"\s+", " ", statement)[:_WIDTH]
            sys.stderr.write(f"{self._times[statement]:8d} times {seconds * 1000:9.1f} ms  {text}\n")
            if statement in self._plans:
                sys.stderr.write(f"{'':28}{self._plans[statement]}\n")

    def _before(self, *_: Any) -> None:
        self._began = time.thread_time()

    def _after(self, connection: Any, _cursor: Any, statement: str, bound: Any, *more: Any) -> None:
        self._seconds[statement] += time.thread_time() - self._began
        self._times[statement] += 1
        if statement not in self._plans and statement.startswith(("SELECT", "UPDATE", "DELETE")):
            values = bound[0] if more[-1] else bound
            plan = connection.connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
            self._plans[statement] = " · ".join(row[3] for row in plan)


@contextlib.contextmanager
def _profiled(*, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    statements, profile = Statements(), cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        told = io.StringIO()
        stats = pstats.Stats(profile, stream=told).strip_dirs()
        for order in ("tottime", "cumulative"):
            stats.sort_stats(order).print_stats(_FUNCTIONS)
        sys.stderr.write(told.getvalue())
        statements.show()


class LogReads:
    """What reading the wallet's log costs within a cycle: the wallet gives it only whole."""

    def __init__(self) -> None:
        """Watch every read from now on."""
        self.times = 0
        self.seconds = 0.0
        self._read = vars(cycles)["read_log"]
        vars(cycles)["read_log"] = self._watched

    def _watched(self, *arguments: Any, **named: Any) -> int:
        began = time.thread_time()
        try:
            return int(self._read(*arguments, **named))
        finally:
            self.times += 1
            self.seconds += time.thread_time() - began


def main() -> None:
    """Run one cycle, or one for each line, and print what it cost and came to."""
    parser = argparse.ArgumentParser(description="One cycle of the service, measured.")
    parser.add_argument("organization", type=Path)
    parser.add_argument("--pull", action="store_true")
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--warm", action="store_true")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    rows = Rows()
    types = InstalledTypes()
    installation = load(options.organization, InstalledSettings(types))
    configure(format="json", level="info")
    url = installation.service.state_url
    state = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:") else None
    network = Network()
    with (
        Database.open(url) as database,
        open_organization(
            installation.organizations[0], database, types=types, network=network
        ) as organization,
    ):
        reads = LogReads()
        for _ in sys.stdin if options.warm else [""]:
            facts: dict[str, Any] = {}
            writes = None if state is None else Writes(state, rows)  # a server tells of itself
            reads.times, reads.seconds = 0, 0.0
            cycle = cycles.Cycle(organization, full=options.sweep, send=not options.pull)
            with _profiled(wanted=options.profile), metered(facts):
                report = cycle.run()
            facts |= {} if writes is None else writes.facts()
            tell(facts | {"log": reads.seconds, "log_reads": reads.times, "report": report.facts()})


if __name__ == "__main__":
    main()
