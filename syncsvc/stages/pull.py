"""Pull: what changed in a CRM becomes what members should be, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from syncsvc.config import FirstRun
from syncsvc.errors import CursorError, OperatorError, StoppedError, SyncError
from syncsvc.model import Page
from syncsvc.remote.ahead import Ahead
from syncsvc.remote.connector import Connector
from syncsvc.rules.intake import ContactState, Intake, Reader
from syncsvc.state.intake import IntakeStore, Progress, Stored

Tell = Callable[[int, int | None], None]
"""Told after every page: contacts read so far, and how many are expected where that is known."""


TOGETHER = 2000
"""Contacts that are stored in one transaction: a commit for every hundred would cost more than their rows."""


@dataclass(slots=True)
class Pulled:
    """What reading a connector came to; `fallen` are members whose points in the CRM went down.

    `echoes` are records that came home with nothing new but what was written back to them. `partial` says
    that a sweep could not tell every record from the others.
    """

    read: int = 0
    changed: int = 0
    echoes: int = 0
    excluded: int = 0
    gone: int = 0
    fallen: int = 0
    cursor_lost: bool = False
    partial: bool = False
    refusals: list[tuple[str, str]] = field(default_factory=list)

    def add(self, intakes: list[Intake], stored: Stored) -> None:
        """Count a page."""
        self.read += len(intakes)
        self.changed += stored.changed
        self.echoes += stored.echoes
        self.excluded += sum(intake.state is ContactState.EXCLUDED for intake in intakes)
        self.gone += stored.gone
        self.fallen += stored.fallen
        self.refusals += stored.refusals


def reading(connector: Connector, cursor: str | None) -> Ahead[Page]:
    """Return the pages that a connector reads from a cursor on, each weighed by its contacts.

    None is asked for yet.
    """
    return Ahead(_pages(connector, cursor), _weight)


def _pages(connector: Connector, cursor: str | None) -> Iterator[Page]:
    yield from connector.changes(cursor)


def _weight(page: Page) -> int:
    return TOGETHER if page.whole else max(1, len(page.contacts))  # what follows may not be wanted


def sweep_begins(progress: Progress, mapping: str) -> str | None:
    """Return the cursor where a sweep goes on, as it was interrupted; None where it begins anew.

    One that began under another `mapping` does.
    """
    return progress.sweep_cursor if mapping == progress.mapping else None


def _together(
    pages: Ahead[Page], reader: Reader, stopping: Callable[[], bool], first: Page | None = None
) -> Iterator[tuple[list[Intake], Page]]:
    """Yield small pages put together, with the last of them, whose cursor is safe once all are stored.

    The page after them, as far as there is one, is on its way meanwhile. What was read before an error is
    yielded before the error is raised. Raises StoppedError between pages.
    """
    intakes: list[Intake] = []
    last: Page | None = None
    try:
        page = first or next(pages, None)
        while page is not None:
            intakes += reader.read_all(page.contacts)
            last = page
            if len(intakes) >= TOGETHER:
                pages.begin()
                yield intakes, page
                intakes, last = [], None
            if stopping():
                raise StoppedError("asked to stop between pages")
            page = next(pages, None)
    except SyncError:
        if last is not None:
            yield intakes, last
        raise
    if last is not None:
        yield intakes, last


def pull(
    pages: Ahead[Page],
    connector_id: int,
    pulled: Pulled,
    *,
    reader: Reader,
    intake: IntakeStore,
    now: Callable[[], datetime],
    stopping: Callable[[], bool],
    tell: Tell,
) -> bool:
    """Store the pages of a poll, counted in `pulled`; each goes together with its cursor.

    Returns whether the poll would bring everything: nothing of it is stored, and a sweep is due. A cursor
    that is of no use any more is forgotten: the sweep that then is due reads everything again. Raises what
    the connector raises, with everything read before it stored, and StoppedError between pages.
    """
    try:
        first = next(pages, None)
        if first is None or first.whole:
            return first is not None
        for intakes, page in _together(pages, reader, stopping, first):
            pulled.add(intakes, intake.store_page(connector_id, intakes, cursor=page.cursor, now=now()))
            tell(pulled.read, page.expected)
    except CursorError:
        intake.forget_cursor(connector_id)
        pulled.cursor_lost = True
    return False


def sweep(
    pages: Ahead[Page],
    connector_id: int,
    pulled: Pulled,
    *,
    reader: Reader,
    intake: IntakeStore,
    first_run: FirstRun,
    mapping: str,
    now: Callable[[], datetime],
    stopping: Callable[[], bool],
    tell: Tell,
) -> bool:
    """Store every contact of a connector, counted in `pulled`; returns whether the sweep is complete.

    `pages` are those from where it goes on (`sweep_begins`), and it is left open. What it did not find is
    judged and buried by the caller. On the first complete read, `first_run` says what the points mean.
    Raises as `pull` does.
    """
    progress = intake.progress(connector_id)
    goes_on = sweep_begins(progress, mapping) is not None
    number = progress.sweep if goes_on else progress.sweep + 1
    adopting = first_run if progress.first_read else None
    known = intake.known_contacts(connector_id)
    brought = goes_on

    try:
        for intakes, page in _together(pages, reader, stopping):
            brought = True
            stored = intake.store_page(
                connector_id,
                intakes,
                cursor=page.cursor,
                now=now(),
                sweep=number,
                mapping=mapping,
                adopting=adopting,
            )
            pulled.add(intakes, stored)
            pulled.partial = page.partial
            tell(pulled.read, page.expected or known or None)
    except CursorError:
        intake.forget_cursor(connector_id)
        pulled.cursor_lost = True
        return False
    if not brought:
        raise OperatorError(
            "its read ended without a page, not even an empty one, which says nothing of what there is: "
            "the connector is at fault (`syncsvc.testing` finds such)"
        )
    return True
