"""The batch endpoints of the HubSpot simulator: read, create, update, upsert, archive; at most 100 inputs.

A write with one bad input is refused as a whole and writes nothing, unless every input carries its own
`objectWriteTraceId`: then the bad ones are named in a 207 and the others written (recorded, 2026).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from syncsvc.sandbox.hubspot_answers import (
    Call,
    Reply,
    expect_keys,
    properties_of,
    record_answer,
    record_number,
    written_answer,
)
from syncsvc.sandbox.hubspot_knobs import HubSpotKnobs
from syncsvc.sandbox.hubspot_properties import iso
from syncsvc.sandbox.hubspot_records import Record, Records
from syncsvc.sandbox.hubspot_refusals import (
    Refusal,
    conflict,
    duplicate_ids,
    invalid,
    missing_records,
    not_deserialized,
    not_unique_property,
)

Wrote = Callable[[Record, Mapping[str, str]], None]


@dataclass(slots=True)
class _Write:
    """One input of a write: the record it changes (None = a new one) and the checked values."""

    record: Record | None
    values: dict[str, str] = field(repr=False)


@dataclass(slots=True)
class _Plan:
    """What a batch of writes would do, before any of it is done."""

    writes: list[_Write] = field(default_factory=list)
    refused: list[tuple[Refusal, Mapping[str, Sequence[str]]]] = field(default_factory=list)
    emails: set[str] = field(default_factory=set)


class Batches:
    """The batch endpoints over the records of one account; `wrote` is told of every record written."""

    def __init__(self, records: Records, knobs: HubSpotKnobs, *, wrote: Wrote, seed: int) -> None:
        """Serve `records`; results are shuffled by `seed`, as HubSpot's order means nothing."""
        self._records = records
        self._knobs = knobs
        self._wrote = wrote
        self._random = random.Random(seed)

    def read(self, call: Call) -> Reply:
        """Return the records that are there, and one error naming those that are not."""
        body = call.body()
        history = [str(name) for name in body.get("propertiesWithHistory") or []]
        inputs = self._inputs(
            body,
            allowed={"id"},
            beside={"properties", "propertiesWithHistory", "idProperty"},
            limit=self._knobs.history_page_max if history else self._knobs.batch_max,
        )
        by = body.get("idProperty") or "hs_object_id"
        if by not in {"hs_object_id", "email"}:
            raise not_unique_property()
        ids = self._distinct(inputs)
        archived = call.flag("archived")
        names = [str(name) for name in body.get("properties") or []]
        found: dict[int, Record] = {}
        missing = []
        for given in ids:
            record = (
                self._records.find_email(given)
                if by == "email" and not archived
                else self._records.find(record_number(given), archived=archived)
            )
            if record is None:
                missing.append(given)
            else:
                found[record.id] = record
        results = [record_answer(self._records, record, names, history=history) for record in found.values()]
        return self._reply(200, results, [missing_records(missing)] if missing else [])

    def create(self, call: Call) -> Reply:
        """Add contacts, all or none unless the inputs can be told apart."""
        body = call.body()
        inputs = self._inputs(body, allowed={"properties", "associations", "objectWriteTraceId"})
        plan = _Plan()
        for one in inputs:
            if one.get("associations"):
                raise invalid("Associations are not part of this account")
            with_trace = _trace(one)
            self._add(plan, None, properties_of(one), with_trace, call)
        return self._carry_out(plan, inputs, status=201)

    def update(self, call: Call) -> Reply:
        """Write to contacts by record id.

        An id that another contact has absorbed is passed over in silence: 200, and it is not among the
        results (recorded; "not supported" says the object API guide).
        """
        allowed = {"id", "idProperty", "properties", "objectWriteTraceId"}
        inputs = self._inputs(call.body(), allowed=allowed)
        if any(one.get("idProperty") not in {None, "hs_object_id"} for one in inputs):
            raise not_unique_property()
        plan = _Plan()
        missing: list[str] = []
        traces: list[str] = []
        for given, one in zip(self._distinct(inputs), inputs, strict=True):
            number = record_number(given)
            record = None if self._records.merged_away(number) else self._records.find(number)
            if record is not None:
                self._add(plan, record, properties_of(one), {"ids": [given], **_trace(one)}, call)
            elif not self._records.merged_away(number):
                missing.append(given)
                traces.extend(_trace(one).get("objectWriteTraceId", []))
        errors = [missing_records(missing, traces)] if missing else []
        return self._carry_out(plan, inputs, status=200, errors=errors)

    def upsert(self, call: Call) -> Reply:
        """Write to contacts by email, making those that are missing; all or none, whatever the trace ids.

        No partial upserts by email: contacts guide 2026-03.
        """
        allowed = {"id", "idProperty", "properties", "objectWriteTraceId"}
        inputs = self._inputs(call.body(), allowed=allowed)
        if any(one.get("idProperty") != "email" for one in inputs):
            raise not_unique_property()
        plan = _Plan()
        for given, one in zip(self._distinct(inputs), inputs, strict=True):
            record = self._records.find_email(given)
            self._add(plan, record, {"email": given, **properties_of(one)}, _trace(one), call)
        if plan.refused:
            raise plan.refused[0][0]
        results = []
        for write in plan.writes:
            answer = self._write(write)
            answer["new"] = write.record is None
            results.append(answer)
        return self._reply(200, results, [])

    def archive(self, call: Call) -> Reply:
        """Put contacts into the recycle bin; those that are not there are passed over."""
        for given in self._distinct(self._inputs(call.body(), allowed={"id"})):
            record = self._records.find(record_number(given))
            if record is not None:
                self._records.archive(record)
        return Reply(204)

    def _inputs(
        self,
        body: dict[str, Any],
        *,
        allowed: set[str],
        beside: set[str] = frozenset(),  # type: ignore[assignment]  # never changed
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        if "inputs" not in body:  # a silent no-op, however much else is in the body (recorded)
            return []
        expect_keys(body, {"inputs"} | beside, self._knobs)
        inputs = body["inputs"]
        if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
            raise not_deserialized("java.util.ArrayList", inputs)
        most = self._knobs.batch_max if limit is None else limit
        if len(inputs) > most:
            what = " for property histories" if limit is not None and most < self._knobs.batch_max else ""
            raise invalid(f"The maximum number of inputs supported in a batch request{what} is {most}")
        for one in inputs:
            expect_keys(one, allowed, self._knobs)
        return inputs

    @staticmethod
    def _distinct(inputs: Sequence[Mapping[str, Any]]) -> list[str]:
        ids = []
        for one in inputs:
            given = one.get("id")
            if not isinstance(given, str | int) or isinstance(given, bool) or given == "":
                raise invalid("Invalid input JSON: some required fields were not set: [id]")
            ids.append(str(given))
        repeated = list(dict.fromkeys(given for given in ids if ids.count(given) > 1))
        if repeated:
            raise duplicate_ids(repeated)
        return ids

    def _add(
        self,
        plan: _Plan,
        record: Record | None,
        raw: Mapping[str, Any],
        context: Mapping[str, Sequence[str]],
        call: Call,
    ) -> None:
        try:
            values = self._records.checked(raw)
            if call.version == "2026-09":
                self._records.require(record, values)
            self._records.claim_email(values, record.id if record else None)
            email = values.get("email", "")
            if email and email in plan.emails:
                raise conflict(None)
            plan.emails.add(email)
        except Refusal as refusal:
            plan.refused.append((refusal, context))
        else:
            plan.writes.append(_Write(record, values))

    def _carry_out(
        self,
        plan: _Plan,
        inputs: Sequence[Mapping[str, Any]],
        *,
        status: int,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> Reply:
        traces = [str(one.get("objectWriteTraceId") or "") for one in inputs]
        told_apart = all(traces) and len(set(traces)) == len(traces)
        if plan.refused and not told_apart:
            raise plan.refused[0][0]
        results = [self._write(write) for write in plan.writes]
        refused = [refusal.entry(context) for refusal, context in plan.refused]
        return self._reply(status, results, [*errors, *refused])

    def _write(self, write: _Write) -> dict[str, Any]:
        now = self._records.now()
        if write.record is None:
            record = self._records.create(write.values, at=now, source="INTEGRATION")
        else:
            record = write.record
            self._records.update(record, write.values, at=now, source="INTEGRATION")
        self._wrote(record, write.values)
        return written_answer(self._records, record, write.values)

    def _reply(self, status: int, results: list[dict[str, Any]], errors: Sequence[Any]) -> Reply:
        if self._knobs.shuffled_batch_results:
            self._random.shuffle(results)
        at = iso(self._records.now())
        body = {"status": "COMPLETE", "startedAt": at, "completedAt": at, "results": results}
        if errors:
            return Reply(207, {**body, "numErrors": len(errors), "errors": list(errors)})
        return Reply(status, body)


def _trace(one: Mapping[str, Any]) -> dict[str, list[str]]:
    trace = one.get("objectWriteTraceId")
    return {"objectWriteTraceId": [str(trace)]} if trace else {}
