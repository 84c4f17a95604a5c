"""What a connector's test brings: a world with the verbs of a CRM, and what that CRM cannot do.

The suite speaks of every contact in three neutral fields, `email`, `name` and `note`, and of two that are
written back, `last_updated` and `status`; a maker says what the CRM calls them.
"""

from __future__ import annotations

import itertools
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from syncsvc.plugins import InstalledTypes
from syncsvc.remote.connector import Connector, ConnectorType, Needs
from syncsvc.remote.transport import Network, trusting
from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, FaultPlan, Kind
from syncsvc.sandbox.server import Authority, Server

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
SECONDS_A_REQUEST = 0.06

Values = Mapping[str, str | None]
"""Values of a contact by the suite's neutral names: `email`, `name`, `note`."""


class Feature(StrEnum):
    """What a CRM, or the simulator of it, need not have: the suite asserts nothing about what is absent."""

    WIRE = "wire"  # the connector speaks HTTP, so faults can strike it
    SCHEMA = "schema"  # the CRM says which fields it has
    PREPARED = "prepared"  # fields that are written back must have been made before
    ECHOES = "echoes"  # what was written back comes home with the next poll
    LATE = "late"  # a change can become visible late, with an old stamp
    TOMBSTONES = "tombstones"  # a poll tells that a contact was deleted
    LOOKS = "looks"  # polls ask now and then for deletions that no change tells
    RESTORE = "restore"  # a deleted contact can come back under its id
    VANISH = "vanish"  # a contact can be erased without a trace
    MERGE = "merge"  # two contacts can become one
    MERGED_WRITES = "merged_writes"  # a write to a merged-away contact reaches the one that lives on
    SHORT_PAGES = "short_pages"  # pages can be short, or empty, though more follows
    EXPIRY = "expiry"  # the CRM can forget a cursor
    REFUSALS = "refusals"  # the CRM can refuse a value for one contact alone
    LOCKS = "locks"  # a write can meet passing trouble of one contact alone


Test = TypeVar("Test", bound=Callable[..., Any])


def needing(*features: Feature) -> Callable[[Test], Test]:
    """Mark a test of the suite that is about features which a CRM need not have."""

    def mark(test: Test) -> Test:
        test.needed = frozenset(features)  # type: ignore[attr-defined] # read by `ConnectorTests`
        return test

    return mark


class Stage:
    """What a server serves: the world of the test that runs."""

    serving: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on one request."""
        await self.serving(scope, receive, send)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the worlds of one test class stand: one server for all of them; no address without `WIRE`.

    Worlds that are to share one time are given a `clock`; else each has its own.
    """

    url: str = ""
    tls: ssl.SSLContext = field(default_factory=trusting)
    stage: Stage = field(default_factory=Stage)
    clock: ManualClock | None = None

    @classmethod
    @contextmanager
    def open(cls, folder: Path, *, served: bool, tls: bool) -> Iterator[Self]:
        """Serve on a loopback port, over TLS where asked for."""
        if not served:
            yield cls()
            return
        stage = Stage()
        authority = Authority(folder) if tls else None
        with Server(stage, authority=authority) as server:
            yield cls(server.url, trusting(str(authority.ca_file) if authority else ""), stage)


class Timeline(Network):
    """A network whose time is the test's: a wait moves the clock, and each request takes a moment."""

    def __init__(self, clock: ManualClock, *, tls: ssl.SSLContext | None = None) -> None:
        """Begin without waits; `skew` is by how much this machine's clock is ahead of the CRM's."""
        super().__init__(tls=tls)
        self.clock = clock
        self.skew = timedelta()
        self.waits: list[float] = []

    def now(self) -> datetime:
        """Return the wall clock, wrong by `skew`."""
        return self.clock.now() + self.skew

    def monotonic(self) -> float:
        """Return the seconds of the test's clock."""
        return self.clock.now().timestamp()

    def sleep(self, seconds: float) -> None:
        """Move the clock."""
        self.waits.append(seconds)
        self.clock.advance(timedelta(seconds=seconds))

    def count(self) -> None:
        """Count a request, and let it take its time."""
        super().count()
        self.clock.advance(timedelta(seconds=SECONDS_A_REQUEST))


