"""A CRM held in memory, the connector that reads it, and its maker: the reference that the suite is fed with.

The engine is tested over it too: cursors continue what they are part of, deletions are told or silent,
write-backs come home as changes.
"""

from __future__ import annotations

import heapq
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from syncsvc.errors import CursorError
from syncsvc.model import Contact, FieldValue, Page, Problem, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Connector, ConnectorType, Needs
from syncsvc.remote.transport import Network
from syncsvc.settings import Settings
from syncsvc.testing.maker import Feature, Ground, Maker, Values

_SWEEP = re.compile(r"([0-9]+):(.*)")
_POLL = re.compile(r"([0-9]+)(?:@(-?[0-9]+):(.*))?")
_LAST = chr(0x10FFFF)  # stands behind every id


class MemoryCrm:
    """A CRM in memory, and the connector type that reads it.

    Each change has a number; a poll reads what is numbered above its cursor, and the last `overlap` changes
    again. A sweep reads live records in the order of their ids; with `tombstones`, after those that are gone.
    """

    Settings: ClassVar[type[Settings]] = Settings

    def __init__(self, *, page_size: int = 100, overlap: int = 0) -> None:
        """Begin empty."""
        self.page_size = page_size
        self.overlap = overlap
        self.records: dict[str, dict[str, FieldValue]] = {}
        self.asked = 0
        self.pages = 0
        self.writes: list[WriteBack] = []
        self.outcomes: dict[str, WriteOutcome] = {}
        self.before: Callable[[], None] = lambda: None
        self.between: Callable[[int], None] = lambda _: None
        self.cursors_lost = False
        self.short_pages = False
        self.tombstones = False
        self._changed: dict[str, int] = {}
        self._gone: dict[str, str | None] = {}
        self._merged: dict[str, tuple[str, ...]] = {}
        self._number = 0
        self._at_once: int | None = None
        self._failure: tuple[BaseException, int] | None = None

    def __call__(self, settings: Any, needs: Needs, network: Network) -> Connector:
        """Return a connector to this CRM."""
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
        """Give a record's change the next number."""
        self._number = self._at_once or self._number + 1
        self._changed[record_id] = self._number

    @contextmanager
    def at_once(self) -> Iterator[int]:
        """Give all changes made inside the same number, which is told."""
        self._number += 1
        self._at_once = self._number
        yield self._number
        self._at_once = None

    @property
    def newest(self) -> int:
        """The number of the last change."""
        return self._number

    def commit_late(self, record_id: str, behind: int, **fields: FieldValue) -> None:
        """Let a record appear with a number `behind` changes old, as a transaction that committed late."""
        self.put(record_id, **fields)
        self._number -= 1
        self._changed[record_id] = self._number - behind

    def delete(self, record_id: str, *, into: str | None = None) -> None:
        """Delete a record; its tombstone tells where it was merged into."""
        del self.records[record_id]
        self._gone[record_id] = into
        self.stamp(record_id)

    def vanish(self, record_id: str) -> None:
        """Remove a record without a trace."""
        del self.records[record_id]
        self._changed.pop(record_id)

    def merge(self, winner: str, loser: str, *, told_by: str = "both") -> None:
        """Merge; told by the loser's tombstone, by the winner's record, or by both.

        A winner's record names those too that the loser has absorbed before, as HubSpot's list does.
        """
        if told_by == "winner":
            if loser in self.records:  # else it has vanished before
                self.vanish(loser)
        else:
            self.delete(loser, into=winner)
        if told_by != "loser":
            absorbed = *self._merged.get(winner, ()), *self._merged.get(loser, ()), loser
            self._merged[winner] = tuple(dict.fromkeys(absorbed))
            self.stamp(winner)

    def fail(self, error: BaseException, *, after: int = 0) -> None:
        """Fail once, when `after` pages of a read have been handed out."""
        self._failure = (error, after)

    # What the connector asks.

    def read(self, cursor: str | None) -> Iterator[Page]:
        """Yield the pages of a sweep or a poll."""
        self.asked += 1
        if cursor is not None and self.cursors_lost:
            self.cursors_lost = False
            raise CursorError("the cursor is too old")
        pages = self._pages(cursor)
        number = 0
        while True:
            if self._failure is not None and self._failure[1] == number:
                error, self._failure = self._failure[0], None
                raise error
            self.before()
            page = next(pages, None)
            if page is None:
                return
            self.pages += 1
            yield page
            number += 1
            self.between(number)

    def _pages(self, cursor: str | None) -> Iterator[Page]:
        if cursor is None:
            return self._sweep(self._number, "")
        if sweep := _SWEEP.fullmatch(cursor):
            return self._sweep(int(sweep[1]), sweep[2])
        if poll := _POLL.fullmatch(cursor):
            since = int(poll[1])
            return self._poll(since, int(poll[2] or since - self.overlap), poll[3] or _LAST)
        raise CursorError("the cursor is none of this CRM's")

    def _sweep(self, began: int, after: str) -> Iterator[Page]:
        if self.tombstones and self._gone and not after:
            yield Page([self._contact(it) for it in self._gone], f"{began}:", len(self.records))
        while True:
            left = sorted(record_id for record_id in self.records if record_id > after)
            page, rest = left[: self._size()], left[self._size() :]
            after = page[-1] if page else after
            contacts = [self._contact(record_id) for record_id in page]
            yield Page(contacts, f"{began}:{after}" if rest else str(began), len(self.records))
            if not rest:
                return

    def _poll(self, since: int, number: int, after: str) -> Iterator[Page]:
        """Read what stands behind (number, after); `since` is the highest number read by earlier polls."""
        while True:
            left = ((n, it) for it, n in self._changed.items() if (n, it) > (number, after))
            page = heapq.nsmallest(self._size() + 1, left)
            rest = page[self._size() :]
            del page[self._size() :]
            number, after = page[-1] if page else (number, after)
            reached = max(since, number)
            inside = bool(rest) and (self.overlap > 0 or rest[0][0] == number)
            cursor = f"{since}@{number}:{after}" if inside else str(reached)
            yield Page([self._contact(record_id) for _, record_id in page], cursor)
            if not rest:
                return
            since = since if inside else reached

    def _size(self) -> int:
        if not self.short_pages:
            return self.page_size
        return self.pages % 2 * self.page_size // 2  # every other page is empty

    def _contact(self, record_id: str) -> Contact:
        if record_id in self._gone:
            return Contact(record_id, {}, gone=True, merged_into=self._gone[record_id])
        fields = {name: None if value == "" else value for name, value in self.records[record_id].items()}
        return Contact(record_id, fields, merged_from=self._merged.get(record_id, ()))

    def write(self, value: WriteBack) -> WriteOutcome:
        """Write one value; a record of `outcomes` is refused with what stands there."""
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


