"""The search index of the HubSpot simulator: it learns of changes late, and answers from what it knows.

Kept sorted by modification time; what one filter finds is remembered while the index stays the same, so that
paging through 100,000 contacts reads them once.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from syncsvc.sandbox.hubspot_filters import Group, Hit, Query, comparable, text_matches

_REMEMBERED = 8


class SearchIndex:
    """What search can find, as of the last `advance`."""

    def __init__(self) -> None:
        """Begin empty."""
        self._hits: dict[int, Hit] = {}
        self._stamps: list[tuple[int, int]] = []
        self._pending: list[tuple[int, int, int, Hit | None]] = []
        self._order = count(1)
        self._newest: dict[int, int] = {}
        self._found: dict[object, Sequence[Hit]] = {}

    def note(self, record_id: int, hit: Hit | None, *, due: int) -> None:
        """Let the index learn at `due` (milliseconds) what a contact is like, or that it is gone (None)."""
        heapq.heappush(self._pending, (due, next(self._order), record_id, hit))

    def advance(self, now: int) -> None:
        """Apply every change that is due; one overtaken by a later change of the same contact is dropped."""
        changed: set[int] = set()
        while self._pending and self._pending[0][0] <= now:
            _, order, record_id, hit = heapq.heappop(self._pending)
            if order < self._newest.get(record_id, 0):
                continue
            self._newest[record_id] = order
            changed.add(record_id)
            if hit is None:
                self._hits.pop(record_id, None)
            else:
                self._hits[record_id] = hit
        if changed:
            kept = [stamp for stamp in self._stamps if stamp[1] not in changed]
            kept += [
                (self._hits[record_id].updated, record_id) for record_id in changed if record_id in self._hits
            ]
            kept.sort()
            self._stamps = kept
            self._found.clear()

    def find(self, query: Query) -> Sequence[Hit]:
        """Return every hit of a query in its order."""
        by_id = query.sort.name == "hs_object_id" and not query.descending and len(query.groups) == 1
        key = (
            query.sort,
            query.descending,
            query.text,
            tuple((group.stamps, tuple(group.key), None if by_id else group.ids) for group in query.groups),
        )
        found = self._found.get(key)
        if found is None:
            while len(self._found) >= _REMEMBERED:
                del self._found[next(iter(self._found))]
            found = self._found[key] = self._sorted(query, any_id=by_id)
        if not by_id:
            return found
        ids = query.groups[0].ids
        start = bisect_left(found, ids.low, key=lambda hit: hit.id)
        return found[start : bisect_right(found, ids.high, key=lambda hit: hit.id)]

    def _sorted(self, query: Query, *, any_id: bool) -> list[Hit]:
        found: dict[int, Hit] = {}
        for group in query.groups:
            for hit in self._within(group):
                if (any_id or group.ids.holds(hit.id)) and all(test(hit) for test in group.tests):
                    found[hit.id] = hit
        hits: Iterable[Hit] = found.values() if query.groups else self._hits.values()
        if query.text:
            hits = [hit for hit in hits if text_matches(query.text, hit)]
        return sorted(hits, key=_order_by(query), reverse=query.descending)

    def _within(self, group: Group) -> Sequence[Hit]:
        start = bisect_left(self._stamps, (group.stamps.low, 0))
        end = bisect_left(self._stamps, (group.stamps.high + 1, 0))
        return [self._hits[record_id] for _, record_id in self._stamps[start:end]]


def _order_by(query: Query) -> Callable[[Hit], tuple[bool, object, int]]:
    def key(hit: Hit) -> tuple[bool, object, int]:
        value = comparable(query.sort, hit)
        # Ties come in no order that a client could rely on: their ids are scattered by a multiplication.
        return value is None, 0 if value is None else value, hit.id * 2_654_435_761 % 2**32

    return key
