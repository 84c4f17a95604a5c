"""A row taken as not applied is applied late: the newer profile is sent again, the points are shown."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from enginelab import IMPORT, LOG, SETTLED, Crash, Lab
from quicklab import QuickLab

from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.wallet_knobs import PointsMode
from syncsvc.state.doubts import Choice, Evidence
from syncsvc.state.late import unsure

Open = Callable[..., QuickLab]
A = "a@example.org"
LATE = 400  # seconds after its answer was lost, beyond the five minutes of `settle_after`
DAY = 86_400
WANTED = "SELECT count(*) FROM payload"


def lose(lab: QuickLab, *, applied: float = LATE, **news: Any) -> None:
    """Send a change of a whose answer is lost, and that the wallet applies late."""
    lab.crm.put("a", **news)
    lab.wallet.knobs.apply_seconds = applied
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()
    lab.wallet.knobs.apply_seconds = 0


def overwritten(lab: QuickLab, *, points: int = 10) -> None:
    """Let a newer profile land, and the older one, with more points or none, behind it."""
    lab.crm.put("a", points=10)
    lab.cycle()
    lose(lab, name="Eve", points=points)
    lab.crm.put("a", name="Zoe")
    lab.cycle(SETTLED)
    assert lab.profile(A)["name"] == "Zoe"
    lab.wait(LATE)
    assert lab.profile(A)["name"] == "Eve"


def again(lab: QuickLab) -> list[int]:
    """Run cycles until all is quiet; returns the points of each import that was sent."""
    before = len(lab.wallet.imports)
    for after in (1, 60, SETTLED):
        lab.cycle(after)
    lab.silent()
    return [it.points for it in lab.wallet.imports[before:]]


def test_a_profile_that_an_older_row_overwrote_late_is_sent_again(quick: QuickLab) -> None:
    overwritten(quick)
    quick.cycle(1)
    (line,) = quick.said("rows_landed_late")
    assert (line["log_level"], line["rows"], line["profiles"], line["points"]) == ("warning", 1, 1, 0)
    assert quick.store.accounts.summary().paid_twice == ()
    assert again(quick) == [0]
    assert quick.profile(A)["name"] == "Zoe"
    assert quick.crm.records["a"]["wallet_status"] == "imported"
    quick.balanced()


def test_points_that_land_late_are_shown_and_nothing_more_is_awarded(quick: QuickLab) -> None:
    overwritten(quick, points=50)
    assert quick.awarded(A) == 90  # no client can keep it from that: nothing had moved for five minutes
    quick.cycle(1)
    (line,) = quick.said("rows_landed_late")
    assert (line["log_level"], line["profiles"], line["points"]) == ("error", 1, 40)
    (twice,) = quick.store.accounts.summary().paid_twice
    assert (twice.record, twice.points, twice.landed_at) == ("a", 40, quick.wallet.ledger[-1].at)
    assert again(quick) == [0]
    assert (quick.profile(A)["name"], quick.awarded(A)) == ("Zoe", 90)
    quick.crm.put("a", points=57)
    quick.calm()
    assert quick.awarded(A) == 97
    assert quick.differences() == []


def test_points_that_land_late_with_the_same_profile_are_shown_and_nothing_is_sent(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    lose(quick, points=50)
    quick.cycle(SETTLED)
    quick.cycle(LATE)
    (line,) = quick.said("rows_landed_late")
    assert (line["profiles"], line["points"], quick.awarded(A)) == (0, 40, 90)
    assert again(quick) == []


@pytest.mark.parametrize("evidence", ["landed", "unknown"])
def test_points_that_land_late_before_they_are_sent_anew_are_in_doubt_again_and_not_sent(
    quick: QuickLab, evidence: str
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    lose(quick, name="Eve", points=50)
    quick.fault(Kind.STATUS, status=429, times=2)
    quick.cycle(SETTLED)
    assert quick.rows("SELECT outcome FROM batch_row ORDER BY batch_id") == [(3,), (4,), (4,)]
    quick.cycle(LATE)
    (line,) = quick.said("rows_landed_late")
    assert (line["log_level"], line["points"], line["points_in_doubt"]) == ("warning", 0, 40)
    assert quick.crm.records["a"]["wallet_status"] == "in doubt"
    assert quick.differences() == []
    quick.cycle(3700)
    quick.cycle()
    assert [it.points for it in quick.wallet.imports] == [10, 40, 0]  # once held, its profile flows
    (held,) = quick.store.doubts.suspects()
    assert (held.held, held.points) == (True, 40)
    choice = Choice.LANDED if evidence == "landed" else Choice.SKIP
    decided = {held.row: Evidence(None, None, "moved")}
    assert quick.store.doubts.decide(held.batch, choice, decided, by="ann", now=quick.clock.now())
    quick.crm.put("a", points=57)
    quick.calm()
    assert quick.awarded(A) == 57
    quick.balanced()


def test_a_lost_profile_that_was_applied_in_time_puts_no_points_in_doubt(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", points=50)
    quick.fault(Kind.RESET_BEFORE)
    quick.cycle()
    quick.fault(Kind.STATUS, status=429)
    quick.cycle(SETTLED)  # refuted, and not sent anew
    quick.crm.put("a", name="Eve", points=5)
    quick.fault(Kind.RESET_AFTER)
    quick.cycle()
    assert quick.profile(A)["name"] == "Eve"
    quick.crm.put("a", points=50)
    quick.calm()
    assert quick.awarded(A) == 50
    assert [it.points for it in quick.wallet.imports] == [10, 0, 40]
    quick.balanced()


def test_a_refutation_that_the_log_takes_back_within_the_window_has_landed(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.wallet.knobs.log_lag_seconds = LATE
    quick.crm.put("a", points=50)
    quick.fault(Kind.RESET_AFTER)
    quick.cycle()
    quick.fault(Kind.STATUS, status=429, times=2)
    quick.cycle(SETTLED)
    quick.cycle(LATE)
    assert [line["points_in_doubt"] for line in quick.said("rows_landed_late")] == [40]
    quick.cycle()
    assert quick.rows("SELECT points, grade FROM ledger") == [(10, "answer"), (40, "window")]
    quick.calm()
    quick.balanced()


def test_a_held_row_that_lands_late_costs_its_member_no_newer_profile(open_quick: Open) -> None:
    lab = open_quick(wallet={"give_up_after": "10m"})
    lab.crm.put("a", points=10)
    lab.cycle()
    lose(lab, applied=2000, name="Eve", points=50)
    lab.fault(Kind.STATUS, LOG, times=3, status=503)
    lab.wait(SETTLED + 60)
    lab.wallet.touch("brand-1", A)
    for after in (60, 700, 60):
        lab.cycle(after)
    lab.crm.put("a", name="Zoe")
    assert lab.cycle().held == 1
    assert (lab.profile(A)["name"], lab.awarded(A)) == ("Zoe", 10)
    lab.wait(2000)
    assert (lab.profile(A)["name"], lab.awarded(A)) == ("Eve", 50)
    lab.cycle(1)
    assert [line["points"] for line in lab.said("rows_landed_late")] == [0]  # they are held, not sent anew
    lab.cycle()
    assert (lab.profile(A)["name"], lab.awarded(A)) == ("Zoe", 50)


def test_an_entry_that_others_go_on_moving_costs_one_row_and_no_more(quick: QuickLab) -> None:
    overwritten(quick)
    quick.cycle(1)
    assert again(quick) == [0]
    for _ in range(5):
        quick.wallet.touch("brand-1", A)
        quick.cycle(SETTLED)
        assert quick.said("rows_landed_late") == []
    assert again(quick) == []


def test_two_rows_that_land_late_are_each_made_good(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    lose(quick, name="Eve", applied=500)
    lose(quick, name="Amy", applied=1000)
    quick.crm.put("a", name="Zoe")
    quick.cycle()
    quick.wait(500)
    assert quick.profile(A)["name"] == "Eve"
    assert again(quick) == [0]
    quick.wait(500)
    assert quick.profile(A)["name"] == "Amy"
    assert again(quick) == [0]
    assert quick.profile(A)["name"] == "Zoe"


def test_a_lost_row_that_was_applied_in_time_is_not_late(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    lose(quick, name="Eve", applied=0)
    quick.crm.put("a", name="Zoe")
    for after in (1, 60, SETTLED):
        quick.cycle(after)
        assert quick.said("rows_landed_late") == []
    assert quick.profile(A)["name"] == "Zoe"
    assert again(quick) == []


def test_an_import_that_is_carried_out_slowly_explains_the_move_it_makes(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    lose(quick, name="Eve", applied=3000)
    quick.crm.put("a", name="Zoe")
    quick.wallet.knobs.apply_seconds = 120
    quick.cycle()
    for _ in range(6):
        quick.cycle(60)
        assert quick.said("rows_landed_late") == []
    assert quick.profile(A)["name"] == "Zoe"


@pytest.mark.parametrize("earlier", [{"name": "Eve"}, {"points": 30}])
def test_a_row_that_is_carried_out_slowly_does_not_prove_the_next_one_by_its_move(
    quick: QuickLab, earlier: dict[str, Any]
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.wallet.knobs.apply_seconds = 90
    quick.crm.put("a", **earlier)
    quick.cycle(60)
    quick.crm.put("a", points=50)
    quick.crash_import("before")
    with suppress(Crash):
        quick.cycle(30)
    quick.reopen()
    for after in (120, SETTLED, SETTLED):
        quick.cycle(after)
    assert quick.awarded(A) == 50
    quick.balanced()


def test_points_wait_for_the_log_to_show_the_row_before_them_no_longer_than_they_must(
    quick: QuickLab,
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.wallet.knobs.apply_seconds = 90
    quick.crm.put("a", name="Eve")
    quick.cycle(60)
    quick.wallet.knobs.apply_seconds = 0
    quick.crm.put("a", points=50)
    quick.cycle(30)
    assert quick.awarded(A) == 10
    quick.cycle(65)
    assert quick.awarded(A) == 50
    quick.wallet.knobs.zero_moves_log = False
    quick.crm.put("a", name="Zoe")
    quick.cycle(60)
    quick.crm.put("a", points=70)
    quick.cycle(60)
    assert quick.awarded(A) == 50
    quick.cycle(SETTLED)
    assert quick.awarded(A) == 70


@pytest.mark.parametrize("status", [401, 429])
def test_a_row_that_the_wallet_refused_cannot_land_late(quick: QuickLab, status: int) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", name="Eve", points=50)
    quick.fault(Kind.STATUS, status=status)
    quick.cycle()
    quick.crm.put("a", name="Zoe")
    quick.cycle()
    assert quick.value("SELECT late_until FROM member") is None
    quick.wait(SETTLED)
    quick.wallet.touch("brand-1", A)
    assert again(quick) == []


def test_a_till_that_moves_an_entry_without_a_doubt_sends_nothing(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", name="Zoe")
    quick.cycle()
    quick.wait(SETTLED)
    quick.wallet.touch("brand-1", A)
    assert again(quick) == []


def test_what_is_sent_again_asks_for_no_mail_again(open_quick: Open) -> None:
    mapped = {"email": "{email}", "name": "{name}", "points": "{points}"}
    mails = {"welcome_email": {"value": True}, "update_mail": {"value": True}}
    lab = open_quick(connectors={"crm": {"member": mapped | mails}})
    overwritten(lab)
    member = lab.wallet.member("brand-1", A)
    assert member is not None
    mails_before = member.mails
    assert again(lab) == [0]
    member = lab.wallet.member("brand-1", A)
    assert member is not None
    assert (member.mails, member.profile["name"]) == (mails_before, "Zoe")
    lab.crm.put("a", name="Ada")
    lab.calm()
    member = lab.wallet.member("brand-1", A)
    assert member is not None
    assert member.mails == (*mails_before, "update")


def test_points_that_a_person_lets_go_ask_for_no_mail_of_a_profile_that_landed_meanwhile(
    open_quick: Open,
) -> None:
    mapped = {"email": "{email}", "name": "{name}", "points": "{points}", "update_mail": {"value": True}}
    lab = open_quick(connectors={"crm": {"member": mapped}}, wallet={"give_up_after": "10m"})
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.put("a", points=50)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    lab.fault(Kind.STATUS, LOG, times=3, status=503)
    lab.wait(SETTLED + 60)
    lab.wallet.touch("brand-1", A)
    for after in (60, 700, 60):
        lab.cycle(after)
    (held,) = lab.store.doubts.suspects()
    lab.crm.put("a", name="Zoe")
    lab.cycle()
    evidence = {held.row: Evidence(None, None, "moved")}
    assert lab.store.doubts.decide(held.batch, Choice.REFUTED, evidence, by="ann", now=lab.clock.now())
    lab.calm()
    member = lab.wallet.member("brand-1", A)
    assert member is not None
    assert (member.mails, member.awarded) == (("update", "update"), 50)  # for Ada, and for Zoe


def test_a_profile_that_is_not_at_hand_is_sent_again_once_its_contact_is_read(open_quick: Open) -> None:
    mapped = {"email": "{email}", "name": "{name}", "points": "{points}", "update_mail": {"value": True}}
    lab = open_quick(connectors={"crm": {"member": mapped}})
    overwritten(lab)
    member = lab.wallet.member("brand-1", A)
    assert member is not None
    mails_before = member.mails
    with lab.database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM payload")
    lab.cycle(1)
    assert lab.rows("SELECT due, (SELECT count(*) FROM payload) FROM member") == [(0, 0)]
    lab.cycle(full=True)
    member = lab.wallet.member("brand-1", A)
    assert member is not None
    assert (member.profile["name"], member.mails) == ("Zoe", mails_before)
    assert again(lab) == []


def test_a_profile_is_kept_for_a_day_after_a_doubt_and_no_longer(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    assert quick.value(WANTED) == 0
    lose(quick, name="Eve")
    quick.calm()
    assert (quick.value(WANTED), quick.value("SELECT due FROM member")) == (1, 0)
    quick.cycle(DAY)
    assert (quick.value(WANTED), quick.value("SELECT late_until FROM member")) == (0, None)
    quick.silent()


def test_the_row_that_is_sent_again_is_a_change_of_a_known_member_to_the_brakes(open_quick: Open) -> None:
    lab = open_quick(brakes={"max_share": "1%"})
    for number in range(120):
        lab.crm.put(f"r{number:03}", points=1)
    lab.cycle()
    overwritten(lab)
    lab.cycle(1)
    (totals,) = [lab.store.outbox.totals(None)]
    assert (totals.changed, totals.new, totals.points) == (1, 0, 0)
    assert again(lab) == [0]


def test_a_death_between_noticing_and_sending_loses_nothing(quick: QuickLab) -> None:
    overwritten(quick, points=50)
    quick.cycle(1)
    quick.restart()
    assert again(quick) == [0]
    assert quick.profile(A)["name"] == "Zoe"


def test_a_balance_that_an_older_row_overwrote_late_is_set_again(open_quick: Open) -> None:
    lab = open_quick(wallet={"points": "set"})
    lab.wallet.knobs.points = PointsMode.SET
    lab.crm.put("a", points=100)
    lab.cycle()
    lose(lab, points=40)
    lab.crm.put("a", points=70)
    lab.cycle()
    lab.wait(LATE)
    member = lab.wallet.member("brand-1", A)
    assert member is not None
    assert member.points == 40
    assert again(lab) == [70]
    member = lab.wallet.member("brand-1", A)
    assert member is not None
    assert member.points == 70


def test_no_fingerprint_is_taken_for_one_that_may_be_overwritten() -> None:
    assert unsure(b"\1" + b"x" * 15) != b"\1" + b"x" * 15
    assert len(unsure(b"\1" + b"x" * 15)) == 16


def test_a_member_without_a_doubt_is_not_looked_at(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    asked = quick.asks(IMPORT)
    quick.wallet.touch("brand-1", A)
    quick.cycle(SETTLED)
    assert (quick.value("SELECT late_until FROM member"), quick.asks(IMPORT)) == (None, asked)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_profile_that_was_taken_back_after_it_was_lost_is_sent_again(lab: Lab, when: str) -> None:
    lab.crm.put("a", points=10, name="Ada")
    lab.cycle()
    lab.crm.put("a", name="Eve")
    lab.crash_import(when)
    with suppress(Crash):
        lab.cycle()
    lab.reopen()
    lab.crm.put("a", name="Ada")
    lab.cycle()
    assert lab.profile("a@example.org")["name"] == "Ada"
    assert lab.cycle().rows_sent == 0
