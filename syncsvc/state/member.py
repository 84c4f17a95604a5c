"""A member row while it is being worked on."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from syncsvc.state.payloads import OF_MEMBER
from syncsvc.state.tables import MEMBER, PAYLOAD


@dataclass(slots=True, eq=False)
class Member:
    """A member row in memory; `id` is None until it is inserted.

    `awaited` says that it was inserted here, and that its first row is still to be sent.
    """

    id: int | None
    brand: int
    email_key: str
    email: str | None = None
    owner_connector: int | None = None
    owner_record: str | None = None
    wanted: bytes | None = None
    delivered: bytes | None = None
    refused: bytes | None = None
    payload: bytes | None = None
    earned: int = 0
    credited: int = 0
    unsettled: int = 0
    introduced: int = 0
    first_read: int = 0
    expired: int = 0
    awaited: bool = False


_STORED = [
    PAYLOAD.c.content if it == "payload" else MEMBER.c[it] for it in Member.__slots__ if it != "awaited"
]
MEMBERS = select(*_STORED).outerjoin_from(MEMBER, PAYLOAD, OF_MEMBER)
"""Members as `Member` takes them."""
KEPT = (
    "owner_connector",
    "owner_record",
    "wanted",
    "delivered",
    "refused",
    "earned",
    "credited",
    "unsettled",
    "introduced",
    "expired",
)
"""The columns that change while a page is stored, beside the payload."""
