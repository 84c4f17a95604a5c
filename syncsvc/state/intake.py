"""Stores what connectors read: a page of contacts, their members and the cursor, in one transaction.

An unchanged contact costs one comparison in a set-based query. A changed one updates what its member *should
be*; nothing here decides what is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, func, select, update

from syncsvc.config import FirstRun
from syncsvc.rules.intake import ContactState, Intake
from syncsvc.state.bulk import insert_rows, update_rows
from syncsvc.state.database import among, to_ms
from syncsvc.state.membership import EMAIL_CHANGE, Membership
from syncsvc.state.scope import Scope
from syncsvc.state.tables import CONNECTOR, CONTACT, MEMBER, QUARANTINE, WRITE_RETRY, WriteDue


@dataclass(frozen=True, slots=True)
class Stored:
    """What storing a page changed.

    `fallen` are members whose points in the CRM went down, `refusals` the record ids that went to quarantine,
    each with the field concerned. `echoes` are records whose only news is what was written back to them.
    """

    changed: int = 0
    echoes: int = 0
    quarantined: int = 0
    gone: int = 0
    fallen: int = 0
    refusals: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a connector stands. `sweep_cursor` is set while a sweep is under way."""

    cursor: str | None
    sweep_cursor: str | None
    sweep: int
    swept_at: int | None
    mapping: str | None
    trouble: str | None

    @property
    def first_read(self) -> bool:
        """Whether the first complete read is still to come."""
        return self.swept_at is None


class Known(NamedTuple):
    """A contact as it was stored before."""

    record_id: str
    member_id: int | None
    state: int
    fingerprint: bytes | None
    points: int | None
    written_at: int | None
    written_status: str | None
    write_due: int
    first_read: int


_KNOWN = [CONTACT.c[name] for name in Known._fields]
_KEY = ("connector_id", "record_id")
_VALUES = ("member_id", "state", "fingerprint", "points", "written_at", "written_status", "write_due")
_INSERT = insert_rows(CONTACT, (*_VALUES, *_KEY, "seen", "first_read"))
_UPDATE = update_rows(CONTACT, _KEY, _VALUES)


