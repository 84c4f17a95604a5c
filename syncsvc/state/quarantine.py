"""Quarantine: contacts that were refused, and what lets them out again, or out of sight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, select, update

from syncsvc.rules.intake import Intake
from syncsvc.state.codes import WriteDue
from syncsvc.state.contacts import Known, same_content, same_profile
from syncsvc.state.database import among, as_list, from_ms, one_of, to_ms
from syncsvc.state.interventions import QUARANTINE_DECISION
from syncsvc.state.membership import EMAIL_CHANGE
from syncsvc.state.scope import Scope
from syncsvc.state.tables import CONNECTOR, CONTACT, MEMBER, QUARANTINE, WRITE_RETRY

_POINTS_COUNT = {"points", "row"}  # "row": the wallet did not say which field


class Side(StrEnum):
    """By whom a contact was refused."""

    MAPPING = "mapping"  # by our own map or rules
    EMAIL = "email"  # its email changed, and a person decides
    WALLET = "wallet"  # its row, by the wallet
    CRM = "crm"  # its write-back, by the CRM


class Choice(StrEnum):
    """What a person chooses for a refusal."""

    RETRY = "retry"  # judge it anew, at the next cycle
    DROP = "drop"  # be told no more of it, until the contact changes


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a contact waits; `dropped` where a person does not want to be told of it."""

    connector: str
    record: str
    side: Side
    field: str
    reason: str
    since: datetime
    dropped: bool


_LISTED = (
    select(QUARANTINE, CONNECTOR.c.name)
    .join(CONNECTOR, CONNECTOR.c.id == QUARANTINE.c.connector_id)
    .order_by(CONNECTOR.c.position, QUARANTINE.c.since.desc(), QUARANTINE.c.record_id, QUARANTINE.c.side)
)


