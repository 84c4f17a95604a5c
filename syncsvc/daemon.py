"""The service: cycles of every organization on schedule, health and metrics, and a clean stop.

APScheduler is the clock and nothing else: jobs never call it, since it holds its lock while it waits for jobs
to end. Every organization may run at the same time as all others, so that one which hangs delays nobody.
Where several services share a state, each runs those whose leases it holds, and speaks for them alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.triggers.interval import IntervalTrigger

from syncsvc.config import OrganizationConfig
from syncsvc.errors import ConfigurationError, HeldError, LeaseLostError, StateError
from syncsvc.organization import ConnectorTypes, open_organization
from syncsvc.overview import Overview
from syncsvc.remote.transport import USER_AGENT, Network
from syncsvc.roster import Changes, Roster
from syncsvc.rules.sharing import PATIENCE, Orphans, beyond, fair_share
from syncsvc.runner import Runner
from syncsvc.state.database import Database
from syncsvc.state.replicas import Holder
from syncsvc.state.store import register
from syncsvc.timetable import begin_of, first_run, rest_after, scheduler
from syncsvc.watch.health import HealthServer
from syncsvc.watch.log import logger
from syncsvc.watch.metrics import Metrics
from syncsvc.watch.states import WHOLE, States

log = logger()

GRACE_SECONDS = 25.0
"""How long running cycles may take to reach a safe point; containers kill after 30 s."""

_WATCH_SECONDS = 0.5
_GIVE_BACK_SECONDS = 2.0  # of the grace, for what is idle
_LOOKS = 3  # at how leases are spread, in the time that a lease lasts
_CLOCK_STEP = timedelta(seconds=30)


class Daemon:
    """Runs every organization of a roster until `stop` is set, and takes in what changes in its files."""

    def __init__(
        self, roster: Roster, *, types: ConnectorTypes, stop: threading.Event, state: str = ""
    ) -> None:
        """Open the state and every organization; nothing runs yet. The roster has begun.

        `state` is the URL of the state, where it was read already.

        Raises StateError, and ConfigurationError where none of the organizations can be opened.
        """
        self._roster = roster
        self._types = types
        self._stop = stop
        self._network = Network(ca_file=roster.service.ca_file, stop=stop)
        self._database = Database.open(state or roster.service.state_url, roster.service.lease)
        self._leases = self._database.leases
        self._metrics = Metrics(version=USER_AGENT.partition("/")[2])
        self._turns = threading.Condition()
        self._runners: dict[str, Runner] = {}
        self._broken: Mapping[str, bool] = {}  # organizations with a broken file, and whether they go on
        self._version: int | None = None  # of the roster, as it was last made true
        self._failed: dict[str, str] = {}  # what is tried again at the next look
        self._added: set[str] = set()  # what was told to have come
        self._ids: dict[str, int] = {}  # the row of each organization
        self._leaving: dict[str, bool] = {}  # who lets its organization go, and whether it lost it
        self._orphans = Orphans(PATIENCE * self._between_looks())
        self._states = States()
        self._spread_at = self._heard = 0.0
        self._others: Mapping[int, Holder] = {}  # who ran what elsewhere, at the last look
        self._scheduler = scheduler(len(roster.organizations))
        try:
            self._leases.serve()
            problems = [it for config in roster.organizations.values() for it in self._register(config)]
            self._added |= set(roster.organizations)
            problems += self._spread()
        except BaseException:
            self._database.close()
            raise
        if not roster.organizations:
            self._database.close()
            raise ConfigurationError(problems)

    def run(self) -> None:
        """Run until asked to stop; every cycle that was running has ended, or the process exits.

        Raises ConfigurationError where the address to listen on cannot be opened.
        """
        service = self._roster.service
        page = Overview(
            lambda: list(self._runners.values()),
            lambda: self.ready()[1],
            service.page_token,
            self.elsewhere,
        )
        health = HealthServer(service.listen, self._metrics, self.ready, page=page)
        health.start()
        self._scheduler.start()
        log.info("service_started", organizations=len(self._runners), port=health.port)
        self._tell(self._roster.news())
        self._watch()
        log.info("service_stopping", cycles=sum(it.running for it in self._runners.values()))
        self._scheduler.pause()
        self._give_back_idle()
        ended = self._wait_for_cycles()
        self._scheduler.shutdown(wait=False)
        health.stop()
        if not ended:  # its threads would keep the process; whatever they sent is durable and settled later
            log.warning("service_stopped_hard", waited=GRACE_SECONDS)
            os._exit(0)
        self._leases.close()  # all at once
        for runner in self._runners.values():
            runner.close()
        self._database.close()
        log.info("service_stopped")

    def look(self) -> None:
        """Make true what has changed in the files and among replicas: organizations come, change and go."""
        for runner in self._runners.values():
            if refused := runner.refused():
                self._roster.refuse(runner.name, refused, instead=runner.config)
        changes = self._roster.look()
        self._see_off()
        due = self._leases.shared and time.monotonic() - self._spread_at >= self._between_looks()
        leaving = any(runner.leaving for runner in self._runners.values())
        if self._roster.version == self._version and not (leaving or self._failed or due):
            return
        self._version = self._roster.version
        for name, config in self._roster.organizations.items():
            if name not in self._ids:
                self._register(config)
            if name not in self._runners or name in self._leaving:
                continue
            runner = self._runners[name]
            if runner.leaving or config != runner.config or name in changes.renewed:
                runner.renew(config)
                self._schedule(runner, datetime.now(UTC))
                log.info("organization_changed", organization=name, secrets=name in changes.renewed)
        for name in self._runners.keys() - self._roster.organizations.keys() - self._leaving.keys():
            self._let_go(self._runners[name])
        for name in self._ids.keys() - self._roster.organizations.keys() - self._runners.keys():
            del self._ids[name]
        self._spread()
        self._tell(changes)
        self._tell(self._roster.news())

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Return whether every organization that is run here delivers, and the facts of each.

        Where there is none, whether there could be: whether the state can be reached.
        """
        now, broken = time.monotonic(), self._broken
        here = [it for it in list(self._runners.values()) if it.name not in self._leaving]
        facts = {it.name: it.health.facts(now) for it in here}
        for name in broken:
            facts.setdefault(name, {"ready": broken[name], "outcome": None})["configuration"] = "broken"
        for name in list(self._failed):
            facts.setdefault(name, {"ready": False, "outcome": None})["state"] = "refused"
        return self._leases.alive() and all(it["ready"] for it in facts.values()), facts

    def elsewhere(self) -> Mapping[str, Holder | None]:
        """Return who ran each organization that is not run here, at the last look; None for nobody."""
        if not self._leases.shared:
            return {}
        ids = list(self._ids.items())
        return {name: self._others.get(number) for name, number in ids if name not in self._runners}

    def _between_looks(self) -> float:
        """Return the seconds between two looks at how leases are spread."""
        return self._roster.service.lease.total_seconds() / _LOOKS

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

    def _register(self, config: OrganizationConfig) -> Sequence[str]:
        """Learn the row of an organization; returns what keeps it from having one, told of its file."""
        try:
            self._ids[config.name] = register(self._database, config)
        except ConfigurationError as error:
            self._roster.refuse(config.name, error.problems)
            return error.problems
        except StateError as error:
            if self._version is None:
                raise
            self._not_added(config.name, error)
        return ()

    def _spread(self) -> Sequence[str]:
        """Take organizations that nobody runs, up to a fair share of all, and let go what is beyond it.

        Returns what keeps organizations from being opened.
        """
        organizations = self._roster.organizations
        try:
            spread = self._leases.spread()
        except StateError as error:
            if self._states.became("leases", "unknown"):
                log.error("leases_unknown", reason=str(error), remedy="it is looked again within seconds")
            return ()
        if self._states.became("leases", WHOLE):
            log.info("leases_known_again")
        now, self._others = time.monotonic(), spread.others
        self._spread_at = now
        for name in list(self._failed):
            if name not in organizations or self._ids.get(name) in spread.others:
                self._in_order(name)
        free = [
            name
            for name in organizations
            if name in self._ids and name not in self._runners and self._ids[name] not in spread.others
        ]
        orphans = self._orphans.look(free, self._runners, now=now)
        share, kept = fair_share(len(organizations), spread.replicas), self._orphans.kept
        counted = {
            it.name: it.running for it in self._runners.values() if not it.leaving and it.name not in kept
        }
        for name in beyond(share, counted):
            self._hand_over(self._runners[name], lost=False)
        room = max(0, share - len(counted))
        problems: list[str] = []
        taken: list[str] = []
        for name in free:
            if len(taken) >= room and name not in orphans:
                self._in_order(name)  # as far as is known
                continue
            problems += self._take(organizations[name], taken)
        self._orphans.keep((it for it in taken[room:] if it in orphans), now=now)
        for name in taken:
            runner = self._runners[name]
            every = runner.config.schedule.every
            self._schedule(runner, first_run(name, every, now=datetime.now(UTC), count=len(taken)))
        return problems

    def _take(self, config: OrganizationConfig, taken: list[str]) -> Sequence[str]:
        """Open an organization where nobody runs it, and count it among those `taken`."""
        name = config.name
        try:
            problems = self._open(config)
        except (HeldError, LeaseLostError):  # by another one who looked at the same time, or a command
            self._in_order(name)
            return ()
        except StateError as error:
            if self._version is None:
                raise
            self._not_added(name, error)
            return ()
        self._in_order(name)
        if problems:
            return problems
        taken.append(name)
        if name not in self._added:
            self._added.add(name)
            log.info("organization_added", organization=name)
        if self._leases.shared:
            log.info("lease_taken", organization=name, fence=self._runners[name].lease.fence)
        return ()

    def _not_added(self, name: str, error: StateError) -> None:
        if self._failed.get(name) != str(error):
            self._failed[name] = str(error)
            self._metrics.awaited(name)
            log.error("organization_not_added", organization=name, reason=str(error))

    def _in_order(self, name: str) -> None:
        """Take nothing for refused any more of an organization, which is run here or elsewhere."""
        if self._failed.pop(name, None) is not None:
            self._metrics.awaited(name, awaited=False)

    def _hand_over(self, runner: Runner, *, lost: bool) -> None:
        """Let another replica run an organization, once its running cycle has ended."""
        self._leaving[runner.name] = lost
        runner.retire()
        self._scheduler.remove_job(runner.name)
        if lost:
            log.warning("lease_lost", organization=runner.name, fence=runner.lease.fence)

    def _see_off(self) -> None:
        """Hand over what was lost, and end what was handed over and has ended its cycle."""
        for runner in self._runners.values():
            if runner.lease.lost and runner.name not in self._leaving and not runner.leaving:
                self._hand_over(runner, lost=True)
        for name in [it for it in self._leaving if self._runners[it].gone]:
            runner, lost = self._runners.pop(name), self._leaving.pop(name)
            runner.close()
            self._metrics.forget(name)
            if not lost:
                log.info("lease_given_back", organization=name, fence=runner.lease.fence)

    def _give_back_idle(self) -> None:
        """Let other replicas have at once what is idle, where something else keeps us waiting."""
        for runner in self._runners.values():
            runner.retire()
        idle = [it for it in self._runners.values() if it.gone]
        if len(idle) < len(self._runners):
            until = time.monotonic() + _GIVE_BACK_SECONDS  # where the state is silent they end by themselves
            for runner in idle:
                if time.monotonic() < until:
                    runner.lease.close()

    def _let_go(self, runner: Runner) -> None:
        """Let an organization go that is not configured any more, once its running cycle has ended."""
        if not runner.leaving:
            runner.retire()
            self._scheduler.remove_job(runner.name)
            log.info("organization_removed", organization=runner.name)
        if runner.gone:
            runner.close()
            del self._runners[runner.name]
            self._added.discard(runner.name)
            self._metrics.forget(runner.name)

    def _schedule(self, runner: Runner, first: datetime) -> None:
        every = runner.config.schedule.every
        begin = begin_of(runner.name, every)
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
        looked, self._heard, pause = steady, steady, rest_after(0.0)
        while not self._stop.wait(_WATCH_SECONDS):
            now = self._heard = time.monotonic()
            step = datetime.now(UTC) - wall - timedelta(seconds=now - steady)
            if step < -_CLOCK_STEP:  # jobs would wait until the old time comes round again
                log.warning("clock_was_set_back", seconds=round(-step.total_seconds()))
                for job in self._scheduler.get_jobs():
                    job.modify(next_run_time=datetime.now(UTC))
            if abs(step) > _CLOCK_STEP:
                wall, steady = datetime.now(UTC), now
            for runner in self._runners.values():
                runner.watch()
            if now - looked >= pause:
                self._look_on()
                looked = time.monotonic()
                pause = rest_after(looked - now)

    def _look_on(self) -> None:
        """Look; whatever goes wrong with that ends no cycle, and it is looked again."""
        try:
            self.look()
        except Exception as error:
            self._version = -1  # whatever was left is looked at again
            if self._states.became("look", type(error).__name__):
                log.exception("look_failed", remedy="cycles go on, and it is looked again within seconds")
        else:
            if self._states.became("look", WHOLE):
                log.info("look_recovered")

    def _wait_for_cycles(self) -> bool:
        with self._turns:
            left = GRACE_SECONDS - (time.monotonic() - self._heard)  # a look may have kept us from hearing
            return self._turns.wait_for(lambda: not any(it.running for it in self._runners.values()), left)
