"""The mark beside a state file: how far the state has come, so that an older one in its place is known.

It stands in the gate's file. A claimed batch moves it once it is committed and before its request leaves: the
state may know more than the mark says, never less.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from sqlalchemy import Connection, func, select

from syncsvc.errors import StateError
from syncsvc.state import locks
from syncsvc.state.tables import BATCH, LEASE, META

FINGERPRINT_KEY = "fingerprint_key"
HISTORY = "history"
BARRED = "barred"
_LONGEST = 64  # bytes of a mark


@dataclass(frozen=True, slots=True)
class Mark:
    """The number of the newest batch, and the history that counted it; no history has claimed nothing yet.

    `barred` says why no cycle may run on a state, until somebody takes it on.
    """

    history: str
    batch: int
    barred: str = ""

    def covers(self, other: Mark) -> bool:
        """Return whether whoever has come this far knows everything up to the other one."""
        return self.history == other.history and self.batch >= other.batch


NOTHING = Mark("", 0)


class MarkedGate:
    """The gate's file, with the mark in it."""

    def __init__(self, descriptor: int | None) -> None:
        """Read the mark from the gate that is open there, if there is one."""
        self._descriptor = descriptor
        self._moving = threading.Lock()
        self._found = b"" if descriptor is None else os.pread(descriptor, _LONGEST, 0)

    @property
    def missing(self) -> bool:
        """Whether there is no mark."""
        return not self._found

    def move(self, mark: Mark) -> None:
        """Make the mark this one, on the disk too; raises OSError where it cannot be written."""
        with self._moving:
            self._write(mark)

    def reach(self, batch: int) -> bool:
        """Move the mark on to a batch of the same history; returns False where there is no history yet."""
        with self._moving:
            mark = self._mark()
            if not mark.history:
                return False
            if batch > mark.batch:
                self._write(Mark(mark.history, batch))
            return True

    def suspicion(self, path: Path, known: Mark) -> str | None:
        """Return why a state that knows this much may know less than was sent, None where it does not."""
        if known.barred:
            return told(path, known.barred)
        try:
            mark = self._mark()
        except ValueError:
            return f"{path}.gate is damaged, which says how far the state had come: it may be an older one"
        if known.covers(mark) or not (known.batch or mark.batch):
            return None
        if not path.exists():
            found = f"is gone, which has sent {mark.batch:,} batches: a new one"
        elif known.history == mark.history:
            found = f"is older than what was sent: it knows {known.batch:,} batches of {mark.batch:,}, and"
        elif not mark.history:
            found = (
                f"has sent {known.batch:,} batches, and its .gate is not beside it, which says whether it is "
                "the newest (where it was moved here, move that too): an older one"
            )
        elif known.history:
            sent = f", which has sent {mark.batch:,} batches," if mark.batch else ""
            found = f"is not the state that was here{sent} and"
        else:
            found = f"knows nothing, in the place of a state that has sent {mark.batch:,} batches, and"
        return told(path, found)

    def refuse_older(self, path: Path, known: Mark) -> None:
        """Raise StateError where a state may know less than was sent."""
        if found := self.suspicion(path, known):
            raise StateError(f"{found}. {TAKE_ON}")

    def refuse_copy(self, path: Path, known: Mark) -> None:
        """Raise StateError where a state that knows this much may not be copied to this path.

        Of what was sent by the state that was there, it must know all.
        """
        try:
            mark = self._mark()
            if known.covers(mark) or not mark.batch:
                return
            found = f"{path} is the place of a state that has sent {mark.batch:,} batches"
        except ValueError:
            found = f"{path}.gate is damaged, which says how far the state had come that was there"
        raise StateError(
            f"{found}, and nothing shows that the state to copy knows them all: a service would award again "
            "what it does not know of. Copy the newest there is; where this is the newest, name another file"
        )

    def _mark(self) -> Mark:
        if not self._found:
            return NOTHING
        history, batch = self._found.decode().removesuffix("\n").split(" ")
        return Mark(history, int(batch))

    def _write(self, mark: Mark) -> None:
        text = f"{mark.history} {mark.batch:020}\n".encode() if mark.history else b""
        if self._descriptor is not None and text != self._found:
            os.pwrite(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))
            os.fdatasync(self._descriptor)
            self._found = text


def look_beside(path: Path) -> MarkedGate:
    """Return the mark beside a state file, to be compared with; nothing is made, and it may be gone."""
    gate = locks.look_at_gate(path)
    try:
        return MarkedGate(gate)
    finally:
        if gate is not None:
            os.close(gate)


def mark_of(opened: sqlite3.Connection) -> Mark:
    """Return what a state file itself knows."""
    facts = dict(opened.execute("SELECT name, value FROM meta WHERE name IN (?, ?, ?)", _FACTS).fetchall())
    (newest,) = opened.execute("SELECT seq FROM sqlite_sequence WHERE name = 'batch'").fetchone() or (0,)
    return _of_history(facts, newest)


def mark_on_server(connection: Connection) -> Mark:
    """Return what a state on a server knows, inside the caller's transaction.

    Its rows tell, of which none is ever deleted: a server's counters run ahead of them after a fall.
    """
    facts = connection.execute(select(META.c.name, META.c.value).where(META.c.name.in_(_FACTS)))
    return _of_history(dict(facts.all()), connection.scalar(select(func.max(BATCH.c.id))) or 0)


def _of_history(facts: Mapping[str, bytes], newest: int) -> Mark:
    if FINGERPRINT_KEY not in facts:
        return NOTHING
    history = blake2b(facts[FINGERPRINT_KEY], digest_size=8, key=facts.get(HISTORY, b"")).hexdigest()
    return Mark(history, newest, facts.get(BARRED, b"").decode())


_FACTS = (FINGERPRINT_KEY, HISTORY, BARRED)


def bar(connection: Connection, why: str) -> None:
    """Let no cycle run on a state until somebody takes it on.

    `why` follows its name, and "would award again what it does not know of" follows that.
    """
    connection.execute(META.delete().where(META.c.name == BARRED))
    connection.execute(META.insert().values(name=BARRED, value=why.encode()))
    # Whoever holds one writes no more, and whoever would take it is told why not.
    connection.execute(LEASE.update().values(fence=LEASE.c.fence + 1, owner=None))


def refuse_barred(place: object, connection: Connection) -> None:
    """Raise StateError where no cycle may run on a state on a server, inside the caller's transaction."""
    if why := barred_on_server(place, connection):
        raise StateError(f"{why}. {TAKE_ON}")


def barred_on_server(place: object, connection: Connection) -> str | None:
    """Return why no cycle may run on a state on a server, inside the caller's transaction; else None."""
    why = connection.scalar(select(META.c.value).where(META.c.name == BARRED))
    return None if why is None else told(place, why.decode())


def told(place: object, found: str) -> str:
    """Return a sentence of what was found of a state that may know less than was sent."""
    return f"{place} {found} would award again what it does not know of"


def begin_history(connection: Connection) -> None:
    """Let batches be counted in a new history, inside the caller's transaction: no older state is of it."""
    connection.execute(META.delete().where(META.c.name.in_([HISTORY, BARRED])))
    connection.execute(META.insert().values(name=HISTORY, value=os.urandom(16)))


TAKE_ON = (
    "Put the newest one back, with its -wal. Where this is the newest there is: `syncsvc state restore` "
    "takes it on, with what may have been awarded since in doubt"
)
