"""The service: cycles of every organization on schedule, health and metrics, and a clean stop.

APScheduler is the clock and nothing else: jobs never call it, since it holds its lock while it waits for jobs
to end. Each organization keeps a phase of its own, the same after every restart, so that they spread.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from syncsvc.configfile import Installation
from syncsvc.cycle import Cycle, Progress, no_progress
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

_MOST_WORKERS = 32
_WATCH_SECONDS = 0.5
_CLOCK_STEP = timedelta(seconds=30)
_LATE_CYCLES = 3
_LATE_LEAST_SECONDS = 60.0
_PHASE_ORIGIN = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Health:
    """What is known of an organization's cycles since the process started; times are monotonic seconds."""

    every: float
    since: float
    last: CycleReport | None = None
    last_good: float | None = None

    def is_ready(self, now: float) -> bool:
        """Whether a cycle has reached every service lately."""
        if self.last_good is None:
            return False
        return now - self.last_good <= max(_LATE_LEAST_SECONDS, _LATE_CYCLES * self.every)


class Daemon:
    """Runs every organization of an installation until it is asked to stop."""

    def __init__(
        self, installation: Installation, *, types: ConnectorTypes, progress: Progress = no_progress
    ) -> None:
        """Open the state and every organization; nothing runs yet. Raises StateError."""
        self._installation = installation
        self._types = types
        self._progress = progress
        self._stop = threading.Event()
        self._network = Network(ca_file=installation.service.ca_file, stop=self._stop)
        self._database = Database.open(installation.service.state)
        self._metrics = Metrics(version=USER_AGENT.partition("/")[2])
        self._organizations = [
            open_organization(config, self._database, types=types, network=self._network.branch())
            for config in installation.organizations
        ]
        self._health = {
            it.config.name: Health(it.config.schedule.every.total_seconds(), time.monotonic())
            for it in self._organizations
        }
        self._running = 0
        self._running_lock = threading.Lock()

    def stop(self) -> None:
        """Ask for a stop: running cycles end at their next safe point. May be called by a signal handler."""
        self._stop.set()

    def run(self) -> None:
        """Run until asked to stop; every cycle that was running has ended, or the process exits.

        Raises ConfigurationError where the address to listen on cannot be opened.
        """
        health = HealthServer(self._installation.service.listen, self._metrics, self._ready)
        health.start()
        scheduler = self._schedule()
        scheduler.start()
        log.info("service_started", organizations=len(self._organizations), listen=health.port)
        self._watch(scheduler)
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
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": ThreadPoolExecutor(min(_MOST_WORKERS, len(self._organizations)))},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for organization in self._organizations:
            every = organization.config.schedule.every
            scheduler.add_job(
                self._job(organization),
                IntervalTrigger(
                    seconds=every.total_seconds(),
                    start_date=_PHASE_ORIGIN + _phase(organization.config.name, every),
                    timezone=UTC,
                ),
                id=organization.config.name,
                next_run_time=datetime.now(UTC),
            )
        return scheduler

    def _job(self, organization: Organization) -> Callable[[], None]:
        def run() -> None:
            if self._stop.is_set():
                return
            with self._running_lock:
                self._running += 1
            try:
                self._cycle(organization)
            finally:
                with self._running_lock:
                    self._running -= 1

        return run

    def _cycle(self, organization: Organization) -> None:
        name = organization.config.name
        try:
            cycle = Cycle(organization, stopping=self._stop.is_set, progress=self._progress)
            report = cycle.run()
        except Exception:
            # Whatever is wrong with one organization must not end the others, nor this one's next try.
            with bound(organization=name):
                log.exception("cycle_failed")
            return
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
        until = time.monotonic() + GRACE_SECONDS
        pause = threading.Event()
        while time.monotonic() < until:
            with self._running_lock:
                if self._running == 0:
                    return True
            pause.wait(0.05)
        return False

    def _ready(self) -> tuple[bool, dict[str, Any]]:
        now = time.monotonic()
        facts = {
            name: {
                "ready": health.is_ready(now),
                "outcome": None if health.last is None else str(health.last.outcome),
                "last_good_seconds": None if health.last_good is None else round(now - health.last_good, 1),
            }
            for name, health in self._health.items()
        }
        return all(health.is_ready(now) for health in self._health.values()), facts


def run_once(
    installation: Installation,
    *,
    types: ConnectorTypes,
    progress: Progress,
    full: bool = False,
    plan: str | None = None,
) -> list[CycleReport]:
    """Run one cycle of every organization, one after the other, and return what they came to.

    Raises StateError where the state cannot be used. An organization that fails is reported as transient.
    """
    reports = []
    network = Network(ca_file=installation.service.ca_file)
    with Database.open(installation.service.state) as database:
        for config in installation.organizations:
            with open_organization(config, database, types=types, network=network.branch()) as organization:
                try:
                    reports.append(Cycle(organization, progress=progress, full=full, plan=plan).run())
                except SyncError as error:
                    log.error("cycle_failed", organization=config.name, reason=str(error))
                    reports.append(
                        CycleReport(
                            organization=config.name,
                            cycle="",
                            outcome=Outcome.TRANSIENT,
                            errors=(str(error),),
                        )
                    )
    return reports


def _phase(name: str, every: timedelta) -> timedelta:
    """Return where in its interval an organization's cycles begin: spread evenly, the same every time."""
    fraction = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") / 2**32
    return fraction * every
