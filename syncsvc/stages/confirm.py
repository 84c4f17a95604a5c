"""Confirm: the import log, read as a stream, becomes what is known of members."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from syncsvc.errors import StoppedError
from syncsvc.remote.wallet import WalletClient
from syncsvc.rules.values import Instant
from syncsvc.state.confirmations import Confirmations

_PIECE = 2000


def read_log(
    wallet: WalletClient,
    confirmations: Confirmations,
    brand_id: str,
    *,
    now: Callable[[], datetime],
    stopping: Callable[[], bool],
    strayed: Callable[[str], None],
) -> int:
    """Make the members' times what a brand's log says; returns how many have moved.

    An email that stands in the log twice has its latest time within a piece of the log, the last one told
    otherwise. `strayed` is told a brand whose witness somebody else has moved. Raises what the wallet client
    raises; what was read until then is stored.
    """
    began = now()  # what is decided by this reading was true then, however long it takes
    moved = 0
    resolution: timedelta | None = None
    entries: dict[str, tuple[str, Instant | None]] = {}
    for piece in wallet.log(brand_id):
        for email, text, instant in piece:
            key = email.casefold()
            before = entries.get(key)
            if before is None or _later(instant, before[1]):
                entries[key] = (text, instant)
            if instant is not None and (resolution is None or instant.resolution > resolution):
                resolution = instant.resolution
        if len(entries) >= _PIECE:
            moved += confirmations.record(brand_id, entries)
            if confirmations.record_witness(brand_id, entries):
                strayed(brand_id)
            entries = {}
            if stopping():
                raise StoppedError("asked to stop while reading the log")
    if entries:
        moved += confirmations.record(brand_id, entries)
        if confirmations.record_witness(brand_id, entries):
            strayed(brand_id)
    confirmations.finish(brand_id, began=began, now=now(), resolution=resolution)
    return moved


def _later(instant: Instant | None, before: Instant | None) -> bool:
    return before is None or (instant is not None and instant.at > before.at)