class Maker(ABC):
    """One CRM account in a state of its own, made for one test; subclasses give the verbs.

    Verbs act as people and other apps do, at the time of `clock`, and are visible to the connector at once
    unless they stand inside `delayed`. Contacts are named by the ids that the connector gives them.
    """

    type: ClassVar[str]
    """The connector's name among the entry points."""
    features: ClassVar[frozenset[Feature]] = frozenset(Feature)
    """What this CRM has; name those it lacks by subtraction: `frozenset(Feature) - {Feature.MERGE}`."""
    names: ClassVar[Mapping[str, str]] = {"email": "email", "name": "name", "note": "note"}
    """The CRM's fields by the suite's names: three of text, `note` of at least 10,000 characters."""
    written: ClassVar[Mapping[str, str]]
    """The CRM's fields that are written back: a time under `last_updated`, a text under `status`."""
    page: ClassVar[int]
    """The most contacts of one page, of a sweep or a poll, whichever has more."""
    batch: ClassVar[int]
    """The most records of one request of a write-back."""
    lag: ClassVar[timedelta] = timedelta(minutes=10)
    """How late a change may become visible: what the settings promise."""
    looks_every: ClassVar[timedelta] = timedelta(hours=1)
    """For `LOOKS`: how long polls go at least without asking for deletions."""
    tls: ClassVar[bool] = False
    """Whether the CRM is served over TLS."""
    secrets: ClassVar[tuple[str, ...]] = ()
    """What must never be shown, beside the contacts' values: tokens and passwords of the simulator."""
    calls: ClassVar[str] = ""
    """Of which paths the API's calls are, as a regular expression, where a login has a path of its own."""
    limits: ClassVar[Mapping[str, Fault]] = {}
    """Every shape in which the vendor asks to slow down, by a name for it; each struck once."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        """Make an empty account; `folder` is for files of the test."""
        self.ground = ground
        self.folder = folder
        self.clock = ground.clock or ManualClock(NOON)
        self.network = Timeline(self.clock, tls=ground.tls)
        self._opened: list[Connector] = []
        self._numbers = itertools.count()

    # What the suite uses of every maker as it is.

    def connect(self, needs: Needs | None = None, **keys: Any) -> Connector:
        """Return a new connector, as after a restart; `keys` stand beside those of `settings`."""
        made = self.connector_type()
        settings = made.Settings.model_validate({**self.settings(), **keys})
        connector = made(settings, needs or self.needs(), self.network)
        self._opened.append(connector)
        return connector

    def needs(self) -> Needs:
        """Return the suite's fields by the CRM's names."""
        return Needs(frozenset(self.names.values()), dict(self.written))

    def connector_type(self) -> ConnectorType:
        """Return the connector's class, found by its entry point."""
        return InstalledTypes()[self.type]

    def people(self, count: int, **values: str | None) -> list[str]:
        """Add contacts with emails of their own, all at one instant, and return their ids in order."""
        numbers = [next(self._numbers) for _ in range(count)]
        return self.put(
            [{"email": f"zebra-{n}@example.org", "name": f"Zebra {n}", **values} for n in numbers]
        )

    def wait(self, by: timedelta) -> None:
        """Let time pass."""
        self.clock.advance(by)

    def strike(self, kind: Kind, path: str = "", **more: Any) -> Fault:
        """Put a fault on the plan; see `syncsvc.sandbox.faults.Fault`."""
        return self.faults.add(Fault(kind, path=path, **more))

    def close(self) -> None:
        """End every connector, and whatever else the test used."""
        for connector in self._opened:
            connector.close()

    # What a CRM brings.

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return the keys of `[connectors.NAME]` that reach this account, `timeout` not among them."""

    @abstractmethod
    def put(self, contacts: Sequence[Values]) -> list[str]:
        """Add contacts, all of them at one instant, and return their ids in order."""

    @abstractmethod
    def edit(self, record_ids: Sequence[str], values: Values) -> None:
        """Give contacts the same new values, all of them at one instant, as a bulk job does."""

    @abstractmethod
    def delete(self, record_id: str) -> None:
        """Delete a contact as a person does in this CRM."""

    @abstractmethod
    def holds(self, record_id: str) -> Mapping[str, str | datetime | None]:
        """Return what the CRM truly holds of a live contact, by the suite's five names; empty is None."""

    @property
    def faults(self) -> FaultPlan:
        """The faults of the simulator; needed for `WIRE`."""
        raise NotImplementedError(Feature.WIRE)

    def unauthorized(self) -> Fault:
        """Return, for `WIRE`, the 401 of this CRM for a token that is past its time; struck once."""
        return Fault(Kind.STATUS, status=401, body={})

    def forbidden(self) -> Fault:
        """Return, for `WIRE`, the 403 of this CRM for a right that is missing; struck for ever."""
        return Fault(Kind.STATUS, status=403, body={}, times=None)

    def delayed(self, by: timedelta) -> AbstractContextManager[None]:
        """Let the changes made inside become visible `by` later, with the stamp of now; needed for `LATE`."""
        raise NotImplementedError(Feature.LATE)

    def purge(self, record_id: str) -> None:
        """Delete a live contact in a way that polls find by looking for it alone; needed for `LOOKS`."""
        raise NotImplementedError(Feature.LOOKS)

    def restore(self, record_id: str) -> None:
        """Bring a deleted contact back under its id; needed for `RESTORE`."""
        raise NotImplementedError(Feature.RESTORE)

    def vanish(self, record_id: str) -> None:
        """Erase a live contact so that nothing tells of it; needed for `VANISH`."""
        raise NotImplementedError(Feature.VANISH)

    def merge(self, winner: str, loser: str) -> str:
        """Merge two contacts and return the id of the one that lives on; needed for `MERGE`."""
        raise NotImplementedError(Feature.MERGE)

    def shorten_pages(self) -> None:
        """Give short pages, and empty ones where the CRM does that, from now on; needed for `SHORT_PAGES`."""
        raise NotImplementedError(Feature.SHORT_PAGES)

    def forget_cursors(self) -> None:
        """Know nothing any more of the cursors given out in the middle of a sweep; needed for `EXPIRY`."""
        raise NotImplementedError(Feature.EXPIRY)

    def refuse(self, record_id: str) -> None:
        """Refuse every write to this contact from now on; needed for `REFUSALS`."""
        raise NotImplementedError(Feature.REFUSALS)

    def lock(self, record_id: str) -> None:
        """Let every write to this contact meet passing trouble from now on; needed for `LOCKS`."""
        raise NotImplementedError(Feature.LOCKS)
