"""Stakes in rows whose outcome is open: members that count another member's unsettled points as well.

An owner that leaves a member which others share takes along what the member was paid, and the member keeps
it. Points that may have been paid, as nobody knows yet, are counted by both until it is known: they are
credited to both where the row landed, and to neither where it did not.

A stake waits for a contact (`record_id`) until that owns a member, its heir; until then `inheritance` has
a row for the contact too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    func,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert as put  # its ON CONFLICT is SQLite's too

from syncsvc.state.books import Credit, append
from syncsvc.state.bulk import insert_rows, update_rows
from syncsvc.state.codes import Entry, Lane, Outcome
from syncsvc.state.counted import Origin, parts_text, read_parts
from syncsvc.state.database import Record, as_list, one_of
from syncsvc.state.histories import COUNTED, INHERITANCE, STAKE
from syncsvc.state.scope import Scope, on_account_of
from syncsvc.state.tables import BATCH, BATCH_ROW, MEMBER


class OpenRow(NamedTuple):
    """A batch row without an outcome, and the points of it that a member counts."""

    batch_id: int
    position: int
    points: int


OF_ITS_ROW = and_(STAKE.c.batch_id == BATCH_ROW.c.batch_id, STAKE.c.position == BATCH_ROW.c.position)
"""Joins a stake to its row."""

_OPEN = and_(BATCH_ROW.c.outcome < Outcome.LANDED, BATCH.c.lane == Lane.POINTS)
_OF_BATCH = BATCH.c.id == BATCH_ROW.c.batch_id
_ROWS = select(BATCH_ROW.c.batch_id, BATCH_ROW.c.position, BATCH_ROW.c.points)
_ON_ACCOUNT = union_all(
    _ROWS.add_columns(BATCH_ROW.c.member_id.label("account"))
    .join(BATCH, _OF_BATCH)
    .where(one_of(BATCH_ROW.c.member_id, "b_members"), BATCH_ROW.c.account_id.is_(None), _OPEN),
    _ROWS.add_columns(BATCH_ROW.c.account_id.label("account"))
    .join(BATCH, _OF_BATCH)
    .where(one_of(BATCH_ROW.c.account_id, "b_members"), _OPEN),
)
_OF_HEIRS = select(STAKE).where(one_of(STAKE.c.heir_id, "b_members"))
_WAITING = select(STAKE).where(
    STAKE.c.connector_id == bindparam("b_connector"),
    one_of(STAKE.c.record_id, "b_records"),
    STAKE.c.heir_id.is_(None),
)
_SELF = COUNTED.alias("self")
_LIFE = select(_SELF.c.life).where(_SELF.c.heir_id == _SELF.c.source_id, _SELF.c.points == 0)
_OF_ROWS = select(STAKE).where(
    STAKE.c.batch_id == bindparam("b_batch"), one_of(STAKE.c.position, "b_positions")
)
_ORIGIN_OF = (
    select(
        BATCH_ROW.c.member_id,
        case(
            (
                BATCH_ROW.c.account_id.is_(None),
                func.coalesce(_LIFE.where(_SELF.c.heir_id == BATCH_ROW.c.member_id).scalar_subquery(), 0),
            ),
            else_=-BATCH_ROW.c.batch_id,
        ),
    )
    .join(STAKE, OF_ITS_ROW)
    .where(STAKE.c.id == bindparam("b_stake"))
)
_WAITS_FOR = and_(
    STAKE.c.connector_id == bindparam("b_connector"),
    STAKE.c.record_id == bindparam("b_record"),
    STAKE.c.member_id == bindparam("b_source"),
    STAKE.c.heir_id.is_(None),
)
_DROPPED = STAKE.delete().where(_WAITS_FOR)
_FORGOTTEN = STAKE.delete().where(one_of(STAKE.c.id, "b_ids"))
_GIVEN = insert_rows(
    STAKE, ("batch_id", "position", "points", "member_id", "connector_id", "record_id", "heir_id")
)
_ACCOUNT = update_rows(BATCH_ROW, ("batch_id", "position"), ("account_id",))
_HEIR = update_rows(STAKE, ("id",), ("heir_id",))
_COUNTED = (
    update(MEMBER)
    .where(MEMBER.c.id == bindparam("b_id"))
    .values(
        unsettled=MEMBER.c.unsettled - bindparam("b_points"),
        credited=MEMBER.c.credited + bindparam("b_credit"),
    )
)
_PAID = put(COUNTED)
_PAID_TOO = _PAID.on_conflict_do_update(
    index_elements=["heir_id", "source_id", "life"], set_={"points": COUNTED.c.points + _PAID.excluded.points}
)
_OTHER = STAKE.alias("other")
_TWICE = STAKE.delete().where(
    one_of(STAKE.c.heir_id, "b_heirs"),
    or_(
        select(BATCH_ROW.c.points)
        .where(OF_ITS_ROW, func.coalesce(BATCH_ROW.c.account_id, BATCH_ROW.c.member_id) == STAKE.c.heir_id)
        .exists(),
        select(_OTHER.c.id)
        .where(
            _OTHER.c.heir_id == STAKE.c.heir_id,
            _OTHER.c.batch_id == STAKE.c.batch_id,
            _OTHER.c.position == STAKE.c.position,
            or_(
                _OTHER.c.points > STAKE.c.points,
                and_(_OTHER.c.points == STAKE.c.points, _OTHER.c.id < STAKE.c.id),
            ),
        )
        .exists(),
    ),
)
_THIS = and_(
    INHERITANCE.c.connector_id == bindparam("b_connector"),
    INHERITANCE.c.record_id == bindparam("b_record"),
    INHERITANCE.c.member_id == bindparam("b_source"),
)
_BROUGHT = (
    update(INHERITANCE)
    .where(_THIS)
    .values(points=INHERITANCE.c.points + bindparam("b_credit"), parts=bindparam("b_parts"))
)
_OWED_THEN = select(INHERITANCE).where(
    INHERITANCE.c.member_id == bindparam("b_source"), INHERITANCE.c.owed > 0
)
_PAID_THERE = (
    update(INHERITANCE)
    .where(_THIS)
    .values(owed=INHERITANCE.c.owed - bindparam("b_part"), parts=bindparam("b_parts"))
)
_BRINGS = select(INHERITANCE.c.life, INHERITANCE.c.parts).where(_THIS)


def stake_of(inheritance: FromClause) -> Select[tuple[int]]:
    """Return the stakes that wait for the contact of an inheritance, from its source, as a query about it."""
    return select(STAKE.c.id).where(
        STAKE.c.connector_id == inheritance.c.connector_id,
        STAKE.c.record_id == inheritance.c.record_id,
        STAKE.c.member_id == inheritance.c.member_id,
        STAKE.c.heir_id.is_(None),
    )


class Stakes:
    """The stakes that contacts of one connector leave with, and come to own members with."""

    def __init__(self, connection: Connection, connector_id: int) -> None:
        """Work inside the transaction of `connection`."""
        self._connection = connection
        self._connector = connector_id

    def waiting(self, record_ids: Collection[str]) -> Mapping[tuple[str, int], list[OpenRow]]:
        """Return the rows in which contacts have a stake that own no member: by record, and by source."""
        asked = {"b_connector": self._connector, "b_records": as_list(record_ids)}
        found: dict[tuple[str, int], list[OpenRow]] = defaultdict(list)
        for row in self._connection.execute(_WAITING, asked):
            found[row.record_id, row.member_id].append(OpenRow(row.batch_id, row.position, row.points))
        return found

    def open_rows(self, member: int) -> list[OpenRow]:
        """Return the unsettled rows that a member counts, of its account or by stakes."""
        mine = self._of_heirs([member])
        staked = [OpenRow(row.batch_id, row.position, row.points) for row in mine]
        return [*self._on_account([member])[member], *staked]

    def give(
        self,
        rows: Iterable[OpenRow],
        source: int,
        record_id: str,
        heir: int | None,
        *,
        connector: int | None = None,
    ) -> None:
        """Give a contact (of this connector, unless told), or its member, a stake in rows of `source`."""
        whose = self._whose(connector)
        _GIVEN.run(self._connection, [(*row, source, whose, record_id, heir) for row in rows])

    def count_once(self, heirs: Iterable[int]) -> None:
        """Drop stakes of members in rows that are on their own account, or in which they have another."""
        self._connection.execute(_TWICE, {"b_heirs": as_list(heirs)})

    def drop(self, record_id: str, source: int, *, connector: int | None = None) -> None:
        """Forget the stakes that wait for a contact (of this connector, unless told) from `source`."""
        asked = {"b_connector": self._whose(connector), "b_record": record_id, "b_source": source}
        self._connection.execute(_DROPPED, asked)

    def move(self, members: Mapping[int, int]) -> None:
        """Let whole members' rows and stakes be those of other members, all at once: they may swap."""
        rows, stakes = self._on_account(members), self._of_heirs(members)
        moved = [
            (members[source], row.batch_id, row.position) for source, found in rows.items() for row in found
        ]
        _ACCOUNT.run(self._connection, moved)
        _HEIR.run(self._connection, [(members[row.heir_id], row.id) for row in stakes])

    def _whose(self, connector: int | None) -> int:
        return self._connector if connector is None else connector

    def _on_account(self, members: Collection[int]) -> Mapping[int, list[OpenRow]]:
        found: dict[int, list[OpenRow]] = defaultdict(list)
        for row in self._connection.execute(_ON_ACCOUNT, {"b_members": as_list(members)}):
            found[row.account].append(OpenRow(row.batch_id, row.position, row.points))
        return found

    def _of_heirs(self, members: Collection[int]) -> Sequence[Record]:
        return self._connection.execute(_OF_HEIRS, {"b_members": as_list(members)}).all()


