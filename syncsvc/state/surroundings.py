"""What surrounds a state file: its folder, its disk, who may use it; and what is wrong with them."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

from syncsvc.errors import StateError
from syncsvc.model import Problem

WHERE = "state"
ROOM = 64 * 1024 * 1024
"""Bytes that should be free: a large cycle's write-ahead log, and the copy that `forget` makes."""

_LEAST_ROOM = 1024 * 1024
"""Bytes without which SQLite cannot even begin."""

_BESIDE = ("", "-wal", "-shm", ".lock", ".gate")
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_MASK = 0xFF  # an extended code of SQLite holds the plain one in its last byte


def obstacles(path: Path, *, room: int) -> list[Problem]:
    """Return what keeps this user from working on a state file, each with its remedy; nothing is written.

    A disk with fewer than `room` bytes is one.
    """
    folder = path.absolute().parent
    found = _of_folder(folder, room)
    read_only = os.path.isdir(folder) and os.statvfs(folder).f_flag & os.ST_RDONLY  # noqa: PTH112 - see there
    return found if read_only else [*found, *_of_files(path)]


def unusable(path: Path, error: Exception) -> StateError:
    """Return an error of the driver or the system as one that names its cause and the next step."""
    said = getattr(error, "orig", error)
    cause = error.strerror if isinstance(error, OSError) else str(said)
    return StateError(f"the state in {path} cannot be used: {cause}; {_remedy(path, said)}")


def problem(message: str, remedy: str) -> Problem:
    """Return a problem of the state."""
    return Problem(WHERE, message, remedy)


def _remedy(path: Path, error: Any) -> str:
    code = getattr(error, "sqlite_errorcode", None)
    plain = None if code is None else code & _MASK
    if plain in _DAMAGE or type(error) is sqlite3.DatabaseError:
        return (
            "it is no database, or a damaged one: save what can be read (syncsvc state salvage), as "
            "docs/operations.md says"
        )
    if plain in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return (
            "another program holds it: find it (fuser, lsof) and let it end; cycles go on by themselves then"
        )
    full = plain == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in {errno.ENOSPC, errno.EDQUOT}
    found = obstacles(path, room=_LEAST_ROOM)
    if found:
        return f"{found[0].message}: {found[0].remedy}"
    if full:
        return f"the disk or the quota of {path.absolute().parent} is full: {_MAKE_ROOM}"
    return (
        f"see whether the disk of {path.absolute().parent}, a quota or a limit on the size of files is "
        "reached, and what the system's log says of it"
    )


_MAKE_ROOM = "make room; nothing is sent that cannot be written down first, and nothing is lost"


def _of_folder(folder: Path, room: int) -> list[Problem]:
    if not os.path.isdir(folder):  # noqa: PTH112 - which does not raise where we may not look
        return [problem(f"the folder {folder} does not exist", "make it, or correct service.state")]
    space = os.statvfs(folder)
    if not _may(folder, os.W_OK | os.X_OK):
        if space.f_flag & os.ST_RDONLY:
            message = f"the folder {folder} is on a file system that is read-only"
            return [
                problem(message, "mount a volume there, or name a folder in service.state that is on one")
            ]
        return [problem(f"this user ({_who()}) may not write the folder {folder}", _own([folder]))]
    free = space.f_bavail * space.f_frsize
    if free < room:
        return [problem(f"the disk of {folder} is full but for {free // 1024**2:,} MiB", _MAKE_ROOM)]
    return []


def _of_files(path: Path) -> list[Problem]:
    if path.is_dir():
        return [problem(f"{path} is a folder", "name a file in it, such as sqlite:///syncsvc.db")]
    beside = [path.with_name(path.name + suffix) for suffix in _BESIDE]
    barred = [it for it in beside if it.exists() and not _may(it, os.R_OK | os.W_OK)]
    if not barred:
        return []
    names = ", ".join(map(str, barred))
    return [problem(f"this user ({_who()}) may not read and write {names}", _own(barred))]


def _own(paths: list[Path]) -> str:
    listed = " ".join(map(str, paths))
    others = [it for it in paths if it.stat().st_uid != os.geteuid()]
    if not others:
        return f"give its owner the right to: chmod u+rw{'x' if paths[0].is_dir() else ''} {listed}"
    return (
        f"run as its owner (uid {others[0].stat().st_uid}), or give it to this user: chown {os.geteuid()} "
        f"{listed}; where it is the volume of a container, do so on the host, or run the container with its "
        "owner as --user"
    )


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _who() -> str:
    return f"uid {os.geteuid()}"
