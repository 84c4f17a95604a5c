"""Which CRM records differ from what the wallet says, and what became of writing it on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import BigInteger, String, and_, bindparam, case, delete, func, select, update

from syncsvc.model import WriteOutcome, Written
from syncsvc.rules.brakes import Allowed
from syncsvc.rules.intake import ContactState
from syncsvc.state.database import Record, among, from_ms, to_ms
from syncsvc.state.scope import Scope
from syncsvc.state.tables import BATCH, CONTACT, MEMBER, QUARANTINE, Outcome

_SECOND = 1000


def to_second(ms: int) -> int:
    """Return a time in whole seconds, still in milliseconds: as exactly as every CRM can hold it."""
    return ms - ms % _SECOND


@dataclass(frozen=True, slots=True)
class DueWrite:
    """What one CRM record should hold; None where that fact needs no writing."""

    record_id: str
    last_updated: datetime | None
    status: str | None

    @property
    def differs(self) -> bool:
        """Whether anything is to be written at all."""
        return self.last_updated is not None or self.status is not None


class WriteBacks:
    """The transactions of writing back."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def due(
        self, connector_id: int, allowed: Allowed, *, after: str, limit: int, time: bool, status: bool
    ) -> tuple[list[DueWrite], str]:
        """Return the next records that may differ, with what they should hold, and where to go on.

        `time` and `status` say which facts this connector writes; what `allowed` keeps back is held. The
        second value is "" at the end.
        """
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
        listed = (
            select(
                CONTACT.c.record_id,
                CONTACT.c.state,
                CONTACT.c.written_at,
                CONTACT.c.written_status,
                MEMBER.c.log_at,
                MEMBER.c.due,
                MEMBER.c.delivered,
                MEMBER.c.unsettled,
                self._scope.kept_back(allowed).label("kept_back"),
                BATCH.c.id.label("doubt"),
                refused.label("reason"),
            )
            .outerjoin(MEMBER, MEMBER.c.id == CONTACT.c.member_id)
            .outerjoin(BATCH, doubtful)
            .where(
                CONTACT.c.connector_id == connector_id, CONTACT.c.write_due == 1, CONTACT.c.record_id > after
            )
            .order_by(CONTACT.c.record_id)
            .limit(limit)
        )
        with self._scope.database.reading() as connection:
            rows = connection.execute(listed).all()
        values = []
        for row in rows:
            wanted_at = to_second(row.log_at) if time and row.log_at is not None else None
            wanted_status = _status(row) if status else None
            values.append(
                DueWrite(
                    row.record_id,
                    from_ms(wanted_at) if wanted_at is not None and wanted_at != row.written_at else None,
                    wanted_status if wanted_status != row.written_status else None,
                )
            )
        return values, rows[-1].record_id if len(rows) == limit else ""

    def look_at_held(self, allowed: Allowed) -> None:
        """Let the next write-back look at every contact of the members that `allowed` keeps back."""
        with self._scope.database.writing() as connection:
            kept = select(MEMBER.c.id).where(MEMBER.c.due == 1, self._scope.kept_back(allowed))
            self._scope.mark_for_write_back(connection, kept)

    def nothing_to_write(self, connector_id: int, record_ids: Sequence[str]) -> None:
        """Remember that these records hold what they should."""
        if record_ids:
            with self._scope.database.writing() as connection:
                mine = and_(CONTACT.c.connector_id == connector_id, among(CONTACT.c.record_id, record_ids))
                connection.execute(update(CONTACT).where(mine).values(write_due=0))

    def record(
        self, connector_id: int, outcomes: Sequence[tuple[DueWrite, WriteOutcome]], *, now: datetime
    ) -> None:
        """Remember what became of written values; refused ones go to quarantine with the CRM's words."""
        key = and_(CONTACT.c.connector_id == connector_id, CONTACT.c.record_id == bindparam("b_record"))
        written = [(value, it) for value, it in outcomes if it.result in {Written.WRITTEN, Written.MERGED}]
        closed = [(value, it) for value, it in outcomes if it.result in {Written.GONE, Written.REFUSED}]
        refused = [(value, it) for value, it in closed if it.result is Written.REFUSED]
        with self._scope.database.writing() as connection:
            if written:
                at, status = bindparam("b_at", type_=BigInteger), bindparam("b_status", type_=String)
                connection.execute(
                    update(CONTACT)
                    .where(key)
                    .values(
                        write_due=0,
                        written_at=case((at.is_(None), CONTACT.c.written_at), else_=at),
                        written_status=case((status.is_(None), CONTACT.c.written_status), else_=status),
                    ),
                    [
                        {
                            "b_record": value.record_id,
                            "b_at": None if value.last_updated is None else to_ms(value.last_updated),
                            "b_status": value.status,
                        }
                        for value, _ in written
                    ],
                )
            if closed:
                connection.execute(
                    update(CONTACT).where(key).values(write_due=0),
                    [{"b_record": value.record_id} for value, _ in closed],
                )
            settled = [value.record_id for value, _ in [*written, *closed]]
            mine = and_(
                QUARANTINE.c.connector_id == connector_id,
                QUARANTINE.c.side == "crm",
                among(QUARANTINE.c.record_id, settled),
            )
            connection.execute(delete(QUARANTINE).where(mine))
            if refused:
                connection.execute(
                    QUARANTINE.insert(),
                    [
                        {
                            "connector_id": connector_id,
                            "record_id": value.record_id,
                            "side": "crm",
                            "field": "write_back",
                            "reason": it.detail or "the CRM refuses the value",
                            "since": to_ms(now),
                        }
                        for value, it in refused
                    ],
                )


def _status(row: Record) -> str | None:
    if row.state == ContactState.QUARANTINED or row.reason is not None:
        return f"quarantined: {row.reason}"
    if row.doubt is not None:
        return "in doubt"
    if row.unsettled or (row.due and row.kept_back):
        return "held"
    if row.delivered is not None and not row.due:
        return "imported"
    return None
