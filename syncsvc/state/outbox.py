"""Claims batches: what is going to be sent is durable, row by row, before it leaves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any

import orjson
from sqlalchemy import (
    Connection,
    Select,
    String,
    and_,
    bindparam,
    case,
    cast,
    func,
    not_,
    or_,
    select,
    update,
)

from syncsvc.config import BrakesConfig, Points, WalletConfig
from syncsvc.rules.brakes import Allowed, Totals, enough
from syncsvc.rules.mapping import MAILS
from syncsvc.state import due
from syncsvc.state.bulk import insert_rows
from syncsvc.state.codes import Lane, Outcome
from syncsvc.state.database import as_list, one_of, to_ms
from syncsvc.state.late import unsure
from syncsvc.state.payloads import OF_MEMBER
from syncsvc.state.plans import Planned
from syncsvc.state.scope import OURS, OWN_BRANDS, THIS_BRAND, Scope, at_most, unproven
from syncsvc.state.tables import BATCH, BATCH_ROW, BRAND, CONNECTOR, MEMBER, PAYLOAD
from syncsvc.state.witness import Witness

WELCOME = "welcome_email"
_PAGE = 1000
_ANY = at_most(None)
_ABSURD = timedelta(days=2)  # further in the future than any time zone


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


def _asked_before() -> Select[Any]:
    """Return rows of the members' wanted content that were not proven by their answer, nor outdated since."""
    later = BATCH_ROW.alias("later")
    landed = select(later.c.batch_id).where(
        later.c.member_id == BATCH_ROW.c.member_id,
        later.c.batch_id > BATCH_ROW.c.batch_id,
        later.c.outcome == Outcome.LANDED,
        or_(later.c.fingerprint != BATCH_ROW.c.fingerprint, later.c.points > 0),
    )
    # Points that were given up are never sent again: more of them are another change.
    again = case((BATCH_ROW.c.outcome == Outcome.SKIPPED, 0), else_=BATCH_ROW.c.points)
    return (
        select(BATCH_ROW.c.member_id, again)
        .join(MEMBER, MEMBER.c.id == BATCH_ROW.c.member_id)
        .where(
            one_of(BATCH_ROW.c.member_id, "b_members"),
            BATCH_ROW.c.fingerprint == MEMBER.c.wanted,
            unproven(),
            ~landed.exists(),
        )
    )


_DUE = select(MEMBER.c.id).where(MEMBER.c.brand == BRAND.c.id, MEMBER.c.due == 1)
_BRANDS_DUE = select(BRAND.c.brand_id).where(OURS, _DUE.exists()).order_by(BRAND.c.id)
_BRAND = select(BRAND.c.id).where(THIS_BRAND)
_BATCH_LIMIT = select(BRAND.c.batch_limit).where(THIS_BRAND)
_LIMITED = update(BRAND).where(THIS_BRAND).values(batch_limit=bindparam("b_limit"))
_KNOWN = (
    select(MEMBER.c.id)
    .join(BRAND, BRAND.c.id == MEMBER.c.brand)
    .where(OURS, MEMBER.c.delivered.is_not(None))
    .limit(bindparam("b_enough"))
)
_PRESENT = _KNOWN.where(not_(and_(MEMBER.c.expired == 1, MEMBER.c.owner_record.is_(None), MEMBER.c.due == 0)))
_KNOWN_COUNT, _PRESENT_COUNT = (select(func.count()).select_from(it.subquery()) for it in (_KNOWN, _PRESENT))
_CLAIM = BATCH.insert().returning(BATCH.c.id)
_CLAIM_ROWS = insert_rows(
    BATCH_ROW, ("batch_id", "position", "member_id", "fingerprint", "points", "log_before")
)
_CLAIMED = (
    update(MEMBER)
    .where(MEMBER.c.id == BATCH_ROW.c.member_id, BATCH_ROW.c.batch_id == bindparam("b_batch"))
    .values(open_batch=BATCH_ROW.c.batch_id)
)
_CLAIMED_POINTS = _CLAIMED.values(unsettled=MEMBER.c.unsettled + BATCH_ROW.c.points)
_ASKED_BEFORE = _asked_before()


