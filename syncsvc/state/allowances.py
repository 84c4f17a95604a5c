"""What CRMs told last about the calls they allow in a day, for an operator to look at."""

from __future__ import annotations

from sqlalchemy import bindparam, select

from syncsvc.model import Allowance
from syncsvc.state.database import change_row, to_ms
from syncsvc.state.scope import Scope
from syncsvc.state.tables import CONNECTOR

_TOLD = select(CONNECTOR.c.calls_allowed, CONNECTOR.c.calls_left).where(
    CONNECTOR.c.id == bindparam("b_connector")
)


class Allowances:
    """The transactions of keeping allowances."""

    def __init__(self, scope: Scope) -> None:
        """Work within one organization."""
        self._scope = scope

    def keep(self, connector_id: int, allowance: Allowance) -> bool:
        """Remember an allowance where it is news; returns whether it is.

        A change below a hundredth of what is allowed is none: a cycle with nothing to do writes nothing.
        """
        with self._scope.database.reading() as connection:
            allowed, left = connection.execute(_TOLD, {"b_connector": connector_id}).one()
        if allowed is not None and _share(left, allowed) == _share(allowance.left, allowance.allowed):
            return False
        told = {
            "calls_allowed": allowance.allowed,
            "calls_left": allowance.left,
            "calls_told_at": to_ms(allowance.told_at),
        }
        with self._scope.database.writing() as connection:
            change_row(connection, CONNECTOR, connector_id, told)
        return True


def _share(left: int, allowed: int) -> tuple[int, int]:
    return allowed, 100 * left // max(1, allowed)
