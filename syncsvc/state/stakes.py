"""Stakes in rows whose outcome is open: members that count another member's unsettled points as well.

An owner that leaves a member which others share takes along what the member was paid, and the member keeps
it. Points that may have been paid, as nobody knows yet, are counted by both until it is known: they are
credited to both where the row landed, and to neither where it did not.

A stake waits for a contact (`record_id`) until that owns a member, its heir; so long `inheritance` has a row
for the contact too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, bindparam, func, select, union_all, update

from syncsvc.state.books import Credit, append
from syncsvc.state.bulk import insert_rows, update_rows
from syncsvc.state.codes import Entry, Lane, Outcome
from syncsvc.state.database import Record, as_list, one_of
from syncsvc.state.scope import Scope, on_account_of
from syncsvc.state.tables import BATCH, BATCH_ROW, INHERITANCE, MEMBER, STAKE


class OpenRow(NamedTuple):
    """A batch row without an outcome."""

    batch_id: int
    position: int


OF_ITS_ROW = and_(STAKE.c.batch_id == BATCH_ROW.c.batch_id, STAKE.c.position == BATCH_ROW.c.position)
"""Joins a stake to its row."""

_STAKES = select(STAKE, BATCH_ROW.c.points).join(BATCH_ROW, OF_ITS_ROW)
_OPEN = and_(BATCH_ROW.c.outcome < Outcome.LANDED, BATCH.c.lane == Lane.POINTS)
_OF_BATCH = BATCH.c.id == BATCH_ROW.c.batch_id
_ROWS = select(BATCH_ROW.c.batch_id, BATCH_ROW.c.position)
_ON_ACCOUNT = union_all(
    _ROWS.add_columns(BATCH_ROW.c.member_id.label("account"))
    .join(BATCH, _OF_BATCH)
    .where(one_of(BATCH_ROW.c.member_id, "b_members"), BATCH_ROW.c.account_id.is_(None), _OPEN),
    _ROWS.add_columns(BATCH_ROW.c.account_id.label("account"))
    .join(BATCH, _OF_BATCH)
    .where(one_of(BATCH_ROW.c.account_id, "b_members"), _OPEN),
)
_OF_HEIRS = select(STAKE).where(one_of(STAKE.c.heir_id, "b_members"))
_WAITING = _STAKES.where(
    STAKE.c.connector_id == bindparam("b_connector"),
    one_of(STAKE.c.record_id, "b_records"),
    STAKE.c.heir_id.is_(None),
)
_SETTLED = _STAKES.where(STAKE.c.batch_id == bindparam("b_batch"), one_of(STAKE.c.position, "b_positions"))
_WAITS_FOR = and_(
    STAKE.c.connector_id == bindparam("b_connector"),
    STAKE.c.record_id == bindparam("b_record"),
    STAKE.c.member_id == bindparam("b_source"),
    STAKE.c.heir_id.is_(None),
)
_PASSED_ON = update(STAKE).where(_WAITS_FOR).values(record_id=bindparam("b_to"), heir_id=bindparam("b_heir"))
_DROPPED = STAKE.delete().where(_WAITS_FOR)
_FORGOTTEN = STAKE.delete().where(one_of(STAKE.c.id, "b_ids"))
_HELD = insert_rows(STAKE, ("batch_id", "position", "member_id", "connector_id", "record_id", "heir_id"))
_ACCOUNT = update_rows(BATCH_ROW, ("batch_id", "position"), ("account_id",))
_HEIR = update_rows(STAKE, ("id",), ("heir_id",))
_PAID = update(MEMBER).where(MEMBER.c.id == bindparam("b_id"))
_KNOWN = _PAID.values(
    unsettled=MEMBER.c.unsettled - bindparam("b_points"), credited=MEMBER.c.credited + bindparam("b_credit")
)
_BROUGHT = (
    update(INHERITANCE)
    .where(
        INHERITANCE.c.connector_id == bindparam("b_connector"),
        INHERITANCE.c.record_id == bindparam("b_record"),
        INHERITANCE.c.member_id == bindparam("b_source"),
    )
    .values(points=INHERITANCE.c.points + bindparam("b_credit"))
)


class Stakes:
    """The stakes that contacts of one connector leave with, and come to own members with."""

    def __init__(self, connection: Connection, connector_id: int) -> None:
        """Work inside the transaction of `connection`."""
        self._connection = connection
        self._connector = {"b_connector": connector_id}

    def waiting(self, record_ids: Collection[str]) -> Mapping[tuple[str, int], int]:
        """Return the points in which contacts have a stake that own no member: by record, and by source."""
        asked = self._connector | {"b_records": as_list(record_ids)}
        points: dict[tuple[str, int], int] = defaultdict(int)
        for row in self._connection.execute(_WAITING, asked):
            points[row.record_id, row.member_id] += row.points
        return points

    def open_rows(self, members: Collection[int]) -> Mapping[int, list[OpenRow]]:
        """Return the unsettled rows that members count, of their accounts or by stakes, by member."""
        found = defaultdict(list, self._on_account(members))
        for row in self._of_heirs(members):
            found[row.heir_id].append(OpenRow(row.batch_id, row.position))
        return found

    def hold(self, rows: Iterable[OpenRow], source: int, record_id: str, heir: int | None) -> None:
        """Give a contact of this connector, or its member, a stake in rows of `source`."""
        kept = [(*row, source, self._connector["b_connector"], record_id, heir) for row in rows]
        _HELD.run(self._connection, kept)

    def pass_on(self, record_id: str, source: int, to: str, heir: int | None) -> None:
        """Let the stakes that wait for a contact be another's, or that of the member which it owns."""
        passed = {"b_record": record_id, "b_source": source, "b_to": to, "b_heir": heir}
        self._connection.execute(_PASSED_ON, self._connector | passed)

    def drop(self, record_id: str, source: int) -> None:
        """Forget the stakes that wait for a contact."""
        self._connection.execute(_DROPPED, self._connector | {"b_record": record_id, "b_source": source})

    def move(self, members: Mapping[int, int]) -> None:
        """Let whole members' rows and stakes be those of other members, all at once: they may swap."""
        rows, stakes = self._on_account(members), self._of_heirs(members)
        moved = [(members[source], *row) for source, found in rows.items() for row in found]
        _ACCOUNT.run(self._connection, moved)
        _HEIR.run(self._connection, [(members[row.heir_id], row.id) for row in stakes])

    def _on_account(self, members: Collection[int]) -> Mapping[int, list[OpenRow]]:
        found: dict[int, list[OpenRow]] = defaultdict(list)
        for row in self._connection.execute(_ON_ACCOUNT, {"b_members": as_list(members)}):
            found[row.account].append(OpenRow(row.batch_id, row.position))
        return found

    def _of_heirs(self, members: Collection[int]) -> Sequence[Record]:
        return self._connection.execute(_OF_HEIRS, {"b_members": as_list(members)}).all()


