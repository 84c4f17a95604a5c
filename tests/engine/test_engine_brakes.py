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
    lab.cycle(after=1)  # the status comes home
    assert lab.said("brake_tripped") == []
    before = lab.contents()
    lab.cycle(after=1)
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


def test_too_many_points_in_a_cycle_are_held_and_profiles_flow(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_cycle": 100})
    lab.crm.put("a", points=60)
    lab.crm.put("b", points=41)
    report = lab.cycle()
    assert (report.rows_landed, report.points_sent, lab.wallet.ledger) == (2, 0, [])
    assert [lab.crm.records[it]["wallet_status"] for it in "ab"] == ["held", "held"]
    quiet = lab.cycle()
    assert (quiet.rows_sent, quiet.written_back) == (0, 0)
    lab.crm.put("b", points=40)
    assert lab.cycle().points_landed == 100
    assert [lab.crm.records[it]["wallet_status"] for it in "ab"] == ["imported", "imported"]


def test_new_members_come_in_while_known_ones_are_held(lab: Lab) -> None:
    crowd(lab, 100)
    lab.cycle()
    crowd(lab, 40, name="Broken")
    lab.crm.put("new", points=9)
    assert lab.cycle().rows_landed == 1
    assert lab.awarded("new@example.org") == 9
    assert lab.profile("r000@example.org")["name"] == "Ada"
    statuses = [lab.crm.records[it]["wallet_status"] for it in ("r000", "r099", "new")]
    assert statuses == ["held", "imported", "imported"]
    lab.release()
    lab.cycle()
    assert lab.profile("r000@example.org")["name"] == "Broken"
    assert lab.crm.records["r000"]["wallet_status"] == "imported"


def test_a_release_of_one_brake_lasts_until_the_other_lets_the_rest_flow(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_cycle": 100})
    crowd(lab, 100)
    lab.cycle()
    crowd(lab, 40, points=50, name="Eve")
    lab.cycle()
    share, points = lab.store.holds.open()
    assert lab.store.holds.release(share.id, by="ann", now=lab.clock.now())
    lab.cycle()
    assert (lab.profile("r000@example.org")["name"], lab.wallet.ledger) == ("Eve", [])
    assert lab.store.holds.release(points.id, by="ann", now=lab.clock.now())
    lab.cycle()
    assert lab.wallet.total_awarded() == 2000
    assert lab.store.holds.open() == []


def test_a_release_lasts_until_points_that_wait_for_a_fresh_entry_have_flown(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_cycle": 100})
    lab.crm.put("a", points=101)
    lab.cycle()
    lab.release()
    lab.cycle(after=1)  # its profile was imported a second ago
    assert lab.wallet.ledger == []
    lab.cycle()
    assert lab.wallet.total_awarded() == 101
    assert lab.store.holds.open() == []


def test_points_of_a_released_member_count_for_the_cycle(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_member": 50, "max_points_per_cycle": 100})
    lab.crm.put("a", points=101)
    lab.cycle()
    lab.release()
    lab.cycle()
    assert lab.wallet.ledger == []
    assert [it.brake for it in lab.store.holds.open()] == ["max_points_per_member", "max_points_per_cycle"]
    lab.release()
    lab.cycle()
    assert lab.wallet.total_awarded() == 101


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
