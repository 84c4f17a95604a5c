"""Locks on a server: it gives them up by itself when their connection or transaction is gone.

Advisory locks: postgresql.org/docs/15/explicit-locking.html#ADVISORY-LOCKS.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from hashlib import blake2b
from typing import Any

from sqlalchemy import Engine


def key_of(schema: int, what: str) -> int:
    """Return the number of a lock: of `what`, in the tables of one schema."""
    digest = blake2b(f"syncsvc {schema} {what}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@contextlib.contextmanager
def alone(engine: Engine, schema: int, what: str) -> Iterator[None]:
    """Let one process at a time do `what`, waiting for another one that does."""
    key = key_of(schema, what)
    pooled = engine.raw_connection()
    connection: Any = pooled.driver_connection
    pooled.detach()  # the engine may be emptied meanwhile
    with contextlib.closing(connection):
        connection.execute(f"SELECT pg_advisory_lock({key})")
        yield
