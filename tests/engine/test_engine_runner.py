"""One organization's cycles in a service: never two at once, across changes of its file, stuck or not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from enginelab import LOG
from quicklab import QuickLab
from structlog.testing import capture_logs

from syncsvc.config import OrganizationConfig
from syncsvc.errors import ConfigurationError, StateError
from syncsvc.organization import Organization, open_organization
from syncsvc.runner import Runner
from syncsvc.sandbox.faults import Kind
from syncsvc.watch.metrics import Metrics

PATIENCE = 60.0


class Bench:
    """A runner over a lab, whose monotonic clock a test moves, and whose next cycle it can hold up."""

    def __init__(self, lab: QuickLab) -> None:
        self.lab = lab
        self.now = 0.0
        self.metrics = Metrics()
        self.opened: list[Organization] = []
        self.trouble: Exception | None = None
        self.stop = threading.Event()
        self.began, self.free = threading.Event(), threading.Event()
        lab.organization.close()
        self.runner = Runner(
            lab.organization.config,
            open_as=self.open,
            stopping=self.stop.is_set,
            watchers=self.metrics,
            turns=threading.Condition(),
            monotonic=lambda: self.now,
        )

    def open(self, config: OrganizationConfig) -> Organization:
        if self.trouble is not None:
            raise self.trouble
        types = {**self.lab.types, **self.lab.crms}
        self.opened.append(
            open_organization(config, self.lab.database, types=types, network=self.lab.network.branch())
        )
        self.lab.organization = self.opened[-1]
        return self.opened[-1]

    def config(self, **tables: Any) -> OrganizationConfig:
        former, self.lab.tables = self.lab.tables, {**self.lab.tables, **tables}
        try:
            return self.lab._config()
        finally:
            self.lab.tables = former

    @contextmanager
    def held_up(self) -> Iterator[None]:
        """Let a cycle begin in a thread, and hang in the CRM as long as the block lasts."""

        def hang() -> None:
            self.lab.crm.before = lambda: None
            self.began.set()
            assert self.free.wait(PATIENCE)

        self.lab.crm.before = hang
        thread = threading.Thread(target=self.runner.run)
        thread.start()
        assert self.began.wait(PATIENCE)
        try:
            yield
        finally:
            self.free.set()
            thread.join(PATIENCE)
            assert not thread.is_alive()

    def after(self, seconds: float) -> list[dict[str, Any]]:
        """Watch after so many seconds; returns what was logged."""
        self.now += seconds
        with capture_logs() as lines:
            self.runner.watch()
        return [dict(line) for line in lines]

    def gauge(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"syncsvc_{name}", {"organization": "acme"})


@pytest.fixture
def bench(quick: QuickLab) -> Bench:
    quick.crm.put("a", points=10)
    return Bench(quick)


def test_a_cycle_never_overlaps_itself(bench: Bench) -> None:
    with bench.held_up():
        assert bench.runner.running
        bench.runner.run()  # as the clock does when a cycle takes longer than its interval
        assert bench.lab.crm.asked == 1
    assert (bench.runner.running, bench.lab.awarded("a@example.org")) == (False, 10)
    assert bench.runner.health.facts(bench.now)["ready"]


def test_a_changed_file_waits_for_the_running_cycle_and_begins_one_at_once_after_it(bench: Bench) -> None:
    def come(_page: int) -> None:
        crm.between = lambda _: None
        crm.put("b", points=7)

    first, crm = bench.runner.config, bench.lab.crm
    crm.between = come
    with bench.held_up():
        bench.runner.renew(bench.config(wallet={"points": "off"}, schedule={"every": "2h"}))
        assert [it.config for it in bench.opened] == [first]
    assert [it.config.wallet.points.value for it in bench.opened] == ["add", "off"]
    assert bench.lab.awarded("a@example.org") == 10
    assert bench.lab.profile("b@example.org"), "it came with the second cycle"
    assert bench.lab.awarded("b@example.org") == 0
    assert bench.runner.health.is_ready(bench.now + 3 * 7200)


def test_a_configuration_that_the_state_refuses_leaves_the_former_at_work(bench: Bench) -> None:
    bench.runner.run()
    former, other = bench.runner.config, bench.config(name="acme2")
    bench.runner.renew(other)
    bench.trouble = ConfigurationError(["acme2: the state knows it as acme"])
    bench.lab.crm.put("b", points=7)
    bench.runner.run()
    assert bench.lab.awarded("b@example.org") == 7
    assert bench.runner.refused() == ("acme2: the state knows it as acme",)
    assert (bench.runner.refused(), bench.runner.config) == ((), former)


def test_a_configuration_that_cannot_be_opened_now_is_tried_again_before_every_cycle(bench: Bench) -> None:
    wanted = bench.config(schedule={"every": "2h"})
    bench.runner.renew(wanted)
    bench.trouble = StateError("the disk is full")
    with capture_logs() as lines:
        bench.runner.run()
    assert [it["reason"] for it in lines if it["event"] == "organization_not_renewed"] == ["the disk is full"]
    bench.trouble = None
    bench.runner.run()
    assert [it.config for it in bench.opened][1:] == [wanted]


def test_what_lasts_beyond_a_changed_file_is_told_once(bench: Bench) -> None:
    bench.lab.crm.put("b", email="nonsense")
    with capture_logs() as lines:
        for every in ("1h", "2h"):
            bench.runner.renew(bench.config(schedule={"every": every}))
            bench.runner.run()
    assert [it["was"] for it in lines if it["event"] == "organization_degraded"] == ["ok"]


def test_an_organization_that_is_taken_away_ends_its_cycle_first(bench: Bench) -> None:
    with bench.held_up():
        bench.runner.retire()
        assert (bench.runner.leaving, bench.runner.gone) == (True, False)
    assert bench.runner.gone
    assert bench.lab.awarded("a@example.org") == 10
    asked = bench.lab.crm.asked
    bench.runner.run()
    assert bench.lab.crm.asked == asked


def test_an_organization_that_comes_back_while_its_cycle_still_runs_does_not_overlap_it(bench: Bench) -> None:
    with bench.held_up():
        bench.runner.retire()
        bench.runner.renew(bench.config())
        bench.runner.run()
        assert bench.lab.crm.asked == 1
    assert not bench.runner.gone
    assert bench.lab.crm.asked == 2


def test_a_stuck_cycle_is_told_once_with_its_stage_and_again_when_it_moves(bench: Bench) -> None:
    assert bench.after(10_000) == []
    with bench.held_up():
        assert bench.after(0) == []
        assert bench.after(899) == []
        (line,) = bench.after(1)
        assert (line["event"], line["log_level"], line["stage"]) == ("cycle_stuck", "error", "pull crm")
        assert line["seconds"] == 900
        assert "restart" in line["remedy"]
        assert bench.after(1000) == []
        assert bench.gauge("cycle_stuck") == 1
        facts = bench.runner.health.facts(bench.now)
        assert (facts["ready"], facts["stuck_seconds"]) == (False, 1900)
        with capture_logs() as lines:
            bench.free.set()
            with bench.runner._turns:
                assert bench.runner._turns.wait_for(lambda: not bench.runner.running, PATIENCE)
    assert [it["seconds"] for it in lines if it["event"] == "cycle_moves_again"] == [1900]
    assert bench.gauge("cycle_stuck") == 0
    assert bench.runner.health.facts(bench.now)["ready"]


def test_a_long_cycle_that_makes_progress_is_not_stuck(open_quick: Callable[..., QuickLab]) -> None:
    bench = Bench(open_quick(schedule={"stuck_after": "10s"}))
    for number in range(300):
        bench.lab.crm.put(f"r{number:03}")
    bench.lab.crm.page_size = 50
    lines: list[dict[str, Any]] = []
    bench.lab.crm.between = lambda _: lines.extend(bench.after(9))
    bench.lab.fault(Kind.STATUS, LOG, status=500, times=2)
    bench.runner.run()
    assert bench.now >= 45
    assert lines == []


def test_a_pause_is_told_when_it_begins_and_ends_and_keeps_the_service_ready(bench: Bench) -> None:
    def said() -> list[tuple[str, str]]:
        with capture_logs() as lines:
            bench.runner.run()
        return [it["event"] for it in lines if it["event"].startswith("pause_")]

    pauses, now = bench.lab.store.pauses, bench.lab.clock.now()
    assert said() == []
    pauses.begin(None, by="ann", reason=None, now=now)
    pauses.begin("crm", by="ann", reason=None, now=now)
    assert said() == ["pause_began", "pause_began"]
    assert said() == []
    assert bench.metrics.registry.get_sample_value(
        "syncsvc_paused", {"organization": "acme", "connector": ""}
    )
    assert bench.runner.health.is_ready(bench.now + 10_000)
    pauses.end(None, by="bob", now=now)
    assert said() == ["pause_ended"]
    assert not bench.runner.health.is_ready(bench.now + 10_000)


def test_nothing_begins_once_the_service_stops(bench: Bench) -> None:
    bench.stop.set()
    bench.runner.run()
    assert bench.lab.crm.asked == 0
