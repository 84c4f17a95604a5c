"""Mails are one-time effects like points: where a row is refused, given up, or awarded without proof, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from enginelab import LOG, SETTLED
from quicklab import QuickLab

from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.wallet_knobs import BadRows

Open = Callable[..., QuickLab]
A, BAD = "a@example.org", "bad@example.org"
MAILS = {"welcome_email": {"value": True}, "update_mail": {"value": True}}
MAPPED: dict[str, Any] = {"email": "{email}", "name": "{name}", "points": "{points}", **MAILS}


def mails(lab: QuickLab, email: str = A) -> tuple[str, ...]:
    member = lab.wallet.member("brand-1", email)
    return () if member is None else member.mails


def opened(open_quick: Open, **wallet: Any) -> QuickLab:
    return open_quick(connectors={"crm": {"member": MAPPED}}, wallet=wallet)


@pytest.mark.parametrize("points", [0, 10])
@pytest.mark.parametrize("applied", [False, True])
def test_beside_a_row_that_the_wallet_names_no_mail_is_asked_for_twice(
    open_quick: Open, *, points: int, applied: bool
) -> None:
    lab = opened(open_quick)
    lab.wallet.knobs.max_text = 20
    lab.wallet.knobs.bad_rows = BadRows.APPLY_GOOD if applied else BadRows.REFUSE_ALL
    lab.crm.put("a", points=points)
    lab.crm.put("bad", points=points, name="A name that is much too long")
    lab.cycle()
    assert lab.quarantine()["bad"][:2] == ("wallet", "name")
    lab.calm()
    assert lab.awarded(A) == points
    assert mails(lab) == (("welcome", "update") if applied else ())  # nobody knows whether they were sent
    assert mails(lab, BAD) == ()
    lab.crm.put("bad", name="Bea")
    lab.calm()
    assert mails(lab, BAD) == ("welcome", "update")  # its row was refused, so these were not sent before
    assert lab.quarantine() == {}


def given_up(lab: QuickLab) -> None:
    """Lose an answer, and let a till move the entry when it can no longer be ours."""
    lab.crm.put("a", name="Eve", points=50)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    lab.fault(Kind.STATUS, LOG, times=3, status=503)
    lab.wait(SETTLED + 60)
    lab.wallet.touch("brand-1", A)
    for after in (60, 3600, 60, SETTLED):
        lab.cycle(after)


@pytest.mark.parametrize(("policy", "awarded"), [("award", 50), ("skip", 10)])
def test_what_the_policy_decides_asks_for_no_mail_of_the_same_change(
    open_quick: Open, policy: str, awarded: int
) -> None:
    lab = opened(open_quick, on_doubt=policy)
    lab.crm.put("a", points=10)
    lab.cycle()
    given_up(lab)
    assert (lab.awarded(A), lab.profile(A)["name"]) == (awarded, "Eve")
    assert mails(lab) == ("welcome", "update")
    lab.crm.put("a", points=57)
    lab.calm()
    assert (lab.awarded(A), mails(lab)) == (awarded + 7, ("welcome", "update", "update"))


def test_more_points_after_a_lost_answer_are_a_change_with_a_mail_of_its_own(open_quick: Open) -> None:
    lab = opened(open_quick)
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.put("a", points=20)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    lab.crm.put("a", points=25)
    lab.calm()
    assert (lab.awarded(A), mails(lab)) == (25, ("welcome", "update", "update"))
