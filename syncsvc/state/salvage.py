"""Salvage: what can still be read of a damaged state file, copied into a new one.

The damaged file is never opened where it lies: a copy is read, row by row around what is damaged. Whether
anything is missing is known for certain where every table could be read to its end; only then may a
service go on with the new file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from syncsvc.errors import StateError
from syncsvc.state import locks, migrations
from syncsvc.state.database import kind_of
from syncsvc.state.sqlite import StateFile, path_of

_MAGIC = b"SQLite format 3\0"
_HEADER = 100  # bytes; what stands where in them: sqlite.org/fileformat.html, section 1.3
_LARGEST_SIZE = 65536  # of a page, which the header writes as 1
_SPAN = 1000  # keys that are read at once
_OF_ITS_OWN = frozenset({"sqlite_stat1", "sqlite_sequence", "alembic_version"})
"""Tables that a new file has by itself."""

Row = tuple[object, ...]


@dataclass(slots=True)
class Salvaged:
    """What was copied: rows by table; `damaged` are the tables that could not be read to their end."""

    rows: dict[str, int] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether every row of every table was read."""
        return not self.damaged


def salvage(url: str, target: Path) -> Salvaged:
    """Copy what can be read of the state that `url` names into the new file `target`.

    The tables of the new file are of this version's form. Raises StateError where a service runs on the
    state, where `target` exists, or where not even the tables' names can be read; `target` is not made then.
    """
    if kind_of(url) is not StateFile:
        raise StateError("the state is no file: its server's own tools save what can be saved of it")
    path = path_of(url)
    if target.exists():
        raise StateError(f"{target} exists already: name a file that does not")
    if not path.exists():
        raise StateError(f"there is no file {path}")
    try:
        holding = locks.take(path)
    except OSError as error:
        raise StateError(f"the lock beside {path} cannot be used: {error.strerror}") from error
    try:
        with tempfile.TemporaryDirectory(prefix="salvage-", dir=target.absolute().parent) as folder:
            made = Path(folder) / "new.db"
            StateFile.open(f"sqlite:///{made}").close()
            copy = _copied(path, Path(folder), like=made)
            with contextlib.closing(sqlite3.connect(copy)) as source:
                source.execute("PRAGMA writable_schema = ON")  # one table that is gone leaves others
                found = _read(path, source, made)
            made.rename(target)
            return found
    finally:
        os.close(holding)


def _copied(path: Path, folder: Path, *, like: Path) -> Path:
    """Return a copy with its write-ahead log; a header that is gone is made like that of a new file."""
    copy = folder / "damaged.db"
    copy.touch(mode=0o600)
    shutil.copyfile(path, copy)
    wal = path.with_name(path.name + "-wal")
    if wal.exists():
        shutil.copyfile(wal, copy.with_name(copy.name + "-wal"))
    with copy.open("r+b") as raw, like.open("rb") as new:
        head = raw.read(_HEADER)
        if head[: len(_MAGIC)] != _MAGIC:
            head = new.read(_HEADER)
        size = int.from_bytes(head[16:18], "big")
        size = _LARGEST_SIZE if size == 1 else max(size, 1)
        pages = path.stat().st_size // size  # fewer than the header says where the end is gone
        raw.seek(0)
        raw.write(head[:28] + pages.to_bytes(4, "big") + head[32:92] + head[24:28] + head[96:])
    return copy


def _read(path: Path, source: sqlite3.Connection, made: Path) -> Salvaged:
    found = Salvaged()
    _require_same_form(path, source)
    with contextlib.closing(sqlite3.connect(made, isolation_level=None)) as target:
        target.execute("PRAGMA foreign_keys = OFF")  # what is missing may be what a row points to
        listed = target.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid"
        ).fetchall()
        target.execute("BEGIN IMMEDIATE")
        for (table,) in listed:
            if table in _OF_ITS_OWN:
                continue
            reader = _Reader(source, table, target)
            found.rows[table] = sum(
                target.executemany(reader.insert, rows).rowcount for rows in reader.rows()
            )
            if reader.damaged:
                found.damaged.append(table)
        _keep_numbers(source, target)
        target.execute("COMMIT")
        target.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return found


class _Reader:
    """Reads one table by spans of its key, halving a span that cannot be read until what can be is."""

    def __init__(self, source: sqlite3.Connection, table: str, target: sqlite3.Connection) -> None:
        """Read the columns that `target` has."""
        self.damaged = False
        self._source, self._table = source, table
        described = target.execute(f"PRAGMA table_info({table})").fetchall()
        names = [it[1] for it in described]
        try:
            target.execute(f"SELECT rowid FROM {table} LIMIT 0")
        except sqlite3.OperationalError:  # it is its own index, by its key
            self._key = next(it[1] for it in described if it[5] == 1)
        else:
            self._key = "rowid"
        columns = ", ".join([*(["rowid"] if self._key == "rowid" else []), *names])
        marks = ", ".join("?" * (columns.count(",") + 1))
        self.insert = f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})"
        self._select = f"SELECT {columns} FROM {table} WHERE {self._key}"

    def rows(self) -> Iterator[list[Row]]:
        """Yield what can be read; `damaged` says afterwards whether something could not."""
        last = self._last()
        if last is None:
            yield from self._until_it_breaks()
            return
        spans = [(low, min(low + _SPAN - 1, last)) for low in range(last - last % _SPAN, -1, -_SPAN)]
        while spans:
            low, high = spans.pop()
            try:
                found = self._source.execute(f"{self._select} BETWEEN ? AND ?", (low, high)).fetchall()
            except sqlite3.DatabaseError:
                self.damaged = True
                if low < high:
                    middle = (low + high) // 2
                    spans += [(middle + 1, high), (low, middle)]
            else:
                yield found

    def _last(self) -> int | None:
        """Return a number that no key is above, 0 for an empty table; None where that cannot be told."""
        for asked, values in (
            (f"SELECT max({self._key}) FROM {self._table}", ()),
            ("SELECT seq FROM sqlite_sequence WHERE name = ?", (self._table,)),
        ):
            try:
                (last,) = self._source.execute(asked, values).fetchone() or (None,)
            except sqlite3.DatabaseError:
                self.damaged = True
                continue
            if last is not None or not self.damaged:
                return last or 0
        return None

    def _until_it_breaks(self) -> Iterator[list[Row]]:
        with contextlib.suppress(sqlite3.DatabaseError):
            rows = self._source.execute(f"{self._select} >= 0 ORDER BY {self._key}")
            while found := rows.fetchmany(_SPAN):
                yield found


def _keep_numbers(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    """Let no number be given again that was: that of a batch stands in logs."""
    with contextlib.suppress(sqlite3.DatabaseError):
        for name, last in source.execute("SELECT name, seq FROM sqlite_sequence").fetchall():
            kept = target.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (last, name))
            if not kept.rowcount:
                target.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (name, last))


def _require_same_form(path: Path, source: sqlite3.Connection) -> None:
    try:
        source.execute("SELECT 1 FROM member LIMIT 0")
    except sqlite3.DatabaseError as error:
        told = f"the list of the tables in {path} cannot be read ({error}), so that nothing can be saved"
        raise StateError(f"{told}: begin anew, as docs/operations.md says") from error
    with contextlib.suppress(sqlite3.DatabaseError):
        (form,) = source.execute("SELECT version_num FROM alembic_version").fetchone() or (None,)
        head = migrations.forms()[0]
        if form not in {None, head}:
            told = f"{path} is of form {form}, and this version writes {head}"
            raise StateError(f"{told}: salvage it with the version that wrote it")
