"""What an operator asks: where an organization and its connectors stand."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, case, distinct, func, select

from syncsvc.rules.intake import ContactState
from syncsvc.state.codes import Outcome
from syncsvc.state.database import as_list, from_ms, one_of
from syncsvc.state.replicas import Holder, holder_of
from syncsvc.state.scope import OWN_BRANDS, UNSETTLED_BATCHES, Scope
from syncsvc.state.tables import (
    BATCH,
    BATCH_ROW,
    BRAND,
    CONNECTOR,
    CONTACT,
    CYCLE,
    MEMBER,
    QUARANTINE,
)
from syncsvc.state.twice import paid_twice_totals


def _at(ms: int | None) -> datetime | None:
    return None if ms is None else from_ms(ms)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for proof or a person: rows in doubt, rows held, contacts and rows in quarantine.

    `points_paid_twice` may have been awarded twice, and nobody has looked into them yet.
    """

    in_doubt: int
    held: int
    quarantined: int
    points_paid_twice: int = 0


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """Where one connector stands: when its cursor last moved, when it was last read whole, its contacts.

    `partial` says of that reading that it could not tell every record from the others: how many contacts it
    did not bring, which are not taken for gone.
    Of those that were refused, `quarantined` wait for a change or a person, who `dropped` the others.
    """

    name: str
    moved_at: datetime | None
    swept_at: datetime | None
    sweeping: bool
    trouble: str | None
    contacts: int
    excluded: int
    quarantined: int
    gone: int
    write_due: int
    dropped: int = 0
    calls_left: int | None = None
    calls_allowed: int | None = None
    calls_told_at: datetime | None = None
    partial: int | None = None


@dataclass(frozen=True, slots=True)
class LeaseStatus:
    """Whose an organization's cycles are: of `holder`, None while nobody has its lease."""

    holder: Holder | None


@dataclass(frozen=True, slots=True)
class Status:
    """Where an organization stands.

    `last_cycle` is the last one that did something or ended otherwise than the one before, at
    `last_cycle_at`.

    `points_paid_twice` are points that may have been awarded twice, and that nobody has looked into yet.
    `lease` says whose its cycles are where several services can share the state.
    """

    members: int
    due: int
    earned: int
    credited: int
    unsettled: int
    rows_in_doubt: int
    rows_held: int
    rows_paid_twice: int
    points_paid_twice: int
    connectors: tuple[ConnectorStatus, ...]
    last_cycle: dict[str, Any] | None
    log_read_at: datetime | None
    last_cycle_at: datetime | None = None
    lease: LeaseStatus | None = None

    @property
    def troubles(self) -> tuple[str, ...]:
        """What cut the last cycles short, but for what keeps a connector from being read."""
        unreadable = {f"{it.name}: {it.trouble}" for it in self.connectors if it.trouble}
        errors: list[str] = [] if self.last_cycle is None else self.last_cycle["errors"]
        return tuple(it for it in errors if it not in unreadable)

    @property
    def quarantined(self) -> int:
        """How many contacts are in quarantine."""
        return sum(connector.quarantined for connector in self.connectors)


_REFUSALS = (
    select(func.count())
    .select_from(QUARANTINE)
    .where(one_of(QUARANTINE.c.connector_id, "b_connectors"), QUARANTINE.c.dropped_at.is_(None))
)
_WAITING = select(
    func.count(distinct(case((QUARANTINE.c.dropped_at.is_(None), QUARANTINE.c.record_id)))),
    func.count(distinct(case((QUARANTINE.c.dropped_at.is_not(None), QUARANTINE.c.record_id)))),
).where(QUARANTINE.c.connector_id == bindparam("b_connector"))
_CYCLE = CYCLE.insert()
_LAST_CYCLE = (
    select(CYCLE)
    .where(CYCLE.c.organization_id == bindparam("b_organization"))
    .order_by(CYCLE.c.started_at.desc())
    .limit(1)
)
_UNSETTLED = (
    select(BATCH_ROW.c.outcome, func.count())
    .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
    .where(UNSETTLED_BATCHES, BATCH_ROW.c.outcome.in_([Outcome.DOUBT, Outcome.HELD]))
    .group_by(BATCH_ROW.c.outcome)
)


