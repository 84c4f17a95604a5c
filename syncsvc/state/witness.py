"""The witness: an email of the organization's own that rides in points batches; its entry proves them.

It rides last: where rows are applied in order, its entry moves only after every other row was applied. It
bears witness for one batch at a time, so it rides only when its entry can be told from that of the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, select

from syncsvc.config import WalletConfig
from syncsvc.rules.settling import opening
from syncsvc.rules.values import Instant
from syncsvc.state.codes import Outcome
from syncsvc.state.database import change_row, from_ms, to_ms
from syncsvc.state.scope import Scope
from syncsvc.state.tables import BATCH, BRAND

_NAME = "Sync witness"
_PATIENCE = 3
"""A batch before is taken to be applied after this many times the slowest that was ever seen."""
_RECENT = 50
_NEVER = [Outcome.REFUTED, Outcome.REFUSED]


_BRAND = select(BRAND).where(BRAND.c.id == bindparam("b_brand"))
_OF_BRAND = BATCH.c.brand == bindparam("b_brand")
_WAITING = (
    select(BATCH.c.id)
    .where(_OF_BRAND, BATCH.c.outcome < Outcome.LANDED, BATCH.c.witness <= Outcome.DOUBT)
    .limit(1)
)
_RODE = and_(_OF_BRAND, BATCH.c.witness.is_not(None))
_LAST = select(BATCH).where(_RODE, BATCH.c.witness.not_in(_NEVER)).order_by(BATCH.c.id.desc()).limit(1)
_SENT = select(BATCH.c.sent_at).where(_RODE).order_by(BATCH.c.id.desc()).limit(_RECENT)


class Witness:
    """What is remembered of the witness, inside the transactions of others."""

    def __init__(self, scope: Scope, wallet: WalletConfig) -> None:
        """Work within one organization, whose wallet is configured so."""
        self._scope = scope
        self._wallet = wallet

    def pause(self, connection: Connection, brand: int, settled_before: datetime) -> timedelta | None:
        """Return how long it takes until the witness can ride in a batch, None where nobody knows.

        `settled_before` is the time (the wallet's clock) that an entry must be older than to be told from one
        of a batch that leaves now. While a batch waits for the witness's word, the witness rides in no other.
        """
        if self._wallet.witness is None:
            return None
        this = {"b_brand": brand}
        facts = connection.execute(_BRAND, this).one()
        if facts.log_read_at is None or connection.scalar(_WAITING, this) is not None:
            return None
        fresh = facts.witness_log_at or 0
        last = connection.execute(_LAST, this).first()
        if last is not None:
            if facts.resolution_ms is None:
                return None  # the log has not told yet how exactly it tells the time
            took = max(0, last.witness_until - last.claimed_at) + _PATIENCE * facts.slowest_ms
            fresh = max(fresh, last.sent_at + took)
        return timedelta(milliseconds=max(0, fresh - to_ms(settled_before) + 1))

    def row(self, brand_id: str, beside: Mapping[str, Any]) -> dict[str, Any]:
        """Return the witness's row for a batch that holds the row `beside`: its storecard fits the brand."""
        own = self._wallet.storecard if brand_id == self._wallet.brand_id else None
        return {
            "email": self._wallet.witness,
            "brand_id": brand_id,
            "name": _NAME,
            "storecard": own or beside["storecard"],
            "points": 1,
        }

    @staticmethod
    def columns(connection: Connection, brand: int) -> dict[str, Any]:
        """Return what a batch remembers of its witness when it is claimed."""
        before = connection.scalar(select(BRAND.c.witness_value).where(BRAND.c.id == brand))
        return {"witness": Outcome.OPEN, "witness_before": before}


def note_witness(
    connection: Connection, brand: int, entry: tuple[str, Instant | None], *, settle_after: timedelta
) -> bool:
    """Remember the witness's entry as the log shows it; returns whether somebody else has moved it.

    That is a move to a time that no batch with the witness explains. Its first sight explains itself.
    """
    text, instant = entry
    facts = connection.execute(_BRAND, {"b_brand": brand}).one()
    if facts.witness_value == text:
        return False
    values: dict[str, Any] = {"witness_value": text, "witness_log_at": instant and to_ms(instant.at)}
    stray = False
    if facts.witness_value is not None and instant is not None:
        resolution = timedelta(
            milliseconds=max(facts.resolution_ms or 1000, instant.resolution // timedelta(milliseconds=1))
        )
        late = max(settle_after, timedelta(milliseconds=_PATIENCE * facts.slowest_ms))
        sent = [from_ms(at) for at in connection.scalars(_SENT, {"b_brand": brand})]
        stray = not any(opening(at, resolution) <= instant.at <= at + late + resolution for at in sent)
        if stray:
            values["witness_stray_at"] = to_ms(instant.at)
    change_row(connection, BRAND, brand, values)
    return stray


@dataclass(frozen=True, slots=True)
class WitnessStanding:
    """The witness of one brand: its entry in the log, how many batches it proved or refuted, and its points.

    `points` are those it is proven to have: one a landed batch, beside the members' books. `undecided` are
    batches that still wait for its word, `moved_by_others_at` is the log's time of the last move that no
    batch of ours explains.
    """

    brand_id: str
    entry: str | None
    landed: int
    refuted: int
    undecided: int
    points: int
    moved_by_others_at: datetime | None

    @property
    def unseen(self) -> bool:
        """Whether batches have landed with it, and the log has never shown it: it proves nothing."""
        return self.landed > 0 and self.entry is None


def witness_standings(connection: Connection, scope: Scope) -> list[WitnessStanding]:
    """Return how the witness stands in each brand that it rode in, or where the log shows it."""

    def batches(*outcomes: Outcome) -> Any:
        rode = and_(BATCH.c.brand == BRAND.c.id, BATCH.c.witness.in_(outcomes))
        return select(func.count()).select_from(BATCH).where(rode).scalar_subquery()

    listed = (
        select(
            BRAND,
            batches(Outcome.LANDED).label("landed"),
            batches(Outcome.REFUTED).label("refuted"),
            batches(Outcome.OPEN, Outcome.DOUBT).label("undecided"),
            batches(*Outcome).label("rode"),
        )
        .where(BRAND.c.organization_id == scope.organization_id)
        .order_by(BRAND.c.id)
    )
    return [
        WitnessStanding(
            brand_id=row.brand_id,
            entry=row.witness_value,
            landed=row.landed,
            refuted=row.refuted,
            undecided=row.undecided,
            points=row.landed,
            moved_by_others_at=None if row.witness_stray_at is None else from_ms(row.witness_stray_at),
        )
        for row in connection.execute(listed)
        if row.rode or row.witness_value is not None
    ]
