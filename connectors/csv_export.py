"""The files of an export: which they are, whether they stand still, and what tells two states of them apart.

An export that is being written must never be read. No clock can say whether it is: a file server's may be
ahead or behind, and a copy may keep the old time. So an export that is new to us is looked at twice,
`settle` apart, and read only where it did not move between.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from syncsvc.errors import OperatorError, TransientError

RESULTS = ".results.csv"
MOST_FILES = 500  # each is held open while an export is read

Files = Literal["newest", "all"]


@dataclass(frozen=True, slots=True)
class State:
    """One file at one moment; `changed` is when anything about it changed, which nobody can set."""

    path: Path
    size: int
    modified: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: Path, file: BinaryIO) -> State:
        """Return the state of an open file: a network file system answers for that, and not from memory."""
        found = os.fstat(file.fileno())
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def same_content(self, other: State) -> bool:
        """Whether nothing was written in between; an open file that is replaced stays as it was."""
        return (self.size, self.modified, self.inode) == (other.size, other.modified, other.inode)


@dataclass(frozen=True, slots=True)
class Export:
    """The files of an export at one moment, in the order of their names."""

    states: tuple[State, ...]

    def identity(self, reading: str) -> str:
        """Return text that changes with the files, and with `reading`: the way in which they are read."""
        digest = hashlib.blake2b(reading.encode(), digest_size=12)
        for it in self.states:
            digest.update(f"\0{it.path.name}\0{it.size}\0{it.modified}\0{it.changed}\0{it.inode}".encode())
        return digest.hexdigest()

    @contextmanager
    def opened(self) -> Iterator[list[BinaryIO]]:
        """Open every file; raises TransientError where one is not what it was."""
        with ExitStack() as stack:
            files = []
            for state in self.states:
                file = stack.enter_context(_open(state.path))
                if not State.of(state.path, file).same_content(state):
                    raise moving(state.path)
                files.append(file)
            yield files

    def verify(self, files: Sequence[BinaryIO]) -> None:
        """Raise TransientError where an open file was written to since."""
        for state, file in zip(self.states, files, strict=True):
            if not State.of(state.path, file).same_content(state):
                raise moving(state.path)


@contextmanager
def readable() -> Iterator[None]:
    """Let files that cannot be read on, of a file server that went away, be passing trouble."""
    try:
        yield
    except OSError as error:
        raise TransientError(
            f"the export cannot be read on ({error.strerror or 'unknown reason'})"
        ) from error


def moving(path: Path) -> TransientError:
    """Return the error of a file that somebody is writing."""
    return TransientError(f"{path.name} is being written: it is read once it stands still")


def look(path: Path, *, files: Files | None, pattern: str) -> Export:
    """Return the export as it is now.

    Raises OperatorError where there is none, or where a folder does not say which of its files are meant.
    """
    if not path.is_dir():
        return Export((_look_at(path),))
    if files is None:
        raise OperatorError(
            f'{path} is a folder: say with files = "newest" that its newest file is the whole export, or '
            'with files = "all" that its files are parts of one'
        )
    found = sorted(
        it for it in path.glob(pattern) if it.is_file() and not it.name.startswith(".") and not _is_result(it)
    )
    if not found:
        raise OperatorError(f"no file in {path} is named {pattern}: put the export there, or correct pattern")
    if files == "newest":
        return Export((max(map(_look_at, found), key=lambda it: (it.modified, it.path.name)),))
    if len(found) > MOST_FILES:
        raise OperatorError(
            f"{path} holds {len(found)} exports, more than {MOST_FILES} parts: move old ones away"
        )
    return Export(tuple(map(_look_at, found)))


def _is_result(path: Path) -> bool:
    return path.name.endswith(RESULTS)


def _look_at(path: Path) -> State:
    with _open(path) as file:
        return State.of(path, file)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise OperatorError(f"there is no file {path}: let it be exported, or correct path") from None
    except OSError as error:
        problem = f"{path} cannot be read ({error.strerror or 'unknown reason'})"
        raise OperatorError(f"{problem}: let the service's user read it") from error
