"""How long history is kept: what cycles did, what batches held, what people decided.

What stays for good: members and contacts as they are, the ledger, and of each batch its sums, so that the
books balance. Rows that wait for anybody stay too, however old.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, select, update

from syncsvc.state.database import among, to_ms
from syncsvc.state.scope import OWN_BRANDS, Scope
from syncsvc.state.tables import BATCH, BATCH_ROW, CYCLE, DECISION, HOLD

_EACH_DAY = timedelta(days=1)
_AT_ONCE = 50
"""Batches, cycles and holds whose history goes in one transaction."""

_STEPS = 40
"""Transactions of one call."""


class Retention:
    """The transactions of letting history go."""

    def __init__(self, scope: Scope, keep: timedelta) -> None:
        """Work within one organization; `keep` is how long history is kept."""
        self._scope = scope
        self._keep = keep
        self._next: datetime | None = None

    def prune(self, now: datetime) -> bool:
        """Let go what is older than is kept, once a day; returns whether there was anything.

        In small transactions, so that others can write between them, and not too many of them: the next call
        goes on.
        """
        if self._next is not None and now < self._next:
            return False
        before, found = to_ms(now - self._keep), False
        for _ in range(_STEPS):
            if not self._step(before):
                self._next = now + _EACH_DAY
                break
            found = True
        return found

    def _step(self, before: int) -> bool:
        mine = self._scope.organization_id
        settled = and_(BATCH.c.brand.in_(OWN_BRANDS), BATCH.c.settled_at < before, BATCH.c.pruned == 0)
        with self._scope.database.reading() as connection:
            batches = _some(connection, BATCH.c.id, settled, self._scope.bound())
            ended = and_(CYCLE.c.organization_id == mine, CYCLE.c.started_at < before)
            cycles = _some(connection, CYCLE.c.id, ended)
            holds = _some(
                connection, HOLD.c.id, and_(HOLD.c.organization_id == mine, HOLD.c.used_at < before)
            )
        if not (batches or cycles or holds):
            return False
        with self._scope.database.writing() as connection:
            # What landed late after all stays, and what people found out about it: see `books`.
            rows = and_(among(BATCH_ROW.c.batch_id, batches), BATCH_ROW.c.late_at.is_(None))
            connection.execute(delete(BATCH_ROW).where(rows))
            decided = and_(
                BATCH_ROW.c.batch_id == DECISION.c.batch_id, BATCH_ROW.c.position == DECISION.c.position
            )
            stays = select(BATCH_ROW.c.position).where(decided).exists()
            connection.execute(delete(DECISION).where(among(DECISION.c.batch_id, batches), ~stays))
            connection.execute(update(BATCH).where(among(BATCH.c.id, batches)).values(pruned=1))
            connection.execute(delete(CYCLE).where(among(CYCLE.c.id, cycles)))
            connection.execute(delete(HOLD).where(among(HOLD.c.id, holds)))
        return True


def _some(
    connection: Connection,
    key: ColumnElement[Any],
    condition: ColumnElement[bool],
    bound: Mapping[str, Any] = {},
) -> list[Any]:
    return list(connection.scalars(select(key).where(condition).limit(_AT_ONCE), bound))
