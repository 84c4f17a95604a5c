"""Brakes: a limit holds a delivery before its first request, and sudden emptiness is a fault."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncsvc.rules.brakes import (
    SMALLEST_KNOWN,
    Allowed,
    Brake,
    Flows,
    Totals,
    Tripped,
    allowed_by,
    depends_on_log,
    enough,
    judge_delivery,
    judge_elsewhere,
    judge_leaving,
    judge_members,
    judge_sweep,
)

OFF: dict[str, Any] = {"max_share": 1.0, "max_points_per_cycle": None, "max_points_per_member": None}


def totals(**more: int) -> Totals:
    return Totals(**({"known": 1000, "changed": 0, "new": 0, "points": 0, "largest": 0} | more))


def tripped(subject: Totals, **limits: Any) -> list[tuple[Brake, int]]:
    return [(it.brake, it.amount) for it in judged(subject, **limits)]


def judged(subject: Totals, **limits: Any) -> list[Tripped]:
    chosen = OFF | limits
    most = chosen.pop("max_points_per_member")
    return [*judge_delivery(subject, **chosen), *judge_members(subject, max_points_per_member=most)]


def test_a_delivery_within_every_limit_trips_nothing() -> None:
    within = totals(changed=300, points=500, largest=50)
    assert tripped(within, max_share=0.3, max_points_per_cycle=500, max_points_per_member=50) == []


def test_the_share_is_of_known_members_and_may_be_reached_but_not_passed() -> None:
    assert tripped(totals(known=100, changed=30), max_share=0.3) == []
    assert tripped(totals(known=100, changed=31), max_share=0.3) == [(Brake.SHARE, 31)]


def test_new_members_are_no_share_of_those_known() -> None:
    assert tripped(totals(known=100, changed=0, new=5000), max_share=0.3) == []


def test_the_share_is_judged_from_a_hundred_known_members_on() -> None:
    assert SMALLEST_KNOWN == 100
    assert tripped(totals(known=99, changed=99), max_share=0.3) == []
    assert tripped(totals(known=100, changed=100), max_share=0.3) == [(Brake.SHARE, 100)]


def test_points_of_a_cycle_may_reach_their_limit_but_not_pass_it() -> None:
    assert tripped(totals(points=1000), max_points_per_cycle=1000) == []
    assert tripped(totals(points=1001), max_points_per_cycle=1000) == [(Brake.POINTS_PER_CYCLE, 1001)]
    assert tripped(totals(known=0, points=1), max_points_per_cycle=0) == [(Brake.POINTS_PER_CYCLE, 1)]


def test_members_over_their_limit_trip_with_the_largest_award() -> None:
    over = totals(points=9, largest=7, over_member_limit=2)
    assert tripped(over, max_points_per_member=5) == [(Brake.POINTS_PER_MEMBER, 7)]
    assert tripped(over) == []


def test_every_brake_that_trips_is_told_at_once_and_says_its_numbers() -> None:
    wild = totals(changed=400, points=900, largest=800, over_member_limit=3)
    found = judged(wild, max_share=0.3, max_points_per_cycle=10, max_points_per_member=20)
    assert {it.brake for it in found} == {Brake.SHARE, Brake.POINTS_PER_CYCLE, Brake.POINTS_PER_MEMBER}
    told = " ".join(it.detail for it in found)
    for number in ("400 of 1000", "30%", "900 points", "10 a cycle", "3 members", "800", "20"):
        assert number in told


@pytest.mark.parametrize(
    ("elsewhere", "lasting", "most", "trips", "asks"),
    [
        (0, 0, 0, False, False),
        (0, 1, 0, False, True),
        (1, 1, 0, True, False),
        (1, 9, 1, False, True),
        (2, 9, 1, True, False),
        (0, 1, 1, False, False),
    ],
)
def test_members_of_a_first_read_whom_the_log_shows_trip_above_the_limit(
    elsewhere: int, lasting: int, most: int, *, trips: bool, asks: bool
) -> None:
    subject = totals(new=10, lasting=lasting, elsewhere=elsewhere)
    found = judge_elsewhere(subject, max_elsewhere=most)
    assert [(it.brake, it.amount) for it in found] == [(Brake.ELSEWHERE, elsewhere)] * trips
    assert depends_on_log(subject, max_elsewhere=most) is asks


@pytest.mark.parametrize(
    ("held", "flows"),
    [
        (set(), Allowed(50)),
        ({Brake.SHARE}, Allowed(50, Flows(known=False))),
        ({Brake.GONE_SHARE}, Allowed(50, Flows(leaving=False))),
        ({Brake.POINTS_PER_CYCLE}, Allowed(0)),
        ({Brake.SHARE, Brake.POINTS_PER_CYCLE}, Allowed(0, Flows(known=False))),
    ],
)
def test_what_is_not_under_suspicion_flows(held: set[Brake], flows: Allowed) -> None:
    assert allowed_by(held, 50) == flows
    assert allowed_by(held, 50, new=False).flows == flows.flows._replace(new=False)


@pytest.mark.parametrize(
    ("known", "missing", "trips"),
    [
        (0, 0, False),
        (1000, 0, False),
        (1000, 50, False),
        (1000, 51, True),
        (1000, 1000, True),
        (100, 5, False),
        (100, 6, True),
        (99, 49, False),
        (99, 50, True),
        (99, 99, True),
        (20, 10, False),
        (20, 11, True),
        (11, 10, False),
        (1, 1, True),
    ],
)
def test_a_sweep_that_lost_too_many_contacts_is_a_fault(known: int, missing: int, *, trips: bool) -> None:
    found = judge_sweep(known=known, missing=missing, max_gone_share=0.05)
    assert (found is not None) is trips
    if found is not None:
        assert (found.brake, found.amount) == (Brake.GONE_SHARE, missing)
        assert f"{missing} of {known}" in found.detail


@pytest.mark.parametrize(
    ("present", "leaving", "looked_at", "trips"),
    [
        (1000, 0, 0, False),
        (1000, 50, 0, False),
        (1000, 51, 0, True),
        (1000, 51, 51, False),
        (1000, 60, 51, True),
        (99, 49, 0, False),
        (99, 50, 0, True),
        (99, 50, 50, False),
        (10, 10, 0, False),
        (100, 6, 0, True),
    ],
)
def test_too_many_members_that_would_be_expired_at_once_are_a_fault(
    present: int, leaving: int, looked_at: int, *, trips: bool
) -> None:
    subject = totals(changed=leaving, leaving=leaving, present=present)
    found = judge_leaving(subject, max_gone_share=0.05, looked_at=looked_at)
    assert [(it.brake, it.amount) for it in found] == [(Brake.GONE_SHARE, leaving)] * trips
    assert all(f"{leaving} of {present}" in it.detail for it in found)
    assert tripped(subject, max_share=0.0) == []


def test_of_few_contacts_a_higher_limit_counts_too() -> None:
    assert judge_sweep(known=60, missing=48, max_gone_share=0.8) is None
    found = judge_sweep(known=60, missing=49, max_gone_share=0.8)
    assert found is not None
    assert found.detail.endswith("(82%, the limit is 80%, or 10, of fewer than 100)")


@given(known=st.integers(1, 10_000_000), share=st.floats(0.0, 0.999))
def test_a_sweep_that_finds_nothing_any_more_always_trips(known: int, share: float) -> None:
    assert judge_sweep(known=known, missing=known, max_gone_share=share) is not None


@given(
    known=st.integers(SMALLEST_KNOWN, 10_000),
    changed=st.integers(0, 10_000),
    more=st.integers(0, 100),
    share=st.floats(0.0, 1.0),
)
def test_a_larger_delivery_never_passes_where_a_smaller_one_trips(
    known: int, changed: int, more: int, share: float
) -> None:
    if tripped(totals(known=known, changed=changed), max_share=share):
        assert tripped(totals(known=known, changed=changed + more), max_share=share)


@given(
    known=st.integers(0, 20_000),
    changed=st.integers(1, 10_000),
    share=st.one_of(st.sampled_from([0.05, 0.3, 1.0]), st.floats(0.0, 1.0)),
)
def test_members_that_are_counted_as_far_as_it_takes_are_judged_as_all_of_them(
    known: int, changed: int, share: float
) -> None:
    most = enough(changed, share)
    counted = known if most is None else min(known, most)
    for some, whole in (
        (totals(known=counted, changed=changed), totals(known=known, changed=changed)),
        (
            totals(changed=changed, leaving=changed, present=counted),
            totals(changed=changed, leaving=changed, present=known),
        ),
    ):
        said = [
            [
                *judge_delivery(it, max_share=share, max_points_per_cycle=None),
                *judge_leaving(it, max_gone_share=share),
            ]
            for it in (some, whole)
        ]
        assert said[0] == said[1]
