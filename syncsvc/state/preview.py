"""What a delivery would do to members, told before it is made: by kind, by field, and some rows of each kind.

Of a profile that was sent the state keeps a fingerprint, not its values. So it is known that a profile
changes, and which fields its row would carry; which of them differ from what the wallet holds is not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson
from sqlalchemy import Select, String, and_, case, cast, func, or_, select, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from syncsvc.rules.brakes import Allowed
from syncsvc.state import due
from syncsvc.state.database import Record
from syncsvc.state.payloads import OF_MEMBER
from syncsvc.state.scope import LEAVES, OURS, OWN_BRANDS, Scope, at_most
from syncsvc.state.tables import BRAND, CONNECTOR, MEMBER, PAYLOAD, QUARANTINE

SAMPLES = 3
"""So many rows of a kind are named, in order of their records."""


class Kind(StrEnum):
    """What a row does to its member, as far as the state knows."""

    NEW = "new"  # the wallet was never sent this member
    PROFILE = "profile changed"
    BOTH = "profile changed, and points"
    POINTS = "points only"
    EXPIRED = "expired"  # no contact is left
    AGAIN = "sent again"  # an older row may have overwritten it


@dataclass(frozen=True, slots=True)
class Sample:
    """One row: the CRM record it comes from, its points, and its values where they were asked for."""

    record: str
    points: int
    values: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Effect:
    """How many rows do one thing to their members, with their points in all and at most."""

    kind: Kind
    members: int
    points: int
    largest: int
    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class Carried:
    """How many rows of new members, and of members whose profile changes, would carry a field."""

    field: str
    new: int
    changed: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """How many contacts wait in quarantine for one reason, and some of them by record."""

    side: str
    field: str
    reason: str
    contacts: int
    samples: tuple[str, ...]


class _Keys(FunctionElement[str]):
    """The fields of a payload's profile."""

    inherit_cache = True
    name = "keys"


@compiles(_Keys)
def _keys(element: _Keys, compiler: Any, **options: Any) -> str:
    (content,) = element.clauses
    return f"json_each(CAST({compiler.process(content, **options)} AS VARCHAR), '$.profile')"


@compiles(_Keys, "postgresql")
def _object_keys(element: _Keys, compiler: Any, **options: Any) -> str:
    (content,) = element.clauses
    text = f"convert_from({compiler.process(content, **options)}, 'UTF8')"
    return f"LATERAL (SELECT json_object_keys({text}::json -> 'profile') AS key)"


