"""The network works while something else is done: the next page, the other connectors' polls and writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from enginelab import SETTLED, Crash, Lab
from sqlalchemy import Connection

from syncsvc.errors import TransientError
from syncsvc.model import WriteBack, WriteOutcome
from syncsvc.testing.memory import MemoryCrm
from syncsvc.watch.report import Outcome

Open = Callable[..., Lab]
TWO = {"crm": {}, "shop": {}}
LONG = 10.0
"""Seconds that a thread waits for another one which does not come."""


class Meeting:
    """Where each waits, once, until all are there."""

    def __init__(self, number: int) -> None:
        self._all = threading.Barrier(number, timeout=LONG)
        self.came: list[str] = []

    def wait(self, name: str) -> None:
        if name not in self.came:
            self.came.append(name)
            self._all.wait()


def fill(crm: MemoryCrm, number: int) -> None:
    crm.page_size = 1000
    for one in range(number):
        crm.put(f"r{one:05}", points=1)


@contextmanager
def storing(lab: Lab, meanwhile: Callable[[], None]) -> Iterator[None]:
    """Do something within every transaction that writes, before it is committed."""
    storage: Any = lab.database._storage
    writing = storage.writing

    @contextmanager
    def slowly(*held: Any) -> Iterator[Connection]:
        with writing(*held) as connection:
            yield connection
            meanwhile()

    storage.writing = slowly
    try:
        yield
    finally:
        del storage.__dict__["writing"]


def test_the_next_page_is_on_its_way_while_one_is_stored(open_lab: Open) -> None:
    lab = open_lab(wallet={"points": "off"})
    fill(lab.crm, 2500)
    asked = threading.Event()
    lab.crm.before = lambda: asked.set() if lab.crm.pages == 2 else None
    met: list[bool] = []
    with storing(lab, lambda: met.append(asked.wait(LONG)) if lab.crm.pages >= 2 and not met else None):
        report = lab.cycle(send=False)
    assert met == [True]
    assert report.read == lab.value("SELECT count(*) FROM contact") == 2500


@pytest.mark.parametrize("ends", ["stopped", "died", "cut"])
def test_what_was_stored_is_not_lost_with_the_page_that_is_on_its_way(open_lab: Open, ends: str) -> None:
    lab = open_lab(wallet={"points": "off"})
    fill(lab.crm, 2500)
    if ends == "stopped":
        report = lab.cycle(send=False, stopping=lambda: lab.crm.pages > 2)
        assert report.outcome is Outcome.STOPPED
    elif ends == "died":
        lab.crm.fail(Crash(), after=2)
        with pytest.raises(Crash):
            lab.cycle(send=False)
        lab.restart()
    else:
        lab.crm.fail(TransientError("the CRM is busy"), after=2)
        assert lab.cycle(send=False).outcome is Outcome.TRANSIENT
    assert lab.value("SELECT count(*) FROM contact") == 2000
    assert lab.cycle(send=False).read == 500
    assert lab.value("SELECT count(*) FROM contact") == 2500


def test_all_connectors_are_asked_at_once(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    lab.cycle()
    meeting = Meeting(2)
    for name, crm in lab.crms.items():
        crm.put(f"of {name}", email=f"{name}@example.org", points=3)
        crm.before = lambda name=name: meeting.wait(name)  # type: ignore[misc]
    report = lab.cycle()
    assert sorted(meeting.came) == ["crm", "shop"]
    assert {name: it.read for name, it in report.connectors.items()} == {"crm": 1, "shop": 1}
    assert report.rows_landed == 2


def test_all_connectors_are_written_to_at_once(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    lab.cycle()
    meeting = Meeting(2)

    def write(name: str, value: WriteBack, write: Callable[[WriteBack], WriteOutcome]) -> WriteOutcome:
        meeting.wait(name)
        return write(value)

    for name, crm in lab.crms.items():
        crm.put(f"of {name}", email=f"{name}@example.org", points=3)
        crm.write = lambda value, name=name, own=crm.write: write(name, value, own)  # type: ignore[method-assign,misc]
    assert lab.cycle().written_back == 2
    assert sorted(meeting.came) == ["crm", "shop"]
    assert lab.cycle(SETTLED).written_back == 0
    assert [len(crm.writes) for crm in lab.crms.values()] == [1, 1]


def test_the_owner_is_the_first_by_order_and_not_who_answered_first(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    lab.cycle()
    answered = threading.Event()
    shop = lab.crms["shop"]
    lab.crm.put("a", email="same@example.org", points=5)
    shop.put("b", email="same@example.org", points=7)
    shop.before = answered.set
    lab.crm.before = lambda: None if answered.wait(LONG) else pytest.fail("shop was not asked meanwhile")
    lab.cycle()
    assert lab.awarded("same@example.org") == 5


def test_trouble_of_one_connector_is_its_own(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    lab.cycle()
    lab.crm.put("a", points=5)
    lab.crms["shop"].put("b", points=7)
    lab.crm.fail(TransientError("the CRM is busy"))
    report = lab.cycle()
    assert report.errors == ("crm: the CRM is busy",)
    assert (lab.awarded("a@example.org"), lab.awarded("b@example.org")) == (0, 7)
    lab.cycle()
    assert lab.awarded("a@example.org") == 5


def test_a_death_in_one_connector_leaves_what_the_other_wrote(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    lab.crm.put("a", points=5)
    lab.crms["shop"].put("b", points=7)

    def die(_: WriteBack) -> WriteOutcome:
        raise Crash

    lab.crm.write = die  # type: ignore[method-assign]
    with pytest.raises(Crash):
        lab.cycle()
    del lab.crm.__dict__["write"]
    lab.restart()
    assert lab.cycle().written_back == 1
    assert [len(crm.writes) for crm in lab.crms.values()] == [1, 1]
