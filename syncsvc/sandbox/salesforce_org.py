"""An org as it stands: its users, its tables, the writes on their way to a commit, and what was asked of it.

A row is what its last commit made it; `truth` is what its last write will. What may be done to an org stands
elsewhere: by other users in `salesforce`, over HTTP in `salesforce_api`.
"""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from syncsvc.sandbox.clock import Clock
from syncsvc.sandbox.salesforce_fields import STANDARD, stored
from syncsvc.sandbox.salesforce_knobs import SalesforceKnobs
from syncsvc.sandbox.salesforce_persons import mirrored
from syncsvc.sandbox.salesforce_tables import Field, Row, Table, Value, long_id, stamp

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Write:
    """A write that came through the API: what was asked for, with the results in the same order.

    `records` hold the fields with "type" and "id"; values stay out of the repr.
    """

    method: str
    route: str
    records: tuple[Mapping[str, Any], ...] = field(repr=False)
    headers: Mapping[str, str]
    results: tuple[Mapping[str, Any], ...] = field(repr=False)


@dataclass(slots=True)
class Session:
    """A token that was granted: when it was last used, and how often."""

    used: datetime
    calls: int = 0


class Org:
    """One org; whoever reads or changes it holds its `lock`."""

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        username: str,
        password: str,
        security_token: str,
        clock: Clock,
        seed: int,
        knobs: SalesforceKnobs,
    ) -> None:
        """Begin with the standard objects, empty, and without users; `seed` decides tokens and locks."""
        self.client_id = client_id
        self.client_secret = client_secret
        self.username = username
        self.password = password
        self.security_token = security_token
        self.clock = clock
        self.knobs = knobs
        self.has_persons = False
        self.public_key = ""  # PEM, of the certificate uploaded for the JWT flow
        self.instance_url = ""  # what a token's answer names; the address that was asked where empty
        self.requests: Counter[tuple[str, str]] = Counter()
        self.writes: list[Write] = []
        self.sessions: dict[str, Session] = {}
        self.jobs: dict[str, Any] = {}  # query jobs by id
        self.revoked = ""  # what every session is told from now on, where not empty
        self.restored: dict[str, dict[str, str]] = {name: {} for name in STANDARD}
        self.trimmed: dict[str, datetime] = {}  # since when the log of an object's deletions goes back
        self.purged: dict[str, dict[str, str]] = {name: {} for name in STANDARD}
        self.lock = threading.RLock()
        self.random = random.Random(seed)
        self.org_id = self.user_id = self.human_id = ""
        self._tables = {name.lower(): Table(name, *rest) for name, rest in STANDARD.items()}
        self._serial = itertools.count(1)
        self._queue: list[tuple[datetime, int, Table, Row]] = []
        self._pending: dict[str, list[tuple[datetime, Row]]] = {}

    @property
    def tables(self) -> list[Table]:
        """The objects of the org."""
        return list(self._tables.values())

    def table(self, name: str) -> Table | None:
        """Return the object of that name in any case, or None."""
        return self._tables.get(name.lower())

    def field(self, table: Table, name: str) -> Field | None:
        """Return the field of that name in any case, or None where it is absent or hidden from the API."""
        found = table.fields.get(name.lower())
        return None if found and f"{table.name}.{found.name}" in self.knobs.hidden else found

    def writable(self, table: Table, kind: Field) -> bool:
        """Return whether the API's user may write the field."""
        return kind.updateable and f"{table.name}.{kind.name}" not in self.knobs.read_only

    def visible(self, table: Table) -> list[Field]:
        """Return the fields that the API shows."""
        return [kind for kind in table.fields.values() if self.field(table, kind.name)]

    def values(self, table: Table, fields: Mapping[str, Any]) -> dict[str, Value]:
        """Return values as they are stored, by the fields' own names.

        Raises KeyError for a field that is not there, ApiError or CallError for a value that it cannot hold.
        """
        values = {}
        for name, given in fields.items():
            kind = table.fields[name.lower()]
            value = stored(kind, given.isoformat() if isinstance(given, date) else given)
            if self.knobs.lower_emails and kind.type == "email" and isinstance(value, str):
                value = value.lower()
            values[kind.name] = value
        return values

    def born(self, table: Table, values: Mapping[str, Value], when: str, user: str) -> dict[str, Any]:
        """Return a new row with an id of its own; it is stored nowhere yet."""
        born: dict[str, Any] = {"Id": self._new_id(table), "CreatedDate": when, "CreatedById": user}
        if "ownerid" in table.fields:
            born |= {"IsDeleted": False, "OwnerId": user}
        if self.has_persons and table.name == "Account" and values.get("LastName"):
            born |= {"IsPersonAccount": True, "PersonContactId": self._new_id(self._tables["contact"])}
        return modified(born, values, when, user)

    def _new_id(self, table: Table) -> str | None:
        number, text = next(self._serial), ""
        for _ in range(7):
            number, digit = divmod(number, len(_DIGITS))
            text = _DIGITS[digit] + text
        return long_id(f"{table.prefix}Sb000{text}")

    def truth(self, sobject: str, record_id: str) -> tuple[Table, Row]:
        """Return a row as it truly is, uncommitted writes included; raises KeyError where it is not."""
        table, key = self._tables[sobject.lower()], long_id(record_id) or record_id
        return table, self._pending[key][-1][1] if key in self._pending else table.rows[key]

    def awaits_commit(self, record_id: str) -> bool:
        """Return whether a write of the row has not committed."""
        return record_id in self._pending

    def uncommitted(self, table: Table) -> set[str]:
        """Return the ids of the object's rows with a write that has not committed."""
        return {key for key in self._pending if key.startswith(table.prefix)}

    def bump(
        self,
        sobject: str,
        record_id: str,
        fields: Mapping[str, Value],
        *,
        at: datetime | None = None,
        visible_after: float | None = None,
    ) -> None:
        """Change a row so that SystemModstamp moves alone; raises KeyError where it is not."""
        with self.lock:
            table, old = self.truth(sobject, record_id)
            when = at or self.clock.now()
            self.put(table, {**old, **fields, "SystemModstamp": stamp(when)}, when, visible_after)

    def put(self, table: Table, row: Row, when: datetime, visible_after: float | None) -> None:
        """Store a row `visible_after` seconds (None = the knob's) from `when`, behind its earlier writes.

        A person account's contact is stored with it.
        """
        self.settle()
        if contact := self._person_contact(row):
            self.put(self._tables["contact"], contact, when, visible_after)
        delay = self.knobs.commit_delay if visible_after is None else visible_after
        waiting = self._pending.get(row["Id"], [])
        due = max([when + timedelta(seconds=delay), *(due for due, _ in waiting)])
        if due <= self.clock.now():
            table.put(row)
        else:
            self._pending.setdefault(row["Id"], []).append((due, row))
            heapq.heappush(self._queue, (due, next(self._serial), table, row))

    def _person_contact(self, account: Row) -> Row | None:
        if not account.get("PersonContactId"):
            return None
        try:
            contact = self.truth("Contact", account["PersonContactId"])[1]
        except KeyError:
            contact = {}
        master = account.get("MasterRecordId")
        return mirrored(account, contact, self.truth("Account", master)[1] if master else None)

    def settle(self) -> datetime | None:
        """Commit what is due; return the time of the oldest DML that is still uncommitted, or None."""
        with self.lock:
            while self._queue and self._queue[0][0] <= self.clock.now():
                _, _, table, row = heapq.heappop(self._queue)
                table.put(row)
                waiting = self._pending[row["Id"]]
                del waiting[0]
                if not waiting:
                    del self._pending[row["Id"]]
            oldest = min((row["SystemModstamp"] for *_, row in self._queue), default=None)
            return datetime.fromisoformat(oldest) if oldest else None


def modified(old: Row, values: Mapping[str, Value], when: str, user: str) -> dict[str, Any]:
    """Return a row as a user's write leaves it: all its stamps move, even where the values are the same."""
    row = {**old, **values, "LastModifiedDate": when, "LastModifiedById": user, "SystemModstamp": when}
    if "LastName" in row and row.get("IsPersonAccount", True):
        row["Name"] = " ".join(filter(None, (row.get("FirstName"), row["LastName"]))) or None
    return row
