"""What people were told last by alerts: a restart is no news."""

from __future__ import annotations

from typing import Any

import orjson
from sqlalchemy import select

from syncsvc.state.bulk import put_rows
from syncsvc.state.scope import Scope
from syncsvc.state.tables import META

_PUT = put_rows(META)


class Alerted:
    """The transactions of remembering what was told."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope
        self._name = f"alerted:{scope.organization_id}"

    def read(self) -> dict[str, Any]:
        """Return what was saved last, nothing where nothing was."""
        with self._scope.database.reading() as connection:
            found = connection.scalar(select(META.c.value).where(META.c.name == self._name))
        told: dict[str, Any] = {} if found is None else orjson.loads(found)
        return told

    def save(self, told: dict[str, Any]) -> None:
        """Remember what was told; nothing is written where it is the same as before."""
        if told != self.read():
            with self._scope.database.writing() as connection:
                connection.execute(_PUT, {"name": self._name, "value": orjson.dumps(told)})
