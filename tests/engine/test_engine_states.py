"""States are told when they change, and every line and request of a cycle carries its id."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
from enginelab import IMPORT, LOG, Lab
from quicklab import QuickLab
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from syncsvc.cycle import Cycle
from syncsvc.errors import OperatorError, SchemaError, TransientError
from syncsvc.remote.clocks import Clocks
from syncsvc.remote.transport import USER_AGENT
from syncsvc.runner import attempt
from syncsvc.sandbox.faults import Kind
from syncsvc.tidings import tell_of_clocks
from syncsvc.views.standing import Standing
from syncsvc.watch import log
from syncsvc.watch.states import States


def is_loud(line: Mapping[str, Any]) -> bool:
    return line["log_level"] != "debug" and line["event"] != "cycle_finished"


def loud(lab: Lab) -> list[tuple[str, str]]:
    """What the last cycle said at info or above, beside its one line."""
    return [(line["log_level"], line["event"]) for line in lab.lines if is_loud(line)]


def test_a_wallet_that_is_down_for_long_is_told_when_it_begins_and_when_it_ends(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    assert loud(quick) == []
    down = [quick.fault(Kind.STATUS, request, times=None, status=503) for request in (IMPORT, LOG)]
    quick.crm.put("a", points=20)
    told: Counter[tuple[str, object]] = Counter()
    for _ in range(20):
        report = quick.cycle()
        told += Counter((line["event"], line.get("stage")) for line in quick.lines if is_loud(line))
        assert report.errors, "the cycle's own line says what it was this time"
    assert told == {
        ("stage_cut_short", "log"): 1,
        ("stage_cut_short", "confirm"): 1,
        ("organization_degraded", None): 1,
    }
    assert all(it.struck for it in down[1:])
    quick.wallet.faults.clear()
    quick.cycle()
    recovered = [
        ("info", event) for event in ("stage_recovered", "stage_recovered", "organization_recovered")
    ]
    assert loud(quick) == recovered
    quick.cycle()
    assert loud(quick) == []
    assert quick.awarded("a@example.org") == 20


def test_profiles_that_time_out_every_minute_are_one_warning(quick: QuickLab) -> None:
    quick.crm.put("a", points=0)
    quick.fault(Kind.RESET_AFTER, times=None)
    quick.cycle()
    assert loud(quick) == [("warning", "stage_cut_short"), ("warning", "organization_degraded")]
    quick.cycle()
    assert loud(quick) == []
    assert quick.said("batch_not_landed"), "each batch is told at debug"


def test_points_without_an_answer_are_told_each_time(quick: QuickLab) -> None:
    quick.crm.put("a", points=5)
    quick.fault(Kind.RESET_AFTER)
    quick.cycle()
    assert ("warning", "batch_not_landed") in loud(quick)


def test_a_crm_is_told_by_its_name_when_it_cannot_be_read_and_when_it_can(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    changes = quick.crm.read

    def silent(cursor: str | None) -> Iterator[Any]:
        raise TransientError("no answer")
        yield cursor

    quick.crm.read = silent  # type: ignore[method-assign]
    log.configure(format="json", level="info", stream=(stream := io.StringIO()))
    for _ in range(3):
        Cycle(quick.organization).run()
    quick.crm.read = changes  # type: ignore[method-assign]
    Cycle(quick.organization).run()
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    told = [(it["event"], it["stage"], it["connector"]) for it in lines if it["event"].startswith("stage_")]
    assert told == [("stage_cut_short", "pull", "crm"), ("stage_recovered", "pull", "crm")]


def test_a_write_back_that_waits_for_a_person_is_told_once_with_its_connector(quick: QuickLab) -> None:
    def refuse(value: Any) -> Any:
        raise OperatorError(f"may not write {value.record_id}")

    write, quick.crm.write = quick.crm.write, refuse  # type: ignore[method-assign]
    quick.crm.put("a", points=10)
    log.configure(format="json", level="info", stream=(stream := io.StringIO()))
    for _ in range(3):
        Cycle(quick.organization).run()
    quick.crm.write = write  # type: ignore[method-assign]
    Cycle(quick.organization).run()
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    told = [(it["event"], it["stage"], it["connector"]) for it in lines if it["event"].startswith("stage_")]
    assert told == [("stage_needs_operator", "write_back", "crm"), ("stage_recovered", "write_back", "crm")]


def test_a_connector_that_is_paused_is_told_once_and_nothing_of_it_has_recovered(quick: QuickLab) -> None:
    def silent(value: Any) -> Any:
        raise TransientError(f"no answer to {value.record_id}")

    def refuse(cursor: str | None) -> Iterator[Any]:
        raise OperatorError("the token is refused")
        yield cursor

    quick.crm.put("a", points=10)
    write, quick.crm.write = quick.crm.write, silent  # type: ignore[method-assign]
    quick.cycle()
    assert ("warning", "stage_cut_short") in loud(quick)
    changes, quick.crm.read = quick.crm.read, refuse  # type: ignore[method-assign]
    quick.cycle()
    assert [event for _, event in loud(quick)] == ["connector_unreadable", "organization_degraded"]
    quick.cycle()
    assert loud(quick) == []
    quick.crm.read, quick.crm.write = changes, write  # type: ignore[method-assign]
    quick.cycle()
    assert [event for _, event in loud(quick)] == [
        "connector_readable_again",
        "stage_recovered",
        "organization_recovered",
    ]


def test_an_unexpected_error_is_told_whole_once_and_its_line_carries_the_cycle(
    quick: QuickLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.configure(format="json", level="info", stream=(stream := io.StringIO()))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    with monkeypatch.context() as patched:
        patched.setattr(quick.store.reports, "waiting", broken)
        reports = [attempt(quick.organization, Cycle(quick.organization)) for _ in range(3)]
    attempt(quick.organization, Cycle(quick.organization))
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    told = [(it["event"], it["cycle"]) for it in lines if it["event"].startswith("cycle_")]
    assert [event for event, _ in told] == ["cycle_failed", "cycle_finished", "cycle_recovered"]
    assert told[0][1] == reports[0].cycle != reports[1].cycle
    assert "nobody thought of this" in str(lines)


def test_every_line_and_every_request_of_a_cycle_carries_its_id(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    agents: list[str] = []
    serve = lab.wallet.app

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        agents.append(dict(scope["headers"])[b"user-agent"].decode())
        await serve(scope, receive, send)

    monkeypatch.setattr(lab.wallet, "app", listening)
    log.configure(format="json", level="debug", stream=(stream := io.StringIO()))
    lab.crm.put("a", points=10)
    lab.crm.put("b", email="nobody")
    lab.fault(Kind.RESET_AFTER)
    ran: dict[str, tuple[int, int]] = {}
    for _ in range(2):
        lab.wait(600)
        cycle = Cycle(lab.organization)
        before = len(agents), stream.tell()
        cycle.run()
        logging.getLogger("another.package").warning("between the cycles")
        assert set(agents[before[0] :]) == {f"{USER_AGENT} (cycle {cycle.id})"}
        stream.seek(before[1])
        lines = [orjson.loads(line) for line in stream.read().splitlines()]
        assert {it.get("cycle") for it in lines[:-1]} == {cycle.id}
        assert "cycle" not in lines[-1]
        ran[cycle.id] = len(agents) - before[0], len(lines)
    assert len(ran) == 2
    assert all(count and lines > 2 for count, lines in ran.values())


def test_a_request_outside_of_a_cycle_names_the_program_alone(lab: Lab) -> None:
    agents: list[str] = []
    serve = lab.wallet.app

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        agents.append(dict(scope["headers"])[b"user-agent"].decode())
        await serve(scope, receive, send)

    lab.wallet.app = listening  # type: ignore[method-assign,assignment]
    assert lab.organization.wallet.check(["brand-1"]) == []
    assert set(agents) == {USER_AGENT}


def test_who_looks_at_the_state_is_told_what_cuts_cycles_short_until_it_is_over(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.calm()
    quick.wallet.knobs.abilities["wallet-sandbox"].discard("brand.import")
    quick.cycle(600)
    begun = quick.clock.now()
    written = quick.value("SELECT count(*) FROM cycle")
    quick.cycle(600)
    quick.reopen()
    quick.cycle(600)
    status = quick.store.reports.status()
    assert ["brand.import" in it for it in status.troubles] == [True]
    assert quick.value("SELECT count(*) FROM cycle") == written  # told once, by whatever process
    assert (status.last_cycle_at, Standing.of(quick.store).needs_attention) == (begun, True)
    quick.crm.fail(SchemaError("the field points does not exist"))
    quick.cycle(600)
    status = quick.store.reports.status()
    assert ["brand.import" in it for it in status.troubles] == [True]  # the other is its connector's
    quick.wallet.knobs.abilities["wallet-sandbox"].add("brand.import")
    quick.calm()
    status = quick.store.reports.status()
    assert (status.troubles, status.last_cycle and status.last_cycle["outcome"]) == ((), "ok")
    assert not Standing.of(quick.store).needs_attention


def test_a_clock_that_differs_is_told_once_and_once_more_when_it_agrees() -> None:
    ours, states = datetime(2026, 11, 2, 12, tzinfo=UTC), States()
    clocks = Clocks()

    def told(date: datetime) -> list[tuple[str, int | None]]:
        clocks.keep("wallet.test", format_datetime(date, usegmt=True), ours, ours)
        with capture_logs() as lines:
            tell_of_clocks(states, [clocks, Clocks()])
        return [(line["event"], line.get("ahead")) for line in lines]

    hour = timedelta(hours=1)
    assert told(ours + timedelta(seconds=50)) == []
    assert told(ours + hour) == [("clock_differs", 3600)]
    assert told(ours + hour) == []
    assert told(ours) == [("clock_agrees", None)]
    assert told(ours - hour) == [("clock_differs", -3599)]
