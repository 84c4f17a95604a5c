"""The service: cycles of every organization on schedule, health and metrics, and a clean stop.

APScheduler is the clock and nothing else: jobs never call it, since it holds its lock while it waits for jobs
to end. Every organization may run at the same time as all others, so that one which hangs delays nobody.
"""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from syncsvc.configfile import Installation
from syncsvc.cycle import Cycle, Progress
from syncsvc.errors import SyncError
from syncsvc.organization import ConnectorTypes, Organization, open_organization
from syncsvc.remote.transport import USER_AGENT, Network
from syncsvc.state.database import Database
from syncsvc.watch.health import HealthServer
from syncsvc.watch.log import bound, logger
from syncsvc.watch.metrics import Metrics
from syncsvc.watch.report import CycleReport, Outcome

log = logger()

GRACE_SECONDS = 25.0
"""How long running cycles may take to reach a safe point; containers kill after 30 s."""

AT_ONCE = 8
"""Up to so many organizations begin their first cycle at once; more of them spread it over `SPREAD`."""

SPREAD = timedelta(minutes=1)

_WATCH_SECONDS = 0.5
_CLOCK_STEP = timedelta(seconds=30)
_LATE_CYCLES = 3
_LATE_LEAST_SECONDS = 60.0
_PHASE_ORIGIN = datetime(2020, 1, 1, tzinfo=UTC)


def stop_on_signals(stop: threading.Event) -> None:
    """Let SIGTERM and SIGINT set `stop`; a second Ctrl-C ends the process at once."""

    def ask(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
        # By another thread: set() takes a lock that the very wait this handler interrupts may hold.
        threading.Thread(target=stop.set, name="stop", daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)


@dataclass(slots=True)
class Health:
    """What is known of an organization's cycles since the process started; times are monotonic seconds."""

    every: float
    last: CycleReport | None = None
    last_good: float | None = None

    def is_ready(self, now: float) -> bool:
        """Whether a cycle has reached every service lately."""
        if self.last_good is None:
            return False
        return now - self.last_good <= max(_LATE_LEAST_SECONDS, _LATE_CYCLES * self.every)

    def facts(self, now: float) -> dict[str, Any]:
        """Return what /readyz shows of an organization."""
        return {
            "ready": self.is_ready(now),
            "outcome": None if self.last is None else str(self.last.outcome),
            "last_good_seconds": None if self.last_good is None else round(now - self.last_good, 1),
        }


class Daemon:
    """Runs every organization of an installation until `stop` is set."""

    def __init__(self, installation: Installation, *, types: ConnectorTypes, stop: threading.Event) -> None:
        """Open the state and every organization; nothing runs yet. Raises StateError."""
        self._installation = installation
        self._stop = stop
        network = Network(ca_file=installation.service.ca_file, stop=stop)
        self._database = Database.open(installation.service.state)
        self._metrics = Metrics(version=USER_AGENT.partition("/")[2])
        self._organizations = [
            open_organization(config, self._database, types=types, network=network.branch())
            for config in installation.organizations
        ]
        self._health = {
            it.config.name: Health(it.config.schedule.every.total_seconds()) for it in self._organizations
        }
        self._running = 0
        self._changed = threading.Condition()

    def run(self) -> None:
        """Run until asked to stop; every cycle that was running has ended, or the process exits.

        Raises ConfigurationError where the address to listen on cannot be opened.
        """
        health = HealthServer(self._installation.service.listen, self._metrics, self._ready)
        health.start()
        scheduler = self._schedule()
        scheduler.start()
        log.info("service_started", organizations=len(self._organizations), port=health.port)
        self._watch(scheduler)
        log.info("service_stopping", cycles=self._running)
        scheduler.pause()
        ended = self._wait_for_cycles()
        scheduler.shutdown(wait=False)
        health.stop()
        if not ended:  # its threads would keep the process; whatever they sent is durable and settled later
            log.warning("service_stopped_hard", waited=GRACE_SECONDS)
            os._exit(0)
        for organization in self._organizations:
            organization.close()
        self._database.close()
        log.info("service_stopped")

    def _schedule(self) -> BackgroundScheduler:
        # A cycle longer than its interval is no fault, and the next one is simply skipped.
        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        count = len(self._organizations)
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(count)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        now = datetime.now(UTC)
        for organization in self._organizations:
            name, every = organization.config.name, organization.config.schedule.every
            origin = _PHASE_ORIGIN + phase(name, every)
            scheduler.add_job(
                self._job(organization),
                IntervalTrigger(seconds=every.total_seconds(), start_date=origin, timezone=UTC),
                id=name,
                next_run_time=first_run(name, every, now=now, count=count),
            )
        return scheduler

    def _job(self, organization: Organization) -> Callable[[], None]:
        def run() -> None:
            with self._changed:
                if self._stop.is_set():
                    return
                self._running += 1
            try:
                self._cycle(organization)
            finally:
                with self._changed:
                    self._running -= 1
                    self._changed.notify_all()

        return run

    def _cycle(self, organization: Organization) -> None:
        name = organization.config.name
        report = _attempt(name, Cycle(organization, stopping=self._stop.is_set).run)
        self._metrics.observe(report)
        health = self._health[name]
        if report.outcome in {Outcome.OK, Outcome.DEGRADED}:
            health.last_good = time.monotonic()
        health.last = report

    def _watch(self, scheduler: BackgroundScheduler) -> None:
        """Return when asked to stop; meanwhile run everything anew when the wall clock has been set back."""
        wall, steady = datetime.now(UTC), time.monotonic()
        while not self._stop.wait(_WATCH_SECONDS):
            passed = timedelta(seconds=time.monotonic() - steady)
            step = datetime.now(UTC) - wall - passed
            if step < -_CLOCK_STEP:  # jobs would wait until the old time comes round again
                log.warning("clock_was_set_back", seconds=round(-step.total_seconds()))
                for job in scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))
            if abs(step) > _CLOCK_STEP:
                wall, steady = datetime.now(UTC), time.monotonic()

    def _wait_for_cycles(self) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._running == 0, GRACE_SECONDS)

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        now = time.monotonic()
        return (
            all(health.is_ready(now) for health in self._health.values()),
            {name: health.facts(now) for name, health in self._health.items()},
        )


