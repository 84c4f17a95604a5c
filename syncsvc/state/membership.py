"""What a page of contacts means for members: who owns them, what they should be, what they have earned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, Select, bindparam, select, tuple_, update

from syncsvc.config import FirstRun, OnEmailChange, Points
from syncsvc.rules.intake import ContactState, Intake
from syncsvc.rules.mapping import Mapped
from syncsvc.rules.ownership import heir
from syncsvc.state import payloads
from syncsvc.state.books import Credit, append
from syncsvc.state.bulk import insert_rows, update_rows
from syncsvc.state.codes import Entry
from syncsvc.state.database import as_list, one_of
from syncsvc.state.first_reads import adopted_later
from syncsvc.state.inheritance import Inheritances
from syncsvc.state.member import KEPT, MEMBERS, Member
from syncsvc.state.numbers import new_ids
from syncsvc.state.scope import Scope
from syncsvc.state.tables import BRAND, CONTACT, MEMBER

EMAIL_CHANGE = "email_change"


class Trouble(NamedTuple):
    """Why a contact is quarantined."""

    field: str
    reason: str


_EMAIL_HELD = Trouble(
    EMAIL_CHANGE,
    "the email or the brand changed: a member keeps them until a person decides (policy.on_email_change)",
)
_NEVER = "2099-12-31"
"""Stands for no expiry: how to clear one is not documented, and an omitted field may stay as it was."""


class _Parting(NamedTuple):
    """A contact that leaves its member: to be gone, for an heir, or for the email it now has (`moved`)."""

    record_id: str
    member: Member
    heir: str | None
    moved: Mapped | None = None


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
        "earned",
        "credited",
        "unsettled",
        "due",
        "introduced",
        "first_read",
    ),
)
_UPDATE = update_rows(MEMBER, ("id",), KEPT)
_kept = attrgetter(*KEPT, "id")

_BY_EMAIL = MEMBERS.where(MEMBER.c.brand == bindparam("b_brand"), one_of(MEMBER.c.email_key, "b_emails"))
_BY_ID = MEMBERS.where(one_of(MEMBER.c.id, "b_members"))


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
        self._touched: dict[Member, None] = {}
        self._links: dict[str, Member] = {}
        self._leaving: set[tuple[int, str]] = set()
        self._orphans: dict[int, Member] = {}
        self._heirs: list[tuple[int, str]] = []
        self._brands: dict[str, int] = {}
        self._credits: list[tuple[Member, Credit]] = []
        self._parting: list[_Parting] = []
        self._relays: dict[str, str] = {}
        self._vacated: dict[int, Mapped] = {}
        self._counts = scope.rules.points is not Points.SET
        self._inheritances = Inheritances(connection, connector_id, self._credits, counts=self._counts)
        self.fallen = 0
        self.postponed: set[str] = set()
        """Contacts whose points are adopted as soon as nothing of their members is unsettled."""

    def load(
        self, mapped: Sequence[Mapped], member_ids: Collection[int], record_ids: Collection[str]
    ) -> None:
        """Bring in the members these contacts map to, those they were linked to, and what they inherit."""
        keys: dict[int, list[str]] = defaultdict(list)
        for it in mapped:
            keys[self._brand(it.brand_id)].append(it.email_key)
        remembered = self._inheritances.remembered(record_ids)
        ids = {*member_ids, *(it.source for found in remembered.values() for it in found)}
        asked: list[tuple[Select[Any], dict[str, Any]]] = [
            (_BY_EMAIL, {"b_brand": brand, "b_emails": as_list(emails)}) for brand, emails in keys.items()
        ]
        if ids:
            asked.append((_BY_ID, {"b_members": as_list(ids)}))
        for statement, bound in asked:
            for row in self._connection.execute(statement, bound).all():
                member = Member(*row)
                self._by_key.setdefault((member.brand, member.email_key), member)
        self._by_id = {member.id: member for member in self._by_key.values() if member.id is not None}
        for record_id, found in remembered.items():
            for what in found:
                self._inheritances.remember(record_id, self._by_id[what.source], what)

    def leave(self, record_id: str, member_id: int | None, *, heir: str | None = None) -> None:
        """Let a contact that is gone or excluded part from its member; `heir` is what it was merged into."""
        self._leaving.add((self._connector_id, record_id))
        if heir is not None:
            self._relays[record_id] = heir
        member = self._by_id.get(member_id) if member_id is not None else None
        if member is not None:
            self._parting.append(_Parting(record_id, member, heir))

    def move(self, record_id: str, mapped: Mapped | None, linked: int | None) -> Trouble | None:
        """Let a contact whose email is another than its member's part from that; returns why it may not.

        A contact that stays with its member, or has none, is left alone. `linked` is its member's id.
        """
        assert mapped is not None  # noqa: S101 - an active contact is a mapped one
        old = self._by_id.get(linked) if linked is not None else None
        if old is None or (old.brand, old.email_key) == (self._brand(mapped.brand_id), mapped.email_key):
            return None
        policy = self._scope.rules.on_email_change
        if policy is OnEmailChange.HOLD:
            return _EMAIL_HELD
        self._leaving.add((self._connector_id, record_id))
        heir = record_id if policy is OnEmailChange.MOVE else None
        self._parting.append(_Parting(record_id, old, heir, mapped))
        return None

    def part(self) -> None:
        """Free what those contacts owned, and set their points history aside for their heirs.

        All of a page at once: contacts that swap their emails, or take one over that is left on the same
        page, then do not depend on their order.
        """
        others = {id(it.member): self._others(it.member) for it in self._parting}
        for it in self._parting:
            member, shared = it.member, others[id(it.member)]
            if not self._owns(member, it.record_id):
                continue  # it was linked: the member's points came from another contact
            assert member.id is not None  # noqa: S101 - it was loaded by its id
            member.owner_connector = member.owner_record = None
            self._orphans[member.id] = member
            self._touch(member)
            self._inheritances.drop(member, it.record_id)
            if it.moved is not None:
                self._vacated[member.id] = it.moved
            self._bequeath(it, shared)
        for record_id in self._relays:
            heir = record_id
            for _ in self._relays:  # as far as merges of merges lead, and never in a circle
                heir = self._relays.get(heir, heir)
            self._inheritances.pass_on(record_id, heir)

    def _bequeath(self, it: _Parting, shared: Mapping[tuple[int, str], int | None]) -> None:
        """Set aside what a parting owner was paid; `shared` are the contacts that stay, with their points."""
        member = it.member
        if self._counts and it.heir is not None and shared:
            self._inheritances.copy(member, it.heir)
            self._inheritances.stop_paying(member)
            member.earned = min(member.earned, member.credited)  # what it is owed goes along
        elif self._counts and it.heir is not None:
            self._inheritances.take(member, it.heir)
        elif it.moved is not None:
            if not shared:
                member.earned = member.credited  # what is refuted later is earned at the new member
        elif it.heir is None:  # it may be told later that it was merged, when another owns the member
            if any(points is not None for points in shared.values()):
                self._inheritances.copy(member, it.record_id)
            else:  # what it is owed stays with the member
                self._inheritances.grant(member, it.record_id)

    def join(self, contact: Intake, *, first_read: bool, adopting: FirstRun | None) -> None:
        """Link an active contact to its member, which it owns where nobody else does.

        `first_read` says that this of its connector brings it. With `adopting`, a member that it owns had its
        points in the wallet already, as that says.
        """
        record_id, fingerprint, mapped = contact.record_id, contact.fingerprint, contact.mapped
        assert mapped is not None  # noqa: S101 - an active contact is a mapped one
        key = (self._brand(mapped.brand_id), mapped.email_key)
        member = self._by_key.get(key) or self._create(key, mapped, first_read=first_read)
        owns = self._owns(member, record_id)
        if owns or member.owner_record is None:
            self._inheritances.come_back(record_id, member)
            if mapped.points is not None and (not owns or mapped.points < member.earned):
                self._inheritances.stop_paying(member)
            self._own(member, record_id, fingerprint, mapped)
            self._inherit(record_id, member)
            if adopting is not None and member.unsettled:  # what is refuted would be owed beside it
                member.earned = min(member.earned, member.credited)
                self.postponed.add(record_id)
            elif adopting is not None:
                self._adopt(member, adopting)
        self._links[record_id] = member

    def is_owner(self, record_id: str) -> bool:
        """Return whether a contact of this page owns the member it joined."""
        member = self._links.get(record_id)
        return member is not None and self._owns(member, record_id)

    def arrived(self, linked: Mapping[str, int | None]) -> list[str]:
        """Return the contacts that joined another member than they were `linked` to, or had none."""
        return [it for it, member in self._links.items() if it not in linked or member.id != linked[it]]

    def inherit(self, members: Mapping[str, int | None]) -> None:
        """Let heirs that are not on this page inherit where they own their member; `members` are theirs."""
        for record_id in self._inheritances.waiting():
            member = self._by_id.get(members.get(record_id) or 0)
            if member is not None and self._owns(member, record_id):
                self._inherit(record_id, member)

    def save(self) -> Mapping[str, Member]:
        """Write the members, pass on what is ownerless, and return the member of each linked record."""
        for member in self._inheritances.keep():
            self._touch(member)
        self._pass_on()
        new = [member for member in self._touched if member.id is None]
        old = [member for member in self._touched if member.id is not None]
        self._insert(new)
        if old:
            _UPDATE.run(self._connection, [_kept(member) for member in old])
            payloads.put(self._connection, [(member.id, member.payload) for member in old])
            self._scope.refresh(self._connection, [member.id for member in old if member.id is not None])
        self._inheritances.save()
        if self._credits:
            due = [credit.of(member.id) for member, credit in self._credits if member.id is not None]
            append(self._connection, self._scope.organization_id, due, now=self._now)
        return self._links

    def _brand(self, brand_id: str) -> int:
        # Kept for this transaction only: one that is undone must not leave an id behind.
        known = self._brands.get(brand_id)
        if known is None:
            known = self._brands[brand_id] = self._scope.brand(self._connection, brand_id)
        return known

    def _insert(self, members: Sequence[Member]) -> None:
        if not members:
            return
        numbers = new_ids(self._connection, MEMBER, len(members))
        keeps = self._scope.rules.expire_gone
        rows = []
        for number, it in zip(numbers, members, strict=True):
            it.id = number
            due = it.awaited = self._scope.is_due(
                it.wanted, it.delivered, it.earned - it.credited - it.unsettled
            )
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
                    it.earned,
                    it.credited,
                    it.unsettled,
                    int(due and it.payload is not None),
                    it.introduced,
                    it.first_read,
                )
            )
        _INSERT.run(self._connection, rows)
        payloads.put(self._connection, [(it.id, it.payload) for it in members if it.awaited or keeps])

    def _owns(self, member: Member, record_id: str) -> bool:
        return member.owner_record == record_id and member.owner_connector == self._connector_id

    def _touch(self, member: Member) -> None:
        self._touched[member] = None

    def _create(self, key: tuple[int, str], mapped: Mapped, *, first_read: bool) -> Member:
        brand, email_key = key
        email = mapped.email if mapped.email != email_key else None
        member = Member(None, brand, email_key, email, first_read=int(first_read))
        self._by_key[key] = member
        return member

    def _own(self, member: Member, record_id: str, fingerprint: bytes, mapped: Mapped) -> None:
        if member.owner_record is None:
            member.refused = None  # nobody is left in quarantine for it
        member.owner_connector, member.owner_record = self._connector_id, record_id
        member.wanted = fingerprint
        profile = mapped.profile
        if member.expired:
            profile = {"expires_at": _NEVER, **profile}
        member.payload = payloads.make(profile, mapped.mails)
        if mapped.points is not None:
            self.fallen += mapped.points < member.earned
            member.earned = mapped.points
        self._orphans.pop(member.id or 0, None)
        self._touch(member)

    def _adopt(self, member: Member, adopting: FirstRun) -> None:
        known = member.earned - member.credited - member.unsettled
        if known > 0:
            member.credited += known
            self._credits.append((member, Credit(Entry.ADOPTED, known)))
        if adopting is FirstRun.ADOPT:
            member.delivered = member.wanted
            member.introduced = 1

    def _inherit(self, record_id: str, member: Member) -> None:
        for changed in self._inheritances.deposit(record_id, member, self._is_left):
            self._touch(changed)

    def _is_left(self, member: Member) -> bool:
        return member.owner_record is None and not self._others(member)

    def _expire(self, member: Member, brand_id: str, profile: Mapping[str, str]) -> None:
        expired = {**profile, "expires_at": self._now.date().isoformat()}
        member.wanted = self._scope.fingerprinter.member(brand_id, member.email_key, expired)
        member.payload = payloads.make(expired, [])
        member.expired = 1

    def _others(self, member: Member) -> dict[tuple[int, str], int | None]:
        """Return the contacts that stay with a member, each with its points."""
        listed = select(CONTACT.c.connector_id, CONTACT.c.record_id, CONTACT.c.points).where(
            CONTACT.c.member_id == member.id,
            CONTACT.c.state == ContactState.ACTIVE,
            CONTACT.c.connector_id.in_(self._scope.connectors.values()),
        )
        found = self._connection.execute(listed).all()
        return {
            (connector, record): points
            for connector, record, points in found
            if (connector, record) not in self._leaving
        }

    def _pass_on(self) -> None:
        positions = {row_id: place for place, row_id in enumerate(self._scope.connectors.values())}
        others = {member: self._others(member) for member in self._orphans.values()}
        chosen = {member: heir(found, positions) for member, found in others.items()}
        heirs = {it: member for member, it in chosen.items() if it is not None}
        later = self._inheritances.bringing(heirs) | adopted_later(self._connection, heirs)
        self._heirs = list(heirs)
        for member, owner in chosen.items():
            if owner is not None:
                member.owner_connector, member.owner_record = owner
                points = others[member][owner]
                if points is None:
                    continue
                self._inheritances.stop_paying(member)
                member.earned = points  # its profile is read with the next read; they are known
                if owner in later:  # what it was paid elsewhere, or adopts, counts first, once it is read
                    member.earned = min(points, member.credited)
            elif member.id in self._vacated:
                moved = self._vacated[member.id]
                self._expire(member, moved.brand_id, moved.profile)
            elif self._scope.rules.expire_gone and member.payload is not None:
                content: dict[str, Any] = orjson.loads(member.payload)
                brand_id = select(BRAND.c.brand_id).where(BRAND.c.id == member.brand)
                self._expire(member, self._connection.execute(brand_id).scalar_one(), content["profile"])

    def unsettle_heirs(self) -> None:
        """Let the next read bring the profile of contacts that have inherited a member: it is not stored."""
        if self._heirs:
            key = tuple_(CONTACT.c.connector_id, CONTACT.c.record_id)
            self._connection.execute(update(CONTACT).where(key.in_(self._heirs)).values(fingerprint=None))
