"""Adopts what others have imported: its points count as credited, and its rows ask for no mails."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, Select, bindparam, select, update

from syncsvc.config import Points
from syncsvc.rules.brakes import ALL
from syncsvc.state import due, payloads
from syncsvc.state.books import Credit, append
from syncsvc.state.codes import Entry
from syncsvc.state.database import as_list, one_of
from syncsvc.state.payloads import OF_MEMBER
from syncsvc.state.scope import OWN_BRANDS, Rules, Scope, payable
from syncsvc.state.tables import MEMBER, PAYLOAD

_PAGE = 2000

_ADOPTED = update(MEMBER).where(one_of(MEMBER.c.id, "b_members"))
_INTRODUCED = _ADOPTED.values(introduced=1)
_CREDITED = _ADOPTED.values(credited=MEMBER.c.earned)


def adopt(connection: Connection, scope: Scope, *, now: datetime) -> int:
    """Take members of first reads that others have imported for awarded and mailed; returns how many.

    They are those of `Totals.elsewhere`. What they are owed by now counts as credited, and their next rows
    ask for no mails.
    """
    statement = _theirs(scope.rules)
    adopted, after = 0, 0
    while True:
        listed = connection.execute(statement, scope.bound(b_after=after)).all()
        if not listed:
            return adopted
        members = [member for member, _, _ in listed]
        adopted, after = adopted + len(members), members[-1]
        payloads.silence(connection, [(member, content) for member, _, content in listed])
        connection.execute(_INTRODUCED, {"b_members": as_list(members)})
        if scope.rules.points is Points.ADD:
            owed = [
                Credit(Entry.ADOPTED, points, member_id=member) for member, points, _ in listed if points > 0
            ]
            append(connection, scope.organization_id, owed, now=now)
            connection.execute(_CREDITED, {"b_members": as_list(it.member_id for it in owed)})
            scope.refresh(connection, members)


def _theirs(rules: Rules) -> Select[int, int, bytes]:
    return (
        select(MEMBER.c.id, payable(rules.points), PAYLOAD.c.content)
        .join(PAYLOAD, OF_MEMBER)
        .where(
            MEMBER.c.brand.in_(OWN_BRANDS),
            MEMBER.c.id > bindparam("b_after"),
            *due.sendable(ALL),
            due.lasting(rules.points, mails=rules.mails),
            due.elsewhere(),
        )
        .order_by(MEMBER.c.id)
        .limit(_PAGE)
    )
