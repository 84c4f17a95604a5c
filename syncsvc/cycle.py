"""One cycle of one organization: settle, pull, brakes, deliver, confirm, write back.

The cycle is level-triggered: the state holds what each member should be and what is proven, and a cycle
closes the difference. Every step can be cut at any point and is resumed by the next cycle. Trouble with one
connector ends that connector's part; the others, and the delivery of what is known, go on.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from syncsvc.departures import departure
from syncsvc.doubts import terms_of
from syncsvc.errors import OperatorError, StateError, StoppedError, TransientError
from syncsvc.model import Written
from syncsvc.organization import OpenConnector, Organization
from syncsvc.remote.calling import calling_for
from syncsvc.remote.retry import repeat
from syncsvc.rules.brakes import Allowed
from syncsvc.rules.settling import Reading
from syncsvc.stages.brakes import Brakes
from syncsvc.stages.confirm import read_log
from syncsvc.stages.deliver import Delivery, deliver
from syncsvc.stages.pull import Pulled, pull, sweep
from syncsvc.stages.restore import take_on
from syncsvc.stages.settle import settle_abandoned, settle_doubts
from syncsvc.stages.write_back import write_back
from syncsvc.state.codes import Lane
from syncsvc.state.database import to_ms
from syncsvc.state.outbox import Batch
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
    tell_of_reading,
    tell_of_recovery,
    tell_of_restored,
    tell_of_settled,
    tell_of_state,
    tell_of_stray,
    tell_of_sweep,
    tell_of_trouble,
)
from syncsvc.traces import span
from syncsvc.watch.log import bound, logger
from syncsvc.watch.report import CycleReport
from syncsvc.watch.states import UNREADABLE, WHOLE

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
        self.at = ""  # the stage that runs, and the connector it is about
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
        self._requests = {name: it.network.requests for name, it in organization.connectors.items()}

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
        with self._stage("settle"):
            self._settle()
        connectors = [
            it for it in self._organization.connectors.values() if it.name not in self._tally.paused
        ]
        for connector in connectors:
            with bound(connector=connector.name), self._timed("pull", connector.name):
                self._pull(connector)
        if self._store.restoration.put_back:
            with self._stage("restore"):
                tell_of_restored(*take_on(self._store, self._tally.paused, now=self._network.now()))
                self._confirm()  # so that whoever looks sees what the log shows now
            return
        with self._stage("brakes"):
            self._brakes.judge_delivery(self._store.outbox, self._store.write_backs)
        if not self._send:
            return
        departs = False
        with self._stage("plan"):
            departs = self._departs_from_plan()
        if not departs:
            with self._stage("deliver"):
                self._deliver()
        with self._stage("confirm"):
            self._confirm()
        for connector in connectors:
            with bound(connector=connector.name), self._stage("write_back", connector.name):
                self._write_back(connector)

    @contextmanager
    def _timed(self, stage: str, connector: str = "") -> Iterator[None]:
        """Count the time of a stage that comes to its end."""
        begun, self.at = time.monotonic(), f"{stage} {connector}".rstrip()
        with span(stage, connector=connector) as traced, self._tally.telling(traced):
            yield
        spent = self._tally.stages.get(stage, 0.0)
        self._tally.stages[stage] = spent + time.monotonic() - begun

    @contextmanager
    def _stage(self, name: str, connector: str = "") -> Iterator[None]:
        """Time a stage, noting its trouble."""
        with self._timed(name, connector), self._noting(name, connector):
            yield

    @contextmanager
    def _noting(self, name: str, connector: str = "") -> Iterator[None]:
        """Let trouble end the block and no more; it is noted."""
        try:
            yield
        except (TransientError, OperatorError) as error:
            self._tally.note(name, error)
            tell_of_trouble(self._states, name, connector, error)
        else:
            if self._states.of(f"pull:{connector}") != UNREADABLE:  # else it was not even asked
                tell_of_recovery(self._states, name, connector)

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

    def _pull(self, connector: OpenConnector) -> None:
        pulled = self._tally.pulled.setdefault(connector.name, Pulled())
        intake, began = self._store.intake, self._network.now()
        try:
            everything = pull(
                connector.connector,
                connector.id,
                pulled,
                reader=connector.reader,
                intake=intake,
                now=self._network.now,
                stopping=self._stopping,
                tell=lambda done, expected: self._progress("pull", connector.name, done, expected),
            )
            due = everything or self._sweep_due(connector)
            whole = not due or self._sweep(connector, pulled, polled=everything)
        except OperatorError as error:
            self._states.became(f"pull:{connector.name}", UNREADABLE)
            if intake.set_trouble(connector.id, str(error)):
                log.error("connector_unreadable", reason=str(error))
            self._tally.note("pull", error, connector=connector.name)
            return
        except TransientError as error:
            self._tally.note("pull", error, connector=connector.name)
            tell_of_trouble(self._states, "pull", connector.name, error)
            return
        finally:
            tell_of_reading(pulled)
        if whole:
            self._tally.read_until[connector.name] = began
        if intake.set_trouble(connector.id, None):
            self._states.became(f"pull:{connector.name}", WHOLE)
            log.info("connector_readable_again")
        tell_of_recovery(self._states, "pull", connector.name)

    def _sweep_due(self, connector: OpenConnector) -> bool:
        progress = self._store.intake.progress(connector.id)
        if progress.cursor is None or progress.sweep_cursor is not None or progress.swept_at is None:
            return True
        if self._full or progress.mapping != connector.mapping or progress.sweep < progress.sweep_asked:
            return True
        every = self._organization.config.schedule.sweep_every // timedelta(milliseconds=1)
        if to_ms(self._network.now()) - progress.swept_at >= every:
            return True
        return self._brakes.sweep_released(connector.name)

    def _sweep(self, connector: OpenConnector, pulled: Pulled, *, polled: bool) -> bool:
        """Read everything again, `polled` where a poll asks for it; returns whether that came to its end."""
        complete = sweep(
            connector.connector,
            connector.id,
            pulled,
            reader=connector.reader,
            intake=self._store.intake,
            first_run=self._organization.config.first_run,
            mapping=connector.mapping,
            now=self._network.now,
            stopping=self._stopping,
            tell=lambda done, expected: self._progress("sweep", connector.name, done, expected),
        )
        if not complete:
            return False
        missing, known = self._store.intake.missing(connector.id)
        partial = pulled.partial
        tell_of_sweep(self._states, connector.name, partial=partial, missing=missing)
        bury = self._brakes.judge_sweep(connector.name, known=known, missing=missing, partial=partial)
        pulled.gone += self._store.intake.finish_sweep(
            connector.id,
            mapping=connector.mapping,
            bury=bury,
            polled=polled,
            partial=missing if partial and not bury else None,
            now=self._network.now(),
        )
        return True

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
        if outbox.has_due(Lane.POINTS, self.allowed):
            with self._noting("log"):  # without the log nothing could be proven; profiles need no proof
                self._read_logs()
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

    def _write_back(self, connector: OpenConnector) -> None:
        if not connector.needs.write or self._store.intake.progress(connector.id).trouble:
            return
        outcomes = write_back(
            connector.connector,
            connector.id,
            fields=connector.needs.write,
            allowed=self.allowed,
            write_backs=self._store.write_backs,
            now=self._network.now,
            stopping=self._stopping,
        )
        self._tally.written += outcomes
        self._progress("write back", connector.name, outcomes.total(), None)
        if outcomes[Written.REFUSED]:
            log.warning("write_backs_refused", records=outcomes[Written.REFUSED])

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
