"""A long list in a JSON answer, `{"data": [...], "success": true}`, read as a stream.

Nearly all of it is whole entries between two commas, which orjson reads many times faster than a parser of
events does. That parser sees the rest: what stands around the entries, and every stretch that orjson refuses.
"""

from __future__ import annotations

from typing import Any

import ijson
import orjson

_HELD = 1024 * 1024  # bytes without the end of an entry: whatever that is, it is not kept whole


class Listing:
    """The entries of the list `data`, and what is said beside it, from an answer's bytes as they come."""

    def __init__(self) -> None:
        """Begin before the first byte."""
        self._events, self._entries = ijson.sendable_list(), ijson.sendable_list()
        # Without use_float the parser dies of a number of more than 4300 digits, and the process with it.
        self._parsers = (
            ijson.parse_coro(self._events, use_float=True),
            ijson.items_coro(self._entries, "data.item", use_float=True),
        )
        self._held = b""
        self._between = False  # what is held follows a comma between two entries
        self.began: str | None = None
        """The parser's event that `data` began with, which is `start_array` for a list."""
        self.success: list[Any] = []
        """What stands under `success`, each time that it stands there."""

    def feed(self, chunk: bytes) -> list[Any]:
        """Return the entries that end in the answer's next bytes; raises ijson.JSONError."""
        held = self._held + chunk
        end = held.rfind(b"},")
        if end < 0 and len(held) < _HELD:
            self._held = held
            return []
        if self._between and end >= 0:
            # In brackets it is JSON only where it is whole entries of this very list: a cut within a text or
            # an object, or a list that ends, leaves brackets that do not match.
            try:
                entries: list[Any] = orjson.loads(b"[%b]" % held[: end + 1])
            except orjson.JSONDecodeError:
                pass
            else:
                self._held = held[end + 2 :]
                return entries
        if end < 0:
            self._between = False
            self._held = b""
            self._parse(held)
        else:
            self._held = held[end + 2 :]
            self._parse(held[:end])
            self._between = self._parse(b"}") == [("data.item", "end_map")]
            self._parse(b",")
        return self._parsed()

    def close(self) -> list[Any]:
        """Return the last entries; raises ijson.JSONError where the answer is not whole."""
        self._parse(self._held)
        for parser in self._parsers:
            parser.close()
        return self._parsed()

    def _parse(self, piece: bytes) -> list[tuple[str, str]]:
        for parser in self._parsers:
            parser.send(piece)
        events = [(prefix, event) for prefix, event, _ in self._events]
        if self.began is None:
            self.began = next((event for prefix, event in events if prefix == "data"), None)
        self.success += [value for prefix, _, value in self._events if prefix == "success"]
        self._events.clear()
        return events

    def _parsed(self) -> list[Any]:
        entries = list(self._entries)
        self._entries.clear()
        return entries
