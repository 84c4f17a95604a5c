"""Settling: what an answer proves about a batch, and what the import log proves about a row in doubt.

The wallet has no idempotency key, so a points row is sent again only on proof that it was not applied. Two
pure functions decide: `read_answer` for what came back at once, `weigh` for what the log shows later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from http import HTTPStatus
from typing import Any


class Verdict(StrEnum):
    """What an answer proves about the batch it answers."""

    LANDED = "landed"  # every row was applied
    REFUTED = "refuted"  # no row was applied
    DOUBT = "doubt"  # anything can have happened; the log will tell
    ROWS_REFUSED = "rows_refused"  # the rows in `refused` were not; the others are in doubt
    UNREADABLE = "unreadable"  # refused as a whole without naming a row: in doubt, then halved


class Then(StrEnum):
    """What the delivery does next, whatever the verdict."""

    GO_ON = "go_on"
    WAIT = "wait"  # the wallet asks for patience: end the delivery, obey `retry_after`
    PAUSE = "pause"  # a person must act (credentials, path, organization): end the delivery
    SMALLER = "smaller"  # the request was too large: halve the batch size


@dataclass(frozen=True, slots=True)
class Reading:
    """How an answer was read; `detail` is for logs and holds no personal data."""

    verdict: Verdict
    then: Then = Then.GO_ON
    refused: Mapping[int, str] | None = None
    import_id: str | None = None
    imported: int | None = None
    detail: str = ""


_NOT_APPLIED = {
    HTTPStatus.UNAUTHORIZED: (Then.PAUSE, "the token is not accepted"),
    HTTPStatus.FORBIDDEN: (
        Then.PAUSE,
        "the token lacks the ability `import`, or may not act for this organization",
    ),
    HTTPStatus.NOT_FOUND: (Then.PAUSE, "there is no such path: check wallet.base_url and wallet.import_path"),
    HTTPStatus.METHOD_NOT_ALLOWED: (Then.PAUSE, "the path takes no POST: check wallet.import_path"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (Then.SMALLER, "the request is too large"),
    HTTPStatus.TOO_MANY_REQUESTS: (Then.WAIT, "too many requests"),
}
_WHOLE_KEY = re.compile(r"[a-z_]{1,40}")
_MOST_DIGITS = 9  # of a count of rows, generously
_ROW_KEY = re.compile(r"users\.(?P<position>\d{1,4})(?:\.(?P<field>[a-z_]+))?", re.ASCII)


def read_answer(status: int, body: Any, *, rows: int) -> Reading:
    """Return what a whole answer to an import of `rows` rows proves.

    `body` is the parsed JSON, or None where it was none.
    """
    if status in _NOT_APPLIED:
        then, why = _NOT_APPLIED[HTTPStatus(status)]
        return Reading(Verdict.REFUTED, then, detail=f"{status}: {why}")
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return _read_refusal(body, rows)
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return _read_success(status, body, rows)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        return Reading(
            Verdict.DOUBT, Then.PAUSE, detail=f"{status}: a redirect; wallet.base_url is not the API's"
        )
    return Reading(Verdict.DOUBT, Then.WAIT, detail=f"{status}: the wallet failed")


def _read_refusal(body: Any, rows: int) -> Reading:
    refused = _refused_rows(body, rows)
    if refused:
        return Reading(Verdict.ROWS_REFUSED, refused=refused, detail=f"422: {len(refused)} rows refused")
    if named := _named_otherwise(body):
        return Reading(Verdict.DOUBT, Then.PAUSE, detail=f"422: refused for {named}, which is no row")
    return Reading(Verdict.UNREADABLE, detail="422: refused without naming a row")


def _read_success(status: int, body: Any, rows: int) -> Reading:
    if not isinstance(body, dict):
        return Reading(Verdict.DOUBT, detail=f"{status}: the answer is not a JSON object")
    if (
        body.get("success") is False
        or body.get("status") == "failed"
        or body.get("error")
        or body.get("errors")
    ):
        return Reading(Verdict.DOUBT, detail=f"{status}: success with an error inside")
    import_id, imported = body.get("import_id"), _whole(body.get("imported_members"))
    if not isinstance(import_id, str) or not import_id:
        return Reading(Verdict.DOUBT, imported=imported, detail=f"{status}: no import_id")
    if imported != rows:
        detail = f"{status}: imported_members is {imported}, {rows} rows were sent"
        return Reading(Verdict.DOUBT, import_id=import_id, imported=imported, detail=detail)
    return Reading(Verdict.LANDED, import_id=import_id, imported=imported, detail=f"{status}: landed")


def _whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    short = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
    return int(value) if short else None


def _refused_rows(body: Any, rows: int) -> dict[int, str]:
    errors = body.get("errors") if isinstance(body, dict) else None
    refused: dict[int, str] = {}
    for key in errors if isinstance(errors, dict) else ():
        match = _ROW_KEY.fullmatch(key) if isinstance(key, str) else None
        if match and int(match["position"]) < rows:
            refused.setdefault(int(match["position"]), match["field"] or "row")
    return refused


def _named_otherwise(body: Any) -> str:
    """Return the keys of a refusal that concern the whole request, such as organization_id."""
    errors = body.get("errors") if isinstance(body, dict) else None
    keys = errors if isinstance(errors, dict) else ()
    return ", ".join(sorted(key for key in keys if isinstance(key, str) and _WHOLE_KEY.fullmatch(key)))


class Grade(StrEnum):
    """On what a settlement rests."""

    ANSWER = "answer"  # the wallet's own answer, or a request that never left
    UNMOVED = "unmoved"  # the entry did not move for as long as it can take
    WINDOW = "window"  # the entry moved into the request's window
    UNANIMOUS = "unanimous"  # nine in ten of at least ten rows did
    WITNESS = "witness"  # the batch's witness did
    POLICY = "policy"  # the configuration decided: `on_doubt`, `first_run`, `on_email_change`
    PERSON = "person"  # a person decided


class Finding(IntEnum):
    """What the log shows about one row of a batch in doubt."""

    UNMOVED = 0
    IN_WINDOW = 1
    ELSEWHERE = 2
    MUTE = 3  # it cannot have shown anything: as fresh as the request, unreadable, restated or gone


class Decision(StrEnum):
    """What becomes of a row in doubt now."""

    LANDED = "landed"
    REFUTED = "refuted"
    WAIT = "wait"
    HOLD = "hold"
    AWARD = "award"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A row's log entry: as read just before the batch was sent, and as it reads now.

    Values are the wallet's own text; `at` is the present one as a time, None where it cannot be read.
    `restated` says that both tell the same time, in another form: nothing can be said to have moved.
    """

    before: str | None
    now: str | None
    at: datetime | None
    restated: bool = False


