"""The life of one member: how it stands, the contacts it comes from, and what happened, with the evidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, func, select

from syncsvc.rules.intake import ContactState
from syncsvc.state.codes import Entry, Lane, Outcome, WriteDue
from syncsvc.state.database import Record, from_ms
from syncsvc.state.interventions import QUARANTINE_DECISION
from syncsvc.state.quarantine import Refusal, Side
from syncsvc.state.scope import LEAVES, Scope
from syncsvc.state.tables import (
    BATCH,
    BATCH_ROW,
    BRAND,
    CONNECTOR,
    CONTACT,
    DECISION,
    LEDGER,
    MEMBER,
    QUARANTINE,
    WRITE_RETRY,
)


def _at(ms: int | None) -> datetime | None:
    return None if ms is None else from_ms(ms)


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing in the life of a member: when, what, and the facts."""

    at: datetime
    what: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A contact of a member: how it stands, and whether it holds what the wallet says.

    `written_back` is the time that stands on it. `unwritten` says that a newer one is to be written, after
    `tries` failures not before `next_try`. `trouble` is what keeps its connector from being read.
    """

    connector: str
    record: str
    state: str
    owner: bool
    points: int | None
    written_back: datetime | None
    unwritten: bool
    tries: int
    next_try: datetime | None
    trouble: str | None
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Life:
    """One member, and what happened, oldest first.

    `due` says that something is to be sent; `new` that nothing was yet, `leaving` that what is to be sent
    expires it, as no contact is left. `delivered` says that the newest profile is proven to be there,
    `refused` that the wallet took the newest one for wrong. `in_flight` is the batch whose request is under
    way; `unseen` one that landed with points the import log did not show, as it was read at `log_read_at`.
    Points wait until `quiet_until`, as an older row of it may still arrive, and for the log to show the row
    that was sent at `unshown`, as long as that may take.
    """

    member: int
    brand_id: str
    earned: int
    credited: int
    unsettled: int
    due: bool
    new: bool
    leaving: bool
    delivered: bool
    refused: bool
    in_flight: int | None
    unseen: int | None
    quiet_until: datetime | None
    unshown: datetime | None
    log_value: str | None
    log_at: datetime | None
    log_read_at: datetime | None
    resolution_ms: int
    contacts: tuple[Link, ...]
    happenings: tuple[Happening, ...]


class Lives:
    """The queries behind `explain`."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def of(self, email_key: str) -> list[Life]:
        """Return the life of the member with this case-folded email in each brand it is known in."""
        listed = (
            select(
                MEMBER,
                BRAND.c.brand_id,
                BRAND.c.log_read_at,
                BRAND.c.resolution_ms,
                BATCH.c.outcome.label("open_outcome"),
                LEAVES.label("leaving"),
            )
            .join(BRAND, BRAND.c.id == MEMBER.c.brand)
            .outerjoin(BATCH, BATCH.c.id == MEMBER.c.open_batch)
            .where(BRAND.c.organization_id == self._scope.organization_id, MEMBER.c.email_key == email_key)
            .order_by(BRAND.c.brand_id)
        )
        with self._scope.database.reading() as connection:
            return [self._life(connection, row) for row in connection.execute(listed).all()]

    def _life(self, connection: Connection, member: Record) -> Life:
        happenings = [
            *_sent(connection, member.id),
            *_credited(connection, member.id),
            *_decided(connection, member.id),
            *_judged(connection, member.id),
        ]
        return Life(
            member=member.id,
            brand_id=member.brand_id,
            earned=member.earned,
            credited=member.credited,
            unsettled=member.unsettled,
            due=bool(member.due),
            new=member.delivered is None,
            leaving=bool(member.leaving),
            delivered=member.delivered is not None and member.delivered == member.wanted,
            refused=member.refused is not None and member.refused == member.wanted,
            in_flight=member.open_batch if member.open_outcome == Outcome.OPEN else None,
            unseen=_unseen(connection, member),
            quiet_until=_at(member.quiet_until),
            unshown=_unshown(connection, member),
            log_value=member.log_value,
            log_at=_at(member.log_at),
            log_read_at=_at(member.log_read_at),
            resolution_ms=member.resolution_ms or 1000,
            contacts=tuple(self._links(connection, member)),
            happenings=tuple(sorted(happenings, key=lambda it: it.at)),
        )

    def _links(self, connection: Connection, member: Record) -> Iterator[Link]:
        refusals: dict[tuple[int, str], list[Refusal]] = {}
        waiting = (
            select(QUARANTINE, CONNECTOR.c.name)
            .join(CONNECTOR, CONNECTOR.c.id == QUARANTINE.c.connector_id)
            .join(
                CONTACT,
                and_(
                    CONTACT.c.connector_id == QUARANTINE.c.connector_id,
                    CONTACT.c.record_id == QUARANTINE.c.record_id,
                ),
            )
            .where(CONTACT.c.member_id == member.id)
            .order_by(QUARANTINE.c.since)
        )
        for row in connection.execute(waiting):
            refusals.setdefault((row.connector_id, row.record_id), []).append(
                Refusal(
                    row.name,
                    row.record_id,
                    Side(row.side),
                    row.field,
                    row.reason,
                    from_ms(row.since),
                    row.dropped_at is not None,
                )
            )
        failed = and_(
            WRITE_RETRY.c.connector_id == CONTACT.c.connector_id,
            WRITE_RETRY.c.record_id == CONTACT.c.record_id,
        )
        listed = (
            select(CONTACT, CONNECTOR.c.name, CONNECTOR.c.trouble, WRITE_RETRY.c.tries, WRITE_RETRY.c.next_at)
            .join(CONNECTOR, CONNECTOR.c.id == CONTACT.c.connector_id)
            .outerjoin(WRITE_RETRY, failed)
            .where(CONTACT.c.member_id == member.id)
            .order_by(CONNECTOR.c.position, CONTACT.c.record_id)
        )
        for row in connection.execute(listed):
            told = None if member.log_at is None else member.log_at - member.log_at % 1000
            writes = row.connector_id in self._scope.writing and row.write_due == WriteDue.YES
            yield Link(
                connector=row.name,
                record=row.record_id,
                state=ContactState(row.state).name.lower(),
                owner=(member.owner_connector, member.owner_record) == (row.connector_id, row.record_id),
                points=row.points,
                written_back=_at(row.written_at),
                unwritten=bool(writes and told is not None and told != row.written_at),
                tries=row.tries or 0,
                next_try=_at(row.next_at),
                trouble=row.trouble,
                refusals=tuple(refusals.get((row.connector_id, row.record_id), ())),
            )


