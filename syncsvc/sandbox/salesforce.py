"""A Salesforce org as a strict state machine; `SalesforceSimulator.app` serves it, verbs act as other users.

Every write is stamped with the second of its DML and shows when its transaction commits, `commit_delay`
later; until then its row is locked. Writes through the API have committed when they are answered. What no
document settles is a knob. Facts are from the REST API Developer Guide and Salesforce Help of 2026 where no
other source stands beside them.
"""

from __future__ import annotations

import heapq
import itertools
import random
import re
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from starlette.types import ASGIApp

from syncsvc.sandbox.clock import Clock, RealClock
from syncsvc.sandbox.faults import FaultPlan, FaultyApp
from syncsvc.sandbox.salesforce_api import Item, Outcome, Session, build_app
from syncsvc.sandbox.soql import IDS, NUMBERS, TEXT, ApiError, Field, Row, Table, Value, long_id, stamp

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_EMAIL = re.compile(r"[^\s@,;<>()\"]+@[^\s@.,;<>()\"]+(?:\.[^\s@.,;<>()\"]+)+")
_DATETIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:?\d\d)")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_ASSIGNED = frozenset({"Lead", "Account"})


@dataclass(slots=True)
class SalesforceKnobs:
    """What the org is like, and what goes wrong inside it; may be changed while it serves.

    Fields are named as "Contact.Email", records by their 18-character id.
    """

    commit_delay: float = 0.0  # seconds from the DML of a verb to its commit
    page_size: int = 2000  # records a page has at most, whatever a request asks for
    live_pages: bool = True  # later pages show rows as they are by then, not as they were; undocumented
    locator_seconds: float = 172_800.0
    locator_limit: int = 10  # query results kept, the oldest thrown away; undocumented today
    token_calls: int | None = None  # requests that a token is good for
    token_seconds: float = 7200.0  # of idleness, after which a token is no longer good
    login_limit: int = 3600  # an hour
    grant_error: tuple[str, str] | None = None  # `error` and `error_description` of every token request
    password_grant: bool = False  # blocked in orgs made since Summer '23
    soap_login: bool = True  # off in orgs made since Summer '25
    approved: bool = True  # an administrator has approved the client for the user
    daily_requests: int = 100_000
    running_elsewhere: int = 0  # long requests of other clients, now
    concurrent_requests: int = 25
    app_usage: str = ""  # follows api-usage in Sforce-Limit-Info, such as "per-app-api-usage=1/5(appName=x)"
    may_view_setup: bool = True  # /limits needs it
    hidden: set[str] = field(default_factory=set)  # fields without read access
    read_only: set[str] = field(default_factory=set)  # fields without edit access
    locked: set[str] = field(default_factory=set)
    lock_chance: float = 0.0  # that a record is locked when written
    invalid: dict[str, tuple[str, ...]] = field(default_factory=dict)  # id: messages of failing rules
    poisoned: set[str] = field(default_factory=set)  # a trigger blows up on these, and fails their chunk
    trigger_edits: dict[str, dict[str, Any]] = field(default_factory=dict)  # object: fields set on API writes
    duplicate_rule: bool = False  # alerts where another record of the object has the same email
    assign_to: str = ""  # owner whom the active assignment rule names
    unknown_field_fails_call: bool = True  # else only its record of a collection; undocumented
    failed_items_name_id: bool = False  # undocumented
    lower_emails: bool = False  # undocumented


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


_ROLLED_BACK = (
    "Record rolled back because not all records were valid and the request was using AllOrNone header"
)


class CallError(ApiError):
    """An error of one record that fails the whole call it came with."""


def _texts(length: int, *names: str) -> list[Field]:
    return [Field(name, "string", length) for name in names]


def _fixed(kind: str, *names: str, parent: str = "") -> list[Field]:
    return [Field(name, kind, updateable=False, parent=parent) for name in names]


