"""The runner: the cycles of one organization in a service, never two at once.

That holds across changes of its file too. A cycle cannot be ended from outside: one that makes no progress
for too long is said to be stuck, and keeps none but its own organization waiting.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from syncsvc.alerts import Alerts
from syncsvc.config import OrganizationConfig
from syncsvc.cycle import Cycle
from syncsvc.errors import ConfigurationError, LeaseLostError, SyncError
from syncsvc.organization import Organization
from syncsvc.state.lease import Lease
from syncsvc.state.store import Store
from syncsvc.tidings import tell_of_clocks
from syncsvc.traces import span
from syncsvc.watch.log import bound, logger
from syncsvc.watch.report import CycleReport, Outcome, Turn
from syncsvc.watch.states import WHOLE

log = logger()

KEPT_TURNS = 60
"""How many cycles are remembered for the status page."""

_STUCK = "the running cycle makes no progress"
_LATE_CYCLES = 3
_LATE_LEAST_SECONDS = 60.0

Open = Callable[[OrganizationConfig], Organization]
"""Opens an organization for its cycles; raises what `open_organization` raises."""


class Watchers(Protocol):
    """Who is told of cycles; `Metrics` is one."""

    def observe(self, report: CycleReport) -> None:
        """Take in a cycle that has ended."""

    def stuck(self, organization: str, *, stuck: bool) -> None:
        """Take in whether the running cycle of an organization makes no progress."""


@dataclass(slots=True)
class Health:
    """What is known of an organization's cycles since the process started; times are monotonic seconds."""

    every: float
    born: float
    turns: deque[Turn] = field(
        default_factory=lambda: deque(maxlen=KEPT_TURNS)
    )  # the last cycles, oldest first
    last_proven: float | None = None
    stuck_since: float | None = None

    @property
    def late_after(self) -> float:
        """Seconds after which a loop that was proven is proven no more."""
        return max(_LATE_LEAST_SECONDS, _LATE_CYCLES * self.every)

    def is_ready(self, now: float) -> bool:
        """Whether a cycle has closed the loop lately, and none is stuck; or a person paused it."""
        if self.stuck_since is not None:
            return False
        if self.turns and self.turns[-1].report.outcome is Outcome.PAUSED:
            return True
        return self.last_proven is not None and now - self.last_proven <= self.late_after

    def is_silent(self, now: float) -> bool:
        """Whether no cycle has closed the loop for so long that people should know, or one is stuck."""
        since = self.born if self.last_proven is None else self.last_proven
        return self.stuck_since is not None or now - since > self.late_after

    def facts(self, now: float) -> dict[str, Any]:
        """Return what /readyz shows of an organization."""
        facts: dict[str, Any] = {
            "ready": self.is_ready(now),
            "outcome": str(self.turns[-1].report.outcome) if self.turns else None,
            "last_proven_seconds": None if self.last_proven is None else round(now - self.last_proven, 1),
            "late_after_seconds": self.late_after,
        }
        if self.stuck_since is not None:
            facts["stuck_seconds"] = round(now - self.stuck_since, 1)
        return facts


