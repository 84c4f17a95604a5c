"""What was read of a CRM, and the ways in which the suite reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from syncsvc.model import Contact, Page
from syncsvc.remote.connector import Connector
from syncsvc.testing.maker import Maker

_RESTS = 6
"""Polls without news after which a cursor is at rest: half as long again as a change may be late."""


@dataclass(frozen=True)
class Read:
    """Pages of one read, or of several that followed each other."""

    maker: Maker
    pages: tuple[Page, ...]

    @property
    def cursor(self) -> str:
        """Where the next read goes on."""
        return self.pages[-1].cursor

    @property
    def latest(self) -> dict[str, Contact]:
        """The last that was read of each contact, by id."""
        return {contact.record_id: contact for page in self.pages for contact in page.contacts}

    @property
    def live(self) -> set[str]:
        """The ids of the contacts that were last read as not gone."""
        return {record_id for record_id, contact in self.latest.items() if not contact.gone}

    def value(self, record_id: str, name: str) -> object:
        """Return what was last read in a field, by the suite's name for it."""
        return self.latest[record_id].fields[{**self.maker.names, **self.maker.written}[name]]

    def __add__(self, later: Read) -> Read:
        """Return both reads as one."""
        return Read(self.maker, self.pages + later.pages)


def read(maker: Maker, cursor: str | None, connector: Connector | None = None) -> Read:
    """Read everything there is after a cursor, None = a sweep, with a new connector unless one is given."""
    return collected(maker, (connector or maker.connect()).changes(cursor))


def collected(maker: Maker, pages: Iterable[Page]) -> Read:
    """Return pages as one read; there is always at least one."""
    found = tuple(pages)
    assert found, "a read that ends has at least one page: its last cursor"
    assert all(isinstance(page.cursor, str) for page in found), "a cursor is plain text"
    return Read(maker, found)


def read_in_steps(maker: Maker, cursor: str | None) -> Read:
    """Read with a new connector for every page, as if the process died after storing each."""
    done = Read(maker, ())
    for _ in range(10_000):
        pages = maker.connect().changes(cursor)
        done += Read(maker, (next(pages),))
        cursor = done.cursor
        if next(pages, None) is None:
            return done
    raise AssertionError("reading on from each page's cursor never ends")


def by_threads(pages: Iterator[Page]) -> Iterator[Page]:
    """Yield pages, each of which a thread of its own has taken."""
    while True:
        with ThreadPoolExecutor(1) as thread:
            page = thread.submit(next, pages, None).result()
        if page is None:
            return
        yield page


def swept(maker: Maker) -> str:
    """Return the cursor after a sweep of everything."""
    return read(maker, None).cursor


def calm(maker: Maker, cursor: str) -> str:
    """Return the cursor of an account in which nothing has changed for long."""
    rests, connector = 0, maker.connect()
    for _ in range(60):
        maker.wait(maker.lag / 4)
        following = read(maker, cursor, connector).cursor
        rests = rests + 1 if following == cursor else 0
        if rests == _RESTS:
            return cursor
        cursor = following
    raise AssertionError("the cursor never comes to rest though nothing changes")
