"""One CSV file as a table: its header, and its rows one after the other, each told or refused by its line.

A file is read as a stream, line by line, and can be read on from any row's end. Nothing is guessed about a
row: one whose quotes do not match, or whose cells are more or fewer than the header's, is refused whole.
Messages name lines and columns, never what a cell holds.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import BinaryIO, NamedTuple

from syncsvc.errors import OperatorError, SchemaError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LONGEST_KEY = 255

_BOM = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_LINE = 4 * 1024 * 1024
_MOST_DIGESTED = 64 * 1024  # bytes of a broken row that its id is made of
_SEPARATOR = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)  # Excel's own line before the header
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+")


class Place(NamedTuple):
    """Where a row ends: the bytes and the lines of its file that are behind it."""

    offset: int
    line: int


class Row(NamedTuple):
    """A row, with the line on which it begins and where it ends.

    `refusal` says why it cannot be read. `keyed` says that `record_id` is the key that stands in the row;
    else it is made of the row's content, and stays the same for as long as that does.
    """

    record_id: str
    cells: Sequence[str]
    line: int
    end: Place
    refusal: str = ""
    keyed: bool = True


class _Lines:
    """The lines of a file as text, with how far they were read."""

    def __init__(self, file: BinaryIO, encoding: str, start: Place) -> None:
        file.seek(start.offset)
        self._file = file
        self._encoding = encoding
        self.offset, self.line = start
        self.garbled = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(_LONGEST_LINE)
        if not raw:
            raise StopIteration
        self.offset += len(raw)
        self.line += 1
        if len(raw) == _LONGEST_LINE and not raw.endswith(b"\n"):
            raise OperatorError(
                f"line {self.line} is longer than {_LONGEST_LINE // 1024 // 1024} MB, which no export is: "
                "check that the file is CSV"
            )
        try:
            return raw.decode(self._encoding)
        except UnicodeDecodeError:
            self.garbled = True
            return raw.decode(self._encoding, "replace")


class Table:
    """A CSV file that is open for reading, its header read."""

    def __init__(self, file: BinaryIO, name: str, *, key: str, delimiter: str | None, encoding: str) -> None:
        """Read the header; without a `delimiter`, the one is taken that makes a column of `key` appear.

        Raises SchemaError where there is no header or no such column in it.
        """
        self.name = name
        self._file = file
        self._encoding = encoding
        start, told = self._begin()
        chosen = [told or delimiter] if told or delimiter else list(DELIMITERS)
        headers = self._headers([it for it in chosen if it is not None], start)
        matching = [it for it, (columns, _) in headers.items() if key in columns]
        best = max(matching or headers, key=lambda it: len(headers[it][0]))
        self.delimiter = best
        self.columns, self.start = headers[best]
        self.require([key])
        self._key = self.columns.index(key)

    @property
    def has_bom(self) -> bool:
        """Whether the file begins with the mark by which Excel knows UTF-8."""
        self._file.seek(0)
        return self._file.read(len(_BOM)) == _BOM

    def require(self, names: Sequence[str]) -> None:
        """Raise SchemaError unless there is exactly one column of each name."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise SchemaError(
                f"{self.name} has no column {', '.join(missing)}: {self._advice(missing)}", fields=missing
            )
        twice = [name for name in names if self.columns.count(name) > 1]
        if twice:
            raise SchemaError(
                f"{self.name} has more than one column {', '.join(twice)}: rename all but one", fields=twice
            )

    def rows(self, start: Place | None = None) -> Iterator[Row]:
        """Yield the rows after `start`, by default all; rows without anything in them are left out."""
        lines = _Lines(self._file, self._encoding, start or self.start)
        parser = csv.reader(lines, delimiter=self.delimiter, strict=True)
        width, key = len(self.columns), self._key
        while True:
            begin, first = lines.offset, lines.line + 1
            lines.garbled = False
            try:
                cells = next(parser, None)
            except csv.Error as error:
                yield self._broken(begin, first, lines, _words(error))
                continue
            if cells is None:
                return
            if not any(cells):
                continue
            end = Place(lines.offset, lines.line)
            if lines.garbled:
                yield self._broken(begin, first, lines, f"is not text in {self._encoding}")
            elif len(cells) != width:
                yield self._broken(begin, first, lines, f"has {len(cells)} cells, and the header has {width}")
            else:
                record_id = cells[key].strip()
                problem = _key_problem(record_id)
                if problem:
                    yield self._broken(begin, first, lines, problem)
                else:
                    yield Row(record_id, cells, first, end)

    def _begin(self) -> tuple[Place, str | None]:
        """Return where the header begins, and the delimiter where the file itself names it."""
        self._file.seek(0)
        line = self._file.readline(_LONGEST_LINE)
        if line.startswith(_UTF_16):
            raise SchemaError(f'{self.name} is UTF-16, as Excel\'s "Unicode Text" is: save it as "CSV UTF-8"')
        skipped = len(_BOM) if line.startswith(_BOM) else 0
        told = _SEPARATOR.fullmatch(line[skipped:].decode(self._encoding, "replace"))
        return (Place(len(line), 1), told[1]) if told else (Place(skipped, 0), None)

    def _headers(self, delimiters: Sequence[str], start: Place) -> dict[str, tuple[list[str], Place]]:
        """Return the header as each delimiter makes it appear, and where it ends; at least one."""
        found, problem = {}, None
        for delimiter in delimiters:
            try:
                found[delimiter] = self._header(delimiter, start)
            except SchemaError as error:
                problem = problem or error
        if problem is not None and not found:
            raise problem
        return found

    def _header(self, delimiter: str, start: Place) -> tuple[list[str], Place]:
        lines = _Lines(self._file, self._encoding, start)
        try:
            for cells in csv.reader(lines, delimiter=delimiter, strict=True):
                if any(cells):
                    return [cell.strip() for cell in cells], Place(lines.offset, lines.line)
        except csv.Error as error:
            raise SchemaError(f"the header of {self.name} {_words(error)}: correct it") from None
        raise SchemaError(f"{self.name} is empty, without even a header: let it be exported anew")

    def _advice(self, missing: Sequence[str]) -> str:
        if any(_EMAIL.search(name) for name in self.columns):
            return "its first line is a contact's, and no header; let it be exported with one"
        folded = {name.casefold(): name for name in self.columns}
        close = [get_close_matches(name.casefold(), folded, n=1) for name in missing]
        guess = "".join(f"did you mean {folded[found[0]]}? " for found in close if found)
        named = ", ".join(filter(None, self.columns))
        return (
            f"{guess}its columns are {named} (separated by {DELIMITERS.get(self.delimiter, 'its own sign')})"
        )

    def _broken(self, begin: int, first: int, lines: _Lines, problem: str) -> Row:
        """Return a row that is refused, under an id made of its bytes."""
        self._file.seek(begin)
        content = self._file.read(min(lines.offset - begin, _MOST_DIGESTED))
        self._file.seek(lines.offset)
        digest = hashlib.blake2b(content.strip(), digest_size=6).hexdigest()
        refusal = f"line {first} of {self.name} {problem}; correct the line in the export"
        return Row(f"row-{digest}", (), first, Place(lines.offset, lines.line), refusal, keyed=False)


def _key_problem(key: str) -> str:
    if not key:
        return "has nothing in the key column"
    if "@" in key and _EMAIL.fullmatch(key):
        return "has an email in the key column, which is no key: it can change, and keys stand in logs"
    if len(key) > LONGEST_KEY:
        return f"has a key of more than {LONGEST_KEY} characters"
    return "" if key.isprintable() else "has a key with line breaks or other signs that cannot be printed"


def _words(error: csv.Error) -> str:
    told = str(error)
    if "end of data" in told:
        return "opens a quote that is never closed"
    if "field limit" in told:
        return f"has a cell of more than {csv.field_size_limit():,} characters, or a quote that is not closed"
    if "new-line" in told:
        return "ends with a carriage return alone"
    return "has a quote inside a cell: in a quoted cell it is written twice"
