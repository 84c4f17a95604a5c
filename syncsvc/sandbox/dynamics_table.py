"""The contact table of the Dynamics simulator: rows, their versions, and what was deleted.

Every change takes the next version of the whole database when it is made, and shows when its transaction
commits, `commit_delay` later, as SQL Server's rowversion does.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from syncsvc.sandbox.clock import Clock
from syncsvc.sandbox.dynamics_columns import Column, own_columns, stamp
from syncsvc.sandbox.dynamics_knobs import DynamicsKnobs
from syncsvc.sandbox.dynamics_refusals import bad_payload, bad_query, not_there, unknown_column

ACTIVE, INACTIVE = 0, 1


@dataclass(frozen=True, slots=True)
class Row:
    """A contact as it stands: its values by the names that queries use, personal data outside the repr."""

    id: str
    version: int
    values: Mapping[str, Any] = field(repr=False)

    @property
    def merged(self) -> bool:
        """Whether the contact was merged away."""
        return bool(self.values["merged"])


class Table:
    """The contacts of one environment."""

    def __init__(self, *, clock: Clock, knobs: DynamicsKnobs, seed: int) -> None:
        """Begin empty; `seed` decides the ids."""
        self._clock = clock
        self._knobs = knobs
        self._random = random.Random(seed)
        self._rows: dict[str, Row] = {}
        self._deleted: dict[str, tuple[int, Row]] = {}
        self._pending: list[tuple[datetime, Row]] = []
        self._version = 1_000_000
        self.columns = {column.shown: column for column in own_columns()}

    # What is there.

    @property
    def version(self) -> int:
        """The last version taken; those of changes not yet committed may be left out (`token_waits`)."""
        self.settle()
        waiting = [row.version - 1 for _, row in self._pending] if self._knobs.token_waits else []
        return min([self._version, *waiting])

    def settle(self) -> None:
        """Let every transaction commit that is due."""
        due = [one for one in self._pending if one[0] <= self._clock.now()]
        for one in due:
            self._pending.remove(one)
            row = one[1]
            if row.id in self._rows and self._rows[row.id].version < row.version:
                self._rows[row.id] = row

    def rows(self) -> list[Row]:
        """Return every row that is committed, in no order."""
        self.settle()
        return list(self._rows.values())

    def changed_since(self, version: int) -> list[Row]:
        """Return the rows whose version is above one, in the order in which the server tells them."""
        found = [row for row in self.rows() if row.version > version]
        return sorted(found, key=lambda row: row.version) if self._knobs.by_version else by_id(found)

    def deleted_since(self, version: int) -> list[tuple[int, str]]:
        """Return the versions and ids of the deletions above a version, in order."""
        told = [(at, it) for it, (at, _) in self._deleted.items() if at > version]
        return sorted(one for one in told if self._knobs.ghosts or one[1] not in self._rows)

    def find(self, record_id: str) -> Row | None:
        """Return a row, as it truly is for whoever writes it, or None."""
        self.settle()
        return self._rows.get(record_id)

    def needed(self, record_id: str) -> Row:
        """Return a row; raises the 404 where there is none."""
        row = self.find(record_id)
        if row is None:
            raise not_there(record_id)
        return row

    def selected(self, names: Iterable[str]) -> list[Column]:
        """Return readable columns by the names that queries use; raises the 400 for any other name."""
        found = []
        for name in names:
            column = self.columns.get(name)
            if column is None or not column.readable or column.of is not None:
                raise unknown_column(name)
            found.append(column)
        return found

    # What changes it.

    def define(self, column: Column) -> None:
        """Add a column, or replace the one of that name."""
        self.columns[column.shown] = column

    def drop(self, name: str) -> None:
        """Delete a column; raises KeyError where there is none."""
        del self.columns[name]

    def checked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return a body's values as they are stored; raises the Refusal for what the table does not take."""
        stored = {}
        for name, value in values.items():
            column = self.columns.get(name)
            if column is None or name.startswith("_"):
                told = f"Invalid property '{name}' was found in entity 'Microsoft.Dynamics.CRM.contact'."
                raise bad_payload(told)
            if column.updatable:
                stored[name] = column.checked(value, empty_is_null=self._knobs.empty_is_null)
            elif self._knobs.read_only_refused:
                raise bad_payload(f"The property '{name}' cannot be updated.")
        return stored

    def create(self, values: Mapping[str, Any], *, record_id: str = "") -> Row:
        """Add an active contact, committed at once."""
        now = stamp(self._clock.now())
        empty = dict.fromkeys(self.columns)
        state = {"statecode": ACTIVE, "statuscode": 1, "merged": False, "createdon": now, "modifiedon": now}
        row_id = record_id or str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        row = Row(row_id, self.take(), {**empty, **state, **values})
        self._rows[row_id] = self._kept(row)
        return self._rows[row_id]

    def update(self, row: Row, values: Mapping[str, Any], *, late: bool = False) -> None:
        """Give a contact new values and the next version; a late change commits after `commit_delay`."""
        now = self._clock.now()
        newest = self._newest(row)
        changed = self._kept(Row(row.id, self.take(), {**newest.values, **values, "modifiedon": stamp(now)}))
        delay = self._knobs.commit_delay if late else 0.0
        if delay:
            self._pending.append((now + timedelta(seconds=delay), changed))
        else:
            self._rows[row.id] = changed

    def delete(self, row: Row) -> None:
        """Remove a contact, leaving what a delta link tells of it."""
        self._deleted[row.id] = (self.take(), self._newest(row))
        del self._rows[row.id]

    def restore(self, record_id: str) -> None:
        """Bring a deleted contact back under its id; raises KeyError where it was not deleted."""
        _, row = self._deleted[record_id]
        self._rows[record_id] = self._kept(replace(row, version=self.take()))

    def erase(self, record_id: str) -> None:
        """Remove a contact without a trace, as nothing in the documents does; for tests of sweeps."""
        del self._rows[record_id]

    def merge(self, target: Row, subordinate: Row, content: Mapping[str, Any]) -> None:
        """Deactivate the subordinate, which names the target as its master and fills what that lacks."""
        if target.id == subordinate.id:
            raise bad_query("Merge cannot be performed on master and sub-entities that are identical.")
        for name, row in (("master entity", target), ("sub-entity", subordinate)):
            if row.values["statecode"] != ACTIVE:
                raise bad_query(f"{name}:contact-{row.id} is deactive")
        lacking = {
            name: subordinate.values.get(name)
            for name, column in self.columns.items()
            if column.updatable and target.values.get(name) is None
        }
        self.update(target, {**lacking, **content})
        gone = {"statecode": INACTIVE, "statuscode": 2, "merged": True, "_masterid_value": target.id}
        self.update(subordinate, gone)

    def take(self) -> int:
        """Return the next version of the database: no two changes share one."""
        self._version += 1
        return self._version

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows in the order of their ids."""
        return iter(by_id(self.rows()))

    def _newest(self, row: Row) -> Row:
        waiting = [late for _, late in self._pending if late.id == row.id]
        return max([self._rows[row.id], *waiting], key=lambda one: one.version)

    @staticmethod
    def _kept(row: Row) -> Row:
        name = " ".join(filter(None, (row.values["firstname"], row.values["lastname"])))
        own = {"contactid": row.id, "versionnumber": row.version, "fullname": name or None}
        return replace(row, values={**row.values, **own})


def by_id(rows: Iterable[Row]) -> list[Row]:
    """Return rows in the order of their ids."""
    return sorted(rows, key=lambda row: row.id)
