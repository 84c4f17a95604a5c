"""Confirm: the import log, read as a stream, becomes what is known of members."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo

from syncsvc.errors import StoppedError
from syncsvc.remote.wallet import WalletClient
from syncsvc.rules.completeness import Completeness, Seen
from syncsvc.rules.values import instant_or_none
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
    for entries, coarsest in _pieces(wallet.log(brand_id), confirmations.zone):
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
    log: Iterator[list[tuple[str, str]]], zone: tzinfo
) -> Iterator[tuple[dict[str, str], timedelta | None]]:
    """Yield the log's texts by case-folded email, some at a time, with the coarsest resolution so far."""
    entries: dict[str, str] = {}
    coarsest: timedelta | None = None
    for piece in log:
        for email, text in piece:
            key = email.casefold()
            if key not in entries or _later(text, entries[key], zone):
                entries[key] = text
        for text in {text for _, text in piece}:
            instant = instant_or_none(text, zone=zone)
            if instant is not None and (coarsest is None or instant.resolution > coarsest):
                coarsest = instant.resolution
        if len(entries) >= _PIECE:
            yield entries, coarsest
            entries = {}
    if entries:
        yield entries, coarsest


def _later(text: str, before: str, zone: tzinfo) -> bool:
    one, other = instant_or_none(text, zone=zone), instant_or_none(before, zone=zone)
    return other is None or (one is not None and one.at > other.at)
