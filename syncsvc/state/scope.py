"""The part of the state that belongs to one organization, and the rules its rows are kept by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, case, false, func, or_, select, update

from syncsvc.config import FirstRun, OnEmailChange, Points
from syncsvc.rules.brakes import Allowed
from syncsvc.rules.fingerprint import Fingerprinter
from syncsvc.rules.intake import ContactState
from syncsvc.rules.settling import Grade
from syncsvc.state.codes import Outcome
from syncsvc.state.database import Database, among
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, CONTACT, MEMBER


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says about how rows are kept."""

    points: Points
    first_run: FirstRun
    on_email_change: OnEmailChange
    expire_gone: bool
    witness: str | None = None  # the email that rides in every points batch
    zone: tzinfo = UTC  # of times in the log that carry none


@dataclass(slots=True)
class Scope:
    """One organization in an open database.

    `connectors` are the ids of the configured connectors by name, in order of ownership; `writing` those
    that write back.
    """

    database: Database
    organization_id: int
    rules: Rules
    fingerprinter: Fingerprinter
    connectors: Mapping[str, int]
    writing: Collection[int]

    def brand(self, connection: Connection, brand_id: str) -> int:
        """Return the row id of a brand, made where it is new."""
        mine = and_(BRAND.c.organization_id == self.organization_id, BRAND.c.brand_id == brand_id)
        known = connection.scalar(select(BRAND.c.id).where(mine))
        if known is None:
            made = {"organization_id": self.organization_id, "brand_id": brand_id}
            known = connection.execute(BRAND.insert().values(made).returning(BRAND.c.id)).scalar_one()
        return int(known)

    def payable(self) -> ColumnElement[int]:
        """Return the points that may be sent to a member now, as an SQL expression.

        None while any of its points are unsettled: it is never in two unsettled points batches. Negative
        where the CRM's total has fallen: later growth makes that good first. With points = "set" it is any
        difference between the balance that is wanted and the one that is proven.
        """
        if self.rules.points is Points.ADD:
            return case((MEMBER.c.unsettled == 0, MEMBER.c.earned - MEMBER.c.credited), else_=0)
        if self.rules.points is Points.SET:
            return func.abs(MEMBER.c.earned - MEMBER.c.credited)
        return MEMBER.c.earned * 0

    def is_due(self, wanted: bytes | None, delivered: bytes | None, owed: int) -> bool:
        """Return whether a new member, with nothing unsettled or refused, is due; as `refresh` would find."""
        if wanted != delivered:
            return True
        owes = owed > 0 if self.rules.points is Points.ADD else owed != 0
        return owes and self.rules.points is not Points.OFF

    def refresh(self, connection: Connection, member_ids: Collection[int]) -> None:
        """Keep `due` true to its meaning, and drop the payloads that nothing needs any more.

        A payload is needed until it is delivered, and as long as an older row may land late and overwrite it.
        """
        differs = or_(MEMBER.c.wanted.is_distinct_from(MEMBER.c.delivered), self.payable() > 0)
        refused = and_(MEMBER.c.refused.is_not(None), MEMBER.c.refused == MEMBER.c.wanted)
        due = and_(MEMBER.c.payload.is_not(None), differs, ~refused)
        keeps = or_(
            differs,
            MEMBER.c.unsettled != 0,
            MEMBER.c.open_batch.is_not(None),
            MEMBER.c.late_until.is_not(None),
        )
        values: dict[str, Any] = {"due": case((due, 1), else_=0)}
        if not self.rules.expire_gone:
            values["payload"] = case((keeps, MEMBER.c.payload), else_=None)
        connection.execute(update(MEMBER).where(among(MEMBER.c.id, member_ids)).values(values))

    def kept_back(self, allowed: Allowed) -> ColumnElement[bool]:
        """Return the condition for members of which brakes keep something back, where they are due."""
        own = MEMBER.c.brand.in_(select(BRAND.c.id).where(BRAND.c.organization_id == self.organization_id))
        kept: list[ColumnElement[bool]] = [false() if allowed.known else MEMBER.c.delivered.is_not(None)]
        if allowed.most_points is not None and self.rules.points is Points.ADD:
            kept.append(self.payable() > allowed.most_points)
        return and_(own, or_(*kept))

    def mark_for_write_back(
        self, connection: Connection, members: Collection[int] | Select[tuple[int]]
    ) -> None:
        """Let the next write-back look at every contact of these members, listed or selected."""
        if self.writing and (isinstance(members, Select) or members):
            chosen = CONTACT.c.member_id
            connection.execute(
                update(CONTACT)
                .where(
                    chosen.in_(members) if isinstance(members, Select) else among(chosen, members),
                    CONTACT.c.connector_id.in_(list(self.writing)),
                    CONTACT.c.state.in_([ContactState.ACTIVE, ContactState.QUARANTINED]),
                )
                .values(write_due=1)
            )

    def unsettled_batches(self) -> ColumnElement[bool]:
        """Return the condition for this organization's batches without a final outcome."""
        mine = select(BRAND.c.id).where(BRAND.c.organization_id == self.organization_id)
        return and_(BATCH.c.brand.in_(mine), BATCH.c.outcome < Outcome.LANDED)

    def rows_of(self, batch_id: int) -> ColumnElement[bool]:
        """Return the condition for a batch's rows without a final outcome."""
        return and_(BATCH_ROW.c.batch_id == batch_id, BATCH_ROW.c.outcome < Outcome.LANDED)


def on_account_of(member: ColumnElement[int]) -> ColumnElement[bool]:
    """Return the condition for the batch rows whose points are a member's, as columns of `BATCH_ROW`."""
    own = and_(BATCH_ROW.c.account_id.is_(None), BATCH_ROW.c.member_id == member)
    return or_(own, BATCH_ROW.c.account_id == member)


def unproven() -> ColumnElement[bool]:
    """Return the condition for batch rows that may have been applied, or may still be, without proof.

    No answer of the wallet says what became of them.
    """
    return or_(
        BATCH_ROW.c.outcome.in_([Outcome.DOUBT, Outcome.HELD, Outcome.RELEASED, Outcome.SKIPPED]),
        and_(BATCH_ROW.c.outcome == Outcome.REFUTED, BATCH_ROW.c.grade != Grade.ANSWER),
    )
