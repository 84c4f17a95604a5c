"""The steps of a cycle: each is timed and traced, and its trouble is noted, told, and ends nothing else."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from syncsvc.errors import OperatorError, TransientError
from syncsvc.tally import Tally
from syncsvc.tidings import tell_of_recovery, tell_of_trouble
from syncsvc.traces import span
from syncsvc.watch.states import UNREADABLE, States


class Steps:
    """The steps of one cycle; `at` names the one that runs, and the connector it is about."""

    def __init__(self, tally: Tally, states: States) -> None:
        """Count into `tally`, and tell what is news against `states`."""
        self.at = ""
        self._tally = tally
        self._states = states

    def name(self, stage: str, connector: str = "") -> None:
        """Let `at` name what runs, or is waited for, now."""
        self.at = f"{stage} {connector}".rstrip()

    @contextmanager
    def timed(self, stage: str, connector: str = "") -> Iterator[None]:
        """Count the time of a stage that comes to its end."""
        begun = time.monotonic()
        self.name(stage, connector)
        with span(stage, connector=connector) as traced, self._tally.telling(traced):
            yield
        spent = self._tally.stages.get(stage, 0.0)
        self._tally.stages[stage] = spent + time.monotonic() - begun

    @contextmanager
    def stage(self, name: str, connector: str = "") -> Iterator[None]:
        """Time a stage, noting its trouble."""
        with self.timed(name, connector), self.noting(name, connector):
            yield

    @contextmanager
    def noting(self, name: str, connector: str = "") -> Iterator[None]:
        """Let trouble end the block and no more; it is noted."""
        try:
            yield
        except (TransientError, OperatorError) as error:
            self._tally.note(name, error)
            tell_of_trouble(self._states, name, connector, error)
        else:
            if self._states.of(f"pull:{connector}") != UNREADABLE:  # else it was not even asked
                tell_of_recovery(self._states, name, connector)
