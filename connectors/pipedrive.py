"""Pipedrive persons, the whole connector: listed in the order of their ids, written back one by one.

A sweep lists every person, a poll those updated since its window began. The order is that of ids, in which no
change moves anybody; the last page is the one that tells no next cursor, however short others are.

A deleted person is gone where an answer tells it; lists were seen to leave it out, and then the next sweep
tells. One that was merged away is deleted too, and nothing tells into whom. Where a whole page has a custom
field empty, the company is asked whether there is such a field: a deleted one is an error and never empty.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from itertools import chain
from typing import Any, ClassVar
from urllib.parse import quote

from pydantic import Field, ValidationError

from syncsvc.errors import CredentialsError, CursorError, OperatorError, SchemaError, TransientError
from syncsvc.model import Allowance, Contact, FieldValue, Page, Problem, WriteBack, WriteOutcome, Written
from syncsvc.remote.answer import Answer
from syncsvc.remote.connector import Needs
from syncsvc.remote.keyed import KeyedClient
from syncsvc.remote.links import Sweep
from syncsvc.remote.reserve import spare
from syncsvc.remote.retry import repeat
from syncsvc.remote.transport import Network
from syncsvc.remote.window import PollCursor
from syncsvc.settings import Duration, Reserve, Secret, Text, Url
from syncsvc.settings import Settings as Table

PERSONS, FIELDS = "/api/v2/persons", "/api/v2/personFields"
PAGE = 500  # entries of a page at most (Pagination, 2026)
MOST_KEYS = 15  # custom fields that a list can be asked for; without any named, all are told (Persons, 2026)
LIST_TOKENS = 10  # what a list costs; an update costs 5, one person 1 (Persons, 2026)
BURST_SECONDS = 2.0  # the window of the burst limit (Rate limiting, 2026); no unit of its reset is told
DAILY_SECONDS = 900.0  # the daily budget ends at a midnight that no answer tells: look again
BLOCKED_SECONDS = 300.0  # of who goes on after many a 429 (Rate limiting, 2026); how long is not told
IN_A_ROW = 5  # failures of one person each, after which they are taken for everybody's

_SYNCED = frozenset({"birthday", "job_title", "notes", "postal_address"})  # with contact sync (Persons, 2026)
_OWN = {"id", "name", "first_name", "last_name", "email", "phone", "owner_id", "org_id", "add_time"}
_OWN |= _SYNCED | {"update_time", "visible_to", "label_ids", "picture_id"}
_TEXTS = frozenset({"varchar", "varchar_auto", "text"})
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_COPY = "copy its API key from Company settings > Data fields > Person, and name it under `fields`"
_CALLS = "Pipedrive calls (of 10 API tokens) that the company has today"

Row = Mapping[str, Any]  # a person, or a field, as an answer has it


class PipedriveSettings(Table):
    """The keys of a Pipedrive company."""

    token: Secret = Field(examples=[{"env": "PIPEDRIVE_TOKEN"}], description="a user's API token")
    base_url: Url = Field(
        default="https://api.pipedrive.com",
        description="Pipedrive's API; the company's own address is nearer: https://acme.pipedrive.com",
    )
    fields: dict[Text, Text] = Field(
        default={},
        examples=[{"loyalty_points": "dcf558aac1ae4e8c4f849ba5e668430d8df9be12"}],
        description="names of your own for custom fields: the API key of each, or KEY.PART",
    )
    overlap: Duration = Field(default=timedelta(minutes=10), description="how late a change may be listed")
    reserve: Reserve = Field(default="5%", description="calls of a day (10 API tokens each) left to others")
    timeout: Duration = Field(default=timedelta(seconds=60), description="for the whole of each call")


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer with the JSON object it holds, an empty one where it holds none."""

    status: int
    document: Row

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300

    @property
    def reason(self) -> str:
        """The status and Pipedrive's code: its texts may quote values."""
        code = self.document.get("code")
        return f"{self.status} {code if isinstance(code, str) and _CODE.fullmatch(code) else ''}".strip()

    def is_gone(self) -> bool:
        """Whether an answer about one person says that there is none any more."""
        data = self.document.get("data")
        deleted = isinstance(data, dict) and data.get("is_deleted") is True
        return self.status in {404, 410} or (self.good and deleted)


class _ForbiddenError(CredentialsError):
    """A 403, which may be about one person alone: some users edit nobody's persons but their own."""


class _BrokenError(TransientError):
    """A 5xx, which may be about one person alone."""


