"""Shares: how many organizations each of several replicas runs, and which of them it lets go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

PATIENCE = 3
"""So many looks an organization that nobody runs is left to those whose share it falls into."""


def fair_share(organizations: int, replicas: int) -> int:
    """Return how many organizations a replica runs at most; all of them together then run every one."""
    return -(-organizations // max(1, replicas))


def beyond(share: int, busy: Mapping[str, bool]) -> Sequence[str]:
    """Return which of those that are run to let go, of `busy` ones last: they are free once they are done."""
    waiting = sorted(busy, key=lambda name: busy[name])
    return waiting[: max(0, len(busy) - share)]


class Orphans:
    """Organizations that nobody has taken for so long that their share does not count.

    Where the files of replicas differ, some may know an organization that those with room do not.
    """

    def __init__(self) -> None:
        """Know of none."""
        self._looks: Counter[str] = Counter()

    def look(self, free: Collection[str]) -> set[str]:
        """Take in which nobody runs now, and return those to be taken whatever the share is."""
        self._looks = Counter({name: self._looks[name] + 1 for name in free})
        return {name for name, looks in self._looks.items() if looks > PATIENCE}
