"""How long history is kept, and that the books balance without it."""

from __future__ import annotations

from collections.abc import Callable

from enginelab import Lab

from syncsvc.cycle import Cycle
from syncsvc.doubts import cases
from syncsvc.runner import attempt
from syncsvc.sandbox.faults import Kind
from syncsvc.state.doubts import Choice

Open = Callable[..., Lab]
DAY = 24 * 3600
YEAR = 366 * DAY


def housekeeping(lab: Lab, after: float) -> None:
    """Run a cycle with what a service does after it."""
    lab.wait(after)
    attempt(lab.organization, Cycle(lab.organization))


def count(lab: Lab, table: str) -> int:
    return int(lab.value(f"SELECT count(*) FROM {table}"))


def test_history_goes_after_its_time_and_the_books_stay(lab: Lab) -> None:
    for number in range(5):
        lab.crm.put("a", points=10 * (number + 1))
        lab.cycle()
    kept = {it: lab.rows(f"SELECT * FROM {it}") for it in ("ledger", "member", "contact")}
    assert (count(lab, "batch_row"), count(lab, "cycle")) == (5, 5)
    housekeeping(lab, YEAR)
    assert (count(lab, "batch_row"), count(lab, "batch"), lab.differences()) == (0, 5, [])
    assert count(lab, "cycle") <= 1  # the one that has just been run
    assert lab.rows("SELECT * FROM ledger") == kept["ledger"]
    assert lab.value("SELECT credited FROM member") == 50


def test_what_is_younger_stays_and_goes_in_its_own_time(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.put("a", points=25)
    lab.cycle(200 * DAY)
    housekeeping(lab, 200 * DAY)
    assert lab.rows("SELECT points FROM batch_row") == [(15,)]
    housekeeping(lab, 200 * DAY)
    assert count(lab, "batch_row") == 0


def test_what_waits_for_a_person_never_goes(open_lab: Open) -> None:
    lab = open_lab(wallet={"evidence": "unanimous"})
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.put("a", points=25)
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()
    lab.cycle(3601)
    assert [it.suspect.held for it in cases(lab.store, lab.organization.config.wallet)] == [True]
    housekeeping(lab, 2 * YEAR)
    (case,) = cases(lab.store, lab.organization.config.wallet)
    assert case.suspect.points == 15
    evidence = {case.suspect.row: case.evidence}
    lab.store.doubts.decide(case.suspect.batch, Choice.LANDED, evidence, by="ann", now=lab.clock.now())
    housekeeping(lab, DAY)
    assert count(lab, "decision") == 1
    housekeeping(lab, YEAR)
    assert (count(lab, "decision"), count(lab, "batch_row"), lab.differences()) == (0, 0, [])


def test_a_point_that_is_changed_is_still_found_without_the_history(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    housekeeping(lab, YEAR)
    with lab.database.writing() as connection:
        connection.exec_driver_sql("UPDATE member SET credited = credited + 1, earned = earned + 1")
        connection.exec_driver_sql("UPDATE contact SET points = points + 1")
    assert len(lab.differences()) == 1
    with lab.database.writing() as connection:
        connection.exec_driver_sql("UPDATE member SET credited = credited - 1, earned = earned - 1")
        connection.exec_driver_sql("UPDATE contact SET points = points - 1")


def test_a_day_without_old_history_writes_nothing(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.cycle(600)
    before = lab.contents()
    assert not lab.store.retention.prune(lab.clock.now())
    assert lab.contents() == before


def test_much_history_goes_in_steps(open_lab: Open) -> None:
    lab = open_lab(wallet={"batch_size": 1})
    for number in range(60):
        lab.crm.put(f"r{number}", points=1)
    lab.cycle()
    assert count(lab, "batch_row") == 60
    housekeeping(lab, YEAR)
    assert (count(lab, "batch_row"), lab.differences()) == (0, [])
