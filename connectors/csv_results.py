"""The results file beside an export: one row per key, with what was written back to it.

It is replaced as a whole, so that whoever reads it sees either the old one or the new one. Columns that
people add to it stay. It is never read as contacts.
"""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from connectors.csv_table import Table
from syncsvc.errors import OperatorError, SchemaError


@dataclass(frozen=True, slots=True)
class Form:
    """How the results are written, so that the program that made the export can open them too."""

    delimiter: str
    bom: bool
    mode_of: Path


class Results:
    """The results of one connector; `names` are the columns that are written back."""

    def __init__(self, path: Path, *, key: str, names: Sequence[str]) -> None:
        """Name the file; it need not exist."""
        self.path = path
        self._key = key
        self._names = names

    @property
    def exist(self) -> bool:
        """Whether the file is there."""
        return self.path.exists()

    @contextmanager
    def rows(self) -> Iterator[Iterator[tuple[str, dict[str, str]]]]:
        """Open the results as they are: each key, with the cells of its row by column.

        A row that cannot be read is left out: the results are ours, and are written anew. Raises
        OperatorError where the file is none of ours.
        """
        with self._table() as table:
            yield iter(()) if table is None else _told(table)

    def columns(self) -> Sequence[str]:
        """Return the columns that the file has now; raises as `rows` does."""
        with self._table() as table:
            return () if table is None else table.columns

    def merge(self, values: Mapping[str, Mapping[str, str]], form: Form, require: Callable[[], None]) -> None:
        """Make the results hold these values, by key and column; what was there besides stays.

        Raises what `require` raises, which is asked when all is ready, and OperatorError where the file is
        none of ours, or cannot be written.
        """
        part = self.path.with_name(f".{self.path.name}.part")
        try:
            part.unlink(missing_ok=True)
            with self._table() as table, part.open("w", encoding="utf-8", newline="") as file:
                shutil.copymode(form.mode_of, part)
                if form.bom:
                    file.write("\ufeff")
                old = [] if table is None else [name for name in table.columns if name != self._key]
                header = [self._key, *old, *(name for name in self._names if name not in old)]
                writer = csv.writer(file, delimiter=form.delimiter)
                writer.writerow(header)
                writer.writerows(_merged(table, values, header))
                file.flush()
                os.fsync(file.fileno())
            require()
            part.replace(self.path)
            _keep(self.path.parent)
        except OSError as error:
            raise OperatorError(
                f"the results {self.path} cannot be written ({error.strerror or 'unknown reason'}): let the "
                "service's user write to that folder, or name another file with results"
            ) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    @contextmanager
    def _table(self) -> Iterator[Table | None]:
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            problem = f"the results {self.path} cannot be read ({error.strerror or 'unknown reason'})"
            raise OperatorError(f"{problem}: let the service's user read them") from error
        with file:
            if not os.fstat(file.fileno()).st_size:
                yield None
                return
            try:
                table = Table(file, self.path.name, key=self._key, delimiter=None, encoding="utf-8")
            except SchemaError:
                raise OperatorError(
                    f"{self.path} is there already and has no column {self._key}, so it is left alone: move "
                    "it away, or name another file with results"
                ) from None
            yield table


def _merged(
    table: Table | None, values: Mapping[str, Mapping[str, str]], header: Sequence[str]
) -> Iterator[list[str]]:
    """Yield the cells of every row that there is, with its new values, then those of rows that are new."""
    left, places = dict(values), {name: place for place, name in enumerate(header)}
    if table is not None:
        taken = [table.columns.index(name) for name in header if name in table.columns]
        empty = [""] * (len(header) - len(taken))  # new columns stand last
        for row in table.rows():
            key = row.record_id
            if row.refusal or (key in values and key not in left):
                continue  # it cannot be read, or somebody wrote it twice
            cells = [row.cells[place] for place in taken] + empty
            for name, cell in left.pop(key, {}).items():
                cells[places[name]] = cell
            cells[0] = key
            yield cells
    for key, value in left.items():
        yield [key, *(value.get(name, "") for name in header[1:])]


def _told(table: Table) -> Iterator[tuple[str, dict[str, str]]]:
    for row in table.rows():
        if not row.refusal:
            yield row.record_id, dict(zip(table.columns, row.cells, strict=True))


def _keep(folder: Path) -> None:
    """Let the folder's new entry survive a fall of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
