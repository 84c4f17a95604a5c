"""Remembers what was planned lately, so that one which no longer holds is refused with what has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice

from sqlalchemy import delete, select

from syncsvc.state.database import Database, from_ms, to_ms
from syncsvc.state.tables import PLAN, PLAN_ROW

KEPT = 5
"""So many plans of an organization are remembered, the newest."""

MOST_ROWS = 100_000
"""Of a plan with more rows, the totals alone are remembered."""

_PAGE = 1000
_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class Planned:
    """A row that a delivery would send: the CRM record it comes from, its keyed digest and its points."""

    owner: str
    content: bytes
    points: int


@dataclass(frozen=True, slots=True)
class Remembered:
    """A plan that was made: how many members and points, and the brakes that held something back."""

    id: int
    digest: str
    made_at: datetime
    members: int
    points: int
    brakes: str


@dataclass(frozen=True, slots=True)
class Departure:
    """What has changed since a plan: how many members are sent besides, no longer, or otherwise.

    `samples` name some of them by record id. The counts are None where only the plan's totals are known.
    """

    plan: Remembered
    more: int | None
    fewer: int | None
    different: int | None
    samples: tuple[str, ...] = ()


class Plans:
    """The transactions of remembering plans."""

    def __init__(self, database: Database, organization_id: int) -> None:
        """Work within one organization."""
        self._database = database
        self._organization_id = organization_id

    def remember(
        self, digest: str, rows: Iterable[Planned], *, members: int, points: int, brakes: str, now: datetime
    ) -> None:
        """Keep a plan, its rows in order of owner, and forget all but the newest."""
        mine = PLAN.c.organization_id == self._organization_id
        with self._database.writing() as connection:
            newest = select(PLAN.c.id).where(mine, PLAN.c.digest != digest).order_by(PLAN.c.id.desc())
            kept = list(connection.scalars(newest.limit(KEPT - 1)))
            gone = list(connection.scalars(select(PLAN.c.id).where(mine, PLAN.c.id.not_in(kept))))
            connection.execute(delete(PLAN_ROW).where(PLAN_ROW.c.plan_id.in_(gone)))
            connection.execute(delete(PLAN).where(PLAN.c.id.in_(gone)))
            made = {
                "organization_id": self._organization_id,
                "digest": digest,
                "made_at": to_ms(now),
                "members": members,
                "points": points,
                "brakes": brakes,
            }
            plan_id = connection.execute(PLAN.insert().values(made).returning(PLAN.c.id)).scalar_one()
            if members > MOST_ROWS:
                return
            numbered = enumerate(rows)
            while page := list(islice(numbered, _PAGE)):
                connection.execute(
                    PLAN_ROW.insert(),
                    [
                        {
                            "plan_id": plan_id,
                            "position": position,
                            "owner": row.owner,
                            "content": row.content,
                            "points": row.points,
                        }
                        for position, row in page
                    ],
                )

    def find(self, digest: str) -> Remembered | None:
        """Return the plan with this digest, None where it is not remembered."""
        mine = PLAN.c.organization_id == self._organization_id
        with self._database.reading() as connection:
            row = connection.execute(select(PLAN).where(mine, PLAN.c.digest == digest)).first()
        if row is None:
            return None
        return Remembered(row.id, row.digest, from_ms(row.made_at), row.members, row.points, row.brakes)

    def departure(self, plan: Remembered, rows: Iterable[Planned]) -> Departure:
        """Return how what would be sent now, in order of owner, departs from a plan."""
        if plan.members > MOST_ROWS:
            return Departure(plan, None, None, None)
        return _compare(plan, self._rows(plan.id), iter(rows))

    def _rows(self, plan_id: int) -> Iterator[Planned]:
        listed = select(PLAN_ROW).where(PLAN_ROW.c.plan_id == plan_id).order_by(PLAN_ROW.c.position)
        with self._database.reading() as connection:
            for row in connection.execute(listed, execution_options={"yield_per": _PAGE}):
                yield Planned(row.owner, row.content, row.points)


@dataclass(slots=True)
class _Change:
    count: int = 0
    samples: list[str] = field(default_factory=list)

    def add(self, sample: str) -> None:
        self.count += 1
        if len(self.samples) < _SAMPLES:
            self.samples.append(sample)


def _compare(plan: Remembered, then: Iterator[Planned], now: Iterator[Planned]) -> Departure:
    """Walk both in order of owner, holding one row of each."""
    more, fewer, different = _Change(), _Change(), _Change()
    old, new = next(then, None), next(now, None)
    while old is not None or new is not None:
        if old is None or (new is not None and new.owner < old.owner):
            assert new is not None  # noqa: S101 - one of both is there
            more.add(f"{new.owner} besides, with {new.points} points")
            new = next(now, None)
        elif new is None or old.owner < new.owner:
            fewer.add(f"{old.owner} no longer, with {old.points} points")
            old = next(then, None)
        else:
            if old.points != new.points:
                different.add(f"{new.owner} with {new.points} points instead of {old.points}")
            elif old.content != new.content:
                different.add(f"{new.owner} with another profile")
            old, new = next(then, None), next(now, None)
    samples = (*different.samples, *more.samples, *fewer.samples)
    return Departure(plan, more.count, fewer.count, different.count, samples)