def settle(
    connection: Connection, scope: Scope, batch_id: int, credited: Mapping[int, bool], *, now: datetime
) -> set[int]:
    """Count the points of rows that have an outcome now as it says; returns the heirs that had a stake.

    `credited` says by position whether the row's points are.
    """
    rows = connection.execute(_OF_ROWS, {"b_batch": batch_id, "b_positions": as_list(credited)}).all()
    if not rows:
        return set()
    ledger = []
    for row in rows:
        points = row.points if credited[row.position] else 0
        if row.heir_id is None:
            if points:
                _bring(connection, row, points)
            continue
        connection.execute(_COUNTED, {"b_id": row.heir_id, "b_points": row.points, "b_credit": points})
        if points:
            to, life = connection.execute(_ORIGIN_OF, {"b_stake": row.id}).one()
            count(connection, row.heir_id, to, life, points)
            ledger.append(Credit(Entry.MOVED_IN, points, member_id=row.heir_id))
    connection.execute(_FORGOTTEN, {"b_ids": as_list(row.id for row in rows)})
    if ledger:
        append(connection, scope.organization_id, ledger, now=now)
    return {row.heir_id for row in rows if row.heir_id is not None}


def count(connection: Connection, heir: int, source: int, life: int, points: int) -> None:
    """Let a member count points that were paid to another one.

    Who left it and is to count what it was owed then counts them too, as what they are.
    """
    connection.execute(_PAID_TOO, {"heir_id": heir, "source_id": source, "life": life, "points": points})
    for row in connection.execute(_OWED_THEN, {"b_source": heir}).all():
        parts, origin, part = read_parts(row.parts), Origin(source, life), min(row.owed, points)
        parts[origin] = parts.get(origin, 0) + part
        told = {"b_connector": row.connector_id, "b_record": row.record_id, "b_source": heir}
        connection.execute(_PAID_THERE, {**told, "b_part": part, "b_parts": parts_text(parts)})