class Reports:
    """The queries behind `status`, `explain` and the metrics."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def status(self) -> Status:
        """Return where the organization stands, all of one moment."""
        with self._scope.database.reading() as connection:
            mine = MEMBER.c.brand.in_(OWN_BRANDS)
            sums = connection.execute(
                select(
                    func.count(),
                    func.coalesce(func.sum(MEMBER.c.due), 0),
                    func.coalesce(func.sum(MEMBER.c.earned), 0),
                    func.coalesce(func.sum(MEMBER.c.credited), 0),
                    func.coalesce(func.sum(MEMBER.c.unsettled), 0),
                )
                .select_from(MEMBER)
                .where(mine),
                self._scope.bound(),
            ).one()
            in_doubt, held = self._rows_unsettled(connection)
            rows_twice, points_twice = paid_twice_totals(connection, self._scope)
            last = connection.execute(_LAST_CYCLE, self._scope.bound()).first()
            read = connection.scalar(
                select(func.min(BRAND.c.log_read_at)).where(
                    BRAND.c.organization_id == self._scope.organization_id
                )
            )
            connectors = tuple(self._connectors(connection))
            lease = self._lease(connection)
        members, due, earned, credited, unsettled = sums
        return Status(
            members=members,
            due=due,
            earned=earned,
            credited=credited,
            unsettled=unsettled,
            rows_in_doubt=in_doubt,
            rows_held=held,
            rows_paid_twice=rows_twice,
            points_paid_twice=points_twice,
            connectors=connectors,
            last_cycle=None if last is None else orjson.loads(last.facts),
            log_read_at=_at(read),
            last_cycle_at=None if last is None else from_ms(last.finished_at),
            lease=lease,
        )

    def ending(self) -> tuple[str, tuple[str, ...]]:
        """Return the outcome and the errors of the last cycle that was saved; ok where none was."""
        with self._scope.database.reading() as connection:
            last = connection.execute(_LAST_CYCLE, self._scope.bound()).first()
        return ("ok", ()) if last is None else (last.outcome, tuple(orjson.loads(last.facts)["errors"]))

    def waiting(self) -> Waiting:
        """Return what waits for proof or a person, all of one moment."""
        with self._scope.database.reading() as connection:
            in_doubt, held = self._rows_unsettled(connection)
            _, twice = paid_twice_totals(connection, self._scope)
            return Waiting(in_doubt, held, self._refused(connection), twice)

    def quarantined(self) -> int:
        """Return how many refusals wait for a change or a person; those that were dropped are left out."""
        with self._scope.database.reading() as connection:
            return self._refused(connection)

    def refusals(self, limit: int) -> list[dict[str, Any]]:
        """Return refusals, newest first: connector, record id, side, field and reason."""
        listed = (
            select(QUARANTINE, CONNECTOR.c.name)
            .join(CONNECTOR, CONNECTOR.c.id == QUARANTINE.c.connector_id)
            .where(
                CONNECTOR.c.organization_id == self._scope.organization_id, QUARANTINE.c.dropped_at.is_(None)
            )
            .order_by(QUARANTINE.c.since.desc())
            .limit(limit)
        )
        with self._scope.database.reading() as connection:
            return [
                {
                    "connector": row.name,
                    "record": row.record_id,
                    "side": row.side,
                    "field": row.field,
                    "reason": row.reason,
                    "since": from_ms(row.since),
                }
                for row in connection.execute(listed)
            ]

    def save_cycle(
        self, cycle: str, *, started: int, finished: int, outcome: str, facts: dict[str, Any]
    ) -> None:
        """Remember what a cycle did, times in milliseconds; what it erased leaves the write-ahead log too."""
        row = {
            "id": cycle,
            "organization_id": self._scope.organization_id,
            "started_at": started,
            "finished_at": finished,
            "outcome": outcome,
            "facts": orjson.dumps(facts).decode(),
        }
        with self._scope.database.writing() as connection:
            connection.execute(_CYCLE, row)
        self._scope.database.shed()

    def _lease(self, connection: Connection) -> LeaseStatus | None:
        if not self._scope.database.leases.shared:
            return None
        ask = connection.connection.cursor().execute
        return LeaseStatus(holder_of(self._scope.organization_id, ask))

    def _refused(self, connection: Connection) -> int:
        connectors = {"b_connectors": as_list(self._scope.connectors.values())}
        return connection.scalar(_REFUSALS, connectors) or 0

    def _rows_unsettled(self, connection: Connection) -> tuple[int, int]:
        counts: dict[int, int] = dict(connection.execute(_UNSETTLED, self._scope.bound()).all())
        return counts.get(Outcome.DOUBT, 0), counts.get(Outcome.HELD, 0)

    def _connectors(self, connection: Connection) -> list[ConnectorStatus]:
        statuses = []
        for name, connector_id in self._scope.connectors.items():
            row = connection.execute(select(CONNECTOR).where(CONNECTOR.c.id == connector_id)).one()
            mine = CONTACT.c.connector_id == connector_id
            states: dict[int, int] = dict(
                connection.execute(
                    select(CONTACT.c.state, func.count()).where(mine).group_by(CONTACT.c.state)
                ).all()
            )
            due = select(func.count()).select_from(CONTACT).where(mine, CONTACT.c.write_due == 1)
            waits, dropped = connection.execute(_WAITING, {"b_connector": connector_id}).one()
            statuses.append(
                ConnectorStatus(
                    name=name,
                    moved_at=_at(row.moved_at),
                    swept_at=_at(row.swept_at),
                    sweeping=row.sweep_cursor is not None,
                    trouble=row.trouble,
                    contacts=states.get(ContactState.ACTIVE, 0),
                    excluded=states.get(ContactState.EXCLUDED, 0),
                    quarantined=waits,
                    dropped=dropped,
                    gone=states.get(ContactState.GONE, 0),
                    write_due=connection.scalar(due) or 0,
                    calls_left=row.calls_left,
                    calls_allowed=row.calls_allowed,
                    calls_told_at=_at(row.calls_told_at),
                    partial=row.partial,
                )
            )
        return statuses
