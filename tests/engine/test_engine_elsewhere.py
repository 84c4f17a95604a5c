"""A state that was lost, or is another's, pays nobody again: the log shows whom others have imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from enginelab import BRAND, IMPORT, LOG, MEMBER_MAP, Lab

from syncsvc.cycle import Cycle
from syncsvc.errors import OperatorError, TransientError
from syncsvc.sandbox.faults import Kind
from syncsvc.state.database import Database
from syncsvc.state.restoration import put_back
from syncsvc.watch.report import Outcome

Open = Callable[..., Lab]

BRAKE = "max_elsewhere"


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


def mails_of(lab: Lab) -> int:
    return sum(len(it.mails) for it in lab.wallet.members(BRAND))


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
    assert "5 of 5 members of a first read" in line["detail"]
    assert (lab.asks(IMPORT), total(lab, emails)) == (imports, 50)
    (hold,) = lab.store.holds.open()
    named = [(it.record, it.points) for it in lab.store.holds.concerned(hold, most=2)]
    assert named == [("crm r000", 10), ("crm r001", 10)]
    lab.cycle()  # the status comes home
    assert {it["wallet_status"] for it in lab.crm.records.values()} == {"held"}
    before, asked = lab.contents(), lab.asks(LOG)
    lab.cycle(after=1)
    assert (lab.contents(), lab.asks(LOG), lab.said("brake_tripped")) == (before, asked, [])
    assert lab.release() == [BRAKE]
    assert lab.cycle().rows_landed == 5
    assert total(lab, emails) == 100
    assert lab.store.holds.open() == []


def test_who_comes_in_while_new_members_are_held_shows_it_too(lab: Lab) -> None:
    crowd(lab, 5, points=10)
    lose_the_state(lab)
    lab.cycle()
    lab.cycle()
    crowd(lab, 1, points=7, first=5)
    report = lab.cycle()
    assert report.written_back == 1  # and nobody is told what he shows already
    assert [it["wallet_status"] for it in lab.crm.records.values()] == ["held"] * 6


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


def test_what_the_same_read_brings_is_held_with_them(lab: Lab) -> None:
    emails = crowd(lab, 3, points=10)
    lose_the_state(lab)
    (new,) = crowd(lab, 1, points=7, first=3)
    lab.cycle()
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
    asking = {**MEMBER_MAP, "welcome_email": "{mails}", "update_mail": "{mails}"}
    lab = open_lab(connectors={"crm": {"member": asking}}, wallet={"points": "off"})
    crowd(lab, 5, points=10)
    for record in ("r000", "r001"):
        lab.crm.put(record, mails="1")
    lose_the_state(lab)
    mails, imports = mails_of(lab), lab.asks(IMPORT)
    assert lab.cycle().braked == (BRAKE,)
    assert "2 of 2 members of a first read" in lab.said("brake_tripped")[0]["detail"]
    assert lab.asks(IMPORT) == imports
    (hold,) = lab.store.holds.open()
    assert lab.store.holds.adopt(hold.id, by="ann", now=lab.clock.now()) == 2
    assert lab.cycle().rows_landed == 5
    assert mails_of(lab) == mails


def test_as_many_as_a_person_allows_flow(open_lab: Open) -> None:
    for allowed, held in ((2, (BRAKE,)), (3, ())):
        lab = open_lab(brakes={BRAKE: allowed})
        for email in crowd(lab, 10, points=10)[:3]:
            lab.wallet.touch(BRAND, email)
        lab.wait(3600)
        assert lab.cycle().braked == held


def test_whoever_a_poll_brings_meanwhile_waits_with_them(lab: Lab) -> None:
    """Else the right state, once it is back, would award them again."""
    emails = crowd(lab, 3, points=10)
    lose_the_state(lab)
    lab.cycle()
    (new,) = crowd(lab, 1, points=7, first=3)
    assert lab.cycle().braked == (BRAKE,)
    assert (total(lab, emails), lab.awarded(new)) == (30, 0)
    lab.release()
    lab.cycle()
    assert lab.awarded(new) == 7


def test_whoever_a_poll_brings_is_awarded_though_the_log_shows_them(lab: Lab) -> None:
    crowd(lab, 1, points=10)
    lab.cycle()
    (new,) = crowd(lab, 1, points=7, first=1)
    lab.wallet.touch(BRAND, new)
    lab.wait(3600)
    report = lab.cycle()
    assert (report.braked, lab.awarded(new)) == ((), 7)


def test_what_is_held_is_no_part_of_what_the_others_are_judged_by(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_cycle": 60})
    (known,) = crowd(lab, 1, points=10)
    lab.cycle()
    lab.restart(connectors={"crm": {}, "shop": {}})
    for number in range(10):
        lab.crms["shop"].put(f"s{number}", points=10)
        lab.wallet.touch(BRAND, f"s{number}@example.org")
    crowd(lab, 1, points=15)
    lab.wait(3600)
    report = lab.cycle()
    assert (report.braked, lab.awarded(known)) == ((BRAKE,), 15)
    assert lab.release() == [BRAKE]
    assert lab.cycle().braked == ("max_points_per_cycle",)
    assert lab.release() == ["max_points_per_cycle"]
    lab.calm()
    assert lab.awarded("s9@example.org") == 10
    assert lab.store.holds.open() == []


def test_a_higher_limit_lets_them_go(lab: Lab) -> None:
    emails = crowd(lab, 3, points=10)
    lose_the_state(lab)
    assert lab.cycle().braked == (BRAKE,)
    lab.restart(brakes={BRAKE: 3})
    assert lab.cycle().braked == ()
    assert total(lab, emails) == 60
    assert lab.store.holds.open() == []


def test_what_awards_nothing_makes_them_no_fewer(lab: Lab) -> None:
    emails = crowd(lab, 3, points=10)
    lose_the_state(lab)
    crowd(lab, 150, points=0, first=3)
    lab.cycle()
    crowd(lab, 150, points=9, first=153)
    lab.cycle()
    assert total(lab, emails) == 30


@pytest.mark.parametrize("points", [0, 10])
def test_a_connector_that_is_read_later_is_held_too(open_lab: Open, points: int) -> None:
    lab = open_lab(connectors={"crm": {}, "shop": {}})
    crowd(lab, 1, points=points)
    for number in range(3):
        lab.crms["shop"].put(f"s{number}", points=10)
    emails = [f"s{number}@example.org" for number in range(3)]
    lose_the_state(lab)
    lab.crms["shop"].fail(TransientError("away"))
    lab.cycle()
    for hold in lab.store.holds.open():
        lab.store.holds.adopt(hold.id, by="ann", now=lab.clock.now())
    lab.cycle()
    assert lab.cycle().braked == (BRAKE,)
    assert total(lab, emails) == 30


def test_awards_above_a_limit_are_held_with_them(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_member": 100})
    (email,) = crowd(lab, 1, points=50)
    lose_the_state(lab)
    crowd(lab, 1, points=500)
    imports = lab.asks(IMPORT)
    report = lab.cycle()
    assert (report.braked, lab.asks(IMPORT)) == ((BRAKE,), imports)
    assert lab.release() == [BRAKE]
    assert lab.cycle().braked == ("max_points_per_member",)
    assert lab.awarded(email) == 50


def test_a_release_lets_no_more_go_than_were_held(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {}, "shop": {}})
    emails = crowd(lab, 3, points=10)
    lab.crms["shop"].put("s", points=10)
    lose_the_state(lab)
    lab.crms["shop"].fail(TransientError("away"))
    lab.cycle()
    assert lab.release() == [BRAKE]
    assert lab.cycle().braked == (BRAKE,)
    assert "4 of 4 members" in lab.store.holds.open()[0].detail
    assert lab.release() == [BRAKE]
    lab.cycle()
    assert total(lab, [*emails, "s@example.org"]) == 80


def test_an_adoption_ends_the_hold_and_takes_no_more_than_it_showed(lab: Lab) -> None:
    emails = crowd(lab, 5, points=10)
    for email in emails[:3]:
        lab.wallet.touch(BRAND, email)
    lab.wait(3600)
    lab.cycle()
    (hold,) = lab.store.holds.open()
    lab.wallet.touch(BRAND, emails[3])
    lab.cycle(3600)  # reads the log, as it is due
    with pytest.raises(OperatorError, match="4 members are in the import log by now, 3 when they were held"):
        lab.store.holds.adopt(hold.id, by="ann", now=lab.clock.now())
    assert [it.released_by for it in lab.store.holds.open()] == [None]
    assert lab.cycle().braked == (BRAKE,)
    assert lab.store.holds.adopt(hold.id, by="ann", now=lab.clock.now()) == 4
    assert lab.store.holds.open() == []
    lab.cycle()
    assert total(lab, emails) == 10


def test_a_restore_after_the_hold_awards_them_no_more_than_a_person_says(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {}, "shop": {}})
    emails = crowd(lab, 3, points=10)
    lose_the_state(lab)
    lab.crms["shop"].put("s", points=7)
    lab.crms["crm"].fail(TransientError("away"))
    lab.cycle()
    assert lab.awarded("s@example.org") == 7  # so that it is no state any more that has sent nothing
    assert lab.cycle().braked == (BRAKE,)
    lab.close()
    with Database.open(lab.state) as database:
        put_back(database, [lab.organization.config], by="ann")
    lab.restart()
    lab.calm()
    assert total(lab, emails) == 30
    assert lab.reports[-1].braked == (BRAKE,)
    (hold,) = lab.store.holds.open()
    assert lab.store.holds.adopt(hold.id, by="ann", now=lab.clock.now()) == 3
    lab.calm()
    assert total(lab, emails) == 30
    assert lab.differences() == []


def test_a_log_that_shows_fewer_of_them_ends_no_hold(lab: Lab) -> None:
    emails = crowd(lab, 5, points=10)
    lose_the_state(lab)
    lab.cycle()
    lab.crm.fail(TransientError("away"))
    lab.wallet.touch(BRAND, "r005@example.org")
    (other,) = crowd(lab, 1, points=5, first=5)
    lab.cycle()
    listed = [{"email": other, "last_updated": "2026-11-02T11:00:00Z"}]
    lab.fault(Kind.STATUS, LOG, times=None, status=200, body={"success": True, "data": listed})
    for _ in range(4):
        lab.cycle(12 * 3600)
    assert lab.reports[-1].braked == (BRAKE,)
    assert total(lab, emails) == 50


def test_members_that_this_state_has_sent_itself_are_paid(lab: Lab) -> None:
    (email,) = crowd(lab, 1, points=0)
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()  # the profile landed, which nobody knows
    assert lab.wallet.member(BRAND, email) is not None
    crowd(lab, 1, points=10)
    lab.calm()
    assert lab.awarded(email) == 10
    assert all(not report.braked for report in lab.reports)


def test_without_the_log_they_wait_and_are_held_by_nobody(lab: Lab) -> None:
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
