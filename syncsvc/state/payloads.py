"""Payloads: what a member's next row would carry, kept only as long as it may have to be sent.

    {"profile": {...}, "mails": [...]}     JSON, as the map made it of the contact that owns the member

In a table of their own, whose pages the rows of batches and of the ledger take over as members are delivered;
within the members' rows, each would leave a hole for good.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Connection, Delete, delete, exists, func, select

from syncsvc.state.bulk import insert_rows, update_rows
from syncsvc.state.tables import MEMBER, PAYLOAD

OF_MEMBER = PAYLOAD.c.member_id == MEMBER.c.id
"""The condition that joins a member and its payload."""
AT_HAND = exists(select(PAYLOAD.c.member_id).where(OF_MEMBER).correlate(MEMBER))
"""The condition for members whose payload is at hand."""

_SILENT = b'"mails":[]}'
_MAILS = func.substr(PAYLOAD.c.content, func.length(PAYLOAD.c.content) - len(_SILENT) + 1)
ASKS_FOR_MAILS = exists(select(PAYLOAD.c.member_id).where(OF_MEMBER, _MAILS != _SILENT).correlate(MEMBER))
"""The condition for members whose payload asks for mails."""

_PUT = insert_rows(PAYLOAD, ("member_id", "content"), replacing=True)
_SILENCED = update_rows(PAYLOAD, ("member_id",), ("content",))


def make(profile: Any, mails: Any) -> bytes:
    """Return the content of a payload."""
    # What orjson gives is a kilobyte at first: room for a page of those costs more than they do.
    return b'{"profile":%b,"mails":%b}' % (orjson.dumps(profile), orjson.dumps(mails))


def put(connection: Connection, contents: Iterable[tuple[int | None, bytes | None]]) -> None:
    """Store payloads by member, each in the place of an older one; None leaves it as it is."""
    _PUT.run(connection, [it for it in contents if it[1] is not None])


def dropped(*members: ColumnElement[bool]) -> Delete:
    """Return the statement that drops the payloads of the members for whom all these conditions hold."""
    return delete(PAYLOAD).where(PAYLOAD.c.member_id.in_(select(MEMBER.c.id).where(*members)))


def silence(connection: Connection, contents: Iterable[tuple[int, bytes]]) -> None:
    """Take the mails out of payloads, given by member."""
    read = [(member, orjson.loads(content)) for member, content in contents]
    _SILENCED.run(connection, [(make(it["profile"], []), member) for member, it in read if it["mails"]])