class Quarantine:
    """The transactions of looking at what waits, and of deciding on it."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def refusals(self) -> list[Refusal]:
        """Return everything that waits in the configured connectors, newest first, dropped or not."""
        configured = QUARANTINE.c.connector_id.in_(list(self._scope.connectors.values()))
        with self._scope.database.reading() as connection:
            return [
                Refusal(
                    row.name,
                    row.record_id,
                    Side(row.side),
                    row.field,
                    row.reason,
                    from_ms(row.since),
                    row.dropped_at is not None,
                )
                for row in connection.execute(_LISTED.where(configured))
            ]

    def decide(self, refusals: Sequence[Refusal], choice: Choice, *, by: str, now: datetime) -> None:
        """Make true what a person chose for these refusals, and remember it.

        What is retried is judged at the next cycle: a row is sent again, a write-back tried again, and for
        what our own map refused, or an email that changed, every contact of its connector is read again.
        What was settled since it was listed is left alone.
        """
        with self._scope.database.writing() as connection:
            for connector, connector_id in self._scope.connectors.items():
                for side in Side:
                    ids = [it.record for it in refusals if (it.connector, it.side) == (connector, side)]
                    listed = select(QUARANTINE.c.record_id).where(_waiting(connector_id, side, ids))
                    if not ids or not (there := list(connection.scalars(listed))):
                        continue
                    if choice is Choice.RETRY:
                        self._retry(connection, connector_id, side, there)
                    else:
                        _drop(connection, connector_id, side, there, now)
                    decision = {"connector_id": connector_id, "side": side, "choice": choice}
                    decision |= {"decided_at": to_ms(now), "decided_by": by}
                    rows = [{**decision, "record_id": it} for it in there]
                    connection.execute(QUARANTINE_DECISION.insert(), rows)

    def _retry(self, connection: Connection, connector_id: int, side: Side, ids: Sequence[str]) -> None:
        waiting = _waiting(connector_id, side, ids)
        contacts = and_(CONTACT.c.connector_id == connector_id, among(CONTACT.c.record_id, ids))
        if side is Side.CRM:
            retried = and_(WRITE_RETRY.c.connector_id == connector_id, among(WRITE_RETRY.c.record_id, ids))
            connection.execute(delete(WRITE_RETRY).where(retried))
            connection.execute(update(CONTACT).where(contacts).values(write_due=WriteDue.YES))
            connection.execute(delete(QUARANTINE).where(waiting))
        elif side is Side.WALLET:
            connection.execute(delete(QUARANTINE).where(waiting))
            linked = select(CONTACT.c.member_id).where(contacts, CONTACT.c.member_id.is_not(None))
            members = list(connection.scalars(linked))
            connection.execute(update(MEMBER).where(among(MEMBER.c.id, members)).values(refused=None))
            self._scope.refresh(connection, members)
            self._scope.mark_for_status(connection, members)
        else:
            connection.execute(update(QUARANTINE).where(waiting).values(dropped_at=None))
            connection.execute(update(CONTACT).where(contacts).values(fingerprint=None))
            asked = update(CONNECTOR).where(CONNECTOR.c.id == connector_id)
            connection.execute(asked.values(sweep_asked=CONNECTOR.c.sweep + 1))


def _drop(connection: Connection, connector_id: int, side: Side, ids: Sequence[str], now: datetime) -> None:
    waiting = _waiting(connector_id, side, ids)
    connection.execute(update(QUARANTINE).where(waiting).values(dropped_at=to_ms(now)))
    if side is Side.CRM:  # else every try would bring it back
        retried = and_(WRITE_RETRY.c.connector_id == connector_id, among(WRITE_RETRY.c.record_id, ids))
        connection.execute(delete(WRITE_RETRY).where(retried))
        contacts = and_(CONTACT.c.connector_id == connector_id, among(CONTACT.c.record_id, ids))
        connection.execute(update(CONTACT).where(contacts).values(write_due=WriteDue.NO))


def _waiting(connector_id: int, side: Side, ids: Sequence[str]) -> ColumnElement[bool]:
    mine = and_(QUARANTINE.c.connector_id == connector_id, QUARANTINE.c.side == side)
    return and_(mine, among(QUARANTINE.c.record_id, ids))


_OF_CONNECTOR = QUARANTINE.c.connector_id == bindparam("b_connector")
_THESE = and_(_OF_CONNECTOR, one_of(QUARANTINE.c.record_id, "b_ids"))
_TRIED_AT_ONCE = delete(WRITE_RETRY).where(
    WRITE_RETRY.c.connector_id == bindparam("b_connector"), one_of(WRITE_RETRY.c.record_id, "b_ids")
)
_REFUSED_ROWS = select(QUARANTINE.c.record_id, QUARANTINE.c.field).where(
    _THESE, QUARANTINE.c.side == Side.WALLET
)
_DROPPED = select(QUARANTINE.c.record_id, QUARANTINE.c.dropped_at).where(
    _THESE, QUARANTINE.c.side.in_([Side.MAPPING, Side.EMAIL]), QUARANTINE.c.dropped_at.is_not(None)
)
_LIFTED = delete(QUARANTINE).where(
    _THESE, ~and_(QUARANTINE.c.side == Side.WALLET, one_of(QUARANTINE.c.record_id, "b_kept"))
)
_REFUSED_NO_MORE = update(MEMBER).where(one_of(MEMBER.c.id, "b_members")).values(refused=None)


def lift(
    scope: Scope,
    connection: Connection,
    connector_id: int,
    changed: Sequence[Intake],
    buried: Sequence[str],
    before: Mapping[str, Known],
) -> dict[str, int]:
    """Take out of quarantine what has changed in what it was refused for, and what is gone.

    Returns since when those were dropped that have not changed, and are judged again all the same.

    A row that the wallet refused stays in until its profile changes, or its points where those can be
    what was refused; until then its member is not sent either.
    """
    ids = [*buried, *(row.record_id for row in changed if row.record_id in before)]
    if not ids:
        return {}
    these = {"b_connector": connector_id, "b_ids": as_list(ids)}
    connection.execute(_TRIED_AT_ONCE, these)  # it is another record now
    same = {row.record_id: row for row in changed if same_profile(before.get(row.record_id), row)}
    kept, again = [], []
    for record_id, field in connection.execute(_REFUSED_ROWS, these).all():
        row, was = same.get(record_id), before[record_id]
        if row is not None and (field not in _POINTS_COUNT or row.points == was.points):
            kept.append(record_id)
        elif was.member_id is not None:
            again.append(was.member_id)
    unchanged = [it.record_id for it in changed if same_content(before.get(it.record_id), it)]
    still: dict[str, int] = {}
    if unchanged:
        still = dict(connection.execute(_DROPPED, these | {"b_ids": as_list(unchanged)}).all())
    connection.execute(_LIFTED, these | {"b_kept": as_list(kept)})
    if again:
        connection.execute(_REFUSED_NO_MORE, {"b_members": as_list(again)})
        scope.refresh(connection, again)
    return still


def put(
    connection: Connection,
    connector_id: int,
    refused: Sequence[Intake],
    now: datetime,
    *,
    dropped: Mapping[str, int],
) -> None:
    """Put the contacts that were refused into quarantine, each with its reason; some of them out of sight."""
    if refused:
        connection.execute(
            QUARANTINE.insert(),
            [
                {
                    "connector_id": connector_id,
                    "record_id": row.record_id,
                    "side": Side.EMAIL if row.field == EMAIL_CHANGE else Side.MAPPING,
                    "field": row.field,
                    "reason": row.reason,
                    "since": to_ms(now),
                    "dropped_at": dropped.get(row.record_id),
                }
                for row in refused
            ],
        )
