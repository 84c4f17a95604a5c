"""Departures: what has changed since a plan, in one sentence for the person who approved it."""

from __future__ import annotations

from collections.abc import Sequence

from syncsvc.rules.brakes import Allowed, Totals
from syncsvc.state.plans import KEPT, Departure
from syncsvc.state.store import Store


def departure(store: Store, planned: str, digest: str, allowed: Allowed) -> str:
    """Say why what is due, as `digest` tells it, is not what was planned, and what to do."""
    totals = store.outbox.totals(allowed.most_points)
    known = store.plans.find(planned)
    if known is None:
        told = not_remembered(planned)
    else:
        told = what_changed(store.plans.departure(known, store.outbox.planned(allowed)), totals.points)
    held = sorted(hold.brake for hold in store.holds.open() if hold.released_by is None)
    return refusal(told, digest, totals, held=held)


def not_remembered(digest: str) -> str:
    """Say that nothing is known of a plan but its digest."""
    return (
        f"what is due is not plan {digest}, which is not remembered: it was made on another state, or "
        f"{KEPT} or more plans ago"
    )


def what_changed(departure: Departure, points: int) -> str:
    """Say what has changed since a plan; `points` are those that are due now."""
    plan = departure.plan
    told = f"what is due is no longer plan {plan.digest} of {plan.made_at:%Y-%m-%d %H:%M:%S}Z"
    counts = (
        (departure.more, "more"),
        (departure.fewer, "fewer"),
        (departure.different, "different"),
    )
    changes = [f"{count:,} {'member' if count == 1 else 'members'} {kind}" for count, kind in counts if count]
    if departure.more is None:
        changes = ["too many members to be compared one by one"]
    change = points - plan.points
    unit = "point" if abs(change) == 1 else "points"
    how = "more" if change > 0 else "fewer"
    changes.append(f"{abs(change):,} {unit} {how}" if change else "the same points")
    named = f" ({'; '.join(departure.samples)})" if departure.samples else ""
    return f"{told}: {', '.join(changes)}{named}"


def refusal(told: str, digest: str, totals: Totals, *, held: Sequence[str]) -> str:
    """Complete a refusal with what is due now, what brakes hold, and what to do."""
    if not totals.members:
        return f"{told}; nothing is due now: it was delivered already, or the contacts have changed back"
    brakes = f"; {', '.join(held)} hold what is no part of a plan until `syncsvc release`" if held else ""
    return (
        f"{told}; due now is plan {digest} ({totals.new:,} new and {totals.changed:,} changed members, "
        f"{totals.points:,} points){brakes}: run `syncsvc plan` and approve that one"
    )
