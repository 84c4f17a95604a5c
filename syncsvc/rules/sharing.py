"""Shares: how many organizations each of several replicas runs, and which of them it lets go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

PATIENCE = 3
"""So many looks an organization that nobody runs is left to those whose share it falls into."""
_LONGEST_KEPT = 3600.0


def fair_share(organizations: int, replicas: int) -> int:
    """Return how many organizations a replica runs at most; all of them together then run every one."""
    return -(-organizations // max(1, replicas))


def beyond(share: int, busy: Mapping[str, bool]) -> Sequence[str]:
    """Return which of those that are run to let go, of `busy` ones last: they are free once they are done."""
    waiting = sorted(busy, key=lambda name: busy[name])
    return waiting[: max(0, len(busy) - share)]


class Orphans:
    """Organizations that nobody has taken for so long that their share does not count.

    Where the files of replicas differ, some may know an organization that those with room do not. But it may
    be that nobody could take any for a time. So what is kept beyond the share counts again after a while,
    twice as long each time that nobody else takes it.
    """

    def __init__(self, patience: float) -> None:
        """Know of none; `patience` is in seconds, as every time here."""
        self._patience = patience
        self._since: dict[str, float] = {}
        self._kept: dict[str, float] = {}
        self._spans: dict[str, float] = {}

    def look(self, free: Collection[str], running: Collection[str], *, now: float) -> set[str]:
        """Take in which nobody runs now, and which this one does; returns those to take beyond the share."""
        self._since = {name: self._since.get(name, now) for name in free}
        self._kept = {name: until for name, until in self._kept.items() if until > now and name in running}
        self._spans = {name: it for name, it in self._spans.items() if name in free or name in running}
        return {name for name, since in self._since.items() if now - since > self._patience}

    def keep(self, names: Iterable[str], *, now: float) -> None:
        """Keep organizations beyond the share for a while."""
        for name in names:
            span = self._spans[name] = min(2 * self._spans.get(name, self._patience / 2), _LONGEST_KEPT)
            self._kept[name] = now + span

    @property
    def kept(self) -> Collection[str]:
        """Those that do not count among the share now."""
        return self._kept