def settle(
    connection: Connection, scope: Scope, batch_id: int, credited: Mapping[int, bool], *, now: datetime
) -> set[int]:
    """Count the points of rows that have an outcome now as it says; returns the heirs that had a stake.

    `credited` says by position whether the row's points are.
    """
    rows = connection.execute(_SETTLED, {"b_batch": batch_id, "b_positions": as_list(credited)}).all()
    if not rows:
        return set()
    ledger = []
    for row in rows:
        points = row.points if credited[row.position] else 0
        if row.heir_id is None:
            waits = {"b_connector": row.connector_id, "b_record": row.record_id, "b_source": row.member_id}
            connection.execute(_BROUGHT, {**waits, "b_credit": points})
            continue
        connection.execute(_KNOWN, {"b_id": row.heir_id, "b_points": row.points, "b_credit": points})
        if points:
            ledger.append(Credit(Entry.MOVED_IN, points, member_id=row.heir_id))
    connection.execute(_FORGOTTEN, {"b_ids": as_list(row.id for row in rows)})
    if ledger:
        append(connection, scope.organization_id, ledger, now=now)
    return {row.heir_id for row in rows if row.heir_id is not None}


def unsettled_of(member: ColumnElement[int], *which: ColumnElement[bool]) -> ColumnElement[int]:
    """Return the unsettled points that a member counts, as an SQL expression.

    `which` are more conditions for them, on the columns of `BATCH_ROW`.
    """
    points = select(func.coalesce(func.sum(BATCH_ROW.c.points), 0)).join(BATCH, _OF_BATCH)
    own = points.where(on_account_of(member), _OPEN, *which)
    staked = points.join(STAKE, OF_ITS_ROW).where(STAKE.c.heir_id == member, _OPEN, *which)
    return own.scalar_subquery() + staked.scalar_subquery()
