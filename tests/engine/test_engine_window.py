"""A row that counts as landed on the movement of its own entry alone: somebody else may have moved it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from enginelab import SETTLED
from quicklab import QuickLab

from syncsvc.sandbox.faults import Kind
from syncsvc.state.doubts import Choice, Evidence

Open = Callable[..., QuickLab]
A = "a@example.org"
MAILS = {"welcome_email": {"value": True}, "update_mail": {"value": True}}
MAPPED = {"email": "{email}", "name": "{name}", "points": "{points}", **MAILS}


def lose(lab: QuickLab, fault: Kind = Kind.RESET_BEFORE, **news: Any) -> None:
    """Send a change of a whose answer is lost."""
    lab.crm.put("a", **news)
    lab.fault(fault)
    lab.cycle()


def tilled(lab: QuickLab, **news: Any) -> None:
    """Let a request of a be lost before it is carried out, and a till move its entry in the same minute."""
    lab.crm.put("a", points=10)
    lab.cycle()
    lose(lab, **news)
    lab.wait(5)
    lab.wallet.touch("brand-1", A)
    lab.cycle()
    assert lab.rows("SELECT points, grade FROM ledger") == [(10, "answer"), (40, "window")]


def sent(lab: QuickLab) -> list[int]:
    return [it.points for it in lab.wallet.imports]


def test_a_profile_that_a_till_made_look_applied_is_sent_again_without_points(quick: QuickLab) -> None:
    tilled(quick, name="Eve", points=50)
    quick.calm()
    quick.silent()
    assert quick.profile(A)["name"] == "Eve"
    assert sent(quick) == [10, 0]


def test_a_profile_that_is_sent_again_in_case_asks_for_no_mail(open_quick: Open) -> None:
    lab = open_quick(connectors={"crm": {"member": MAPPED}})
    tilled(lab, name="Eve", points=50)
    lab.calm()
    member = lab.wallet.member("brand-1", A)
    assert member is not None
    assert (member.profile["name"], member.mails) == ("Eve", ("welcome", "update"))  # both of the first row


def test_points_alone_that_landed_by_their_entry_cost_no_row_more(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    lose(quick, Kind.RESET_AFTER, points=50)
    quick.calm()
    quick.silent()
    assert sent(quick) == [10, 40]


def test_a_batch_that_is_proven_as_a_whole_is_not_sent_again(quick: QuickLab) -> None:
    for number in range(12):
        quick.crm.put(f"r{number:02}", points=1)
    quick.fault(Kind.RESET_AFTER)
    quick.cycle()
    quick.calm()
    quick.silent()
    assert [it.rows for it in quick.wallet.imports] == [12]


def test_the_first_half_of_an_import_that_died_is_sent_again_once_and_trips_no_brake(quick: QuickLab) -> None:
    for number in range(240):
        quick.crm.put(f"r{number:03}", points=1)
    quick.wallet.knobs.dies_after_rows = 120
    quick.cycle()
    quick.wallet.knobs.dies_after_rows = None
    quick.calm()
    quick.silent()
    assert quick.store.holds.open() == []
    assert [(it.rows, it.points) for it in quick.wallet.imports][1:] == [(120, 120), (120, 0)]
    quick.balanced()


def test_a_second_request_waits_until_the_first_can_no_longer_be_carried_out(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.wallet.knobs.apply_seconds = 200
    lose(quick, Kind.RESET_AFTER, points=50)
    quick.wallet.knobs.apply_seconds = 0
    quick.wait(5)
    quick.wallet.touch("brand-1", A)  # a till makes it look as if it had been carried out at once
    quick.cycle()
    assert quick.value("SELECT credited FROM member") == 50
    quick.crm.put("a", name="Eve", points=57)
    quick.fault(Kind.RESET_BEFORE, times=1)
    for _ in range(5):
        quick.cycle()
    assert quick.awarded(A) == 50
    quick.calm()
    assert (quick.awarded(A), quick.profile(A)["name"]) == (57, "Eve")
    quick.balanced()


@pytest.mark.parametrize("choice", [Choice.LANDED, Choice.SKIP])
def test_nor_is_a_second_request_sent_early_where_a_person_settled_the_first(
    quick: QuickLab, choice: Choice
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.wallet.knobs.apply_seconds = 200
    lose(quick, Kind.RESET_AFTER, points=50)
    quick.wallet.knobs.apply_seconds = 0
    (row,) = quick.store.doubts.suspects()
    evidence = {row.row: Evidence(None, None, "unmoved")}
    assert quick.store.doubts.decide(row.batch, choice, evidence, by="ann", now=quick.clock.now())
    quick.crm.put("a", points=57)
    quick.cycle()
    assert (sent(quick), quick.value("SELECT unsettled FROM member")) == ([10], 0)
    quick.calm()
    assert quick.awarded(A) == 57
    quick.balanced()


def test_a_newer_profile_that_the_first_request_overwrote_late_is_sent_again(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.wallet.knobs.apply_seconds = 200
    lose(quick, Kind.RESET_AFTER, name="Eve", points=50)
    quick.wallet.knobs.apply_seconds = 0
    quick.wait(5)
    quick.wallet.touch("brand-1", A)
    quick.cycle()
    quick.crm.put("a", name="Zoe")
    quick.cycle()
    assert quick.profile(A)["name"] == "Zoe"
    quick.wait(SETTLED)
    assert quick.profile(A)["name"] == "Eve"
    quick.calm()
    quick.silent()
    assert (quick.profile(A)["name"], quick.awarded(A)) == ("Zoe", 50)
    quick.balanced()
