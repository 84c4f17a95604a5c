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
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from syncsvc.config import OrganizationConfig
from syncsvc.configfile import Installation
from syncsvc.cycle import Cycle, Progress
from syncsvc.errors import ConfigurationError, StateError
from syncsvc.organization import ConnectorTypes, open_organization
from syncsvc.overview import Overview
from syncsvc.remote.transport import USER_AGENT, Network
from syncsvc.roster import Changes, Roster
from syncsvc.runner import Runner, attempt
from syncsvc.state.database import Database
from syncsvc.watch.health import HealthServer
from syncsvc.watch.log import logger
from syncsvc.watch.metrics import Metrics
from syncsvc.watch.report import CycleReport, Outcome

log = logger()

GRACE_SECONDS = 25.0
"""How long running cycles may take to reach a safe point; containers kill after 30 s."""

AT_ONCE = 8
"""Up to so many organizations begin their first cycle at once; more of them spread it over `SPREAD`."""

SPREAD = timedelta(minutes=1)

_WATCH_SECONDS = 0.5
_LOOK_SECONDS = 1.0
_MOST_ORGANIZATIONS = 10_000  # threads that may run cycles; one is made when no other is idle
_CLOCK_STEP = timedelta(seconds=30)
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


class Daemon:
    """Runs every organization of a roster until `stop` is set, and takes in what changes in its files."""

    def __init__(self, roster: Roster, *, types: ConnectorTypes, stop: threading.Event) -> None:
        """Open the state and every organization; nothing runs yet. The roster has begun.

        Raises StateError, and ConfigurationError where none of the organizations can be opened.
        """
        self._roster = roster
        self._types = types
        self._stop = stop
        self._network = Network(ca_file=roster.service.ca_file, stop=stop)
        self._database = Database.open(roster.service.state_url)
        self._metrics = Metrics(version=USER_AGENT.partition("/")[2])
        self._turns = threading.Condition()
        self._runners: dict[str, Runner] = {}
        self._broken: Mapping[str, bool] = {}  # organizations with a broken file, and whether they go on
        self._version: int | None = None  # of the roster, as it was last made true
        self._failed: dict[str, str] = {}  # what is tried again at the next look
        self._scheduler = _scheduler(len(roster.organizations))
        problems = [it for config in roster.organizations.values() for it in self._open(config)]
        if not self._runners:
            self._database.close()
            raise ConfigurationError(problems)
        now, count = datetime.now(UTC), len(self._runners)
        for runner in self._runners.values():
            self._schedule(runner, first_run(runner.name, runner.config.schedule.every, now=now, count=count))

    def run(self) -> None:
        """Run until asked to stop; every cycle that was running has ended, or the process exits.

        Raises ConfigurationError where the address to listen on cannot be opened.
        """
        service = self._roster.service
        page = Overview(lambda: list(self._runners.values()), lambda: self.ready()[1], service.page_token)
        health = HealthServer(service.listen, self._metrics, self.ready, page=page)
        health.start()
        self._scheduler.start()
        log.info("service_started", organizations=len(self._runners), port=health.port)
        self._tell(self._roster.news())
        self._watch()
        log.info("service_stopping", cycles=sum(it.running for it in self._runners.values()))
        self._scheduler.pause()
        ended = self._wait_for_cycles()
        self._scheduler.shutdown(wait=False)
        health.stop()
        if not ended:  # its threads would keep the process; whatever they sent is durable and settled later
            log.warning("service_stopped_hard", waited=GRACE_SECONDS)
            os._exit(0)
        for runner in self._runners.values():
            runner.close()
        self._database.close()
        log.info("service_stopped")

    def look(self) -> None:
        """Make true what has changed in the files: organizations come, change and go."""
        for runner in self._runners.values():
            if refused := runner.refused():
                self._roster.refuse(runner.name, refused, instead=runner.config)
        changes = self._roster.look()
        leaving = any(runner.leaving for runner in self._runners.values())
        if self._roster.version == self._version and not (leaving or self._failed):
            return
        self._version = self._roster.version
        for name, config in self._roster.organizations.items():
            if name not in self._runners:
                self._add(config)
                continue
            runner = self._runners[name]
            if runner.leaving or config != runner.config or name in changes.renewed:
                runner.renew(config)
                self._schedule(runner, datetime.now(UTC))
                log.info("organization_changed", organization=name, secrets=name in changes.renewed)
        for name in self._runners.keys() - self._roster.organizations.keys():
            self._let_go(self._runners[name])
        self._tell(changes)
        self._tell(self._roster.news())

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether every organization delivers, and the facts of each."""
        now, broken = time.monotonic(), self._broken
        facts = {it.name: it.health.facts(now) for it in list(self._runners.values())}
        for name in broken:
            facts.setdefault(name, {"ready": broken[name], "outcome": None})["configuration"] = "broken"
        return all(it["ready"] for it in facts.values()), facts

    def _open(self, config: OrganizationConfig) -> Sequence[str]:
        """Open an organization; returns what keeps it from being opened, which is told of its file."""
        try:
            self._runners[config.name] = Runner(
                config,
                open_as=lambda it: open_organization(
                    it, self._database, types=self._types, network=self._network.branch()
                ),
                stopping=self._stop.is_set,
                watchers=self._metrics,
                turns=self._turns,
            )
        except ConfigurationError as error:
            self._roster.refuse(config.name, error.problems)
            return error.problems
        return ()

    def _add(self, config: OrganizationConfig) -> None:
        name = config.name
        try:
            refused = self._open(config)
        except StateError as error:
            if self._failed.get(name) != str(error):
                self._failed[name] = str(error)
                log.error("organization_not_added", organization=name, reason=str(error))
            return
        self._failed.pop(name, None)
        if not refused:
            self._schedule(self._runners[name], datetime.now(UTC))
            log.info("organization_added", organization=name)

    def _let_go(self, runner: Runner) -> None:
        """Let an organization go that is not configured any more, once its running cycle has ended."""
        if not runner.leaving:
            runner.retire()
            self._scheduler.remove_job(runner.name)
            log.info("organization_removed", organization=runner.name)
        if runner.gone:
            runner.close()
            del self._runners[runner.name]
            self._metrics.forget(runner.name)

    def _schedule(self, runner: Runner, first: datetime) -> None:
        every = runner.config.schedule.every
        begin = _PHASE_ORIGIN + phase(runner.name, every)
        self._scheduler.add_job(
            runner.run,
            IntervalTrigger(seconds=every.total_seconds(), start_date=begin, timezone=UTC),
            id=runner.name,
            next_run_time=first,
            replace_existing=True,
        )

    def _tell(self, changes: Changes) -> None:
        for path, it in changes.broken.items():
            goes_on = "until then it runs as it did" if it.kept else "until then it does not run"
            log.error(
                "configuration_broken",
                file=str(path),
                organization=it.organization,
                problems=list(it.problems),
                remedy=f"mend the file; {goes_on}",
            )
        for path, it in changes.mended.items():
            log.info("configuration_mended", file=str(path), organization=it.organization)
        if changes.service:
            log.warning("service_settings_changed", remedy="restart the service: they take effect then")
        if changes.broken or changes.mended:
            before, now = self._broken, self._roster.broken.values()
            self._broken = {it.organization: it.kept for it in now}
            for name in {*before, *self._broken}:
                self._metrics.broken(name, broken=name in self._broken)

    def _watch(self) -> None:
        """Return when asked to stop; meanwhile look after files, stuck cycles and the wall clock."""
        wall, steady = datetime.now(UTC), time.monotonic()
        looked = steady
        while not self._stop.wait(_WATCH_SECONDS):
            now = time.monotonic()
            step = datetime.now(UTC) - wall - timedelta(seconds=now - steady)
            if step < -_CLOCK_STEP:  # jobs would wait until the old time comes round again
                log.warning("clock_was_set_back", seconds=round(-step.total_seconds()))
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))
            if abs(step) > _CLOCK_STEP:
                wall, steady = datetime.now(UTC), now
            for runner in self._runners.values():
                runner.watch()
            if now - looked >= _LOOK_SECONDS:
                looked = now
                self.look()

    def _wait_for_cycles(self) -> bool:
        with self._turns:
            return self._turns.wait_for(
                lambda: not any(it.running for it in self._runners.values()), GRACE_SECONDS
            )


def _scheduler(count: int) -> BackgroundScheduler:
    # A cycle longer than its interval is no fault, and the next one is simply skipped.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    return BackgroundScheduler(
        timezone=UTC,
        executors={"default": ThreadPoolExecutor(max(count, _MOST_ORGANIZATIONS))},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
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
    with Database.open(installation.service.state_url) as database:
        for config in installation.organizations:
            if stop.is_set():
                reports.append(CycleReport(organization=config.name, cycle="", outcome=Outcome.STOPPED))
                continue
            with open_organization(config, database, types=types, network=network.branch()) as organization:
                cycle = Cycle(organization, stopping=stop.is_set, progress=progress, full=full, plan=plan)
                reports.append(attempt(organization, cycle))
    return reports


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
