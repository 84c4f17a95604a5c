"""A Salesforce org as a strict state machine; `SalesforceSimulator.app` serves it, verbs act as other users.

Every write is stamped with the second of its DML and shows when its transaction commits, `commit_delay`
later; until then its row is locked. Writes through the API have committed when they are answered. What no
document settles is a knob. Facts are from the REST API Developer Guide and Salesforce Help of 2026 where no
other source stands beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from starlette.types import ASGIApp

from syncsvc.sandbox import salesforce_persons as persons
from syncsvc.sandbox.clock import Clock, RealClock
from syncsvc.sandbox.faults import FaultPlan, FaultyApp
from syncsvc.sandbox.salesforce_api import build_app
from syncsvc.sandbox.salesforce_knobs import SalesforceKnobs
from syncsvc.sandbox.salesforce_org import Org, Write, modified
from syncsvc.sandbox.salesforce_tables import TEXT, Field, stamp

__all__ = ["SalesforceKnobs", "SalesforceSimulator", "Write"]


class SalesforceSimulator(Org):
    """One org with its REST API; verbs are safe to call while it is served.

    Verbs take `at`, the time of their DML (now where it is not given), and `visible_after`, the seconds from
    then to the commit. They act as `human_id`, and raise KeyError for a record or field that is not there.
    """

    def __init__(
        self,
        *,
        client_id: str = "sandbox-client",
        client_secret: str = "sandbox-secret",  # noqa: S107 - the simulator's own, worth nothing elsewhere
        username: str = "sync@sandbox.example",
        password: str = "pw",  # noqa: S107 - the same
        security_token: str = "tok",  # noqa: S107 - the same
        clock: Clock | None = None,
        faults: FaultPlan | None = None,
        seed: int = 0,
        knobs: SalesforceKnobs | None = None,
    ) -> None:
        """Begin with empty objects and two users; `seed` decides tokens and locks."""
        super().__init__(
            client_id=client_id,
            client_secret=client_secret,
            username=username,
            password=password,
            security_token=security_token,
            clock=clock or RealClock(),
            seed=seed,
            knobs=knobs or SalesforceKnobs(),
        )
        self.faults = faults or FaultPlan(seed=seed)
        self.org_id = self.create(
            "Organization", {"Name": "Sandbox", "OrganizationType": "Enterprise Edition"}
        )
        self.human_id = self.create("User", {"Username": "human@sandbox.example", "IsActive": True})
        self.user_id = self.create("User", {"Username": username, "IsActive": True})
        self.app: ASGIApp = FaultyApp(build_app(self), self.faults, clock=self.clock)

    def define(
        self,
        sobject: str,
        name: str,
        type: str = "string",  # noqa: A002 - the vendor's word for it
        *,
        updateable: bool = True,
        calculated: bool = False,
        rolled_up: bool = False,
        length: int = 0,
        values: tuple[str, ...] | None = None,
    ) -> None:
        """Add a field to an object, or replace it; `type` is a describe's ("double", "datetime", ...).

        A field that is `calculated` is a formula, unless it is `rolled_up`; a picklist with `values` is a
        restricted one.
        """
        with self.lock:
            size = length or (255 if type in TEXT else 0)
            kind = Field(
                name,
                type,
                size,
                updateable=updateable and not calculated,
                calculated=calculated,
                rolled_up=rolled_up,
                values=values,
            )
            self._tables[sobject.lower()].fields[name.lower()] = kind
            if self.has_persons and sobject == "Contact" and (alias := persons.alias_of(kind)):
                self._tables["account"].fields[alias.name.lower()] = alias

    def enable_person_accounts(self) -> None:
        """Let accounts be persons: those that are created with a LastName. Cannot be turned off again."""
        with self.lock:
            self.has_persons = True
            persons.enable(self._tables["account"], self._tables["contact"])

    def create(
        self,
        sobject: str,
        fields: Mapping[str, Any],
        *,
        at: datetime | None = None,
        visible_after: float | None = None,
    ) -> str:
        """Create a record and return its id of 18 characters."""
        with self.lock:
            table, when = self._tables[sobject.lower()], at or self.clock.now()
            row = self.born(table, self.values(table, fields), stamp(when), self.human_id)
            self.put(table, row, when, visible_after)
            return str(row["Id"])

    def create_many(
        self, sobject: str, records: Iterable[Mapping[str, Any]], *, at: datetime | None = None
    ) -> list[str]:
        """Create many records with one stamp, committed at once, and return their ids in order."""
        with self.lock:
            table, when = self._tables[sobject.lower()], stamp(at or self.clock.now())
            rows = [self.born(table, self.values(table, fields), when, self.human_id) for fields in records]
            if self.has_persons and table.name == "Account":
                for row in rows:
                    self.put(table, row, datetime.fromisoformat(when), 0)
            else:
                table.extend(rows)
            return [row["Id"] for row in rows]

    def update(
        self,
        sobject: str,
        record_id: str,
        fields: Mapping[str, Any],
        *,
        at: datetime | None = None,
        visible_after: float | None = None,
    ) -> None:
        """Change a record; all its stamps move, even where the values are the same."""
        with self.lock:
            table, old = self.truth(sobject, record_id)
            when = at or self.clock.now()
            row = modified(old, self.values(table, fields), stamp(when), self.human_id)
            self.put(table, row, when, visible_after)

    def delete(
        self, sobject: str, record_id: str, *, at: datetime | None = None, visible_after: float | None = None
    ) -> None:
        """Put a record into the recycle bin; SystemModstamp moves."""
        self.bump(sobject, record_id, {"IsDeleted": True}, at=at, visible_after=visible_after)

    def undelete(
        self, sobject: str, record_id: str, *, at: datetime | None = None, visible_after: float | None = None
    ) -> None:
        """Take a record out of the recycle bin; SystemModstamp moves."""
        with self.lock:
            table, row = self.truth(sobject, record_id)
            if row["IsDeleted"]:
                self.restored[table.name][row["Id"]] = row["SystemModstamp"]
        self.bump(
            sobject,
            record_id,
            {"IsDeleted": False, "MasterRecordId": None},
            at=at,
            visible_after=visible_after,
        )

    def system_bump(
        self, sobject: str, record_id: str, *, at: datetime | None = None, visible_after: float | None = None
    ) -> None:
        """Move SystemModstamp alone, as automated processes do."""
        self.bump(sobject, record_id, {}, at=at, visible_after=visible_after)

    def merge(
        self,
        sobject: str,
        winner: str,
        loser: str,
        *,
        at: datetime | None = None,
        visible_after: float | None = None,
    ) -> None:
        """Delete the loser, which names the winner as its MasterRecordId, and touch the winner."""
        with self.lock:
            master = self.truth(sobject, winner)[1]["Id"]
            gone = {"IsDeleted": True, "MasterRecordId": master}
            self.bump(sobject, loser, gone, at=at, visible_after=visible_after)
            self.update(sobject, winner, {}, at=at, visible_after=visible_after)

    def purge(self, sobject: str, record_id: str) -> None:
        """Empty a deleted record out of the recycle bin: only /deleted still knows it."""
        with self.lock:
            self.settle()
            table, row = self.truth(sobject, record_id)
            if not row["IsDeleted"] or self.awaits_commit(row["Id"]):
                raise ValueError(f"{row['Id']} is not in the recycle bin")
            self.purged[table.name][row["Id"]] = table.remove(row["Id"])["SystemModstamp"]
            if contact := row.get("PersonContactId"):
                self.purge("Contact", contact)

    def trim_deletions(self, sobject: str) -> None:
        """Forget the log of an object's deletions, as an org with many of them does every two hours."""
        with self.lock:
            name = self._tables[sobject.lower()].name
            self.trimmed[name] = self.clock.now()
            self.purged[name].clear()
            self.restored[name].clear()

    def recalculate(self, sobject: str, record_id: str, fields: Mapping[str, Any]) -> None:
        """Change formula fields: no stamp moves."""
        with self.lock:
            table, old = self.truth(sobject, record_id)
            table.put({**old, **self.values(table, fields)})

    def convert_lead(self, record_id: str, *, at: datetime | None = None) -> str:
        """Convert a lead into an account and a contact, and return the contact's id."""
        with self.lock:
            lead, when = self.truth("Lead", record_id)[1], at or self.clock.now()
            names = ("FirstName", "LastName", "Email", "Phone", "MobilePhone", "HasOptedOutOfEmail")
            account = self.create("Account", {"Name": lead["Company"]}, at=when)
            carried = {name: lead.get(name) for name in names}
            contact = self.create("Contact", {**carried, "AccountId": account}, at=when)
            converted = {"ConvertedContactId": contact, "ConvertedAccountId": account, "IsConverted": True}
            self.update("Lead", record_id, {**converted, "ConvertedDate": stamp(when)[:10]}, at=when)
            return contact

    def record(self, sobject: str, record_id: str) -> dict[str, Any]:
        """Return a record as it truly is, uncommitted writes included; raises KeyError where it is not."""
        with self.lock:
            return dict(self.truth(sobject, record_id)[1])

    def records(self, sobject: str) -> Iterator[dict[str, Any]]:
        """Yield every record that is not deleted, as it truly is, in the order of ids."""
        with self.lock:
            table = self._tables[sobject.lower()]
            truth = [self.truth(sobject, key)[1] for key in sorted({*table.rows, *self.uncommitted(table)})]
        yield from (dict(row) for row in truth if not row.get("IsDeleted"))

    def expire_tokens(self) -> None:
        """End every session; new tokens are good."""
        with self.lock:
            self.sessions.clear()

    def revoke(self, message: str = "This session is not valid for use with the REST API") -> None:
        """Refuse every session from now on with INVALID_SESSION_ID, though tokens are still granted."""
        self.revoked = message
