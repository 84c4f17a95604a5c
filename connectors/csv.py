"""Exports in CSV: a file, or a folder of files, that some other program writes; contacts without any CRM.

A file cannot tell which of its rows changed: when it is another file than before, everything is read anew and
the engine compares. What is no longer in it is gone. What is written back goes into a results file beside it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO, ClassVar, Literal, NamedTuple

import orjson
from pydantic import Field

from connectors.csv_export import RESULTS, Export, Files, look, moving, readable
from connectors.csv_index import Index
from connectors.csv_reading import Reading
from connectors.csv_results import Form, Results
from connectors.csv_table import Place, Table
from syncsvc.errors import CursorError, OperatorError, SchemaError
from syncsvc.model import Page, Problem, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Needs
from syncsvc.remote.transport import Network
from syncsvc.settings import Duration
from syncsvc.settings import Settings as Table_

SAMPLE = 100
"""Rows that `check` looks at."""

_TURN = threading.Lock()
"""Of who writes results: two connectors may have one file, and all their exports are many open files."""

_NAMES = {"auto": None, "comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}


class CsvSettings(Table_):
    """The keys of a CSV export."""

    path: Path = Field(
        examples=["/exports/members.csv"], description="the exported file, or a folder of them"
    )
    key: str = Field(
        min_length=1,
        examples=["Customer"],
        description="the column that names a contact and never changes; no email",
    )
    files: Files | None = Field(
        default=None,
        description="of a folder: its newest file is the whole export, or all files are parts of one",
    )
    pattern: str = Field(default="*.csv", min_length=1, description="which files of a folder are exports")
    delimiter: Literal["auto", "comma", "semicolon", "tab", "bar"] = Field(
        default="auto", description="what separates cells; auto finds it in the header"
    )
    encoding: Literal["utf-8", "windows-1252"] = Field(
        default="utf-8", description="of the export; with or without a byte order mark"
    )
    settle: Duration = Field(
        default=timedelta(seconds=3), description="how long a changed export must stand still to be read"
    )
    results: Path | None = Field(
        default=None, description="the file that is written back to; NAME.results.csv beside the export"
    )


_TOP = Place(0, 0)


class _Position(NamedTuple):
    """What a cursor says: the export that was read and, inside a reading, the file and the place in it.

    `mixed` says that the reading began with another export: its end is no state to poll from. `results` says
    that there was a results file.
    """

    export: str
    file: int = 0
    place: Place | None = None
    mixed: bool = False
    results: bool = False

    def encode(self) -> str:
        if self.place is None:
            export = "" if self.mixed else self.export
            return orjson.dumps({"export": export, "results": self.results}).decode()
        inside = {"file": self.file, "offset": self.place.offset, "line": self.place.line}
        flags = {"mixed": self.mixed, "results": self.results}
        return orjson.dumps({"export": self.export, **inside, **flags}).decode()

    @classmethod
    def parse(cls, cursor: str) -> _Position:
        try:
            document = orjson.loads(cursor)
            export, results = document["export"], bool(document.get("results"))
            if isinstance(export, str) and not document.keys() - {"export", "results"}:
                return cls(export, results=results)
            numbers = [document[name] for name in ("file", "offset", "line")]
            if isinstance(export, str) and all(type(it) is int and it >= 0 for it in numbers):
                return cls(export, numbers[0], Place(*numbers[1:]), bool(document["mixed"]), results)
        except (ValueError, TypeError, KeyError):
            pass
        raise CursorError("the stored cursor is not one of this connector's")


class Csv:
    """The contacts of one export; see `syncsvc.remote.connector.Connector`."""

    Settings: ClassVar[type[Table_]] = CsvSettings

    def __init__(self, settings: CsvSettings, needs: Needs, network: Network) -> None:
        """Look at no file yet."""
        self._settings = settings
        self._needs = needs
        self._network = network
        self._read_fields = sorted(needs.read)
        self._written = sorted(needs.write.values())
        path = settings.path
        results = settings.results or path.with_name(f"{path.stem}{RESULTS}")
        self._results = Results(results, key=settings.key, names=self._written)
        self._reading = f"{settings.key} {settings.delimiter} {settings.encoding}"
        self._still = ""  # the export that was last seen to stand still, so that it is not waited for twice

    def check(self) -> list[Problem]:
        """Return what is wrong with the files, their columns, and the first rows."""
        problems: list[Problem] = []
        try:
            export = self._look()
            with readable(), export.opened() as files:
                for number, file in enumerate(files):
                    problems += self._problems(self._table(export, number, file))
        except OperatorError as error:
            problems.append(_problem("path", error))
        return problems + (self._problems_of_results() if self._written else [])

    def _problems_of_results(self) -> list[Problem]:
        problems: list[Problem] = []
        try:
            self._results.columns()
        except OperatorError as error:
            problems.append(_problem("results", error))
        folder = self._results.path.parent
        if not os.access(folder, os.W_OK | os.X_OK):
            message = f"the folder {folder} of the results cannot be written to, or is not there"
            problems.append(Problem("results", message, "let the service's user write there, or set results"))
        return problems

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield everything where the export is not the one of the cursor; see `Connector.changes`.

        The same is done where the results file is there no more, so that it is written anew.
        Raises TransientError where the export is being written, SchemaError where a column is missing, and
        OperatorError where there is no export, or keys stand in it again and again.
        """
        position = None if cursor is None else _Position.parse(cursor)
        export = self._look()
        now = _Position(export.identity(self._reading), results=bool(self._written) and self._results.exist)
        same = position is not None and position.export == now.export
        if not same:
            self._wait_for(export)
        elif position is not None and position.place is None:
            if now.results or not position.results:
                yield Page([], now.encode())
                return
            same = False
        begin = position if same else None
        if begin is None:
            mixed = position is not None and (
                position.mixed or (position.file, position.place) not in {(0, None), (0, _TOP)}
            )
            begin = now._replace(place=_TOP, mixed=mixed)
            # So that whoever would rather sweep is told at once, and who waits for a turn holds no file open.
            yield Page([], begin.encode(), whole=True)
            yield from self.changes(begin.encode())
            return
        with readable(), export.opened() as files:
            yield from self._read(export, files, begin)

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Write into the results file what is in the export, then yield the outcomes, in order.

        Raises TransientError where the export is being written, so that what is gone cannot be told, or the
        lease of the organization is over.
        """
        if not values:
            return
        with _TURN:
            found = self._present({value.record_id for value in values})
            told = {
                value.record_id: {name: _text(it) for name, it in value.values.items()}
                for value in values
                if value.record_id in found
            }
            if told:
                lease = partial(self._network.require_lease, f"results {self._results.path.name}")
                self._results.merge(told, self._form(), lease)
        for value in values:
            result = Written.WRITTEN if value.record_id in found else Written.GONE
            yield WriteOutcome(value.record_id, result)

    def close(self) -> None:
        """Have nothing to give back."""

    def _look(self) -> Export:
        it = self._settings
        return look(it.path, files=it.files, pattern=it.pattern)

    def _wait_for(self, export: Export) -> None:
        """Return once the export has stood still; raises TransientError where it moved."""
        identity = export.identity(self._reading)
        if identity == self._still:
            return
        self._network.sleep(self._settings.settle.total_seconds())
        now = self._look()
        if now.identity(self._reading) != identity:
            raise moving(now.states[-1].path)
        self._still = identity

    def _table(self, export: Export, number: int, file: BinaryIO) -> Table:
        it = self._settings
        return Table(
            file,
            export.states[number].path.name,
            key=it.key,
            delimiter=_NAMES[it.delimiter],
            encoding=it.encoding,
        )

    def _read(self, export: Export, files: Sequence[BinaryIO], start: _Position) -> Iterator[Page]:
        """Yield the rows behind `start`, each page once it is sure that nobody wrote to the files."""
        with Index(self._written, pause=lambda: self._network.sleep(0)) as index:
            tables = [self._table(export, number, file) for number, file in enumerate(files)]
            for table in tables:
                table.require(self._read_fields)
            reading = Reading(tables, self._read_fields, index)
            if self._written:
                with self._results.rows() as rows:
                    index.hold(rows)
            assert start.place is not None  # noqa: S101 - a reading has a place to begin at
            for contacts, number, place in reading.pages(start.file, start.place):
                export.verify(files)
                at = start._replace(file=number, place=place)
                yield Page(contacts, at.encode(), reading.count, whole=True, partial=reading.partial)

    def _present(self, asked: set[str]) -> set[str]:
        """Return which of these ids the export holds; raises TransientError where it may be half written."""
        export = self._look()
        left = set(asked)
        with readable(), export.opened() as files:
            for number, file in enumerate(files):
                for row in self._table(export, number, file).rows():
                    left.discard(row.record_id)
                    if not left:
                        return asked
        self._wait_for(export)
        return asked - left

    def _form(self) -> Form:
        export = self._look()
        with readable(), export.opened() as files:
            table = self._table(export, 0, files[0])
            bom = table.has_bom or self._settings.encoding != "utf-8"
            return Form(table.delimiter, bom, export.states[0].path)

    def _problems(self, table: Table) -> list[Problem]:
        problems = []
        try:
            table.require(self._read_fields)
        except SchemaError as error:
            problems.append(_problem("path", error))
        sample = list(islice(table.rows(), SAMPLE))
        if sample and all(row.refusal for row in sample):
            told, _, remedy = sample[0].refusal.partition("; ")
            message = f"not one of the first {len(sample)} rows can be read: {told}"
            problems.append(Problem("path", message, remedy))
        return problems


def _text(value: str | datetime) -> str:
    return value if isinstance(value, str) else f"{value:%Y-%m-%dT%H:%M:%SZ}"


def _problem(where: str, error: OperatorError) -> Problem:
    message, _, remedy = str(error).partition(": ")
    return Problem(where, message, remedy)
