"""Sweeps of one Salesforce object: by queries in the order of ids, past many records by one bulk query.

Small orgs never pay for the bulk query: it begins where queries have brought `bulk_above` records. Its
records come in no order, so that what is left of it can be read on from a locator alone. Where the org does
not carry it out, or has forgotten it, queries bring everything from where it began.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Self

from connectors import salesforce_schema
from connectors.salesforce_jobs import Jobs, LostJobError, Results, reader
from connectors.salesforce_records import CONVERTIBLE, ID, Records
from connectors.salesforce_schema import Description
from syncsvc.errors import CursorError, LostAnswerError
from syncsvc.model import Contact, FieldValue, Page
from syncsvc.remote.window import Look, PollCursor

_NOT_BEGUN = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS = (("read", 0), ("after", ""), ("job", ""), ("locator", ""))
_MARK = re.compile(r"[\w=+/-]{1,200}", re.ASCII)

Readers = Mapping[str, Callable[[str], FieldValue]]
"""What makes the text of a field into its value, by the field."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a sweep stands: records up to the id `after` are read; `read` of them, by queries.

    `job` is the bulk query that brings the rest, `locator` where its results go on. `start` is the org's
    clock when the sweep began. `persons` says that records of person accounts are told apart, `queries` that
    no bulk query is to be tried.
    """

    start: datetime = _NOT_BEGUN
    after: str = ""
    read: int = 0
    job: str = ""
    locator: str = ""
    persons: bool = False
    queries: bool = False

    def begun(self, asked: datetime) -> Self:
        """Return it with the time of the first call, as the org told it, where this was the first."""
        return replace(self, start=asked) if self.start == _NOT_BEGUN else self

    def by_queries(self) -> Self:
        """Return it without a bulk query, from where that began."""
        return replace(self, job="", locator="", queries=True)

    def encode(self) -> str:
        """Return it as a cursor."""
        data = {"sweep": round(self.start.timestamp() * 1000), "after": self.after, "read": self.read}
        more = {name: it for name in ("job", "locator", "persons", "queries") if (it := getattr(self, name))}
        return json.dumps(data | more)

    @classmethod
    def parse(cls, cursor: str) -> Self | None:
        """Return the position that `encode` wrote, None for a cursor that is of no sweep."""
        try:
            data = json.loads(cursor)
            if "sweep" not in data:
                return None
            start = datetime.fromtimestamp(data["sweep"] / 1000, UTC)
            read, after, job, locator = (data.get(*it) for it in _PARTS)
            known = type(read) is int and (after or job) and (job or not locator)
            known = known and (not after or re.fullmatch(ID, after)) and (not job or re.fullmatch(ID, job))
            known = known and (not locator or _MARK.fullmatch(locator))
        except (ValueError, TypeError, OverflowError, OSError) as error:
            raise CursorError("the stored cursor is not one of this connector's") from error
        if not known:
            raise CursorError("the stored cursor is not one of this connector's")
        return cls(start, after, read, job, locator, bool(data.get("persons")), bool(data.get("queries")))


class Sweep:
    """Reads every live record of one object."""

    def __init__(
        self,
        records: Records,
        jobs: Jobs,
        *,
        overlap: timedelta,
        every: timedelta,
        bulk_above: int,
        describe: Callable[[str], Description],
    ) -> None:
        """Make no request yet; `describe` asks for an object's description, `every` is as in `Polls`."""
        self._records = records
        self._jobs = jobs
        self._overlap = overlap
        self._every = every
        self._bulk_above = bulk_above
        self._describe = describe

    def pages(self, at: Position) -> Iterator[Page]:
        """Yield what is left of a sweep; raises SchemaError where a field is missing."""
        living = ["IsConverted = FALSE"] if self._records.name == CONVERTIBLE else []
        readers = cache(self._readers)
        while True:
            if at.job and (known := readers()):
                at, done = yield from self._results(at, known)
                if done:
                    return
            elif at.job:
                at = at.by_queries()
            where = [*living, f"Id > '{at.after}'"] if at.after else living
            if at.read >= self._bulk_above and not at.queries:
                at = self._with_job(at, where) if readers() else at.by_queries()
                if at.job:
                    yield Page([], at.encode())  # so that a later cycle goes on with this job
                    continue
            rows = self._records.query("query", where, "Id", persons=at.persons)
            at = replace(at.begun(rows.asked), read=at.read + len(rows.records))
            if rows.last:
                yield Page(self._records.contacts(rows), self._polling(at))
                return
            at = replace(at, after=rows.records[-1]["Id"])
            yield Page(self._records.contacts(rows), at.encode())

    def _with_job(self, at: Position, where: list[str]) -> Position:
        """Return the position with a bulk query for what `where` says, or without: the org may take none."""
        try:
            job, asked = self._jobs.make(self._records.select(where, persons=at.persons))
        except LostJobError:
            return at.by_queries()
        return replace(at.begun(asked), job=job)

    def _results(self, at: Position, readers: Readers) -> Generator[Page, None, tuple[Position, bool]]:
        """Yield what is left of the bulk query; return where to go on, and whether that is the end."""
        try:
            brought = None if at.locator else self._jobs.wait(at.job)
            expected = None if brought is None else at.read + brought
            while True:
                results = self._jobs.results(at.job, at.locator)
                contacts = self._contacts(results, readers)
                if not results.following:
                    yield Page(contacts, self._polling(at), expected)
                    return at, True
                at = replace(at, locator=results.following)
                yield Page(contacts, at.encode(), expected)
        except LostJobError:
            return at.by_queries(), False

    def _polling(self, at: Position) -> str:
        since = at.start - self._overlap
        poll = PollCursor(
            since,
            read=at.start,
            recheck=at.start + self._overlap / 2,
            look=Look(since, due=at.start + self._every, every=self._every),
        )
        return self._records.cursor(poll, persons=at.persons)

    def _readers(self) -> Readers | None:
        """Return what reads each field from its text, None where the type of a field cannot be known."""
        describe = cache(self._describe)
        kinds = {
            path: salesforce_schema.kind(self._records.name, path, describe) for path in self._records.fields
        }
        return None if None in kinds.values() else {path: reader(str(kind)) for path, kind in kinds.items()}

    def _contacts(self, results: Results, readers: Readers) -> list[Contact]:
        places = {name.casefold(): place for place, name in enumerate(results.names)}
        try:
            columns = [(path, places[path.casefold()], read) for path, read in readers.items()]
            own = places["id"]
            return [
                Contact(row[own], {path: read(row[place]) for path, place, read in columns})
                for row in results.rows
            ]
        except (KeyError, ValueError) as error:
            raise LostAnswerError("jobs/query: the results are not those of the query") from error