class Outbox:
    """The transactions of delivering."""

    def __init__(self, scope: Scope, wallet: WalletConfig) -> None:
        """Work within one organization, whose wallet is configured so."""
        self._scope = scope
        self._witness = Witness(scope, wallet)
        self._welcome_flag = wallet.welcome_flag.value
        self._settle_after = wallet.settle_after

    def brands_due(self) -> list[str]:
        """Return the brands that have something to send."""
        with self._scope.database.reading() as connection:
            return list(connection.scalars(_BRANDS_DUE, self._scope.bound()))

    def batch_limit(self, brand_id: str) -> int | None:
        """Return how many rows a batch of a brand may have, None where nothing limits it."""
        with self._scope.database.reading() as connection:
            return connection.scalar(_BATCH_LIMIT, self._scope.bound(b_brand_id=brand_id))

    def limit_batches(self, brand_id: str, limit: int | None) -> None:
        """Limit the rows of a brand's batches from now on, or let them be full again."""
        with self._scope.database.writing() as connection:
            connection.execute(_LIMITED, self._scope.bound(b_brand_id=brand_id, b_limit=limit))

    def totals(self, most: int | None, *, limits: BrakesConfig | None = None, new: bool = True) -> Totals:
        """Return what delivering now would send in all, for the brakes and the plan.

        Points above `most` for one member are counted as held, not as sent. With `limits`, members are
        counted only as far as it takes to judge their shares; unless `new`, those that were never delivered
        are left out.
        """
        statement = due.totals(self._scope.rules.points, mails=self._scope.rules.mails, new=new)
        bound = self._scope.bound(b_most=at_most(most))
        with self._scope.database.reading() as connection:
            sums = connection.execute(statement, bound).one()
            changed, newcomers, points, largest, over, leaving, again, lasting, elsewhere = sums
            if not changed and not newcomers and not over:
                return Totals(0, 0, 0, 0, 0)
            known, present = _ANY, _ANY
            if limits is not None:
                known = at_most(enough(changed, limits.max_share))
                present = at_most(enough(leaving, limits.max_gone_share))
            return Totals(
                known=self._counted(connection, _KNOWN_COUNT, known),
                changed=changed,
                new=newcomers,
                points=int(points),
                largest=max(int(largest), 0),
                over_member_limit=over,
                leaving=leaving,
                present=self._counted(connection, _PRESENT_COUNT, present),
                again=again,
                lasting=lasting,
                elsewhere=elsewhere,
            )

    def _counted(self, connection: Connection, statement: Select[Any], most: int) -> int:
        return connection.scalar(statement, self._scope.bound(b_enough=most)) or 0

    def digest(self, allowed: Allowed) -> str:
        """Return a digest of every row and every point that delivering now would send: 16 hex digits."""
        mine = and_(BRAND.c.id == MEMBER.c.brand, MEMBER.c.brand.in_(OWN_BRANDS))
        points = due.sendable_points(self._scope.rules.points)
        listed = (
            select(BRAND.c.brand_id, MEMBER.c.email_key, PAYLOAD.c.content, points)
            .join(BRAND, mine)
            .join(PAYLOAD, OF_MEMBER)
            .where(*due.sendable(allowed.flows, self._scope.rules.points))
            .order_by(BRAND.c.brand_id, MEMBER.c.email_key)
        )
        bound = self._scope.bound(b_most=at_most(allowed.most_points))
        digest = blake2b(digest_size=8)
        with self._scope.database.reading() as connection:
            for brand_id, email_key, content, points in connection.execute(listed, bound):
                digest.update(orjson.dumps([brand_id, email_key, content.decode(), points]))
        return digest.hexdigest()

    def planned(self, allowed: Allowed) -> Iterator[Planned]:
        """Yield every row that delivering now would send, in order of the CRM record it comes from.

        Read while it is yielded, in pages; what the digest covers, row by row.
        """
        mine = and_(BRAND.c.id == MEMBER.c.brand, MEMBER.c.brand.in_(OWN_BRANDS))
        record = CONNECTOR.c.name + " " + MEMBER.c.owner_record
        owner = func.coalesce(record, "member " + cast(MEMBER.c.id, String)).label("owner")
        points = due.sendable_points(self._scope.rules.points)
        listed = (
            select(owner, BRAND.c.brand_id, MEMBER.c.email_key, PAYLOAD.c.content, points.label("points"))
            .join(BRAND, mine)
            .join(PAYLOAD, OF_MEMBER)
            .outerjoin(CONNECTOR, CONNECTOR.c.id == MEMBER.c.owner_connector)
            .where(*due.sendable(allowed.flows, self._scope.rules.points))
            .order_by(owner, MEMBER.c.id)
        )
        bound = self._scope.bound(b_most=at_most(allowed.most_points))
        fingerprinter = self._scope.fingerprinter
        with self._scope.database.reading() as connection:
            for row in connection.execute(listed, bound, execution_options={"yield_per": _PAGE}):
                content = fingerprinter.row(row.brand_id, row.email_key, row.content.decode())
                yield Planned(row.owner, content, row.points)

    def has_due(self, lane: Lane, allowed: Allowed) -> bool:
        """Return whether any member has a row to send in a lane."""
        statement = due.any_due(self._scope.rules.points, lane, allowed.flows)
        bound = self._scope.bound(b_most=at_most(allowed.most_points))
        with self._scope.database.reading() as connection:
            return connection.scalar(statement, bound) is not None

    def witness_pause(self, brand_id: str, settled_before: datetime) -> timedelta | None:
        """Return how long it takes until the witness can ride again; None where nobody knows."""
        with self._scope.database.reading() as connection:
            brand = connection.scalar(_BRAND, self._scope.bound(b_brand_id=brand_id))
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

        A state that does not know of it is no more taken for the newest, see `Database.reached`.

        Takes up to `limit` due members with ids above `after` that have no row unsettled. Points go only to
        members whose log entry is clearly older than `settled_before` (by the wallet's clock, as `sent_at`),
        and of whom no row has landed within `settle_after` that the log does not show yet: an entry as fresh
        as the request could not prove anything, and the move of such a row would seem to prove this one. An
        entry far in the future cannot: its member is not kept waiting, and a lost answer is for a person to
        settle. The witness takes one of the `limit` where it rides.
        """
        with self._scope.database.writing() as connection:
            brand = self._scope.brand(connection, brand_id)
            rides = (
                lane is Lane.POINTS
                and limit > 1
                and self._witness.pause(connection, brand, settled_before) == timedelta()
            )
            statement = due.claimable(self._scope.rules.points, lane, allowed.flows)
            bound = {
                "b_place": brand,
                "b_after": after,
                "b_most": at_most(allowed.most_points),
                "b_fresh": to_ms(settled_before),
                "b_absurd": to_ms(sent_at + _ABSURD),
                "b_now": to_ms(now),
                "b_landed": to_ms(sent_at - self._settle_after),
                "b_rows": limit - rides,
            }
            members = list(map(due.Claimable._make, connection.execute(statement, bound).all()))
            if not members:
                return None
            users = [self._user(row, brand_id, lane) for row in members]
            self._silence(connection, lane, members, users)
            points = sum(user["points"] for user in users) if lane is Lane.POINTS else 0
            witness = self._witness.row(brand_id, users[0]) if rides else None
            wire = users if witness is None else [*users, witness]
            carried = self._witness.columns(connection, brand) if rides else {}
            batch = {
                "brand": brand,
                "cycle": cycle,
                "lane": int(lane),
                "row_count": len(users),
                "points": points,
                "digest": blake2b(orjson.dumps(wire), digest_size=16).digest(),
                "claimed_at": to_ms(now),
                "sent_at": to_ms(sent_at),
            }
            batch_id = connection.execute(_CLAIM, batch | carried).scalar_one()
            _CLAIM_ROWS.run(
                connection,
                [
                    (batch_id, position, row.id, row.wanted, user["points"], row.log_value)
                    for position, (row, user) in enumerate(zip(members, users, strict=True))
                ],
            )
            claimed = _CLAIMED_POINTS if lane is Lane.POINTS else _CLAIMED
            connection.execute(claimed, {"b_batch": batch_id})
        self._scope.database.reached(batch_id)
        return Batch(batch_id, brand_id, lane, users, points, members[-1].id, witness)

    def _user(self, row: due.Claimable, brand_id: str, lane: Lane) -> dict[str, Any]:
        content = orjson.loads(row.content)
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
        self,
        connection: Connection,
        lane: Lane,
        members: Sequence[due.Claimable],
        users: Sequence[dict[str, Any]],
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
        listed = connection.execute(_ASKED_BEFORE, {"b_members": as_list(asking)})
        silenced = {it for it, points in listed if asking[it]["points"] <= points}
        silenced |= {
            row.id
            for row, user in zip(members, users, strict=True)
            if row.delivered == unsure(row.wanted) and (lane is Lane.PROFILE or not user["points"])
        }
        for member in silenced & asking.keys():
            for flag in flags:
                asking[member].pop(flag, None)
