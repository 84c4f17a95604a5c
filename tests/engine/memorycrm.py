"""A CRM held in memory, and the real connector that reads it: strict about what the protocol asks.

Cursors continue what they are part of, deletes are told or silent, write-backs come home as changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

from syncsvc.errors import CursorError
from syncsvc.model import Contact, FieldValue, Page, Problem, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Connector, Needs
from syncsvc.remote.transport import Network
from syncsvc.settings import Settings


class MemoryCrm:
    """A CRM in memory, and the connector type that reads it.

    Each change has a number; a poll reads what is numbered above its cursor, and the last `overlap` changes
    again. A sweep reads live records in the order of their ids.
    """

    Settings: ClassVar[type[Settings]] = Settings

    def __init__(self, *, page_size: int = 100, overlap: int = 0) -> None:
        self.page_size = page_size
        self.overlap = overlap
        self.records: dict[str, dict[str, FieldValue]] = {}
        self.asked = 0
        self.pages = 0
        self.writes: list[WriteBack] = []
        self.outcomes: dict[str, WriteOutcome] = {}
        self.between: Callable[[int], None] = lambda _: None
        self.cursors_lost = False
        self._changed: dict[str, int] = {}
        self._gone: dict[str, str | None] = {}
        self._merged: dict[str, tuple[str, ...]] = {}
        self._number = 0
        self._failure: tuple[BaseException, int] | None = None

    def __call__(self, settings: Any, needs: Needs, network: Network) -> Connector:
        del settings
        return MemoryConnector(self, needs, network)

    # What people do in the CRM.

    def put(self, record_id: str, **fields: FieldValue) -> str:
        """Make or change a record; a new one has an email, a name and no points unless they are given."""
        fresh: dict[str, FieldValue] = {"email": f"{record_id}@example.org", "name": "Ada", "points": 0}
        self.records[record_id] = self.records.get(record_id, fresh) | fields
        self._gone.pop(record_id, None)
        self.stamp(record_id)
        return record_id

    def stamp(self, record_id: str) -> None:
        self._number += 1
        self._changed[record_id] = self._number

    def commit_late(self, record_id: str, behind: int, **fields: FieldValue) -> None:
        """Let a record appear with a number `behind` changes old, as a transaction that committed late."""
        self.put(record_id, **fields)
        self._number -= 1
        self._changed[record_id] = self._number - behind

    def delete(self, record_id: str, *, into: str | None = None) -> None:
        del self.records[record_id]
        self._gone[record_id] = into
        self.stamp(record_id)

    def vanish(self, record_id: str) -> None:
        """Remove a record without a trace."""
        del self.records[record_id]
        self._changed.pop(record_id)

    def merge(self, winner: str, loser: str, *, told_by: str = "both") -> None:
        """Merge; told by the loser's tombstone, by the winner's record, or by both."""
        if told_by == "winner":
            self.vanish(loser)
        else:
            self.delete(loser, into=winner)
        if told_by != "loser":
            self._merged[winner] = (*self._merged.get(winner, ()), loser)
            self.stamp(winner)

    def fail(self, error: BaseException, *, after: int = 0) -> None:
        """Fail once, when `after` pages of a read have been handed out."""
        self._failure = (error, after)

    # What the connector asks.

    def read(self, cursor: str | None) -> Iterator[Page]:
        self.asked += 1
        if cursor is not None and self.cursors_lost:
            self.cursors_lost = False
            raise CursorError("the cursor is too old")
        pages = self._sweep(cursor) if cursor is None or ":" in cursor else self._poll(int(cursor))
        number = 0
        while True:
            if self._failure is not None and self._failure[1] == number:
                error, self._failure = self._failure[0], None
                raise error
            page = next(pages, None)
            if page is None:
                return
            self.pages += 1
            yield page
            number += 1
            self.between(number)

    def _sweep(self, cursor: str | None) -> Iterator[Page]:
        began, after = (self._number, "") if cursor is None else _parts(cursor)
        while True:
            left = sorted(record_id for record_id in self.records if record_id > after)
            page, rest = left[: self.page_size], left[self.page_size :]
            after = page[-1] if page else after
            contacts = [self._contact(record_id) for record_id in page]
            yield Page(contacts, f"{began}:{after}" if rest else str(began), len(self.records))
            if not rest:
                return

    def _poll(self, since: int) -> Iterator[Page]:
        changed = sorted((n, it) for it, n in self._changed.items() if n > since - self.overlap)
        for start in range(0, max(1, len(changed)), self.page_size):
            page = changed[start : start + self.page_size]
            cursor = max(since, page[-1][0]) if page else since
            yield Page([self._contact(record_id) for _, record_id in page], str(cursor))
            since = cursor

    def _contact(self, record_id: str) -> Contact:
        if record_id in self._gone:
            return Contact(record_id, {}, gone=True, merged_into=self._gone[record_id])
        return Contact(record_id, dict(self.records[record_id]), merged_from=self._merged.get(record_id, ()))

    def write(self, value: WriteBack) -> WriteOutcome:
        if value.record_id in self.outcomes:
            return self.outcomes[value.record_id]
        if value.record_id not in self.records:
            return WriteOutcome(value.record_id, Written.GONE)
        self.writes.append(value)
        told = {
            name: it if isinstance(it, str) else f"{it:%Y-%m-%dT%H:%M:%SZ}"
            for name, it in value.values.items()
        }
        self.records[value.record_id] |= told
        self.stamp(value.record_id)
        return WriteOutcome(value.record_id, Written.WRITTEN)


def _parts(cursor: str) -> tuple[int, str]:
    began, _, after = cursor.partition(":")
    return int(began), after


class MemoryConnector:
    """The connector to a `MemoryCrm`; holds no state."""

    def __init__(self, crm: MemoryCrm, needs: Needs, network: Network) -> None:
        self._crm = crm
        self._needs = needs
        self._network = network

    def check(self) -> list[Problem]:
        return []

    def changes(self, cursor: str | None) -> Iterator[Page]:
        self._network.count()
        yield from self._crm.read(cursor)

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        ids = [value.record_id for value in values]
        assert len(set(ids)) == len(ids), "the engine must not name a record twice"
        self._network.count()
        for value in values:
            yield self._crm.write(value)

    def close(self) -> None:
        pass
