"""The lock files beside a state file: of the one process that runs cycles, and the gate for all who write."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from syncsvc.errors import StateError

_A_LOOK = 0.05  # seconds; `holder` holds the lock for far less


def take(path: Path) -> int:
    """Return the descriptor that keeps every other process from running cycles on a state file.

    Raises StateError where another one does, and OSError where the lock file cannot be used.
    """
    descriptor = os.open(_cycles(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _hold(descriptor)
    except BlockingIOError as error:
        holder = _said(descriptor)
        os.close(descriptor)
        raise StateError(f"{path} is in use by process {holder}: one process per state file") from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def holder(path: Path) -> str | None:
    """Return the process that runs cycles on a state file, "unknown" where it does not say, None for none."""
    try:
        descriptor = os.open(_cycles(path), os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _said(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def open_gate(path: Path) -> int:
    """Return the descriptor of the gate; raises OSError where its file cannot be used."""
    return os.open(path.with_name(path.name + ".gate"), os.O_RDWR | os.O_CREAT, 0o600)


def look_at_gate(path: Path) -> int | None:
    """Return a descriptor of the gate to read only, None where there is none; nothing is made."""
    try:
        return os.open(path.with_name(path.name + ".gate"), os.O_RDONLY)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def passing(gate: int | None) -> Iterator[None]:
    """Let one process at a time write: commits and checkpoints of two never meet.

    SQLite before 3.51.3 can corrupt a WAL when they do (sqlite.org/wal.html, "the WAL-reset bug").
    """
    if gate is None:
        raise StateError("the state database is closed")
    fcntl.flock(gate, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(gate, fcntl.LOCK_UN)


def _cycles(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _hold(descriptor: int) -> None:
    """Take the lock; raises BlockingIOError where another process holds it for longer than a look takes."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(_A_LOOK)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _said(descriptor: int) -> str:
    return os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
