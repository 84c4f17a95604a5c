"""The condition of the state file: whether a service could work on it, found out without touching it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from syncsvc.errors import StateError
from syncsvc.model import Problem
from syncsvc.state import locks, migrations
from syncsvc.state.database import kind_of
from syncsvc.state.postgres import StateServer
from syncsvc.state.sqlite import StateFile, path_of

WHERE = "state"
_SMALLEST = 64 * 1024 * 1024
"""Bytes that must be free: a large cycle's write-ahead log, and the copy that `forget` makes."""

_PATIENCE = 10.0
_STEPS = 100_000  # of SQLite's machine, between two looks at the time
_BESIDE = ("", "-wal", "-shm", ".lock", ".gate")


@dataclass(frozen=True, slots=True)
class Condition:
    """What keeps a state file from being used, and what else there is to say of it."""

    problems: tuple[Problem, ...] = ()
    facts: tuple[str, ...] = ()


def condition(url: str, *, seconds: float = _PATIENCE) -> Condition:
    """Return the condition of the state that `service.state` names.

    Nothing is made, migrated or written; a service that runs on it is not disturbed, and is a fact. A file
    that cannot be looked through within `seconds` is looked through in part.
    """
    try:
        if kind_of(url) is not StateFile:
            return Condition(facts=StateServer.look(url))
        path = path_of(url)
    except StateError as error:
        return Condition((Problem("service.state", str(error), "see docs/postgresql.md, or name a file"),))
    problems = [*_folder(path.absolute().parent), *_files(path)]
    if problems:
        return Condition(tuple(problems))
    if not path.exists():
        return Condition(facts=(f"there is no state in {path} yet: the first cycle makes it",))
    found = _content(path, time.monotonic() + seconds)
    holder = locks.holder(path)
    runs = () if holder is None else (f"{path} is in use by process {holder}, which runs cycles on it",)
    return Condition(found.problems, (*runs, *found.facts))


def _folder(folder: Path) -> list[Problem]:
    if not os.path.isdir(folder):  # noqa: PTH112 - which does not raise where we may not look
        return [_problem(f"the folder {folder} does not exist", "make it, or correct service.state")]
    space = os.statvfs(folder)
    if not _may(folder, os.W_OK | os.X_OK):
        if space.f_flag & os.ST_RDONLY:
            message = f"the folder {folder} is on a file system that is read-only"
            return [
                _problem(message, "mount a volume there, or name a folder in service.state that is on one")
            ]
        return [_problem(f"this user ({_who()}) may not write the folder {folder}", _own(folder))]
    free = space.f_bavail * space.f_frsize
    if free < _SMALLEST:
        message = f"the disk of {folder} is full but for {free // 1024**2:,} MiB"
        return [_problem(message, "make room: what cannot be written down first is never sent")]
    return []


def _files(path: Path) -> list[Problem]:
    if path.is_dir():
        return [_problem(f"{path} is a folder", "name a file in it, such as sqlite:///syncsvc.db")]
    beside = [path.with_name(path.name + suffix) for suffix in _BESIDE]
    barred = [it for it in beside if it.exists() and not _may(it, os.R_OK | os.W_OK)]
    if not barred:
        return []
    names = ", ".join(map(str, barred))
    return [_problem(f"this user ({_who()}) may not read and write {names}", _own(barred[0]))]


def _content(path: Path, until: float) -> Condition:
    """Return what the file holds; it is opened to be read only."""
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            form = _form(path, opened)
            return form if form.problems else Condition((), (*form.facts, *_whole(path, opened, until)))
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return Condition((_damaged(path, str(error)),))
        return Condition(
            (_problem(f"{path} cannot be read: {error}", "see what holds it, then check again"),)
        )


def _form(path: Path, opened: sqlite3.Connection) -> Condition:
    tables = {name for (name,) in opened.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        return Condition(facts=(f"{path} is empty: the first cycle fills it",))
    if "alembic_version" not in tables:
        return Condition((_problem(f"{path} is the database of something else", "name another file"),))
    (form,) = opened.execute("SELECT version_num FROM alembic_version").fetchone() or ("none",)
    known = migrations.forms()
    if form not in known:
        message = f"{path} was written by a later version of syncsvc (form {form}, this one knows {known[0]})"
        return Condition((_problem(message, "run that version or a newer one"),))
    if form != known[0]:
        return Condition(facts=(f"{path} is of form {form}: the next cycle brings it to {known[0]}",))
    return Condition()


def _whole(path: Path, opened: sqlite3.Connection, until: float) -> list[str]:
    """Return what there is to say of a file that is whole as far as it was looked through."""
    opened.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
    try:
        (said,) = opened.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return [f"{path} is too large to be looked through whole: so far nothing is damaged"]
    if said != "ok":
        damage = sqlite3.DatabaseError(said)
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage
    return []


def _damaged(path: Path, said: str) -> Problem:
    return _problem(
        f"{path} is no database, or a damaged one ({said})",
        "stop the service and save what can be read, as docs/operations.md says; an older backup would award "
        "again what was sent since",
    )


def _own(path: Path) -> str:
    owner, mine = path.stat().st_uid, f"chown {os.geteuid()} {path}"
    return (
        f"run as its owner (uid {owner}), or give it to this user: {mine}; where it is the volume of a "
        "container, do so on the host, or run the container with its owner as --user"
    )


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _who() -> str:
    return f"uid {os.geteuid()}"


def _problem(message: str, remedy: str) -> Problem:
    return Problem(WHERE, message, remedy)
