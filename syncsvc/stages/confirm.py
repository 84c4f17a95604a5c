"""Confirm: the import log, read as a stream, becomes what is known of members."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from syncsvc.errors import StoppedError
from syncsvc.remote.wallet import WalletClient
from syncsvc.rules.completeness import Completeness, Seen
from syncsvc.rules.values import Instant
from syncsvc.state.confirmations import Confirmations
from syncsvc.state.late import LandedLate

_PIECE = 2000


def read_log(
    wallet: WalletClient,
    confirmations: Confirmations,
    brand_id: str,
    *,
    now: Callable[[], datetime],
    stopping: Callable[[], bool],
    strayed: Callable[[str], None],
    completeness: Callable[[str, Completeness], None],
    late: Callable[[str, LandedLate], None],
) -> int:
    """Make the members' times what a brand's log says; returns how many have moved.

    An email that stands in the log twice has its latest time. `strayed` is told a brand whose witness
    somebody else has moved, `completeness` one whose log has become short, or whole again, and `late` one
    with rows that may have landed late. Raises what the wallet client raises; what was read until then is
    stored.
    """
    began = now()  # what is decided by this reading was true then, however long it takes
    moved, seen = 0, Seen()
    resolution: timedelta | None = None
    for entries, coarsest in _pieces(wallet.log(brand_id)):
        news, landed_late = confirmations.record(brand_id, entries, seen)
        moved += news
        if landed_late.rows:
            late(brand_id, landed_late)
        if confirmations.record_witness(brand_id, entries):
            strayed(brand_id)
        resolution = max(filter(None, (resolution, coarsest)), default=None)
        if stopping():
            raise StoppedError("asked to stop while reading the log")
    found = confirmations.finish(brand_id, seen, began=began, now=now(), resolution=resolution)
    if found.news:
        completeness(brand_id, found)
    return moved


def _pieces(
    log: Iterator[list[tuple[str, str, Instant | None]]],
) -> Iterator[tuple[dict[str, tuple[str, Instant | None]], timedelta | None]]:
    """Yield the log's entries by case-folded email, some at a time, with their coarsest resolution."""
    entries: dict[str, tuple[str, Instant | None]] = {}
    coarsest: timedelta | None = None
    for piece in log:
        for email, text, instant in piece:
            key = email.casefold()
            before = entries.get(key)
            if before is None or _later(instant, before[1]):
                entries[key] = (text, instant)
            if instant is not None and (coarsest is None or instant.resolution > coarsest):
                coarsest = instant.resolution
        if len(entries) >= _PIECE:
            yield entries, coarsest
            entries = {}
    if entries:
        yield entries, coarsest


def _later(instant: Instant | None, before: Instant | None) -> bool:
    return before is None or (instant is not None and instant.at > before.at)
