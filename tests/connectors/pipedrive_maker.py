"""A simulated Pipedrive company for the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from syncsvc.sandbox.faults import Fault, FaultPlan, Kind
from syncsvc.sandbox.pipedrive import PipedriveSimulator
from syncsvc.testing import Feature, Ground, Maker
from syncsvc.testing.maker import Values

TOKEN = "0a1b2c3d4e5f60718293a4b5c6d7e8f9-hush"


def _slow(**headers: str) -> Fault:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Fault(Kind.STATUS, status=429, body={"success": False, "error": "slow"}, headers=named)


class PipedriveMaker(Maker):
    """A company that does what the documents leave open in the way that was seen, or asks most."""

    type = "pipedrive"
    features = frozenset(Feature) - {
        Feature.TOMBSTONES,
        Feature.LOOKS,
        Feature.MERGE,
        Feature.MERGED_WRITES,
    }
    names: ClassVar[Mapping[str, str]] = {"email": "email", "name": "name", "note": "note"}
    written: ClassVar[Mapping[str, str]] = {"last_updated": "wallet_at", "status": "wallet_status"}
    page = 500
    batch = 1
    secrets = (TOKEN,)
    limits: ClassVar[Mapping[str, Fault]] = {
        "burst": _slow(x_ratelimit_remaining="0", x_ratelimit_reset="2"),
        "burst-told": _slow(Retry_After="3"),
        "day": _slow(x_daily_ratelimit_token_remaining="0"),
        "untold": Fault(Kind.STATUS, status=429, body=b""),
        "shut-out": Fault(Kind.HTML, status=403),
    }

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        self.crm = PipedriveSimulator(token=TOKEN, clock=self.clock)
        kinds = {"note": "text", "wallet_at": "varchar", "wallet_status": "varchar"}
        self.keys = {name: self.crm.define(name.title(), kind) for name, kind in kinds.items()}
        (folder / "token").write_text(TOKEN, encoding="utf-8")
        ground.stage.serving = self.crm.app

    @property
    def faults(self) -> FaultPlan:
        return self.crm.faults

    def settings(self) -> dict[str, Any]:
        token = {"file": str(self.folder / "token")}
        return {"token": token, "base_url": self.ground.url, "fields": self.keys}

    def put(self, contacts: Sequence[Values]) -> list[str]:
        return self.crm.create_many([self._given(values) for values in contacts])

    def edit(self, record_ids: Sequence[str], values: Values) -> None:
        for record_id in record_ids:
            self.crm.update(record_id, self._given(values))

    def delete(self, record_id: str) -> None:
        self.crm.delete(record_id)

    def restore(self, record_id: str) -> None:
        self.crm.restore(record_id)

    def vanish(self, record_id: str) -> None:
        self.crm.erase(record_id)

    def holds(self, record_id: str) -> Mapping[str, str | datetime | None]:
        person = self.crm.person(record_id)
        held = {name: person["custom_fields"].get(key) or None for name, key in self.keys.items()}
        at = held["wallet_at"]
        return {
            "email": person["emails"][0]["value"] if person["emails"] else None,
            "name": person["name"],
            "note": held["note"],
            "last_updated": datetime.fromisoformat(at) if at else None,
            "status": held["wallet_status"],
        }

    @contextmanager
    def delayed(self, by: timedelta) -> Iterator[None]:
        self.crm.knobs.commit_delay = by.total_seconds()
        yield
        self.crm.knobs.commit_delay = 0.0

    def shorten_pages(self) -> None:
        self.crm.knobs.short_pages = True

    def forget_cursors(self) -> None:
        self.crm.forget_cursors()

    def refuse(self, record_id: str) -> None:
        self.crm.knobs.refused[record_id] = 400, "ERR_SCHEMA_VALIDATION_FAILED"

    def lock(self, record_id: str) -> None:
        self.crm.knobs.refused[record_id] = 500, ""

    def forbidden(self) -> Fault:
        return Fault(Kind.STATUS, status=403, body={"success": False, "error": "no"}, times=None)

    def _given(self, values: Values) -> dict[str, Any]:
        given: dict[str, Any] = {name: value for name, value in values.items() if name == "name"}
        if "email" in values:
            given["emails"] = [{"value": values["email"], "primary": True}] if values["email"] else []
        if "note" in values:
            given["custom_fields"] = {self.keys["note"]: values["note"]}
        return given
