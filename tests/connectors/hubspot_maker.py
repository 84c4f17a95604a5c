"""A simulated HubSpot account for the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from syncsvc.sandbox.faults import Fault, FaultPlan, Kind
from syncsvc.sandbox.hubspot import HubSpotKnobs, HubSpotSimulator
from syncsvc.sandbox.hubspot_refusals import scopes_missing, token_expired
from syncsvc.testing import Feature, Ground, Maker
from syncsvc.testing.maker import Values

TOKEN = "pat-na1-0a1b2c3d-hush"
REFUSED_FOR = "jobtitle"
SLOW = {"status": "error", "errorType": "RATE_LIMIT"}
BURST = SLOW | {
    "message": "You have reached your ten_secondly_rolling limit.",
    "policyName": "TEN_SECONDLY_ROLLING",
}
DAY = SLOW | {"message": "You have reached your daily limit.", "policyName": "DAILY"}
SEARCH = {
    "status": "error",
    "message": "You have reached your secondly limit.",
    "category": "RATE_LIMITS",
}
OLD_SEARCH = SLOW | {"message": "You have reached your secondly limit.", "policyName": "SECONDLY"}


def _slow(body: Mapping[str, str], status: int = 429, **headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(Kind.STATUS, status=status, body=body, headers=named)


class HubSpotMaker(Maker):
    """An account whose contacts are searched, listed, archived, merged and erased."""

    type = "hubspot"
    features = frozenset(Feature) - {Feature.TOMBSTONES, Feature.LOCKS}
    names: ClassVar[Mapping[str, str]] = {"email": "email", "name": "firstname", "note": "note"}
    written: ClassVar[Mapping[str, str]] = {
        "last_updated": "wallet_last_updated",
        "status": "wallet_status",
    }
    page = 200
    batch = 100
    secrets = (TOKEN,)
    limits: ClassVar[Mapping[str, Fault]] = {
        "burst": _slow(BURST),
        "burst-told": _slow(BURST, Retry_After="3"),
        "burst-long": _slow(BURST, Retry_After="900"),
        "day": _slow(DAY),
        "search": _slow(SEARCH),
        "search-2018": _slow(OLD_SEARCH),
        "unnamed": _slow({}),
        "lock": _slow({}, status=423),
        "moving": _slow({}, status=477, Retry_After="7"),
        "moving-long": _slow({}, status=477, Retry_After="86400"),
    }

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        self.crm = HubSpotSimulator(token=TOKEN, clock=self.clock, knobs=HubSpotKnobs())
        self.crm.define("note", "string", "textarea")
        self.crm.define("wallet_last_updated", "datetime", "date")
        self.crm.define("wallet_status", "string", "text")
        self._token = folder / "token"
        self._token.write_text(TOKEN, encoding="utf-8")
        ground.stage.serving = self.crm.app

    @property
    def faults(self) -> FaultPlan:
        return self.crm.faults

    def settings(self) -> dict[str, Any]:
        return {
            "token": {"file": str(self._token)},
            "base_url": self.ground.url,
            "api_version": "2026-09",
        }

    def put(self, contacts: Sequence[Values]) -> list[str]:
        return self.crm.create_many(
            {REFUSED_FOR: "owner", **{self.names[name]: value or "" for name, value in values.items()}}
            for values in contacts
        )

    def edit(self, record_ids: Sequence[str], values: Values) -> None:
        named = {self.names[name]: value or "" for name, value in values.items()}
        for record_id in record_ids:
            self.crm.update(record_id, named)

    def delete(self, record_id: str) -> None:
        self.crm.archive(record_id)

    def purge(self, record_id: str) -> None:
        self.crm.archive(record_id)

    def restore(self, record_id: str) -> None:
        self.crm.restore(record_id)

    def vanish(self, record_id: str) -> None:
        self.crm.gdpr_delete(record_id)

    def merge(self, winner: str, loser: str) -> str:
        return self.crm.merge(winner, loser)

    def holds(self, record_id: str) -> Mapping[str, str | datetime | None]:
        record = self.crm.contact(record_id)
        names = {**self.names, **self.written}
        held: dict[str, str | datetime | None] = {name: record.get(it) for name, it in names.items()}
        at = record.get("wallet_last_updated")
        return held | {"last_updated": datetime.fromisoformat(at) if at else None}

    @contextmanager
    def delayed(self, by: timedelta) -> Iterator[None]:
        self.crm.knobs.index_lag = by.total_seconds()
        yield
        self.crm.knobs.index_lag = 0.0

    def shorten_pages(self) -> None:
        self.crm.knobs.short_search_pages = True
        self.crm.knobs.phantom_hits = 430

    def forget_cursors(self) -> None:
        self.strike(Kind.STATUS, "objects", status=400, body={"category": "VALIDATION_ERROR"})

    def refuse(self, record_id: str) -> None:
        self.crm.knobs.required_on_write = (REFUSED_FOR,)
        self.crm.update(record_id, {REFUSED_FOR: ""})

    def unauthorized(self) -> Fault:
        return Fault(Kind.STATUS, status=401, body=token_expired("2026-11-02T12:00:00.000Z").body)

    def forbidden(self) -> Fault:
        body = scopes_missing(["crm.objects.contacts.read"]).body
        return Fault(Kind.STATUS, status=403, body=body, times=None)
