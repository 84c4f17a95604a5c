"""What a person decides on rows in doubt or held: points are counted in the wallet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from enginelab import IMPORT, SETTLED, Lab

from syncsvc.doubts import Case, cases
from syncsvc.sandbox.faults import Kind
from syncsvc.state.codes import Outcome
from syncsvc.state.database import Database
from syncsvc.state.doubts import Choice
from syncsvc.state.store import open_store
from syncsvc.views.doubts import outlook, question

Open = Callable[..., Lab]
A, B = "a@example.org", "b@example.org"
HOUR = 3600


def listed(lab: Lab) -> list[Case]:
    return cases(lab.store, lab.organization.config.wallet)


def decide(lab: Lab, choice: Choice, *chosen: Case, by: str = "ann") -> list[int]:
    assert chosen
    evidence = {it.suspect.row: it.evidence for it in chosen}
    batch = chosen[0].suspect.batch
    return list(lab.store.doubts.decide(batch, choice, evidence, by=by, now=lab.clock.now()))


def lose(lab: Lab, kind: Kind) -> None:
    """Deliver two awards of which nobody hears, while a till moves both entries long after it."""
    lab.crm.put("a", points=10)
    lab.crm.put("b", points=20)
    lab.cycle()
    lab.crm.put("a", points=15)
    lab.crm.put("b", points=27)
    lab.fault(kind)
    lab.cycle()
    lab.wait(SETTLED + 60)
    lab.wallet.touch("brand-1", A)
    lab.wallet.touch("brand-1", B)


@pytest.fixture(params=[Kind.RESET_AFTER, Kind.RESET_BEFORE], ids=["arrived", "did not arrive"])
def held(request: pytest.FixtureRequest, open_lab: Open) -> Lab:
    """An organization with two awards that nobody but a person can settle."""
    lab = open_lab(wallet={"evidence": "unanimous"})  # else the log of the same cycle proves what arrived
    lose(lab, request.param)
    lab.cycle()
    lab.cycle(HOUR)
    assert [it.suspect.held for it in listed(lab)] == [True, True]
    return lab


def test_a_case_in_doubt_tells_its_evidence_and_what_comes_when(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    sent = lab.clock.now()
    (case,) = listed(lab)
    assert (case.suspect.connector, case.suspect.record, case.suspect.points) == ("crm", "a", 10)
    assert (case.suspect.held, case.evidence.finding, case.evidence.before, case.grade) == (
        False,
        "unmoved",
        None,
        None,
    )
    assert case.settles_at == sent + timedelta(minutes=5)
    assert case.gives_up_at == sent + timedelta(hours=1)
    assert case.on_doubt == "hold"
    assert A not in str(case)


def test_a_case_below_the_grade_that_is_asked_for_says_so(open_lab: Open) -> None:
    lab = open_lab(wallet={"evidence": "unanimous"})
    lab.crm.put("a", points=10)
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()
    (case,) = listed(lab)
    assert (case.evidence.finding, case.grade, case.asked, case.settles_at) == (
        "in_window",
        "window",
        "unanimous",
        None,
    )
    said = outlook(case, lab.clock.now())
    assert "proof of grade window, where unanimous is asked for (wallet.evidence)" in said
    assert "; at 2026-11-02 13:01:00Z it is held" in said
    assert decide(lab, Choice.LANDED, case) == [0]
    lab.balanced()


def test_another_organization_can_not_decide(held: Lab) -> None:
    chosen = listed(held)
    held.begin_anew("other")
    assert (listed(held), held.store.doubts.fate(2)) == ([], None)
    assert decide(held, Choice.SKIP, *chosen) == []


def test_held_cases_show_that_their_entries_moved_elsewhere(held: Lab) -> None:
    found = listed(held)
    assert [(it.evidence.finding, it.settles_at, it.gives_up_at) for it in found] == [
        ("elsewhere", None, None)
    ] * 2
    assert all(it.evidence.before != it.evidence.now for it in found)
    twice = "Mind: the log entries of 2 moved since; what arrived then would be awarded twice."
    assert [twice in question("acme", found, it) for it in Choice] == [False, True, True, False]


WHAT_FOLLOWS = {
    # choice: what the wallet gets in all where the request had arrived, and where it had not; credited, owed
    Choice.LANDED: ((15, 27), (10, 20)),
    Choice.REFUTED: ((20, 34), (15, 27)),
    Choice.AWARD: ((20, 34), (15, 27)),
    Choice.SKIP: ((15, 27), (10, 20)),
}


@pytest.mark.parametrize("choice", Choice)
def test_a_decision_is_carried_out_once_recorded_and_balanced(held: Lab, choice: Choice) -> None:
    arrived = held.awarded(A) == 15
    assert decide(held, choice, *listed(held)) == [0, 1]
    assert decide(held, choice, dummy(held)) == []
    held.calm()
    assert (held.awarded(A), held.awarded(B)) == WHAT_FOLLOWS[choice][0 if arrived else 1]
    books = held.store.accounts.summary()
    assert (books.earned, books.credited, books.owed, books.held) == (42, 42, 0, 0)
    by_person = [(it.entry, it.points) for it in books.rests_on if it.grade == "person"]
    expected = {Choice.LANDED: [("awarded", 12)], Choice.SKIP: [("skipped", 12)]}
    assert by_person == expected.get(choice, [])
    assert [(it.row, it.by, it.choice, it.points, it.held) for it in held.store.doubts.history()] == [
        (1, "ann", choice, 7, True),
        (0, "ann", choice, 5, True),
    ]
    (life,) = held.store.lives.of(A)
    (decided,) = [it.facts for it in life.happenings if it.what == "decided"]
    assert (decided["by"], decided["choice"], decided["points"], decided["finding"]) == (
        "ann",
        choice,
        5,
        "elsewhere",
    )
    asked = held.asks(IMPORT)
    held.cycle()
    assert held.asks(IMPORT) == asked, "one more cycle is silent"
    assert held.differences() == []


def dummy(lab: Lab) -> Case:
    """Return a case as it was listed before it was settled."""
    decided = lab.store.doubts.history()[0]
    suspect: Any = type("Listed", (), {"batch": decided.batch, "row": decided.row})
    case: Any = type("Listed", (), {"suspect": suspect, "evidence": decided.evidence})
    return case  # type: ignore[no-any-return]


def test_one_row_of_a_batch_is_settled_and_the_other_stays_held(held: Lab) -> None:
    first, second = listed(held)
    assert decide(held, Choice.LANDED, first) == [0]
    assert [it.id for it in listed(held)] == [second.id]
    assert held.rows("SELECT outcome, settled_at IS NULL FROM batch WHERE id = 2") == [(Outcome.HELD, 1)]
    assert decide(held, Choice.SKIP, first) == [], "it was settled meanwhile"
    assert held.store.doubts.fate(2)[0] == (Outcome.LANDED, "person")
    assert decide(held, Choice.SKIP, second) == [1]
    assert held.rows("SELECT outcome, settled_at IS NULL FROM batch WHERE id = 2") == [(Outcome.LANDED, 0)]


def test_a_row_in_doubt_is_settled_by_hand_before_the_log_does(open_lab: Open) -> None:
    lab = open_lab(wallet={"evidence": "unanimous"})
    lose(lab, Kind.RESET_AFTER)
    assert [it.suspect.held for it in listed(lab)] == [False, False]
    assert decide(lab, Choice.LANDED, *listed(lab)) == [0, 1]
    lab.calm()
    assert (lab.awarded(A), lab.awarded(B)) == (15, 27)
    lab.balanced()


def test_rows_in_flight_and_settled_ones_are_never_settled_by_hand(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    seen: list[Any] = []

    def meddle() -> None:
        seen.append(listed(lab))
        seen.append(lab.store.doubts.fate(1))
        evidence = {0: None}
        seen.append(lab.store.doubts.decide(1, Choice.SKIP, evidence, by="ann", now=lab.clock.now()))

    lab.on_import = meddle
    lab.cycle()
    assert seen == [[], {0: (Outcome.OPEN, None)}, ()]
    assert list(lab.store.doubts.decide(1, Choice.SKIP, {0: None}, by="ann", now=lab.clock.now())) == []
    assert lab.store.doubts.history() == []
    lab.balanced()


def test_a_held_row_is_settled_while_the_members_profile_is_in_flight(held: Lab) -> None:
    chosen = listed(held)
    held.crm.put("a", points=15, name="Anna")
    seen: list[Any] = []

    def meddle() -> None:
        held.on_import = lambda: None
        seen.extend(held.rows("SELECT open_batch FROM member WHERE owner_record = 'a'"))
        decide(held, Choice.REFUTED, *chosen)
        seen.extend(held.rows("SELECT open_batch FROM member WHERE owner_record = 'a'"))

    held.on_import = meddle
    before = held.awarded(A)
    held.cycle()
    assert seen[0] == seen[1] != (None,), "the member still waits for the batch that is in flight"
    held.calm()
    assert held.awarded(A) == before + 5
    assert held.profile(A)["name"] == "Anna"


def test_another_process_decides_beside_a_cycle_that_holds_the_state_open(held: Lab) -> None:
    chosen = listed(held)
    done: list[int] = []

    def beside() -> None:
        with Database.open_beside(held.state) as database:
            store = open_store(database, held.organization.config)
            evidence = {it.suspect.row: it.evidence for it in chosen}
            done.extend(store.doubts.decide(2, Choice.LANDED, evidence, by="bob", now=held.clock.now()))

    process = threading.Thread(target=beside)
    process.start()
    process.join()
    assert done == [0, 1]
    assert held.store.accounts.summary().held == 0
    assert held.cycle().rows_sent == 0


def test_a_decision_removed_or_changed_by_hand_is_found_by_the_books(held: Lab) -> None:
    decide(held, Choice.SKIP, *listed(held))
    with held.database.writing() as connection:
        connection.exec_driver_sql("UPDATE decision SET points = points + 1 WHERE position = 0")
    (difference,) = held.differences()
    assert difference.where == "batch 2 row 0"
    with held.database.writing() as connection:
        connection.exec_driver_sql("UPDATE decision SET points = points - 1 WHERE position = 0")


@pytest.mark.parametrize("choice", [Choice.REFUTED, Choice.SKIP])
def test_points_earned_while_others_are_held_wait_for_the_decision(open_lab: Open, choice: Choice) -> None:
    lab = open_lab(wallet={"evidence": "unanimous"})
    lose(lab, Kind.RESET_BEFORE)
    lab.cycle()
    lab.cycle(HOUR)
    lab.crm.put("a", points=57, name="Eve")
    lab.calm()
    assert (lab.profile(A)["name"], lab.awarded(A)) == ("Eve", 10)
    quiet = lab.cycle()
    assert (quiet.rows_sent, quiet.written_back) == (0, 0)
    assert lab.value("SELECT count(*) FROM batch WHERE lane = 1 AND outcome < 3") == 1
    decide(lab, choice, *listed(lab))
    lab.calm()
    assert lab.awarded(A) == (57 if choice is Choice.REFUTED else 52)
