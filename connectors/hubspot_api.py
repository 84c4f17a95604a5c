"""Calls to the API of one HubSpot account: the token, the pace, and what an answer means.

Every call made through here may be made twice, so whatever may pass is repeated. Every field of an error
answer is optional, and its texts hold property values and addresses: codes and property names alone are kept.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

import orjson

from syncsvc.errors import CredentialsError, OperatorError, SchemaError, TransientError
from syncsvc.model import Allowance
from syncsvc.remote.answer import Answer
from syncsvc.remote.keyed import KeyedClient
from syncsvc.remote.reserve import spare
from syncsvc.remote.retry import repeat
from syncsvc.remote.transport import HttpClient, Network
from syncsvc.settings import Reserve, Secret

MERGED = "hs_merged_object_ids"  # a property: the ids of what was merged into a contact, with ; between them
SEARCH_SPACING = 0.25  # seconds; search guide 2026-03: 5 a second per account, which other apps use too
WIDEST_SPACING = 4.0  # seconds between searches where other apps use nearly all of that
BURST_SECONDS = 10.0  # usage guidelines 2026-09: the burst limit rolls over ten seconds
DAILY_SECONDS = 900.0  # the daily limit ends at the account's midnight, which no answer tells: look again
LOCK_SECONDS = 2.0  # error handling guide 2026-03: a lock lasts two seconds
MOVING_SECONDS = 60.0  # for a 477 that names no time of its own
LONGEST_SECONDS = 86_400.0  # error handling guide 2026-03: a 477 asks for up to a day

_CALLS, _UNTIL = "HubSpot calls that the account has today", "after the account's midnight"
_DAILY = "x-hubspot-ratelimit-daily"
_SCHEMA_CODES = frozenset({"PROPERTY_DOESNT_EXIST", "READ_ONLY_VALUE"})
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")
_SCOPE = re.compile(r"[a-z][a-z0-9_.-]{0,99}")


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """An answer of HubSpot: what a success holds, or the JSON object of a refusal, `error`."""

    status: int
    document: T | None
    error: Mapping[str, Any]


class HubSpotApi:
    """One account's API in one version: `contacts` and `properties` are the paths of the two resources."""

    def __init__(
        self, client: HttpClient, *, token: Secret, version: str, reserve: Reserve, network: Network
    ) -> None:
        """Make no request yet; `version` is a date, or v3; `reserve` is left to the account's other apps."""
        dated = version != "v3"
        self.contacts = f"/crm/objects/{version}/contacts" if dated else "/crm/v3/objects/contacts"
        self.properties = f"/crm/properties/{version}/contacts" if dated else "/crm/v3/properties/contacts"
        self._client = KeyedClient(client, token, network, called="HubSpot token")
        self._network = network
        self._reserve = reserve
        self._next_search = 0.0
        self._spacing = SEARCH_SPACING

    def ask(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None
    ) -> Reply[dict[str, Any]]:
        """Return a success, or a 4xx that concerns this one request: what it means is the caller's to say.

        Raises CredentialsError where the key is refused, also after it was read again, and TransientError
        for whatever passes: limits, a reserve that is reached, locks, 5xx, answers that are not whole.
        """
        return self.read(_object, method, path, params=params, json=json)

    def read(
        self,
        form: Callable[[bytes], T | None],
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
    ) -> Reply[T]:
        """Return what `ask` does, a success as `form` reads it, or raises ValueError or returns nothing."""
        searches = path.endswith("/search")

        def once() -> Reply[T]:
            spare(self._network, self._reserve, believed=DAILY_SECONDS, calls=_CALLS, until=_UNTIL)
            if searches:
                self._pace()
            answer = self._send(method, path, params, json)
            if searches:
                self._adapt(refused=answer.status == 429)
            what = f"{method} {path}"
            if 200 <= answer.status < 300:
                return Reply(answer.status, _whole(answer, form, what), {})
            error = _error(answer)
            _raise_for_status(answer, error, what)
            return Reply(answer.status, None, error)

        return repeat(once, network=self._network)

    def document(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, json: Any = None
    ) -> dict[str, Any]:
        """Return the document of a success.

        Raises what `ask` raises, SchemaError where HubSpot blames a property, and OperatorError for any
        other refusal.
        """
        return accepted(self.ask(method, path, params=params, json=json), f"{method} {path}")

    @property
    def ahead(self) -> timedelta:
        """HubSpot's clock minus ours when it last answered: too little by up to a second, never too much."""
        return self._client.ahead

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def _send(self, method: str, path: str, params: Mapping[str, str] | None, json: Any) -> Answer:
        answer = self._client.send(method, path, params=params, json=json)
        self._note(answer)
        return answer

    def _note(self, answer: Answer) -> None:
        """Keep what an answer tells of the day's calls; an OAuth app hears nothing (guidelines 2026-09)."""
        with suppress(ValueError, KeyError):
            allowed, left = (int(answer.headers[name]) for name in (_DAILY, f"{_DAILY}-remaining"))
            self._network.allowance = Allowance(allowed, left, self._network.now())

    def _adapt(self, *, refused: bool) -> None:
        """Give way to the account's other apps, which share the limit of searches; come back by and by."""
        if refused:
            self._spacing = min(self._spacing * 2, WIDEST_SPACING)
        else:
            self._spacing = max(self._spacing * 0.9, SEARCH_SPACING)

    def _pace(self) -> None:
        wait = self._next_search - self._network.monotonic()
        if wait > 0:
            self._network.sleep(wait)
        self._next_search = self._network.monotonic() + self._spacing


