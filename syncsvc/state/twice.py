"""Points that may have been awarded twice, and what people found out about them in the wallet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Select, and_, func, select

from syncsvc.state.codes import Lane, Outcome
from syncsvc.state.database import among, from_ms, to_ms
from syncsvc.state.scope import OWN_BRANDS, Scope
from syncsvc.state.tables import BATCH, BATCH_ROW, CONNECTOR, DECISION, MEMBER


class Found(StrEnum):
    """What a person found out about points that may have been awarded twice."""

    TWICE = "twice"  # they were: to be taken back in the wallet, where that is wanted
    ONCE = "once"  # they were not: somebody else moved the entry


@dataclass(frozen=True, slots=True)
class PaidTwice:
    """A row whose points were taken as not awarded, and that may have landed late; whose it is, and when.

    `log_before` is the member's entry before it was sent, `log_now` the entry now.
    """

    batch: int
    row: int
    member: int
    connector: str | None
    record: str | None
    points: int
    landed_at: datetime
    log_before: str | None
    log_now: str | None

    @property
    def id(self) -> str:
        """What `syncsvc doubt` calls it."""
        return f"{self.batch}:{self.row}"


# By itself and first: joined, SQLite would rather look at every row of every batch than at these few.
_NOTICED = (
    select(BATCH_ROW)
    .where(BATCH_ROW.c.late_at.is_not(None), BATCH_ROW.c.outcome == Outcome.REFUTED, BATCH_ROW.c.points > 0)
    .cte("noticed")
    .prefix_with("MATERIALIZED")
)
_LATE = and_(BATCH.c.lane == Lane.POINTS, BATCH.c.brand.in_(OWN_BRANDS))
_SEEN = and_(
    DECISION.c.batch_id == _NOTICED.c.batch_id,
    DECISION.c.position == _NOTICED.c.position,
    DECISION.c.choice.in_(list(Found)),
)
_OPEN = and_(_LATE, ~select(DECISION.c.id).where(_SEEN).exists())


def _listed() -> Select[Any]:
    return (
        select(_NOTICED, MEMBER.c.owner_record, MEMBER.c.log_value, CONNECTOR.c.name)
        .join(BATCH, BATCH.c.id == _NOTICED.c.batch_id)
        .join(MEMBER, MEMBER.c.id == _NOTICED.c.member_id)
        .outerjoin(CONNECTOR, CONNECTOR.c.id == MEMBER.c.owner_connector)
        .where(_OPEN)
        .order_by(_NOTICED.c.batch_id, _NOTICED.c.position)
    )


_LISTED = _listed()
_TOTALS = (
    select(func.count(), func.coalesce(func.sum(_NOTICED.c.points), 0))
    .select_from(_NOTICED)
    .join(BATCH, BATCH.c.id == _NOTICED.c.batch_id)
)
_OPEN_TOTALS = _TOTALS.where(_OPEN)
_FOUND_TWICE = select(func.coalesce(func.sum(DECISION.c.points), 0)).where(DECISION.c.choice == Found.TWICE)


def paid_twice(connection: Connection, scope: Scope) -> list[PaidTwice]:
    """Return the rows that nobody has looked into yet, the oldest batch first."""
    return [
        PaidTwice(
            batch=row.batch_id,
            row=row.position,
            member=row.member_id,
            connector=row.name,
            record=row.owner_record,
            points=row.points,
            landed_at=from_ms(row.late_at),
            log_before=row.log_before,
            log_now=row.log_value,
        )
        for row in connection.execute(_LISTED, scope.bound())
    ]


def paid_twice_totals(connection: Connection, scope: Scope) -> tuple[int, int]:
    """Return how many rows, with how many points, nobody has looked into yet."""
    rows, points = connection.execute(_OPEN_TOTALS, scope.bound()).one()
    return rows, int(points)


def found_twice(connection: Connection, scope: Scope) -> int:
    """Return the points of which people found that they were awarded twice."""
    mine = DECISION.c.organization_id == scope.organization_id
    return int(connection.scalar(_FOUND_TWICE.where(mine)) or 0)


class Twice:
    """The transactions of what people find out about points that may have been awarded twice."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def open(self) -> list[PaidTwice]:
        """Return the rows that nobody has looked into yet, the oldest batch first."""
        with self._scope.database.reading() as connection:
            return paid_twice(connection, self._scope)

    def record(
        self, batch_id: int, found: Found, rows: Collection[int], *, by: str, now: datetime
    ) -> Sequence[int]:
        """Remember who found what about these rows of a batch, and what the log said then.

        Returns the positions that were open. The books stay as they are: what landed late was never credited.
        """
        chosen = [_NOTICED.c.batch_id == batch_id, among(_NOTICED.c.position, rows)]
        with self._scope.database.writing() as connection:
            listed = connection.execute(_LISTED.where(*chosen), self._scope.bound()).all()
            if listed:
                connection.execute(
                    DECISION.insert(),
                    [
                        {
                            "organization_id": self._scope.organization_id,
                            "batch_id": batch_id,
                            "position": row.position,
                            "member_id": row.member_id,
                            "choice": found,
                            "points": row.points,
                            "held": 0,
                            "finding": "landed_late",
                            "log_before": row.log_before,
                            "log_now": row.log_value,
                            "decided_at": to_ms(now),
                            "decided_by": by,
                        }
                        for row in listed
                    ],
                )
        return [row.position for row in listed]