_SYSTEM = [
    *_fixed("id", "Id"),
    *_fixed("datetime", "CreatedDate", "LastModifiedDate", "SystemModstamp"),
    *_fixed("reference", "CreatedById", "LastModifiedById", parent="User"),
]
_OWNED = [
    *_SYSTEM,
    *_fixed("boolean", "IsDeleted"),
    *_fixed("date", "LastActivityDate"),
    Field("OwnerId", "reference", parent="User"),
    Field("Description", "textarea", 32_000),
]
_PERSON = [
    *_OWNED,
    Field("LastName", "string", 80, required=True),
    *_texts(40, "FirstName", "Salutation"),
    Field("Name", "string", 121, updateable=False),
    Field("Email", "email", 80),
    Field("Phone", "phone", 40),
    Field("MobilePhone", "phone", 40),
    Field("HasOptedOutOfEmail", "boolean"),
    Field("EmailBouncedDate", "datetime"),
]
_STANDARD: dict[str, tuple[str, list[Field]]] = {
    "Contact": (
        "003",
        [
            *_PERSON,
            *_fixed("reference", "MasterRecordId", parent="Contact"),
            Field("AccountId", "reference", parent="Account"),
            Field("Birthdate", "date"),
            *_texts(40, "MailingCity", "MailingCountry", "MailingPostalCode"),
        ],
    ),
    "Lead": (
        "00Q",
        [
            *_PERSON,
            *_fixed("reference", "MasterRecordId", parent="Lead"),
            Field("Company", "string", 255, required=True),
            Field("Status", "picklist", 255),
            *_fixed("boolean", "IsConverted"),
            *_fixed("date", "ConvertedDate"),
            *_fixed("reference", "ConvertedContactId", parent="Contact"),
            *_fixed("reference", "ConvertedAccountId", parent="Account"),
        ],
    ),
    "Account": (
        "001",
        [
            *_OWNED,
            *_fixed("reference", "MasterRecordId", parent="Account"),
            Field("Name", "string", 255, required=True),
            Field("Phone", "phone", 40),
            Field("Website", "url", 255),
        ],
    ),
    "User": ("005", [*_SYSTEM, *_texts(80, "Username", "Name", "Email"), Field("IsActive", "boolean")]),
    "Organization": (
        "00D",
        [*_SYSTEM, *_texts(80, "Name", "OrganizationType"), Field("IsSandbox", "boolean")],
    ),
}


def _unreadable(kind: str, value: object) -> CallError:
    token = "VALUE_STRING value " if isinstance(value, str) else "value "
    told = f"Cannot deserialize instance of {kind} from {token}{value} or request may be missing a required"
    return CallError(400, "JSON_PARSER_ERROR", f"{told} field at [line:1, column:2]")


def _from_text(kind: Field, text: str) -> Value:
    if kind.length and len(text) > kind.length:
        told = f"{kind.name}: data value too large: {text} (max length={kind.length})"
        raise ApiError(400, "STRING_TOO_LONG", told, fields=(kind.name,))
    if kind.type == "email" and not _EMAIL.fullmatch(text):
        told = f"{kind.name}: invalid email address: {text}"
        raise ApiError(400, "INVALID_EMAIL_ADDRESS", told, fields=(kind.name,))
    if kind.type in TEXT:
        return text
    if kind.type in IDS:
        full = long_id(text)
        if full is None:
            told = f"{kind.name}: id value of incorrect type: {text}"
            raise ApiError(400, "MALFORMED_ID", told, fields=(kind.name,))
        return full
    try:
        if kind.type == "datetime" and _DATETIME.fullmatch(text):
            return stamp(datetime.fromisoformat(text))
        if kind.type == "date" and _DATE.fullmatch(text):
            return date.fromisoformat(text).isoformat()
    except (ValueError, OverflowError):
        pass
    raise _unreadable(kind.type, text)


def _value(kind: Field, value: object) -> Value:
    """Return a value as it is stored; raises ApiError or CallError where the field cannot hold it."""
    if value is None or value == "":
        return kind.empty
    if isinstance(value, str):
        return _from_text(kind, value)
    if isinstance(value, bool):
        if kind.type == "boolean":
            return value
    elif isinstance(value, int | float) and kind.type in NUMBERS:
        if kind.type != "int":
            return float(value)
        if isinstance(value, int):
            return value
    raise _unreadable(kind.type, value)


