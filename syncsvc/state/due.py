"""Which members have something to send, and what: as SQL that is built once.

`b_most` is bound in all of it: the most points that may be sent to a member, see `at_most`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    case,
    false,
    func,
    not_,
    or_,
    select,
)

from syncsvc.config import Points
from syncsvc.rules.brakes import Flows
from syncsvc.state.codes import RESTORED, Lane, Outcome
from syncsvc.state.payloads import ASKS_FOR_MAILS, OF_MEMBER
from syncsvc.state.scope import LEAVES, OWN_BRANDS, payable
from syncsvc.state.tables import BATCH, BATCH_ROW, DECISION, MEMBER, PAYLOAD

_MOST = bindparam("b_most", type_=BigInteger)


class Claimable(NamedTuple):
    """A member with something to send, and what `Outbox.claim` makes its row of."""

    id: int
    email_key: str
    email: str | None
    wanted: bytes
    delivered: bytes | None
    content: bytes
    earned: int
    credited: int
    unsettled: int
    introduced: int
    log_value: str | None


def sendable(flows: Flows, points: Points = Points.OFF) -> list[ColumnElement[bool]]:
    """Return the conditions for members that may be sent.

    With the meaning of `points`: where every row sets the balance, one that moves it by more waits whole.
    """
    conditions = [MEMBER.c.due == 1, MEMBER.c.open_batch.is_(None)]
    if points is Points.SET:
        conditions.append(payable(points) <= _MOST)
    if not flows.known:
        conditions.append(MEMBER.c.delivered.is_(None))
    if not flows.new:
        conditions.append(MEMBER.c.delivered.is_not(None))
    return conditions if flows.leaving else [*conditions, not_(LEAVES)]


def in_case() -> ColumnElement[bool]:
    """Return the condition for members whose wanted profile was delivered and is sent again, see `unsure`."""
    return and_(
        MEMBER.c.wanted != MEMBER.c.delivered,
        func.substr(MEMBER.c.wanted, 2) == func.substr(MEMBER.c.delivered, 2),
    )


def pays(points: Points) -> ColumnElement[bool]:
    """Return the condition for members that are sent points now: what they are owed, at most `b_most`."""
    return payable(points).between(1, _MOST)


def lasting(points: Points, *, mails: bool) -> ColumnElement[bool]:
    """Return the condition for members of `Totals.lasting`; `mails` says that rows may ask for mails."""
    owed = payable(points) > 0 if points is Points.ADD else false()  # any number: what is held back counts
    lasts = or_(owed, ASKS_FOR_MAILS) if mails else owed
    return and_(MEMBER.c.delivered.is_(None), MEMBER.c.first_read == 1, lasts)


def elsewhere() -> ColumnElement[bool]:
    """Return the condition for members that the log shows, though this state never sent them.

    What stands for rows of an older state that was put back is none of this one, unless a person decided it.
    """
    decided = select(DECISION.c.id).where(
        DECISION.c.batch_id == BATCH_ROW.c.batch_id, DECISION.c.position == BATCH_ROW.c.position
    )
    ours = (
        select(BATCH_ROW.c.batch_id)
        .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
        .where(BATCH_ROW.c.member_id == MEMBER.c.id, or_(BATCH.c.cycle != RESTORED, decided.exists()))
        .correlate(MEMBER)
    )
    return and_(MEMBER.c.log_value.is_not(None), ~ours.exists())


def sendable_points(points: Points) -> ColumnElement[int]:
    """Return the points that a member would be sent now; none where it is owed more than `b_most`."""
    return case((pays(points), payable(points)), else_=0)


def _in_lane(points: Points, lane: Lane) -> ColumnElement[bool]:
    """Return the condition for members whose next row belongs in a lane."""
    if points is not Points.ADD:
        return MEMBER.c.due == (1 if lane is Lane.PROFILE else 2)
    paid = pays(points)
    if lane is Lane.POINTS:
        return paid
    return and_(~paid, MEMBER.c.wanted.is_distinct_from(MEMBER.c.delivered))


def _may_move_yet() -> ColumnElement[bool]:
    """Return the condition for members with a row that landed after `b_landed`, and has not moved the log.

    An import may be carried out some time after it was accepted.
    """
    older = (
        select(BATCH.c.id)
        .where(BATCH.c.brand == bindparam("b_place"), BATCH.c.sent_at <= bindparam("b_landed"))
        .order_by(BATCH.c.id.desc())
        .limit(1)
        .scalar_subquery()
    )
    return (
        select(BATCH_ROW.c.batch_id)
        .where(
            BATCH_ROW.c.member_id == MEMBER.c.id,
            BATCH_ROW.c.batch_id > func.coalesce(older, 0),
            BATCH_ROW.c.outcome == Outcome.LANDED,
            BATCH_ROW.c.log_before.is_not_distinct_from(MEMBER.c.log_value),
        )
        .exists()
    )


@cache
def totals(points: Points, *, mails: bool, new: bool) -> Select[int, int, int, int, int, int, int, int, int]:
    """Return the sums of `Totals`, those of `known` and `present` left out, in its order.

    `mails` says that rows may ask for mails; unless `new`, members that were never delivered are left out.
    """
    flows = Flows(new=new)
    owed, paid = payable(points), pays(points)
    # What is cheap to tell comes first: most need no look at their points then.
    sends = or_(MEMBER.c.wanted.is_distinct_from(MEMBER.c.delivered), paid)
    lasts = lasting(points, mails=mails)
    return (
        select(
            func.count().filter(MEMBER.c.delivered.is_not(None), sends),
            func.count().filter(MEMBER.c.delivered.is_(None), sends),
            func.coalesce(func.sum(owed).filter(paid), 0),
            func.coalesce(func.max(owed), 0),
            func.count().filter(owed > _MOST),
            func.count().filter(LEAVES),
            func.count().filter(MEMBER.c.delivered.is_not(None), in_case(), not_(LEAVES), ~paid),
            func.count().filter(lasts),
            func.count().filter(lasts, elsewhere()),
        )
        .where(MEMBER.c.brand.in_(OWN_BRANDS), *sendable(flows))
        .select_from(MEMBER)
    )


@cache
def any_due(points: Points, lane: Lane, flows: Flows) -> Select[Any]:
    """Return whether any member has a row to send in a lane: one id, or none."""
    mine = MEMBER.c.brand.in_(OWN_BRANDS)
    return select(MEMBER.c.id).where(mine, *sendable(flows, points), _in_lane(points, lane)).limit(1)


@cache
def claimable(points: Points, lane: Lane, flows: Flows) -> Select[Any]:
    """Return up to `b_rows` members of brand `b_place` with ids above `b_after`, as `Outbox.claim` says.

    Their columns are those of `Claimable`.
    """
    conditions = [
        MEMBER.c.brand == bindparam("b_place"),
        *sendable(flows, points),
        MEMBER.c.id > bindparam("b_after"),
        _in_lane(points, lane),
    ]
    if lane is Lane.POINTS:
        conditions += [
            or_(
                MEMBER.c.log_at.is_(None),
                MEMBER.c.log_at < bindparam("b_fresh"),
                MEMBER.c.log_at > bindparam("b_absurd"),
            ),
            or_(MEMBER.c.quiet_until.is_(None), MEMBER.c.quiet_until <= bindparam("b_now")),
            ~_may_move_yet(),
        ]
    rows = bindparam("b_rows", type_=Integer)
    columns = (PAYLOAD.c.content if it == "content" else MEMBER.c[it] for it in Claimable._fields)
    return select(*columns).join(PAYLOAD, OF_MEMBER).where(*conditions).order_by(MEMBER.c.id).limit(rows)