class IntakeStore:
    """The transactions of pulling and sweeping."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def progress(self, connector_id: int) -> Progress:
        """Return where a connector stands."""
        with self._scope.database.reading() as connection:
            row = connection.execute(select(CONNECTOR).where(CONNECTOR.c.id == connector_id)).one()
        return Progress(row.cursor, row.sweep_cursor, row.sweep, row.swept_at, row.mapping, row.trouble)

    def known_contacts(self, connector_id: int) -> int:
        """Return how many live contacts are known of a connector."""
        with self._scope.database.reading() as connection:
            return self._count(connection, CONTACT.c.connector_id == connector_id)

    def store_page(
        self,
        connector_id: int,
        rows: Sequence[Intake],
        *,
        cursor: str,
        now: datetime,
        sweep: int | None = None,
        mapping: str | None = None,
        adopting: FirstRun | None = None,
    ) -> Stored:
        """Make a page and its cursor true together; a page without news, outside a sweep, writes nothing.

        `sweep` is the number of the sweep the page belongs to, None for a poll, and `mapping` the digest of
        what it is read with; `adopting` is set while the
        connector's first read decides whether its points are in the wallet already.
        """
        by_id = {row.record_id: row for row in rows}
        merged = {old: row.record_id for row in by_id.values() for old in row.merged_from if old not in by_id}
        survivors = {row.merged_into for row in by_id.values() if row.merged_into}
        with self._scope.database.reading() as connection:
            before = self._before(connection, connector_id, {*by_id, *merged, *survivors})
            stands = connection.execute(select(CONNECTOR).where(CONNECTOR.c.id == connector_id)).one()
        sweeping = sweep is not None
        changed = [row for row in by_id.values() if _differs(before.get(row.record_id), row, sweeping)]
        absorbed = {
            old: survivor
            for old, survivor in merged.items()
            if old in before and before[old].state != ContactState.GONE
        }
        news = {row.record_id for row in changed}
        echoes = [
            it for it in by_id if it not in news and it in before and before[it].write_due == WriteDue.ECHO
        ]
        if not changed and not absorbed and not sweeping and not echoes and cursor == stands.cursor:
            return Stored()
        seen = sweep if sweep is not None else stands.sweep
        with self._scope.database.writing() as connection:
            stored = self._apply(connection, connector_id, changed, absorbed, before, now, seen, adopting)
            if before and (sweeping or stands.sweep_cursor is not None):
                # What a poll brings while a sweep is cut lives too: the sweep may be past its place.
                mine = and_(CONTACT.c.connector_id == connector_id, among(CONTACT.c.record_id, list(by_id)))
                connection.execute(update(CONTACT).where(mine).values(seen=seen))
            if echoes:
                mine = and_(CONTACT.c.connector_id == connector_id, among(CONTACT.c.record_id, echoes))
                connection.execute(update(CONTACT).where(mine).values(write_due=WriteDue.NO))
            moved: dict[str, Any] = {"moved_at": to_ms(now)}
            moved |= {"sweep_cursor": cursor, "sweep": sweep} if sweeping else {"cursor": cursor}
            moved |= {} if mapping is None else {"mapping": mapping}
            connection.execute(update(CONNECTOR).where(CONNECTOR.c.id == connector_id).values(moved))
        return replace(stored, echoes=len(echoes))

    def missing(self, connector_id: int, sweep: int) -> tuple[int, int]:
        """Return how many live contacts a complete sweep did not find, and how many were known."""
        mine = CONTACT.c.connector_id == connector_id
        with self._scope.database.reading() as connection:
            return self._count(connection, mine, CONTACT.c.seen < sweep), self._count(connection, mine)

    def finish_sweep(self, connector_id: int, *, sweep: int, mapping: str, bury: bool, now: datetime) -> int:
        """Close a complete sweep; with `bury`, contacts it did not find are gone. Returns how many.

        `mapping` is the digest of the mapping that every contact has now been read with.
        """
        gone = 0
        while bury:
            with self._scope.database.writing() as connection:
                condition = and_(
                    CONTACT.c.connector_id == connector_id,
                    CONTACT.c.seen < sweep,
                    CONTACT.c.state != ContactState.GONE,
                )
                page = connection.execute(select(*_KNOWN).where(condition).limit(2000)).all()
                before = {row.record_id: Known(*row) for row in page}
                self._apply(connection, connector_id, [], dict.fromkeys(before), before, now, sweep, None)
            gone += len(page)
            bury = bool(page)
        with self._scope.database.writing() as connection:
            connection.execute(
                update(CONNECTOR)
                .where(CONNECTOR.c.id == connector_id)
                .values(
                    cursor=func.coalesce(CONNECTOR.c.cursor, CONNECTOR.c.sweep_cursor),
                    sweep_cursor=None,
                    swept_at=to_ms(now),
                    mapping=mapping,
                )
            )
        return gone

    def forget_cursor(self, connector_id: int) -> None:
        """Forget where polling stands, so that the next cycle reads everything again."""
        with self._scope.database.writing() as connection:
            nothing = {"cursor": None, "sweep_cursor": None}
            connection.execute(update(CONNECTOR).where(CONNECTOR.c.id == connector_id).values(nothing))

    def set_trouble(self, connector_id: int, trouble: str | None) -> bool:
        """Remember why a connector is paused, or None; returns whether that is news."""
        if self.progress(connector_id).trouble == trouble:
            return False
        with self._scope.database.writing() as connection:
            connection.execute(
                update(CONNECTOR).where(CONNECTOR.c.id == connector_id).values(trouble=trouble)
            )
        return True

    def _before(
        self, connection: Connection, connector_id: int, record_ids: Iterable[str]
    ) -> dict[str, Known]:
        mine = and_(CONTACT.c.connector_id == connector_id, among(CONTACT.c.record_id, record_ids))
        return {row.record_id: Known(*row) for row in connection.execute(select(*_KNOWN).where(mine))}

    def _count(self, connection: Connection, *conditions: Any) -> int:
        live = CONTACT.c.state != ContactState.GONE
        return connection.scalar(select(func.count()).select_from(CONTACT).where(live, *conditions)) or 0

    def _apply(
        self,
        connection: Connection,
        connector_id: int,
        changed: Sequence[Intake],
        absorbed: Mapping[str, str | None],
        before: Mapping[str, Known],
        now: datetime,
        seen: int,
        adopting: FirstRun | None,
    ) -> Stored:
        """Write the changed contacts and everything that follows from them for their members.

        `seen` is the sweep that new contacts count as found by.
        """
        if not changed and not absorbed:
            return Stored()
        membership = Membership(self._scope, connection, connector_id, now=now)
        gone = [*absorbed, *(row.record_id for row in changed if row.state is ContactState.GONE)]
        left = [*gone, *(row.record_id for row in changed if row.state is ContactState.EXCLUDED)]
        active = [row for row in changed if row.state is ContactState.ACTIVE]
        membership.load(
            [row.mapped for row in active if row.mapped is not None],
            {row.member_id for row in before.values() if row.member_id is not None},
        )
        for record_id in left:
            membership.leave(record_id, before[record_id].member_id if record_id in before else None)
        refused = [row for row in changed if row.state is ContactState.QUARANTINED]
        for row in active:
            was = before.get(row.record_id)
            linked = None if was is None else was.member_id
            adopted = adopting or (
                self._scope.rules.first_run if was is not None and was.first_read else None
            )
            trouble = membership.join(row.record_id, row.fingerprint, row.mapped, linked, adopting=adopted)
            if trouble is not None:
                refused.append(
                    Intake(row.record_id, ContactState.QUARANTINED, row.fingerprint, None, *trouble)
                )
        merges = {**absorbed} | {row.record_id: row.merged_into for row in changed if row.merged_into}
        for record_id, survivor in merges.items():
            if survivor is not None and record_id in before:
                into = before[survivor].member_id if survivor in before else None
                membership.inherit(before[record_id].member_id, survivor, into)
        members = membership.save()
        held = {row.record_id: row for row in refused}
        writes = connector_id in self._scope.writing
        new: list[tuple[Any, ...]] = []
        old: list[tuple[Any, ...]] = []
        for row in changed:
            entry = held.get(row.record_id, row)
            was = before.get(row.record_id)
            if was is None and entry.state is ContactState.GONE:
                continue
            kept = None if was is None else was.member_id
            member_id = members.get(row.record_id, kept)
            values = (
                member_id,
                int(entry.state),
                entry.fingerprint,
                row.points,
                row.written_at,
                row.written_status,
                int(writes and entry.state in _WRITABLE),
            )
            if was is None:
                unread = int(adopting is not None and entry.state is not ContactState.ACTIVE)
                new.append((*values, connector_id, row.record_id, seen, unread))
            else:
                old.append((*values, connector_id, row.record_id))
        _INSERT.run(connection, new)
        _UPDATE.run(connection, old)
        membership.unsettle_heirs()
        self._bury(connection, connector_id, list(absorbed))
        self._lift(connection, connector_id, changed, list(absorbed), before)
        self._quarantine(connection, connector_id, refused, now)
        return Stored(
            changed=len(changed) + len(absorbed),
            quarantined=len(refused),
            gone=sum(record_id in before for record_id in gone),
            fallen=membership.fallen,
            refusals=tuple((row.record_id, row.field) for row in refused),
        )

    @staticmethod
    def _bury(connection: Connection, connector_id: int, record_ids: Sequence[str]) -> None:
        if record_ids:
            mine = and_(CONTACT.c.connector_id == connector_id, among(CONTACT.c.record_id, record_ids))
            connection.execute(
                update(CONTACT).where(mine).values(state=ContactState.GONE, fingerprint=None, write_due=0)
            )

    def _lift(
        self,
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
        same = {row.record_id: row for row in changed if _same_profile(before.get(row.record_id), row)}
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
            self._scope.refresh(connection, again)

    @staticmethod
    def _quarantine(
        connection: Connection, connector_id: int, refused: Sequence[Intake], now: datetime
    ) -> None:
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


_POINTS_COUNT = {"points", "row"}  # "row": the wallet did not say which field
_WRITABLE = {ContactState.ACTIVE, ContactState.QUARANTINED}


def _same_profile(before: Known | None, row: Intake) -> bool:
    return before is not None and row.state is ContactState.ACTIVE and before.fingerprint == row.fingerprint


def _differs(before: Known | None, row: Intake, sweeping: bool) -> bool:  # noqa: FBT001 - private, and named by its caller
    if before is None:
        return row.state is not ContactState.GONE
    if row.state is ContactState.GONE:
        return bool(before.state != ContactState.GONE)
    if sweeping and before.state == ContactState.QUARANTINED and row.state is ContactState.ACTIVE:
        return True  # its email change was held: what held it may be over
    return bool(
        before.fingerprint != row.fingerprint
        or before.state == ContactState.GONE
        or before.points != row.points
        or before.written_at != row.written_at
        or before.written_status != row.written_status
    )
