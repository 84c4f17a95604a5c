"""How fresh the evidence is: the log is read right before points are sent, and again where they take long."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from enginelab import IMPORT, LOG, SETTLED
from quicklab import QuickLab

from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.wallet_knobs import LogTime

Open = Callable[..., QuickLab]
A = "a@example.org"
STANDS = "SELECT outcome FROM batch_row ORDER BY batch_id DESC LIMIT 1"
LANDED, HELD = 3, 2


def test_a_till_that_moved_an_entry_since_the_last_reading_is_not_taken_for_the_request(
    quick: QuickLab,
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.wait(100)
    quick.wallet.touch("brand-1", A)
    quick.crm.put("a", points=50)
    quick.fault(Kind.RESET_BEFORE)
    quick.cycle(after=100)  # not long enough for the log to be read for its own sake
    quick.cycle(SETTLED)
    assert quick.awarded(A) == 50
    quick.balanced()


def test_fifty_batches_are_sent_on_evidence_that_is_never_older_than_settle_after(open_quick: Open) -> None:
    lab = open_quick(wallet={"batch_size": 2}, brakes={"max_share": "100%"})
    for number in range(100):
        lab.crm.put(f"r{number:02}", points=1)
    lab.cycle()
    for number in range(100):
        lab.crm.put(f"r{number:02}", points=11)
    last = "r99@example.org"
    sent, readings = 0, lab.asks(LOG)

    def slowly() -> None:
        nonlocal sent
        sent += 1
        lab.wait(30)
        if sent == 40:  # a till moves an entry long after the delivery began, and before its turn comes
            lab.wallet.touch("brand-1", last)

    lab.on_import = slowly
    lab.fault(Kind.RESET_BEFORE, skip=49)
    report = lab.cycle()
    lab.on_import = lambda: None
    assert (sent, report.rows_in_doubt) == (50, 2)  # the fiftieth never arrived
    assert lab.asks(LOG) - readings <= 2 + 49 * 30 // 300
    lab.calm()
    assert lab.awarded(last) == 11
    assert lab.wallet.total_awarded() == 1100
    lab.balanced()


def test_points_are_not_sent_without_a_reading_of_the_log(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", points=50)
    quick.crm.put("b", name="Bea")
    quick.fault(Kind.STATUS, LOG, status=503, times=3)
    report = quick.cycle()
    assert (report.points_sent, quick.awarded(A)) == (0, 10)
    assert quick.profile("b@example.org")["name"] == "Bea"  # profiles need no proof
    quick.cycle()
    assert quick.awarded(A) == 50


@pytest.mark.parametrize("age", [0, 1, 2, 3])
def test_an_entry_as_fresh_as_the_request_waits_for_as_long_as_the_log_is_exact(
    quick: QuickLab, age: int
) -> None:
    quick.wallet.knobs.zero_moves_log = False
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", points=50)
    quick.cycle(after=age)
    assert quick.awarded(A) == (50 if age > 2 else 10)  # a second of the log's, a second of the clock's
    quick.cycle()
    assert quick.awarded(A) == 50


def test_a_log_of_whole_days_lets_a_member_have_points_once_a_day_at_most(quick: QuickLab) -> None:
    quick.wallet.knobs.log_time = LogTime.DATE_ONLY
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", points=50)
    quick.cycle(3600)
    assert quick.awarded(A) == 10
    quick.cycle(36 * 3600)
    quick.cycle()
    assert quick.awarded(A) == 50


def test_a_profile_row_that_moves_the_entry_itself_keeps_points_waiting_for_a_moment_only(
    quick: QuickLab,
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", name="Eve")
    quick.cycle()
    quick.crm.put("a", points=50)
    quick.cycle(after=1)
    assert quick.awarded(A) == 10
    quick.cycle(after=5)
    assert quick.awarded(A) == 50


def test_a_lost_profile_row_keeps_points_away_until_it_cannot_disturb_the_evidence(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", name="Eve")
    quick.fault(Kind.RESET_BEFORE)
    quick.cycle()
    quick.crm.put("a", points=50)
    quick.cycle()
    assert (quick.awarded(A), quick.asks(IMPORT)) == (10, 1)
    quick.cycle(SETTLED)
    assert (quick.awarded(A), quick.profile(A)["name"]) == (50, "Eve")


def test_the_evidence_is_that_of_the_reading_before_the_request_not_of_the_claim_before_it(
    quick: QuickLab,
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.wait(100)
    quick.wallet.touch("brand-1", A)
    told = quick.wallet.log_time("brand-1", A)
    quick.wait(100)
    quick.crm.put("a", points=50)
    quick.cycle()
    assert quick.value("SELECT log_before FROM batch_row ORDER BY batch_id DESC") == told
    assert (quick.value(STANDS), quick.asks(IMPORT)) == (LANDED, 2)
