"""Erases a person from the state and keeps the books: the points stay, under a pseudonym.

Personal in the state are the email, the profile while it is undelivered, digests of both, and the log's
times. Record ids stay: they lead to nobody once the CRM has erased its record, and by them a record that is
restored is known again, so that its points are not awarded anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, and_, delete, exists, select, update

from syncsvc.rules.intake import ContactState
from syncsvc.state import payloads
from syncsvc.state.database import Record, among
from syncsvc.state.scope import Scope
from syncsvc.state.tables import (
    BATCH,
    BATCH_ROW,
    BRAND,
    CONNECTOR,
    CONTACT,
    DECISION,
    MEMBER,
    PLAN,
    PLAN_ROW,
    QUARANTINE,
    WRITE_RETRY,
)

PSEUDONYM = "forgotten:"
"""What the email of a forgotten member begins with; no email does, since it has no @."""

_PRESENT = (ContactState.ACTIVE, ContactState.QUARANTINED)
_MEMBER = dict.fromkeys(
    ("email", "wanted", "delivered", "refused", "log_value", "log_at", "quiet_until", "late_until")
)


@dataclass(frozen=True, slots=True)
class Trace:
    """A person as one brand's member: what stays in the books, and what must be done before it is forgotten.

    `records` are the CRM records by connector name that were its contacts, `obstacles` the next steps.
    """

    member: int
    brand_id: str
    credited: int
    records: Sequence[tuple[str, str]]
    obstacles: Sequence[str]

    @property
    def pseudonym(self) -> str:
        """What stands for the email from then on."""
        return f"{PSEUDONYM}{self.member}"


class Erasure:
    """The transactions of forgetting a person."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def traces(self, email_key: str) -> list[Trace]:
        """Return the member with this case-folded email in each brand that knows it."""
        with self._scope.database.reading() as connection:
            return list(self._traces(connection, email_key))

    def forget(self, email_key: str) -> list[Trace]:
        """Erase the person with this case-folded email; returns what was found.

        Nothing is erased where one of its traces has an obstacle. The file may still hold what was erased
        in pages that are free: `Database.scrub` overwrites them.
        """
        with self._scope.database.writing() as connection:
            found = list(self._traces(connection, email_key))
            if not any(trace.obstacles for trace in found):
                for trace in found:
                    self._erase(connection, trace)
            return found

    def _traces(self, connection: Connection, email_key: str) -> Iterator[Trace]:
        ours = BRAND.c.organization_id == self._scope.organization_id
        listed = (
            select(MEMBER, BRAND.c.brand_id)
            .join(BRAND, BRAND.c.id == MEMBER.c.brand)
            .where(ours, MEMBER.c.email_key == email_key)
            .order_by(BRAND.c.brand_id)
        )
        for row in connection.execute(listed).all():
            linked = (
                select(CONNECTOR.c.name, CONNECTOR.c.retired, CONTACT.c.record_id, CONTACT.c.state)
                .join(CONNECTOR, CONNECTOR.c.id == CONTACT.c.connector_id)
                .where(CONTACT.c.member_id == row.id)
                .order_by(CONNECTOR.c.position, CONTACT.c.record_id)
            )
            contacts = connection.execute(linked).all()
            records = [(it.name, it.record_id) for it in contacts]
            yield Trace(row.id, row.brand_id, row.credited, records, list(_obstacles(row, contacts)))

    def _erase(self, connection: Connection, trace: Trace) -> None:
        connection.execute(
            update(MEMBER)
            .where(MEMBER.c.id == trace.member)
            .values(_MEMBER | {"email_key": trace.pseudonym, "due": 0})
        )
        connection.execute(payloads.dropped(MEMBER.c.id == trace.member))
        theirs = CONTACT.c.member_id == trace.member
        for table in (QUARANTINE, WRITE_RETRY):
            contact = and_(
                CONTACT.c.connector_id == table.c.connector_id, CONTACT.c.record_id == table.c.record_id
            )
            connection.execute(
                delete(table).where(exists(select(CONTACT.c.record_id).where(contact, theirs)))
            )
        unread = {"fingerprint": None, "written_at": None, "written_status": None, "write_due": 0}
        connection.execute(update(CONTACT).where(theirs).values(unread))
        sent = BATCH_ROW.c.member_id == trace.member
        batches = list(connection.scalars(select(BATCH_ROW.c.batch_id).where(sent)))
        connection.execute(update(BATCH).where(among(BATCH.c.id, batches)).values(digest=b""))
        connection.execute(update(BATCH_ROW).where(sent).values(fingerprint=None, log_before=None))
        decided = update(DECISION).where(DECISION.c.member_id == trace.member)
        connection.execute(decided.values(log_before=None, log_now=None))
        # A plan's rows are digests of members; the next plan is made without the person.
        plans = select(PLAN.c.id).where(PLAN.c.organization_id == self._scope.organization_id)
        connection.execute(delete(PLAN_ROW).where(PLAN_ROW.c.plan_id.in_(plans)))
        connection.execute(delete(PLAN).where(PLAN.c.organization_id == self._scope.organization_id))


def _obstacles(member: Record, contacts: Sequence[Record]) -> Iterator[str]:
    for it in contacts:
        if it.state in _PRESENT and not it.retired:
            yield (
                f"{it.name} {it.record_id} is there as far as is known: delete it in the CRM (or let `where` "
                "leave it out), and run `syncsvc sweep`"
            )
    if member.unsettled or member.open_batch is not None:
        yield (
            "an import of it is in flight, in doubt or held: let a cycle settle it, "
            "or settle it with `syncsvc doubt`"
        )
    elif member.due:
        yield (
            "something is still to be sent of it: run a cycle, "
            "or let go what keeps it back with `syncsvc release`"
        )
