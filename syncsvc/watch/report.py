"""What one cycle of one organization came to: the counts behind its log line and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a cycle ended."""

    OK = "ok"  # everything that was due is done
    DEGRADED = "degraded"  # done as far as possible; something waits for a person
    TRANSIENT = "transient"  # cut short by passing trouble; the next cycle resumes
    PAUSED = "paused"  # nothing was done: a person paused the organization
    STOPPED = "stopped"  # cut short because the process was asked to stop


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorReport:
    """What one connector brought to a cycle.

    `read_until` is an aware time: everything that changed in the CRM before it has been read and stored. None
    where no read was completed. `calls_left` of `calls_allowed` a day are what the CRM last told, None where
    it tells nothing.
    """

    read: int = 0
    changed: int = 0
    requests: int = 0
    calls_left: int | None = None
    calls_allowed: int | None = None
    read_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleReport:
    """What one cycle of one organization came to; ids, counts and seconds only, no personal data.

    Counts are of this cycle, save `quarantined`, `in_doubt`, `held` and `points_paid_twice`: those say how
    many contacts, rows, or points that may have been awarded twice there are when the cycle ends. `duration`
    and the values of `stages` are in seconds. `echoes` are contacts that were read with nothing new but what
    was written back to them. `paused` are connectors that a person paused, `errors` messages of the error
    tree.

    `proven` says that the loop is closed: every CRM that is not paused was read, what was due was delivered,
    and the import log was read when it was due. What waits for a person does not speak against it.

    `braked` are the brakes that hold something.

    `connectors` (by name), `lanes` (rows sent, by lane) and `batches` (batches settled, by outcome) break the
    totals down; what they leave out stays in the totals without a label.
    """

    organization: str
    cycle: str
    outcome: Outcome
    proven: bool = False
    duration: float = 0.0
    stages: Mapping[str, float] = field(default_factory=dict)
    read: int = 0
    changed: int = 0
    echoes: int = 0
    excluded: int = 0
    quarantined: int = 0
    gone: int = 0
    rows_sent: int = 0
    rows_landed: int = 0
    rows_in_doubt: int = 0
    points_sent: int = 0
    points_landed: int = 0
    in_doubt: int = 0
    held: int = 0
    points_paid_twice: int = 0
    written_back: int = 0
    write_back_failed: int = 0
    paused: tuple[str, ...] = ()
    braked: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    connectors: Mapping[str, ConnectorReport] = field(default_factory=dict)
    lanes: Mapping[str, int] = field(default_factory=dict)
    batches: Mapping[str, int] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return the fields of the log line `cycle_finished`: every count, zeros too; seconds to the ms."""
        facts = {part.name: getattr(self, part.name) for part in fields(self)}
        return facts | {
            "outcome": str(self.outcome),
            "duration": round(self.duration, 3),
            "stages": {stage: round(seconds, 3) for stage, seconds in self.stages.items()},
            "paused": list(self.paused),
            "braked": list(self.braked),
            "errors": list(self.errors),
            "connectors": {name: asdict(part) for name, part in self.connectors.items()},
            "lanes": dict(self.lanes),
            "batches": dict(self.batches),
        }


@dataclass(frozen=True, slots=True)
class Turn:
    """A cycle that ended `at`."""

    at: datetime
    report: CycleReport
