"""Deletions of one Salesforce object that polls do not see: records that left the recycle bin before one.

Such a record is in no query any more; `getDeleted` still lists its id, for 15 days, fewer where the log of
deletions grows large (REST API guide, 2026). Its list is a hint: what is really gone, what only lies in the
bin and what is back is asked of a query. What it does not tell is left to sweeps, which need no list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from connectors.salesforce_api import Session
from connectors.salesforce_records import ID, Records, literal
from syncsvc.errors import CredentialsError, LostAnswerError, OperatorError
from syncsvc.model import Contact

REACH = timedelta(days=14)
"""How far back is asked: 15 days are kept (REST API guide, 2026)."""

LEAST_SPAN = timedelta(minutes=2)
"""The shortest stretch that is asked for: it must be more than a minute, of which seconds do not count."""

MOST = 10_000
"""Deletions of one look; more are left to the next sweep."""

AT_ONCE = 300
"""Ids of one query: a quoted id takes 27 bytes of a URL."""


class Deletions:
    """What the org's log of deletions tells of one object."""

    def __init__(self, session: Session, records: Records) -> None:
        """Make no request yet."""
        self._session = session
        self._records = records

    def between(
        self, since: datetime | None, until: datetime, *, persons: bool
    ) -> tuple[list[Contact], datetime]:
        """Return the records that were deleted and are not back, and up to when that is told.

        None asks for as long as the org remembers. Where the org does not tell, nobody is gone and all is
        taken for told; raises TransientError for passing trouble, CredentialsError.
        """
        end = _minute(until)
        start = _minute(max(since or until - REACH, until - REACH))
        if end - start < LEAST_SPAN:
            return [], start
        path = f"sobjects/{self._records.name}/deleted"
        try:
            body = self._session.call("GET", path, params={"start": literal(start), "end": literal(end)}).body
        except CredentialsError:
            raise
        except OperatorError:
            return [], end  # an object without such a log, or too many ids for one answer
        ids, covered = _read(body, path)
        if len(ids) > MOST:
            return [], end
        gone: list[Contact] = []
        for place in range(0, len(ids), AT_ONCE):
            gone += self._gone(ids[place : place + AT_ONCE], persons=persons)
        # A transaction that runs may yet bring deletions from before the end: the next look begins there.
        return gone, min(max(covered, start), end)

    def _gone(self, ids: Sequence[str], *, persons: bool) -> list[Contact]:
        """Return those of the records that are in the bin, with what they were merged into, or nowhere."""
        found = {record["Id"]: record for record in self._records.states(ids, persons=persons)}
        return [
            Contact(record_id, {}, gone=True, merged_into=found.get(record_id, {}).get("MasterRecordId"))
            for record_id in ids
            if record_id not in found or found[record_id]["IsDeleted"]
        ]


def _read(body: Any, path: str) -> tuple[list[str], datetime]:
    try:
        ids = dict.fromkeys(str(entry["id"]) for entry in body["deletedRecords"])
        covered = datetime.fromisoformat(body["latestDateCovered"])
    except (TypeError, KeyError, ValueError) as error:
        raise LostAnswerError(f"GET {path}: the answer is no list of deletions") from error
    if covered.tzinfo is None or not all(re.fullmatch(ID, record_id) for record_id in ids):
        raise LostAnswerError(f"GET {path}: the answer is no list of deletions")
    return list(ids), covered


def _minute(at: datetime) -> datetime:
    return at.replace(second=0, microsecond=0)
