"""Pauses: what a person stopped, an organization or one of its connectors, until a person lets it go on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, bindparam, select, update

from syncsvc.state.database import from_ms, to_ms
from syncsvc.state.interventions import PAUSE
from syncsvc.state.scope import Scope
from syncsvc.state.tables import CONNECTOR


@dataclass(frozen=True, slots=True)
class Pause:
    """Who stopped what, when and why; `connector` is None where it is the whole organization."""

    connector: str | None
    since: datetime
    by: str
    reason: str | None


_OPEN = (
    select(PAUSE.c.connector_id, PAUSE.c.since, PAUSE.c.paused_by, PAUSE.c.reason, CONNECTOR.c.name)
    .outerjoin(CONNECTOR, CONNECTOR.c.id == PAUSE.c.connector_id)
    .where(PAUSE.c.organization_id == bindparam("b_organization"), PAUSE.c.ended_at.is_(None))
    .order_by(PAUSE.c.id)
)


class Pauses:
    """The transactions of pausing and going on."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def open(self) -> list[Pause]:
        """Return what is paused now, longest first; connectors that are not configured are left out."""
        with self._scope.database.reading() as connection:
            return self._open(connection)

    def begin(self, connector: str | None, *, by: str, reason: str | None, now: datetime) -> bool:
        """Pause a configured connector, or the whole organization; returns whether it was not paused."""
        with self._scope.database.writing() as connection:
            if any(it.connector == connector for it in self._open(connection)):
                return False
            row = {
                "organization_id": self._scope.organization_id,
                "connector_id": None if connector is None else self._scope.connectors[connector],
                "since": to_ms(now),
                "paused_by": by,
                "reason": reason,
            }
            connection.execute(PAUSE.insert(), row)
            return True

    def end(self, connector: str | None, *, by: str, now: datetime) -> Pause | None:
        """Let a configured connector, or the organization, go on; returns its pause, None where none was."""
        with self._scope.database.writing() as connection:
            found = next((it for it in self._open(connection) if it.connector == connector), None)
            if found is not None:
                ended = {"ended_at": to_ms(now), "ended_by": by}
                connection.execute(update(PAUSE).where(self._this(connector)).values(ended))
            return found

    def _this(self, connector: str | None) -> ColumnElement[bool]:
        mine = and_(PAUSE.c.organization_id == self._scope.organization_id, PAUSE.c.ended_at.is_(None))
        connector_id = None if connector is None else self._scope.connectors[connector]
        return and_(mine, PAUSE.c.connector_id.is_not_distinct_from(connector_id))

    def _open(self, connection: Connection) -> list[Pause]:
        return [
            Pause(row.name, from_ms(row.since), row.paused_by, row.reason)
            for row in connection.execute(_OPEN, self._scope.bound())
            if row.connector_id is None or row.name in self._scope.connectors
        ]
