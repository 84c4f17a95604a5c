"""The process dies at every write of its state and around every request: nothing is doubled or lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest
from enginelab import SETTLED, Crash, Lab
from quicklab import QuickLab
from soak import SOAK
from sqlalchemy import Connection

from syncsvc.errors import StateError
from syncsvc.sandbox.faults import Kind

POINTS = {"a": 10, "b": 25, "c": 0, "d": 40}


def die_at(lab: Lab, step: int, *, committed: bool) -> None:
    """Let the process die at its `step`-th write transaction: when it is committed, or just before."""
    writing, count = lab.database._storage.writing, 0

    @contextmanager
    def counted(*held: Any) -> Iterator[Connection]:
        nonlocal count
        count += 1
        with writing(*held) as connection:
            yield connection
            if count == step and not committed:
                raise Crash
        if count == step:
            raise Crash

    lab.database._storage.writing = counted  # type: ignore[method-assign]


def lose_the_answer(lab: Lab, step: int) -> None:
    """Let the answer to a process's `step`-th commit be lost, as by a server that falls then: it lives on."""
    storage = lab.database._storage
    writing, count = storage.writing, 0

    @contextmanager
    def counted(*held: Any) -> Iterator[Connection]:
        nonlocal count
        count += 1
        with writing(*held) as connection:
            yield connection
        if count == step:
            raise StateError("nobody knows whether it was committed")

    storage.writing = counted  # type: ignore[method-assign]


def begin(lab: Lab) -> None:
    """Bring everything to where the story begins."""
    lab.crm.page_size = 2
    for record, points in POINTS.items():
        lab.crm.put(record, points=points)
    lab.cycle()
    lab.crm.put("a", points=15, name="Eve")
    lab.crm.put("b", email="moved@example.org")
    lab.crm.put("c", email=None)
    lab.crm.put("e", points=7)
    lab.crm.delete("d")


def play(lab: Lab, dies: Callable[[], None]) -> bool:
    """Play a short story, in which the process may die in the first cycles; returns whether it did."""
    lab.fault(Kind.RESET_AFTER)
    dies()
    died = False
    for _ in range(3):
        try:
            lab.cycle()
        except Crash:
            died = True
            lab.restart()
    if not died:
        lab.restart()
    lab.crm.put("a", points=18)
    for after in (60, SETTLED, SETTLED):
        lab.cycle(after=after)
    lab.cycle(full=True)
    return died


def whole(lab: Lab) -> None:
    awarded = {email: lab.awarded(f"{email}@example.org") for email in "abcde"}
    assert awarded == {"a": 18, "b": 25, "c": 0, "d": 40, "e": 7}
    assert lab.awarded("moved@example.org") == 0
    assert lab.profile("a@example.org")["name"] == "Eve"
    assert lab.crm.records["a"]["wallet_status"] == "imported"
    books = lab.rows("SELECT sum(credited), sum(unsettled) FROM member")
    assert books == [(lab.wallet.total_awarded(), 0)]
    assert lab.value("SELECT sum(points) FROM ledger") == lab.wallet.total_awarded()


@pytest.mark.parametrize("committed", [True, False] if SOAK else [True])
def test_a_death_at_any_write_of_the_state_loses_and_doubles_nothing(
    open_quick: Callable[..., QuickLab], *, committed: bool
) -> None:
    lab = open_quick(policy={"on_email_change": "move"})
    begin(lab)
    begun = lab.keep()
    step, died = 0, True
    while died:
        step += 1
        lab.go_back(begun)
        died = play(lab, lambda step=step: die_at(lab, step, committed=committed))  # type: ignore[misc]
        whole(lab)
    assert step > 10


def poll(lab: Lab, step: int) -> bool:
    """Let the process die at a write of a cycle that polls, and go on with polls; returns whether it died."""
    lab.crm.page_size = 2
    for record, points in POINTS.items():
        lab.crm.put(record, points=points)
    lab.cycle()
    for record in "abce":
        lab.crm.put(record, points=50, name="Eve")
    lab.crm.put("d", email="moved@example.org")
    writing = lab.database._storage.writing
    die_at(lab, step, committed=True)
    died = False
    try:
        lab.cycle()
    except Crash:
        died = True
    lab.database._storage.writing = writing  # type: ignore[method-assign]
    lab.reopen()
    for after in (60, SETTLED, 60):
        lab.cycle(after)
    return died


