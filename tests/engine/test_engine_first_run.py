"""A connector that is added to a running organization goes through the same door as the first one did."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from enginelab import MEMBER_MAP, SETTLED, Crash
from quicklab import QuickLab

from syncsvc.cycle import Cycle
from syncsvc.errors import TransientError
from syncsvc.sandbox.faults import Kind

Open = Callable[..., QuickLab]
A, X, Z = "a@example.org", "x@example.org", "z@example.org"


def grown(open_quick: Open, first_run: str) -> QuickLab:
    """Return an organization that has run for a while, with a second CRM that is added to it now."""
    lab = open_quick(first_run=first_run)
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("a", points=130)
    lab.cycle()
    lab.restart(connectors={"crm": {}, "shop": {}})
    shop = lab.crms["shop"]
    shop.page_size = 1
    shop.put("x", points=40)
    shop.put("y", email=A, points=900)  # linked to a member that another contact owns
    shop.put("z", points=70)
    return lab


def planned(lab: QuickLab) -> int:
    """Return the points that would be awarded now, as `plan` would on a copy of the state."""
    Cycle(lab.organization, send=False).run()
    points: int = lab.store.outbox.totals(None).points
    return points


@pytest.mark.parametrize("cut", [None, 0, 1, 2], ids=["whole", "at once", "after a page", "after two"])
@pytest.mark.parametrize(("first_run", "awarded"), [("import", 110), ("adopt_points", 0), ("adopt", 0)])
def test_a_connector_added_later_awards_what_the_plan_said_however_its_first_read_was_cut(
    open_quick: Open, first_run: str, awarded: int, cut: int | None
) -> None:
    lab = grown(open_quick, first_run)
    before = lab.awarded(A)
    if cut is not None:
        lab.crms["shop"].fail(TransientError("the CRM is down"), after=cut)
        Cycle(lab.organization, send=False).run()
    assert planned(lab) == awarded
    lab.cycle()
    assert (lab.awarded(X) + lab.awarded(Z), lab.awarded(A)) == (awarded, before)
    assert (lab.wallet.member("brand-1", Z) is not None) is (first_run != "adopt")
    lab.silent()
    lab.crms["shop"].put("z", points=75)
    lab.crm.put("a", points=131)
    lab.calm()
    assert (lab.awarded(X) + lab.awarded(Z), lab.awarded(A)) == (awarded + 5, before + 1)


@pytest.mark.parametrize(
    ("first_run", "awarded"), [("import", [100, 7]), ("adopt_points", [0, 7]), ("adopt", [0, 7])]
)
def test_points_that_are_mapped_after_the_first_read_mean_what_first_run_says(
    open_quick: Open, first_run: str, awarded: list[int]
) -> None:
    mapped = {"connectors": {"crm": {"member": MEMBER_MAP}}}
    unmapped = {
        "connectors": {"crm": {"member": {it: MEMBER_MAP[it] for it in MEMBER_MAP if it != "points"}}}
    }
    lab = open_quick(first_run=first_run, **unmapped)
    lab.crm.put("a", points=90)
    lab.calm()
    lab.crm.put("a", points=100, name="Eve")
    lab.crm.put("z", points=7)  # came later: what it has earned is its own
    lab.calm()
    known = lab.wallet.member("brand-1", A)
    assert known is not None
    assert known.profile["name"] == "Eve"
    lab.restart(**mapped)
    lab.calm()
    assert [lab.awarded(A), lab.awarded(Z)] == awarded
    lab.crm.put("a", points=105)
    lab.calm()
    assert lab.awarded(A) == awarded[0] + 5
    assert lab.differences() == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_its_first_award_that_a_death_cuts_is_awarded_once(open_quick: Open, when: str) -> None:
    lab = grown(open_quick, "import")
    lab.crash_import(when)
    with pytest.raises(Crash):
        lab.cycle()
    lab.restart()
    lab.calm()
    assert (lab.awarded(X), lab.awarded(Z), lab.awarded(A)) == (40, 70, 130)
    lab.balanced()


def test_what_it_adopts_stays_adopted_where_its_first_rows_are_lost(open_quick: Open) -> None:
    lab = grown(open_quick, "adopt_points")
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    lab.crms["shop"].put("z", points=75)
    lab.cycle(SETTLED)
    lab.calm()
    assert (lab.awarded(X), lab.awarded(Z)) == (0, 5)
    assert lab.profile(X)["name"] == "Ada"
