"""Claims batches: what is going to be sent is durable, row by row, before it leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    or_,
    select,
    update,
)

from syncsvc.config import Points, WalletConfig
from syncsvc.rules.brakes import Allowed, Totals
from syncsvc.rules.mapping import MAILS
from syncsvc.state.codes import Lane, Outcome
from syncsvc.state.database import Record, among, to_ms
from syncsvc.state.late import unsure
from syncsvc.state.plans import Planned
from syncsvc.state.scope import Scope, unproven
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, CONNECTOR, MEMBER
from syncsvc.state.witness import Witness

WELCOME = "welcome_email"
_PAGE = 1000
_ABSURD = timedelta(days=2)  # further in the future than any time zone
_ANY = 2**62  # more points than any member can be owed


@dataclass(frozen=True, slots=True)
class Batch:
    """A claimed batch: `users` are the members' rows as they go over the wire, in order.

    `witness` is the witness's row, None where it does not ride. It is no member's: `points` leave it out.
    """

    id: int
    brand_id: str
    lane: Lane
    users: Sequence[Mapping[str, Any]]
    points: int
    last_member: int
    witness: Mapping[str, Any] | None = None

    @property
    def wire(self) -> Sequence[Mapping[str, Any]]:
        """The rows of the request: the members', and last the witness's."""
        return self.users if self.witness is None else [*self.users, self.witness]


_CLAIMED = (
    MEMBER.c.id,
    MEMBER.c.email_key,
    MEMBER.c.email,
    MEMBER.c.wanted,
    MEMBER.c.delivered,
    MEMBER.c.payload,
    MEMBER.c.earned,
    MEMBER.c.credited,
    MEMBER.c.unsettled,
    MEMBER.c.introduced,
    MEMBER.c.log_value,
)


class Outbox:
    """The transactions of delivering."""

    def __init__(self, scope: Scope, wallet: WalletConfig) -> None:
        """Work within one organization, whose wallet is configured so."""
        self._scope = scope
        self._witness = Witness(scope, wallet)
        self._welcome_flag = wallet.welcome_flag.value

    def brands_due(self) -> list[str]:
        """Return the brands that have something to send."""
        due = select(MEMBER.c.id).where(MEMBER.c.brand == BRAND.c.id, MEMBER.c.due == 1).exists()
        mine = BRAND.c.organization_id == self._scope.organization_id
        with self._scope.database.reading() as connection:
            return list(connection.scalars(select(BRAND.c.brand_id).where(mine, due).order_by(BRAND.c.id)))

    def batch_limit(self, brand_id: str) -> int | None:
        """Return how many rows a batch of a brand may have, None where nothing limits it."""
        with self._scope.database.reading() as connection:
            return connection.scalar(select(BRAND.c.batch_limit).where(self._is(brand_id)))

    def limit_batches(self, brand_id: str, limit: int | None) -> None:
        """Limit the rows of a brand's batches from now on, or let them be full again."""
        with self._scope.database.writing() as connection:
            connection.execute(update(BRAND).where(self._is(brand_id)).values(batch_limit=limit))

    def totals(self, most: int | None) -> Totals:
        """Return what delivering now would send in all, for the brakes and the plan.

        Points above `most` for one member are counted as held, not as sent.
        """
        owed = self._owed_if_positive()
        sendable = self._capped(owed, most)
        sends = or_(sendable > 0, MEMBER.c.wanted.is_distinct_from(MEMBER.c.delivered))
        mine = MEMBER.c.brand.in_(
            select(BRAND.c.id).where(BRAND.c.organization_id == self._scope.organization_id)
        )
        due = (
            select(
                func.count().filter(MEMBER.c.delivered.is_not(None), sends),
                func.count().filter(MEMBER.c.delivered.is_(None), sends),
                func.coalesce(func.sum(sendable), 0),
                func.coalesce(func.max(owed), 0),
                func.count().filter(owed > (_ANY if most is None else most)),
            )
            .where(mine, MEMBER.c.due == 1, MEMBER.c.open_batch.is_(None))
            .select_from(MEMBER)
        )
        with self._scope.database.reading() as connection:
            changed, new, points, largest, over = connection.execute(due).one()
            if not changed and not new and not over:
                return Totals(0, 0, 0, 0, 0)
            known = select(func.count()).select_from(MEMBER).where(mine, MEMBER.c.delivered.is_not(None))
            return Totals(connection.scalar(known) or 0, changed, new, int(points), int(largest), over)

    def digest(self, allowed: Allowed) -> str:
        """Return a digest of every row and every point that delivering now would send: 16 hex digits."""
        mine = and_(BRAND.c.id == MEMBER.c.brand, BRAND.c.organization_id == self._scope.organization_id)
        owed = self._owed_if_positive()
        listed = (
            select(
                BRAND.c.brand_id,
                MEMBER.c.email_key,
                MEMBER.c.payload,
                self._capped(owed, allowed.most_points),
            )
            .join(BRAND, mine)
            .where(*self._sendable(allowed))
            .order_by(BRAND.c.brand_id, MEMBER.c.email_key)
        )
        digest = blake2b(digest_size=8)
        with self._scope.database.reading() as connection:
            for brand_id, email_key, payload, points in connection.execute(listed):
                digest.update(orjson.dumps([brand_id, email_key, payload.decode(), points]))
        return digest.hexdigest()

    def planned(self, allowed: Allowed) -> Iterator[Planned]:
        """Yield every row that delivering now would send, in order of the CRM record it comes from.

        Read while it is yielded, in pages; what the digest covers, row by row.
        """
        mine = and_(BRAND.c.id == MEMBER.c.brand, BRAND.c.organization_id == self._scope.organization_id)
        record = CONNECTOR.c.name + " " + MEMBER.c.owner_record
        owner = func.coalesce(record, "member " + cast(MEMBER.c.id, String)).label("owner")
        points = self._capped(self._owed_if_positive(), allowed.most_points)
        listed = (
            select(owner, BRAND.c.brand_id, MEMBER.c.email_key, MEMBER.c.payload, points.label("points"))
            .join(BRAND, mine)
            .outerjoin(CONNECTOR, CONNECTOR.c.id == MEMBER.c.owner_connector)
            .where(*self._sendable(allowed))
            .order_by(owner, MEMBER.c.id)
        )
        fingerprinter = self._scope.fingerprinter
        with self._scope.database.reading() as connection:
            for row in connection.execute(listed, execution_options={"yield_per": _PAGE}):
                content = fingerprinter.row(row.brand_id, row.email_key, row.payload.decode())
                yield Planned(row.owner, content, row.points)

    def has_due(self, lane: Lane, allowed: Allowed) -> bool:
        """Return whether any member has a row to send in a lane."""
        condition = and_(*self._sendable(allowed), self._in_lane(lane, allowed.most_points))
        mine = and_(BRAND.c.id == MEMBER.c.brand, BRAND.c.organization_id == self._scope.organization_id)
        with self._scope.database.reading() as connection:
            return (
                connection.scalar(select(MEMBER.c.id).join(BRAND, mine).where(condition).limit(1)) is not None
            )

    def witness_pause(self, brand_id: str, settled_before: datetime) -> timedelta | None:
        """Return how long it takes until the witness can ride again; None where nobody knows."""
        with self._scope.database.reading() as connection:
            brand = connection.scalar(select(BRAND.c.id).where(self._is(brand_id)))
            return None if brand is None else self._witness.pause(connection, brand, settled_before)

    def claim(
        self,
        brand_id: str,
        lane: Lane,
        *,
        limit: int,
        after: int,
        allowed: Allowed,
        cycle: str,
        now: datetime,
        sent_at: datetime,
        settled_before: datetime,
    ) -> Batch | None:
        """Make the next batch of a brand durable and return it, or None where nothing is left.

        Takes up to `limit` due members with ids above `after` that have no row unsettled. Points go only to
        members whose log entry is clearly older than `settled_before` (by the wallet's clock, as `sent_at`):
        an entry as fresh as the request could not prove anything. One far in the future cannot: its member
        is not kept waiting, and a lost answer is for a person to settle. The witness takes one of the
        `limit` where it rides.
        """
        with self._scope.database.writing() as connection:
            brand = self._scope.brand(connection, brand_id)
            rides = (
                lane is Lane.POINTS
                and limit > 1
                and self._witness.pause(connection, brand, settled_before) == timedelta()
            )
            conditions = [
                MEMBER.c.brand == brand,
                *self._sendable(allowed),
                MEMBER.c.id > after,
                self._in_lane(lane, allowed.most_points),
            ]
            if lane is Lane.POINTS:
                fresh = to_ms(settled_before)
                conditions += [
                    or_(
                        MEMBER.c.log_at.is_(None),
                        MEMBER.c.log_at < fresh,
                        MEMBER.c.log_at > to_ms(sent_at + _ABSURD),
                    ),
                    or_(MEMBER.c.quiet_until.is_(None), MEMBER.c.quiet_until <= to_ms(now)),
                ]
            listed = select(*_CLAIMED).where(*conditions).order_by(MEMBER.c.id).limit(limit - rides)
            members = connection.execute(listed).all()
            if not members:
                return None
            users = [self._user(row, brand_id, lane) for row in members]
            self._silence(connection, lane, members, users)
            points = sum(user["points"] for user in users) if lane is Lane.POINTS else 0
            witness = self._witness.row(brand_id, users[0]) if rides else None
            wire = users if witness is None else [*users, witness]
            carried = self._witness.columns(connection, brand) if rides else {}
            batch_id = connection.execute(
                BATCH.insert()
                .values(
                    brand=brand,
                    cycle=cycle,
                    lane=lane,
                    row_count=len(users),
                    points=points,
                    digest=blake2b(orjson.dumps(wire), digest_size=16).digest(),
                    **carried,
                    claimed_at=to_ms(now),
                    sent_at=to_ms(sent_at),
                )
                .returning(BATCH.c.id)
            ).scalar_one()
            connection.execute(
                BATCH_ROW.insert(),
                [
                    {
                        "batch_id": batch_id,
                        "position": position,
                        "member_id": row.id,
                        "fingerprint": row.wanted,
                        "points": user["points"],
                        "log_before": row.log_value,
                    }
                    for position, (row, user) in enumerate(zip(members, users, strict=True))
                ],
            )
            added = MEMBER.c.unsettled + bindparam("b_points") if lane is Lane.POINTS else MEMBER.c.unsettled
            connection.execute(
                update(MEMBER)
                .where(MEMBER.c.id == bindparam("b_id"))
                .values(open_batch=batch_id, unsettled=added),
                [
                    {"b_id": row.id} | ({"b_points": user["points"]} if lane is Lane.POINTS else {})
                    for row, user in zip(members, users, strict=True)
                ],
            )
        return Batch(batch_id, brand_id, lane, users, points, members[-1].id, witness)

    def _is(self, brand_id: str) -> ColumnElement[bool]:
        return and_(BRAND.c.organization_id == self._scope.organization_id, BRAND.c.brand_id == brand_id)

    @staticmethod
    def _sendable(allowed: Allowed) -> list[ColumnElement[bool]]:
        conditions = [MEMBER.c.due == 1, MEMBER.c.open_batch.is_(None)]
        return conditions if allowed.known else [*conditions, MEMBER.c.delivered.is_(None)]

    @staticmethod
    def _capped(owed: Any, most: int | None) -> Any:
        return owed if most is None else func.iif(owed > most, 0, owed)

    def _owed_if_positive(self) -> Any:
        return func.iif(self._scope.payable() > 0, self._scope.payable(), 0)

    def _in_lane(self, lane: Lane, most: int | None) -> Any:
        """Return the condition for members whose next row belongs in a lane."""
        if self._scope.rules.points is not Points.ADD:
            return MEMBER.c.due == (1 if lane is Lane.PROFILE else 2)
        owed = self._scope.payable()
        sends_points = owed > 0 if most is None else and_(owed > 0, owed <= most)
        if lane is Lane.POINTS:
            return sends_points
        return and_(~sends_points, MEMBER.c.wanted.is_distinct_from(MEMBER.c.delivered))

    def _user(self, row: Record, brand_id: str, lane: Lane) -> dict[str, Any]:
        content = orjson.loads(row.payload)
        user = {"email": row.email or row.email_key, "brand_id": brand_id, **content["profile"]}
        if lane is Lane.POINTS:
            user["points"] = row.earned - row.credited - row.unsettled
        else:
            user["points"] = row.earned if self._scope.rules.points is Points.SET else 0
        for mail in content["mails"]:
            if mail != WELCOME:
                user[mail] = 1
            elif not row.introduced:
                user[self._welcome_flag] = 1
        return user

    def _silence(
        self, connection: Connection, lane: Lane, members: Sequence[Record], users: Sequence[dict[str, Any]]
    ) -> None:
        """Take the mails out of rows whose change may have sent them already.

        So it is where an earlier row of the same content, and of no fewer points, was not proven by its
        answer, and nothing else has landed since; and where an older row may have overwritten the content
        after it had landed. A contact that is read again brings its mails anew.
        """
        flags = {*MAILS, self._welcome_flag}
        asking = {row.id: user for row, user in zip(members, users, strict=True) if flags & user.keys()}
        if not asking:
            return
        later = BATCH_ROW.alias("later")
        landed = select(later.c.batch_id).where(
            later.c.member_id == BATCH_ROW.c.member_id,
            later.c.batch_id > BATCH_ROW.c.batch_id,
            later.c.outcome == Outcome.LANDED,
            or_(later.c.fingerprint != BATCH_ROW.c.fingerprint, later.c.points > 0),
        )
        # Points that were given up are never sent again: more of them are another change.
        again = case((BATCH_ROW.c.outcome == Outcome.SKIPPED, 0), else_=BATCH_ROW.c.points)
        listed = (
            select(BATCH_ROW.c.member_id, again)
            .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
            .where(
                among(BATCH_ROW.c.member_id, asking),
                BATCH_ROW.c.fingerprint == MEMBER.c.wanted,
                unproven(),
                ~landed.exists(),
            )
        )
        silenced = {it for it, points in connection.execute(listed) if asking[it]["points"] <= points}
        silenced |= {
            row.id
            for row, user in zip(members, users, strict=True)
            if row.delivered == unsure(row.wanted) and (lane is Lane.PROFILE or not user["points"])
        }
        for member in silenced & asking.keys():
            for flag in flags:
                asking[member].pop(flag, None)
