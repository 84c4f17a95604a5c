"""The contacts of the stand-in server, and the members made of them: see `standin`."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import orjson

_LOG_CHUNK = 1000
_OLD = datetime(2026, 1, 15, 8, 0, tzinfo=UTC)
_OLD_MS = int(_OLD.timestamp() * 1000)
_CONTACT = (
    b'{"id":"%d","properties":{"createdate":"2026-01-15T08:00:00.000Z","email":"person%d@example.com",'
    b'"firstname":"First%d","hs_object_id":"%d","lastmodifieddate":"%s","lastname":"Last%d",'
    b'"loyalty_points":"%d"%s},"createdAt":"2026-01-15T08:00:00.000Z","updatedAt":"%s","archived":false}'
)


def iso(milliseconds: int) -> bytes:
    """Return a time as HubSpot writes it."""
    at = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()


class People:
    """The contacts and the members made of them: a few numbers each, by id; index 0 stays unused."""

    def __init__(self, contacts: int, members: int, *, apart: bool = False) -> None:
        """Hold `contacts`, of which the first `members` are in the import log already."""
        self.contacts = contacts
        self._apart = apart
        self.awarded = array("q", bytes(8 * (contacts + 1)))
        self._logged = array("q", bytes(8 * (contacts + 1)))  # seconds; 0 = not in the log
        self._logged[1 : members + 1] = array("q", [int(_OLD.timestamp())]) * members
        self._written = array("l", bytes(array("l").itemsize * (contacts + 1)))  # index into the fragments
        self._fragments: list[dict[str, str]] = [{}]
        self._known_fragments: dict[bytes, int] = {}
        self._rendered_fragments: dict[tuple[int, frozenset[str]], bytes] = {}
        self._changes: list[tuple[int, int]] = []  # (count, stamp in ms), stamps ascending
        self._old = iso(_OLD_MS)
        self.created = self._old.decode()

    def change(self, count: int) -> None:
        """Give contacts 1 to `count` one more point, and the stamp of now."""
        self._changes.append((min(count, self.contacts), time.time_ns() // 1_000_000))

    def stamp(self, contact: int) -> int:
        """Return when a contact was last modified, in milliseconds."""
        old = _OLD_MS + (contact - 1 if self._apart else 0)
        return max((stamp for count, stamp in self._changes if contact <= count), default=old)

    def changed(self, start: int, until: int, above: int) -> Sequence[int]:
        """Return the ids above `above` that were last modified from `start` to `until`, ascending."""
        touched = max((count for count, _ in self._changes), default=0)
        found = [
            contact for contact in range(above + 1, touched + 1) if start <= self.stamp(contact) <= until
        ]
        old = self._old_from(start, until, max(above, touched))
        return [*found, *old] if found else old

    def _old_from(self, start: int, until: int, above: int) -> range:
        """Return the ids above `above` whose first stamps, changed or not, are from `start` to `until`."""
        if self._apart:
            return range(max(above, start - _OLD_MS) + 1, min(self.contacts, until - _OLD_MS + 1) + 1)
        return range(above + 1, self.contacts + 1) if start <= _OLD_MS <= until else range(0)

    def points(self, contact: int) -> int:
        """Return what a contact has earned."""
        return contact % 500 + sum(contact <= count for count, _ in self._changes)

    def rendered(self, contact: int, names: frozenset[str]) -> bytes:
        """Return a contact as HubSpot would send it, null for those of `names` that it does not hold."""
        stamp, points = self._old, self.points(contact)
        if self._changes or self._apart:
            stamp = iso(self.stamp(contact))
        fragment = self._fragment(self._written[contact], names)
        return _CONTACT % (contact, contact, contact, contact, stamp, contact, points, fragment, stamp)

    def _fragment(self, index: int, names: frozenset[str]) -> bytes:
        if (index, names) not in self._rendered_fragments:
            values = self._fragments[index]
            held = {name: values.get(name) for name in sorted(names)}
            self._rendered_fragments[index, names] = b"," + orjson.dumps(held)[1:-1] if held else b""
        return self._rendered_fragments[index, names]

    def write(self, contact: int, values: dict[str, str]) -> None:
        """Keep what was written back; the distinct values are few, so each is held once."""
        merged = self._fragments[self._written[contact]] | values
        key = orjson.dumps(merged, option=orjson.OPT_SORT_KEYS)
        if key not in self._known_fragments:
            self._known_fragments[key] = len(self._fragments)
            self._fragments.append(merged)
        self._written[contact] = self._known_fragments[key]

    def import_row(self, contact: int, points: int, second: int) -> None:
        """Award the points of a row and move its member's entry in the log."""
        self.awarded[contact] += points
        self._logged[contact] = second

    def log(self) -> Iterator[bytes]:
        """Yield the import log's entries, rendered, many at a time."""
        form = b'{"email":"person%d@example.com","last_updated":"%s"}'
        texts: dict[int, bytes] = {}
        entries: list[bytes] = []
        for contact in range(1, self.contacts + 1):
            second = self._logged[contact]
            if not second:
                continue
            if second not in texts:
                texts[second] = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%SZ}".encode()
            entries.append(form % (contact, texts[second]))
            if len(entries) == _LOG_CHUNK:
                yield b",".join(entries)
                entries.clear()
        if entries:
            yield b",".join(entries)