def _bring(connection: Connection, stake: Record, points: int) -> None:
    waits = {"b_connector": stake.connector_id, "b_record": stake.record_id, "b_source": stake.member_id}
    origin = Origin(*connection.execute(_ORIGIN_OF, {"b_stake": stake.id}).one())
    found = connection.execute(_BRINGS, waits).first()
    if found is None:
        return
    parts = read_parts(found.parts)
    if origin != Origin(stake.member_id, found.life):
        parts[origin] = parts.get(origin, 0) + points
    connection.execute(_BROUGHT, {**waits, "b_credit": points, "b_parts": parts_text(parts)})


def unsettled_of(member: ColumnElement[int], *which: ColumnElement[bool]) -> ColumnElement[int]:
    """Return the unsettled points that a member counts, as an SQL expression.

    `which` are more conditions for them, on the columns of `BATCH_ROW`.
    """
    own = select(func.coalesce(func.sum(BATCH_ROW.c.points), 0)).join(BATCH, _OF_BATCH)
    staked = (
        select(func.coalesce(func.sum(STAKE.c.points), 0))
        .join(BATCH_ROW, OF_ITS_ROW)
        .join(BATCH, _OF_BATCH)
        .where(STAKE.c.heir_id == member, _OPEN, *which)
    )
    return own.where(on_account_of(member), _OPEN, *which).scalar_subquery() + staked.scalar_subquery()


def lift(connection: Connection, batch_id: int, positions: Collection[int]) -> dict[int, list[Record]]:
    """Take away the stakes in rows of a batch, by position, to `lay` them into other rows."""
    rows = connection.execute(_OF_ROWS, {"b_batch": batch_id, "b_positions": as_list(positions)}).all()
    connection.execute(_FORGOTTEN, {"b_ids": as_list(row.id for row in rows)})
    found: dict[int, list[Record]] = defaultdict(list)
    for row in rows:
        found[row.position].append(row)
    return found


def lay(connection: Connection, batch_id: int, stakes: Mapping[int, Iterable[Record]]) -> None:
    """Let stakes be in rows of this batch, by position."""
    laid = [
        (batch_id, place, it.points, it.member_id, it.connector_id, it.record_id, it.heir_id)
        for place, them in stakes.items()
        for it in them
    ]
    _GIVEN.run(connection, laid)
