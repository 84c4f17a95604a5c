"""Members whose log entry moved without an import that explains it: an old row may have landed late.

Only members with `late_until` set can have such a row; a member without a doubt costs nothing here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, func, or_, select, tuple_, update

from syncsvc.config import Points
from syncsvc.rules.lateness import LATEST, Late, Move, SentRow, late_row
from syncsvc.rules.settling import Grade
from syncsvc.state.codes import Lane, Outcome
from syncsvc.state.database import Record, among, from_ms, to_ms
from syncsvc.state.payloads import AT_HAND
from syncsvc.state.scope import Scope, unproven
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, CONTACT, MEMBER

_PATIENCE = 3
_PAST = select(MEMBER.c.id).where(
    MEMBER.c.brand == bindparam("b_brand"), MEMBER.c.late_until < bindparam("b_now")
)
_UNSURE = b"\0"
"""Stands for the version of a fingerprint that was delivered, and may have been overwritten since."""


@dataclass(frozen=True, slots=True)
class LandedLate:
    """Rows that may have landed late: `profiles` that are sent again, `points` that may be paid twice.

    `doubted` are points that were to be sent anew, and are in doubt again instead.
    """

    rows: int = 0
    profiles: int = 0
    points: int = 0
    doubted: int = 0


def unsure(delivered: bytes) -> bytes:
    """Return what stands for a delivered profile that may have been overwritten: no fingerprint equals it."""
    return _UNSURE + delivered[1:]


def notice(
    connection: Connection, scope: Scope, brand_id: str, moves: Mapping[int, Move], *, settle_after: timedelta
) -> LandedLate:
    """Mark the rows that may have landed late with these moves, by member; their profiles are due again.

    Each row is noticed once, so that entries that others move often cost one row more and no endless ones.
    """
    if not moves:
        return LandedLate()
    mine = and_(BRAND.c.organization_id == scope.organization_id, BRAND.c.brand_id == brand_id)
    brand = connection.execute(select(BRAND).where(mine)).one()
    resolution = timedelta(milliseconds=brand.resolution_ms or 1000)
    longest = longest_way(settle_after, brand.slowest_ms)
    found: dict[int, Late] = {}
    for member, sent in _sent(connection, scope, moves).items():
        late = late_row(sent, moves[member], resolution=resolution, longest=longest)
        if late is not None:
            found[member] = late
    doubted = {member: late.row for member, late in found.items() if late.doubted}
    noticed = {member: late.row for member, late in found.items() if not late.doubted}
    _mark(connection, noticed, moves)
    for member, row in doubted.items():
        _doubt_again(connection, scope, member, row)
    again = [member for member, late in found.items() if late.overwrote]
    _send_again(connection, scope, again)
    return LandedLate(
        rows=len(found),
        profiles=len(again),
        points=sum(late.row.paid_again for late in found.values() if not late.doubted),
        doubted=sum(row.owed for row in doubted.values()),
    )


def longest_way(settle_after: timedelta, slowest_ms: int) -> timedelta:
    """Return how long an import may take at most, where the slowest seen took so many milliseconds."""
    return max(settle_after, timedelta(milliseconds=_PATIENCE * slowest_ms))


def forget_past(connection: Connection, scope: Scope, brand: int, *, now: datetime) -> None:
    """Give up waiting for rows that can land no more, and drop the payloads that were kept for them."""
    members = list(connection.scalars(_PAST, {"b_brand": brand, "b_now": to_ms(now)}))
    if members:
        connection.execute(update(MEMBER).where(among(MEMBER.c.id, members)).values(late_until=None))
        scope.refresh(connection, members)


def latest(sent_at: int) -> int:
    """Return until when a row that was sent then may land late, both in milliseconds."""
    return sent_at + LATEST // timedelta(milliseconds=1)


def send_unproven_again(connection: Connection, scope: Scope, batch_id: int) -> None:
    """Let the profiles of a batch be due again that count as delivered since their own entries moved.

    Somebody else may have moved them. Not where the whole batch is proven, nor where the profile had been
    delivered before and only points were new. What is sent again is neither points nor mails.
    """
    _send_again(connection, scope, list(connection.scalars(_UNPROVEN, {"b_batch": batch_id})))


def _unproven() -> Select[Any]:
    before, beside = BATCH_ROW.alias("before"), BATCH_ROW.alias("beside")
    proven_before = (
        select(before.c.fingerprint)
        .where(
            before.c.member_id == BATCH_ROW.c.member_id,
            before.c.batch_id < BATCH_ROW.c.batch_id,
            before.c.outcome == Outcome.LANDED,
            before.c.grade != Grade.WINDOW,
        )
        .order_by(before.c.batch_id.desc())
        .limit(1)
        .scalar_subquery()
    )
    whole = select(beside.c.position).where(
        beside.c.batch_id == bindparam("b_batch"), beside.c.grade.in_([Grade.UNANIMOUS, Grade.WITNESS])
    )
    return (
        select(BATCH_ROW.c.member_id)
        .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
        .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
        .where(
            BATCH_ROW.c.batch_id == bindparam("b_batch"),
            BATCH_ROW.c.outcome == Outcome.LANDED,
            BATCH_ROW.c.grade == Grade.WINDOW,
            BATCH_ROW.c.fingerprint == MEMBER.c.delivered,
            BATCH_ROW.c.fingerprint.is_distinct_from(proven_before),
            BATCH.c.witness.is_distinct_from(Outcome.LANDED),
            ~whole.exists(),
        )
    )


_UNPROVEN = _unproven()


def _sent(connection: Connection, scope: Scope, moves: Mapping[int, Move]) -> dict[int, list[SentRow]]:
    account = MEMBER.alias("account")
    oldest = to_ms(min(move.at for move in moves.values()) - LATEST)
    doubtful = and_(unproven(), BATCH_ROW.c.late_at.is_(None))
    listed = (
        select(
            BATCH_ROW,
            BATCH.c.sent_at,
            BATCH.c.lane,
            MEMBER.c.wanted,
            MEMBER.c.delivered,
            MEMBER.c.credited,
            (account.c.earned - account.c.credited - account.c.unsettled).label("owed"),
        )
        .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
        .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
        .join(account, account.c.id == func.coalesce(BATCH_ROW.c.account_id, BATCH_ROW.c.member_id))
        .where(
            among(BATCH_ROW.c.member_id, moves),
            BATCH.c.sent_at >= oldest,
            or_(BATCH_ROW.c.outcome == Outcome.LANDED, doubtful),
        )
        .order_by(BATCH_ROW.c.batch_id)
    )
    sent: dict[int, list[SentRow]] = defaultdict(list)
    for row in connection.execute(listed):
        sent[row.member_id].append(_row(row, sets=scope.rules.points is Points.SET))
    return sent


def _row(row: Record, *, sets: bool) -> SentRow:
    # What is wanted anew is sent anyway. A row that sets the balance overwrites that too.
    stands = row.delivered is not None and row.wanted == row.delivered
    another = row.fingerprint != row.delivered or (sets and row.points != row.credited)
    refuted = row.lane == Lane.POINTS and row.outcome == Outcome.REFUTED
    # What a person or a policy decided stays decided.
    waits = refuted and row.grade == Grade.UNMOVED and 0 < row.points <= row.owed
    landed = row.outcome == Outcome.LANDED
    return SentRow(
        batch=row.batch_id,
        position=row.position,
        sent_at=from_ms(row.sent_at),
        landed=landed,
        proven=landed and (row.grade != Grade.WINDOW or row.late_at is not None),
        differs=stands and another,
        paid_again=max(0, min(row.points, row.points - row.owed)) if refuted else 0,
        owed=row.points if waits else 0,
        log_before=row.log_before,
    )


def _mark(connection: Connection, found: Mapping[int, SentRow], moves: Mapping[int, Move]) -> None:
    rows = [
        {"b_batch": row.batch, "b_position": row.position, "b_at": to_ms(moves[member].at)}
        for member, row in found.items()
    ]
    if rows:
        this = and_(
            BATCH_ROW.c.batch_id == bindparam("b_batch"), BATCH_ROW.c.position == bindparam("b_position")
        )
        connection.execute(update(BATCH_ROW).where(this).values(late_at=bindparam("b_at")), rows)


def _doubt_again(connection: Connection, scope: Scope, member: int, row: SentRow) -> None:
    """Let a row that was refuted be in doubt again: its points are unsettled, its member is sent nothing."""
    batch = BATCH.c.id == row.batch
    this = and_(BATCH_ROW.c.batch_id == row.batch, BATCH_ROW.c.position == row.position)
    connection.execute(update(BATCH_ROW).where(this).values(outcome=Outcome.DOUBT, grade=None))
    least = select(func.min(BATCH_ROW.c.outcome)).where(BATCH_ROW.c.batch_id == row.batch).scalar_subquery()
    connection.execute(update(BATCH).where(batch).values(outcome=least, settled_at=None))
    connection.execute(update(MEMBER).where(MEMBER.c.id == member).values(open_batch=row.batch))
    account = connection.scalar(select(func.coalesce(BATCH_ROW.c.account_id, member)).where(this))
    unsettled = MEMBER.c.unsettled + row.owed
    connection.execute(update(MEMBER).where(MEMBER.c.id == account).values(unsettled=unsettled))
    members = [*{member, account}]
    scope.refresh(connection, members)
    scope.mark_for_status(connection, members)


def _send_again(connection: Connection, scope: Scope, members: list[int]) -> None:
    """Let the profiles of members be due; one that is not at hand comes with the next read of its contact."""
    if not members:
        return
    named = (
        MEMBER.c.id,
        MEMBER.c.delivered,
        AT_HAND.label("at_hand"),
        MEMBER.c.owner_connector,
        MEMBER.c.owner_record,
    )
    rows = connection.execute(select(*named).where(among(MEMBER.c.id, members))).all()
    connection.execute(
        update(MEMBER).where(MEMBER.c.id == bindparam("b_id")).values(delivered=bindparam("b_delivered")),
        [{"b_id": row.id, "b_delivered": unsure(row.delivered)} for row in rows],
    )
    absent = [(row.owner_connector, row.owner_record) for row in rows if not row.at_hand]
    unread: dict[str, Any] = {"fingerprint": None}
    for owner in absent:
        this = tuple_(CONTACT.c.connector_id, CONTACT.c.record_id) == owner
        connection.execute(update(CONTACT).where(this).values(unread))
    scope.refresh(connection, members)
