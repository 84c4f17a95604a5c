"""A PostgreSQL server of the tests' own: on a socket in a folder, for nobody else, waiting for no disk.

The workers of a run share one; it is stopped once none is left. Each database is made from a template with
the tables in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg

from syncsvc.state.database import Database

LOCKED = "locked"
"""A role that must give a password."""

_TEMPLATE = "made"
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
    "log_min_messages": "log",  # what it says of its own end, and of a process of its that fell
    "log_checkpoints": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
}


def programs() -> Path | None:
    """Return the folder of the newest server that is installed, None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda it: int(it.parts[-3]))
    other = shutil.which("initdb")
    return found[-1].parent if found else Path(other).resolve().parent if other else None


class Postgres:
    """A running server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def url(self, database: str) -> str:
        """Return what `service.state` says of a database."""
        return f"postgresql+psycopg://tests@/{database}?host={self.folder}"

    def database(self) -> str:
        """Return the URL of a new database with the tables of a state and nothing in them."""
        name = f"d{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} STRATEGY WAL_LOG")
        return self.url(name)

    def empty(self, more: str = "") -> str:
        """Return the URL of a new database without tables."""
        name = f"d{uuid.uuid4().hex}"
        self.run(f"CREATE DATABASE {name} TEMPLATE template0 {more}")
        return self.url(name)

    def run(self, statement: str) -> None:
        """Run a statement as the one who may do everything."""
        with psycopg.connect(self.plain("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def plain(self, database: str) -> str:
        """Return the URL of a database as other programs take it."""
        return self.url(database).replace("+psycopg", "", 1)


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[Postgres]:
    """Give the server of a test run, whose workers share `folder`."""
    bin_ = programs()
    assert bin_ is not None
    users = folder / "postgres.users"
    with users.open("a+") as using, (folder / "postgres.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fcntl.flock(using, fcntl.LOCK_SH)
        address = folder / "postgres.folder"
        if not address.exists():
            where = _started(bin_)
            address.write_text(str(where), encoding="utf-8")
            _let_it_stop(bin_, where, address, users)
        where = Path(address.read_text(encoding="utf-8"))
        fcntl.flock(lock, fcntl.LOCK_UN)
        yield Postgres(where)


_STOPS = """
import fcntl, pathlib, shutil, subprocess, sys
users, address, where, pg_ctl, uid, gid = sys.argv[1:]
with open(users, "a") as using:
    fcntl.flock(using, fcntl.LOCK_EX)  # once nobody is left, also of those that were killed
    who = {"user": int(uid), "group": int(gid), "extra_groups": []} if uid else {}
    stop = [pg_ctl, "stop", "-D", where + "/data", "-m", "immediate"]
    subprocess.run(stop, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **who)
    shutil.copyfile(where + "/log", users.replace("users", "log"))
    shutil.rmtree(where, ignore_errors=True)
    pathlib.Path(address).unlink(missing_ok=True)
"""


def _let_it_stop(bin_: Path, where: Path, address: Path, users: Path) -> None:
    user = _user()
    ids = ("", "") if user is None else (str(user.pw_uid), str(user.pw_gid))
    told = (users, address, where, bin_ / "pg_ctl", *ids)
    beside = '"$@" < /dev/null > /dev/null 2>&1 &'  # nobody's child: it outlives us
    asked = ["/bin/sh", "-c", beside, "sh", sys.executable, "-c", _STOPS, *map(str, told)]
    subprocess.run(asked, check=True, cwd="/", start_new_session=True)


def _started(bin_: Path) -> Path:
    where = Path(tempfile.mkdtemp(prefix="syncsvc-pg-", dir="/tmp"))
    user = _user()
    if user is not None:
        os.chown(where, user.pw_uid, user.pw_gid)
    where.chmod(0o755)
    _run(
        bin_,
        "initdb",
        "-D",
        str(where / "data"),
        "-U",
        "tests",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C.UTF-8",
        "-N",
    )
    hba = where / "data" / "pg_hba.conf"
    hba.write_text(f"local all {LOCKED} scram-sha-256\n{hba.read_text(encoding='utf-8')}", encoding="utf-8")
    said = [f"-c {name}={value}" for name, value in {**_SETTINGS, "unix_socket_directories": where}.items()]
    _run(
        bin_,
        "pg_ctl",
        "start",
        "-w",
        "-D",
        str(where / "data"),
        "-l",
        str(where / "log"),
        "-o",
        " ".join(said),
    )
    server = Postgres(where)
    server.run(f"CREATE DATABASE {_TEMPLATE} TEMPLATE template0")
    Database.open(server.url(_TEMPLATE)).close()
    return where


def _user() -> pwd.struct_passwd | None:
    """Return who the server runs as, where that cannot be us: it refuses to be root."""
    if os.geteuid() != 0:
        return None
    known = {it.pw_name: it for it in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _run(bin_: Path, program: str, *arguments: str) -> None:
    user = _user()
    who = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    subprocess.run(
        [str(bin_ / program), *arguments],
        check=True,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **who,
    )
