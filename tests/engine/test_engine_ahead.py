"""The network works while something else is done: the next page, the other connectors' polls and writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from enginelab import SETTLED, Crash, Lab
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import Connection
from structlog.testing import capture_logs

from syncsvc import traces
from syncsvc.cycle import Cycle
from syncsvc.errors import OperatorError, StateError, TransientError
from syncsvc.model import WriteBack, WriteOutcome
from syncsvc.runner import attempt
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


def test_a_first_read_without_any_page_is_none(open_lab: Open) -> None:
    lab = open_lab(first_run="adopt")
    lab.crm.put("a", points=5)
    lab.crm.read = lambda _: iter(())  # type: ignore[method-assign]
    report = lab.cycle()
    assert report.outcome is Outcome.DEGRADED
    assert "ended without a page" in report.errors[0]
    del lab.crm.__dict__["read"]
    lab.cycle()
    assert lab.awarded("a@example.org") == 0
    assert lab.cycle(full=True).rows_sent == 0


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


def test_first_reads_are_on_their_way_at_once(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    meeting = Meeting(2)
    for name, crm in lab.crms.items():
        crm.put(f"of {name}", email=f"{name}@example.org", points=3)
        crm.put(f"else of {name}", email="same@example.org", points=len(name))
        crm.before = lambda name=name: meeting.wait(name)  # type: ignore[misc]
    assert lab.cycle().rows_landed == 3
    assert sorted(meeting.came) == ["crm", "shop"]
    assert lab.awarded("same@example.org") == len("crm")


@pytest.mark.parametrize("first", [True, False])
def test_others_are_read_as_far_ahead_as_is_stored_together(open_lab: Open, *, first: bool) -> None:
    lab = open_lab(connectors=TWO, wallet={"points": "off"}, brakes={"max_share": "100%"})
    shop = lab.crms["shop"]
    if not first:
        lab.cycle()
    for crm, name in ((lab.crm, "crm"), (shop, "shop")):
        crm.page_size = 1000
        for number in range(4500):
            crm.put(f"{name}{number:05}", email=f"{name}{number}@example.org")
    asked_before = shop.pages
    asked: list[int] = []
    ahead = threading.Event()
    shop.before = lambda: ahead.set() if shop.pages - asked_before >= 1 else None  # the second is asked for

    def meanwhile() -> None:
        assert ahead.wait(LONG)
        if lab.value("SELECT count(*) FROM contact WHERE connector_id = 1") < 4500:  # it is not its turn yet
            asked.append(shop.pages - asked_before)

    with storing(lab, meanwhile):
        report = lab.cycle(send=False)
    assert asked
    assert max(asked) <= 2
    assert report.read == lab.value("SELECT count(*) FROM contact") == 9000


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


def test_a_stop_in_the_midst_of_writing_loses_and_repeats_nothing(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    for name, crm in lab.crms.items():
        crm.page_size = 1000
        for number in range(1000):
            crm.put(f"{name}{number}", email=f"{name}{number}@example.org")
    report = lab.cycle(stopping=lambda: sum(len(crm.writes) for crm in lab.crms.values()) > 700)
    assert report.outcome is Outcome.STOPPED
    lab.restart()
    written = sum(len(crm.writes) for crm in lab.crms.values())
    assert 700 < written < 2000
    assert lab.value("SELECT count(*) FROM contact WHERE written_at IS NOT NULL") == written
    lab.cycle()
    assert [len(crm.writes) for crm in lab.crms.values()] == [1000, 1000]


def test_what_one_connector_wrote_is_counted_though_the_state_failed_for_another(
    open_lab: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = open_lab(connectors=TWO)
    lab.crm.put("a", points=5)
    lab.crms["shop"].put("b", points=7)
    own, crm = type(lab.store.write_backs).record, lab.organization.connectors["crm"].id

    def record(self: Any, connector_id: int, *given: Any, **more: Any) -> None:
        if connector_id == crm:
            raise StateError("the disk is full")
        own(self, connector_id, *given, **more)

    monkeypatch.setattr(type(lab.store.write_backs), "record", record)
    assert lab.cycle().written_back == len(lab.crms["shop"].writes) == 1


def test_an_error_of_one_connector_is_told_beside_an_unexpected_one_of_another(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    errors = {"crm": KeyError("nobody thought of it"), "shop": OperatorError("shop refuses us")}
    for name, crm in lab.crms.items():
        crm.put(f"of {name}", email=f"{name}@example.org")

        def write(_: WriteBack, error: Exception = errors[name]) -> WriteOutcome:
            raise error

        crm.write = write  # type: ignore[method-assign]
    lab.wait(60)
    with capture_logs() as lines:
        attempt(lab.organization, Cycle(lab.organization))
    assert any("shop refuses us" in str(line) for line in lines)


def test_the_connector_that_is_waited_for_is_named(open_lab: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = open_lab(connectors=TWO)
    lab.cycle()
    lab.crm.put("a", points=5)
    go = threading.Event()

    def hang() -> None:
        go.wait(LONG)

    lab.crms["shop"].before = hang

    def fail(*_: Any, **__: Any) -> Any:
        raise StateError("the disk is full")

    monkeypatch.setattr(type(lab.store.intake), "store_page", fail)
    cycle = Cycle(lab.organization)
    running = threading.Thread(target=cycle.run)
    running.start()
    for _ in range(1000):
        if cycle.at == "pull shop":
            break
        running.join(0.01)
    named = cycle.at if running.is_alive() else "nothing hangs"
    go.set()
    running.join()
    assert named == "pull shop"


@pytest.mark.parametrize("number", [1, 2])
def test_calls_are_part_of_their_stage(open_lab: Open, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    lab = open_lab(connectors=dict(list(TWO.items())[:number]))
    lab.cycle()

    def read() -> None:
        with traces.span("a read"):
            pass

    def write(value: WriteBack, own: Callable[[WriteBack], WriteOutcome]) -> WriteOutcome:
        with traces.span("a write"):
            return own(value)

    for name, crm in lab.crms.items():
        crm.put(f"of {name}", email=f"{name}@example.org", points=3)
        crm.before = read
        crm.write = lambda value, own=crm.write: write(value, own)  # type: ignore[method-assign,misc]
    taken, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(taken))
    monkeypatch.setattr(traces, "_tracer", provider.get_tracer("syncsvc"))
    lab.cycle()
    spans = {it.context.span_id: it for it in taken.get_finished_spans() if it.context}
    found = {
        (it.name, spans[it.parent.span_id].name) for it in spans.values() if it.parent and it.name[:2] == "a "
    }
    assert found == {("a read", "pull"), ("a write", "write_back")}
