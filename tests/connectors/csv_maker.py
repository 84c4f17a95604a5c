"""A folder with an exported file for the conformance suite, edited as a program does that exports anew."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar

from syncsvc.testing import Feature, Ground, Maker
from syncsvc.testing.maker import Values

KEY = "Customer"


class CsvMaker(Maker):
    """One file with semicolons and a byte order mark, as Excel writes it; replaced with every change."""

    type = "csv"
    features = frozenset({Feature.SCHEMA, Feature.RESTORE, Feature.VANISH})
    names: ClassVar[Mapping[str, str]] = {"email": "E-mail", "name": "Name", "note": "Note"}
    written: ClassVar[Mapping[str, str]] = {"last_updated": "Wallet time", "status": "Wallet status"}
    page = 500
    batch = 100

    def __init__(self, ground: Ground, folder: Path) -> None:
        super().__init__(ground, folder)
        self.path = folder / "members.csv"
        self.rows: dict[str, dict[str, str]] = {}
        self._deleted: dict[str, dict[str, str]] = {}
        self._ids = itertools.count(1)
        self.export()

    def settings(self) -> dict[str, Any]:
        return {"path": str(self.path), "key": KEY}

    def export(self) -> None:
        """Write everything into a new file, then let it take the place of the old one."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=";")
        writer.writerow([KEY, *self.names.values(), "Unused"])
        for key, row in self.rows.items():
            writer.writerow([key, *(row.get(name, "") for name in self.names), "x"])
        new = self.path.with_suffix(".part")
        new.write_text(text.getvalue(), encoding="utf-8-sig", newline="")
        new.replace(self.path)

    def put(self, contacts: Sequence[Values]) -> list[str]:
        made = [f"C-{next(self._ids):05}" for _ in contacts]
        self.rows |= {key: _cells(values) for key, values in zip(made, contacts, strict=True)}
        self.export()
        return made

    def edit(self, record_ids: Sequence[str], values: Values) -> None:
        for key in record_ids:
            self.rows[key] = {**self.rows[key], **_cells(values)}
        self.export()

    def delete(self, record_id: str) -> None:
        self._deleted[record_id] = self.rows.pop(record_id)
        self.export()

    vanish = delete

    def restore(self, record_id: str) -> None:
        self.rows[record_id] = self._deleted.pop(record_id)
        self.export()

    def holds(self, record_id: str) -> Mapping[str, str | datetime | None]:
        row = self.rows[record_id]
        told = self.results().get(record_id, {})
        at = told.get(self.written["last_updated"])
        return {
            **{name: row.get(name) or None for name in self.names},
            "last_updated": datetime.fromisoformat(at) if at else None,
            "status": told.get(self.written["status"]) or None,
        }

    def results(self) -> dict[str, dict[str, str]]:
        """Return the results file as people read it."""
        path = self.path.with_name("members.results.csv")
        if not path.exists():
            return {}
        with path.open(encoding="utf-8-sig", newline="") as file:
            return {row[KEY]: row for row in csv.DictReader(file, delimiter=";")}


def _cells(values: Values) -> dict[str, str]:
    return {name: value or "" for name, value in values.items()}
