"""One reading of an export: its rows as contacts, page by page, joined with their results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import structs

from connectors.csv_index import Index
from connectors.csv_table import Place, Row, Table
from syncsvc.model import Contact, FieldValue

PAGE = 500

_LINES = 40  # bits for the number of a line, behind that of its file


class Reading:
    """The rows of the tables of one export.

    `count` is how many there are. `partial` says that some have no key that can be read: any contact may be
    among them.
    """

    def __init__(self, tables: Sequence[Table], fields: Sequence[str], index: Index) -> None:
        """Go through all rows once, to know which keys stand twice; raises as `Index.repeated` does."""
        self._tables = tables
        self._index = index
        self._columns = [[(name, table.columns.index(name)) for name in fields] for table in tables]
        self.count = 0
        self.partial = False
        self._twice = index.repeated(self._keys())

    def pages(self, file: int, place: Place) -> Iterator[tuple[list[Contact], int, Place | None]]:
        """Yield the contacts behind a place, with the file and place at which a page ends (None: the end)."""
        page: list[Contact] = []
        end = file, place
        for number in range(file, len(self._tables)):
            behind = place if number == file and place.offset else None
            for row in self._tables[number].rows(behind):
                if len(page) == PAGE:
                    yield self._joined(page), *end
                    page = []
                end = number, row.end
                contact = self._contact(number, row)
                if contact is not None:
                    page.append(contact)
        yield self._joined(page), 0, None

    def _keys(self) -> Iterator[tuple[str, int]]:
        for number, table in enumerate(self._tables):
            for row in table.rows():
                self.count += 1
                if row.keyed:
                    yield row.record_id, number << _LINES | row.line
                else:
                    self.partial = True

    def _contact(self, number: int, row: Row) -> Contact | None:
        """Return what a row is, None where its key was told before."""
        if row.refusal:
            return Contact(row.record_id, {}, refusal=row.refusal)
        if row.record_id in self._twice:
            first, again = self._twice[row.record_id]
            if number << _LINES | row.line != first:
                return None
            refusal = f"its key stands on {self._told(first)} and again on {self._told(again)}"
            return Contact(row.record_id, {}, refusal=f"{refusal}; let each row have a key of its own")
        cells = row.cells
        return Contact(row.record_id, {name: cells[place] or None for name, place in self._columns[number]})

    def _told(self, place: int) -> str:
        return f"line {place & ((1 << _LINES) - 1)} of {self._tables[place >> _LINES].name}"

    def _joined(self, page: Sequence[Contact]) -> list[Contact]:
        """Return contacts with what was written back to them; a row that is in no results has nothing."""
        results = self._index.of([contact.record_id for contact in page])
        nothing: dict[str, FieldValue] = dict.fromkeys(self._index.names)
        return [
            structs.replace(it, fields={**it.fields, **results.get(it.record_id, nothing)}) for it in page
        ]
