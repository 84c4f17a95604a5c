"""What must be known of an export before its first row is told, kept on disk for the time of one reading.

A file of a million rows is never held in memory: which keys stand twice is found in a temporary database
without a name, and so are the results of the rows of a page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Self

import orjson

from syncsvc.errors import OperatorError, TransientError

MOST_TWICE = 1000
"""Keys that may stand on more than one line; where there are more, the column is no key."""

_SOME = 5_000  # rows between two pauses
_CACHE = -16_384  # KiB that the temporary database keeps in memory


class Index:
    """The keys of an export and its results, of which `names` are the columns; a context manager."""

    def __init__(self, names: Sequence[str], *, pause: Callable[[], None]) -> None:
        """Begin empty; `pause` is called now and then, and may end the work by an error."""
        self.names = names
        self._pause = pause
        # A file that goes with the connection; pages may be asked for by threads that take turns.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute(f"PRAGMA cache_size = {_CACHE}")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("BEGIN")

    def __enter__(self) -> Self:
        """Return the index."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of everything."""
        self._database.close()

    def repeated(self, keys: Iterable[tuple[str, int]]) -> dict[str, tuple[int, int]]:
        """Return the keys that come more than once, each with the first two places where it does.

        Raises OperatorError where they are more than `MOST_TWICE`.
        """
        run = self._database.execute
        run("CREATE TABLE seen (id TEXT PRIMARY KEY, place INTEGER, again INTEGER) WITHOUT ROWID")
        self._fill(
            "INSERT INTO seen (id, place) VALUES (?, ?) "
            "ON CONFLICT DO UPDATE SET again = coalesce(again, excluded.place)",
            keys,
        )
        twice = "FROM seen WHERE again IS NOT NULL"
        number: int = run(f"SELECT count(*) {twice}").fetchone()[0]
        if number > MOST_TWICE:
            raise OperatorError(
                f"{number:,} keys stand on more than one line: name a column as key that differs from row to "
                'row, or, where each file of a folder is a whole export, set files = "newest"'
            )
        found = {key: (place, again) for key, place, again in run(f"SELECT id, place, again {twice}")}
        run("DROP TABLE seen")
        return found

    def hold(self, rows: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Hold the results, of which `of` tells."""
        self._database.execute("CREATE TABLE result (id TEXT PRIMARY KEY, cells BLOB) WITHOUT ROWID")
        self._fill(
            "INSERT OR REPLACE INTO result VALUES (?, ?)",
            ((key, orjson.dumps([cells.get(name) or None for name in self.names])) for key, cells in rows),
        )

    def of(self, keys: Sequence[str]) -> dict[str, dict[str, str | None]]:
        """Return what the results hold of each key that stands in them, by column."""
        if not self.names:
            return {}
        listed = orjson.dumps(keys).decode()
        found = self._database.execute(
            "SELECT id, cells FROM result WHERE id IN (SELECT value FROM json_each(?))", [listed]
        )
        return {key: dict(zip(self.names, orjson.loads(cells), strict=True)) for key, cells in found}

    def _fill(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        remaining = iter(rows)
        while some := list(islice(remaining, _SOME)):
            self._pause()
            try:
                self._database.executemany(statement, some)
            except sqlite3.Error as error:
                raise TransientError(
                    f"there is no room for a temporary database ({error}): make room where TMPDIR points"
                ) from error