def run_once(
    installation: Installation,
    *,
    types: ConnectorTypes,
    progress: Progress,
    stop: threading.Event,
    full: bool = False,
    plan: str | None = None,
) -> list[CycleReport]:
    """Run one cycle of every organization, one after the other, and return what they came to.

    An organization whose turn did not come before `stop` was set is reported as stopped. Raises StateError
    where the state cannot be used.
    """
    reports = []
    network = Network(ca_file=installation.service.ca_file, stop=stop)
    with Database.open(installation.service.state) as database:
        for config in installation.organizations:
            if stop.is_set():
                reports.append(CycleReport(organization=config.name, cycle="", outcome=Outcome.STOPPED))
                continue
            with open_organization(config, database, types=types, network=network.branch()) as organization:
                cycle = Cycle(organization, stopping=stop.is_set, progress=progress, full=full, plan=plan)
                reports.append(_attempt(config.name, cycle.run))
    return reports


def _attempt(name: str, run: Callable[[], CycleReport]) -> CycleReport:
    """Return what a cycle came to.

    Whatever is wrong with one organization ends neither the others nor its own next try: a cycle that raises
    is reported as transient.
    """
    with bound(organization=name):
        try:
            return run()
        except SyncError as error:
            reason = str(error)
            log.error("cycle_failed", reason=reason)
        except Exception as error:
            reason = f"the cycle failed unexpectedly ({type(error).__name__}), see the log"
            log.exception("cycle_failed")
    return CycleReport(organization=name, cycle="", outcome=Outcome.TRANSIENT, errors=(reason,))


def first_run(name: str, every: timedelta, *, now: datetime, count: int) -> datetime:
    """Return when the first cycle of an organization begins, one of `count`.

    Few begin at once. Many would all ask for connections and memory in the same second, so they spread over
    a minute, or over one interval where that is shorter.
    """
    return now if count <= AT_ONCE else now + phase(name, min(every, SPREAD))


def phase(name: str, every: timedelta) -> timedelta:
    """Return where in its interval an organization's cycles begin: spread evenly, the same every time."""
    fraction = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") / 2**32
    return fraction * every
