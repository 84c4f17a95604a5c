"""A simulated Dynamics 365 environment for the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from syncsvc.sandbox.dynamics import DynamicsKnobs, DynamicsSimulator
from syncsvc.sandbox.faults import Fault, FaultPlan, Kind
from syncsvc.testing import Feature, Ground, Maker
from syncsvc.testing.maker import Values

CLIENT, SECRET = "77777777-aaaa-4bbb-8ccc-hush00000001", "k~8Q~hush"
CALLS = "/api/data/"


def _slow(code: str, **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"error": {"code": code, "message": "exceeded"}}
    return Fault(Kind.STATUS, path=CALLS, status=429, body=body, headers=named)


class DynamicsMaker(Maker):
    """An environment that does what the documents leave open in the way that asks most of a connector."""

    type = "dynamics"
    features = frozenset(Feature) - {Feature.VANISH, Feature.LOOKS}
    names: ClassVar[Mapping[str, str]] = {"email": "emailaddress1", "name": "lastname", "note": "acme_note"}
    written: ClassVar[Mapping[str, str]] = {"last_updated": "acme_walletat", "status": "acme_walletstatus"}
    page = 200
    batch = 100
    secrets = (CLIENT, SECRET)
    calls = CALLS
    limits: ClassVar[Mapping[str, Fault]] = {
        "requests": _slow("0x80072322", Retry_After="3"),
        "time": _slow("0x80072321", Retry_After="270"),
        "concurrent": _slow("0x80072326", Retry_After="1"),
        "untold": _slow("0x80072326"),
        "unnamed": Fault(Kind.STATUS, path=CALLS, status=429, body=b""),
    }

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        knobs = DynamicsKnobs(token_at_end=True, token_waits=False, by_version=False, ghosts=True)
        self.crm = DynamicsSimulator(client_id=CLIENT, client_secret=SECRET, clock=self.clock, knobs=knobs)
        self.crm.define("acme_note", "Memo", length=32_000)
        self.crm.define("acme_walletat", "DateTime")
        self.crm.define("acme_walletstatus", length=255)
        for name, content in (("client", CLIENT), ("secret", SECRET)):
            (folder / name).write_text(content, encoding="utf-8")
        ground.stage.serving = self.crm.app

    @property
    def faults(self) -> FaultPlan:
        return self.crm.faults

    def settings(self) -> dict[str, Any]:
        return {
            "url": self.ground.url,
            "page_size": self.page,
            "auth": {
                "tenant": "sandbox.example",
                "client_id": {"file": str(self.folder / "client")},
                "client_secret": {"file": str(self.folder / "secret")},
                "authority": self.ground.url,
            },
        }

    def put(self, contacts: Sequence[Values]) -> list[str]:
        return self.crm.create_many([self._named(values) for values in contacts])

    def edit(self, record_ids: Sequence[str], values: Values) -> None:
        for record_id in record_ids:
            self.crm.update(record_id, self._named(values))

    def delete(self, record_id: str) -> None:
        self.crm.delete(record_id)

    def restore(self, record_id: str) -> None:
        self.crm.restore(record_id)

    def merge(self, winner: str, loser: str) -> str:
        self.crm.merge(winner, loser)
        return winner

    def holds(self, record_id: str) -> Mapping[str, str | datetime | None]:
        record = self.crm.contact(record_id)
        names = {**self.names, **self.written}
        held: dict[str, str | datetime | None] = {name: record[it] for name, it in names.items()}
        at = record["acme_walletat"]
        return held | {"last_updated": datetime.fromisoformat(at) if at else None}

    @contextmanager
    def delayed(self, by: timedelta) -> Iterator[None]:
        self.crm.knobs.commit_delay = by.total_seconds()
        yield
        self.crm.knobs.commit_delay = 0.0

    def shorten_pages(self) -> None:
        self.crm.knobs.short_pages = True

    def forget_cursors(self) -> None:
        self.crm.forget_links()

    def refuse(self, record_id: str) -> None:
        self.crm.knobs.refused[record_id] = "zebra@example.org may not"

    def lock(self, record_id: str) -> None:
        self.crm.knobs.locked.add(record_id)

    def unauthorized(self) -> Fault:
        return Fault(Kind.STATUS, path=CALLS, status=401, body=b"")

    def forbidden(self) -> Fault:
        body = {"error": {"code": "0x80040220", "message": "Principal user is missing prvReadContact"}}
        return Fault(Kind.STATUS, path=CALLS, status=403, body=body, times=None)

    def _named(self, values: Values) -> dict[str, str | None]:
        return {self.names[name]: value or None for name, value in values.items()}
