"""What brakes keep back, and who let it go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Integer, Select, String, and_, bindparam, cast, func, not_, select, update

from syncsvc.config import Points
from syncsvc.errors import OperatorError
from syncsvc.rules.brakes import ALL, Brake, Tripped
from syncsvc.rules.intake import ContactState
from syncsvc.state import due
from syncsvc.state.adoption import adopt
from syncsvc.state.bulk import update_rows
from syncsvc.state.database import change_row, from_ms, to_ms
from syncsvc.state.scope import LEAVES, OWN_BRANDS, Scope, payable
from syncsvc.state.tables import CONNECTOR, CONTACT, HOLD, MEMBER


@dataclass(frozen=True, slots=True)
class Hold:
    """Something that is kept back; `released_by` is None until a person let it go."""

    id: int
    brake: str
    detail: str
    amount: int
    since: datetime
    released_by: str | None


@dataclass(frozen=True, slots=True)
class Concerned:
    """Somebody whom a hold keeps back, by the CRM record the member comes from, with what it is owed.

    `points` are None where a contact was not found: what it is owed is not concerned.
    """

    record: str
    points: int | None = None


_UNUSED = and_(HOLD.c.organization_id == bindparam("b_organization"), HOLD.c.used_at.is_(None))
_OPEN = select(HOLD).where(_UNUSED).order_by(HOLD.c.id)
_USED = update_rows(HOLD, ("id",), ("used_at",))


_ROWS = bindparam("b_rows", type_=Integer)
_NOT_FOUND = (
    select(CONTACT.c.record_id)
    .join(CONNECTOR, CONNECTOR.c.id == CONTACT.c.connector_id)
    .where(
        CONNECTOR.c.organization_id == bindparam("b_organization"),
        CONNECTOR.c.name == bindparam("b_name"),
        CONTACT.c.state != ContactState.GONE,
        CONTACT.c.seen < CONNECTOR.c.sweep,
    )
    .order_by(CONTACT.c.record_id)
    .limit(_ROWS)
)


def _concerned(brake: Brake, points: Points, *, mails: bool) -> Select[Any, int]:
    known = MEMBER.c.delivered.is_not(None)
    who = {
        Brake.SHARE: and_(known, not_(LEAVES)),
        Brake.ELSEWHERE: and_(due.lasting(points, mails=mails), due.elsewhere()),
        Brake.GONE_SHARE: LEAVES,
        Brake.POINTS_PER_MEMBER: payable(points) > 0,
        Brake.POINTS_PER_CYCLE: payable(points) > 0,
    }[brake]
    record = CONNECTOR.c.name + " " + MEMBER.c.owner_record
    owner = func.coalesce(record, "member " + cast(MEMBER.c.id, String))
    return (
        select(owner, payable(points))
        .select_from(MEMBER)
        .outerjoin(CONNECTOR, CONNECTOR.c.id == MEMBER.c.owner_connector)
        .where(MEMBER.c.brand.in_(OWN_BRANDS), *due.sendable(ALL), who)
        .order_by(payable(points).desc(), owner)
        .limit(_ROWS)
    )


class Holds:
    """The transactions of brakes."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def open(self) -> list[Hold]:
        """Return what is held or released and not yet used, oldest first."""
        with self._scope.database.reading() as connection:
            return self._open(connection)

    def concerned(self, hold: Hold, *, most: int) -> list[Concerned]:
        """Return up to `most` of those whom a hold keeps back, who are owed most first."""
        brake, _, connector = hold.brake.partition(":")
        with self._scope.database.reading() as connection:
            if connector:
                bound = self._scope.bound(b_name=connector, b_rows=most)
                return [Concerned(f"{connector} {it}") for it in connection.scalars(_NOT_FOUND, bound)]
            rules = self._scope.rules
            listed = _concerned(Brake(brake), rules.points, mails=rules.mails)
            return [Concerned(*row) for row in connection.execute(listed, self._scope.bound(b_rows=most))]

    def apply(self, tripped: Sequence[Tripped], *, scope: str, now: datetime) -> list[Tripped]:
        """Return the brakes that hold, new ones written.

        A release lets one delivery through, of at most the amount it was given for; it stands until `lapse`
        says that this delivery is done. `scope` tells holds of one brake apart (a sweep's belong to its
        connector).
        """
        holding = []
        names = {f"{it.brake}{scope}": it for it in tripped}
        held = {hold.brake: (hold.detail, hold.amount, hold.released_by) for hold in self.open()}
        if all(held.get(name) == (it.detail, it.amount, None) for name, it in names.items()):
            return list(names.values())  # nothing is new, and nothing is written
        with self._scope.database.writing() as connection:
            known = {hold.brake: hold for hold in self._open(connection)}
            for name, it in names.items():
                hold = known.get(name)
                if hold is None:
                    holding.append(it)
                    row = {"brake": name, "detail": it.detail, "amount": it.amount, "since": to_ms(now)}
                    connection.execute(
                        HOLD.insert().values(organization_id=self._scope.organization_id, **row)
                    )
                elif hold.released_by is None or it.amount > hold.amount:
                    holding.append(it)
                    news = {
                        "detail": it.detail,
                        "amount": it.amount,
                        "released_at": None,
                        "released_by": None,
                    }
                    change_row(connection, HOLD, hold.id, news)
        return holding

    def lapse(self, brakes: Sequence[str], *, now: datetime) -> None:
        """Close holds of these brakes: what tripped them is over, or was delivered."""
        found = [hold.id for hold in self.open() if hold.brake in brakes]
        if found:
            with self._scope.database.writing() as connection:
                _USED.run(connection, [(to_ms(now), hold) for hold in found])
                self._scope.mark_held(connection)

    def release(self, hold_id: int, *, by: str, now: datetime) -> bool:
        """Let a hold go, in the name of `by`; returns False where there is no such open hold."""
        with self._scope.database.writing() as connection:
            return self._release(connection, hold_id, by, now)

    def adopt(self, hold_id: int, *, by: str, now: datetime) -> int | None:
        """Close a hold of `max_elsewhere`: whom others have imported counts as awarded, and mailed.

        Returns how many they are; None where there is no such open hold. Raises OperatorError, and changes
        nothing, where they are not as many as were held.
        """
        with self._scope.database.writing() as connection:
            if not self._release(connection, hold_id, by, now):
                return None
            _USED.run(connection, [(to_ms(now), hold_id)])  # who comes in from now on is held anew
            looked_at = connection.execute(select(HOLD.c.amount).where(HOLD.c.id == hold_id)).scalar_one()
            adopted = adopt(connection, self._scope, now=now)
            if adopted != looked_at:
                raise OperatorError(
                    f"{adopted} members are in the import log by now, {looked_at} when they were held; "
                    "nothing is changed: look again once the next cycle has told it"
                )
            return adopted

    def _release(self, connection: Connection, hold_id: int, by: str, now: datetime) -> bool:
        condition = and_(_UNUSED, HOLD.c.id == hold_id, HOLD.c.released_by.is_(None))
        values = {"released_at": to_ms(now), "released_by": by}
        released = connection.execute(update(HOLD).where(condition).values(values), self._scope.bound())
        return released.rowcount == 1

    def _open(self, connection: Connection) -> list[Hold]:
        rows = connection.execute(_OPEN, self._scope.bound())
        return [
            Hold(row.id, row.brake, row.detail, row.amount, from_ms(row.since), row.released_by)
            for row in rows
        ]
