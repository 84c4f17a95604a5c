"""The versioned digest of a mapped member, points excluded: what an unchanged contact is compared by.

Keyed with a key of the state database, so that a fingerprint of personal data cannot be guessed from outside.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

import orjson

VERSION = 1
"""Raised whenever the same member would give other bytes; every contact then counts as changed once."""

SIZE = 16
_DIGEST_SIZE = SIZE - 1
_MARK = bytes([VERSION])


class Fingerprinter:
    """Makes fingerprints with one key."""

    def __init__(self, key: bytes) -> None:
        """Use `key`, 16 to 64 bytes."""
        self._keyed = blake2b(digest_size=_DIGEST_SIZE, key=key)

    def member(self, brand_id: str, email_key: str, profile: Mapping[str, str]) -> bytes:
        """Return the fingerprint of a mapped member: 16 bytes, the first one the version."""
        return self._of([brand_id, email_key, profile])

    def absence(self, *words: str) -> bytes:
        """Return the fingerprint of a contact that maps to no member, for the reason in `words`."""
        return self._of(words)

    def row(self, brand_id: str, email_key: str, payload: str) -> bytes:
        """Return the fingerprint of a row as it would be sent, its points excluded."""
        return self._of([brand_id, email_key, payload])

    def _of(self, content: object) -> bytes:
        digest = self._keyed.copy()
        digest.update(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
        return _MARK + digest.digest()
