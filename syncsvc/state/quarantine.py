"""Quarantine: contacts that were refused, and what lets them out again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, and_, delete, select, update

from syncsvc.rules.intake import Intake
from syncsvc.state.contacts import Known, same_profile
from syncsvc.state.database import among, to_ms
from syncsvc.state.membership import EMAIL_CHANGE
from syncsvc.state.scope import Scope
from syncsvc.state.tables import MEMBER, QUARANTINE, WRITE_RETRY

_POINTS_COUNT = {"points", "row"}  # "row": the wallet did not say which field


def lift(
    scope: Scope,
    connection: Connection,
    connector_id: int,
    changed: Sequence[Intake],
    buried: Sequence[str],
    before: Mapping[str, Known],
) -> None:
    """Take out of quarantine what has changed in what it was refused for, and what is gone.

    A row that the wallet refused stays in until its profile changes, or its points where those can be
    what was refused; until then its member is not sent either.
    """
    mine = QUARANTINE.c.connector_id == connector_id
    ids = [*buried, *(row.record_id for row in changed if row.record_id in before)]
    if not ids:
        return
    retried = and_(WRITE_RETRY.c.connector_id == connector_id, among(WRITE_RETRY.c.record_id, ids))
    connection.execute(delete(WRITE_RETRY).where(retried))  # it is another record now: try at once
    same = {row.record_id: row for row in changed if same_profile(before.get(row.record_id), row)}
    listed = select(QUARANTINE.c.record_id, QUARANTINE.c.field).where(
        mine, QUARANTINE.c.side == "wallet", among(QUARANTINE.c.record_id, ids)
    )
    kept, again = [], []
    for record_id, field in connection.execute(listed).all():
        row, was = same.get(record_id), before[record_id]
        if row is not None and (field not in _POINTS_COUNT or row.points == was.points):
            kept.append(record_id)
        elif was.member_id is not None:
            again.append(was.member_id)
    stays = and_(QUARANTINE.c.side == "wallet", among(QUARANTINE.c.record_id, kept))
    connection.execute(delete(QUARANTINE).where(mine, among(QUARANTINE.c.record_id, ids), ~stays))
    if again:
        connection.execute(update(MEMBER).where(among(MEMBER.c.id, again)).values(refused=None))
        scope.refresh(connection, again)


def put(connection: Connection, connector_id: int, refused: Sequence[Intake], now: datetime) -> None:
    """Put the contacts that were refused into quarantine, each with its reason."""
    if refused:
        connection.execute(
            QUARANTINE.insert(),
            [
                {
                    "connector_id": connector_id,
                    "record_id": row.record_id,
                    "side": "email" if row.field == EMAIL_CHANGE else "mapping",
                    "field": row.field,
                    "reason": row.reason,
                    "since": to_ms(now),
                }
                for row in refused
            ],
        )