class Preview:
    """The questions about a delivery that is not made yet; nothing is written."""

    def __init__(self, scope: Scope) -> None:
        """Look within one organization."""
        self._scope = scope

    def effects(self, allowed: Allowed, *, show_values: bool) -> tuple[Effect, ...]:
        """Return what delivering now would do, by kind: the rows that the plan's digest covers.

        Rows that would send nothing, as all they had is held, are left out. Values are personal data: they
        are for the eyes of an operator who asks.
        """
        rows = self._rows(allowed).subquery()
        place = func.row_number().over(partition_by=rows.c.kind, order_by=(rows.c.owner, rows.c.id))
        numbered = select(rows, place.label("place")).subquery()
        sums = select(rows.c.kind, func.count(), func.sum(rows.c.points), func.max(rows.c.points)).group_by(
            rows.c.kind
        )
        samples = (
            select(numbered).where(numbered.c.place <= SAMPLES).order_by(numbered.c.owner, numbered.c.id)
        )
        bound = self._scope.bound(b_most=at_most(allowed.most_points))
        named: dict[str, list[Sample]] = defaultdict(list)
        with self._scope.database.reading() as connection:
            found = {row[0]: row for row in connection.execute(sums, bound)}
            for row in connection.execute(samples, bound):
                values = _values(row) if show_values else None
                named[row.kind].append(Sample(row.owner, row.points, values))
        return tuple(
            Effect(kind, members, int(points), int(largest), tuple(named[kind]))
            for kind, members, points, largest in (found[it] for it in Kind if it in found)
        )

    def fields(self, allowed: Allowed) -> tuple[Carried, ...]:
        """Return the fields that the rows of new and of changed profiles would carry."""
        rows = self._rows(allowed).subquery()
        carried = _Keys(rows.c.content).table_valued("key")
        new, changed = (
            func.count().filter(rows.c.kind.in_(kinds)) for kinds in ([Kind.NEW], [Kind.PROFILE, Kind.BOTH])
        )
        listed = select(carried.c.key, new, changed).select_from(rows).join(carried, onclause=true())
        listed = listed.group_by(carried.c.key).order_by(carried.c.key)
        bound = self._scope.bound(b_most=at_most(allowed.most_points))
        with self._scope.database.reading() as connection:
            found = [Carried(*row) for row in connection.execute(listed, bound)]
        return tuple(it for it in found if it.new or it.changed)

    def skipped(self) -> tuple[Skipped, ...]:
        """Return why contacts wait in quarantine, most frequent reason first; dropped ones are left out."""
        record = (CONNECTOR.c.name + " " + QUARANTINE.c.record_id).label("record")
        reason = (QUARANTINE.c.side, QUARANTINE.c.field, QUARANTINE.c.reason)
        mine = (
            select(*reason, record)
            .join(CONNECTOR, CONNECTOR.c.id == QUARANTINE.c.connector_id)
            .where(
                CONNECTOR.c.organization_id == self._scope.organization_id, QUARANTINE.c.dropped_at.is_(None)
            )
        ).subquery()
        same = (mine.c.side, mine.c.field, mine.c.reason)
        place = func.row_number().over(partition_by=same, order_by=mine.c.record).label("place")
        count = func.count().over(partition_by=same).label("contacts")
        numbered = select(mine, place, count).subquery()
        listed = (
            select(numbered)
            .where(numbered.c.place <= SAMPLES)
            .order_by(numbered.c.contacts.desc(), numbered.c.side, numbered.c.field, numbered.c.reason)
            .order_by(numbered.c.place)
        )
        found: dict[tuple[str, str, str], tuple[int, list[str]]] = {}
        with self._scope.database.reading() as connection:
            for row in connection.execute(listed):
                found.setdefault((row.side, row.field, row.reason), (row.contacts, []))[1].append(row.record)
        return tuple(Skipped(*why, contacts, tuple(names)) for why, (contacts, names) in found.items())

    def _rows(self, allowed: Allowed) -> Select[Any]:
        """Return the members that would be sent, each with its kind; see `effects`."""
        points = due.sendable_points(self._scope.rules.points)
        profile = MEMBER.c.wanted.is_distinct_from(MEMBER.c.delivered)
        kind = case(
            (MEMBER.c.delivered.is_(None), Kind.NEW),
            (LEAVES, Kind.EXPIRED),
            (and_(due.in_case(), points == 0), Kind.AGAIN),
            (and_(due.in_case(), points > 0), Kind.POINTS),
            (and_(profile, points > 0), Kind.BOTH),
            (profile, Kind.PROFILE),
            else_=Kind.POINTS,
        )
        owner = func.coalesce(
            CONNECTOR.c.name + " " + MEMBER.c.owner_record, "member " + cast(MEMBER.c.id, String)
        )
        return (
            select(
                MEMBER.c.id,
                MEMBER.c.email,
                MEMBER.c.email_key,
                PAYLOAD.c.content,
                BRAND.c.brand_id,
                owner.label("owner"),
                points.label("points"),
                kind.label("kind"),
            )
            .join(BRAND, and_(BRAND.c.id == MEMBER.c.brand, OURS))
            .join(PAYLOAD, OF_MEMBER)
            .outerjoin(CONNECTOR, CONNECTOR.c.id == MEMBER.c.owner_connector)
            .where(
                MEMBER.c.brand.in_(OWN_BRANDS),
                *due.sendable(allowed.flows, self._scope.rules.points),
                or_(profile, points > 0),
            )
        )


def _values(row: Record) -> dict[str, Any]:
    content = orjson.loads(row.content)
    return {"email": row.email or row.email_key, "brand_id": row.brand_id, **content["profile"]}