def _unseen(connection: Connection, member: Record) -> int | None:
    """Return the last batch with points of a member that landed by its answer, and the log does not show."""
    last = connection.execute(
        select(BATCH.c.id, BATCH.c.sent_at)
        .join(BATCH_ROW, BATCH_ROW.c.batch_id == BATCH.c.id)
        .where(
            BATCH_ROW.c.member_id == member.id, BATCH_ROW.c.points != 0, BATCH_ROW.c.outcome == Outcome.LANDED
        )
        .order_by(BATCH.c.id.desc())
        .limit(1)
    ).first()
    if last is None or last.sent_at is None:
        return None
    coarse = member.resolution_ms or 1000
    shown = member.log_at is not None and member.log_at + coarse > last.sent_at
    return None if shown else int(last.id)


def _unshown(connection: Connection, member: Record) -> datetime | None:
    """Return when the last row was sent that landed and has not moved the member's entry."""
    unmoved = BATCH_ROW.c.log_before.is_not_distinct_from(member.log_value)
    landed = and_(BATCH_ROW.c.member_id == member.id, BATCH_ROW.c.outcome == Outcome.LANDED, unmoved)
    rows = select(func.max(BATCH.c.sent_at)).join(BATCH_ROW, BATCH_ROW.c.batch_id == BATCH.c.id).where(landed)
    return _at(connection.scalar(rows))


def _sent(connection: Connection, member_id: int) -> list[Happening]:
    listed = (
        select(BATCH_ROW, BATCH.c.lane, BATCH.c.claimed_at, BATCH.c.import_id, BATCH.c.detail, BATCH.c.cycle)
        .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
        .where(BATCH_ROW.c.member_id == member_id)
    )
    return [
        Happening(
            from_ms(row.claimed_at),
            "sent",
            {
                "batch": row.batch_id,
                "lane": Lane(row.lane).name.lower(),
                "points": row.points,
                "outcome": Outcome(row.outcome).name.lower(),
                "proof": row.grade,
                "answer": row.detail,
                "log_before": row.log_before,
                "import_id": row.import_id,
                "cycle": row.cycle,
                "landed_late": _at(row.late_at),
            },
        )
        for row in connection.execute(listed)
    ]


def _credited(connection: Connection, member_id: int) -> list[Happening]:
    listed = select(LEDGER).where(LEDGER.c.member_id == member_id)
    return [
        Happening(
            from_ms(row.at),
            "credited",
            {
                "points": row.points,
                "why": Entry(row.entry).name.lower(),
                "proof": row.grade,
                "batch": row.batch_id,
            },
        )
        for row in connection.execute(listed)
    ]


def _decided(connection: Connection, member_id: int) -> list[Happening]:
    listed = select(DECISION).where(DECISION.c.member_id == member_id)
    return [
        Happening(
            from_ms(row.decided_at),
            "decided",
            {
                "by": row.decided_by,
                "choice": row.choice,
                "points": row.points,
                "batch": row.batch_id,
                "log_before": row.log_before,
                "log_now": row.log_now,
                "finding": row.finding,
            },
        )
        for row in connection.execute(listed)
    ]


def _judged(connection: Connection, member_id: int) -> list[Happening]:
    """Return what stands in quarantine of a member's contacts, and what people decided on it."""
    found = []
    for table in (QUARANTINE, QUARANTINE_DECISION):
        mine = and_(CONTACT.c.connector_id == table.c.connector_id, CONTACT.c.record_id == table.c.record_id)
        listed = (
            select(table, CONNECTOR.c.name)
            .join(CONTACT, mine)
            .join(CONNECTOR, CONNECTOR.c.id == table.c.connector_id)
            .where(CONTACT.c.member_id == member_id)
        )
        for row in connection.execute(listed):
            where = {"connector": row.name, "record": row.record_id, "side": row.side}
            if table is QUARANTINE:
                facts = {**where, "field": row.field, "reason": row.reason}
                found.append(Happening(from_ms(row.since), "refused", facts))
            else:
                facts = {**where, "by": row.decided_by, "choice": row.choice}
                found.append(Happening(from_ms(row.decided_at), "decided", facts))
    return found
