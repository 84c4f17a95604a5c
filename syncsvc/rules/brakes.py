"""Brakes: limits on what one cycle may change, judged before its first request.

A tripped brake is a suspicion, not an error: a broken job in the CRM looks like a busy day at first.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

SMALLEST_KNOWN = 100
"""Shares are judged from this many known members on: of three members, one is already 33 %."""
_FEW, _HALF = 10, 0.5
"""Of fewer than those, so many may be gone, or half of them."""


def enough(part: int, share: float) -> int | None:
    """Return how many members are enough to judge `part` of them by `share`; None where all have to be."""
    if not part:
        return 0
    most = part / share if share > 0 else math.inf
    return max(SMALLEST_KNOWN, math.ceil(most) + 1) if most < sys.maxsize // 2 else None


class Brake(StrEnum):
    """The limits, by their configuration keys."""

    SHARE = "max_share"
    ELSEWHERE = "max_elsewhere"
    GONE_SHARE = "max_gone_share"
    POINTS_PER_MEMBER = "max_points_per_member"
    POINTS_PER_CYCLE = "max_points_per_cycle"


@dataclass(frozen=True, slots=True)
class Totals:
    """What a delivery would send: members known before it, how many of them change, and the points.

    `leaving` are those of `changed` that would be expired, out of `present` known ones that are not yet.
    `again` are those of the changed ones that are only sent once more what counts as delivered, in case.
    `lasting` are those of the new ones that a connector's first read brought, and whose rows do what nothing
    takes back: award points, be they above a limit, or ask for mails. `elsewhere` are those of them that the
    import log shows already, though no row of this state brought them there.
    """

    known: int
    changed: int
    new: int
    points: int
    largest: int
    over_member_limit: int = 0
    leaving: int = 0
    present: int = 0
    again: int = 0
    lasting: int = 0
    elsewhere: int = 0

    @property
    def members(self) -> int:
        """How many members would be sent at all."""
        return self.changed + self.new


class Flows(NamedTuple):
    """Which members may be sent: those that were delivered before, new ones, and those to be expired."""

    known: bool = True
    new: bool = True
    leaving: bool = True


ALL = Flows()


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a delivery may send while brakes hold the rest.

    A member that is owed more than `most_points` gets none of them (its profile flows); of the others only
    those that `flows` names are sent.
    """

    most_points: int | None = None
    flows: Flows = ALL


@dataclass(frozen=True, slots=True)
class Tripped:
    """A limit that would be exceeded: by which amount, and said so that a person can decide.

    `amount` is the number a release stands for: a delivery of up to that many passes once it is released.
    """

    brake: Brake
    amount: int
    detail: str


def judge_members(totals: Totals, *, max_points_per_member: int | None) -> list[Tripped]:
    """Return the brake that members trip who would be awarded too much at once, if any are."""
    if max_points_per_member is None or not totals.over_member_limit:
        return []
    detail = (
        f"{totals.over_member_limit} members would be awarded up to {totals.largest} points each "
        f"(the limit is {max_points_per_member}); their profiles flow, their points are held"
    )
    return [Tripped(Brake.POINTS_PER_MEMBER, totals.largest, detail)]


def judge_leaving(totals: Totals, *, max_gone_share: float, looked_at: int = 0) -> list[Tripped]:
    """Return the brake that members trip who would be expired all at once, if they do.

    `looked_at` is how many contacts a person has let be gone, of which these members may be.
    """
    limit, said = _may_be_gone(totals.present, max_gone_share)
    if not totals.present or totals.leaving <= max(looked_at, limit):
        return []
    detail = (
        f"{totals.leaving} of {totals.present} known members would be expired, no contact of theirs being "
        f"left ({totals.leaving / totals.present:.0%}, the limit is {said}); all others flow"
    )
    return [Tripped(Brake.GONE_SHARE, totals.leaving, detail)]


def judge_delivery(totals: Totals, *, max_share: float, max_points_per_cycle: int | None) -> list[Tripped]:
    """Return the brakes that a delivery of these totals trips; `max_share` is a fraction.

    Members that would be expired are judged by `judge_leaving` alone: nobody has to let them go twice.
    """
    tripped, changed = [], totals.changed - totals.leaving - totals.again
    if totals.known >= SMALLEST_KNOWN and changed > max_share * totals.known:
        tripped.append(
            Tripped(
                Brake.SHARE,
                changed,
                f"{changed} of {totals.known} known members would change "
                f"({changed / totals.known:.0%}, the limit is {max_share:.0%}); "
                "new members flow, known ones are held",
            )
        )
    if max_points_per_cycle is not None and totals.points > max_points_per_cycle:
        tripped.append(
            Tripped(
                Brake.POINTS_PER_CYCLE,
                totals.points,
                f"{totals.points} points would be awarded (the limit is {max_points_per_cycle} a cycle); "
                "profiles flow, all points are held",
            )
        )
    return tripped


def depends_on_log(totals: Totals, *, max_elsewhere: int) -> bool:
    """Return whether a reading of the import log could make a delivery of these totals trip a brake."""
    return totals.elsewhere <= max_elsewhere < totals.lasting


def judge_elsewhere(totals: Totals, *, max_elsewhere: int) -> list[Tripped]:
    """Return the brake that members of first reads trip who have been imported already, if they do.

    So it is with the members of a state that was lost, or is another's: all that they were ever awarded would
    be awarded again.
    """
    if totals.elsewhere <= max_elsewhere:
        return []
    detail = (
        f"{totals.elsewhere} of {totals.lasting} members of a first read who would be awarded points, or "
        f"mailed, are in the import log already (the limit is {max_elsewhere}): another state, or another "
        "tool, has imported them; new members are held, known ones flow"
    )
    return [Tripped(Brake.ELSEWHERE, totals.elsewhere, detail)]


def allowed_by(held: Collection[Brake], most_points: int | None, *, new: bool = True) -> Allowed:
    """Return what may flow while these brakes hold: never a part of what is under suspicion.

    Which of too many points are wrong cannot be told, so none flow; profiles do. Where too many known members
    change, new ones still come in, unless they are held (`new` is False): others have imported some of them,
    or the log could not be asked. Where too many would be expired, all others are sent.
    """
    return Allowed(
        most_points=0 if Brake.POINTS_PER_CYCLE in held else most_points,
        flows=Flows(
            known=Brake.SHARE not in held,
            new=new,
            leaving=Brake.GONE_SHARE not in held,
        ),
    )


def _may_be_gone(known: int, share: float) -> tuple[float, str]:
    """Return how many of `known` may be gone at once, and how that limit is told."""
    if known >= SMALLEST_KNOWN:
        return share * known, f"{share:.0%}"
    share = max(share, _HALF)
    return max(_FEW, share * known), f"{share:.0%}, or {_FEW}, of fewer than {SMALLEST_KNOWN}"


def judge_sweep(*, known: int, missing: int, max_gone_share: float) -> Tripped | None:
    """Return the brake that a sweep trips which no longer finds `missing` of `known` contacts, or None."""
    limit, said = _may_be_gone(known, max_gone_share)
    if missing == 0 or (missing < known and missing <= limit):
        return None
    return Tripped(
        Brake.GONE_SHARE,
        missing,
        f"{missing} of {known} known contacts were not found any more "
        f"({missing / known:.0%}, the limit is {said})",
    )
