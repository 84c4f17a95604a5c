"""Plans: what is approved is delivered and nothing else, and a refusal says what has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from enginelab import IMPORT, Lab

from syncsvc.cycle import Cycle
from syncsvc.state import plans as plans_module
from syncsvc.state.plans import KEPT, Planned
from syncsvc.watch.report import CycleReport

Open = Callable[..., Lab]


def plan(lab: Lab) -> str:
    """Plan on the state itself, as `plan` does on a copy of it, and remember the plan; returns its digest."""
    cycle = Cycle(lab.organization, send=False)
    cycle.run()
    outbox, totals = lab.store.outbox, lab.store.outbox.totals(cycle.allowed.most_points)
    digest: str = outbox.digest(cycle.allowed)
    rows = outbox.planned(cycle.allowed)
    lab.store.plans.remember(
        digest, list(rows), members=totals.members, points=totals.points, brakes="", now=lab.clock.now()
    )
    return digest


def refused(report: CycleReport) -> str:
    (error,) = report.errors
    assert report.rows_sent == 0
    return error


@pytest.fixture
def lab(open_lab: Open) -> Lab:
    lab = open_lab()
    lab.crm.put("a", points=10)
    lab.crm.put("b", points=20)
    lab.crm.put("c", points=30)
    return lab


def test_a_plan_that_still_holds_is_delivered_and_nothing_else(lab: Lab) -> None:
    digest = plan(lab)
    report = lab.cycle(plan=digest)
    assert (report.errors, report.points_landed) == ((), 60)
    assert "nothing is due now: it was delivered already" in refused(lab.cycle(plan=digest))


def test_a_refusal_names_what_is_more_fewer_and_different(lab: Lab) -> None:
    digest = plan(lab)
    lab.crm.put("a", points=13)
    lab.crm.put("b", name="Bea", points=20)
    lab.crm.put("d", points=5)
    asked = lab.asks(IMPORT)
    said = refused(lab.cycle(plan=digest))
    assert f"what is due is no longer plan {digest} of 2026-11-02 12:00:00Z: " in said
    assert "1 member more, " in said
    assert "2 members different, " in said
    assert "8 points more" in said
    assert (
        "crm a with 13 points instead of 10; crm b with another profile; crm d besides, with 5 points" in said
    )
    assert "due now is plan " in said
    assert "example.org" not in said
    assert lab.asks(IMPORT) == asked
    now = said.partition("due now is plan ")[2][:16]
    assert lab.cycle(plan=now).errors == ()


def test_members_that_are_due_no_longer_are_counted(lab: Lab) -> None:
    lab.cycle()
    lab.crm.put("a", points=15)
    lab.crm.put("b", points=25)
    digest = plan(lab)
    lab.crm.put("b", points=20)
    said = refused(lab.cycle(plan=digest))
    assert "1 member fewer, 5 points fewer (crm b no longer, with 5 points)" in said


def test_what_brakes_hold_is_no_part_of_a_plan_and_the_refusal_says_so(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_cycle": 50})
    lab.crm.put("a", points=10)
    digest = plan(lab)
    lab.crm.put("b", points=60)
    said = refused(lab.cycle(plan=digest))
    assert "max_points_per_cycle hold what is no part of a plan until `syncsvc release`" in said
    held = plan(lab)
    report = lab.cycle(plan=held)
    assert (report.rows_sent, report.points_landed) == (2, 0), "an approved plan releases no brake"
    assert lab.release() == ["max_points_per_cycle"]
    assert lab.cycle(plan=plan(lab)).points_landed == 70


def test_a_plan_that_is_not_remembered_says_so(lab: Lab) -> None:
    said = refused(lab.cycle(plan="0123456789abcdef"))
    assert "plan 0123456789abcdef, which is not remembered" in said
    assert "3 new and 0 changed members, 60 points" in said


def test_only_the_newest_plans_are_kept_and_one_made_again_counts_as_new(lab: Lab) -> None:
    for number in range(KEPT + 2):
        rows = [Planned("crm a", bytes(16), number)]
        lab.store.plans.remember(
            f"plan{number}", rows, members=1, points=number, brakes="", now=lab.clock.now()
        )
        lab.store.plans.remember("again", rows, members=1, points=0, brakes="", now=lab.clock.now())
    kept = [row[0] for row in lab.rows("SELECT digest FROM plan ORDER BY id")]
    assert kept == ["plan3", "plan4", "plan5", "plan6", "again"]
    assert lab.value("SELECT count(*) FROM plan_row") == KEPT
    assert lab.store.plans.find("plan2") is None


def test_of_a_very_large_plan_the_totals_are_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans_module, "MOST_ROWS", 2)
    digest = plan(lab)
    assert lab.value("SELECT count(*) FROM plan_row") == 0
    lab.crm.put("a", points=11)
    said = refused(lab.cycle(plan=digest))
    assert "too many members to be compared one by one, 1 point more;" in said


def test_a_plan_in_the_state_holds_no_personal_data(lab: Lab) -> None:
    plan(lab)
    rows: list[Any] = lab.rows("SELECT * FROM plan_row")
    assert [row[2] for row in rows] == ["crm a", "crm b", "crm c"]
    assert b"example.org" not in repr(rows).encode()
    assert len({row[3] for row in rows}) == 3
