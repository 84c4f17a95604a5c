"""Pull: what changed in a CRM becomes what members should be, page by page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from syncsvc.config import FirstRun
from syncsvc.errors import CursorError, StoppedError
from syncsvc.model import Page
from syncsvc.remote.connector import Connector
from syncsvc.rules.intake import ContactState, Intake, Reader
from syncsvc.state.intake import IntakeStore, Stored

Tell = Callable[[int, int | None], None]
"""Told after every page: contacts read so far, and how many are expected where that is known."""


@dataclass(slots=True)
class Pulled:
    """What reading a connector came to; `fallen` are members whose points in the CRM went down."""

    read: int = 0
    changed: int = 0
    excluded: int = 0
    refused: int = 0
    gone: int = 0
    fallen: int = 0
    cursor_lost: bool = False
    refusals: list[tuple[str, str]] = field(default_factory=list)

    def merge(self, other: Pulled) -> None:
        """Count what another read came to."""
        self.read += other.read
        self.changed += other.changed
        self.excluded += other.excluded
        self.refused += other.refused
        self.gone += other.gone
        self.fallen += other.fallen
        self.cursor_lost |= other.cursor_lost
        self.refusals += other.refusals

    def add(self, intakes: list[Intake], stored: Stored) -> None:
        """Count a page."""
        self.read += len(intakes)
        self.changed += stored.changed
        self.excluded += sum(intake.state is ContactState.EXCLUDED for intake in intakes)
        self.refused += stored.quarantined
        self.gone += stored.gone
        self.fallen += stored.fallen
        self.refusals += stored.refusals


def pull(
    connector: Connector,
    connector_id: int,
    *,
    reader: Reader,
    intake: IntakeStore,
    now: Callable[[], datetime],
    stopping: Callable[[], bool],
    tell: Tell,
) -> Pulled:
    """Store everything that changed since the cursor; every page is stored before the next one is asked for.

    A cursor that is of no use any more is forgotten: the sweep that then is due reads everything again.
    Raises what the connector raises, with everything read before it stored, and StoppedError between pages.
    """
    pulled = Pulled()
    cursor = intake.progress(connector_id).cursor
    if cursor is None:
        return pulled
    try:
        for page in connector.changes(cursor):
            intakes = [reader.read(contact) for contact in page.contacts]
            pulled.add(intakes, intake.store_page(connector_id, intakes, cursor=page.cursor, now=now()))
            tell(pulled.read, page.expected)
            if stopping():
                raise StoppedError("asked to stop between pages")
    except CursorError:
        intake.forget_cursor(connector_id)
        pulled.cursor_lost = True
    return pulled


def sweep(
    connector: Connector,
    connector_id: int,
    *,
    reader: Reader,
    intake: IntakeStore,
    first_run: FirstRun,
    now: Callable[[], datetime],
    stopping: Callable[[], bool],
    tell: Tell,
) -> Pulled:
    """Store every contact of a connector, going on where an interrupted sweep ended; it is left open.

    What it did not find is judged and buried by the caller. On the first complete read, `first_run` says
    what the contacts' points mean. Raises as `pull` does.
    """
    pulled = Pulled()
    progress = intake.progress(connector_id)
    number = progress.sweep if progress.sweep_cursor is not None else progress.sweep + 1
    adopting = first_run if progress.first_read else None
    known = intake.known_contacts(connector_id)

    def store(page: Page) -> None:
        intakes = [reader.read(contact) for contact in page.contacts]
        stored = intake.store_page(
            connector_id, intakes, cursor=page.cursor, now=now(), sweep=number, adopting=adopting
        )
        pulled.add(intakes, stored)
        tell(pulled.read, page.expected or known or None)

    try:
        for page in connector.changes(progress.sweep_cursor):
            store(page)
            if stopping():
                raise StoppedError("asked to stop between pages")
    except CursorError:
        intake.forget_cursor(connector_id)
        pulled.cursor_lost = True
    return pulled
