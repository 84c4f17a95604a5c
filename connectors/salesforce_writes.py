"""Writing facts back onto the records of a Salesforce org, in collections of 200."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from msgspec.structs import replace

from connectors.salesforce_api import Session
from connectors.salesforce_records import ID, MERGEABLE, Records, literal
from syncsvc.errors import LostAnswerError, SchemaError
from syncsvc.model import WriteBack, WriteOutcome, Written

CHUNK = 200
"""Records of one collection update (REST guide, sObject Collections, v67.0)."""

MAX_HALVINGS = 32
"""How often `TOGETHER` chunks are halved that a trigger fails: enough to single out four records."""

TOGETHER = 5
"""Chunks that share their halvings, so that a trigger which fails for all costs a bounded number of calls."""

# A converted lead takes no value any more; the contact that it has become does (help 000384333, 2026-11).
_CONVERTED = "CANNOT_UPDATE_CONVERTED_LEAD"
_LOST = {"ENTITY_IS_DELETED", "NOT_FOUND", "INVALID_CROSS_REFERENCE_KEY"}
_UNWRITABLE = {"INVALID_FIELD", "INVALID_FIELD_FOR_INSERT_UPDATE"}
_TRIGGER_FAILED = "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"
# Else an assignment rule hands the record to somebody else, and a duplicate rule refuses the write.
_WRITE_HEADERS = {"Sforce-Auto-Assign": "FALSE", "Sforce-Duplicate-Rule-Header": "allowSave=true"}


@dataclass(frozen=True, slots=True)
class _Result:
    """What became of one record of a collection update."""

    codes: frozenset[str]
    fields: frozenset[str]

    @classmethod
    def of(cls, item: Mapping[str, Any]) -> Self:
        errors = [] if item["success"] else item["errors"]
        fields = {str(name) for error in errors for name in error.get("fields") or ()}
        return cls(frozenset(str(error["statusCode"]) for error in errors), frozenset(fields))

    def outcome(self, record_id: str) -> WriteOutcome:
        named = f" ({', '.join(sorted(self.fields))})" if self.fields else ""
        detail = ", ".join(sorted(self.codes)) + named
        if not self.codes:
            return WriteOutcome(record_id, Written.WRITTEN)
        if self.codes & {*_LOST, "MALFORMED_ID", _CONVERTED}:
            return WriteOutcome(record_id, Written.GONE, detail)
        if self.codes == {"UNABLE_TO_LOCK_ROW"}:
            return WriteOutcome(record_id, Written.RETRY, detail)
        return WriteOutcome(record_id, Written.REFUSED, detail)


class Writes:
    """Writes to the records of one object."""

    def __init__(self, session: Session, name: str, *, fields: Collection[str], records: Records) -> None:
        """Make no request yet; `name` is the object's, `fields` are those that are written at all."""
        self._session = session
        self._object = name
        self._fields = fields
        self._records = records

    def write(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order; see `Connector.write_back`.

        A record that was merged away passes its values on to the one it was merged into, unless that one is
        written in the same call. Raises SchemaError where a field cannot be written on any record.
        """
        known = {value.record_id for value in values}
        for at in range(0, len(values), TOGETHER * CHUNK):
            yield from self._write(values[at : at + TOGETHER * CHUNK], known=known)

    def _write(self, values: Sequence[WriteBack], *, known: Collection[str]) -> Iterator[WriteOutcome]:
        waiting = deque(values[at : at + CHUNK] for at in range(0, len(values), CHUNK))
        halvings = MAX_HALVINGS
        while waiting:
            chunk = waiting.popleft()
            results = self._update(chunk)
            failed = [result for result in results if _TRIGGER_FAILED in result.codes]
            if halvings and len(failed) > 1 and all(result.codes for result in results):
                # One record can make a trigger fail for all that came with it.
                halvings -= 1
                waiting.extendleft([chunk[len(chunk) // 2 :], chunk[: len(chunk) // 2]])
                continue
            yield from self._outcomes(chunk, results, known=known)

    def _update(self, chunk: Sequence[WriteBack]) -> list[_Result]:
        records = [
            {"attributes": {"type": self._object}, "id": value.record_id}
            | {name: _wire(content) for name, content in value.values.items()}
            for value in chunk
        ]
        body = {"allOrNone": False, "records": records}
        reply = self._session.call("PATCH", "composite/sobjects", json=body, headers=_WRITE_HEADERS)
        try:
            # By position: a failed item need not name its record.
            results = [_Result.of(item) for item, _ in zip(reply.body, chunk, strict=True)]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise LostAnswerError(
                "PATCH composite/sobjects: the answer has not one result per record"
            ) from error
        if all(result.codes & _UNWRITABLE for result in results):
            fields = sorted({name for result in results for name in result.fields} or self._fields)
            raise SchemaError(
                f"{self._object}: {', '.join(fields)} cannot be written: give the user edit access to it",
                fields=fields,
            )
        return results

    def _outcomes(
        self, chunk: Sequence[WriteBack], results: Sequence[_Result], *, known: Collection[str]
    ) -> Iterator[WriteOutcome]:
        pairs = list(zip(chunk, results, strict=True))
        # Whether a record was merged or truly deleted, only its row in the recycle bin tells.
        masters = self._masters([value.record_id for value, result in pairs if result.codes & _LOST])
        moved: dict[str, WriteBack] = {}
        for value in chunk:
            master = masters.get(value.record_id[:15])
            if master and master not in known:
                moved.setdefault(master, WriteBack(master, value.values))
        anew = dict(zip(moved, self._write(list(moved.values()), known={*known, *moved}), strict=True))
        for value, result in pairs:
            master = masters.get(value.record_id[:15])
            if master is None:
                yield result.outcome(value.record_id)
                continue
            there = anew.get(master, WriteOutcome(master, Written.MERGED))
            yield replace(there, result=Written.MERGED) if there.result is Written.WRITTEN else there

    def _masters(self, record_ids: Sequence[str]) -> dict[str, str]:
        """Return, by the first 15 characters of their ids, what the merged ones among the records became."""
        wanted = [f"'{record_id}'" for record_id in record_ids if re.fullmatch(ID, record_id)]
        if not wanted or self._object not in MERGEABLE:
            return {}
        rows = self._records.ask(
            "queryAll", f"SELECT Id, MasterRecordId FROM {self._object} WHERE Id IN ({', '.join(wanted)})"
        )
        return {row["Id"][:15]: row["MasterRecordId"] for row in rows.records if row["MasterRecordId"]}


def _wire(value: str | datetime) -> str:
    return value if isinstance(value, str) else literal(value.replace(microsecond=0))
