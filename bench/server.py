"""A PostgreSQL server of a benchmark's own, with its usual settings: every commit waits for the disk."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import psycopg

_DATABASE = "bench"


class Server:
    """A running server with one empty database."""

    def __init__(self, folder: Path) -> None:
        """Its socket is in the folder."""
        self._folder = folder
        self._main = psutil.Process(int((folder / "data" / "postmaster.pid").read_text().split()[0]))

    @property
    def url(self) -> str:
        """What `service.state` says of its database."""
        return f"postgresql+psycopg://bench@/{_DATABASE}?host={self._folder}"

    def processor_seconds(self) -> float:
        """Return user and system time of all its processes so far, those that have ended included."""
        times = self._main.cpu_times()
        spent = times.user + times.system + times.children_user + times.children_system
        for child in self._main.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                own = child.cpu_times()
                spent += own.user + own.system
        return spent

    def facts(self) -> dict[str, int]:
        """Return how large the database is, how much was written ahead, how many transactions have ended."""
        size, wal, transactions, connections = self.ask(
            "SELECT pg_database_size(datid), pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,"
            " xact_commit + xact_rollback, numbackends FROM pg_stat_database"
            " WHERE datname = current_database()"
        )[0]
        return {"size": size, "wal": wal, "transactions": transactions, "connections": connections}

    def ask(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        with psycopg.connect(self.url.replace("+psycopg", "", 1), autocommit=True) as connection:
            found = connection.execute(statement.encode())
            return found.fetchall() if found.description else []


@contextlib.contextmanager
def postgres() -> Iterator[Server]:
    """Give a running server, gone with all that it holds at the end."""
    folder = Path(tempfile.mkdtemp(prefix="bench-pg-", dir="/tmp"))  # a socket's path must be short
    who: dict[str, Any] = {}
    if os.geteuid() == 0:  # it refuses to be root
        user = pwd.getpwnam("postgres")
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(folder, user.pw_uid, user.pw_gid)
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda it: int(it.parent.name))
    data = str(folder / "data")

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [programs / program, *arguments], check=True, cwd="/", stdout=subprocess.DEVNULL, **who
        )

    try:
        run("initdb", "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        options = f"-c listen_addresses= -c unix_socket_directories={folder} -c max_connections=200"
        run("pg_ctl", "start", "-w", "-D", data, "-l", str(folder / "log"), "-o", options)
        try:
            run("createdb", "-h", str(folder), "-U", "bench", _DATABASE)
            yield Server(folder)
        finally:
            run("pg_ctl", "stop", "-D", data, "-m", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
