"""What servers tell of their clocks, each in the `Date` header of its answers."""

from __future__ import annotations

from datetime import datetime, timedelta

from syncsvc.remote.answer import http_date

MOST_SKEW = timedelta(minutes=1)
"""By how much a server's clock may differ from ours before somebody should know."""

_SECOND = timedelta(seconds=1)  # the resolution of the header


class Clocks:
    """The last time that each server told, kept as it came: few ever ask for it."""

    def __init__(self) -> None:
        """Know no server yet."""
        self._told: dict[str, tuple[str, datetime, datetime]] = {}

    def keep(self, host: str, date: str, asked: datetime, heard: datetime) -> None:
        """Remember a `Date` header, and when by our clock its request began and its answer came."""
        self._told[host] = date, asked, heard

    def skews(self) -> dict[str, timedelta]:
        """Return by how much each server's clock is at least ahead of ours, or behind it where negative.

        An answer that was dated at any time between its request and its coming is no skew at all.
        """
        found = {}
        for host, (date, asked, heard) in self._told.items():
            told = http_date(date)
            if told is not None:
                ahead, behind = told - heard, asked - (told + _SECOND)
                found[host] = max(ahead, timedelta()) - max(behind, timedelta())
        return found