class Runner:
    """The cycles of one organization.

    `run` belongs to the threads of the service's clock, everything else to one thread that watches. `turns`
    is notified whenever a run ends.
    """

    def __init__(
        self,
        config: OrganizationConfig,
        *,
        open_as: Open,
        stopping: Callable[[], bool],
        watchers: Watchers,
        turns: threading.Condition,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the organization; raises what `open_as` raises."""
        self.name = config.name
        self._open_as = open_as
        self._stopping = stopping
        self._watchers = watchers
        self._turns = turns
        self._monotonic = monotonic
        self._organization = open_as(config)
        self._wanted: OrganizationConfig | None = None
        self._refused: tuple[str, ...] | None = None
        self._retired = False
        self._running = False
        self._cycle: Cycle | None = None
        self._pulse: tuple[object, ...] = ()
        self._moved_at = 0.0
        self._reached = 0  # the points at which a cycle could be stopped, by whichever thread of it
        self._watching = threading.Lock()
        self.health = Health(config.schedule.every.total_seconds(), monotonic())
        self._alerts = Alerts()

    @property
    def config(self) -> OrganizationConfig:
        """What the next cycle runs under."""
        return self._wanted or self._organization.config

    @property
    def store(self) -> Store:
        """The state of its organization."""
        return self._organization.store

    @property
    def lease(self) -> Lease:
        """Its right to run cycles."""
        return self._organization.lease

    @property
    def running(self) -> bool:
        """Whether a cycle is under way."""
        return self._running

    def renew(self, config: OrganizationConfig) -> None:
        """Let cycles run under this configuration, on connections of their own, from the next one on."""
        with self._turns:
            self._wanted, self._retired = config, False
            self.health.every = config.schedule.every.total_seconds()

    def retire(self) -> None:
        """Let no other cycle begin; `gone` is true once the running one has ended."""
        with self._turns:
            self._wanted, self._retired = None, True

    @property
    def leaving(self) -> bool:
        """Whether no other cycle begins."""
        return self._retired

    @property
    def gone(self) -> bool:
        """Whether it is retired and no cycle runs any more."""
        with self._turns:
            return self._retired and not self._running

    def refused(self) -> tuple[str, ...]:
        """Return, once, why the configuration that was wanted cannot be used; the former one stays."""
        with self._turns:
            refused, self._refused = self._refused, None
        return refused or ()

    def close(self) -> None:
        """Give back every connection, and the lease; no cycle runs."""
        self._organization.close()

    def run(self) -> None:
        """Run a cycle, and another where the configuration changed meanwhile; none where one is running."""
        with self._turns:
            if self._running or self._retired or self._stopping():
                return
            self._running = True
        again = True
        try:
            while again:
                tried = self._renew()
                self._run()
                with self._turns:
                    again = self._wanted not in (None, tried) and not self._stopping()
                    self._running = again
        finally:
            with self._turns:
                self._running = False
                self._turns.notify_all()

    def watch(self) -> None:
        """Take in whether the running cycle moves; tell, once, when it is stuck and when it moves again."""
        with self._watching:
            cycle, now = self._cycle, self._monotonic()
            if cycle is None:
                return
            pulse = (cycle.id, cycle.at, self._reached, _requests(self._organization))
            if pulse != self._pulse:
                self._pulse, self._moved_at = pulse, now
                self._moves(cycle, now)
            elif now - self._moved_at >= self._organization.config.schedule.stuck_after.total_seconds():
                self._sticks(cycle, now)

    def _run(self) -> None:
        cycle = Cycle(self._organization, stopping=self._at_safe_point)
        with self._watching:
            self._cycle, self._moved_at = cycle, self._monotonic()
        report = attempt(self._organization, cycle)
        with self._watching:
            self._cycle, now = None, self._monotonic()
            self._moves(cycle, now)
        self._watchers.observe(report)
        if report.proven:
            self.health.last_proven = now
        self.health.turns.append(Turn(self._organization.network.now(), report))
        self._tell(report, delivering=not self.health.is_silent(now))

    def _at_safe_point(self) -> bool:
        self._reached += 1
        return self._stopping() or self.lease.lost

    def _tell(self, report: CycleReport, *, delivering: bool) -> None:
        with bound(organization=self.name, cycle=report.cycle):
            try:
                self._alerts.look(self._organization, report, delivering=delivering)
            except LeaseLostError:
                log.debug("alert_left_to_another")
            except SyncError as error:
                log.error("alert_failed", reason=str(error), remedy="it is tried again after each cycle")

    def _sticks(self, cycle: Cycle, now: float) -> None:
        if self.health.stuck_since is not None:
            return
        self.health.stuck_since = self._moved_at
        self._watchers.stuck(self.name, stuck=True)
        with bound(organization=self.name, cycle=cycle.id):
            log.error(
                "cycle_stuck",
                stage=cycle.at,
                seconds=round(now - self._moved_at),
                remedy="look at what this stage asks; a restart is safe: what was sent is settled later",
            )
        report = CycleReport(
            organization=self.name, cycle=cycle.id, outcome=Outcome.TRANSIENT, errors=(_STUCK,)
        )
        # By a thread: whoever watches has others to watch.
        threading.Thread(
            target=self._tell, args=(report,), kwargs={"delivering": False}, name="alert", daemon=True
        ).start()

    def _moves(self, cycle: Cycle, now: float) -> None:
        if self.health.stuck_since is None:
            return
        seconds, self.health.stuck_since = round(now - self.health.stuck_since), None
        self._watchers.stuck(self.name, stuck=False)
        with bound(organization=self.name, cycle=cycle.id):
            log.info("cycle_moves_again", seconds=seconds)

    def _renew(self) -> OrganizationConfig | None:
        """Make the wanted configuration the one that runs, and return it; where it fails the former stays."""
        with self._turns:
            wanted = self._wanted
        if wanted is None:
            return None
        former, refused = self._organization, None
        try:
            # What was told of it holds on: only its changes are news.
            self._organization = replace(self._open_as(wanted), states=former.states)
        except ConfigurationError as error:
            refused = error.problems
        except SyncError as error:  # passing: it is tried again before the next cycle
            with bound(organization=self.name):
                log.error("organization_not_renewed", reason=str(error), remedy="it is tried again")
            return wanted
        else:
            former.close()
        with self._turns:
            self._refused = refused
            if self._wanted is wanted:
                self._wanted = None
        return wanted


def attempt(organization: Organization, cycle: Cycle) -> CycleReport:
    """Return what a cycle came to.

    Whatever is wrong with one organization ends neither the others nor its own next try: a cycle that raises
    is reported as transient, and told where the one before it did not end the same.
    """
    name, states = organization.config.name, organization.states
    with bound(organization=name, cycle=cycle.id), span("cycle", organization=name, cycle=cycle.id) as traced:
        try:
            report = cycle.run()
            traced.note(outcome=str(report.outcome), rows_sent=report.rows_sent, read=report.read)
            tell_of_clocks(states, organization.clocks)
            organization.store.retention.prune(organization.network.now())
        except LeaseLostError:
            return CycleReport(organization=name, cycle=cycle.id, outcome=Outcome.STOPPED)
        except SyncError as error:
            reason = str(error)
            if states.became("cycle", reason):
                log.error("cycle_failed", reason=reason)
        except Exception as error:
            reason = f"the cycle failed unexpectedly ({type(error).__name__}), see the log"
            if states.became("cycle", reason):
                log.exception("cycle_failed", reason=reason)
            traced.fail(type(error).__name__)
        else:
            if states.became("cycle", WHOLE):
                log.info("cycle_recovered")
            return report
    return CycleReport(organization=name, cycle=cycle.id, outcome=Outcome.TRANSIENT, errors=(reason,))


def _requests(organization: Organization) -> int:
    own = (it.network.requests for it in organization.connectors.values())
    return organization.network.requests + sum(own)
