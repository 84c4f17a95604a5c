"""Calls to one Salesforce org: the session, its limits, and what a refusal means.

Every refusal leaves as one of our errors, classed by what the engine does next. The vendor's texts can quote
record values, so messages carry codes and names of fields alone, and the vendor's exception is not chained.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from simple_salesforce.api import Salesforce as Client
from simple_salesforce.exceptions import SalesforceError

from connectors.salesforce_auth import CODE, PASSING_CODES, PASSING_STATUSES, Auth, Login, Token, heard
from syncsvc.errors import (
    CredentialsError,
    LostAnswerError,
    OperatorError,
    SchemaError,
    SyncError,
    TransientError,
)
from syncsvc.model import Allowance
from syncsvc.remote.answer import Answer
from syncsvc.remote.reserve import spare
from syncsvc.remote.retry import repeat
from syncsvc.remote.sessions import session_errors
from syncsvc.remote.transport import Network
from syncsvc.settings import Reserve, is_loopback

PAUSE_SECONDS = 900.0
"""How long no call is made once the day's are used up; then one looks again.

The limit is on the last 24 hours, so there is no moment of refill (Salesforce help 000386972, 2026-04).
"""

_USAGE = re.compile(r"(?:^|[;,\s])api-usage=(\d+)/(\d+)")
_NO_FIELD = re.compile(r"No such column '([\w.]+)'|[Uu]nderstand relationship '([\w.]+)'")
_USED_UP = "the org's daily API limit is used up: work goes on as earlier calls leave the 24 hours"
_CALLS = "Salesforce calls of 24 hours that the org has"
_UNTIL = "as earlier calls leave the 24 hours"
_NEVER_CURED = ("not valid for use with the REST API", "not attached to Agent")


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer of the org: its JSON, or the text of a table, and its headers by lower-case name.

    `asked` is the org's clock when it was asked, to the second; where the org does not tell the time, ours.
    """

    body: Any
    headers: Mapping[str, str]
    asked: datetime


class _ExpiredError(Exception):
    """The token is refused; another login may cure it."""


class Session:
    """Calls to one org, logged in at the first one; safe for several threads, which share one login."""

    def __init__(
        self, url: str, *, auth: Auth, version: str, timeout: float, reserve: Reserve, network: Network
    ) -> None:
        """Make no request yet; `version` is such as "67.0", `timeout` in seconds for each request.

        `reserve` are the org's daily calls that are left to its other applications.
        """
        self._version = version
        self._reserve = reserve
        self._network = network
        self._http = network.session(timeout=timeout)
        self._http.trust_env = not is_loopback(url)
        self._login = Login(url, auth=auth, version=version, http=self._http, network=network)
        self._used_up: datetime | None = None  # when a call was last refused since the day's are used up

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Return the answer to a call that may be made twice; `path` is relative to the API version.

        A token that has expired is replaced once. Passing trouble is repeated within a small budget, then
        raised as TransientError; a daily limit that is used up, or of which no more than the reserve was left
        at the last answer, is raised as TransientError at once. Raises CredentialsError where the org refuses
        the login or the user, SchemaError where a field or object is missing, else OperatorError.
        """

        def send(token: Token) -> Reply:
            return self._send(token, method, path, params=params, json=json, headers=headers)

        return self._admitted(f"{method} {path}", send)

    def table(self, path: str, *, params: Mapping[str, str]) -> Reply:
        """Return the answer to a GET whose answer is a table in CSV, as text; raises as `call`."""
        return self._admitted(f"GET {path}", lambda token: self._download(token, path, params))

    def now(self) -> datetime:
        """Return the org's clock by what it told last; logs in where it told none yet, raises as `call`."""
        if not self._login.done:
            repeat(self._login.token, network=self._network)
        return self._network.now() + self._login.ahead

    def close(self) -> None:
        """Give back the connections and forget the token; it is not revoked, as others may share it."""
        self._login.forget()
        self._http.close()

    def _admitted(self, call: str, send: Callable[[Token], Reply]) -> Reply:
        """Return what `send` returns with a token that is good."""

        def once() -> Reply:
            self._spare()
            token = self._login.token()
            try:
                return send(token)
            except _ExpiredError:
                token = self._login.token(stale=token)
            try:
                return send(token)
            except _ExpiredError:
                raise CredentialsError(
                    f"{call}: refused with a token just issued: see that the user is still admitted"
                ) from None

        return repeat(once, network=self._network)

    def _spare(self) -> None:
        """Raise TransientError while no more calls are left than the reserve; now and then one call looks."""
        if (fresh := self._fresh(self._used_up)) > 0:
            raise TransientError(f"Salesforce: {_USED_UP}", retry_after=fresh)
        spare(self._network, self._reserve, believed=PAUSE_SECONDS, calls=_CALLS, until=_UNTIL)

    def _fresh(self, told_at: datetime | None) -> float:
        """Return for how many seconds what was told then is still believed."""
        return PAUSE_SECONDS - (self._network.now() - told_at).total_seconds() if told_at else 0.0

    def _send(self, token: Token, method: str, path: str, **request: Any) -> Reply:
        # A client per call: it holds the token, so it can never outlive one. Without a login of its own it
        # neither logs in nor retries. Its answers hide the headers, hence the hook.
        client = Client(
            session_id=token.session_id,
            instance_url=token.instance_url,
            version=self._version,
            session=self._http,
            object_pairs_hook=dict,
        )
        answer = Answer(0, {}, b"")
        begun = self._network.monotonic()

        def hear(response: Any, *_: Any, **__: Any) -> None:
            nonlocal answer
            answer = heard(response)

        request["headers"] = request["headers"] or {}
        body, errors, garbled = None, None, False
        with session_errors(f"{method} {path}"):
            try:
                body = client.restful(path, method=method, hooks={"response": hear}, **request)
            except SalesforceError as error:
                errors = _codes(error.content)
            except ValueError:  # raised anew below, without the body that it carries along
                garbled = True
        self._note(answer)
        if errors is not None:
            raise self._refusal(f"{method} {path}", answer, errors)
        if garbled:
            raise LostAnswerError(f"{method} {path}: HTTP {answer.status} without JSON")
        return self._reply(body, answer, begun)

    def _download(self, token: Token, path: str, params: Mapping[str, str]) -> Reply:
        # The client library has no call for a table whose token is read anew for each request.
        url = f"{token.instance_url}/services/data/v{self._version}/{path}"
        headers = {"Authorization": f"Bearer {token.session_id}", "Accept": "text/csv"}
        begun = self._network.monotonic()
        with session_errors(f"GET {path}"):
            response = self._http.get(url, params=dict(params), headers=headers)
        answer = replace(heard(response), body=response.content)
        self._note(answer)
        if answer.status != 200:
            try:
                content = answer.json()
            except ValueError:  # a gateway's page
                content = None
            raise self._refusal(f"GET {path}", answer, _codes(content))
        text = _decoded(answer.body)
        if text is None or not answer.headers.get("content-type", "").startswith("text/csv"):
            raise LostAnswerError(f"GET {path}: HTTP {answer.status} without CSV")
        return self._reply(text, answer, begun)

    def _reply(self, body: Any, answer: Answer, begun: float) -> Reply:
        took = timedelta(seconds=int(self._network.monotonic() - begun))
        return Reply(body, answer.headers, (answer.date or self._network.now()) - took)

    def _refusal(self, call: str, answer: Answer, errors: Sequence[tuple[str, str]]) -> Exception:
        if answer.status == 401 and not any(sign in text for sign in _NEVER_CURED for _, text in errors):
            return _ExpiredError()
        self._used_up = self._network.now() if _day_is_used_up(errors) else self._used_up
        return _classed(call, answer, errors)

    def _note(self, answer: Answer) -> None:
        self._login.hear(answer)
        usage = _USAGE.search(answer.headers.get("sforce-limit-info", ""))
        if usage:
            used, allowed = int(usage[1]), int(usage[2])
            self._network.allowance = Allowance(allowed, max(0, allowed - used), self._network.now())


