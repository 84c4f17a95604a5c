"""Stores what connectors read: a page of contacts, their members and the cursor, in one transaction.

An unchanged contact costs one comparison in a set-based query. A changed one updates what its member *should
be*; nothing here decides what is sent.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, select, update

from syncsvc.config import FirstRun
from syncsvc.rules.intake import Intake
from syncsvc.state import quarantine
from syncsvc.state.codes import FirstRead, WriteDue
from syncsvc.state.contacts import (
    ACTIVE,
    EXCLUDED,
    GONE,
    INSERT,
    KNOWN,
    QUARANTINED,
    UPDATE,
    Known,
    differs,
)
from syncsvc.state.database import among, as_list, change_row, one_of, to_ms
from syncsvc.state.first_reads import FirstReads
from syncsvc.state.membership import Membership
from syncsvc.state.merges import Merges
from syncsvc.state.newcomers import admit
from syncsvc.state.restoration import Restoration
from syncsvc.state.scope import Scope
from syncsvc.state.tables import CONNECTOR, CONTACT


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
    """Where a connector stands.

    `sweep` is the number of its last sweep, `sweep_asked` that of one that a person asked for. `sweep_cursor`
    is set while a sweep is under way.
    """

    cursor: str | None
    sweep_cursor: str | None
    sweep: int
    swept_at: int | None
    mapping: str | None
    trouble: str | None
    sweep_asked: int

    @property
    def first_read(self) -> bool:
        """Whether the first complete read is still to come."""
        return self.swept_at is None


_STANDS = select(CONNECTOR).where(CONNECTOR.c.id == bindparam("b_connector"))
_THESE = and_(CONTACT.c.connector_id == bindparam("b_connector"), one_of(CONTACT.c.record_id, "b_records"))
_KNOWN = select(*KNOWN).where(_THESE)
_NEAR = (
    select(CONTACT.c.record_id)
    .where(
        CONTACT.c.connector_id == bindparam("b_connector"),
        CONTACT.c.record_id.between(bindparam("b_least"), bindparam("b_most")),
        func.length(CONTACT.c.record_id) == bindparam("b_length"),
    )
    .limit(1)
)
_LENGTHS = 2  # of a page's ids, where one is the next number after another
_LIVING = and_(CONTACT.c.connector_id == bindparam("b_connector"), CONTACT.c.state != GONE)
_MISSING = and_(_LIVING, CONTACT.c.seen < bindparam("b_sweep"))
_LIVE = select(func.count()).select_from(CONTACT).where(_LIVING)
_MISSED = select(func.count()).select_from(CONTACT).where(_MISSING)
_MISSED_ONES = select(*KNOWN).where(_MISSING).limit(2000)
_SEEN = update(CONTACT).where(_THESE).values(seen=bindparam("b_seen"))
_NOT_DUE = update(CONTACT).where(_THESE).values(write_due=WriteDue.NO)


def _these(connector_id: int, record_ids: Iterable[str]) -> dict[str, Any]:
    return {"b_connector": connector_id, "b_records": as_list(record_ids)}


def _span(connector_id: int, record_ids: Sequence[str]) -> dict[str, Any]:
    ends = {"b_least": min(record_ids), "b_most": max(record_ids), "b_length": len(record_ids[0])}
    return {"b_connector": connector_id, **ends}


class IntakeStore:
    """The transactions of pulling and sweeping."""

    def __init__(self, scope: Scope, restoration: Restoration) -> None:
        """Work within one organization, whose state may have been put back."""
        self._scope = scope
        self._restoration = restoration

    def progress(self, connector_id: int) -> Progress:
        """Return where a connector stands."""
        with self._scope.database.reading() as connection:
            row = connection.execute(_STANDS, {"b_connector": connector_id}).one()
        return Progress(
            row.cursor,
            row.sweep_cursor,
            row.sweep,
            row.swept_at,
            row.mapping,
            row.trouble,
            row.sweep_asked,
        )

    def known_contacts(self, connector_id: int) -> int:
        """Return how many live contacts are known of a connector."""
        with self._scope.database.reading() as connection:
            return connection.scalar(_LIVE, {"b_connector": connector_id}) or 0

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
        what it is read with; `adopting` is set while the connector's first read decides whether its points
        are in the wallet already.
        """
        merges = Merges(rows)
        by_id = merges.contacts
        restored = self._restoration.is_behind(connector_id)  # then nobody who is new is like the others
        with self._scope.database.reading() as connection:
            before = self._before(connection, connector_id, merges.named())
            stands = connection.execute(_STANDS, {"b_connector": connector_id}).one()
            relays = merges.relays(connection, connector_id, before, restored=restored)
        sweeping = sweep is not None
        changed = [
            row
            for it, row in by_id.items()
            if (differs(before[it], row, sweeping=sweeping) if it in before else row.state is not GONE)
            or it in relays
        ]
        absorbed = merges.absorbed(before, relays)
        echoes = {it for it, was in before.items() if was.write_due == WriteDue.ECHO and it in by_id}
        if echoes:
            echoes -= {row.record_id for row in changed}
        if not changed and not absorbed and not sweeping and not echoes and cursor == stands.cursor:
            return Stored()
        seen = sweep if sweep is not None else stands.sweep
        heirs = merges.heirs(absorbed)
        with self._scope.database.writing() as connection:
            others = changed
            if adopting in {None, FirstRun.IMPORT} and not restored:
                others = admit(
                    self._scope,
                    connection,
                    connector_id,
                    changed,
                    known=before,
                    heirs=heirs,
                    seen=seen,
                    first_read=adopting is not None,
                )
            stored = self._apply(connection, connector_id, others, absorbed, before, now, seen, adopting)
            if before and (sweeping or stands.sweep_cursor is not None):
                # What a poll brings while a sweep is cut lives too: the sweep may be past its place.
                connection.execute(_SEEN, {**_these(connector_id, by_id), "b_seen": seen})
            if echoes:
                connection.execute(_NOT_DUE, _these(connector_id, echoes))
            moved: dict[str, Any] = {"moved_at": to_ms(now)}
            moved |= {"sweep_cursor": cursor, "sweep": sweep} if sweeping else {"cursor": cursor}
            moved |= {} if mapping is None else {"mapping": mapping}
            change_row(connection, CONNECTOR, connector_id, moved)
        return replace(stored, changed=len(changed) + len(absorbed), echoes=len(echoes))

    def missing(self, connector_id: int) -> tuple[int, int]:
        """Return how many live contacts a complete sweep did not find, and how many were known."""
        mine = {"b_connector": connector_id}
        with self._scope.database.reading() as connection:
            sweep = self._sweep(connection, connector_id)
            missed = connection.scalar(_MISSED, mine | {"b_sweep": sweep}) or 0
            return missed, connection.scalar(_LIVE, mine) or 0

    def finish_sweep(
        self,
        connector_id: int,
        *,
        mapping: str,
        bury: bool,
        polled: bool,
        partial: int | None,
        now: datetime,
    ) -> int:
        """Close a complete sweep; with `bury`, contacts it did not find are gone. Returns how many.

        `partial` says how many are kept because it could not tell every record from the others.
        `mapping` is the digest of the mapping that every contact has now been read with. Polls go on where
        they stood, or, where the sweep was read instead of a poll (`polled`), where the sweep ended.
        """
        gone = 0
        while bury:
            with self._scope.database.writing() as connection:
                sweep = self._sweep(connection, connector_id)
                page = connection.execute(_MISSED_ONES, {"b_connector": connector_id, "b_sweep": sweep}).all()
                before = {was.record_id: was for was in map(Known._make, page)}
                self._apply(connection, connector_id, [], dict.fromkeys(before), before, now, sweep, None)
            gone += len(page)
            bury = bool(page)
        with self._scope.database.writing() as connection:
            connection.execute(
                update(CONNECTOR)
                .where(CONNECTOR.c.id == connector_id)
                .values(
                    cursor=CONNECTOR.c.sweep_cursor
                    if polled
                    else func.coalesce(CONNECTOR.c.cursor, CONNECTOR.c.sweep_cursor),
                    sweep_cursor=None,
                    swept_at=to_ms(now),
                    partial=partial,
                    mapping=mapping,
                )
            )
        return gone

    def forget_cursor(self, connector_id: int) -> None:
        """Forget where polling stands, so that the next cycle reads everything again."""
        with self._scope.database.writing() as connection:
            change_row(connection, CONNECTOR, connector_id, {"cursor": None, "sweep_cursor": None})

    def ask_for_sweep(self) -> None:
        """Let the next cycle read every contact of every connector again."""
        with self._scope.database.writing() as connection:
            asked = update(CONNECTOR).where(CONNECTOR.c.id.in_(self._scope.connectors.values()))
            connection.execute(asked.values(sweep_asked=CONNECTOR.c.sweep + 1))

    def set_trouble(self, connector_id: int, trouble: str | None) -> bool:
        """Remember why a connector is paused, or None; returns whether that is news."""
        if self.progress(connector_id).trouble == trouble:
            return False
        with self._scope.database.writing() as connection:
            change_row(connection, CONNECTOR, connector_id, {"trouble": trouble})
        return True

    def _before(
        self, connection: Connection, connector_id: int, record_ids: Collection[str]
    ) -> dict[str, Known]:
        if connection.dialect.name == "sqlite":  # a server may have another order of texts
            # A first read brings ids in their order, those of numbers by their length: a look or two tell
            # that none of them is known.
            lengths = {len(it) for it in record_ids}
            if len(lengths) <= _LENGTHS and not any(
                connection.execute(
                    _NEAR, _span(connector_id, [it for it in record_ids if len(it) == length])
                ).first()
                for length in lengths
            ):
                return {}
        found = map(Known._make, connection.execute(_KNOWN, _these(connector_id, record_ids)).all())
        return {was.record_id: was for was in found}

    @staticmethod
    def _sweep(connection: Connection, connector_id: int) -> int:
        return int(connection.execute(_STANDS, {"b_connector": connector_id}).one().sweep)

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
        buried = [row for row in changed if row.state is GONE]
        merges = {**absorbed} | {row.record_id: row.merged_into for row in buried}
        left = [*merges, *(row.record_id for row in changed if row.state is EXCLUDED)]
        active = [row for row in changed if row.state is ACTIVE]
        linked = {record_id: was.member_id for record_id, was in before.items()}
        membership.load(
            [row.mapped for row in active if row.mapped is not None],
            {member_id for member_id in linked.values() if member_id is not None},
            {*left, *filter(None, merges.values()), *(row.record_id for row in active)},
        )
        for record_id in left:
            membership.leave(record_id, linked.get(record_id), heir=merges.get(record_id))
        staying, refused = self._move(membership, active, linked)
        refused += [row for row in changed if row.state is QUARANTINED]
        membership.part()
        first_reads = FirstReads(before, merges, adopting=adopting)
        self._join(membership, staying, first_reads)
        if self._restoration.is_behind(connector_id):
            first_reads.moved([*membership.arrived(linked), *filter(None, merges.values())])
        membership.inherit(linked)
        members = membership.save()
        held, writes = {row.record_id: row for row in refused}, connector_id in self._scope.writing
        new: list[tuple[Any, ...]] = []
        old: list[tuple[Any, ...]] = []
        for row in changed:
            record_id, mapped = row.record_id, row.mapped
            was, member, entry = before.get(record_id), members.get(record_id), held.get(record_id, row)
            state = entry.state
            if was is None and state is GONE:
                continue
            kept = None if was is None or row.merged_into is not None else was.member_id
            member_id = kept if member is None else member.id
            postponed = record_id in membership.postponed
            points = None if mapped is None else mapped.points
            content = member_id, int(state), None if postponed else entry.fingerprint, points
            # A new member's contacts show nothing until its first row has an outcome, which marks them then.
            shows = state is QUARANTINED or (state is ACTIVE and (member is None or not member.awaited))
            written = row.written_at, row.written_status, int(writes and shows)
            owns = membership.is_owner(record_id) and not postponed
            first = first_reads.after(record_id, owns=owns, none=points is None)
            if was is None:
                new.append((connector_id, record_id, *content, seen, *written, first))
            else:
                old.append((*content, *written, first, connector_id, record_id))
        INSERT.run(connection, new)
        UPDATE.run(connection, old)
        first_reads.save(connection, connector_id, {row.record_id for row in changed})
        membership.unsettle_heirs()
        self._bury(connection, connector_id, absorbed)
        dropped = quarantine.lift(self._scope, connection, connector_id, changed, list(absorbed), before)
        quarantine.put(connection, connector_id, refused, now, dropped=dropped)
        return Stored(
            changed=len(changed) + len(absorbed),
            quarantined=len(refused),
            gone=sum(it in before and before[it].state != GONE for it in merges),
            fallen=membership.fallen,
            refusals=tuple((row.record_id, row.field) for row in refused),
        )

    @staticmethod
    def _move(
        membership: Membership, active: Sequence[Intake], linked: Mapping[str, int | None]
    ) -> tuple[list[Intake], list[Intake]]:
        """Let contacts part whose emails have changed; returns those that may join, and who may not."""
        staying, refused = [], []
        for row in active:
            trouble = membership.move(row.record_id, row.mapped, linked.get(row.record_id))
            if trouble is None:
                staying.append(row)
            else:
                refused.append(Intake(row.record_id, QUARANTINED, row.fingerprint, None, *trouble))
        return staying, refused

    def _join(self, membership: Membership, staying: Sequence[Intake], first_reads: FirstReads) -> None:
        first_run = self._scope.rules.first_run
        adopting: dict[int, FirstRun | None] = {
            FirstRead.RUNNING: None if first_run is FirstRun.IMPORT else first_run,
            FirstRead.RESTORED: FirstRun.ADOPT_POINTS,
        }
        for row in staying:
            means = first_reads.of(row.record_id)
            membership.join(row, first_read=first_reads.running, adopting=adopting.get(means))

    @staticmethod
    def _bury(connection: Connection, connector_id: int, absorbed: Mapping[str, str | None]) -> None:
        gone = {"state": int(GONE), "fingerprint": None, "write_due": 0}
        merged = [record_id for record_id, heir in absorbed.items() if heir is not None]
        # What was merged away has passed its history on, once.
        for record_ids, values in ((list(absorbed), gone), (merged, {"member_id": None})):
            if record_ids:
                mine = and_(CONTACT.c.connector_id == connector_id, among(CONTACT.c.record_id, record_ids))
                connection.execute(update(CONTACT).where(mine).values(values))
