"""A state that was put back, older than what was sent: what may have been awarded since is in doubt.

Nobody can know from such a state what was sent after it. So nothing is sent of an organization before each
of its connectors has been read in whole; whatever is owed then is taken for a batch that may have been sent.
An entry of the import log that has not moved since proves that nothing was awarded: those points are sent.
The others are held for a person.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Any

import orjson
from sqlalchemy import Connection, and_, bindparam, or_, select, true, update

from syncsvc.config import OrganizationConfig, Points
from syncsvc.rules.intake import ContactState
from syncsvc.rules.settling import Grade
from syncsvc.state.bulk import insert_rows, update_rows
from syncsvc.state.codes import RESTORED, FirstRead, Lane, Outcome
from syncsvc.state.database import Database, Record, as_list, one_of, to_ms
from syncsvc.state.histories import STAKE
from syncsvc.state.mark import begin_history
from syncsvc.state.payloads import OF_MEMBER, silence
from syncsvc.state.scope import OWN_BRANDS, UNSETTLED_BATCHES, Scope
from syncsvc.state.settlements import Facts, Ruling, Settlements
from syncsvc.state.stakes import OF_ITS_ROW, lay, lift
from syncsvc.state.tables import (
    BATCH,
    BATCH_ROW,
    BRAND,
    CONNECTOR,
    CONTACT,
    MEMBER,
    META,
    ORGANIZATION,
    PAYLOAD,
)

_ROWS = 2000

_OWED = MEMBER.c.earned - MEMBER.c.credited - MEMBER.c.unsettled
_OF_ITS_OWNER = and_(
    CONTACT.c.connector_id == MEMBER.c.owner_connector, CONTACT.c.record_id == MEMBER.c.owner_record
)
_CONCERNED = or_(bindparam("b_first") == true(), one_of(MEMBER.c.owner_connector, "b_connectors"))
"""The condition for members that what is read now tells about: all of them, at first."""
_SWEEP = select(CONNECTOR.c.sweep).where(CONNECTOR.c.id == CONTACT.c.connector_id).scalar_subquery()
_SAME = (
    select(CONTACT.c.seen)
    .where(
        _OF_ITS_OWNER,
        CONTACT.c.state == ContactState.ACTIVE,
        CONTACT.c.seen >= _SWEEP,
        CONTACT.c.first_read == FirstRead.PAST,
    )
    .exists()
)
"""The condition for members whose owner was read now, and is theirs in the state that was put back too."""
_OWING = (
    select(
        MEMBER.c.id,
        MEMBER.c.wanted,
        MEMBER.c.unsettled,
        MEMBER.c.log_value,
        _OWED.label("owed"),
    )
    .where(MEMBER.c.brand == bindparam("b_brand"), _OWED > 0, _CONCERNED)
    .order_by(MEMBER.c.id)
    .limit(_ROWS)
)
_UNSETTLED = (
    select(BATCH_ROW.c.batch_id, BATCH_ROW.c.position, BATCH_ROW.c.member_id, BATCH_ROW.c.log_before)
    .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
    .where(
        one_of(BATCH_ROW.c.member_id, "b_members"),
        BATCH_ROW.c.account_id.is_(None),
        BATCH_ROW.c.outcome.in_([Outcome.DOUBT, Outcome.HELD]),
        BATCH.c.lane == Lane.POINTS,
    )
)
_ELSEWHERE = (
    select(BATCH_ROW.c.batch_id, BATCH_ROW.c.position)
    .join(BATCH, BATCH.c.id == BATCH_ROW.c.batch_id)
    .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
    .where(
        UNSETTLED_BATCHES,
        BATCH.c.lane == Lane.POINTS,
        BATCH_ROW.c.outcome == Outcome.DOUBT,
        or_(BATCH_ROW.c.account_id.is_not(None), select(STAKE.c.id).where(OF_ITS_ROW).exists(), ~_SAME),
    )
)
_LAST_SENT = (
    select(BATCH.c.sent_at, BATCH.c.claimed_at, BRAND.c.log_read_at)
    .join(BRAND, BRAND.c.id == BATCH.c.brand)
    .where(BATCH.c.brand == bindparam("b_brand"), BATCH.c.sent_at.is_not(None), BATCH.c.cycle != RESTORED)
    .order_by(BATCH.c.id.desc())
    .limit(1)
)
_BATCH = BATCH.insert().returning(BATCH.c.id)
_BATCH_ROWS = insert_rows(
    BATCH_ROW, ("batch_id", "position", "member_id", "fingerprint", "points", "log_before")
)
_CLAIMED = update_rows(MEMBER, ("id",), ("unsettled", "open_batch"))
_MAILING = (
    select(PAYLOAD.c.member_id, PAYLOAD.c.content)
    .join(MEMBER, OF_MEMBER)
    .where(MEMBER.c.brand.in_(OWN_BRANDS), PAYLOAD.c.member_id > bindparam("b_after"), _CONCERNED)
    .order_by(PAYLOAD.c.member_id)
    .limit(_ROWS)
)
_INTRODUCED = (
    update(MEMBER)
    .where(MEMBER.c.brand.in_(OWN_BRANDS), MEMBER.c.introduced == 0, _CONCERNED)
    .values(introduced=1)
)
_UNREAD = (
    update(CONTACT)
    .where(
        one_of(CONTACT.c.connector_id, "b_connectors"),
        or_(
            CONTACT.c.state != ContactState.ACTIVE,
            CONTACT.c.seen < _SWEEP,
            CONTACT.c.points.is_(None),
            and_(  # it owns its member by now, and its points are not counted yet
                CONTACT.c.fingerprint.is_(None),
                select(MEMBER.c.id)
                .where(MEMBER.c.id == CONTACT.c.member_id, _OF_ITS_OWNER, MEMBER.c.earned < CONTACT.c.points)
                .exists(),
            ),
            ~select(MEMBER.c.id).where(MEMBER.c.id == CONTACT.c.member_id, _OF_ITS_OWNER).exists(),
        ),
    )
    .values(first_read=FirstRead.RESTORED)
)
_LESSER = (
    update(CONTACT)
    .where(
        one_of(CONTACT.c.connector_id, "b_connectors"),
        CONTACT.c.first_read == FirstRead.PAST,
        ~select(MEMBER.c.id).where(MEMBER.c.id == CONTACT.c.member_id, _OF_ITS_OWNER).exists(),
    )
    .values(first_read=FirstRead.MOVED)
)
"""Who owned no member then has come to the one that it owns when it does."""
_READ = (
    update(CONTACT)
    .where(one_of(CONTACT.c.connector_id, "b_connectors"), CONTACT.c.first_read == FirstRead.MOVED)
    .values(first_read=FirstRead.PAST)
)


@dataclass(frozen=True, slots=True)
class PutBack:
    """Who put a state back, and the connectors that have not been read in whole since."""

    by: str
    connectors: tuple[str, ...]
    read: bool = False


def put_back(database: Database, organizations: Sequence[OrganizationConfig], *, by: str) -> None:
    """Let nothing be sent of any organization before it is known what may have been; see the module.

    `organizations` are those that the state knows by now. The state is the newest from then on: one from
    before is refused.
    """
    configured = {it.name: list(it.connectors) for it in organizations}
    with database.writing() as connection:
        for row in connection.execute(select(ORGANIZATION.c.id, ORGANIZATION.c.name)).all():
            mine = CONNECTOR.c.organization_id == row.id
            known = connection.scalars(select(CONNECTOR.c.name).where(mine))
            names = dict.fromkeys([*configured.get(row.name, ()), *known])
            _keep(connection, row.id, PutBack(by, tuple(names)))
            # An interrupted sweep would go on behind what it has read.
            connection.execute(update(CONNECTOR).where(mine).values(cursor=None, sweep_cursor=None))
            theirs = as_list(connection.scalars(select(CONNECTOR.c.id).where(mine)))
            connection.execute(_LESSER, {"b_connectors": theirs})
        begin_history(connection)
    database.mark(database.known())


def _name(organization_id: int) -> str:
    return f"{RESTORED}:{organization_id}"


def _keep(connection: Connection, organization_id: int, found: PutBack) -> None:
    connection.execute(META.delete().where(META.c.name == _name(organization_id)))
    if found.connectors:
        value = orjson.dumps({"by": found.by, "connectors": found.connectors, "read": found.read})
        connection.execute(META.insert().values(name=_name(organization_id), value=value))


def _known_until(connection: Connection, brand: int) -> int:
    """Return the time, by the wallet's clock, that what is not known was sent after.

    That is when the log was read last, by the difference of the clocks at the newest batch; 0 where none is
    known.
    """
    last = connection.execute(_LAST_SENT, {"b_brand": brand}).first()
    if last is None:
        return 0
    ahead = last.sent_at - last.claimed_at
    return int(max(last.sent_at, (last.log_read_at or 0) + ahead))


class Restoration:
    """The transactions of taking on a state that was put back."""

    def __init__(self, scope: Scope, settlements: Settlements) -> None:
        """Work within one organization."""
        self._scope = scope
        self._settlements = settlements
        self._found: PutBack | None = None
        self._looked = False

    @property
    def put_back(self) -> PutBack | None:
        """Who put the state back, where configured connectors have not been read since; None otherwise.

        Nobody puts a state back while it is open.
        """
        if not self._looked:
            with self._scope.database.reading() as connection:
                named = META.c.name == _name(self._scope.organization_id)
                value = connection.scalar(select(META.c.value).where(named))
            facts = None if value is None else orjson.loads(value)
            self._found = facts and PutBack(facts["by"], tuple(facts["connectors"]), facts.get("read", False))
            self._looked = True
        if self._found is None or not self._scope.connectors.keys() & set(self._found.connectors):
            return None
        return self._found

    def is_behind(self, connector_id: int) -> bool:
        """Return whether the state was put back, and this connector has not been read in whole since."""
        return connector_id in self._behind()

    def doubt_what_is_owed(self, *, now: datetime) -> tuple[int, int]:
        """Put everything that is owed in doubt, as sent by a process that is lost; returns rows and points.

        Every connector has been read by now, and the import log has not been read since the state was put
        back. Mails that may have been sent are sent no more; what a contact earns that could not be read now
        counts as awarded once it can.
        """
        rows = points = 0
        while self._scope.rules.points is not Points.SET:  # what is off may be sent again one day
            with self._scope.database.writing() as connection:
                found = self._doubt_some(connection, now)
            if not found:
                break
            rows, points = rows + len(found), points + sum(found)
        self._silence()
        assert self._found is not None  # noqa: S101 - who calls this has looked
        with self._scope.database.writing() as connection:
            if not self._found.read:
                self._hold_elsewhere(connection, now)
            for statement in (_INTRODUCED, _READ, _UNREAD):
                connection.execute(statement, self._concerned())
            left = tuple(it for it in self._found.connectors if it not in self._scope.connectors)
            self._found = PutBack(self._found.by, left, read=True)
            _keep(connection, self._scope.organization_id, self._found)
        return rows, points

    def _concerned(self, **values: Any) -> dict[str, Any]:
        assert self._found is not None  # noqa: S101 - who calls this has looked
        return self._scope.bound(b_first=not self._found.read, b_connectors=as_list(self._behind()), **values)

    def _behind(self) -> list[int]:
        found = self.put_back
        return [it for name, it in self._scope.connectors.items() if found and name in found.connectors]

    def _doubt_some(self, connection: Connection, now: datetime) -> Collection[int]:
        """Make one batch of members that are owed points, in doubt; returns the points of its rows."""
        mine = select(BRAND.c.id).where(BRAND.c.organization_id == self._scope.organization_id)
        for brand in connection.scalars(mine.order_by(BRAND.c.id)).all():
            members = connection.execute(_OWING, self._concerned(b_brand=brand)).all()
            if members:
                before, stakes = self._end_older_doubts(connection, members, now)
                members = connection.execute(_OWING, self._concerned(b_brand=brand)).all()
                return self._claim(connection, brand, members, before, stakes, now)
        return ()

    def _end_older_doubts(
        self, connection: Connection, members: Sequence[Record], now: datetime
    ) -> tuple[dict[int, str | None], dict[int, list[Record]]]:
        """Let what is in doubt of these members be owed again, so that all of it is in doubt once.

        Returns their entries as they were before that was sent, which are evidence for all of it, and the
        stakes of others in it.
        """
        asked = [it.id for it in members if it.unsettled]
        rows = connection.execute(_UNSETTLED, {"b_members": as_list(asked)}).all() if asked else []
        rulings: dict[int, dict[int, Ruling]] = {}
        for row in rows:
            rulings.setdefault(row.batch_id, {})[row.position] = Ruling(Outcome.REFUTED, Grade.POLICY)
        stakes: dict[int, list[Record]] = {}
        whose = {(row.batch_id, row.position): row.member_id for row in rows}
        for batch, them in rulings.items():
            lifted = lift(connection, batch, them)
            stakes |= {whose[batch, position]: found for position, found in lifted.items()}
            self._settlements.settle_in(connection, batch, them, now=now)
        return {row.member_id: row.log_before for row in rows}, stakes

    def _claim(
        self,
        connection: Connection,
        brand: int,
        members: Sequence[Record],
        before: dict[int, str | None],
        stakes: dict[int, list[Record]],
        now: datetime,
    ) -> Collection[int]:
        assert self._found is not None  # noqa: S101 - who calls this has looked
        rows: list[tuple[Any, ...]] = [
            (place, it.id, it.wanted, it.owed, before.get(it.id, it.log_value))
            for place, it in enumerate(members)
        ]
        points = [it.owed for it in members]
        batch = {
            "brand": brand,
            "cycle": RESTORED,
            "lane": int(Lane.POINTS),
            "row_count": len(rows),
            "points": sum(points),
            "digest": blake2b(orjson.dumps([it[1:4:2] for it in rows]), digest_size=16).digest(),
            "claimed_at": to_ms(now),
            "sent_at": _known_until(connection, brand),
        }
        batch_id = connection.execute(_BATCH, batch).scalar_one()
        _BATCH_ROWS.run(connection, [(batch_id, *row) for row in rows])
        lay(connection, batch_id, {place: stakes.get(it.id, []) for place, it in enumerate(members)})
        _CLAIMED.run(connection, [(it.unsettled + it.owed, batch_id, it.id) for it in members])
        told = f"the state was put back by {self._found.by}, and may not know that it was sent"
        outcome = Outcome.HELD if self._found.read else Outcome.DOUBT
        rulings = dict.fromkeys(range(len(members)), Ruling(outcome, Grade.POLICY))
        self._settlements.settle_in(connection, batch_id, rulings, now=now, facts=Facts(detail=told))
        return points

    def _hold_elsewhere(self, connection: Connection, now: datetime) -> None:
        """Hold what may have been paid to another member, or for another owner: an entry proves nothing."""
        rulings: dict[int, dict[int, Ruling]] = {}
        for row in connection.execute(_ELSEWHERE, self._scope.bound()):
            rulings.setdefault(row.batch_id, {})[row.position] = Ruling(Outcome.HELD, Grade.POLICY)
        for batch, them in rulings.items():
            self._settlements.settle_in(connection, batch, them, now=now)

    def _silence(self) -> None:
        """Take the mails out of every profile that waits to be sent."""
        after = 0
        while True:
            with self._scope.database.writing() as connection:
                page = connection.execute(_MAILING, self._concerned(b_after=after)).all()
                if not page:
                    return
                silence(connection, page)
                after = page[-1].member_id
