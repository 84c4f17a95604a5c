"""Which CRM records differ from what the wallet says, and what became of writing it on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    SmallInteger,
    String,
    Table,
    and_,
    bindparam,
    delete,
    func,
    or_,
    select,
    update,
)

from syncsvc.config import Points
from syncsvc.model import STATUS_LENGTH, WriteOutcome, Written
from syncsvc.rules.brakes import Allowed, Flows
from syncsvc.rules.intake import ContactState
from syncsvc.state.bulk import Bulk, run_alike
from syncsvc.state.codes import HELD, Outcome, WriteDue
from syncsvc.state.database import as_list, one_of, to_ms
from syncsvc.state.scope import Scope, at_most, kept_back
from syncsvc.state.tables import BATCH, CONTACT, MEMBER, QUARANTINE, WRITE_RETRY

MANY_TRIES = 8
"""Failures after which passing trouble of one record is shown to a person: about two hours."""

_SECOND = 1000
_MOST_COUNTED = 1000
# How long a record that failed rests, at first and at most. What the CRM refuses a person has to mend, there
# or in its rules, of which nothing tells us.
_PASSING = timedelta(minutes=1), timedelta(hours=1)
_REFUSED = timedelta(hours=1), timedelta(days=1)


def to_second(ms: int) -> int:
    """Return a time in whole seconds, still in milliseconds: as exactly as every CRM can hold it."""
    return ms - ms % _SECOND


class DueWrite(NamedTuple):
    """What one CRM record should hold; None where that fact needs no writing.

    Times are in milliseconds. `tries` is how often writing it has failed already, `log_at` what the log says.
    `time_taken` says of one that was refused that the CRM took `last_updated` without the status.
    """

    record_id: str
    last_updated: int | None
    status: str | None
    tries: int = 0
    log_at: int | None = None
    time_taken: bool = False

    @property
    def differs(self) -> bool:
        """Whether anything is to be written at all."""
        return self.last_updated is not None or self.status is not None


class _Held(NamedTuple):
    """What records hold by now, as `_WRITTEN` takes it; one time for all members of an import."""

    last_updated: int | None
    status: str | None
    due: WriteDue


# A record that lives on under another id does not come home under this one.
_TAKEN = {Written.WRITTEN: WriteDue.ECHO, Written.MERGED: WriteDue.NO}


class _Shown(NamedTuple):
    """A record, what was written on it, and what its member is; the columns of `_due`, in its order."""

    record_id: str
    written_at: int | None
    log_at: int | None
    tries: int | None
    # What the status is made of, where one is written.
    written_status: str | None = None
    state: int = ContactState.ACTIVE
    due: int | None = None
    delivered: bytes | None = None
    unsettled: int | None = None
    kept_back: bool | None = None
    doubt: int | None = None
    reason: str | None = None


@cache
def _due(points: Points, flows: Flows, *, status: bool) -> Select[Any]:
    failed = and_(
        WRITE_RETRY.c.connector_id == CONTACT.c.connector_id,
        WRITE_RETRY.c.record_id == CONTACT.c.record_id,
    )
    times = select(CONTACT.c.record_id, CONTACT.c.written_at, MEMBER.c.log_at, WRITE_RETRY.c.tries).outerjoin(
        MEMBER, MEMBER.c.id == CONTACT.c.member_id
    )
    found = _with_status(times, points, flows) if status else times
    return (
        found.outerjoin(WRITE_RETRY, failed)
        .where(
            CONTACT.c.connector_id == bindparam("b_connector"),
            CONTACT.c.write_due == WriteDue.YES,
            CONTACT.c.record_id > bindparam("b_after"),
            or_(
                WRITE_RETRY.c.next_at.is_(None),
                WRITE_RETRY.c.next_at <= bindparam("b_now"),
                WRITE_RETRY.c.log_at.is_distinct_from(MEMBER.c.log_at),
            ),
        )
        .order_by(CONTACT.c.record_id)
        .limit(bindparam("b_limit", type_=Integer))
    )


def _with_status(times: Select[Any], points: Points, flows: Flows) -> Select[Any]:
    doubtful = and_(BATCH.c.id == MEMBER.c.open_batch, BATCH.c.outcome == Outcome.DOUBT)
    refused = (
        select(func.min(QUARANTINE.c.reason))
        .where(
            QUARANTINE.c.connector_id == CONTACT.c.connector_id,
            QUARANTINE.c.record_id == CONTACT.c.record_id,
            QUARANTINE.c.side != "crm",
        )
        .scalar_subquery()
    )
    return times.add_columns(
        CONTACT.c.written_status,
        CONTACT.c.state,
        MEMBER.c.due,
        MEMBER.c.delivered,
        MEMBER.c.unsettled,
        kept_back(points, flows),
        BATCH.c.id,
        refused,
    ).outerjoin(BATCH, doubtful)


def _among(table: Table) -> ColumnElement[bool]:
    """Return the condition for the rows of `_these` records."""
    mine = table.c.connector_id == bindparam("b_connector")
    return and_(mine, one_of(table.c.record_id, "b_records"))


def _these(connector_id: int, record_ids: Sequence[str]) -> dict[str, Any]:
    return {"b_connector": connector_id, "b_records": as_list(record_ids)}


def _written(records: ColumnElement[bool], name: str) -> Bulk:
    statement = (
        update(CONTACT)
        .where(records)
        .values(
            written_at=func.coalesce(bindparam("b_at", type_=BigInteger), CONTACT.c.written_at),
            written_status=func.coalesce(bindparam("b_status", type_=String), CONTACT.c.written_status),
            write_due=bindparam("b_due", type_=SmallInteger),
        )
    )
    return Bulk(statement, ["b_at", "b_status", "b_due", "b_connector", name])


_THIS = and_(CONTACT.c.connector_id == bindparam("b_connector"), CONTACT.c.record_id == bindparam("b_record"))
_WRITTEN = _written(_THIS, "b_record")
_WRITTEN_ALIKE = _written(_among(CONTACT), "b_records")
_NOT_DUE = update(CONTACT).where(_among(CONTACT)).values(write_due=WriteDue.NO)
_ANEW = update(CONTACT).where(_among(CONTACT)).values(write_due=WriteDue.NO, fingerprint=None)
"""What is gone may come back unseen: whenever it is read again, it is news."""
_NOT_RETRIED = delete(WRITE_RETRY).where(_among(WRITE_RETRY))
_NOT_REFUSED = delete(QUARANTINE).where(_among(QUARANTINE), QUARANTINE.c.side == "crm")


class WriteBacks:
    """The transactions of writing back."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def due(
        self,
        connector_id: int,
        allowed: Allowed,
        *,
        now: datetime,
        after: str,
        limit: int,
        time: bool,
        status: bool,
    ) -> tuple[list[DueWrite], str]:
        """Return the next records that may differ, with what they should hold, and where to go on.

        `time` and `status` say which facts this connector writes; what `allowed` keeps back is held. A record
        that failed is left out until its next try, or until the log has moved. The second value is "" at the
        end.
        """
        statement = _due(self._scope.rules.points, allowed.flows, status=status)
        bound = self._scope.bound(
            b_connector=connector_id,
            b_most=at_most(allowed.most_points),
            b_now=to_ms(now),
            b_after=after,
            b_limit=limit,
        )
        with self._scope.database.reading() as connection:
            rows = [_Shown(*row) for row in connection.execute(statement, bound).all()]
        values = []
        for row in rows:
            wanted_at = to_second(row.log_at) if time and row.log_at is not None else None
            wanted_status = _status(row) if status else None
            values.append(
                DueWrite(
                    row.record_id,
                    wanted_at if wanted_at != row.written_at else None,
                    wanted_status if wanted_status != row.written_status else None,
                    row.tries or 0,
                    row.log_at,
                )
            )
        return values, rows[-1].record_id if len(rows) == limit else ""

    def look_at_held(self, allowed: Allowed) -> None:
        """Let the next write-back look at every contact of the members that `allowed` keeps back."""
        with self._scope.database.writing() as connection:
            self._scope.mark_kept_back(connection, allowed)

    def nothing_to_write(self, connector_id: int, record_ids: Sequence[str]) -> None:
        """Remember that these records hold what they should."""
        if record_ids:
            with self._scope.database.writing() as connection:
                connection.execute(_NOT_DUE, _these(connector_id, record_ids))
                self._forget_failures(connection, connector_id, record_ids)

    def record(
        self, connector_id: int, outcomes: Sequence[tuple[DueWrite, WriteOutcome]], *, now: datetime
    ) -> None:
        """Remember what became of written values.

        What failed is tried again later; it is in quarantine, with the CRM's words, where the CRM refuses it,
        or where its trouble has not passed for `MANY_TRIES` tries. A time that was taken without its status
        is written, and the status alone is tried again.
        """
        held: dict[_Held, list[str]] = defaultdict(list)
        gone, failed = [], []
        for value, outcome in outcomes:
            if outcome.result in _TAKEN:
                held[_Held(value.last_updated, value.status, _TAKEN[outcome.result])].append(value.record_id)
            elif outcome.result is Written.GONE:
                gone.append(value.record_id)
            else:
                failed.append((value, outcome))
                if value.time_taken:
                    held[_Held(value.last_updated, None, WriteDue.YES)].append(value.record_id)
        with self._scope.database.writing() as connection:
            alike = {(*it, connector_id): records for it, records in held.items()}
            run_alike(connection, _WRITTEN, _WRITTEN_ALIKE, alike)
            if gone:
                connection.execute(_ANEW, _these(connector_id, gone))
            self._forget_failures(connection, connector_id, [value.record_id for value, _ in outcomes])
            if failed:
                self._remember_failures(connection, connector_id, failed, now)

    @staticmethod
    def _forget_failures(connection: Connection, connector_id: int, record_ids: Sequence[str]) -> None:
        connection.execute(_NOT_RETRIED, _these(connector_id, record_ids))
        connection.execute(_NOT_REFUSED, _these(connector_id, record_ids))

    @staticmethod
    def _remember_failures(
        connection: Connection,
        connector_id: int,
        failed: Sequence[tuple[DueWrite, WriteOutcome]],
        now: datetime,
    ) -> None:
        connection.execute(
            WRITE_RETRY.insert(),
            [
                {
                    "connector_id": connector_id,
                    "record_id": value.record_id,
                    "tries": min(value.tries + 1, _MOST_COUNTED),
                    "next_at": to_ms(now + _pause(it.result, value.tries)),
                    "log_at": value.log_at,
                }
                for value, it in failed
            ],
        )
        stuck = [
            (value, it)
            for value, it in failed
            if it.result is Written.REFUSED or value.tries + 1 >= MANY_TRIES
        ]
        if stuck:
            connection.execute(
                QUARANTINE.insert(),
                [
                    {
                        "connector_id": connector_id,
                        "record_id": value.record_id,
                        "side": "crm",
                        "field": "write_back.status" if value.time_taken else "write_back",
                        "reason": it.detail or "the CRM does not take the value and does not say why",
                        "since": to_ms(now),
                    }
                    for value, it in stuck
                ],
            )


def _pause(result: Written, tries: int) -> timedelta:
    """Return how long a record rests that has failed once more than `tries` times."""
    first, longest = _REFUSED if result is Written.REFUSED else _PASSING
    return min(first * (1 << min(tries, 16)), longest)


def _cut(text: str) -> str:
    """Return a status as far as a field holds it, also where its characters are counted in UTF-16."""
    units = text.encode("utf-16-le", "replace")
    if len(units) <= 2 * STATUS_LENGTH:
        return text
    return units[: 2 * STATUS_LENGTH - 2].decode("utf-16-le", "ignore").rstrip() + "…"


def _status(row: _Shown) -> str | None:
    if row.state == ContactState.QUARANTINED or row.reason is not None:
        return _cut(f"quarantined: {row.reason}")
    if row.doubt is not None:
        return "in doubt"
    if row.unsettled or (row.due and row.kept_back):
        return HELD
    if row.delivered is not None and not row.due:
        return "imported"
    return None
