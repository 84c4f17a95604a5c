"""A state that was lost, or is another's, pays nobody again: the log shows whom others have imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enginelab import BRAND, IMPORT, LOG, MEMBER_MAP, Lab

from syncsvc.cycle import Cycle
from syncsvc.sandbox.faults import Kind
from syncsvc.watch.report import Outcome

Open = Callable[..., Lab]

BRAKE = "max_elsewhere_share"


def crowd(lab: Lab, count: int, *, points: int, first: int = 0) -> list[str]:
    records = [f"r{number:03}" for number in range(first, first + count)]
    for record in records:
        lab.crm.put(record, points=points)
    return [f"{record}@example.org" for record in records]


def lose_the_state(lab: Lab, **tables: Any) -> None:
    """Run one cycle, and go on with a state that has never sent anything."""
    new = lab.ground.kept()
    lab.cycle()
    lab.wait(3600)
    lab.close()
    lab.ground.put_back(new)
    lab.restart(**tables)


def total(lab: Lab, emails: list[str]) -> int:
    return sum(map(lab.awarded, emails))


def test_a_lost_state_pays_nobody_again_until_a_person_lets_it(lab: Lab) -> None:
    emails = crowd(lab, 5, points=10)
    lose_the_state(lab)
    imports = lab.asks(IMPORT)
    report = lab.cycle()
    assert (report.outcome, report.braked) == (Outcome.DEGRADED, (BRAKE,))
    (line,) = lab.said("brake_tripped")
    assert line["brake"] == BRAKE
    assert "5 of 5 members are new to this state" in line["detail"]
    assert (lab.asks(IMPORT), total(lab, emails)) == (imports, 50)
    lab.cycle()  # the status comes home
    assert {it["wallet_status"] for it in lab.crm.records.values()} == {"held"}
    before, asked = lab.contents(), lab.asks(LOG)
    lab.cycle(after=1)
    assert (lab.contents(), lab.asks(LOG), lab.said("brake_tripped")) == (before, asked, [])
    assert lab.release() == [BRAKE]
    assert lab.cycle().rows_landed == 5
    assert total(lab, emails) == 100
    assert lab.store.holds.open() == []


def test_whoever_was_awarded_already_is_adopted_and_the_rest_is_sent(lab: Lab) -> None:
    emails = crowd(lab, 5, points=10)
    lose_the_state(lab)
    (new,) = crowd(lab, 1, points=7, first=5)
    lab.cycle()
    (hold,) = lab.store.holds.open()
    assert lab.store.holds.adopt(hold.id, by="ann", now=lab.clock.now()) == 5
    assert lab.store.holds.adopt(hold.id, by="ann", now=lab.clock.now()) is None
    assert lab.cycle().rows_landed == 6
    assert (total(lab, emails), lab.awarded(new), lab.store.accounts.adopted()) == (50, 7, 50)
    assert lab.store.holds.open() == []
    assert lab.differences() == []
    crowd(lab, 5, points=12)
    lab.cycle()
    assert total(lab, emails) == 60


def test_what_came_in_meanwhile_is_held_with_it(lab: Lab) -> None:
    emails = crowd(lab, 3, points=10)
    lose_the_state(lab)
    (new,) = crowd(lab, 1, points=7, first=3)
    lab.cycle()
    crowd(lab, 1, points=7, first=4)
    assert lab.cycle().braked == (BRAKE,)
    assert (total(lab, emails), lab.awarded(new)) == (30, 0)


def test_whoever_says_that_they_were_paid_is_held_up_by_nothing(lab: Lab) -> None:
    emails = crowd(lab, 5, points=10)
    lose_the_state(lab, first_run="adopt")
    assert lab.cycle().braked == ()
    crowd(lab, 5, points=12)
    assert lab.cycle().braked == ()
    assert total(lab, emails) == 60


def test_points_that_set_the_balance_may_be_sent_again(open_lab: Open) -> None:
    lab = open_lab(wallet={"points": "set"})
    crowd(lab, 5, points=10)
    lose_the_state(lab)
    report = lab.cycle()
    assert (report.braked, report.rows_landed) == ((), 5)


def test_a_lost_state_mails_nobody_again(open_lab: Open) -> None:
    asking = {**MEMBER_MAP, "update_mail": {"value": True}}
    lab = open_lab(connectors={"crm": {"member": asking}}, wallet={"points": "off"})
    crowd(lab, 5, points=10)
    lose_the_state(lab)
    imports = lab.asks(IMPORT)
    assert lab.cycle().braked == (BRAKE,)
    assert lab.asks(IMPORT) == imports
    lab.release()
    assert lab.cycle().rows_landed == 5


def test_on_the_first_delivery_a_small_share_flows_and_a_larger_one_is_held(open_lab: Open) -> None:
    for imported, held in ((2, ()), (3, (BRAKE,))):
        lab = open_lab()
        for email in crowd(lab, 10, points=10)[:imported]:
            lab.wallet.touch(BRAND, email)
        lab.wait(3600)
        assert lab.cycle().braked == held


def test_later_new_members_are_held_from_a_hundred_on_and_known_ones_flow(lab: Lab) -> None:
    crowd(lab, 90, points=10)
    lab.cycle()
    for count, first, held in ((9, 90, ()), (26, 100, (BRAKE,))):
        for email in crowd(lab, count, points=10, first=first):
            lab.wallet.touch(BRAND, email)
        lab.wait(3600)
        lab.crm.put("r000", points=15)
        report = lab.cycle()
        assert report.braked == held
    assert (lab.awarded("r000@example.org"), lab.awarded("r100@example.org")) == (15, 0)
    lab.release()
    lab.calm()
    assert lab.awarded("r100@example.org") == 10


def test_members_that_this_state_has_sent_itself_are_paid(lab: Lab) -> None:
    (email,) = crowd(lab, 1, points=0)
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()  # the profile landed, which nobody knows
    assert lab.wallet.member(BRAND, email) is not None
    crowd(lab, 1, points=10)
    lab.calm()
    assert lab.awarded(email) == 10
    assert all(not report.braked for report in lab.reports)


def test_without_the_log_new_members_wait_and_are_held_by_nobody(lab: Lab) -> None:
    emails = crowd(lab, 5, points=10)
    crowd(lab, 1, points=0, first=5)  # a profile alone; sent, it would end the first delivery
    lab.fault(Kind.STATUS, LOG, times=None, status=503)
    report = lab.cycle()
    assert (report.outcome, report.braked, lab.asks(IMPORT)) == (Outcome.TRANSIENT, (), 0)
    assert ["log" in error for error in report.errors] == [True]
    lab.wallet.faults.clear()
    lab.cycle()
    assert total(lab, emails) == 50


def test_the_log_is_read_once_before_a_delivery(lab: Lab) -> None:
    crowd(lab, 5, points=10)
    lab.cycle()
    assert lab.asks(LOG) == 2  # before it, and after


def test_a_plan_shows_the_brake_and_is_made_without_the_log_too(lab: Lab) -> None:
    crowd(lab, 5, points=10)
    lose_the_state(lab)
    imports = lab.asks(IMPORT)
    lab.fault(Kind.STATUS, LOG, times=3, status=503)
    cycle = Cycle(lab.organization, send=False)
    assert ["log" in error for error in cycle.run().errors] == [True]
    assert lab.store.outbox.totals(None).points == 50
    assert cycle.allowed.flows.new
    cycle = Cycle(lab.organization, send=False)
    assert cycle.run().braked == (BRAKE,)
    assert not cycle.allowed.flows.new
    assert lab.asks(IMPORT) == imports
