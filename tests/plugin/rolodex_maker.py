"""A simulated Rolodex account for the conformance suite."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from rolodex_simulator import BATCH, PAGE, RolodexSimulator
from syncsvc_rolodex import Rolodex

from syncsvc.remote.connector import ConnectorType
from syncsvc.sandbox.faults import Fault, FaultPlan, Kind
from syncsvc.testing import Feature, Ground, Maker
from syncsvc.testing.maker import Values

KEY = "rolodex-hush"


class RolodexMaker(Maker):
    type = "rolodex"
    features = frozenset(Feature) - {
        Feature.LATE,
        Feature.LOOKS,
        Feature.MERGE,
        Feature.MERGED_WRITES,
        Feature.SHORT_PAGES,
        Feature.EXPIRY,
    }
    names: ClassVar[Mapping[str, str]] = {"email": "mail", "name": "name", "note": "note"}
    written: ClassVar[Mapping[str, str]] = {"last_updated": "wallet_at", "status": "wallet_status"}
    page = PAGE
    batch = BATCH
    secrets = (KEY,)
    limits: ClassVar[Mapping[str, Fault]] = {
        "told": Fault(Kind.STATUS, status=429, headers={"Retry-After": "3"}),
        "untold": Fault(Kind.STATUS, status=429),
    }

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        self.crm = RolodexSimulator(key=KEY, clock=self.clock)
        ground.stage.serving = self.crm.app
        self._key = folder / "key"
        self._key.write_text(KEY, encoding="utf-8")
        self._ids = itertools.count(1)
        self._deleted: dict[str, dict[str, str]] = {}

    @property
    def faults(self) -> FaultPlan:
        return self.crm.faults

    def connector_type(self) -> ConnectorType:
        return Rolodex

    def settings(self) -> dict[str, Any]:
        return {"url": self.ground.url, "key": {"file": str(self._key)}}

    def put(self, contacts: Sequence[Values]) -> list[str]:
        made = [str(next(self._ids)) for _ in contacts]
        for record_id, values in zip(made, contacts, strict=True):
            self.edit([record_id], values)
        return made

    def edit(self, record_ids: Sequence[str], values: Values) -> None:
        for record_id in record_ids:
            self.crm.put(record_id, **{self.names[name]: value or "" for name, value in values.items()})

    def delete(self, record_id: str) -> None:
        self._deleted[record_id] = self.crm.delete(record_id)

    def restore(self, record_id: str) -> None:
        self.crm.put(record_id, **self._deleted.pop(record_id))

    def vanish(self, record_id: str) -> None:
        self.crm.erase(record_id)

    def refuse(self, record_id: str) -> None:
        self.crm.states[record_id] = "invalid"

    def lock(self, record_id: str) -> None:
        self.crm.states[record_id] = "busy"

    def holds(self, record_id: str) -> Mapping[str, str | datetime | None]:
        record = self.crm.records[record_id]
        told = {name: record[field] or None for name, field in {**self.names, **self.written}.items()}
        at = told["last_updated"]
        return {**told, "last_updated": datetime.fromisoformat(at) if at else None}