def test_a_death_at_any_write_is_made_good_by_polls_alone(open_quick: Callable[..., QuickLab]) -> None:
    lab = open_quick(policy={"on_email_change": "move"}, schedule={"sweep_every": "30d"})
    step, died = 0, True
    while died:
        step += 1
        lab.begin_anew(f"polls{step}")
        died = poll(lab, step)
        assert lab.truth() == {f"{it}@example.org": 40 if it == "d" else 50 for it in "abced"}, step
        assert {lab.profile(f"{it}@example.org")["name"] for it in "abce"} == {"Eve"}, step
        assert lab.profile("moved@example.org")["name"] == "Ada", step
        lab.silent()
    assert step > 8


@pytest.mark.parametrize("first_run", ["adopt", "adopt_points"])
def test_a_first_read_that_dies_at_any_write_adopts_every_point_all_the_same(
    open_quick: Callable[..., QuickLab], first_run: str
) -> None:
    lab = open_quick(first_run=first_run)
    step, died = 0, True
    while died:
        step += 1
        lab.begin_anew(f"{first_run}{step}")
        lab.crm.page_size = 2
        for record, points in POINTS.items():
            lab.crm.put(record, points=points)
        writing, died = lab.database._storage.writing, False
        die_at(lab, step, committed=True)
        try:
            lab.cycle()
        except Crash:
            died = True
        lab.database._storage.writing = writing  # type: ignore[method-assign]
        lab.reopen()
        lab.cycle()
        lab.cycle(SETTLED)  # points keep away from a profile row that may still land
        assert lab.wallet.ledger == [], step
        for record, points in POINTS.items():
            lab.crm.put(record, points=points + 1)
        lab.cycle()
        assert lab.truth() == {f"{record}@example.org": 1 for record in POINTS}, step
    assert step > 3


def test_a_commit_whose_answer_is_lost_loses_and_doubles_nothing(
    open_quick: Callable[..., QuickLab],
) -> None:
    lab = open_quick(policy={"on_email_change": "move"})
    step, lost = 0, True
    while lost:
        step += 1
        lab.begin_anew(f"lost{step}")
        lab.crm.page_size = 2
        writing = lab.database._storage.writing
        for record, points in POINTS.items():
            lab.crm.put(record, points=points)
        lose_the_answer(lab, step)
        lost = False
        for after, changes in ((60, {"a": 15, "e": 7}), (60, {"b": 26}), (SETTLED, {}), (SETTLED, {})):
            said = len(lab.said("state_failed"))
            lab.cycle(after)
            lost |= len(lab.said("state_failed")) > said
            lost |= bool(lab.reports and "nobody knows" in " ".join(lab.reports[-1].errors))
            for record, points in changes.items():
                lab.crm.put(record, points=points)
        lab.database._storage.writing = writing  # type: ignore[method-assign]
        lab.calm()
        lab.balanced()
        assert lab.truth() == {
            f"{record}@example.org": points
            for record, points in (POINTS | {"a": 15, "b": 26, "e": 7}).items()
            if points
        }, step
        lab.silent()
    assert step > 10


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_death_around_the_request_loses_and_doubles_nothing(lab: Lab, when: str) -> None:
    lab.restart(policy={"on_email_change": "move"})
    begin(lab)
    assert play(lab, lambda: lab.crash_import(when))
    whole(lab)


def full_disk(*_: Any) -> NoReturn:
    raise StateError("the disk is full")


def test_a_state_that_cannot_be_written_ends_the_cycle_and_no_more(lab: Lab) -> None:
    writing = lab.database._storage.writing
    for points in (10, 20):  # each time is told of
        lab.crm.put("a", points=points)
        lab.database._storage.writing = full_disk  # type: ignore[method-assign]
        report = lab.cycle()
        assert len(lab.said("state_failed")) == 1
        assert report.errors == ("the disk is full",)
        lab.database._storage.writing = writing  # type: ignore[method-assign]
        lab.cycle(after=SETTLED)
        assert [it["stage"] for it in lab.said("stage_recovered")] == ["state"]
        assert lab.awarded("a@example.org") == points
