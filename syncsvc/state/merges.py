"""What one page of contacts tells of merges, as CRMs tell it: by who survives, or by who is gone."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from sqlalchemy import Connection, bindparam, select

from syncsvc.rules.intake import Intake
from syncsvc.state.contacts import GONE, Known
from syncsvc.state.database import as_list, one_of
from syncsvc.state.histories import INHERITANCE

_REMEMBERED = select(INHERITANCE.c.record_id).where(
    INHERITANCE.c.connector_id == bindparam("b_connector"), one_of(INHERITANCE.c.record_id, "b_records")
)


class Merges:
    """The contacts of a page by record id, and who of them or of others was merged into whom."""

    def __init__(self, rows: Sequence[Intake]) -> None:
        """Take a page; where a survivor tells a merge, it tells more than that the other is gone."""
        self.contacts = {row.record_id: row for row in rows}
        telling = [row for row in self.contacts.values() if row.merged_from or row.merged_into]
        for old in {it for row in telling for it in row.merged_from}:
            told = self.contacts.get(old)
            if told is not None and told.state is GONE and told.merged_into is None:
                del self.contacts[old]
        self._into = {row.record_id: row.merged_into for row in telling if row.merged_into}
        self._told = {
            old: row.record_id for row in telling for old in row.merged_from if old not in self.contacts
        }

    def named(self) -> list[str]:
        """Return every record that the page says anything of."""
        return [*self.contacts, *self._told, *self._into.values()]

    def absorbed(self, before: Mapping[str, Known], relays: Container[str]) -> dict[str, str]:
        """Return who is told gone by its survivor alone, with that: if known `before`, or of `relays`."""
        return {
            old: survivor
            for old, survivor in self._told.items()
            if old in relays
            or (old in before and (before[old].state != GONE or before[old].member_id is not None))
        }

    def heirs(self, absorbed: Mapping[str, str]) -> set[str]:
        """Return who inherits from others on this page."""
        return {*self._into.values(), *absorbed.values()}

    def relays(
        self, connection: Connection, connector_id: int, before: Mapping[str, Known], *, restored: bool
    ) -> set[str]:
        """Return the records that were never seen alive, were merged away, and have history to pass on.

        With `restored`, all that were never seen alive: a state that was put back may have forgotten it.
        """
        unseen = {*self._into, *self._told} - before.keys()
        if not unseen or restored:
            return unseen
        asked = {"b_connector": connector_id, "b_records": as_list(unseen)}
        return unseen & {*self._into.values(), *connection.scalars(_REMEMBERED, asked)}