def accepted(reply: Reply[T], what: str) -> T:
    """Return the document of a success; raises SchemaError or OperatorError for a refusal."""
    if reply.document is not None:
        return reply.document
    raise_for_schema(reply.error)
    raise OperatorError(
        f"HubSpot refuses {what} with {reply.status} ({reason(reply.error)}): check base_url and api_version"
    )


def _whole(answer: Answer, form: Callable[[bytes], T | None], what: str) -> T:
    with suppress(ValueError):
        document = form(answer.body)
        if document:
            return document
    raise TransientError(f"HubSpot answers {what} with {answer.status} and no whole document")


def _object(body: bytes) -> dict[str, Any] | None:
    document = orjson.loads(body)
    return document if isinstance(document, dict) else None


def _error(answer: Answer) -> dict[str, Any]:
    with suppress(ValueError):
        return _object(answer.body) or {}
    return {}


def objects(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects in what should be a list of them."""
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def records(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the contacts of a page or batch, each with a numeric `id` and its `properties`.

    Raises TransientError where the answer has another form.
    """
    try:
        found: list[dict[str, Any]] = document["results"]
        whole = type(found) is list and all(
            record["id"].isdecimal() and type(record["properties"]) is dict for record in found
        )
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise TransientError("HubSpot's answer holds no list of contacts")
    return found


def absorbed(record_id: str, merged: object) -> tuple[str, ...]:
    """Return the ids of the contacts that were merged into a record, as its property `MERGED` lists them."""
    return tuple(old for old in str(merged or "").split(";") if old and old != record_id)


def following(paging: Any) -> str | None:
    """Return where the next page begins, None where this was the last: a short or empty page need not be."""
    try:
        return str(paging["next"]["after"])
    except (KeyError, TypeError):
        return None


def named_ids(error: Mapping[str, Any]) -> set[str]:
    """Return the ids, also trace ids, that an error entry of a batch is about."""
    context = error.get("context")
    if not isinstance(context, dict):
        return set()
    return {*_texts(context.get("ids")), *_texts(context.get("objectWriteTraceId"))}


def reason(error: Mapping[str, Any]) -> str:
    """Return what an error says in codes and property names, for messages."""
    words = dict.fromkeys(f"{code} {name}".strip() for code, name in _causes(error))
    return ", ".join(words) or "no reason given"


def raise_for_schema(error: Mapping[str, Any]) -> None:
    """Raise SchemaError where an error blames a property that does not exist or cannot be written."""
    wrong = {name: code for code, name in _causes(error) if code in _SCHEMA_CODES and name}
    if wrong:
        listed = ", ".join(f"{name} ({code})" for name, code in sorted(wrong.items()))
        raise SchemaError(
            f"HubSpot refuses the contact property {listed}: create it or make it editable",
            fields=sorted(wrong),
        )


def _raise_for_status(answer: Answer, found: Mapping[str, Any], what: str) -> None:
    """Raise for an answer that means the same for every request."""
    status = answer.status
    asked = None if answer.retry_after is None else min(answer.retry_after, LONGEST_SECONDS)
    if status in {401, 403}:
        scopes = _scopes(found)
        remedy = f"give the key the scopes {', '.join(scopes)}" if scopes else "make or choose another key"
        raise CredentialsError(f"HubSpot refuses {what} with {status} ({reason(found)}): {remedy}")
    message = f"HubSpot answers {what} with {status}"
    if status == 429:
        raise TransientError(f"{message}: a rate limit is used up", retry_after=_limit_wait(found, asked))
    if status == 423:
        raise TransientError(f"{message}: locked", retry_after=max(asked or 0.0, LOCK_SECONDS))
    if status == 477:
        raise TransientError(f"{message}: the account is moving", retry_after=asked or MOVING_SECONDS)
    if status >= 500:
        raise TransientError(message, retry_after=asked)


def _limit_wait(document: Mapping[str, Any], asked: float | None) -> float:
    """Return the seconds to wait after a 429, which names its limit in words only.

    The wait for the daily limit is longer than any retry waits: it ends this cycle's part at once.
    """
    limit = f"{document.get('policyName')} {document.get('message')}".upper()
    if "DAILY" in limit:
        return max(asked or 0.0, DAILY_SECONDS)
    if "SECONDLY" in limit and "TEN_SECONDLY" not in limit:
        return 1.0 + random.random()  # noqa: S311 - jitter, not cryptography
    return asked or BURST_SECONDS


def _texts(value: Any) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def _scopes(document: Mapping[str, Any]) -> list[str]:
    contexts = objects([entry.get("context") for entry in (document, *objects(document.get("errors")))])
    keys = ("requiredScopes", "requiredGranularScopes")
    found = {name for context in contexts for key in keys for name in _texts(context.get(key))}
    return sorted(name for name in found if _SCOPE.fullmatch(name))


def _causes(error: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what an error blames, as code and property name ("" where it names none)."""
    causes: list[tuple[Any, Any]] = []
    for entry in (error, *objects(error.get("errors"))):
        context = entry.get("context")
        names = _texts(context.get("propertyName")) if isinstance(context, dict) else []
        causes += [(entry.get("code") or entry.get("category"), name) for name in names or [""]]
        # Some answers name the causes only inside the message, as JSON (error handling guide 2026-03).
        with suppress(ValueError):
            message = str(entry.get("message"))
            listed = objects(orjson.loads(message[message.index("[") :]))
            causes += [(cause.get("error"), cause.get("name")) for cause in listed]
    return [(_word(code), _word(name)) for code, name in causes if _word(code)]


def _word(value: Any) -> str:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""
