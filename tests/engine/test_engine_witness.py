"""The witness: one row of the organization's own, last in a points batch, whose entry proves the batch."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from enginelab import IMPORT, LOG, SETTLED, Crash, Lab

from syncsvc.doubts import cases
from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.wallet_knobs import LogTime
from syncsvc.state.doubts import Evidence
from syncsvc.state.witness import witness_standings
from syncsvc.views.witness import told_of_witness, witness_problems

Open = Callable[..., Lab]
A, WITNESS = "a@example.org", "sync-witness@acme.example"
RODE = "SELECT witness FROM batch WHERE lane = 1 ORDER BY id"
LANDED, REFUTED = 3, 4


@pytest.fixture
def watched(open_lab: Open) -> Lab:
    return open_lab(wallet={"witness": WITNESS, "evidence": "witness"})


def rode(lab: Lab) -> list[int | None]:
    return [row[0] for row in lab.rows(RODE)]


def known(lab: Lab) -> None:
    """Let the log tell, before the first batch, how exactly it tells the time."""
    lab.wallet.touch("brand-1", "till@example.org")


def balanced(lab: Lab) -> None:
    """Assert conservation: members in the books, and the witness's points beside them."""
    lab.balanced()
    with lab.database.reading() as connection:
        standings = witness_standings(connection, lab.store.reports._scope)
    witness = sum(it.points for it in standings)
    assert witness == lab.awarded(WITNESS)
    members = lab.value("SELECT coalesce(sum(credited), 0) FROM member")
    assert members + witness == lab.wallet.total_awarded()


def test_the_witness_takes_one_row_of_every_points_batch_and_none_of_a_profile_batch(open_lab: Open) -> None:
    lab = open_lab(wallet={"witness": WITNESS, "batch_size": 3})
    known(lab)
    for number in range(4):
        lab.crm.put(f"r{number}", points=10)
    lab.cycle()
    assert [it.rows for it in lab.wallet.imports] == [3, 3]
    assert [it.points for it in lab.wallet.imports] == [21, 21]
    assert lab.rows("SELECT points, row_count FROM batch") == [(20, 2), (20, 2)]
    lab.crm.put("r0", name="Eve")
    lab.cycle()
    assert [it.rows for it in lab.wallet.imports] == [3, 3, 1]
    assert rode(lab) == [LANDED, LANDED]
    balanced(lab)


def test_a_lost_answer_is_proven_by_the_witness(watched: Lab) -> None:
    watched.crm.put("a", points=10)
    watched.cycle()
    watched.crm.put("a", points=25)
    watched.fault(Kind.RESET_AFTER)
    watched.cycle()
    assert watched.awarded(A) == 25
    watched.calm()
    assert watched.rows("SELECT points, grade FROM ledger") == [(10, "answer"), (15, "witness")]
    assert watched.asks(IMPORT) == 2
    balanced(watched)


def test_a_row_moved_by_a_till_later_lands_with_the_witness(watched: Lab) -> None:
    watched.crm.put("a", points=10)
    watched.cycle()
    watched.crm.put("a", points=25)
    watched.fault(Kind.RESET_AFTER)
    watched.fault(Kind.STATUS, LOG, status=503, skip=1, times=3)
    watched.cycle()
    watched.wait(SETTLED + 60)
    watched.wallet.touch("brand-1", A)
    watched.calm()
    assert watched.rows("SELECT points, grade FROM ledger") == [(10, "answer"), (15, "witness")]
    balanced(watched)


def test_a_witness_that_stands_still_keeps_a_tills_move_from_counting_as_ours(open_lab: Open) -> None:
    lab = open_lab(wallet={"witness": WITNESS})
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.put("a", points=25)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    lab.wallet.touch("brand-1", A)
    lab.calm()
    assert rode(lab)[1] == REFUTED
    assert lab.awarded(A) == 10
    assert lab.value("SELECT count(*) FROM ledger") == 1
    lab.cycle(after=3700)
    assert lab.cycle().held == 1  # a person decides: the batch may have been cut short before the witness
    assert lab.crm.records["a"]["wallet_status"] == "held"


