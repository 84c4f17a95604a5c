"""The contacts of the HubSpot simulator: what is true, as opposed to what its search index says.

Every change goes through here and is announced to the search index. Nothing is locked here: the simulator
holds one lock around the whole.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from syncsvc.sandbox.clock import Clock
from syncsvc.sandbox.hubspot_filters import Hit
from syncsvc.sandbox.hubspot_knobs import HubSpotKnobs
from syncsvc.sandbox.hubspot_properties import (
    COMPUTED,
    STANDARD,
    Definition,
    canonical,
    iso,
    read_only_property,
    to_ms,
    unknown_property,
)
from syncsvc.sandbox.hubspot_refusals import BadValue, bad_values, conflict, invalid, not_found
from syncsvc.sandbox.hubspot_search import SearchIndex

# Beyond 2^31, as ids of today's accounts are: a list cursor is then no integer to the search API.
_FIRST_ID = 101_000_000_001


class Version(NamedTuple):
    """One value that a property has had."""

    value: str
    at: int
    source: str


@dataclass(slots=True)
class Record:
    """A contact; times are milliseconds. `properties` is replaced by a write, never changed in place."""

    id: int
    properties: Mapping[str, str] = field(repr=False)
    created: int
    updated: int
    archived: int | None = None
    history: dict[str, list[Version]] | None = field(default=None, repr=False)

    def value(self, name: str) -> str | None:
        """Return a property as HubSpot answers it: None where never filled, "" where emptied."""
        match name:
            case "hs_object_id":
                return str(self.id)
            case "createdate":
                return iso(self.created)
            case "lastmodifieddate":
                return iso(self.updated)
            case _:
                return self.properties.get(name)

    def emails(self) -> list[str]:
        """Return every address of the contact, the primary one first."""
        additional = self.properties.get("hs_additional_emails", "")
        return [email for email in (self.properties.get("email", ""), *additional.split(";")) if email]

    def versions(self, name: str) -> list[Version]:
        """Return the values that a property has had, newest first."""
        kept = (self.history or {}).get(name)
        if kept is not None:
            return kept[::-1]
        value = self.value(name)
        return [] if value is None else [Version(value, self.created, "CRM_UI")]


class Records:
    """All contacts, live and archived, with their ids, aliases and emails."""

    def __init__(self, *, clock: Clock, knobs: HubSpotKnobs, index: SearchIndex, seed: int) -> None:
        """Begin with an empty account."""
        self._clock = clock
        self._knobs = knobs
        self._index = index
        self._random = random.Random(seed)
        self._next_id = _FIRST_ID
        self._all: dict[int, Record] = {}
        self._aliases: dict[int, int] = {}
        self._emails: dict[str, int] = {}
        self._merged: dict[int, Record] = {}
        self.live: list[int] = []
        self.archived: list[int] = []
        self.definitions = {definition.name: definition for definition in STANDARD}

    def now(self) -> int:
        """Return the time in milliseconds."""
        return to_ms(self._clock.now())

    def known(self, name: str) -> Definition | None:
        """Return a property's definition, None where there is none or it is archived."""
        definition = self.definitions.get(name)
        return None if definition is None or definition.archived else definition

    def resolve(self, record_id: int) -> int:
        """Return the id under which a merged-away contact lives on, else the id itself."""
        while record_id in self._aliases:
            record_id = self._aliases[record_id]
        return record_id

    def merged_away(self, record_id: int) -> bool:
        """Return whether the id belongs to a contact that another one has absorbed."""
        return record_id in self._aliases

    def find(self, record_id: int, *, archived: bool = False) -> Record | None:
        """Return the contact with this id or absorbed id, None where not among the live (or archived)."""
        record = self._all.get(self.resolve(record_id))
        return record if record is not None and (record.archived is not None) is archived else None

    def find_email(self, email: str) -> Record | None:
        """Return the live contact whose primary address this is."""
        record = self._all.get(self._emails.get(email.strip().lower(), 0))
        return (
            record if record is not None and record.properties.get("email") == email.strip().lower() else None
        )

    def checked(self, raw: Mapping[str, object], *, by_account: bool = False) -> dict[str, str]:
        """Return the values as they are kept; raises Refusal naming every one that is not taken.

        `by_account` lifts the ban on read-only properties, for what happens inside HubSpot.
        """
        values: dict[str, str] = {}
        problems: list[BadValue] = []
        for name, given in raw.items():
            definition = self.known(name)
            if definition is None:
                problems.append(unknown_property(name))
                continue
            if name in COMPUTED or (definition.read_only and not by_account):
                problems.append(read_only_property(name))
                continue
            value = canonical(definition, "" if given is None and self._knobs.null_clears else given)
            if isinstance(value, BadValue):
                problems.append(value)
            else:
                values[name] = value
        if problems:
            raise bad_values(problems)
        return values

    def require(self, record: Record | None, values: Mapping[str, str]) -> None:
        """Raise the Refusal that the 2026-09 write validation gives where a required property stays empty."""
        after = {**(record.properties if record else {}), **values}
        absent = [name for name in self._knobs.required_on_write if not after.get(name)]
        if absent:
            raise invalid(
                "Some required properties were not set",
                errors=[
                    {
                        "message": f"{name} is required",
                        "code": "REQUIRED_PROPERTY",
                        "context": {"propertyName": [name]},
                    }
                    for name in absent
                ],
            )

    def claim_email(self, values: Mapping[str, str], owner: int | None) -> None:
        """Raise the Refusal for an address that another contact has, also as a secondary one."""
        holder = self._emails.get(values.get("email", ""))
        if holder is not None and holder != owner:
            raise conflict(str(holder))

    def create(self, values: Mapping[str, str], *, at: int, source: str) -> Record:
        """Add a contact with values that `checked` gave; raises Refusal where its email is taken."""
        self.claim_email(values, None)
        record = Record(self._take_id(), {name: value for name, value in values.items() if value}, at, at)
        if source != "CRM_UI":
            record.history = {name: [Version(value, at, source)] for name, value in record.properties.items()}
        self._add(record)
        return record

    def update(self, record: Record, values: Mapping[str, str], *, at: int, source: str) -> None:
        """Write values that `checked` gave; raises Refusal where an email is taken.

        The modification time moves to `at` where a value changes that HubSpot does not compute itself
        (a calculated property changes without moving it).
        """
        self.claim_email(values, record.id)
        changed = {name: value for name, value in values.items() if record.properties.get(name, "") != value}
        if changed:
            history = dict(record.history or {})
            for name, value in changed.items():
                history[name] = [*record.versions(name)[::-1], Version(value, at, source)]
            record.history = history
            self._forget_emails(record)
            record.properties = {**record.properties, **changed}
            self._remember_emails(record)
        moves = any(not self.definitions[name].read_only for name in changed)
        if moves or (self._knobs.same_value_bumps and values):
            record.updated = at
        if changed or self._knobs.same_value_bumps:
            self._announce(record, at)

    def touch(self, record: Record, at: int) -> None:
        """Move the modification time and nothing else, as a bulk job inside HubSpot does."""
        record.updated = at
        self._announce(record, at)

    def archive(self, record: Record) -> None:
        """Put a live contact into the recycle bin; its modification time stays (recorded)."""
        record.archived = self.now()
        self._drop(record)
        insort(self.archived, record.id)

    def restore(self, record: Record) -> None:
        """Bring an archived contact back under its id; raises Refusal where its email is taken by now."""
        self.claim_email(record.properties, record.id)
        self.archived.remove(record.id)
        record.archived = None
        self._add(record, announced_at=self.now())

    def purge(self, record: Record) -> None:
        """Erase a contact for good: no list, no recycle bin, no search shows it again."""
        if record.archived is None:
            self._drop(record)
        else:
            self.archived.remove(record.id)
        del self._all[record.id]

    def merge(self, winner: Record, loser: Record, *, at: int) -> Record:
        """Make a new contact of two, under a new id to which both old ids lead from now on.

        The winner's values stand, the loser's fill what it lacks; the loser's addresses become secondary
        ones (changelog "updated-merge-functionality").
        """
        if winner.id == loser.id:
            raise invalid("A contact cannot be merged with itself")
        absorbed = [
            part
            for one in (winner, loser)
            for part in (*one.properties.get("hs_merged_object_ids", "").split(";"), str(one.id))
            if part
        ]
        addresses = list(dict.fromkeys([*winner.emails(), *loser.emails()]))
        properties = {**loser.properties, **winner.properties, "hs_merged_object_ids": ";".join(absorbed)}
        if addresses:
            properties["email"] = addresses[0]
        if addresses[1:]:
            properties["hs_additional_emails"] = ";".join(addresses[1:])
        merged = Record(self._take_id(), properties, min(winner.created, loser.created), at)
        for old in (winner, loser):
            self._drop(old)
            del self._all[old.id]
            self._aliases[old.id] = merged.id
            self._merged[old.id] = replace(old, archived=at)
        self._add(merged, announced_at=at)
        return merged

    def page(self, after: int, limit: int, *, archived: bool) -> tuple[list[Record], int | None]:
        """Return up to `limit` contacts with ids from `after` on, and the id where the next page begins."""
        ids = self._binned() if archived else self.live
        start = bisect_left(ids, after)
        following = ids[start + limit] if start + limit < len(ids) else None
        page = [self._all.get(it) or self._merged[it] for it in ids[start : start + limit]]
        return page, following

    def _binned(self) -> list[int]:
        """Return the ids that the list of archived contacts shows."""
        ids, shown = self.archived, self.now() - round(self._knobs.archive_lag * 1000)
        if self._knobs.archive_lag:
            ids = [it for it in ids if (self._all[it].archived or 0) <= shown]
        return sorted([*ids, *self._merged]) if self._knobs.merged_are_archived else ids

    def define(self, definition: Definition) -> None:
        """Add a property, or replace the one of that name."""
        self.definitions[definition.name] = definition

    def archive_property(self, name: str) -> None:
        """Put a property into the recycle bin: from now on nothing reads or writes it."""
        self.definitions[name] = replace(self.definitions[name], archived=True)

    def values(self, names: Iterable[str], record: Record) -> dict[str, str | None]:
        """Return the named properties that exist, null where empty."""
        return {name: record.value(name) for name in names if self.known(name)}

    def needed(self, record_id: int, *, archived: bool = False) -> Record:
        """Return what `find` finds; raises the Refusal for a record that is not there."""
        record = self.find(record_id, archived=archived)
        if record is None:
            raise not_found()
        return record

    def _take_id(self) -> int:
        taken = self._next_id
        self._next_id += 1
        return taken

    def _add(self, record: Record, *, announced_at: int | None = None) -> None:
        self._all[record.id] = record
        insort(self.live, record.id)
        self._remember_emails(record)
        self._announce(record, record.updated if announced_at is None else announced_at)

    def _drop(self, record: Record) -> None:
        del self.live[bisect_left(self.live, record.id)]
        self._forget_emails(record)
        self._index.note(record.id, None, due=self._due(self.now()))

    def _announce(self, record: Record, at: int) -> None:
        hit = Hit(record.id, record.updated, record.created, record.properties)
        self._index.note(record.id, hit, due=self._due(at))

    def _due(self, at: int) -> int:
        jitter = self._knobs.index_jitter
        lag = self._knobs.index_lag + (self._random.uniform(0, jitter) if jitter else 0.0)
        return at + round(lag * 1000)

    def _remember_emails(self, record: Record) -> None:
        for email in record.emails():
            self._emails[email] = record.id

    def _forget_emails(self, record: Record) -> None:
        for email in record.emails():
            self._emails.pop(email, None)
