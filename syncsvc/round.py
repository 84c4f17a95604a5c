"""A round over the connectors of a cycle: what changed in them is read, and what they should hold is written.

Trouble with one connector ends that connector's part; the others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

from syncsvc.errors import OperatorError, TransientError
from syncsvc.model import Page, Written
from syncsvc.organization import OpenConnector, Organization
from syncsvc.remote.ahead import Ahead
from syncsvc.rules.brakes import Allowed
from syncsvc.stages.brakes import Brakes
from syncsvc.stages.pull import TOGETHER, Pulled, pull, reading, sweep, sweep_begins
from syncsvc.stages.write_back import write_back
from syncsvc.state.database import to_ms
from syncsvc.steps import Steps
from syncsvc.tally import Tally
from syncsvc.tidings import Progress, tell_of_reading, tell_of_recovery, tell_of_sweep, tell_of_trouble
from syncsvc.traces import span
from syncsvc.watch.log import bound, logger
from syncsvc.watch.states import UNREADABLE, WHOLE

log = logger()

T = TypeVar("T")


class Round:
    """The connectors of one cycle, those that are paused left out."""

    def __init__(
        self,
        organization: Organization,
        connectors: Sequence[OpenConnector],
        *,
        brakes: Brakes,
        steps: Steps,
        tally: Tally,
        stopping: Callable[[], bool],
        progress: Progress,
        full: bool,
    ) -> None:
        """Go over `connectors`, which are in order of ownership; `full` sweeps all of them."""
        self._organization = organization
        self._connectors = connectors
        self._store = organization.store
        self._network = organization.network
        self._states = organization.states
        self._brakes = brakes
        self._steps = steps
        self._tally = tally
        self._stopping = stopping
        self._progress = progress
        self._full = full
        self._first_reads: set[int] = set()

    def read(self) -> None:
        """Store what changed in each connector, counted in the tally.

        All are asked at once, for as many contacts as are stored together, and stored in their order: of
        contacts that share an email, the first is the owner.
        """
        began = self._network.now()
        with self._at_once("pull", self._pages) as asked:
            for connector, pages in asked:
                with bound(connector=connector.name), self._steps.timed("pull", connector.name):
                    self._pull(connector, pages, began)

    def write_back(self, allowed: Allowed) -> None:
        """Write to all connectors at once what their records should hold; `allowed` is what may flow."""
        ended: list[Exception] = []
        with self._at_once("write_back", lambda it: (Ahead(self._write_back(it, allowed)), 1)) as writes:
            for connector, outcomes in writes:
                try:
                    with bound(connector=connector.name), self._steps.stage("write_back", connector.name):
                        for outcome in outcomes:
                            self._tell_of_written(connector, outcome)
                except Exception as error:  # noqa: BLE001 - raised once the others have told theirs
                    ended.append(error)
        if ended:
            raise ended[0]

    @contextmanager
    def _at_once(
        self, stage: str, ask: Callable[[OpenConnector], tuple[Ahead[T], int]]
    ) -> Iterator[Sequence[tuple[OpenConnector, Ahead[T]]]]:
        """Give what each connector is asked for; of several, as much as `ask` says is on its way."""
        with ExitStack() as asked:
            begun, weights = [], []
            for connector in self._connectors:
                ahead, weight = ask(connector)
                begun.append((connector, asked.enter_context(ahead)))
                weights.append(weight)
                asked.callback(self._steps.name, stage, connector.name)  # whose end is waited for then
            if len(begun) > 1:
                asked.enter_context(span(stage))  # what is asked for ahead is part of it
                for (connector, ahead), weight in zip(begun, weights, strict=True):
                    with bound(connector=connector.name):
                        ahead.begin(weight)
            yield begun

    def _pages(self, connector: OpenConnector) -> tuple[Ahead[Page], int]:
        """Return the pages of a connector's poll or first read, and how much of them may come ahead."""
        progress = self._store.intake.progress(connector.id)
        if progress.cursor is not None:
            return reading(connector.connector, progress.cursor), TOGETHER
        self._first_reads.add(connector.id)
        begins = sweep_begins(progress, connector.mapping)
        # One that was cut may hold open what it goes on in: not while others have their turn.
        return reading(connector.connector, begins), TOGETHER if begins is None else 0

    def _pull(self, connector: OpenConnector, pages: Ahead[Page], began: datetime) -> None:
        pulled = self._tally.pulled.setdefault(connector.name, Pulled())
        intake = self._store.intake
        try:
            whole = self._store_pages(connector, pages, pulled)
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

    def _store_pages(self, connector: OpenConnector, pages: Ahead[Page], pulled: Pulled) -> bool:
        """Store a poll, and sweep where that is due, or store a first read; returns whether all was read."""
        intake = self._store.intake
        with pages:
            if connector.id in self._first_reads:
                return self._sweep(connector, pages, pulled, polled=False)
            everything = pull(
                pages,
                connector.id,
                pulled,
                reader=connector.reader,
                intake=intake,
                now=self._network.now,
                stopping=self._stopping,
                tell=lambda done, expected: self._progress("pull", connector.name, done, expected),
            )
        if not everything and not self._sweep_due(connector):
            return True
        begins = sweep_begins(intake.progress(connector.id), connector.mapping)
        with reading(connector.connector, begins) as again:
            return self._sweep(connector, again, pulled, polled=everything)

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

    def _sweep(self, connector: OpenConnector, pages: Ahead[Page], pulled: Pulled, *, polled: bool) -> bool:
        """Store everything, `polled` where a poll asks for it; returns whether that came to its end."""
        complete = sweep(
            pages,
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

    def _write_back(self, connector: OpenConnector, allowed: Allowed) -> Iterator[Counter[Written]]:
        """Yield what the writing came to, once it is done."""
        if not connector.needs.write or self._store.intake.progress(connector.id).trouble:
            return
        yield write_back(
            connector.connector,
            connector.id,
            fields=connector.needs.write,
            allowed=allowed,
            write_backs=self._store.write_backs,
            now=self._network.now,
            stopping=self._stopping,
        )

    def _tell_of_written(self, connector: OpenConnector, outcomes: Counter[Written]) -> None:
        self._tally.written += outcomes
        self._progress("write back", connector.name, outcomes.total(), None)
        if outcomes[Written.REFUSED]:
            log.warning("write_backs_refused", records=outcomes[Written.REFUSED])
