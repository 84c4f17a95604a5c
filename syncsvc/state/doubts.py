"""Rows in doubt or held, named for a person, and what a person decided on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import and_, select

from syncsvc.rules.settling import Grade
from syncsvc.state.codes import Lane, Outcome
from syncsvc.state.database import among, from_ms, to_ms
from syncsvc.state.late import longest_way
from syncsvc.state.scope import UNSETTLED_BATCHES, Scope
from syncsvc.state.settlements import Ruling, Settlements
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, CONNECTOR, DECISION, MEMBER


class Choice(StrEnum):
    """What a person can decide on a row in doubt or held."""

    LANDED = "landed"  # it arrived: its points are credited
    REFUTED = "refuted"  # it did not arrive: its points are owed again
    AWARD = "award"  # nobody knows: its points are sent again
    SKIP = "skip"  # nobody knows: its points are never sent again


_OUTCOMES = {
    Choice.LANDED: Outcome.LANDED,
    Choice.REFUTED: Outcome.REFUTED,
    Choice.AWARD: Outcome.REFUTED,
    Choice.SKIP: Outcome.SKIPPED,
}
_UNDECIDED = (Outcome.DOUBT, Outcome.HELD)


@dataclass(frozen=True, slots=True)
class Suspect:
    """A row in doubt or held: whose it is, and what came back when it was sent."""

    batch: int
    row: int
    member: int
    connector: str | None
    record: str | None
    brand_id: str
    points: int
    held: bool
    answer: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the log shows of a row: its entry before it was sent, its entry now, and what that says."""

    before: str | None
    now: str | None
    finding: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision of a person, with the evidence it was made on; `held` says whether the row was held."""

    batch: int
    row: int
    member: int
    connector: str | None
    record: str | None
    points: int
    choice: str
    by: str
    at: datetime
    held: bool
    evidence: Evidence


class Doubts:
    """The transactions of a person's decisions."""

    def __init__(self, scope: Scope, settlements: Settlements, settle_after: timedelta) -> None:
        """Work within one organization; decisions are settled by `settlements`."""
        self._scope = scope
        self._settle_after = settle_after
        self._settlements = settlements

    def suspects(self) -> list[Suspect]:
        """Return every row in doubt or held, the oldest batch first."""
        listed = (
            select(
                BATCH_ROW,
                BATCH.c.detail,
                BRAND.c.brand_id,
                CONNECTOR.c.name,
                MEMBER.c.owner_record,
            )
            .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
            .join(BRAND, BRAND.c.id == BATCH.c.brand)
            .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
            .outerjoin(CONNECTOR, CONNECTOR.c.id == MEMBER.c.owner_connector)
            .where(UNSETTLED_BATCHES, BATCH_ROW.c.outcome.in_(_UNDECIDED))
            .order_by(BATCH_ROW.c.batch_id, BATCH_ROW.c.position)
        )
        with self._scope.database.reading() as connection:
            return [
                Suspect(
                    batch=row.batch_id,
                    row=row.position,
                    member=row.member_id,
                    connector=row.name,
                    record=row.owner_record,
                    brand_id=row.brand_id,
                    points=row.points,
                    held=row.outcome == Outcome.HELD,
                    answer=row.detail,
                )
                for row in connection.execute(listed, self._scope.bound())
            ]

    def fate(self, batch_id: int) -> dict[int, tuple[Outcome, str | None]] | None:
        """Return the outcome and the grade of each of a batch's points rows, None where it is not ours."""
        mine = select(BRAND.c.id).where(BRAND.c.organization_id == self._scope.organization_id)
        listed = (
            select(BATCH_ROW.c.position, BATCH_ROW.c.outcome, BATCH_ROW.c.grade)
            .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
            .where(BATCH.c.id == batch_id, BATCH.c.brand.in_(mine), BATCH.c.lane == Lane.POINTS)
        )
        with self._scope.database.reading() as connection:
            rows = connection.execute(listed).all()
        return {row.position: (Outcome(row.outcome), row.grade) for row in rows} or None

    def decide(
        self, batch_id: int, choice: Choice, evidence: Mapping[int, Evidence], *, by: str, now: datetime
    ) -> Collection[int]:
        """Settle rows of a batch as a person decided; `evidence` names them by position.

        Returns the positions that were settled so, and recorded with who and when. A row that has been
        settled meanwhile is left alone; one whose request may be under way is never touched.
        """
        with self._scope.database.writing() as connection:
            listed = (
                select(BATCH_ROW, BATCH.c.claimed_at, BRAND.c.slowest_ms)
                .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
                .join(BRAND, BRAND.c.id == BATCH.c.brand)
                .where(
                    UNSETTLED_BATCHES,
                    BATCH.c.id == batch_id,
                    BATCH.c.lane == Lane.POINTS,
                    BATCH_ROW.c.outcome.in_(_UNDECIDED),
                    among(BATCH_ROW.c.position, evidence),
                )
                .order_by(BATCH_ROW.c.position)
            )
            rows = connection.execute(listed, self._scope.bound()).all()
            if not rows:
                return ()
            ruling = Ruling(_OUTCOMES[choice], Grade.PERSON)
            chosen = [row.position for row in rows]
            quiet_for = timedelta()
            if _OUTCOMES[choice] is not Outcome.REFUTED:  # who says that it did not arrive wants it sent now
                longest = longest_way(self._settle_after, rows[0].slowest_ms)
                quiet_for = from_ms(rows[0].claimed_at) + longest - now
            rulings = dict.fromkeys(chosen, ruling)
            self._settlements.settle_in(connection, batch_id, rulings, now=now, quiet_for=quiet_for)
            connection.execute(
                DECISION.insert(),
                [
                    {
                        "organization_id": self._scope.organization_id,
                        "batch_id": batch_id,
                        "position": row.position,
                        "member_id": row.member_id,
                        "choice": choice,
                        "points": row.points,
                        "held": int(row.outcome == Outcome.HELD),
                        "finding": evidence[row.position].finding,
                        "log_before": evidence[row.position].before,
                        "log_now": evidence[row.position].now,
                        "decided_at": to_ms(now),
                        "decided_by": by,
                    }
                    for row in rows
                ],
            )
        return chosen

    def history(self) -> list[Decided]:
        """Return every decision, the newest first."""
        listed = (
            select(DECISION, CONNECTOR.c.name, MEMBER.c.owner_record)
            .join(MEMBER, MEMBER.c.id == DECISION.c.member_id)
            .outerjoin(CONNECTOR, CONNECTOR.c.id == MEMBER.c.owner_connector)
            .where(and_(DECISION.c.organization_id == self._scope.organization_id))
            .order_by(DECISION.c.id.desc())
        )
        with self._scope.database.reading() as connection:
            return [
                Decided(
                    batch=row.batch_id,
                    row=row.position,
                    member=row.member_id,
                    connector=row.name,
                    record=row.owner_record,
                    points=row.points,
                    choice=row.choice,
                    by=row.decided_by,
                    at=from_ms(row.decided_at),
                    held=bool(row.held),
                    evidence=Evidence(row.log_before, row.log_now, row.finding),
                )
                for row in connection.execute(listed)
            ]
