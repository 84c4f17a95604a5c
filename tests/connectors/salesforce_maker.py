"""A simulated Salesforce org for the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from syncsvc.sandbox.faults import Fault, FaultPlan, Kind
from syncsvc.sandbox.salesforce import SalesforceKnobs, SalesforceSimulator
from syncsvc.testing import Feature, Ground, Maker
from syncsvc.testing.maker import Values

CLIENT, SECRET = "3MVG9hush", "4F2A8hush"
CALLS = "/services/data/"


def _slow(code: str, message: str = "", status: int = 503, **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = [{"errorCode": code, "message": message}]
    return Fault(Kind.STATUS, path=CALLS, status=status, body=body, headers=named)


class SalesforceMaker(Maker):
    """An org whose contacts are queried by SystemModstamp, deleted into a bin, merged and purged."""

    type = "salesforce"
    features = frozenset(Feature) - {Feature.EXPIRY}
    names: ClassVar[Mapping[str, str]] = {"email": "Email", "name": "LastName", "note": "Note__c"}
    written: ClassVar[Mapping[str, str]] = {"last_updated": "Wallet_At__c", "status": "Wallet_Status__c"}
    page = 200
    batch = 200
    tls = True
    secrets = (CLIENT, SECRET)
    calls = CALLS
    limits: ClassVar[Mapping[str, Fault]] = {
        "total": _slow("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", 403),
        "concurrent": _slow("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests (Concurrent API) exceeded", 403),
        "busy": _slow("SERVER_UNAVAILABLE"),
        "busy-told": _slow("SERVER_UNAVAILABLE", Retry_After="5"),
        "429": Fault(Kind.STATUS, path=CALLS, status=429, body={}),
        "429-told": Fault(Kind.STATUS, path=CALLS, status=429, body={}, headers={"Retry-After": "900"}),
    }

    sobject = "Contact"

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        self.org = SalesforceSimulator(
            client_id=CLIENT, client_secret=SECRET, clock=self.clock, knobs=SalesforceKnobs()
        )
        self.org.define("Contact", "Note__c", "textarea", length=32_000)
        self.org.define("Contact", "Wallet_At__c", "datetime")
        self.org.define("Contact", "Wallet_Status__c")
        for name, content in (("client", CLIENT), ("secret", SECRET)):
            (folder / name).write_text(content, encoding="utf-8")
        ground.stage.serving = self.org.app

    @property
    def faults(self) -> FaultPlan:
        return self.org.faults

    def settings(self) -> dict[str, Any]:
        return {
            "url": self.ground.url,
            "page_size": self.page,
            "auth": {
                "flow": "client_credentials",
                "client_id": {"file": str(self.folder / "client")},
                "client_secret": {"file": str(self.folder / "secret")},
            },
        }

    def put(self, contacts: Sequence[Values]) -> list[str]:
        return self.org.create_many(self.sobject, [self._named(values) for values in contacts])

    def edit(self, record_ids: Sequence[str], values: Values) -> None:
        at = self.clock.now()
        for record_id in record_ids:
            self.org.update(self.sobject, record_id, self._named(values), at=at)

    def delete(self, record_id: str) -> None:
        self.org.delete(self.sobject, record_id)

    def purge(self, record_id: str) -> None:
        self.org.delete(self.sobject, record_id)
        self.org.purge(self.sobject, record_id)

    def restore(self, record_id: str) -> None:
        self.org.undelete(self.sobject, record_id)

    def vanish(self, record_id: str) -> None:
        self.purge(record_id)
        self.org.trim_deletions(self.sobject)

    def merge(self, winner: str, loser: str) -> str:
        self.org.merge(self.sobject, winner, loser)
        return winner

    def holds(self, record_id: str) -> Mapping[str, str | datetime | None]:
        record = self.org.record(self.sobject, record_id)
        names = {**self.names, **self.written}
        held: dict[str, str | datetime | None] = {name: record.get(it) or None for name, it in names.items()}
        at = held["last_updated"]
        return held | {"last_updated": datetime.fromisoformat(str(at)) if at else None}

    @contextmanager
    def delayed(self, by: timedelta) -> Iterator[None]:
        self.org.knobs.commit_delay = by.total_seconds()
        yield
        self.org.knobs.commit_delay = 0.0

    def shorten_pages(self) -> None:
        self.org.knobs.page_size = 30

    def refuse(self, record_id: str) -> None:
        self.org.knobs.invalid[record_id] = ("zebra@example.org may not",)

    def lock(self, record_id: str) -> None:
        self.org.knobs.locked.add(record_id)

    def unauthorized(self) -> Fault:
        return _slow("INVALID_SESSION_ID", "Session expired or invalid", 401)

    def forbidden(self) -> Fault:
        body = [{"errorCode": "INSUFFICIENT_ACCESS", "message": "insufficient access rights"}]
        return Fault(Kind.STATUS, path=CALLS, status=403, body=body, times=None)

    def _named(self, values: Values) -> dict[str, str | None]:
        return {self.names[name]: value or None for name, value in values.items()}


class SalesforceBulkMaker(SalesforceMaker):
    """The same, swept by bulk queries alone."""

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        self.org.knobs.job_page = self.page

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"bulk_above": 0}


class SalesforcePersonsMaker(SalesforceBulkMaker):
    """An org whose contacts are person accounts, swept by bulk queries alone; it has companies too."""

    sobject = "Account"
    names: ClassVar[Mapping[str, str]] = {"email": "PersonEmail", "name": "LastName", "note": "Note__pc"}
    written: ClassVar[Mapping[str, str]] = {"last_updated": "Wallet_At__pc", "status": "Wallet_Status__pc"}

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        self.org.enable_person_accounts()
        self.org.create("Account", {"Name": "Acme"})

    def settings(self) -> dict[str, Any]:
        return super().settings() | {"object": self.sobject}
