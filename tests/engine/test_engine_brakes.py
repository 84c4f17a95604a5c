"""Brakes hold a delivery before its first request, say so once, and are lifted by a release."""

from __future__ import annotations

from collections.abc import Callable

from enginelab import IMPORT, Lab

from syncsvc.watch.report import Outcome

Open = Callable[..., Lab]


def crowd(lab: Lab, count: int, points: int = 0, name: str = "Ada") -> None:
    for number in range(count):
        lab.crm.put(f"r{number:03}", points=points, name=name)


def test_too_many_changed_members_are_held_until_released(lab: Lab) -> None:
    crowd(lab, 100)
    lab.cycle()
    imports = lab.asks(IMPORT)
    crowd(lab, 31, name="Broken")
    report = lab.cycle()
    assert (report.outcome, lab.asks(IMPORT)) == (Outcome.DEGRADED, imports)
    assert [line["brake"] for line in lab.said("brake_tripped")] == ["max_share"]
    before = lab.contents()
    lab.cycle(after=1)
    assert lab.said("brake_tripped") == []
    assert lab.contents() == before
    assert lab.release() == ["max_share"]
    assert lab.cycle().rows_landed == 31
    assert lab.rows("SELECT released_by, used_at IS NOT NULL FROM hold") == [("ann", 1)]
    crowd(lab, 40, name="Broken again")
    assert lab.cycle().rows_sent == 0


def test_a_share_is_not_judged_below_a_hundred_members_nor_for_new_ones(lab: Lab) -> None:
    crowd(lab, 99)
    lab.cycle()
    crowd(lab, 99, name="Eve")
    assert lab.cycle().rows_landed == 99
    for number in range(80):
        lab.crm.put(f"new{number}")
    assert lab.cycle().rows_landed == 80


def test_a_brake_whose_cause_is_over_lets_go(lab: Lab) -> None:
    crowd(lab, 100)
    lab.cycle()
    crowd(lab, 31, name="Broken")
    lab.cycle()
    crowd(lab, 31)
    assert lab.cycle().outcome is Outcome.OK
    assert lab.store.holds.open() == []


def test_a_release_does_not_cover_more_than_was_looked_at(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_cycle": 100})
    lab.crm.put("a", points=101)
    lab.cycle()
    lab.release()
    lab.crm.put("b", points=1)
    lab.cycle()
    assert lab.wallet.ledger == []
    lab.release()
    lab.cycle()
    assert lab.wallet.total_awarded() == 102


def test_too_many_points_in_a_cycle_are_held(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_cycle": 100})
    lab.crm.put("a", points=60)
    lab.crm.put("b", points=41)
    assert lab.cycle().rows_sent == 0
    lab.crm.put("b", points=40)
    assert lab.cycle().points_landed == 100


def test_too_many_points_for_one_member_hold_those_points_alone(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_member": 50})
    lab.crm.put("a", points=51, name="Ada")
    lab.crm.put("b", points=50)
    report = lab.cycle()
    assert report.outcome is Outcome.DEGRADED
    assert (lab.awarded("a@example.org"), lab.awarded("b@example.org")) == (0, 50)
    assert lab.profile("a@example.org")["name"] == "Ada"
    lab.crm.put("a", name="Eve")
    lab.cycle()
    assert lab.profile("a@example.org")["name"] == "Eve"
    imports = lab.asks(IMPORT)
    lab.cycle()
    assert lab.asks(IMPORT) == imports
    lab.release()
    lab.cycle()
    assert lab.awarded("a@example.org") == 51
    lab.crm.put("a", points=200)
    lab.cycle()
    assert lab.awarded("a@example.org") == 51
    assert len(lab.said("brake_tripped")) == 1


def test_held_points_do_not_count_as_members_that_change(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_member": 50})
    crowd(lab, 100)
    lab.cycle()
    crowd(lab, 40, points=51)
    lab.cycle()
    lab.crm.put("r099", name="Eve")
    lab.cycle()
    assert lab.profile("r099@example.org")["name"] == "Eve"
    assert [it.brake for it in lab.store.holds.open()] == ["max_points_per_member"]