def test_without_a_witness_the_same_move_counts_as_ours(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.put("a", points=25)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    lab.wallet.touch("brand-1", A)
    lab.calm()
    assert lab.value("SELECT grade FROM ledger ORDER BY id DESC") == "window"


@pytest.mark.parametrize("applied", range(8))
def test_a_batch_cut_short_is_never_awarded_twice(open_lab: Open, applied: int) -> None:
    lab = open_lab(wallet={"witness": WITNESS})
    for number in range(6):
        lab.crm.put(f"r{number}", points=1)
    lab.cycle()
    for number in range(6):
        lab.crm.put(f"r{number}", points=11)
    lab.wallet.knobs.dies_after_rows = applied
    lab.cycle()
    lab.wallet.knobs.dies_after_rows = None
    lab.calm()
    lab.cycle(after=3700)
    lab.calm()
    awarded = [lab.awarded(f"r{number}@example.org") for number in range(6)]
    assert awarded == [11] * 6
    # What moved without the witness waits for a person: it was applied, or somebody else moved it.
    assert lab.cycle().held == (0 if applied == 7 else applied)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_leaves_the_witness_to_tell(watched: Lab, when: str) -> None:
    watched.crm.put("a", points=10)
    watched.cycle()
    watched.crm.put("a", points=25)
    watched.crash_import(when)
    with pytest.raises(Crash):
        watched.cycle()
    watched.restart()
    watched.calm()
    assert watched.awarded(A) == 25
    assert rode(watched)[1] == (LANDED if when == "after" else REFUTED)
    balanced(watched)


def test_batches_are_spaced_so_that_each_has_a_witness_of_its_own(open_lab: Open) -> None:
    lab = open_lab(wallet={"witness": WITNESS, "batch_size": 2, "evidence": "witness"})
    known(lab)
    for number in range(5):
        lab.crm.put(f"r{number}", points=10)
    before = lab.clock.now()
    lab.cycle(after=0)
    assert rode(lab) == [LANDED] * 5
    assert (lab.clock.now() - before).total_seconds() < 4 * 3.1
    assert lab.asks(LOG) == 2  # no reading a batch
    balanced(lab)


def test_the_batch_before_does_not_bear_witness_for_one_that_was_lost(open_lab: Open) -> None:
    lab = open_lab(wallet={"witness": WITNESS, "batch_size": 2, "evidence": "witness"})
    known(lab)
    for number in range(2):
        lab.crm.put(f"r{number}", points=10)
    lab.fault(Kind.RESET_BEFORE, skip=1)
    lab.cycle()
    lab.wallet.touch("brand-1", "r1@example.org")
    lab.cycle(after=1)
    assert rode(lab) == [LANDED, 1]
    assert lab.awarded("r1@example.org") == 0
    assert lab.value("SELECT credited FROM member WHERE email_key = 'r1@example.org'") == 0


def test_while_a_batch_waits_for_the_witness_others_flow_without_it(watched: Lab) -> None:
    watched.crm.put("a", points=10)
    watched.cycle()
    watched.crm.put("a", points=25)
    watched.fault(Kind.RESET_BEFORE)
    watched.cycle()
    watched.crm.put("b", points=7)
    watched.cycle(after=10)
    assert (rode(watched), watched.awarded("b@example.org")) == ([LANDED, 1, None], 7)
    watched.calm()
    assert watched.awarded(A) == 25
    balanced(watched)


def test_a_log_of_whole_days_never_makes_a_batch_wait_for_its_witness(open_lab: Open) -> None:
    lab = open_lab(wallet={"witness": WITNESS, "batch_size": 2})
    lab.wallet.knobs.log_time = LogTime.DATE_ONLY
    for number in range(3):
        lab.crm.put(f"r{number}", points=10)
    before = lab.clock.now()
    lab.cycle(after=0)
    assert lab.clock.now() == before
    assert rode(lab) == [LANDED, None]
    assert lab.wallet.total_awarded() == 31
    balanced(lab)


def test_a_witness_that_somebody_else_moves_is_told_once(watched: Lab) -> None:
    watched.crm.put("a", points=10)
    watched.cycle()
    watched.cycle(after=3600)
    assert watched.said("witness_moved_by_others") == []
    watched.wallet.touch("brand-1", WITNESS)
    watched.cycle(after=3600)
    assert len(watched.said("witness_moved_by_others")) == 1
    assert WITNESS not in repr(watched.lines)
    watched.cycle(after=3600)
    assert watched.said("witness_moved_by_others") == []


def test_how_the_witness_stands_is_told(watched: Lab) -> None:
    assert watched.store.accounts.witnesses() == []
    watched.crm.put("a", points=10)
    watched.cycle()
    (it,) = watched.store.accounts.witnesses()
    assert (it.brand_id, it.points, it.landed, it.refuted, it.undecided) == ("brand-1", 1, 1, 0, 0)
    assert (it.entry, it.moved_by_others_at) == (watched.wallet.log_time("brand-1", WITNESS), None)
    watched.crm.put("a", points=25)
    watched.fault(Kind.RESET_BEFORE)
    watched.cycle()
    (case,) = cases(watched.store, watched.organization.config.wallet)
    assert case.witness == Evidence(it.entry, it.entry, "unmoved")
    assert watched.store.accounts.witnesses()[0].undecided == 1
    watched.cycle(SETTLED)
    (it,) = watched.store.accounts.summary().witnesses
    assert (it.points, it.landed, it.refuted, it.undecided) == (2, 2, 1, 0)
    watched.wait(3600)
    watched.wallet.touch("brand-1", WITNESS)
    watched.cycle()
    (it,) = watched.store.accounts.witnesses()
    assert it.moved_by_others_at == watched.clock.now() - timedelta(minutes=1)
    problems = witness_problems(it, watched.clock.now())
    assert ["somebody else moved" in problem.message for problem in problems] == [True]
    assert witness_problems(it, watched.clock.now() + timedelta(days=8)) == []


def test_a_witness_that_the_log_never_shows_is_a_problem(watched: Lab) -> None:
    watched.crm.put("a", points=10)
    listed = [{"email": "other@example.org", "last_updated": "2026-11-02T11:00:00Z"}]
    body = {"success": True, "data": listed}
    watched.fault(Kind.STATUS, LOG, times=None, status=200, body=body)
    watched.cycle()
    (it,) = watched.store.accounts.witnesses()
    assert (it.unseen, it.landed) == (True, 1)
    assert "never shows the witness" in witness_problems(it, watched.clock.now())[0].message
    assert "the log never shows it" in told_of_witness(it)


def test_a_person_is_not_the_witness(watched: Lab) -> None:
    watched.crm.put("w", email="Sync-Witness@acme.example", points=10)
    watched.crm.put("a", points=10)
    watched.cycle()
    assert watched.quarantine()["w"][1] == "email"
    assert "witness" in watched.quarantine()["w"][2]
    assert (watched.awarded(A), watched.awarded(WITNESS)) == (10, 1)
    balanced(watched)


def test_a_witness_that_is_refused_needs_an_operator_and_no_member_is_blamed(watched: Lab) -> None:
    refuse: dict[str, Any] = {"errors": {"users.1.email": ["The email field is invalid."]}}
    watched.crm.put("a", points=10)
    watched.fault(Kind.STATUS, status=422, body=refuse)
    report = watched.cycle()
    assert any("check wallet.witness" in error for error in report.errors)
    assert watched.quarantine() == {}
    watched.calm()
    assert watched.awarded(A) == 10
    balanced(watched)


def test_a_refusal_that_names_nobody_is_not_blamed_on_the_one_member_beside_the_witness(watched: Lab) -> None:
    watched.crm.put("a", points=10)
    watched.fault(Kind.STATUS, status=422, body={"message": "The given data was invalid."})
    watched.cycle()
    assert watched.quarantine() == {}
    watched.calm()
    assert watched.awarded(A) == 10
    balanced(watched)
