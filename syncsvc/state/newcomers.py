"""Contacts that nobody has read before, with emails that nobody has: each makes a member of its own.

A first read consists of them. Nothing has to be weighed about them, so they are spared the work of those that
may share, leave or inherit a member.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, case, func, insert, null, select

from syncsvc.rules.intake import Intake
from syncsvc.state.bulk import insert_rows
from syncsvc.state.database import as_list, one_of
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
    unless_taken=True,
)
_HIGHEST = select(func.coalesce(func.max(MEMBER.c.id), 0))
_ADMITTED = select(MEMBER.c.owner_record).where(MEMBER.c.id > bindparam("b_highest"))
_CONTACTS = insert(CONTACT).from_select(
    ["connector_id", "record_id", "member_id", "fingerprint", "points", "seen"],
    select(
        MEMBER.c.owner_connector,
        MEMBER.c.owner_record,
        MEMBER.c.id,
        MEMBER.c.wanted,
        case((bindparam("b_counted") == 1, MEMBER.c.earned), else_=null()),
        bindparam("b_seen"),
    ).where(MEMBER.c.id > bindparam("b_highest")),
)

_HEIRS_OF = select(INHERITANCE.c.record_id).where(INHERITANCE.c.connector_id == bindparam("b_connector"))
_HEIR = _HEIRS_OF.limit(1)
_HEIRS = _HEIRS_OF.where(one_of(INHERITANCE.c.record_id, "b_records"))


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

    A newcomer is active, is not `known`, has an email to itself, and brings nothing along: no history (it is
    none of the page's `heirs`, and nothing is remembered for it) and nothing that was written back to it.
    `seen` is the sweep that found it. Its member is due; its write-back waits until the first row of that has
    an outcome.
    """
    counted = any(row.points is not None for row in read)  # by the map: all active contacts, or none
    single: defaultdict[str, dict[str, Intake | None]] = defaultdict(dict)  # by brand and email
    for row in read:
        mapped = row.mapped
        if mapped is not None:
            emails, key, record_id = single[mapped.brand_id], mapped.email_key, row.record_id
            new = (
                key not in emails
                and record_id not in known
                and record_id not in heirs
                and row.written_at is None
                and row.written_status is None
                and (mapped.points is not None) is counted
            )
            emails[key] = row if new else None
    remembered = _remembered(connection, connector_id, read)
    highest: int = connection.execute(_HIGHEST).scalar_one()
    members: list[tuple[Any, ...]] = []
    for brand_id, emails in single.items():
        brand = scope.brand(connection, brand_id)
        for key, it in emails.items():
            if it is None or it.mapped is None or it.record_id in remembered:
                continue
            mapped = it.mapped
            members.append(
                (
                    highest + len(members) + 1,
                    brand,
                    key,
                    None if mapped.email == key else mapped.email,
                    connector_id,
                    it.record_id,
                    it.fingerprint,
                    orjson.dumps({"profile": mapped.profile, "mails": mapped.mails}),
                    mapped.points or 0,
                    1,
                )
            )
    admitted = _MEMBERS.run(connection, members)
    # The others have emails that somebody has already.
    connection.execute(_CONTACTS, {"b_highest": highest, "b_seen": seen, "b_counted": int(counted)})
    if admitted == len(read):
        return []
    settled = set(connection.scalars(_ADMITTED, {"b_highest": highest}))
    return [row for row in read if row.record_id not in settled]


def _remembered(connection: Connection, connector_id: int, read: Sequence[Intake]) -> Collection[str]:
    """Return the contacts that will bring history along; most organizations have none that do."""
    mine = {"b_connector": connector_id}
    if connection.execute(_HEIR, mine).first() is None:
        return ()
    return set(connection.scalars(_HEIRS, {**mine, "b_records": as_list(row.record_id for row in read)}))
