"""What a page of contacts means for members: who owns them, what they should be, what they have earned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, and_, bindparam, func, select, tuple_, update

from syncsvc.config import FirstRun, OnEmailChange
from syncsvc.rules.intake import ContactState
from syncsvc.rules.mapping import Mapped
from syncsvc.rules.ownership import heir
from syncsvc.state.books import Credit, append
from syncsvc.state.bulk import insert_rows
from syncsvc.state.database import among
from syncsvc.state.scope import Scope
from syncsvc.state.tables import BRAND, CONTACT, MEMBER, Entry

EMAIL_CHANGE = "email_change"


class Trouble(NamedTuple):
    """Why a contact is quarantined."""

    field: str
    reason: str


_EMAIL_HELD = Trouble(
    EMAIL_CHANGE,
    "the email changed: a member keeps its email until a person decides (policy.on_email_change)",
)
_EMAIL_WAITS = Trouble(
    EMAIL_CHANGE,
    "the email changed while points of the old member are unsettled: a sweep moves it once they are",
)


@dataclass(slots=True)
class Member:
    """A member row being worked on; `id` is None until it is inserted."""

    id: int | None
    brand: int
    email_key: str
    email: str | None = None
    owner_connector: int | None = None
    owner_record: str | None = None
    wanted: bytes | None = None
    delivered: bytes | None = None
    refused: bytes | None = None
    payload: bytes | None = None
    earned: int = 0
    credited: int = 0
    unsettled: int = 0
    introduced: int = 0


_COLUMNS = [MEMBER.c[name] for name in Member.__slots__]
_KEPT = (
    "owner_connector",
    "owner_record",
    "wanted",
    "delivered",
    "refused",
    "payload",
    "earned",
    "credited",
    "introduced",
)


_INSERT = insert_rows(
    MEMBER,
    (
        "id",
        "brand",
        "email_key",
        "email",
        "owner_connector",
        "owner_record",
        "wanted",
        "delivered",
        "payload",
        "earned",
        "credited",
        "introduced",
        "due",
    ),
)


class Membership:
    """The members that one page touches, loaded together, changed in memory, saved together."""

    def __init__(
        self,
        scope: Scope,
        connection: Connection,
        connector_id: int,
        *,
        now: datetime,
    ) -> None:
        """Work inside the transaction of `connection`."""
        self._scope = scope
        self._connection = connection
        self._connector_id = connector_id
        self._now = now
        self._by_key: dict[tuple[int, str], Member] = {}
        self._by_id: dict[int, Member] = {}
        self._touched: dict[tuple[int, str], Member] = {}
        self._links: dict[str, Member] = {}
        self._leaving: set[tuple[int, str]] = set()
        self._orphans: dict[int, Member] = {}
        self._heirs: list[tuple[int, str]] = []
        self._brands: dict[str, int] = {}
        self._credits: list[tuple[Member, Credit]] = []
        self.fallen = 0

    def load(self, mapped: Sequence[Mapped], member_ids: Collection[int]) -> None:
        """Bring in the members these contacts map to, and those they were linked to before."""
        keys: dict[int, list[str]] = defaultdict(list)
        for it in mapped:
            keys[self._brand(it.brand_id)].append(it.email_key)
        conditions = [
            and_(MEMBER.c.brand == brand, among(MEMBER.c.email_key, emails)) for brand, emails in keys.items()
        ]
        if member_ids:
            conditions.append(among(MEMBER.c.id, member_ids))
        for condition in conditions:
            for row in self._connection.execute(select(*_COLUMNS).where(condition)):
                member = Member(*row)
                self._by_key.setdefault((member.brand, member.email_key), member)
        self._by_id = {member.id: member for member in self._by_key.values() if member.id is not None}

    def leave(self, record_id: str, member_id: int | None) -> None:
        """Let a contact that is gone or excluded give up what it owns."""
        self._leaving.add((self._connector_id, record_id))
        member = self._by_id.get(member_id) if member_id is not None else None
        if member is not None and self._owns(member, record_id):
            member.owner_connector = member.owner_record = None
            self._touch(member)
            assert member.id is not None  # noqa: S101 - it was loaded by its id
            self._orphans[member.id] = member

    def join(
        self,
        record_id: str,
        fingerprint: bytes,
        mapped: Mapped | None,
        linked: int | None,
        *,
        adopting: FirstRun | None,
    ) -> Trouble | None:
        """Link an active contact to its member; returns why it is quarantined instead, or None.

        With `adopting`, a member that nobody owned had its points in the wallet already, as that says.
        """
        assert mapped is not None  # noqa: S101 - an active contact is a mapped one
        key = (self._brand(mapped.brand_id), mapped.email_key)
        member = self._by_key.get(key)
        old = self._by_id.get(linked) if linked is not None else None
        if old is not None and old is not member:
            trouble = self._change_email(record_id, old, member, mapped, key)
            if trouble is not None:
                return trouble
            member = self._by_key[key]
        if member is None:
            member = self._create(key, mapped)
            self._own(member, record_id, fingerprint, mapped)
            self._adopt(member, adopting)
        elif member.owner_record is None:
            self._own(member, record_id, fingerprint, mapped)
            self._adopt(member, adopting)
        elif self._owns(member, record_id):
            self._own(member, record_id, fingerprint, mapped)
        self._links[record_id] = member
        return None

    def inherit(self, member_id: int | None, survivor: str, survivor_member_id: int | None) -> None:
        """Let a merge's surviving contact bring along the points that the merged one's member was credited.

        Only where that member is left without any contact: a person merged into another is one person.
        """
        old = self._orphans.get(member_id) if member_id is not None else None
        new = self._links.get(survivor) or self._by_id.get(survivor_member_id or 0)
        if old is None or new is None or old is new or old.unsettled or not self._owns(new, survivor):
            return
        if self._others(old):
            return
        self._move_credit(old, new)
        old.earned = old.credited
        self._touch(new)

    def save(self) -> dict[str, int]:
        """Write the members, pass on what is ownerless, and return the member id of each linked record."""
        self._pass_on()
        new = [member for member in self._touched.values() if member.id is None]
        old = [member for member in self._touched.values() if member.id is not None]
        self._insert(new)
        if old:
            self._connection.execute(
                update(MEMBER).where(MEMBER.c.id == bindparam("b_id")),
                [{"b_id": m.id, **{name: getattr(m, name) for name in _KEPT}} for m in old],
            )
            self._scope.refresh(self._connection, [member.id for member in old if member.id is not None])
        if self._credits:
            due = [credit.of(member.id) for member, credit in self._credits if member.id is not None]
            append(self._connection, self._scope.organization_id, due, now=self._now)
        return {record: member.id for record, member in self._links.items() if member.id is not None}

    def _brand(self, brand_id: str) -> int:
        # Kept for this transaction only: one that is undone must not leave an id behind.
        known = self._brands.get(brand_id)
        if known is None:
            known = self._brands[brand_id] = self._scope.brand(self._connection, brand_id)
        return known

    def _insert(self, members: Sequence[Member]) -> None:
        if not members:
            return
        highest = self._connection.scalar(select(func.max(MEMBER.c.id))) or 0
        keeps = self._scope.rules.expire_gone
        rows = []
        for number, it in enumerate(members, highest + 1):
            it.id = number
            due = self._scope.is_due(it.wanted, it.delivered, it.earned - it.credited)
            rows.append(
                (
                    number,
                    it.brand,
                    it.email_key,
                    it.email,
                    it.owner_connector,
                    it.owner_record,
                    it.wanted,
                    it.delivered,
                    it.payload if due or keeps else None,
                    it.earned,
                    it.credited,
                    it.introduced,
                    int(due and it.payload is not None),
                )
            )
        _INSERT.run(self._connection, rows)

    def _owns(self, member: Member, record_id: str) -> bool:
        return member.owner_record == record_id and member.owner_connector == self._connector_id

    def _touch(self, member: Member) -> None:
        self._touched[member.brand, member.email_key] = member

    def _create(self, key: tuple[int, str], mapped: Mapped) -> Member:
        brand, email_key = key
        member = Member(None, brand, email_key, mapped.email if mapped.email != email_key else None)
        self._by_key[key] = member
        return member

    def _own(self, member: Member, record_id: str, fingerprint: bytes, mapped: Mapped) -> None:
        if member.owner_record is None:
            member.refused = None  # nobody is left in quarantine for it
        member.owner_connector, member.owner_record = self._connector_id, record_id
        member.wanted = fingerprint
        member.payload = orjson.dumps({"profile": mapped.profile, "mails": mapped.mails})
        if mapped.points is not None:
            self.fallen += mapped.points < member.earned
            member.earned = mapped.points
        self._orphans.pop(member.id or 0, None)
        self._touch(member)

    def _adopt(self, member: Member, adopting: FirstRun | None) -> None:
        if adopting is None or adopting is FirstRun.IMPORT:
            return
        known = member.earned - member.credited - member.unsettled
        if known > 0:
            member.credited += known
            self._credits.append((member, Credit(Entry.ADOPTED, known)))
        if adopting is FirstRun.ADOPT:
            member.delivered = member.wanted
            member.introduced = 1

    def _change_email(
        self, record_id: str, old: Member, new: Member | None, mapped: Mapped, key: tuple[int, str]
    ) -> Trouble | None:
        policy = self._scope.rules.on_email_change
        if policy is OnEmailChange.HOLD:
            return _EMAIL_HELD
        if old.unsettled:
            return _EMAIL_WAITS
        new = new or self._create(key, mapped)
        others = [it for it in self._others(old) if it != (self._connector_id, record_id)]
        if not self._owns(old, record_id) and (old.owner_record is not None or others):
            return None
        self._links[record_id] = new
        old.owner_connector = old.owner_record = None
        moves = policy is OnEmailChange.MOVE and new.owner_record is None
        if others:  # the old member lives on, with what it has
            if moves and old.credited:
                new.credited += old.credited
                self._credits.append((new, Credit(Entry.MOVED_IN, old.credited)))
            assert old.id is not None  # noqa: S101 - a contact was linked to it
            self._orphans[old.id] = old
        else:
            if moves:
                self._move_credit(old, new)
            old.earned = old.credited
            self._expire(old, mapped.brand_id, mapped.profile)
            self._orphans.pop(old.id or 0, None)
        if moves:
            self._touch(new)
        self._touch(old)
        return None

    def _move_credit(self, old: Member, new: Member) -> None:
        if old.credited:
            self._credits.append((old, Credit(Entry.MOVED_OUT, -old.credited)))
            self._credits.append((new, Credit(Entry.MOVED_IN, old.credited)))
            new.credited += old.credited
            old.credited = 0

    def _expire(self, member: Member, brand_id: str, profile: dict[str, str]) -> None:
        expired = {**profile, "expires_at": self._now.date().isoformat()}
        member.wanted = self._scope.fingerprinter.member(brand_id, member.email_key, expired)
        member.payload = orjson.dumps({"profile": expired, "mails": []})

    def _others(self, member: Member) -> list[tuple[int, str]]:
        listed = select(CONTACT.c.connector_id, CONTACT.c.record_id).where(
            CONTACT.c.member_id == member.id, CONTACT.c.state == ContactState.ACTIVE
        )
        found = ((row.connector_id, row.record_id) for row in self._connection.execute(listed))
        left = self._leaving | {
            (self._connector_id, record_id) for record_id, it in self._links.items() if it is not member
        }
        return [contact for contact in found if contact not in left]

    def _pass_on(self) -> None:
        positions = {row_id: place for place, row_id in enumerate(self._scope.connectors.values())}
        heirs = []
        for member in self._orphans.values():
            chosen = heir(self._others(member), positions)
            if chosen is not None:
                member.owner_connector, member.owner_record = chosen
                heirs.append(chosen)
            elif self._scope.rules.expire_gone and member.payload is not None:
                content: dict[str, Any] = orjson.loads(member.payload)
                brand_id = select(BRAND.c.brand_id).where(BRAND.c.id == member.brand)
                self._expire(member, self._connection.execute(brand_id).scalar_one(), content["profile"])
        self._heirs = heirs

    def unsettle_heirs(self) -> None:
        """Let the next read bring the profile of contacts that have inherited a member: it is not stored."""
        if self._heirs:
            key = tuple_(CONTACT.c.connector_id, CONTACT.c.record_id)
            self._connection.execute(update(CONTACT).where(key.in_(self._heirs)).values(fingerprint=None))
