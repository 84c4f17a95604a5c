"""What the points of a page's contacts mean: mostly what they always mean, else see `FirstRead`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, select, tuple_

from syncsvc.config import FirstRun
from syncsvc.state.bulk import update_rows
from syncsvc.state.codes import FirstRead
from syncsvc.state.contacts import Known
from syncsvc.state.tables import CONTACT

_MEANS = update_rows(CONTACT, ("connector_id", "record_id"), ("first_read",))


_ADOPTED = (FirstRead.RUNNING, FirstRead.RESTORED)


class FirstReads:
    """What the points of the contacts of one page mean, and what they will.

    `running` says that the page is one of its connector's first read.
    """

    def __init__(
        self, before: Mapping[str, Known], merges: Mapping[str, str | None], *, adopting: FirstRun | None
    ) -> None:
        """Begin with the contacts as they were stored before, and what became of those that are gone.

        What is still to be adopted of a contact that was merged away is so of what its survivor is read with
        on the same page. `adopting` is set while the connector is read for the first time, and says whether
        its points are in the wallet already.
        """
        self.running = adopting is not None
        self._before = before
        self._new = FirstRead.PAST if adopting in {None, FirstRun.IMPORT} else FirstRead.RUNNING
        self._merged = {it for it, survivor in merges.items() if survivor is not None}
        self._handed: dict[str, int] = {}
        for record_id in self._merged:
            was = before.get(record_id)
            if was is not None and was.first_read != FirstRead.PAST and was.points != 0:
                survivor = record_id
                for _ in merges:  # as far as merges of merges lead, and never in a circle
                    survivor = merges.get(survivor) or survivor
                self._handed[survivor] = was.first_read

    def moved(self, record_ids: Collection[str]) -> None:
        """Remember that these came to their members, or others to them, since a state was put back."""
        self._handed |= dict.fromkeys(record_ids, FirstRead.MOVED)

    def of(self, record_id: str) -> int:
        """Return what the points of a contact mean as it is read now."""
        was = self._before.get(record_id)
        return self._handed.get(record_id) or (self._new if was is None else was.first_read)

    def after(self, record_id: str, *, owns: bool, none: bool = False) -> int:
        """Return what they mean from now on; `owns` says that it owns a member, so that they were adopted.

        There are `none` where its connector gives no points: they are adopted once it does.
        """
        means = self.of(record_id)
        if owns and none and means in _ADOPTED:
            return FirstRead.RESTORED
        adopted = owns and means != FirstRead.MOVED
        return FirstRead.PAST if adopted or record_id in self._merged else means

    def save(self, connection: Connection, connector_id: int, written: Collection[str]) -> None:
        """Write what the points of those mean that the page has not; it has `written` the others."""
        handed = [it for it, means in self._handed.items() if means == FirstRead.MOVED]
        known = [it for it in (*handed, *self._merged) if it in self._before and it not in written]
        _MEANS.run(connection, [(self.after(it, owns=False), connector_id, it) for it in known])


def adopted_later(connection: Connection, contacts: Collection[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return those of these contacts, of any connector, whose points are adopted when they are read next."""
    if not contacts:
        return set()
    key = tuple_(CONTACT.c.connector_id, CONTACT.c.record_id)
    adopts = CONTACT.c.first_read.in_(_ADOPTED)
    found = connection.execute(select(*key.clauses).where(key.in_(list(contacts)), adopts))
    return {(row.connector_id, row.record_id) for row in found}
