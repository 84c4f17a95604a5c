"""An answer to an HTTP request, whole, and what its headers tell of the server's clock and its wishes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import orjson


@lru_cache(maxsize=256)  # all answers of a second tell the same
def http_date(value: str | None) -> datetime | None:
    """Return the time that a header tells, or None where it tells none."""
    if not value:
        return None
    try:
        parsed = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # a day or a zone that no calendar has
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, headers by lower-case name, and the decoded body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; raises ValueError where it is none."""
        return orjson.loads(self.body)

    @property
    def date(self) -> datetime | None:
        """The server's own clock (`Date` header), or None."""
        return http_date(self.headers.get("date"))

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait (`Retry-After`, a number or a date), or None."""
        value = self.headers.get("retry-after", "").strip()
        try:
            seconds = float(value)
        except ValueError:
            until = http_date(value)
        else:
            return max(0.0, seconds) if math.isfinite(seconds) else None
        return None if until is None else max(0.0, (until - datetime.now(UTC)).total_seconds())
