"""Backups of a state: a copy of one moment beside a running service, and its way back into place."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from syncsvc.config import OrganizationConfig
from syncsvc.errors import StateError
from syncsvc.state import locks, migrations
from syncsvc.state.database import kind_of
from syncsvc.state.sqlite import StateFile, path_of
from syncsvc.state.store import refuse_another


@contextlib.contextmanager
def backing_up(url: str, target: Path) -> Iterator[Path]:
    """Give a copy of the state as it is now, to be looked at; it is the file `target` once the block ends.

    The state may be in use. Raises StateError where there is none, or where `target` exists; nothing is made
    then, nor where the block raises.
    """
    if target.exists():
        raise StateError(f"{target} exists already: name a file that does not")
    kind = kind_of(url)
    if not kind.exists(url):
        raise StateError("there is no state yet: nothing was sent")
    with _beside(target, "backup-") as folder:
        copy = folder / "backup.db"
        kind.copy_to(url, copy)
        yield copy
        _keep(copy, target)


def put_in_place(
    url: str, backup: Path, organizations: Sequence[OrganizationConfig], *, now: datetime
) -> Path | None:
    """Put a backup in the place of the state file; returns what the former one is called now, if any was.

    Raises StateError where a service runs on the state, or where `backup` is no whole state that this version
    can read or none of these organizations, and ConfigurationError where it knows one as another; nothing is
    changed then.
    """
    if kind_of(url) is not StateFile:
        raise StateError(
            "the state is no file: put it back with its server's own tools, or with `state copy` into an "
            "empty database; then `state restore` without a file takes it on"
        )
    path = path_of(url)
    if not backup.is_file():
        raise StateError(f"there is no file {backup}")
    with _told(path):
        holding = locks.take(path)
    try:
        with _beside(path, "restore-") as folder:
            copy = folder / "state.db"
            _copy(backup, copy)
            _require_ours(backup, copy, organizations)
            former = _set_aside(path, now)
            _keep(copy, path)
            return former
    finally:
        os.close(holding)


@contextlib.contextmanager
def _beside(path: Path, prefix: str) -> Iterator[Path]:
    with _told(path), tempfile.TemporaryDirectory(prefix=prefix, dir=path.absolute().parent) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StateError(f"the folder of {path} cannot be used: {error.strerror}") from error


def _keep(copy: Path, target: Path) -> None:
    """Let a copy be the file `target`, on the disk too."""
    _sync(copy)
    copy.replace(target)
    _sync(target.absolute().parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy(backup: Path, copy: Path) -> None:
    copy.touch(mode=0o600)
    try:
        with contextlib.closing(sqlite3.connect(f"{backup.absolute().as_uri()}?mode=ro", uri=True)) as source:
            (found,) = source.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise sqlite3.DatabaseError(found)
            (form,) = source.execute("SELECT version_num FROM alembic_version").fetchone()
            source.execute("VACUUM INTO ?", (str(copy),))
    except sqlite3.Error as error:
        raise StateError(f"{backup} is no whole state of syncsvc: {error}") from error
    if form not in migrations.forms():
        raise migrations.too_new(form)


def _require_ours(backup: Path, copy: Path, organizations: Sequence[OrganizationConfig]) -> None:
    with contextlib.closing(sqlite3.connect(copy)) as opened:
        known = opened.execute("SELECT name, organization_id FROM organization").fetchall()
    found = [it.name for it in organizations if refuse_another(it, known)]
    if known and not found:
        names = ", ".join(sorted(name for name, _ in known))
        raise StateError(f"{backup} is the state of others ({names}): name a backup of this one")


def _set_aside(path: Path, now: datetime) -> Path | None:
    if not path.exists():
        return None
    former = path.with_name(f"{path.name}.{now:%Y%m%dT%H%M%SZ}")
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        wal.rename(former.with_name(former.name + "-wal"))
    path.rename(former)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)
    return former
