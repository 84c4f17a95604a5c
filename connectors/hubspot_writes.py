"""Write-backs to HubSpot: batches by record id, with an outcome for every record.

With a trace id each, good records pass beside a bad one; where a batch is refused as a whole all the same, it
is halved until the bad one stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from msgspec.structs import replace

from connectors.hubspot_api import (
    HubSpotApi,
    accepted,
    named_ids,
    objects,
    raise_for_schema,
    reason,
    records,
)
from syncsvc.model import WriteBack, WriteOutcome, Written

BATCH = 100  # object APIs guide 2026-03: at most 100 inputs

_PASSING = frozenset({"RATE_LIMITS", "INTERNAL_ERROR", "SERVICE_UNAVAILABLE"})


class Writes:
    """Writes to the contacts of one account."""

    def __init__(self, api: HubSpotApi) -> None:
        """Make no request yet."""
        self._api = api

    def write(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order.

        Raises SchemaError where a property that is written does not exist or is read-only.
        """
        for start in range(0, len(values), BATCH):
            batch = values[start : start + BATCH]
            outcomes = self._update(batch)
            for value in batch:
                yield outcomes.get(value.record_id) or self._follow(value)

    def _update(self, values: Sequence[WriteBack]) -> dict[str, WriteOutcome]:
        """Return what became of the records that HubSpot's answer names, by the id that was sent."""
        path = f"{self._api.contacts}/batch/update"
        # With a trace id each, the good ones pass beside a bad one (error handling guide 2026-03).
        inputs = [
            {
                "id": value.record_id,
                "objectWriteTraceId": value.record_id,
                "properties": {name: _written(content) for name, content in value.values.items()},
            }
            for value in values
        ]
        answer = self._api.ask("POST", path, json={"inputs": inputs})
        if answer.status in {400, 409, 413}:
            refusal = answer.error
            raise_for_schema(refusal)
            if len(values) > 1:
                middle = len(values) // 2
                return self._update(values[:middle]) | self._update(values[middle:])
            record_id = values[0].record_id
            return {record_id: WriteOutcome(record_id, Written.REFUSED, reason(refusal))}
        document = accepted(answer, f"POST {path}")
        sent = {value.record_id for value in values}
        outcomes = {}
        for error in objects(document.get("errors")):
            raise_for_schema(error)
            result, detail = _result(error)
            for record_id in sent & named_ids(error) or (sent if len(sent) == 1 else set()):
                outcomes[record_id] = WriteOutcome(record_id, result, detail)
        for record in records(document):
            if record["id"] in sent:
                outcomes[record["id"]] = WriteOutcome(record["id"], Written.WRITTEN)
        return outcomes

    def _follow(self, value: WriteBack) -> WriteOutcome:
        """Write a value of which HubSpot's answer said nothing: its record was merged into another.

        A batch update leaves out the ids that were merged away (object APIs guide 2026-03); a read by such
        an id gives the record that lives on.
        """
        path = f"{self._api.contacts}/{quote(value.record_id, safe='')}"
        answer = self._api.ask("GET", path, params={"properties": "hs_object_id"})
        if answer.status == 404:
            return WriteOutcome(value.record_id, Written.GONE)
        lives_as = str(accepted(answer, f"GET {path}").get("id"))
        outcome = self._update([replace(value, record_id=lives_as)]).get(lives_as)
        if outcome is None:
            return WriteOutcome(value.record_id, Written.RETRY, "HubSpot did not say what became of it")
        merged = outcome.result is Written.WRITTEN and lives_as != value.record_id
        return replace(outcome, result=Written.MERGED) if merged else outcome


def _result(error: Mapping[str, Any]) -> tuple[Written, str]:
    category = error.get("category")
    if category == "OBJECT_NOT_FOUND":
        return Written.GONE, ""
    return Written.RETRY if category in _PASSING else Written.REFUSED, reason(error)


def _written(content: str | datetime) -> str:
    return content if isinstance(content, str) else _time(content)


@lru_cache(maxsize=BATCH)  # members of one import have one time
def _time(content: datetime) -> str:
    return content.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