def _decoded(body: bytes) -> str | None:
    try:
        return body.decode("utf-8-sig")
    except ValueError:
        return None


def _codes(content: Any) -> list[tuple[str, str]]:
    """Return the codes of an error body with their texts; a page of HTML has none."""
    items = content if isinstance(content, list) else []
    pairs = [(str(i.get("errorCode", "")), str(i.get("message", ""))) for i in items if isinstance(i, dict)]
    return [(code, text) for code, text in pairs if CODE.fullmatch(code)]


def _day_is_used_up(errors: Sequence[tuple[str, str]]) -> bool:
    """Whether the limit of a day refused a call; the limit of calls at once has the same code."""
    return any(code == "REQUEST_LIMIT_EXCEEDED" and "concurrent" not in text.lower() for code, text in errors)


def _classed(call: str, answer: Answer, errors: Sequence[tuple[str, str]]) -> SyncError:
    codes, texts = {code for code, _ in errors}, " ".join(text for _, text in errors)
    said = " ".join([f"{call}: HTTP {answer.status}", *sorted(codes)])
    if _day_is_used_up(errors):
        return TransientError(f"{said}: {_USED_UP}", retry_after=PAUSE_SECONDS)
    if "REQUEST_LIMIT_EXCEEDED" in codes:
        return TransientError(f"{said}: too many calls at once", retry_after=answer.retry_after)
    if codes & PASSING_CODES:
        return TransientError(said, retry_after=answer.retry_after)
    if "TXN_SECURITY_METERING_ERROR" in codes:
        exempt = "give the user the permission Exempt from Transaction Security"
        return CredentialsError(f"{said}: a transaction security policy stops large queries: {exempt}")
    if codes & {"INVALID_FIELD", "INVALID_TYPE"}:
        fields = sorted({a or b for a, b in _NO_FIELD.findall(texts)})
        named = ", ".join(fields) or ("the object" if "INVALID_TYPE" in codes else "a field")
        return SchemaError(f"{said}: {named} does not exist, or the user may not see it", fields=fields)
    return _by_status(said, answer, denied=any(code.startswith("INSUFFICIENT_ACCESS") for code in codes))


def _by_status(said: str, answer: Answer, *, denied: bool) -> SyncError:
    if answer.status in PASSING_STATUSES or answer.status >= 500:
        return TransientError(said, retry_after=answer.retry_after)
    if denied or answer.status in {401, 403}:
        return CredentialsError(f"{said}: admit the user to the REST API, and grant the object's permissions")
    if answer.status in {414, 431}:
        return SchemaError(f"{said}: the query is too long, map fewer fields")
    if answer.status in {404, 410}:
        return OperatorError(f"{said}: does the org know this api_version and object?")
    if answer.status < 400:
        return OperatorError(f"{said}: a redirect: set url to the org's current My Domain")
    return OperatorError(said)
