"""A connector that is taken out: what the owners of its members were paid is set aside for them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, and_, case, literal_column, or_, select

from syncsvc.state.histories import COUNTED, INHERITANCE
from syncsvc.state.inheritance import Inheritances
from syncsvc.state.member import MEMBERS, Member
from syncsvc.state.tables import MEMBER

_BROUGHT_ANEW = and_(
    INHERITANCE.c.connector_id == MEMBER.c.owner_connector,
    INHERITANCE.c.record_id == MEMBER.c.owner_record,
    INHERITANCE.c.member_id == MEMBER.c.id,
)


def set_aside(connection: Connection, connectors: Collection[int]) -> None:
    """Let who owns members through these connectors bring along what those were paid, as who is gone would.

    The contacts may be read again one day, merged or under other emails.
    """
    theirs, most = MEMBER.c.owner_connector.in_(connectors), _most(MEMBER.c.credited, MEMBER.c.earned)
    has = or_(most > 0, MEMBER.c.unsettled > 0)
    simple = and_(
        MEMBER.c.credited + MEMBER.c.unsettled <= most,
        ~select(COUNTED.c.life).where(COUNTED.c.heir_id == MEMBER.c.id).exists(),
        ~select(INHERITANCE.c.life).where(_BROUGHT_ANEW).exists(),
    )
    columns = ("connector_id", "record_id", "member_id", "points", "owed", "life")
    plain = select(
        MEMBER.c.owner_connector,
        MEMBER.c.owner_record,
        MEMBER.c.id,
        most,
        most - MEMBER.c.credited,
        literal_column("0"),
    )
    others: dict[int, dict[str, Member]] = defaultdict(dict)
    for row in connection.execute(MEMBERS.where(theirs, has, ~simple)).all():
        others[row.owner_connector][row.owner_record] = Member(*row)
    connection.execute(INHERITANCE.insert().from_select(columns, plain.where(theirs, has, simple)))
    for number, members in others.items():
        inheritances = Inheritances(connection, number, [], counts=True)
        remembered = inheritances.remembered(members)
        for record_id, member in members.items():
            for what in remembered.get(record_id, ()):
                if what.source == member.id:
                    inheritances.remember(record_id, member, what)
            inheritances.grant(member, record_id)
        inheritances.save()


def _most(one: ColumnElement[int], other: ColumnElement[int]) -> ColumnElement[int]:
    return case((one < other, other), else_=one)