@dataclass(frozen=True, slots=True)
class Doubt:
    """A batch in doubt: when its request left (by the wallet's clock), and what has been seen since.

    `quiet` is how long ago, by our clock, the last of its entries was seen to move (or the request left);
    `age` how long ago the request left; `resolution` how exactly the log tells the time; `witness` what the
    log shows of the batch's witness, None where it had none; `short` says that the log leaves members out.
    """

    sent_at: datetime
    age: timedelta
    quiet: timedelta
    resolution: timedelta
    witness: Finding | None = None
    short: bool = False


@dataclass(frozen=True, slots=True)
class Terms:
    """The configured terms of settling."""

    settle_after: timedelta
    give_up_after: timedelta
    evidence: Grade
    on_doubt: Decision


CLOCK_RESOLUTION = timedelta(seconds=1)
"""How exactly the wallet's own clock is known: the `Date` header tells whole seconds (RFC 9110, 5.6.7)."""

UNANIMOUS_ROWS = 10
UNANIMOUS_SHARE = 0.9
_STRENGTH = {Grade.WINDOW: 1, Grade.UNANIMOUS: 2, Grade.WITNESS: 3}


def opening(sent_at: datetime, resolution: timedelta) -> datetime:
    """Return the time from which on an entry can come from a request sent at `sent_at` (the wallet's clock).

    An entry that is older says nothing about the request; one as fresh as this before the request could not
    be seen to move, so points are not sent to its member.
    """
    return sent_at - resolution - CLOCK_RESOLUTION


