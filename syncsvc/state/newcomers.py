"""Contacts that nobody has read before, with emails that nobody has: each makes a member of its own.

A first read consists of them. Nothing has to be weighed about them, so they are spared the work of those that
may share, leave or inherit a member.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Sequence

from sqlalchemy import Connection, and_, bindparam, case, insert, null, select

from syncsvc.rules.intake import Intake
from syncsvc.rules.mapping import Mapped
from syncsvc.state import payloads
from syncsvc.state.bulk import insert_rows
from syncsvc.state.database import as_list, one_of
from syncsvc.state.histories import INHERITANCE
from syncsvc.state.numbers import new_ids
from syncsvc.state.scope import Scope
from syncsvc.state.tables import CONTACT, MEMBER

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
        "earned",
        "due",
        "first_read",
    ),
    unless_taken=True,
)
# Others, of other organizations, may have numbers between ours.
_NEW = and_(
    MEMBER.c.id >= bindparam("b_first"),
    MEMBER.c.id <= bindparam("b_last"),
    MEMBER.c.owner_connector == bindparam("b_connector"),
)
_ADMITTED = select(MEMBER.c.owner_record).where(_NEW)
_CONTACTS = insert(CONTACT).from_select(
    ["connector_id", "record_id", "member_id", "fingerprint", "points", "seen"],
    select(
        MEMBER.c.owner_connector,
        MEMBER.c.owner_record,
        MEMBER.c.id,
        MEMBER.c.wanted,
        case((bindparam("b_counted") == 1, MEMBER.c.earned), else_=null()),
        bindparam("b_seen"),
    ).where(_NEW),
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
    first_read: bool,
) -> list[Intake]:
    """Store the newcomers among the contacts of a page, each with its member; returns the other contacts.

    A newcomer is active, is not `known`, has an email to itself, and brings nothing along: no history (it is
    none of the page's `heirs`, and nothing is remembered for it) and nothing that was written back to it.
    `seen` is the sweep that found it, `first_read` says that this of its connector brings it. Its member is
    due; its write-back waits until the first row of that has an outcome.
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
    newcomers: list[tuple[int, Intake, Mapped]] = []
    for brand_id, emails in single.items():
        brand = scope.brand(connection, brand_id)
        for it in emails.values():
            if it is None or it.mapped is None or it.record_id in remembered:
                continue
            newcomers.append((brand, it, it.mapped))
    if not newcomers:
        return list(read)
    first = int(first_read)
    numbers = new_ids(connection, MEMBER, len(newcomers))
    members = [
        (
            number,
            brand,
            mapped.email_key,
            None if mapped.email == mapped.email_key else mapped.email,
            connector_id,
            it.record_id,
            it.fingerprint,
            mapped.points or 0,
            1,
            first,
        )
        for number, (brand, it, mapped) in zip(numbers, newcomers, strict=True)
    ]
    admitted = _MEMBERS.run(connection, members)
    # The others have emails that somebody has already.
    ours = {"b_first": numbers[0], "b_last": numbers[-1], "b_connector": connector_id}
    connection.execute(_CONTACTS, {**ours, "b_seen": seen, "b_counted": int(counted)})
    whole = admitted == len(newcomers)
    settled = {it.record_id for _, it, _ in newcomers} if whole else set(connection.scalars(_ADMITTED, ours))
    contents = [
        (number, payloads.make(mapped.profile, mapped.mails))
        for number, (_, it, mapped) in zip(numbers, newcomers, strict=True)
        if whole or it.record_id in settled
    ]
    payloads.put(connection, contents)
    if admitted == len(read):
        return []
    return [row for row in read if row.record_id not in settled]


def _remembered(connection: Connection, connector_id: int, read: Sequence[Intake]) -> Collection[str]:
    """Return the contacts that will bring history along; most organizations have none that do."""
    mine = {"b_connector": connector_id}
    if connection.execute(_HEIR, mine).first() is None:
        return ()
    return set(connection.scalars(_HEIRS, {**mine, "b_records": as_list(row.record_id for row in read)}))
