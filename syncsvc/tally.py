"""What a cycle has come to so far, and the report it ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from syncsvc.errors import OperatorError, SyncError
from syncsvc.model import Allowance, Written
from syncsvc.stages.deliver import Delivered
from syncsvc.stages.pull import Pulled
from syncsvc.stages.settle import Settled
from syncsvc.state.reports import Waiting
from syncsvc.traces import Span
from syncsvc.watch.report import ConnectorReport, CycleReport, Outcome


@dataclass(slots=True)
class Tally:
    """The counts of one cycle; `transient` and `degraded` are its errors, `held_by` the brakes that hold.

    `paused` are the connectors that a person paused, and None where it is the whole organization; `cut` are
    the stages that ended early.
    """

    pulled: dict[str, Pulled] = field(default_factory=dict)
    read_until: dict[str, datetime] = field(default_factory=dict)
    delivered: Delivered = field(default_factory=Delivered)
    settled: Settled = field(default_factory=Settled)
    written: Counter[Written] = field(default_factory=Counter)
    stages: dict[str, float] = field(default_factory=dict)
    moved: int = 0
    transient: list[str] = field(default_factory=list)
    degraded: list[str] = field(default_factory=list)
    held_by: list[str] = field(default_factory=list)
    paused: set[str | None] = field(default_factory=set)
    stopped: bool = False
    cut: set[str] = field(default_factory=set)

    def note(self, stage: str, error: SyncError, *, connector: str = "") -> None:
        """Count an error that ended a stage early."""
        self.cut.add(stage)
        told = f"{connector}: {error}" if connector else str(error)
        (self.degraded if isinstance(error, OperatorError) else self.transient).append(told)

    @contextmanager
    def telling(self, traced: Span) -> Iterator[None]:
        """Mark a span as failed where an error is noted inside."""
        before = len(self.transient) + len(self.degraded)
        yield
        if len(self.transient) + len(self.degraded) > before:
            traced.fail("cut short")

    @property
    def proven(self) -> bool:
        """Whether the loop is closed: everything was read, what was due delivered, the log read when due."""
        return not (self.stopped or None in self.paused or self.cut - {"write_back"})

    @property
    def did_something(self) -> bool:
        """Whether anything was read that is news, sent, settled, confirmed or written back."""
        settled = self.settled
        return bool(
            any(pulled.changed or pulled.gone for pulled in self.pulled.values())
            or self.delivered.sent
            or self.written
            or self.moved
            or settled.landed + settled.refuted + settled.held + settled.skipped
        )

    def report(
        self,
        organization: str,
        cycle: str,
        *,
        duration: float,
        waiting: Waiting,
        requests: Mapping[str, int],
        allowances: Mapping[str, Allowance | None],
    ) -> CycleReport:
        """Return the report of a cycle that took `duration` seconds.

        `requests` are counted by connector, `allowances` are what each CRM told last.
        """
        pulled = self.pulled.values()
        changed = sum(it.changed for it in pulled)
        read = sum(it.read for it in pulled)
        return CycleReport(
            organization=organization,
            cycle=cycle,
            outcome=self._outcome(waiting),
            proven=self.proven,
            duration=duration,
            stages=self.stages,
            read=read,
            changed=changed,
            echoes=sum(it.echoes for it in pulled),
            excluded=sum(it.excluded for it in pulled),
            quarantined=waiting.quarantined,
            gone=sum(it.gone for it in pulled),
            rows_sent=self.delivered.sent.total(),
            rows_landed=self.delivered.landed + self.settled.landed,
            rows_in_doubt=self.delivered.doubted,
            points_sent=self.delivered.points_sent,
            points_landed=self.delivered.points_landed + self.settled.points,
            in_doubt=waiting.in_doubt,
            held=waiting.held,
            points_paid_twice=waiting.points_paid_twice,
            written_back=self.written[Written.WRITTEN] + self.written[Written.MERGED],
            write_back_failed=self.written[Written.REFUSED] + self.written[Written.RETRY],
            paused=tuple(sorted(it for it in self.paused if it is not None)),
            braked=tuple(self.held_by),
            errors=tuple(dict.fromkeys([*self.transient, *self.degraded])),
            connectors={
                name: ConnectorReport(
                    read=it.read,
                    changed=it.changed,
                    requests=requests.get(name, 0),
                    read_until=self.read_until.get(name),
                    **_calls(allowances.get(name)),
                )
                for name, it in self.pulled.items()
            },
            lanes=self.delivered.sent,
            batches=self.delivered.batches,
        )

    def _outcome(self, waiting: Waiting) -> Outcome:
        if self.stopped:
            return Outcome.STOPPED
        if None in self.paused:
            return Outcome.PAUSED
        if self.transient:
            return Outcome.TRANSIENT
        waits = waiting.in_doubt + waiting.held + waiting.quarantined + waiting.points_paid_twice
        waits += len(self.paused)
        return Outcome.DEGRADED if self.degraded or self.held_by or waits else Outcome.OK


def _calls(allowance: Allowance | None) -> dict[str, int]:
    if allowance is None:
        return {}
    return {"calls_left": allowance.left, "calls_allowed": allowance.allowed}
