"""What is awarded, under each meaning of points, counted from the wallet's own ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from enginelab import IMPORT, LOG, SETTLED, Crash, Lab

from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.wallet_knobs import PageVersion, PointsMode
from syncsvc.state.doubts import Choice, Evidence

Open = Callable[..., Lab]
A = "a@example.org"


def test_growth_is_awarded_as_its_difference(lab: Lab) -> None:
    for total in (100, 130, 130, 131):
        lab.crm.put("a", points=total)
        lab.cycle()
    assert [it.points for it in lab.wallet.ledger] == [100, 30, 1]
    lab.balanced()


def test_a_fall_is_told_and_never_sent_and_growth_makes_it_good_first(lab: Lab) -> None:
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("a", points=60)
    lab.cycle()
    assert [line["members"] for line in lab.said("points_fell")] == [1]
    lab.crm.put("a", points=90)
    lab.cycle()
    assert lab.awarded(A) == 100
    lab.crm.put("a", points=115)
    lab.cycle()
    assert [it.points for it in lab.wallet.ledger] == [100, 15]
    assert lab.said("points_fell") == []


def test_set_sends_the_balance_up_and_down(open_lab: Open) -> None:
    lab = open_lab(wallet={"points": "set"})
    lab.wallet.knobs.points = PointsMode.SET
    for total in (100, 40, 70):
        lab.crm.put("a", points=total)
        lab.cycle()
        assert lab.wallet.member("brand-1", A).points == total  # type: ignore[union-attr]
    lab.crm.put("a", name="Eve")
    lab.cycle()
    assert lab.wallet.member("brand-1", A).points == 70  # type: ignore[union-attr]
    lab.balanced()


def test_set_is_sent_again_after_a_lost_answer(open_lab: Open) -> None:
    lab = open_lab(wallet={"points": "set"})
    lab.wallet.knobs.points = PointsMode.SET
    lab.crm.put("a", points=100)
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()
    lab.cycle()
    assert lab.asks(IMPORT) == 2
    assert lab.wallet.member("brand-1", A).points == 100  # type: ignore[union-attr]
    lab.balanced()


def test_off_sends_no_points_at_all(open_lab: Open) -> None:
    lab = open_lab(wallet={"points": "off"})
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("a", points=200)
    report = lab.cycle()
    assert report.rows_sent == 0
    assert (lab.wallet.ledger, lab.profile(A)["name"]) == ([], "Ada")


def test_a_connector_without_points_sends_none(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {"member": {"email": "{email}", "name": "{name}"}}})
    lab.crm.put("a", points=100)
    lab.cycle()
    assert (lab.wallet.ledger, lab.profile(A)["name"]) == ([], "Ada")


def test_each_brand_has_its_own_members_and_batches(open_lab: Open) -> None:
    mapped = {"email": "{email}", "name": "{name}", "points": "{points}", "brand_id": "{brand}"}
    lab = open_lab(connectors={"crm": {"member": mapped}})
    lab.crm.put("a", email=A, points=10, brand="brand-1")
    lab.crm.put("b", email=A, points=20, brand="brand-2")
    lab.cycle()
    assert (lab.awarded(A), lab.awarded(A, "brand-2")) == (10, 20)
    lab.balanced()


@pytest.mark.parametrize(
    ("page", "flag"), [(PageVersion.OLD, "welcome_email"), (PageVersion.NEW, "welcome_mail")]
)
def test_a_welcome_is_sent_with_the_first_import_only(open_lab: Open, page: PageVersion, flag: str) -> None:
    lab = open_lab(wallet={"welcome_flag": flag}, connectors={"crm": {"member": _mails(welcome_email=True)}})
    lab.wallet.knobs.page = page
    lab.crm.put("a", points=10)
    for total in (20, 30):
        lab.cycle()
        lab.crm.put("a", points=total)
    assert _sent(lab) == ("welcome",)


@pytest.mark.parametrize("kind", [Kind.RESET_AFTER, Kind.RESET_BEFORE])
@pytest.mark.parametrize("points", [0, 10])
def test_no_mail_is_asked_for_twice_after_a_doubt(open_lab: Open, kind: Kind, points: int) -> None:
    lab = open_lab(connectors={"crm": {"member": _mails(welcome_email=True, update_mail=True)}})
    lab.crm.put("a", points=points)
    lab.fault(kind)
    lab.calm()
    expected = ("welcome", "update") if kind is Kind.RESET_AFTER else ()
    assert _sent(lab) == expected
    assert lab.awarded(A) == points


def test_a_request_that_proved_nothing_keeps_its_mails(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {"member": _mails(welcome_email=True, update_mail=True)}})
    lab.crm.put("a", points=10)
    lab.fault(Kind.STATUS, status=429)
    lab.calm()
    assert _sent(lab) == ("welcome", "update")


def test_every_change_asks_for_an_update_mail_once(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {"member": _mails(update_mail=True)}})
    for name in ("Ada", "Eve", "Eve"):
        lab.crm.put("a", name=name)
        lab.cycle()
    assert _sent(lab) == ("update", "update")


REFUSALS = {
    "401": {"kind": Kind.STATUS, "status": 401},
    "413": {"kind": Kind.STATUS, "status": 413},
    "429": {"kind": Kind.STATUS, "status": 429},
}
UNPROVEN = {
    "arrived": {"kind": Kind.RESET_AFTER},
    "did not arrive": {"kind": Kind.RESET_BEFORE},
    "refused as a whole": {
        "kind": Kind.STATUS,
        "status": 422,
        "body": {"message": "The given data was invalid."},
    },
}


def _there_and_back(lab: Lab) -> None:
    """Let the contact be read again, twice, and be in the end what it was."""
    for name in ("Eve", "Ada"):
        lab.crm.put("a", name=name)
        lab.cycle(after=1)


def _asked(lab: Lab) -> list[str]:
    """Make members known, and let the log show later imports late; returns the mails sent so far."""
    lab.crm.put("a", name="Ann", points=1)
    lab.crm.put("b", points=1)
    lab.cycle()
    lab.cycle(after=SETTLED)
    lab.wallet.knobs.log_lag_seconds = 30
    return list(_sent(lab))


@pytest.mark.parametrize("fault", UNPROVEN)
@pytest.mark.parametrize("points", [1, 10])
def test_a_contact_read_again_after_a_doubt_asks_for_no_mail_again(
    open_lab: Open, fault: str, points: int
) -> None:
    lab = open_lab(connectors={"crm": {"member": _mails(welcome_email=True, update_mail=True)}})
    before = _asked(lab)
    lab.crm.put("a", name="Ada", points=points)
    lab.crm.put("b", name="Bea", points=points)
    lab.fault(**UNPROVEN[fault])  # type: ignore[arg-type]
    lab.cycle()
    if points > 1:
        assert lab.value("SELECT count(*) FROM member WHERE open_batch IS NOT NULL") == 2
        _there_and_back(lab)
    lab.calm()
    assert [*_sent(lab)] == [*before, "update"][: len(before) + (fault == "arrived")]
    assert (lab.awarded(A), lab.profile(A)["name"]) == (points, "Ada")
    lab.crm.put("a", name="Eve", points=points + 5)
    lab.calm()
    assert len(_sent(lab)) == len(before) + (fault == "arrived") + 1
    lab.crm.put("a", points=points + 6)
    lab.calm()
    assert len(_sent(lab)) == len(before) + (fault == "arrived") + 2


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_contact_read_again_after_a_death_asks_for_no_mail_again(open_lab: Open, when: str) -> None:
    lab = open_lab(connectors={"crm": {"member": _mails(welcome_email=True, update_mail=True)}})
    before = _asked(lab)
    lab.crm.put("a", name="Ada", points=10)
    lab.crash_import(when)
    with pytest.raises(Crash):
        lab.cycle()
    lab.restart()
    _there_and_back(lab)
    lab.calm()
    assert len(_sent(lab)) == len(before) + (when == "after")
    assert lab.awarded(A) == 10


@pytest.mark.parametrize("choice", [Choice.REFUTED, Choice.AWARD])
def test_a_held_row_that_a_person_lets_go_again_asks_for_no_mail_again(
    open_lab: Open, choice: Choice
) -> None:
    lab = open_lab(connectors={"crm": {"member": _mails(welcome_email=True, update_mail=True)}})
    before = _asked(lab)
    lab.crm.put("a", name="Ada", points=10)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    lab.fault(Kind.STATUS, LOG, times=3, status=503)
    lab.wait(SETTLED + 60)
    lab.wallet.touch("brand-1", A)
    for after in (60, 3600, 60):
        lab.cycle(after=after)
    (held,) = lab.store.doubts.suspects()
    assert held.held
    lab.crm.put("a", name="Eve")
    lab.cycle()
    lab.crm.put("a", name="Ada")
    evidence = {held.row: Evidence(None, None, "moved")}
    assert lab.store.doubts.decide(held.batch, choice, evidence, by="ann", now=lab.clock.now())
    lab.calm()
    assert list(_sent(lab)) == [*before, "update", "update"]  # to Eve, and back to Ada
    assert lab.awarded(A) == 10


@pytest.mark.parametrize("fault", REFUSALS)
def test_a_refusal_before_the_act_keeps_the_mails_of_a_contact_read_again(open_lab: Open, fault: str) -> None:
    lab = open_lab(connectors={"crm": {"member": _mails(welcome_email=True, update_mail=True)}})
    before = _asked(lab)
    lab.crm.put("a", name="Ada", points=10)
    lab.fault(**REFUSALS[fault])  # type: ignore[arg-type]
    lab.cycle()
    lab.crm.put("a", name="Eve")
    lab.crm.put("a", name="Ada")
    lab.calm()
    assert list(_sent(lab)) == [*before, "update"]
    assert lab.awarded(A) == 10


def test_points_of_a_fresh_entry_wait_until_it_is_older(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.put("a", points=20)
    lab.crm.put("b", points=5)
    report = lab.cycle(after=1)
    assert (lab.awarded(A), lab.awarded("b@example.org"), report.points_sent) == (10, 5, 5)
    lab.cycle(after=SETTLED)
    assert lab.awarded(A) == 20


def _mails(**flags: bool) -> dict[str, Any]:
    mapped = {"email": "{email}", "name": "{name}", "points": "{points}"}
    return mapped | {name: {"value": flag} for name, flag in flags.items()}


def _sent(lab: Lab) -> tuple[str, ...]:
    member = lab.wallet.member("brand-1", A)
    return () if member is None else member.mails
