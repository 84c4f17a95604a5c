"""Brakes hold a delivery before its first request, say so once, and are lifted by a release."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from enginelab import BRAND, IMPORT, Lab

from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.wallet_knobs import PointsMode
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


def leavers(lab: Lab) -> int:
    """Return how many members have an expiry in the wallet."""
    return sum("expires_at" in lab.profile(f"r{number:03}@example.org") for number in range(100))


EXPIRING = {"policy": {"on_gone": "expire", "on_email_change": "move"}}


@pytest.mark.parametrize("how", ["deleted", "excluded", "moved"])
def test_too_many_gone_in_a_poll_are_held_until_released_and_all_others_flow(
    open_lab: Open, how: str
) -> None:
    lab = open_lab(connectors={"crm": {"where": "name != 'Out'"}}, **EXPIRING)
    crowd(lab, 100)
    lab.cycle()
    for number in range(6):
        if how == "deleted":
            lab.crm.delete(f"r{number:03}")
        elif how == "excluded":
            lab.crm.put(f"r{number:03}", name="Out")
        else:
            lab.crm.put(f"r{number:03}", email=f"moved{number}@example.org")
    lab.crm.put("r099", name="Eve")
    lab.crm.put("new", points=9)
    report = lab.cycle()
    moved = 6 if how == "moved" else 0
    assert (report.outcome, report.rows_landed, leavers(lab)) == (Outcome.DEGRADED, 2 + moved, 0)
    assert report.braked == ("max_gone_share",)
    assert [line["brake"] for line in lab.said("brake_tripped")] == ["max_gone_share"]
    lab.cycle(after=1)  # the status comes home
    before, imports = lab.contents(), lab.asks(IMPORT)
    lab.cycle(after=1)
    assert (lab.asks(IMPORT), lab.said("brake_tripped"), lab.contents()) == (imports, [], before)
    assert lab.release() == ["max_gone_share"]
    report = lab.cycle()
    assert (report.rows_landed, report.braked, leavers(lab)) == (6, (), 6)
    assert lab.store.holds.open() == []
    assert lab.cycle().rows_sent == 0


def test_a_few_that_are_gone_are_expired_at_once(open_lab: Open) -> None:
    lab = open_lab(**EXPIRING)
    crowd(lab, 120)
    lab.cycle()
    for number in range(6):
        lab.crm.delete(f"r{number:03}")
    assert (lab.cycle().rows_landed, leavers(lab)) == (6, 6)
    for number in range(6, 12):  # of the 114 that are left, 6 are too many
        lab.crm.delete(f"r{number:03}")
    assert (lab.cycle().rows_landed, leavers(lab)) == (0, 6)


def test_those_that_return_before_a_release_were_never_expired(open_lab: Open) -> None:
    lab = open_lab(**EXPIRING)
    crowd(lab, 100, points=3)
    lab.cycle()
    for number in range(50):
        lab.crm.delete(f"r{number:03}")
    lab.cycle()
    crowd(lab, 50, points=3)
    assert (lab.cycle().outcome, leavers(lab), lab.store.holds.open()) == (Outcome.OK, 0, [])
    assert lab.wallet.total_awarded() == 300


def test_what_a_sweep_did_not_find_is_let_go_once_also_where_its_delivery_fails(open_lab: Open) -> None:
    lab = open_lab(**EXPIRING)
    crowd(lab, 100)
    lab.cycle()
    for number in range(50):
        lab.crm.vanish(f"r{number:03}")
    lab.cycle(full=True)
    assert lab.release() == ["max_gone_share:crm"]
    lab.fault(Kind.STATUS, status=429)
    assert lab.cycle().rows_landed == 0
    assert (lab.cycle().rows_landed, leavers(lab)) == (50, 50)
    assert (lab.store.holds.open(), lab.said("brake_tripped")) == ([], [])


def test_more_than_a_released_sweep_let_go_is_held(open_lab: Open) -> None:
    lab = open_lab(**EXPIRING)
    crowd(lab, 100)
    lab.cycle()
    for number in range(50):
        lab.crm.vanish(f"r{number:03}")
    lab.cycle(full=True)
    lab.release()
    for number in range(50, 60):
        lab.crm.delete(f"r{number:03}")
    assert (lab.cycle().rows_landed, leavers(lab)) == (0, 0)
    assert lab.release() == ["max_gone_share"]
    assert (lab.cycle().rows_landed, leavers(lab)) == (60, 60)
    assert lab.store.holds.open() == []


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


def named(lab: Lab, most: int = 10) -> list[tuple[str, int | None]]:
    (hold,) = lab.store.holds.open()
    return [(it.record, it.points) for it in lab.store.holds.concerned(hold, most=most)]


def test_a_hold_names_whom_it_keeps_back_who_is_owed_most_first(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_cycle": 100})
    for record, points in {"a": 60, "b": 0, "c": 70}.items():
        lab.crm.put(record, points=points)
    lab.cycle()
    assert named(lab) == [("crm c", 70), ("crm a", 60)]
    assert named(lab, most=1) == [("crm c", 70)]


def test_a_hold_of_known_members_names_those_that_change(lab: Lab) -> None:
    crowd(lab, 100)
    lab.cycle()
    crowd(lab, 40, name="Broken")
    lab.crm.put("new", points=9)
    lab.cycle()
    assert named(lab, most=100) == [(f"crm r{number:03}", 0) for number in range(40)]


def test_a_hold_of_a_sweep_names_the_contacts_that_were_not_found(lab: Lab) -> None:
    crowd(lab, 100)
    lab.cycle()
    for number in range(20):
        lab.crm.vanish(f"r{number:03}")
    lab.cycle(full=True)
    assert named(lab, most=100) == [(f"crm r{number:03}", None) for number in range(20)]


def test_all_who_say_that_they_are_held_are_looked_at_once_a_brake_is_over(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {}, "shop": {}}, brakes={"max_points_per_cycle": 50})
    lab.crms["crm"].put("a", email="a@example.org", points=5)
    lab.crms["shop"].put("b", email="a@example.org", points=5)
    lab.cycle()

    def statuses() -> list[object]:
        return [lab.crms["crm"].records["a"]["wallet_status"], lab.crms["shop"].records["b"]["wallet_status"]]

    lab.cycle(after=400)
    assert statuses() == ["imported", "imported"]
    lab.crms["crm"].put("a", points=100)
    lab.cycle(after=400)
    lab.cycle()
    assert statuses() == ["held", "held"]
    lab.crms["crm"].put("a", points=5)
    lab.cycle()
    lab.cycle()
    assert statuses() == ["imported", "imported"]


def balance(lab: Lab) -> int:
    member = lab.wallet.member(BRAND, "a@example.org")
    assert member is not None
    return member.points


@pytest.mark.parametrize("brake", ["max_points_per_cycle", "max_points_per_member"])
def test_where_every_row_sets_the_balance_a_brake_holds_those_that_move_it(
    open_lab: Open, brake: str
) -> None:
    lab = open_lab(wallet={"points": "set"}, brakes={brake: 5})
    lab.wallet.knobs.points = PointsMode.SET
    lab.crm.put("a", points=1)
    lab.crm.put("b", points=1)
    lab.cycle()
    assert lab.store.holds.open() == []
    lab.crm.put("a", points=9)
    lab.crm.put("b", name="Bea")
    report = lab.cycle()
    assert (report.braked, balance(lab)) == ((brake,), 1)
    assert lab.profile("b@example.org")["name"] == "Bea"
    assert named(lab) == [("crm a", 8)]
    lab.cycle()
    assert lab.crm.records["a"]["wallet_status"] == "held"
    lab.release()
    lab.cycle()
    assert balance(lab) == 9
