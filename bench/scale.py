"""What one replica gets done on PostgreSQL, beside a file: the figures that docs/scaling.md counts with.

    python bench/scale.py [--contacts 20000] [--organizations 10000]

The first pull and the first delivery of one organization, on each: processor time of the service and of the
server, and what the state has grown by. Then what every replica looks at all the time, however little it
runs: its files, and who holds which organization.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from processes import Standin, cycle_of, organization
from server import Server, postgres

from syncsvc.plugins import InstalledSettings, InstalledTypes
from syncsvc.roster import Roster
from syncsvc.state.database import Database


def state_of(folder: Path, contacts: int, server: Server | None) -> None:
    """Print what the first pull and the first delivery cost, by contact."""
    url = f"sqlite:///{folder}/state.db" if server is None else server.url
    with Standin(contacts) as standin:
        path = organization(folder / "bench.toml", state=url, log_every="24h", port=standin.port)
        for name, options in (("first pull", ["--pull"]), ("first delivery", [])):
            spent = 0.0 if server is None else server.processor_seconds()
            before = {} if server is None else server.facts()
            facts = cycle_of(path, options)
            micro = 1e6 / contacts
            told = f"{name:15} {facts['work'] * micro:6.0f} µs of CPU, {facts['wall'] * micro:6.0f} µs in all"
            if server is None:
                told += f", {(folder / 'state.db').stat().st_size / contacts:5.0f} bytes of state"
            else:
                now = server.facts()
                told += f", {(server.processor_seconds() - spent) * micro:6.0f} µs of the server's CPU"
                told += f", {now['size'] / contacts:5.0f} bytes of state"
                told += f", {(now['wal'] - before['wal']) / contacts:6.0f} bytes written ahead"
                told += f", {now['transactions'] - before['transactions']} transactions"
            print(f"  {told}, peak {facts['peak'] / 1e6:.0f} MB")


def looks(folder: Path, organizations: int, server: Server) -> None:
    """Print what a replica's looks cost, with so many organizations."""
    text = organization(folder / "one.toml", state=server.url, log_every="5m", port=1).read_text()
    _, _, table = text.partition("[schedule]")
    files = folder / "organizations"
    files.mkdir()
    (files / "service.toml").write_text(f'[service]\nstate = "{server.url}"\n')
    for number in range(organizations):
        head = f'organization_id = "01JC{number:06}"\nfirst_run = "adopt"\n'
        (files / f"o{number:05}.toml").write_text(f"{head}[schedule]{table}")
    began = time.process_time()
    roster = Roster(files, InstalledSettings(InstalledTypes()))
    roster.begin()
    print(f"  files read at the start: {(time.process_time() - began) / organizations * 1e3:.2f} ms each")
    roster.look()
    print(f"  a look at the files, each second: {_spent(roster.look) * 1e3:.0f} ms of CPU")
    with Database.open(server.url) as database:
        database.leases.serve()
        (session,) = server.ask("SELECT id FROM replica")[0]
        server.ask(
            "INSERT INTO organization (id, name, organization_id, points)"
            f" SELECT i, 'x' || i, 'X' || i, 'add' FROM generate_series(100000, 99999 + {organizations}) i"
        )
        server.ask(
            "INSERT INTO lease (organization_id, owner, fence, taken_at)"
            f" SELECT id, '{session}', 1, 0 FROM organization WHERE id >= 100000"
        )
        spent = server.processor_seconds()
        times = 20
        own = _spent(database.leases.spread, times)
        theirs = (server.processor_seconds() - spent) / times
        print(f"  a look at the leases: {own * 1e3:.0f} ms of CPU, {theirs * 1e3:.0f} ms of the server's")


def _spent(what: Callable[[], object], times: int = 10) -> float:
    began = time.process_time()
    for _ in range(times):
        what()
    return (time.process_time() - began) / times


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description="One replica on PostgreSQL, beside a file.")
    parser.add_argument("--contacts", type=int, default=20_000)
    parser.add_argument("--organizations", type=int, default=10_000)
    options = parser.parse_args()
    os.environ.setdefault("BENCH_TOKEN", "bench-token-0123456789")
    for where in ("a file", "PostgreSQL", "a file", "PostgreSQL"):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            print(f"{options.contacts:,} contacts on {where}, each:")
            if where == "a file":
                state_of(Path(folder), options.contacts, None)
            else:
                with postgres() as server:
                    state_of(Path(folder), options.contacts, server)
    with postgres() as server, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        print(f"{options.organizations:,} organizations, each replica:")
        looks(Path(folder), options.organizations, server)


if __name__ == "__main__":
    main()
