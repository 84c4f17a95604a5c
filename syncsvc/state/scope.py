"""The part of the state that belongs to one organization, and the rules its rows are kept by."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Delete,
    Update,
    and_,
    bindparam,
    case,
    false,
    func,
    or_,
    select,
    update,
)

from syncsvc.config import FirstRun, OnEmailChange, Points
from syncsvc.rules.brakes import Allowed, Flows
from syncsvc.rules.fingerprint import Fingerprinter
from syncsvc.rules.intake import ContactState
from syncsvc.rules.settling import Grade
from syncsvc.state.codes import HELD, Outcome, WriteDue
from syncsvc.state.database import Database, as_list, one_of
from syncsvc.state.payloads import AT_HAND, dropped
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, CONTACT, MEMBER

_ANY = 2**62

# The statements of this floor are built once, with parameters bound by name: to build one costs more than to
# run it. The names begin with b_, so that none is a column's.
OURS = BRAND.c.organization_id == bindparam("b_organization")
"""The condition for the organization's brands."""
OWN_BRANDS = select(BRAND.c.id).where(OURS)
"""The ids of the organization's brands."""
THIS_BRAND = and_(OURS, BRAND.c.brand_id == bindparam("b_brand_id"))
"""The condition for one of the organization's brands."""
UNSETTLED_BATCHES = and_(BATCH.c.brand.in_(OWN_BRANDS), BATCH.c.outcome < Outcome.LANDED)
"""The condition for the organization's batches without a final outcome."""

