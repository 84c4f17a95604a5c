"""Whether a reading of the import log can prove that an entry did not move: only one that shows everybody.

The log is read whole or not at all, but what the wallet calls whole may be less: an index that is being
rebuilt, another database behind the same address. What is left out then must never count as not moved.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

LEFT_OUT = 0.05
"""The share of the members shown before that may be missing, for people do leave a programme."""

BELIEVED_AFTER = timedelta(days=1)
"""A log that has been short for so long is taken for the truth, unless it is empty."""


@dataclass(frozen=True, slots=True)
class Completeness:
    """How many members a reading showed, of how many that have an entry; `short` means it proves no absence.

    `news` says that the reading before was otherwise.
    """

    shown: int
    known: int
    short: bool
    news: bool


def judge_reading(*, shown: int, known: int, short_for: timedelta | None) -> Completeness:
    """Return how complete a reading is; `short_for` is how long readings have been short, if they were."""
    short = known - shown > LEFT_OUT * known
    if short and shown and short_for is not None and short_for >= BELIEVED_AFTER:
        short = False
    return Completeness(shown, known, short, short != (short_for is not None))


class Seen:
    """The members that a reading of the log has shown so far, a bit for each: a million take 125 kB."""

    def __init__(self) -> None:
        """Begin without any."""
        self._bits = bytearray()
        self.count = 0

    def add(self, member_ids: Collection[int]) -> set[int]:
        """Note members, each named once; returns those that had been noted before."""
        missing = (max(member_ids, default=0) >> 3) + 1 - len(self._bits)
        if missing > 0:
            self._bits.extend(bytes(missing + 1024))
        bits, again = self._bits, set()
        for member_id in member_ids:
            place, bit = member_id >> 3, 1 << (member_id & 7)
            if bits[place] & bit:
                again.add(member_id)
            else:
                bits[place] |= bit
        self.count += len(member_ids) - len(again)
        return again

    def __contains__(self, member_id: int) -> bool:
        """Return whether a member was shown."""
        place = member_id >> 3
        return place < len(self._bits) and bool(self._bits[place] & 1 << (member_id & 7))