def find(sighting: Sighting, doubt: Doubt, settle_after: timedelta) -> Finding:
    """Return whether an entry moved, and whether into the request's window."""
    opens = opening(doubt.sent_at, doubt.resolution)
    if sighting.now == sighting.before:
        if sighting.now is not None and (sighting.at is None or sighting.at >= opens):
            return Finding.MUTE
        return Finding.UNMOVED
    if sighting.now is None or sighting.restated:
        return Finding.MUTE
    if sighting.at is None:
        return Finding.ELSEWHERE
    closes = doubt.sent_at + settle_after + CLOCK_RESOLUTION
    return Finding.IN_WINDOW if opens <= sighting.at <= closes else Finding.ELSEWHERE


def find_witness(sighting: Sighting, doubt: Doubt, settle_after: timedelta) -> Finding:
    """Return what the log shows of the witness: as for any row, but nobody else moves it.

    So an entry that is older than the request has not moved since, whatever was read before.
    """
    finding = find(sighting, doubt, settle_after)
    older = sighting.at is not None and sighting.at < opening(doubt.sent_at, doubt.resolution)
    return Finding.UNMOVED if finding is Finding.ELSEWHERE and older else finding


def grade_of(findings: Sequence[Finding], witness: Finding | None) -> Grade:
    """Return the grade at which a batch with these findings is proven applied."""
    if witness is Finding.IN_WINDOW:
        return Grade.WITNESS
    inside = sum(finding is Finding.IN_WINDOW for finding in findings)
    if len(findings) >= UNANIMOUS_ROWS and inside >= UNANIMOUS_SHARE * len(findings):
        return Grade.UNANIMOUS
    return Grade.WINDOW


def weigh(rows: Sequence[Sighting], doubt: Doubt, terms: Terms) -> list[tuple[Decision, Grade]]:
    """Return what becomes of each row of a batch in doubt, and on what proof.

    `rows` are all rows of the batch whose entries are evidence, in order.
    """
    findings = [find(row, doubt, terms.settle_after) for row in rows]
    still = min(doubt.age, doubt.quiet) > terms.settle_after
    if doubt.witness is Finding.UNMOVED:
        # Somebody else moved what moved, or the batch was cut short, or the witness is still to be applied.
        findings = [Finding.MUTE if it is not Finding.UNMOVED else it for it in findings]
    if doubt.short:  # what such a log does not show may have moved all the same
        findings = [Finding.MUTE if it is Finding.UNMOVED else it for it in findings]
    grade = grade_of(findings, doubt.witness)
    return [_weigh_row(finding, grade, still=still, doubt=doubt, terms=terms) for finding in findings]


def _weigh_row(
    finding: Finding, grade: Grade, *, still: bool, doubt: Doubt, terms: Terms
) -> tuple[Decision, Grade]:
    if finding is Finding.UNMOVED:
        return (Decision.REFUTED, Grade.UNMOVED) if still else (Decision.WAIT, Grade.UNMOVED)
    proven = finding is Finding.IN_WINDOW or (finding is Finding.ELSEWHERE and grade is not Grade.WINDOW)
    if proven and _STRENGTH[grade] >= _STRENGTH[terms.evidence]:
        return Decision.LANDED, grade
    if doubt.age > terms.give_up_after:
        return terms.on_doubt, Grade.POLICY
    return Decision.WAIT, grade