class MemoryConnector:
    """The connector to a `MemoryCrm`; holds no state."""

    def __init__(self, crm: MemoryCrm, needs: Needs, network: Network) -> None:
        """Be ready to read `crm`."""
        self._crm = crm
        self._needs = needs
        self._network = network

    def check(self) -> list[Problem]:
        """Return no problem."""
        return []

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield the pages of a sweep or a poll."""
        self._network.count()
        yield from self._crm.read(cursor)

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order."""
        ids = [value.record_id for value in values]
        if len(set(ids)) < len(ids):
            raise AssertionError("the engine must not name a record twice")
        if values:
            self._network.count()
        for value in values:
            yield self._crm.write(value)

    def close(self) -> None:
        """Have nothing to give back."""


class MemoryMaker(Maker):
    """A CRM in memory; its numbers stand for stamps, so a late change has an old number."""

    features = frozenset(Feature) - {
        Feature.WIRE,
        Feature.SCHEMA,
        Feature.PREPARED,
        Feature.LOOKS,
        Feature.MERGED_WRITES,
    }
    written: ClassVar[Mapping[str, str]] = {"last_updated": "wallet_time", "status": "wallet_status"}
    page = 100
    batch = 100

    def __init__(self, ground: Ground, folder: Path) -> None:
        """Make an empty CRM."""
        super().__init__(ground, folder)
        self.crm = MemoryCrm(page_size=self.page, overlap=50)
        self.crm.before = self._commit
        self._late: list[tuple[datetime, int, str, dict[str, FieldValue]]] = []
        self._lateness: timedelta | None = None
        self._ids = itertools.count(1)
        self._deleted: dict[str, dict[str, FieldValue]] = {}

    def connector_type(self) -> ConnectorType:
        """Return the CRM itself, which is no entry point."""
        return self.crm

    def settings(self) -> dict[str, Any]:
        """Return no keys."""
        return {}

    def put(self, contacts: Sequence[Values]) -> list[str]:
        """Add contacts under one number."""
        empty: dict[str, FieldValue] = dict.fromkeys([*self.names, *self.written.values()])
        with self.crm.at_once():
            return [self.crm.put(f"r{next(self._ids):06}", **{**empty, **values}) for values in contacts]

    def edit(self, record_ids: Sequence[str], values: Values) -> None:
        """Change contacts under one number; a late one shows at its time."""
        with self.crm.at_once() as number:
            for record_id in record_ids:
                if self._lateness is None:
                    self.crm.put(record_id, **values)
                else:
                    due = self.clock.now() + self._lateness
                    self._late.append((due, number, record_id, dict(values)))

    def delete(self, record_id: str) -> None:
        """Delete, leaving a tombstone, and what it takes to restore."""
        self._deleted[record_id] = self.crm.records[record_id]
        self.crm.delete(record_id)

    def restore(self, record_id: str) -> None:
        """Bring back a deleted contact."""
        self.crm.put(record_id, **self._deleted.pop(record_id))

    def vanish(self, record_id: str) -> None:
        """Erase a contact."""
        self.crm.vanish(record_id)

    def merge(self, winner: str, loser: str) -> str:
        """Merge, told from both sides."""
        self.crm.merge(winner, loser)
        return winner

    def holds(self, record_id: str) -> Mapping[str, str | datetime | None]:
        """Return what stands in memory."""
        record = self.crm.records[record_id]
        at = record["wallet_time"]
        return {
            **{name: None if record[name] is None else str(record[name]) for name in self.names},
            "last_updated": None if at is None else datetime.fromisoformat(str(at)),
            "status": None if record["wallet_status"] is None else str(record["wallet_status"]),
        }

    @contextmanager
    def delayed(self, by: timedelta) -> Iterator[None]:
        """Let changes wait."""
        self._lateness = by
        yield
        self._lateness = None

    def shorten_pages(self) -> None:
        """Give half pages with empty ones between."""
        self.crm.short_pages = True

    def forget_cursors(self) -> None:
        """Refuse the next cursor."""
        self.crm.cursors_lost = True

    def refuse(self, record_id: str) -> None:
        """Refuse every write to a contact."""
        self.crm.outcomes[record_id] = WriteOutcome(record_id, Written.REFUSED, "VALIDATION")

    def lock(self, record_id: str) -> None:
        """Let every write to a contact meet a lock."""
        self.crm.outcomes[record_id] = WriteOutcome(record_id, Written.RETRY, "LOCKED")

    def _commit(self) -> None:
        for late in [one for one in self._late if one[0] <= self.clock.now()]:
            _, number, record_id, values = late
            self._late.remove(late)
            self.crm.commit_late(record_id, self.crm.newest - number, **values)
