"""One cycle of one organization: settle, pull, brakes, deliver, confirm, write back.

The cycle is level-triggered: the state holds what each member should be and what is proven, and a cycle
closes the difference. Every step can be cut at any point and is resumed by the next cycle. Trouble with one
connector ends that connector's part; the others, and the delivery of what is known, go on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from syncsvc.departures import departure
from syncsvc.doubts import terms_of
from syncsvc.errors import StateError, StoppedError
from syncsvc.organization import Organization
from syncsvc.remote.calling import calling_for
from syncsvc.remote.retry import repeat
from syncsvc.round import Round
from syncsvc.rules.brakes import Allowed
from syncsvc.rules.settling import Reading
from syncsvc.stages.brakes import Brakes
from syncsvc.stages.confirm import read_log
from syncsvc.stages.deliver import Delivery, deliver
from syncsvc.stages.restore import take_on
from syncsvc.stages.settle import settle_abandoned, settle_doubts
from syncsvc.state.codes import Lane
from syncsvc.state.database import to_ms
from syncsvc.state.outbox import Batch
from syncsvc.steps import Steps
from syncsvc.tally import Tally
from syncsvc.tidings import (
    Progress,
    no_progress,
    save_report,
    tell_of_batch,
    tell_of_brake,
    tell_of_late,
    tell_of_log,
    tell_of_outcome,
    tell_of_pauses,
    tell_of_recovery,
    tell_of_restored,
    tell_of_settled,
    tell_of_state,
    tell_of_stray,
)
from syncsvc.watch.log import bound, logger
from syncsvc.watch.report import CycleReport

log = logger()

_LOG_ATTEMPTS = 3


class Cycle:
    """One pass over one organization; used once."""

    def __init__(
        self,
        organization: Organization,
        *,
        stopping: Callable[[], bool] = lambda: False,
        progress: Progress = no_progress,
        full: bool = False,
        send: bool = True,
        plan: str | None = None,
    ) -> None:
        """Prepare a cycle; `full` sweeps everything now, without `send` it ends after the brakes.

        With the digest of a `plan`, it delivers exactly what that plan says, or nothing.
        """
        self.id = secrets.token_hex(6)
        self._organization = organization
        self._store = organization.store
        self._network = organization.network
        self._states = organization.states
        self._stopping = stopping
        self._progress = progress
        self._full = full
        self._send = send
        self._plan = plan
        self._brakes = Brakes(
            organization.store.holds,
            organization.config.brakes,
            now=organization.network.now,
            tell=tell_of_brake,
        )
        self._tally = Tally(held_by=self._brakes.held_by)
        self._steps = Steps(self._tally, organization.states)
        self._log_read: bool | None = None  # before the delivery; None until it was tried
        self._requests = {name: it.network.requests for name, it in organization.connectors.items()}

    @property
    def at(self) -> str:
        """The stage that runs, and the connector it is about."""
        return self._steps.at

    def run(self) -> CycleReport:
        """Do everything that can be done now, and say what it came to. Never raises for passing trouble."""
        started, clock = self._network.now(), time.monotonic()
        with bound(organization=self._organization.config.name, cycle=self.id), calling_for(self.id):
            try:
                self._run()
                self._keep_allowances()
            except StoppedError:
                self._tally.stopped = True
            except StateError as error:
                self._tally.note("state", error)
                tell_of_state(self._states, error)
            else:
                tell_of_recovery(self._states, "state", "")
            report = self._report(time.monotonic() - clock)
            times, did = (to_ms(started), to_ms(self._network.now())), self._tally.did_something
            save_report(self._store.reports, self._states, report, times, did_something=did, tells=self._send)
            if self._send:
                tell_of_outcome(self._states, report)
            log.info("cycle_finished", **report.facts())
        return report

    def _run(self) -> None:
        if self._send:  # else it is a plan: somebody who looks at what would be done
            pauses = self._store.pauses.open()
            self._tally.paused = {it.connector for it in pauses}
            tell_of_pauses(self._organization.states, pauses, self._organization.connectors)
        if None in self._tally.paused:
            return
        with self._steps.stage("settle"):
            self._settle()
        connectors = Round(
            self._organization,
            [it for it in self._organization.connectors.values() if it.name not in self._tally.paused],
            brakes=self._brakes,
            steps=self._steps,
            tally=self._tally,
            stopping=self._stopping,
            progress=self._progress,
            full=self._full,
        )
        connectors.read()
        if self._store.restoration.put_back:
            with self._steps.stage("restore"):
                tell_of_restored(*take_on(self._store, self._tally.paused, now=self._network.now()))
                self._confirm()  # so that whoever looks sees what the log shows now
            return
        with self._steps.stage("brakes"):
            self._judge()
        if not self._send:
            return
        departs = False
        with self._steps.stage("plan"):
            departs = self._departs_from_plan()
        if not departs:
            with self._steps.stage("deliver"):
                self._deliver()
        with self._steps.stage("confirm"):
            self._confirm()
        connectors.write_back(self.allowed)

    def _settle(self) -> None:
        settlements, wallet = self._store.settlements, self._organization.config.wallet
        shared = self._organization.lease.shared  # then whoever sent them may only just have ended
        rows = settle_abandoned(
            settlements, settle_after=wallet.settle_after, now=self._network.now(), anew=shared
        )
        if rows:
            log.warning("batches_were_abandoned", rows=rows)
        if self._store.restoration.put_back:
            return  # its evidence is the log as it was before
        if self._send and self._store.settlements.in_doubt():
            self._read_logs()
            self._settle_doubts()

    def _settle_doubts(self) -> None:
        terms = terms_of(self._organization.config.wallet)
        settled = settle_doubts(self._store.settlements, terms, now=self._network.now)
        self._tally.settled.add(settled)
        tell_of_settled(settled)

    def _judge(self) -> None:
        # A plan is made without the log too: it shows the trouble, and sends nothing.
        self._brakes.judge_delivery(
            self._store.outbox,
            self._store.write_backs,
            changed=any(pulled.changed for pulled in self._tally.pulled.values()),
            read_log=lambda: self._look_at_log() or not self._send,
        )

    @property
    def allowed(self) -> Allowed:
        """What brakes let flow, once they were judged."""
        return self._brakes.allowed

    def _departs_from_plan(self) -> bool:
        """Return whether what would be sent is not what was planned."""
        if self._plan is None:
            return False
        digest = self._store.outbox.digest(self.allowed)
        if digest == self._plan:
            return False
        self._tally.degraded.append(
            f"nothing was sent: {departure(self._store, self._plan, digest, self.allowed)}"
        )
        return True

    def _deliver(self) -> None:
        outbox, wallet = self._store.outbox, self._organization.config.wallet
        if not outbox.brands_due():
            return
        lanes = [Lane.PROFILE]
        # Without the log nothing could be proven; profiles need no proof.
        if outbox.has_due(Lane.POINTS, self.allowed) and self._look_at_log():
            lanes.insert(0, Lane.POINTS)
        delivery = Delivery(
            cycle=self.id,
            batch_size=wallet.batch_size,
            allowed=self.allowed,
            lanes=lanes,
            settle_after=wallet.settle_after,
            now=self._network.now,
            stopping=self._stopping,
            sleep=self._network.sleep,
            read_log=self._read_logs,
            tell=self._tell_of_batch,
        )
        deliver(
            self._organization.wallet,
            outbox,
            self._store.settlements,
            self._store.confirmations,
            delivery,
            self._tally.delivered,
        )
        self._brakes.delivery_done(outbox)

    def _tell_of_batch(self, batch: Batch, reading: Reading) -> None:
        tell_of_batch(batch, reading)
        self._progress("deliver", batch.brand_id, self._tally.delivered.landed, None)

    def _confirm(self) -> None:
        schedule, confirmations = self._organization.config.schedule, self._store.confirmations
        doubts = self._store.settlements.in_doubt()
        overdue = confirmations.overdue(self._network.now() - schedule.log_every)
        if not (doubts or self._tally.delivered.sent or overdue):
            return
        self._read_logs()
        if doubts:
            self._settle_doubts()
        if self._tally.delivered.landed:
            confirmations.measure(self.id)

    def _look_at_log(self) -> bool:
        """Read the logs before anything is sent, once; returns whether they could be read."""
        if self._log_read is None:
            self._log_read = False
            with self._steps.noting("log"):
                self._read_logs()
                self._log_read = True
        return self._log_read

    def _read_logs(self) -> None:
        for brand_id in self._store.confirmations.brands():
            self._tally.moved += repeat(
                lambda brand_id=brand_id: read_log(  # type: ignore[misc]
                    self._organization.wallet,
                    self._store.confirmations,
                    brand_id,
                    now=self._network.now,
                    stopping=self._stopping,
                    strayed=tell_of_stray,
                    completeness=tell_of_log,
                    late=tell_of_late,
                ),
                network=self._network,
                attempts=_LOG_ATTEMPTS,
            )

    def _keep_allowances(self) -> None:
        for connector in self._organization.connectors.values():
            if connector.network.allowance is not None:
                self._store.allowances.keep(connector.id, connector.network.allowance)

    def _report(self, duration: float) -> CycleReport:
        return self._tally.report(
            self._organization.config.name,
            self.id,
            duration=duration,
            waiting=self._store.reports.waiting(),
            requests={
                name: it.network.requests - self._requests[name]
                for name, it in self._organization.connectors.items()
            },
            allowances={name: it.network.allowance for name, it in self._organization.connectors.items()},
        )
