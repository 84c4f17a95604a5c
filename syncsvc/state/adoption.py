"""Adopts points that were awarded by others: they count as credited, and nothing is sent for them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, bindparam, select, update

from syncsvc.config import Points
from syncsvc.rules.brakes import ALL
from syncsvc.state import due
from syncsvc.state.books import Credit, append
from syncsvc.state.codes import Entry
from syncsvc.state.database import as_list, one_of
from syncsvc.state.scope import OWN_BRANDS, Scope, at_most, payable
from syncsvc.state.tables import MEMBER

_PAGE = 2000

_THEIRS = (
    select(MEMBER.c.id, payable(Points.ADD))
    .where(
        MEMBER.c.brand.in_(OWN_BRANDS),
        MEMBER.c.id > bindparam("b_after"),
        *due.sendable(ALL),
        due.pays(Points.ADD),
        *due.elsewhere(),
    )
    .order_by(MEMBER.c.id)
    .limit(_PAGE)
)
_CREDITED = update(MEMBER).where(one_of(MEMBER.c.id, "b_members")).values(credited=MEMBER.c.earned)


def adopt(connection: Connection, scope: Scope, *, now: datetime) -> int:
    """Let what new members are owed count as credited where the import log shows them; returns how many.

    Those of `Totals.elsewhere` who would be awarded points.
    """
    adopted, after = 0, 0
    while scope.rules.points is Points.ADD:
        bound = scope.bound(b_after=after, b_most=at_most(None))
        listed = connection.execute(_THEIRS, bound).all()
        if not listed:
            break
        members = [member for member, _ in listed]
        adopted, after = adopted + len(members), members[-1]
        entries = [Credit(Entry.ADOPTED, owed, member_id=member) for member, owed in listed]
        append(connection, scope.organization_id, entries, now=now)
        connection.execute(_CREDITED, {"b_members": as_list(members)})
        scope.refresh(connection, members)
    return adopted