class SalesforceSimulator:
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
        self.client_id = client_id
        self.client_secret = client_secret
        self.username = username
        self.password = password
        self.security_token = security_token
        self.clock = clock or RealClock()
        self.faults = faults or FaultPlan(seed=seed)
        self.knobs = knobs or SalesforceKnobs()
        self.public_key = ""  # PEM, of the certificate uploaded for the JWT flow
        self.instance_url = ""  # what a token's answer names; the address that was asked where empty
        self.requests: Counter[tuple[str, str]] = Counter()
        self.writes: list[Write] = []
        self.sessions: dict[str, Session] = {}
        self.revoked = ""  # what every session is told from now on, where not empty
        self.purged: dict[str, dict[str, str]] = {name: {} for name in _STANDARD}
        self.lock = threading.RLock()
        self.random = random.Random(seed)
        self._tables = {name.lower(): Table(name, *rest) for name, rest in _STANDARD.items()}
        self._serial = itertools.count(1)
        self._queue: list[tuple[datetime, int, Table, Row]] = []
        self._pending: dict[str, list[tuple[datetime, Row]]] = {}
        self.user_id = self.human_id = ""
        self.org_id = self.create(
            "Organization", {"Name": "Sandbox", "OrganizationType": "Enterprise Edition"}
        )
        self.human_id = self.create("User", {"Username": "human@sandbox.example", "IsActive": True})
        self.user_id = self.create("User", {"Username": username, "IsActive": True})
        self.app: ASGIApp = FaultyApp(build_app(self), self.faults)

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

    def define(
        self,
        sobject: str,
        name: str,
        type: str = "string",  # noqa: A002 - the vendor's word for it
        *,
        updateable: bool = True,
        calculated: bool = False,
        length: int = 0,
    ) -> None:
        """Add a field to an object, or replace it; `type` is a describe's ("double", "datetime", ...)."""
        with self.lock:
            size = length or (255 if type in TEXT else 0)
            kind = Field(name, type, size, updateable=updateable and not calculated, calculated=calculated)
            self._tables[sobject.lower()].fields[name.lower()] = kind

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
            row = self._new(table, self._values(table, fields), stamp(when), self.human_id)
            self._put(table, row, when, visible_after)
            return str(row["Id"])

    def create_many(
        self, sobject: str, records: Iterable[Mapping[str, Any]], *, at: datetime | None = None
    ) -> list[str]:
        """Create many records with one stamp, committed at once, and return their ids in order."""
        with self.lock:
            table, when = self._tables[sobject.lower()], stamp(at or self.clock.now())
            rows = [self._new(table, self._values(table, fields), when, self.human_id) for fields in records]
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
            table, old = self._found(sobject, record_id)
            when = at or self.clock.now()
            row = _modified(old, self._values(table, fields), stamp(when), self.human_id)
            self._put(table, row, when, visible_after)

    def delete(
        self, sobject: str, record_id: str, *, at: datetime | None = None, visible_after: float | None = None
    ) -> None:
        """Put a record into the recycle bin; SystemModstamp moves."""
        self._bump(sobject, record_id, {"IsDeleted": True}, at, visible_after)

    def undelete(
        self, sobject: str, record_id: str, *, at: datetime | None = None, visible_after: float | None = None
    ) -> None:
        """Take a record out of the recycle bin; SystemModstamp moves."""
        self._bump(sobject, record_id, {"IsDeleted": False, "MasterRecordId": None}, at, visible_after)

    def system_bump(
        self, sobject: str, record_id: str, *, at: datetime | None = None, visible_after: float | None = None
    ) -> None:
        """Move SystemModstamp alone, as automated processes do."""
        self._bump(sobject, record_id, {}, at, visible_after)

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
            master = self._found(sobject, winner)[1]["Id"]
            gone = {"IsDeleted": True, "MasterRecordId": master}
            self._bump(sobject, loser, gone, at, visible_after)
            self.update(sobject, winner, {}, at=at, visible_after=visible_after)

    def purge(self, sobject: str, record_id: str) -> None:
        """Empty a deleted record out of the recycle bin: only /deleted still knows it."""
        with self.lock:
            table, row = self._found(sobject, record_id)
            if not row["IsDeleted"] or row["Id"] in self._pending:
                raise ValueError(f"{row['Id']} is not in the recycle bin")
            self.purged[table.name][row["Id"]] = table.remove(row["Id"])["SystemModstamp"]

    def recalculate(self, sobject: str, record_id: str, fields: Mapping[str, Any]) -> None:
        """Change formula fields: no stamp moves."""
        with self.lock:
            table, old = self._found(sobject, record_id)
            table.put({**old, **self._values(table, fields)})

    def convert_lead(self, record_id: str, *, at: datetime | None = None) -> str:
        """Convert a lead into an account and a contact, and return the contact's id."""
        with self.lock:
            lead, when = self._found("Lead", record_id)[1], at or self.clock.now()
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
            return dict(self._found(sobject, record_id)[1])

    def records(self, sobject: str) -> Iterator[dict[str, Any]]:
        """Yield every record that is not deleted, as it truly is, in the order of ids."""
        with self.lock:
            table = self._tables[sobject.lower()]
            pending = {key for key in self._pending if key.startswith(table.prefix)}
            truth = [self._found(sobject, key)[1] for key in sorted({*table.rows, *pending})]
        yield from (dict(row) for row in truth if not row.get("IsDeleted"))

    def expire_tokens(self) -> None:
        """End every session; new tokens are good."""
        with self.lock:
            self.sessions.clear()

    def revoke(self, message: str = "This session is not valid for use with the REST API") -> None:
        """Refuse every session from now on with INVALID_SESSION_ID, though tokens are still granted."""
        self.revoked = message

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

    def save(
        self, items: Sequence[Item], *, create: bool, all_or_none: bool, allow_duplicates: bool, assign: bool
    ) -> list[Outcome]:
        """Carry out writes of the API's user, all of them new records or none.

        Returns for each its id, or the errors that refused it. Raises CallError where one fails all.
        """
        with self.lock:
            results: list[Row | list[ApiError]] = []
            taken: set[str] = set()
            for item in items:
                try:
                    row = self._written(item, taken, create=create)
                    results.append(
                        self._ruled(item[0], row, allow_duplicates=allow_duplicates, assign=assign)
                    )
                except CallError:
                    raise
                except ApiError as error:
                    results.append([error])
            self._run_triggers([table for table, _, _ in items], results)
            if all_or_none and any(isinstance(result, list) for result in results):
                undone = [ApiError(400, "ALL_OR_NONE_OPERATION_ROLLED_BACK", _ROLLED_BACK, fields=())]
                results = [result if isinstance(result, list) else undone for result in results]
            for (table, _, _), result in zip(items, results, strict=True):
                if not isinstance(result, list):
                    table.put(result)
            return [result if isinstance(result, list) else result["Id"] for result in results]

    def note_write(
        self,
        method: str,
        route: str,
        headers: Mapping[str, str],
        items: Sequence[Item],
        results: Sequence[Mapping[str, Any]],
    ) -> None:
        """Remember in `writes` a write that was answered."""
        named = tuple({"type": table.name, "id": key, **fields} for table, key, fields in items)
        kept = {name: value for name, value in headers.items() if name.startswith(("sforce-", "if-"))}
        self.writes.append(Write(method, route, named, kept, tuple(results)))

    def locate(self, table: Table, record_id: object) -> Row:
        """Return the committed row that a write names; raises ApiError where it cannot be written."""
        key = long_id(record_id) if isinstance(record_id, str) else None
        if key is None or not key.startswith(table.prefix):
            told = f"{table.name} ID: id value of incorrect type: {record_id}"
            raise ApiError(400, "MALFORMED_ID", told, fields=("Id",))
        row = table.rows.get(key)
        if row is None and key not in self.purged[table.name]:
            raise ApiError(404, "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id", fields=())
        if row is None or row.get("IsDeleted"):
            raise ApiError(404, "ENTITY_IS_DELETED", "entity is deleted", fields=())
        if key in self._pending or key in self.knobs.locked or self.random.random() < self.knobs.lock_chance:
            told = f"unable to obtain exclusive access to this record or 1 records: {key}"
            raise ApiError(400, "UNABLE_TO_LOCK_ROW", told, fields=())
        if row.get("IsConverted"):
            raise ApiError(400, "CANNOT_UPDATE_CONVERTED_LEAD", "cannot reference converted lead", fields=())
        return row

    def _written(self, item: Item, taken: set[str], *, create: bool) -> dict[str, Any]:
        table, record_id, fields = item
        values, now = self._api_values(table, fields), stamp(self.clock.now())
        if create:
            if record_id is not None:
                told = "cannot specify Id in an insert call"
                raise ApiError(400, "INVALID_FIELD_FOR_INSERT_UPDATE", told, fields=("Id",))
            return self._new(table, values, now, self.user_id)
        if record_id is None:
            raise ApiError(400, "MISSING_ARGUMENT", "Id not specified in an update call", fields=("Id",))
        old = self.locate(table, record_id)
        if old["Id"] in taken:
            raise ApiError(400, "DUPLICATE_VALUE", f"duplicate id specified: {old['Id']}", fields=("Id",))
        taken.add(old["Id"])
        return _modified(old, values, now, self.user_id)

    def _ruled(
        self, table: Table, row: dict[str, Any], *, allow_duplicates: bool, assign: bool
    ) -> Row | list[ApiError]:
        if missing := [
            kind.name for kind in table.fields.values() if kind.required and not row.get(kind.name)
        ]:
            told = f"Required fields are missing: [{', '.join(missing)}]"
            raise ApiError(400, "REQUIRED_FIELD_MISSING", told, fields=tuple(missing))
        if rules := self.knobs.invalid.get(row["Id"]):
            return [ApiError(400, "FIELD_CUSTOM_VALIDATION_EXCEPTION", told, fields=()) for told in rules]
        if self.knobs.duplicate_rule and not allow_duplicates and self._has_twin(table, row):
            raise ApiError(400, "DUPLICATES_DETECTED", "Use one of these records?", fields=())
        if assign and self.knobs.assign_to and table.name in _ASSIGNED:
            row["OwnerId"] = self.knobs.assign_to
        return row

    def _run_triggers(self, tables: Sequence[Table], results: list[Row | list[ApiError]]) -> None:
        for table, group in itertools.groupby(range(len(tables)), key=lambda place: tables[place]):
            rows = {place: row for place in group if not isinstance(row := results[place], list)}
            blown = any(row["Id"] in self.knobs.poisoned for row in rows.values())
            edits = self._values(table, self.knobs.trigger_edits.get(table.name, {}))
            for place, row in rows.items():
                results[place] = {**row, **edits}
                if blown:
                    told = f"{table.name}Trigger: execution of BeforeUpdate caused by: System.LimitException"
                    results[place] = [ApiError(400, "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", told, fields=())]

    def _has_twin(self, table: Table, row: Row) -> bool:
        email = (row.get("Email") or "").casefold()
        return bool(email) and any(
            (other.get("Email") or "").casefold() == email
            and other["Id"] != row["Id"]
            and not other["IsDeleted"]
            for other in table.rows.values()
        )

    def _api_values(self, table: Table, fields: Mapping[str, Any]) -> dict[str, Value]:
        kinds = {name: self.field(table, name) for name in fields}
        for name, kind in kinds.items():
            if kind is None:
                told = f"No such column '{name}' on sobject of type {table.name}"
                error = CallError if self.knobs.unknown_field_fails_call else ApiError
                raise error(400, "INVALID_FIELD", told)
        refused = tuple(kind.name for kind in kinds.values() if kind and not self.writable(table, kind))
        if refused:
            told = (
                f"Unable to create/update fields: {', '.join(refused)}. Please check the security settings of"
                " this field and verify that it is read/write for your profile or permission set."
            )
            raise ApiError(400, "INVALID_FIELD_FOR_INSERT_UPDATE", told, fields=refused)
        return self._values(table, fields)

    def _values(self, table: Table, fields: Mapping[str, Any]) -> dict[str, Value]:
        values = {}
        for name, given in fields.items():
            kind = table.fields[name.lower()]
            value = _value(kind, given.isoformat() if isinstance(given, date) else given)
            if self.knobs.lower_emails and kind.type == "email" and isinstance(value, str):
                value = value.lower()
            values[kind.name] = value
        return values

    def _new(self, table: Table, values: Mapping[str, Value], when: str, user: str) -> dict[str, Any]:
        number, text = next(self._serial), ""
        for _ in range(7):
            number, digit = divmod(number, len(_DIGITS))
            text = _DIGITS[digit] + text
        born = {"Id": long_id(f"{table.prefix}Sb000{text}"), "CreatedDate": when, "CreatedById": user}
        owner = {"IsDeleted": False, "OwnerId": user} if "ownerid" in table.fields else {}
        return _modified({**born, **owner}, values, when, user)

    def _found(self, sobject: str, record_id: str) -> tuple[Table, Row]:
        table, key = self._tables[sobject.lower()], long_id(record_id) or record_id
        return table, self._pending[key][-1][1] if key in self._pending else table.rows[key]

    def _bump(
        self,
        sobject: str,
        record_id: str,
        fields: Mapping[str, Value],
        at: datetime | None,
        visible_after: float | None,
    ) -> None:
        with self.lock:
            table, old = self._found(sobject, record_id)
            when = at or self.clock.now()
            self._put(table, {**old, **fields, "SystemModstamp": stamp(when)}, when, visible_after)

    def _put(self, table: Table, row: Row, when: datetime, visible_after: float | None) -> None:
        self.settle()
        delay = self.knobs.commit_delay if visible_after is None else visible_after
        waiting = self._pending.get(row["Id"], [])
        due = max([when + timedelta(seconds=delay), *(due for due, _ in waiting)])
        if due <= self.clock.now():
            table.put(row)
        else:
            self._pending.setdefault(row["Id"], []).append((due, row))
            heapq.heappush(self._queue, (due, next(self._serial), table, row))


def _modified(old: Row, values: Mapping[str, Value], when: str, user: str) -> dict[str, Any]:
    row = {**old, **values, "LastModifiedDate": when, "LastModifiedById": user, "SystemModstamp": when}
    if "LastName" in row:
        row["Name"] = " ".join(filter(None, (row.get("FirstName"), row["LastName"]))) or None
    return row