_BRAND = select(BRAND.c.id).where(THIS_BRAND)
_NEW_BRAND = BRAND.insert().returning(BRAND.c.id)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration says about how rows are kept."""

    points: Points
    first_run: FirstRun
    on_email_change: OnEmailChange
    expire_gone: bool
    mails: bool = False  # whether rows may ask for mails
    witness: str | None = None  # the email that rides in every points batch
    zone: tzinfo = UTC  # of times in the log that carry none


@dataclass(slots=True)
class Scope:
    """One organization in an open database.

    `connectors` are the ids of the configured connectors by name, in order of ownership; `writing` those
    that write back, `telling` those of them that write a status.
    """

    database: Database
    organization_id: int
    rules: Rules
    fingerprinter: Fingerprinter
    connectors: Mapping[str, int]
    writing: Collection[int]
    telling: Collection[int]

    def bound(self, **values: Any) -> dict[str, Any]:
        """Return the parameters of a statement that names the organization, and more of them."""
        return {"b_organization": self.organization_id, **values}

    def brand(self, connection: Connection, brand_id: str) -> int:
        """Return the row id of a brand, made where it is new."""
        known = connection.scalar(_BRAND, self.bound(b_brand_id=brand_id))
        if known is None:
            made = {"organization_id": self.organization_id, "brand_id": brand_id}
            known = connection.execute(_NEW_BRAND, made).scalar_one()
        return int(known)

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
        these = {"b_members": as_list(member_ids)}
        connection.execute(_refreshed(self.rules.points), these)
        if not self.rules.expire_gone:
            connection.execute(_unneeded(self.rules.points), these)

    def mark_for_write_back(self, connection: Connection, member_ids: Collection[int]) -> None:
        """Let the next write-back look at every contact of these members, whose times have moved."""
        if self.writing and member_ids:
            marked = {"b_members": as_list(member_ids), "b_writing": as_list(self.writing)}
            connection.execute(_MARKED, marked)

    def mark_for_status(self, connection: Connection, member_ids: Collection[int]) -> None:
        """Let the next write-back look at every contact of these members whose status is written."""
        if self.telling and member_ids:
            marked = {"b_members": as_list(member_ids), "b_writing": as_list(self.telling)}
            connection.execute(_MARKED, marked)

    def mark_kept_back(self, connection: Connection, allowed: Allowed) -> None:
        """Let the next write-back tell every contact of the members that `allowed` keeps back."""
        if self.telling:
            marked = _marked_kept_back(self.rules.points, allowed.flows)
            bound = self.bound(b_most=at_most(allowed.most_points), b_writing=as_list(self.telling))
            connection.execute(marked, bound)

    def mark_held(self, connection: Connection) -> None:
        """Let the next write-back look at every contact that says it is held: a brake is over."""
        if self.telling:
            connection.execute(_MARKED_HELD, {"b_writing": as_list(self.telling)})


def payable(points: Points) -> ColumnElement[int]:
    """Return the points that may be sent to a member now, as an SQL expression.

    None while any of its points are unsettled: it is never in two unsettled points batches. Negative
    where the CRM's total has fallen: later growth makes that good first. With points = "set" it is any
    difference between the balance that is wanted and the one that is proven.
    """
    if points is Points.ADD:
        return case((MEMBER.c.unsettled == 0, MEMBER.c.earned - MEMBER.c.credited), else_=0)
    if points is Points.SET:
        return func.abs(MEMBER.c.earned - MEMBER.c.credited, type_=BigInteger)
    return MEMBER.c.earned * 0


def at_most(points: int | None) -> int:
    """Return what is bound as `b_most`: more than any member can be owed where nothing is a limit."""
    return _ANY if points is None else points


LEAVES = and_(
    MEMBER.c.expired == 1,
    MEMBER.c.owner_record.is_(None),
    MEMBER.c.delivered.is_not(None),
    MEMBER.c.wanted.is_distinct_from(MEMBER.c.delivered),
)
"""The condition for members that the next row expires, as no contact of theirs is left."""


def kept_back(points: Points, flows: Flows) -> ColumnElement[bool]:
    """Return the condition for members of which brakes keep something back, where they are due.

    As `Allowed` says: `b_most` is bound, and the organization; `flows` is part of it.
    """
    kept: list[ColumnElement[bool]] = [false() if flows.known else MEMBER.c.delivered.is_not(None)]
    if not flows.new:
        kept.append(MEMBER.c.delivered.is_(None))
    if not flows.leaving:
        kept.append(LEAVES)
    if points is not Points.OFF:
        kept.append(payable(points) > bindparam("b_most", type_=BigInteger))
    return and_(MEMBER.c.brand.in_(OWN_BRANDS), or_(*kept))


def _differs(points: Points) -> ColumnElement[bool]:
    return or_(MEMBER.c.wanted.is_distinct_from(MEMBER.c.delivered), payable(points) > 0)


@cache
def _refreshed(points: Points) -> Update:
    refused = and_(MEMBER.c.refused.is_not(None), MEMBER.c.refused == MEMBER.c.wanted)
    due = and_(_differs(points), ~refused, AT_HAND)  # in this order: most need no look at the payloads
    return update(MEMBER).where(one_of(MEMBER.c.id, "b_members")).values(due=case((due, 1), else_=0))


@cache
def _unneeded(points: Points) -> Delete:
    settled = and_(MEMBER.c.unsettled == 0, MEMBER.c.open_batch.is_(None), MEMBER.c.late_until.is_(None))
    return dropped(one_of(MEMBER.c.id, "b_members"), settled, ~_differs(points))


def _marked(*members: ColumnElement[bool]) -> Update:
    shown = CONTACT.c.state.in_([ContactState.ACTIVE, ContactState.QUARANTINED])
    writing = one_of(CONTACT.c.connector_id, "b_writing")
    unmarked = CONTACT.c.write_due != WriteDue.YES
    return update(CONTACT).where(*members, writing, shown, unmarked).values(write_due=WriteDue.YES)


_MARKED = _marked(one_of(CONTACT.c.member_id, "b_members"))
_MARKED_HELD = _marked(CONTACT.c.written_status == HELD)


@cache
def _marked_kept_back(points: Points, flows: Flows) -> Update:
    kept = select(MEMBER.c.id).where(MEMBER.c.due == 1, kept_back(points, flows))
    return _marked(CONTACT.c.member_id.in_(kept), CONTACT.c.written_status.is_distinct_from(HELD))


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
