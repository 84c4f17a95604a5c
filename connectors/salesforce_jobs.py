"""Query jobs of Salesforce's Bulk API 2.0: many records for few calls, later, as CSV and in no order.

What an org does not keep or carry out is no error here but LostJobError: queries bring the same records.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from connectors.salesforce_api import Reply, Session
from syncsvc.errors import CredentialsError, LostAnswerError, OperatorError, SchemaError, TransientError
from syncsvc.model import FieldValue
from syncsvc.remote.transport import Network

PAGE = 10_000
"""Records of one page of results: some megabytes, where a query brings 2,000 at most."""

PATIENCE = timedelta(hours=6)
"""How old a job may grow before it is aborted; small ones take seconds, huge ones many minutes."""

_PAUSES = (2.0, 4.0, 8.0, 16.0, *[30.0] * 9)  # five minutes in all, for one cycle


class LostJobError(Exception):
    """The org does not know the job any more, or has not carried it out."""


@dataclass(frozen=True, slots=True)
class Results:
    """A page of results: the columns' names, rows of texts, and where the next page begins, "" at the end."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    following: str


class Jobs:
    """The query jobs of one user."""

    def __init__(self, session: Session, network: Network) -> None:
        """Make no request yet."""
        self._session = session
        self._network = network

    def make(self, soql: str) -> tuple[str, datetime]:
        """Have a query carried out; return the job's id, and the org's clock when it was asked.

        Raises LostJobError where the org takes no job: it has no Bulk API, or no more jobs for the day.
        """
        body = {"operation": "query", "query": soql, "columnDelimiter": "COMMA", "lineEnding": "LF"}
        try:
            reply = self._session.call("POST", "jobs/query", json=body)
        except SchemaError:
            raise
        except OperatorError as error:
            raise LostJobError from error
        return str(_told(reply, "id")), reply.asked

    def wait(self, job: str) -> int | None:
        """Return how many records a job has brought, once it has, or None where that is not told.

        Costs a call for each look at it.

        Raises TransientError where that takes more than five minutes, and LostJobError.
        """
        for pause in (*_PAUSES, None):
            reply = self._known(lambda: self._session.call("GET", f"jobs/query/{job}"))
            state = _told(reply, "state")
            if state == "JobComplete":
                count = reply.body.get("numberRecordsProcessed")
                return count if type(count) is int else None
            if state in {"Aborted", "Failed"}:
                raise LostJobError
            if self._session.now() - datetime.fromisoformat(_told(reply, "createdDate")) > PATIENCE:
                with suppress(OperatorError):
                    self._session.call("PATCH", f"jobs/query/{job}", json={"state": "Aborted"})
                raise LostJobError
            if pause is not None:
                self._network.sleep(pause)
        raise TransientError(
            f"Salesforce's bulk query {job} is still running: its results come with a later cycle"
        )

    def results(self, job: str, locator: str) -> Results:
        """Return a page of the results of a job that is complete; `locator` is "" for the first.

        Raises LostJobError too where headers are missing that tell of the next page: a proxy takes them away.
        """
        path, begin = f"jobs/query/{job}/results", {"locator": locator} if locator else {}
        params = {"maxRecords": str(PAGE), **begin}
        reply = self._known(lambda: self._session.table(path, params=params))
        if not {"sforce-numberofrecords", "sforce-locator"} <= reply.headers.keys():
            raise LostJobError
        following = reply.headers["sforce-locator"].replace("null", "")
        try:
            names, *rows = csv.reader(io.StringIO(reply.body, newline=""), strict=True)
            whole = len(rows) == int(reply.headers["sforce-numberofrecords"])
        except (csv.Error, ValueError):
            whole = False
        if not whole or any(len(row) != len(names) for row in rows):
            raise LostAnswerError(f"GET {path}: the answer is not a whole page of results")
        if following == locator and locator:
            raise TransientError(f"GET {path}: the results do not move on")
        return Results(names, rows, following)

    def _known(self, call: Callable[[], Reply]) -> Reply:
        try:
            return call()
        except (CredentialsError, SchemaError):
            raise
        except OperatorError as error:
            raise LostJobError from error


def reader(kind: str) -> Callable[[str], FieldValue]:
    """Return what makes a text of a field of that type into the value that a query brings for it."""
    if kind == "boolean":
        return lambda text: text == "true"
    if kind in {"int", "long"}:
        return lambda text: int(text) if text else None
    if kind in {"double", "currency", "percent"}:
        return lambda text: float(text) if text else None
    if kind == "datetime":
        return lambda text: text.removesuffix("Z") + "+0000" if text.endswith("Z") else text or None
    return lambda text: text or None


def _told(reply: Reply, key: str) -> str:
    try:
        return str(reply.body[key])
    except (TypeError, KeyError) as error:
        raise LostAnswerError("jobs/query: the answer is not that of a job") from error
