"""Write back: CRM records that differ from what the wallet says are made to agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from syncsvc.errors import StoppedError
from syncsvc.model import WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Connector
from syncsvc.rules.brakes import Allowed
from syncsvc.state.database import from_ms
from syncsvc.state.write_backs import DueWrite, WriteBacks

_PAGE = 20_000
"""Records of one call: a file is written anew with each, and this many are no burden for the memory."""
_LOOK_EVERY = 200
"""So many go by before it is looked whether to stop: whole calls, where one writes many."""
_RECORD_EVERY = 3 * _LOOK_EVERY
"""So many at most are written again after a death; fewer to a transaction cost more than themselves."""


def write_back(
    connector: Connector,
    connector_id: int,
    *,
    fields: Mapping[str, str],
    allowed: Allowed,
    write_backs: WriteBacks,
    now: Callable[[], datetime],
    stopping: Callable[[], bool],
) -> Counter[Written]:
    """Write every value that differs, and nothing else; returns the outcomes.

    `fields` are the CRM fields by fact, `allowed` is what brakes let flow. Outcomes are stored as the CRM
    answers, so that what was written before an error is known. Where a record's values are refused, its
    `last_updated` is written without the status that may be the reason. Raises what the connector raises, and
    StoppedError between some of them.
    """
    outcomes: Counter[Written] = Counter()
    after = ""
    while True:
        due, after = write_backs.due(
            connector_id,
            allowed,
            now=now(),
            after=after,
            limit=_PAGE,
            time="last_updated" in fields,
            status="status" in fields,
        )
        write_backs.nothing_to_write(connector_id, [value.record_id for value in due if not value.differs])
        differing = [value for value in due if value.differs]
        outcomes += _write(connector, connector_id, differing, fields, write_backs, now, stopping)
        if not after:
            return outcomes
        if stopping():
            raise StoppedError("asked to stop while writing back")


def _write(
    connector: Connector,
    connector_id: int,
    due: list[DueWrite],
    fields: Mapping[str, str],
    write_backs: WriteBacks,
    now: Callable[[], datetime],
    stopping: Callable[[], bool],
) -> Counter[Written]:
    outcomes: Counter[Written] = Counter()
    if not due:
        return outcomes
    told: list[tuple[DueWrite, WriteOutcome]] = []
    try:
        for value, outcome in _answers(connector, due, fields):
            told.append((value, outcome))
            outcomes[outcome.result] += 1
            if value.time_taken:
                outcomes[Written.WRITTEN] += 1
            if len(told) % _LOOK_EVERY:
                continue
            if len(told) >= _RECORD_EVERY:
                write_backs.record(connector_id, told, now=now())
                told = []
            if stopping():
                raise StoppedError("asked to stop while writing back")
    finally:
        if told:
            write_backs.record(connector_id, told, now=now())
    return outcomes


def _answers(
    connector: Connector, due: Sequence[DueWrite], fields: Mapping[str, str]
) -> Iterator[tuple[DueWrite, WriteOutcome]]:
    """Yield what became of each value; those of which the time alone may be taken come last."""
    parted = []
    for value, outcome in _told(connector, due, fields):
        refused = outcome.result is Written.REFUSED
        if refused and value.last_updated is not None and value.status is not None:
            parted.append((value, outcome))
        else:
            yield value, outcome
    times = [value._replace(status=None) for value, _ in parted]
    for (value, refusal), (_, outcome) in zip(parted, _told(connector, times, fields), strict=True):
        if outcome.result is Written.WRITTEN:
            yield value._replace(time_taken=True), refusal
        elif outcome.result is Written.REFUSED:
            yield value, refusal
        else:
            yield value._replace(status=None), outcome


def _told(
    connector: Connector, due: Sequence[DueWrite], fields: Mapping[str, str]
) -> Iterator[tuple[DueWrite, WriteOutcome]]:
    return zip(due, connector.write_back([_values(value, fields) for value in due]), strict=True)


def _values(due: DueWrite, fields: Mapping[str, str]) -> WriteBack:
    values: dict[str, str | datetime] = {}
    if due.last_updated is not None:
        values[fields["last_updated"]] = from_ms(due.last_updated)
    if due.status is not None:
        values[fields["status"]] = due.status
    return WriteBack(due.record_id, values)
