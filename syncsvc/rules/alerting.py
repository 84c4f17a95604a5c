"""What is worth an alert: how an organization is now, compared with what was told of it last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

_GROWN = 2
"""So many times as much is in quarantine than was told last: it grows."""


@dataclass(frozen=True, slots=True)
class Told:
    """What people were told last, kept from process to process: a restart is no news.

    `hold` is the highest number of a brake's hold that was told, `quarantined` the count that was.
    """

    delivering: bool = True
    degraded: bool = False
    in_doubt: bool = False
    held: int = 0
    hold: int = 0
    quarantined: int = 0
    points_paid_twice: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for proof or for a person.

    Rows, what brakes hold by number, contacts refused, and points that may have been awarded twice.
    """

    in_doubt: int = 0
    held: int = 0
    holds: Mapping[int, str] = field(default_factory=dict)
    quarantined: int = 0
    points_paid_twice: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    """How an organization is.

    `degraded` says that a part of it needs a person; None where its last cycle was cut short, which says
    nothing of that, as `waiting` is where it failed altogether. `errors` are the last cycle's; none names a
    person.
    """

    delivering: bool
    degraded: bool | None
    waiting: Waiting | None
    errors: Sequence[str] = ()


def news(told: Told, now: Situation) -> tuple[list[str], Told]:
    """Return one line for each change since people were told last, and what they know with these.

    Each change is one line once. A number that only goes on growing is told again when it has doubled.
    """
    lines = list(_of_delivery(told, now))
    degraded = told.degraded if now.degraded is None else now.degraded
    known = replace(told, delivering=now.delivering, degraded=degraded)
    if now.waiting is None:
        return lines, known
    lines += _of_what_waits(told, now.waiting)
    return lines, _knowing(known, now.waiting)


def _knowing(told: Told, now: Waiting) -> Told:
    return replace(
        told,
        in_doubt=now.in_doubt > 0,
        held=now.held,
        hold=max([told.hold, *now.holds]),
        quarantined=_level(told.quarantined, now.quarantined),
        points_paid_twice=now.points_paid_twice,
    )


def _of_delivery(told: Told, now: Situation) -> Iterator[str]:
    why = f": {now.errors[0]}" if now.errors else ""
    if told.delivering and not now.delivering:
        yield f"does not deliver{why} → syncsvc check"
    elif not told.delivering and now.delivering:
        yield "delivers again"
    if now.degraded and not told.degraded:
        yield f"degraded{why} → syncsvc status"
    elif now.degraded is False and told.degraded:
        yield "recovered"


def _of_what_waits(told: Told, now: Waiting) -> Iterator[str]:
    for number, detail in sorted(now.holds.items()):
        if number > told.hold:
            yield f"a brake tripped: {detail} → syncsvc release"
    if now.in_doubt and not told.in_doubt:
        yield f"{now.in_doubt:,} rows are in doubt: the import log settles them, or a person does"
    elif told.in_doubt and not now.in_doubt:
        yield "nothing is in doubt any more"
    if now.held > told.held:
        yield f"{now.held:,} rows are held for a person → syncsvc doubt"
    elif told.held and not now.held:
        yield "nothing is held for a person any more"
    yield from _of_points(told.points_paid_twice, now.points_paid_twice)
    if now.quarantined > 0 and now.quarantined >= _GROWN * told.quarantined:
        yield f"{now.quarantined:,} are in quarantine, {told.quarantined:,} were → syncsvc status"
    elif told.quarantined and not now.quarantined:
        yield "nothing is in quarantine any more"


def _of_points(told: int, now: int) -> Iterator[str]:
    if now > told:
        yield f"{now:,} points may have been awarded twice → syncsvc doubt"
    elif told and not now:
        yield "all points that may have been awarded twice were looked into"


def _level(told: int, now: int) -> int:
    """Return the count from which growth is measured: what was told, unless it has fallen to half of that."""
    return now if now >= _GROWN * told or _GROWN * now <= told else told