class Pipedrive:
    """The persons of one Pipedrive company; see `syncsvc.remote.connector.Connector`."""

    Settings: ClassVar[type[Table]] = PipedriveSettings

    def __init__(self, settings: PipedriveSettings, needs: Needs, network: Network) -> None:
        """Make no request yet."""
        self._needs, self._network = needs, network
        self._lag, self._reserve = settings.overlap, settings.reserve
        client = network.client(settings.base_url, timeout=settings.timeout.total_seconds())
        token = {"called": "Pipedrive token", "header": "x-api-token", "form": "{}"}
        self._client = KeyedClient(client, settings.token, network, **token)
        self._free_at = 0.0  # when the burst window that is used up has ended
        found = {name: settings.fields.get(name, name).partition(".") for name in needs.fields}
        self._paths = {name: (key, part) for name, (key, _, part) in found.items()}
        self._custom = {name for name, (key, _) in self._paths.items() if key not in _OWN}
        self._listing = {"limit": str(PAGE), "sort_by": "id", "sort_direction": "asc"}
        keys = sorted({self._paths[name][0] for name in self._custom})
        if 0 < len(keys) <= MOST_KEYS:
            self._listing["custom_fields"] = ",".join(keys)

    def check(self) -> list[Problem]:
        """Return what is wrong with the fields that are read and written; one request."""
        known, told = self._definitions(), "Pipedrive's persons have no such field"
        found = [
            Problem(f"field {name}", told, _meant(name, known, _OWN) or _COPY)
            for name in sorted(self._needs.read)
            if self._paths[name][0] not in _OWN | known.keys()
        ]
        texts = {key: row for key, row in known.items() if row.get("field_type") in _TEXTS}
        for fact, name in sorted(self._needs.write.items()):
            key, part = self._paths[name]
            if part or key not in texts:
                told = f"Pipedrive's persons have no custom field {name} of text"
                remedy = _meant(name, texts) or f"create a person field of type Text, {_COPY}"
                found.append(Problem(f"write_back.{fact}", told, remedy))
        return found

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield the persons of a sweep (None), or those updated since; see `Connector.changes`.

        Raises SchemaError where a field that is mapped or written has vanished.
        """
        if cursor is None:
            return self._sweep(None)
        if not cursor.startswith('{"began"'):
            return self._poll(PollCursor.parse(cursor))
        try:
            return self._sweep(Sweep.model_validate_json(cursor))
        except ValidationError as error:
            raise CursorError("the stored cursor is not one of this connector's") from error

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order, a request each; see `Connector.write_back`.

        A failure is one person's where others can be written, else it is raised. Raises SchemaError where a
        field that is written does not exist.
        """
        held: list[WriteOutcome] = []
        written = False
        for value in values:
            outcome, trouble = self._write(value)
            held.append(outcome)
            written |= outcome.result is Written.WRITTEN
            if trouble is None or (written and isinstance(trouble, _ForbiddenError)):
                yield from held
                held = []
            elif len(held) == IN_A_ROW or (value is values[-1] and not written):
                raise trouble
        yield from held

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def _sweep(self, begun: Sweep | None) -> Iterator[Page]:
        before, began = self._network.now(), begun.began if begun else None
        for _, contacts, following in self._walk(begun.link if begun else ""):
            began = began or before + self._client.ahead
            if following:
                yield Page(contacts, Sweep(began=began, link=following).model_dump_json())
                continue
            polls = PollCursor(began - self._lag, read=began, recheck=began + self._lag / 2)
            yield Page(contacts, polls.encode())

    def _poll(self, cursor: PollCursor) -> Iterator[Page]:
        before = self._network.now()
        window = cursor.open(before + self._client.ahead, lag=self._lag)
        pages = self._walk(window.after, updated_since=_time(window.start))
        try:
            first = next(pages)
        except CursorError:  # the window is begun again, which costs less than a sweep
            window = replace(window, after="")
            pages = self._walk("", updated_since=_time(window.start))
            first = next(pages)
        for rows, contacts, following in chain([first], pages):
            if not window.after:
                # Pipedrive's clock ends the window: who is updated later may have an id behind us by then.
                window = replace(window, until=max(window.start, before + self._client.ahead))
            newest = max((_stamp(row, window.until) for row in rows), default=None)
            window = window.advanced(following, newest)
            closed = cursor.closed(window, seen_until=window.until, lag=self._lag)
            yield Page(contacts, (cursor.within(window) if following else closed).encode())

    def _walk(self, after: str, **more: str) -> Iterator[tuple[list[Row], list[Contact], str]]:
        """Yield page after page behind a cursor: its rows, its contacts, and the next cursor, "" at the end.

        Raises CursorError where a cursor is refused, and SchemaError where a field has vanished.
        """
        vouched = set[str]()  # custom fields that were empty though they exist: asked about once
        while True:
            params = self._listing | more | ({"cursor": after} if after else {})
            reply = self._ask("GET", PERSONS, params=params)
            if not reply.good:
                self._require(self._needs.fields)
                if after and reply.status in {400, 404, 410, 422}:
                    raise CursorError(f"Pipedrive does not take the stored cursor any more ({reply.reason})")
            rows, after = _entries(reply, PERSONS, after)
            contacts = [self._contact(row) for row in rows]
            live = [it.fields for it in contacts if not it.gone]
            empty = {name for name in self._custom - vouched if live and all(it[name] is None for it in live)}
            if empty:
                self._require(empty)
                vouched |= empty
            yield rows, contacts, after
            if not after:
                return

    def _contact(self, row: Row) -> Contact:
        if row.get("is_deleted"):
            return Contact(str(row["id"]), {}, gone=True)
        custom, fields = row.get("custom_fields") or {}, {}
        for name, (key, part) in self._paths.items():
            told = f"{key}s" if key in {"email", "phone"} else key
            if key in _OWN and told not in row:
                raise _lost([name])
            fields[name] = _value(row[told] if key in _OWN else custom.get(key), part)
        return Contact(str(row["id"]), fields)

    def _write(self, value: WriteBack) -> tuple[WriteOutcome, CredentialsError | TransientError | None]:
        """Return what became of a value, and the trouble where it may be that of all."""
        path = f"{PERSONS}/{quote(value.record_id, safe='')}"
        custom = {
            self._paths[name][0]: content if isinstance(content, str) else _time(content)
            for name, content in value.values.items()
        }
        try:
            reply = self._ask("PATCH", path, json={"custom_fields": custom})
            if not reply.good and not reply.is_gone():
                self._require(value.values)
                if not self._ask("GET", path).is_gone():  # one that is deleted is there, and takes no edit
                    return WriteOutcome(value.record_id, Written.REFUSED, reply.reason), None
                reply = _Reply(410, {})
        except _ForbiddenError as error:
            return WriteOutcome(value.record_id, Written.REFUSED, "403"), error
        except _BrokenError as error:
            return WriteOutcome(value.record_id, Written.RETRY, "5xx"), error
        return WriteOutcome(value.record_id, Written.GONE if reply.is_gone() else Written.WRITTEN), None

    def _definitions(self) -> dict[str, Row]:
        """Return the custom fields of persons by their keys."""
        known: dict[str, Row] = {}
        params = {"limit": str(PAGE)}
        while True:
            reply = self._ask("GET", FIELDS, params=params)
            rows, following = _entries(reply, FIELDS, params.get("cursor", ""), key="field_code")
            known |= {str(row["field_code"]): row for row in rows if row.get("is_custom_field")}
            if not following:
                return known
            params["cursor"] = following

    def _require(self, names: Collection[str]) -> None:
        known = self._definitions().keys() | _OWN
        if lost := sorted(name for name in names if self._paths[name][0] not in known):
            raise _lost(lost)

    def _ask(self, method: str, path: str, **request: Any) -> _Reply:
        """Return a success, or a 4xx that concerns this one request; all of them may be made twice.

        Raises CredentialsError for a token that is refused, and TransientError for whatever passes.
        """

        def once() -> _Reply:
            spare(self._network, self._reserve, believed=DAILY_SECONDS, calls=_CALLS, until="tomorrow")
            if (seconds := self._free_at - self._network.monotonic()) > 0:
                self._network.sleep(seconds)
            answer = self._client.send(method, path, **request)
            self._note(answer)
            return _replied(answer, f"{method} {path}")

        return repeat(once, network=self._network)

    def _note(self, answer: Answer) -> None:
        """Keep what an answer tells of the limits, which has been seen to tell nothing at times."""
        if answer.status == 429 or _number(answer, "x-ratelimit-remaining") == 0:
            self._free_at = self._network.monotonic() + BURST_SECONDS
        allowed, left = (_number(answer, f"x-daily-ratelimit-token-{it}") for it in ("limit", "remaining"))
        if allowed is not None and left is not None:
            told_at = self._network.now()
            self._network.allowance = Allowance(allowed // LIST_TOKENS, left // LIST_TOKENS, told_at)


def _lost(names: list[str]) -> SchemaError:
    remedy = "turn on contact sync, or take" if set(names) <= _SYNCED else "restore it, or take"
    told = f"Pipedrive's persons have no field {', '.join(names)}: {remedy} it out of the configuration"
    return SchemaError(told, fields=names)


def _meant(name: str, known: Mapping[str, Row], own: Collection[str] = ()) -> str:
    """Return which field a name probably stands for, by what people call it, or nothing."""
    called = {str(row.get("field_name")).lower().replace(" ", "_"): key for key, row in known.items()}
    for close in get_close_matches(name.lower().replace(" ", "_"), [*called, *own], n=1, cutoff=0.75):
        if close not in called:
            return f"did you mean {close}?"
        key = called[close]
        return f'did you mean {known[key]["field_name"]}? write "{name}" = "{key}" under `fields`'
    return ""


def _replied(answer: Answer, what: str) -> _Reply:
    """Return an answer as what it says; raises for one that means the same for every request."""
    document: Any = None
    with suppress(ValueError):
        document = answer.json()
    reply = _Reply(answer.status, document if isinstance(document, dict) else {})
    said, asked = f"Pipedrive answers {what} with {reply.reason}", answer.retry_after or 0.0
    if reply.status == 401:
        raise CredentialsError(f"{said}: copy the API token again, from its user's personal preferences")
    if reply.status == 403 and not isinstance(document, dict):
        raise TransientError(f"{said} and no code: we are shut out", retry_after=BLOCKED_SECONDS)
    if reply.status == 403:
        raise _ForbiddenError(f"{said}: let the token's user see the persons of all owners, and edit them")
    if reply.status == 429 and _number(answer, "x-daily-ratelimit-token-remaining") == 0:
        told = f"{said}: the company's API tokens of today are used up"
        raise TransientError(told, retry_after=max(asked, DAILY_SECONDS))
    if reply.status == 429:
        raise TransientError(f"{said}: too many requests", retry_after=asked or BURST_SECONDS)
    if reply.status >= 500:
        raise _BrokenError(said, retry_after=asked or None)
    if reply.good and reply.document.get("success") is not True:
        raise TransientError(f"{said} and no whole document")
    if reply.status < 200 or 300 <= reply.status < 400:
        raise OperatorError(f"{said}: set base_url to the API's own address")
    return reply


def _entries(reply: _Reply, path: str, after: str, *, key: str = "id") -> tuple[list[Row], str]:
    """Return a page's entries, each with a `key`, and the next one's cursor, "" where this is the last."""
    if not reply.good:
        remedy = "look after the account's payment" if reply.status == 402 else "check base_url"
        raise OperatorError(f"Pipedrive refuses GET {path} with {reply.reason}: {remedy}")
    rows = reply.document.get("data", 0)
    rows = [] if rows is None else rows
    try:
        right = all(it[key] and isinstance(it.get("custom_fields") or {}, dict) for it in rows)
        following = str((reply.document.get("additional_data") or {}).get("next_cursor") or "")
    except (AttributeError, KeyError, TypeError):
        right, following = False, ""
    if not right or not isinstance(rows, list):
        raise TransientError(f"Pipedrive's answer to GET {path} holds no list")
    if following and following == after:
        raise TransientError(f"Pipedrive's list at {path} does not move on")
    return rows, following


def _value(content: Any, part: str = "") -> FieldValue:
    """Return a field's value: the primary one of emails or phones, of what has parts that one or `value`."""
    if content is None or isinstance(content, str | bool | int | float):
        return None if content == "" else content
    if isinstance(content, dict):
        return _value(content.get(part or "value"))
    several = [it for it in content if isinstance(it, dict)]
    if several:
        return _value(next((it for it in several if it.get("primary") is True), several[0]))
    return ",".join(map(str, content)) or None


def _time(at: datetime) -> str:
    """Return a time as Pipedrive takes it: fractions of a second were seen refused."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _stamp(row: Row, otherwise: datetime) -> datetime:
    try:
        return datetime.fromisoformat(row["update_time"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError, OverflowError):
        return otherwise


def _number(answer: Answer, header: str) -> int | None:
    told = answer.headers.get(header, "")
    return int(told) if told.isdecimal() and len(told) < 10 else None
