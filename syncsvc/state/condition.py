"""The condition of the state file: whether a service could work on it, found out without touching it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from syncsvc.errors import StateError
from syncsvc.model import Problem
from syncsvc.state import locks, migrations
from syncsvc.state.database import kind_of
from syncsvc.state.mark import NOTHING, TAKE_ON, look_beside, mark_of
from syncsvc.state.postgres import StateServer
from syncsvc.state.sqlite import StateFile, path_of
from syncsvc.state.surroundings import ROOM, obstacles, problem

_RECORD = "alembic_version"
_PATIENCE = 10.0
_STEPS = 100_000  # of SQLite's machine, between two looks at the time


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
        return Condition((Problem("service.state", str(error), "see docs/postgresql.md"),))
    if problems := obstacles(path, room=ROOM):
        return Condition(tuple(problems))
    if not path.exists():
        older = _older(path)
        return older or Condition(facts=(migrations.none_yet(path),))
    found = _content(path, time.monotonic() + seconds)
    runs = (f"{path} is in use by {it}, which runs cycles on it" for it in used_by(url))
    return Condition(found.problems, (*runs, *found.facts))


def used_by(url: str) -> tuple[str, ...]:
    """Return what is known of the processes that run cycles on a state: services, and a command on a file."""
    if kind_of(url) is not StateFile:
        return tuple(StateServer.services(url)[1])
    holder = locks.holder(path_of(url))
    return () if holder is None else (f"process {holder}",)


def refusal(url: str) -> str | None:
    """Return why no cycle runs on a state that can be read, which knows less than was sent; else None."""
    if kind_of(url) is not StateFile:
        told = StateServer.barred(url)
    else:
        path = path_of(url)
        with contextlib.closing(_to_read(path)) as opened:
            older = _older(path, opened)
        told = older.problems[0].message if older else None
    return f"{told}: no cycle runs on it. {TAKE_ON}" if told else None


def nothing_to_copy(url: str) -> str | None:
    """Return why there is no state here that could be copied, None where there is one; nothing is written.

    A file that is damaged is left to be told by whoever opens it.
    """
    kind = kind_of(url)
    if not kind.exists(url):
        return "there is none"
    if kind is not StateFile:
        return None
    path = path_of(url)
    try:
        with contextlib.closing(_to_read(path)) as opened:
            tables = _tables(opened)
    except sqlite3.DatabaseError:
        return None
    if _RECORD in tables:
        return None
    return f"{path} is {'the database of something else' if tables else 'empty'}"


def _to_read(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def _older(path: Path, opened: sqlite3.Connection | None = None) -> Condition | None:
    """Return what is wrong with a state that knows less than was sent; `opened` is None for an empty one."""
    marked = look_beside(path)  # before the state is looked at, which may go on meanwhile
    found = marked.suspicion(path, NOTHING if opened is None else mark_of(opened))
    return Condition((problem(found, TAKE_ON),)) if found else None


def _content(path: Path, until: float) -> Condition:
    """Return what the file holds; it is opened to be read only."""
    try:
        with contextlib.closing(_to_read(path)) as opened:
            form = _form(path, opened)
            if form.problems:
                return form
            made = opened.execute("SELECT name FROM sqlite_schema WHERE name = 'meta'").fetchone()
            older = _older(path, opened if made else None)
            return older or Condition((), (*form.facts, *_whole(path, opened, until)))
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            return Condition((_damaged(path, str(error)),))
        return Condition((problem(f"{path} cannot be read: {error}", "see what holds it, then check again"),))


def _tables(opened: sqlite3.Connection) -> set[str]:
    return {name for (name,) in opened.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def _form(path: Path, opened: sqlite3.Connection) -> Condition:
    tables = _tables(opened)
    if not tables:
        return Condition(facts=(f"{path} is empty: the first cycle fills it",))
    if _RECORD not in tables:
        return Condition((problem(f"{path} is the database of something else", "name another file"),))
    (form,) = opened.execute("SELECT version_num FROM alembic_version").fetchone() or ("none",)
    known = migrations.forms()
    if form not in known:
        message = f"{path} was written by a later version of syncsvc (form {form}, this one knows {known[0]})"
        return Condition((problem(message, "run that version or a newer one"),))
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
    return problem(
        f"{path} is no database, or a damaged one ({said})",
        "stop the service and save what can be read (syncsvc state salvage), as docs/operations.md says",
    )
