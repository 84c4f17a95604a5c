"""A HubSpot account to test and show syncsvc against: strict, over HTTP, with a clock and faults of its own.

It refuses what HubSpot refuses, so that a connector that passes here has a chance there. What a person or
another app does in the account is done through the methods; what syncsvc does comes in over HTTP.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from starlette.types import ASGIApp

from syncsvc.sandbox.clock import Clock, RealClock
from syncsvc.sandbox.faults import FaultPlan, FaultyApp
from syncsvc.sandbox.hubspot_access import Access, OAuthApp
from syncsvc.sandbox.hubspot_api import HubSpotApi
from syncsvc.sandbox.hubspot_knobs import HubSpotKnobs
from syncsvc.sandbox.hubspot_properties import FIELD_TYPES, Definition, to_ms
from syncsvc.sandbox.hubspot_records import Record, Records
from syncsvc.sandbox.hubspot_search import SearchIndex

__all__ = ["HubSpotKnobs", "HubSpotSimulator", "Wrote"]

_SOURCE = "CRM_UI"


@dataclass(frozen=True, slots=True)
class Wrote:
    """One record written over HTTP, and what it was given; its values stay out of the repr."""

    record_id: str
    values: Mapping[str, str] = field(repr=False)


class HubSpotSimulator:
    """One account. `app` is what a server serves, `knobs` and `faults` may be changed while it does.

    `requests` counts what was served, refusals included, by method and route without its version, such as
    `("POST", "/contacts/search")`, `("GET", "/contacts/{id}")`, `("GET", "/properties/contacts")`;
    `writes` holds every record written over HTTP, in order, also where the value was the same. All methods
    may be called from any thread. Times given as `at` are aware; a change becomes visible to search
    `index_lag` after its `at`, so one given in the past is visible at once with an old stamp.
    """

    def __init__(
        self,
        *,
        token: str = "pat-sandbox",  # noqa: S107 - of a simulator
        clock: Clock | None = None,
        faults: FaultPlan | None = None,
        seed: int = 0,
        knobs: HubSpotKnobs | None = None,
    ) -> None:
        """Begin with no contacts, HubSpot's own properties, and `token` with every scope."""
        self.clock = clock or RealClock()
        self.knobs = knobs or HubSpotKnobs()
        self.faults = faults or FaultPlan(seed=seed)
        self.writes: list[Wrote] = []
        self._lock = threading.RLock()
        self._access = Access(token=token, clock=self.clock, knobs=self.knobs)
        index = SearchIndex()
        self._records = Records(clock=self.clock, knobs=self.knobs, index=index, seed=seed)
        self._api = HubSpotApi(
            records=self._records,
            index=index,
            access=self._access,
            knobs=self.knobs,
            lock=self._lock,
            wrote=self._wrote,
            seed=seed,
        )
        self.app: ASGIApp = FaultyApp(self._api, self.faults, clock=self.clock)

    @property
    def requests(self) -> Counter[tuple[str, str]]:
        """The requests served so far, by method and route."""
        return self._api.requests

    @property
    def scopes(self) -> set[str]:
        """The scopes of the app; one taken away gives a 403 from then on."""
        return self._access.scopes

    def define(
        self,
        name: str,
        type: str,  # noqa: A002 - the vendor's word
        field_type: str,
        *,
        read_only: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        """Add a property; a read-only one counts as calculated: its changes move no modification time.

        Raises ValueError where the field type does not fit the type.
        """
        if field_type not in FIELD_TYPES.get(type, set()):
            raise ValueError(f"{name}: field type {field_type} does not fit type {type}")
        with self._lock:
            created = self._records.now()
            self._records.define(
                Definition(
                    name, type, field_type, read_only=read_only, options=tuple(options), created=created
                )
            )

    def archive_property(self, name: str) -> None:
        """Delete a property as a person would; raises KeyError where there is none."""
        with self._lock:
            self._records.archive_property(name)

    def create(self, properties: Mapping[str, object], *, at: datetime | None = None) -> str:
        """Add a contact and return its id; raises Refusal for values or an email not taken."""
        return self.create_many([properties], at=at)[0]

    def create_many(
        self, contacts: Iterable[Mapping[str, object]], *, at: datetime | None = None
    ) -> list[str]:
        """Add contacts, all stamped with the same millisecond, and return their ids in order."""
        with self._lock:
            stamp = self._stamp(at)
            return [
                str(
                    self._records.create(
                        self._records.checked(one, by_account=True), at=stamp, source=_SOURCE
                    ).id
                )
                for one in contacts
            ]

    def update(self, record_id: str, properties: Mapping[str, object], *, at: datetime | None = None) -> None:
        """Change a live contact; raises KeyError where there is none, Refusal for values not taken."""
        with self._lock:
            values = self._records.checked(properties, by_account=True)
            self._records.update(self._live(record_id), values, at=self._stamp(at), source=_SOURCE)

    def touch_many(self, record_ids: Iterable[str], at: datetime) -> None:
        """Move the modification time of contacts to one identical millisecond, as a bulk job does."""
        with self._lock:
            for record_id in record_ids:
                self._records.touch(self._live(record_id), to_ms(at))

    def archive(self, record_id: str) -> None:
        """Put a contact into the recycle bin; raises KeyError where it is not live."""
        with self._lock:
            self._records.archive(self._live(record_id))

    def restore(self, record_id: str) -> None:
        """Take a contact out of the recycle bin, moved as `restore_moves` says; raises KeyError, Refusal."""
        with self._lock:
            record = self._records.find(int(record_id), archived=True)
            if record is None:
                raise KeyError(record_id)
            if self.knobs.restore_moves:
                record.updated = self._records.now()
            self._records.restore(record)

    def gdpr_delete(self, record_id: str) -> None:
        """Erase a contact, live or archived, without a trace; raises KeyError where there is none."""
        with self._lock:
            record = self._records.find(int(record_id), archived=True) or self._live(record_id)
            self._records.purge(record)

    def merge(self, winner: str, loser: str, *, at: datetime | None = None) -> str:
        """Merge two live contacts into a new one and return its id; both old ids lead to it from now on."""
        with self._lock:
            return str(self._records.merge(self._live(winner), self._live(loser), at=self._stamp(at)).id)

    def contact(self, record_id: str) -> dict[str, str]:
        """Return every filled property of a live contact as it is now; raises KeyError where none is."""
        with self._lock:
            return self._filled(self._live(record_id))

    def contacts(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the id and every filled property of each live contact, in the order of ids."""
        with self._lock:
            page, _ = self._records.page(0, len(self._records.live), archived=False)
            filled = [(str(record.id), self._filled(record)) for record in page]
        yield from filled

    def __len__(self) -> int:
        with self._lock:
            return len(self._records.live)

    def add_token(self, token: str) -> None:
        """Accept one more token that never expires."""
        with self._lock:
            self._access.add_token(token)

    def expire_token(self, token: str) -> None:
        """Let a token be past its time: 401 EXPIRED_AUTHENTICATION; raises KeyError for an unknown one."""
        with self._lock:
            self._access.expire(token)

    def revoke_token(self, token: str) -> None:
        """Forget a token: 401 INVALID_AUTHENTICATION; raises KeyError for an unknown one."""
        with self._lock:
            self._access.revoke(token)

    def add_oauth_app(self, *, client_id: str, client_secret: str, refresh_token: str) -> None:
        """Let the token endpoint answer refreshes of this app; its tokens live 1800 seconds."""
        with self._lock:
            self._access.add_app(OAuthApp(client_id, client_secret, refresh_token))

    def _wrote(self, record: Record, values: Mapping[str, str]) -> None:
        self.writes.append(Wrote(str(record.id), dict(values)))

    def _live(self, record_id: str) -> Record:
        record = self._records.find(int(record_id))
        if record is None:
            raise KeyError(record_id)
        return record

    def _stamp(self, at: datetime | None) -> int:
        return self._records.now() if at is None else to_ms(at)

    @staticmethod
    def _filled(record: Record) -> dict[str, str]:
        names = [*record.properties, "createdate", "lastmodifieddate", "hs_object_id"]
        return {name: value for name in names if (value := record.value(name))}
