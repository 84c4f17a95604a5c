"""Contacts that nobody has read before, with emails that nobody has: each makes a member of its own.

A first read consists of them. Nothing has to be weighed about them, so they are spared the work of those that
may share, leave or inherit a member.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Sequence

import orjson
from sqlalchemy import Connection, func, select

from syncsvc.rules.intake import Intake
from syncsvc.state.bulk import insert_rows
from syncsvc.state.database import among
from syncsvc.state.scope import Scope
from syncsvc.state.tables import CONTACT, INHERITANCE, MEMBER

_MEMBERS = insert_rows(
    MEMBER,
    (
        "id",
        "brand",
        "email_key",
        "email",
        "owner_connector",
        "owner_record",
        "wanted",
        "payload",
        "earned",
        "due",
    ),
)
_CONTACTS = insert_rows(
    CONTACT,
    (
        "connector_id",
        "record_id",
        "member_id",
        "fingerprint",
        "points",
        "seen",
        "written_at",
        "written_status",
    ),
)


def admit(
    scope: Scope,
    connection: Connection,
    connector_id: int,
    read: Sequence[Intake],
    *,
    known: Container[str],
    heirs: Collection[str | None],
    seen: int,
) -> list[Intake]:
    """Store the newcomers among the contacts of a page, each with its member; returns the other contacts.

    A newcomer is active, is not `known`, has an email to itself, and brings no history along: it is none of
    the page's `heirs`, and nothing is remembered for it. `seen` is the sweep that found it. Its member is
    due; its write-back waits until the first row of that has an outcome.
    """
    single: defaultdict[str, dict[str, Intake | None]] = defaultdict(dict)  # by brand and email
    for row in read:
        mapped = row.mapped
        if mapped is not None:
            emails = single[mapped.brand_id]
            unseen = row.record_id not in known and row.record_id not in heirs
            emails[mapped.email_key] = row if unseen and mapped.email_key not in emails else None
    remembered = _remembered(connection, connector_id, read)
    member_id: int = connection.scalar(select(func.max(MEMBER.c.id))) or 0
    members, contacts, admitted = [], [], set()
    for brand_id, emails in single.items():
        brand = scope.brand(connection, brand_id)
        taken = select(MEMBER.c.email_key).where(MEMBER.c.brand == brand, among(MEMBER.c.email_key, emails))
        for email in connection.scalars(taken):
            emails[email] = None
        for key, new in emails.items():
            if new is None or new.mapped is None or new.record_id in remembered:
                continue
            member_id += 1
            record_id, wanted, mapped = new.record_id, new.fingerprint, new.mapped
            email = None if mapped.email == key else mapped.email
            payload = orjson.dumps({"profile": mapped.profile, "mails": mapped.mails})
            points = mapped.points
            members.append(
                (member_id, brand, key, email, connector_id, record_id, wanted, payload, points or 0, 1)
            )
            written = new.written_at, new.written_status
            contacts.append((connector_id, record_id, member_id, wanted, points, seen, *written))
            admitted.add(record_id)
    _MEMBERS.run(connection, members)
    _CONTACTS.run(connection, contacts)
    return [row for row in read if row.record_id not in admitted]


def _remembered(connection: Connection, connector_id: int, read: Sequence[Intake]) -> Collection[str]:
    """Return the contacts that will bring history along; most organizations have none that do."""
    mine = select(INHERITANCE.c.record_id).where(INHERITANCE.c.connector_id == connector_id)
    if connection.execute(mine.limit(1)).first() is None:
        return ()
    listed = mine.where(among(INHERITANCE.c.record_id, [row.record_id for row in read]))
    return set(connection.scalars(listed))
