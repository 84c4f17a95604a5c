"""A session with a Salesforce org: logs in, logs in anew when the token has expired, and makes calls.

Every refusal leaves as one of our errors, classed by what the engine does next. The vendor's texts can quote
record values, so messages carry codes and names of fields alone, and the vendor's exception is not chained.
"""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

import jwt
from pydantic import Field
from simple_salesforce.api import Salesforce as Client
from simple_salesforce.exceptions import SalesforceError

from syncsvc.errors import (
    CredentialsError,
    LostAnswerError,
    OperatorError,
    SchemaError,
    SyncError,
    TransientError,
)
from syncsvc.remote.retry import repeat
from syncsvc.remote.transport import Answer, Network, session_errors
from syncsvc.settings import Secret, Settings, Url, is_loopback

ASSERTION_LIFE = timedelta(minutes=3)
"""An assertion may expire at most five minutes after the server's time (Salesforce help on JWT, 2026-11)."""

CLOCK_TOLERANCE = timedelta(minutes=1)
"""How far our clock may be from the server's before a refused assertion is worth a second try."""

RESERVE_SHARE = 0.95
"""Beyond this share of the org's daily calls, the rest is left to its other applications."""

PAUSE_SECONDS = 900.0
"""The daily limit is a rolling window of 24 hours: no refill at once (Salesforce help 000386972, 2026-04)."""

LOCKED_OUT_SECONDS = 3600.0
"""More than 3,600 logins of one user within an hour lock that user out for the hour (seen 2026-11)."""

_CODE = re.compile(r"[A-Za-z_]{3,60}")
_USAGE = re.compile(r"(?:^|[;,\s])api-usage=(\d+)/(\d+)")
_HOST = re.compile(r"https://[\w.-]+(?::\d{1,5})?(?=/|$)")
_NO_FIELD = re.compile(r"No such column '([\w.]+)'|[Uu]nderstand relationship '([\w.]+)'")
_NEVER_CURED = ("not valid for use with the REST API", "not attached to Agent")
_PASSING_CODES = {"QUERY_TIMEOUT", "SERVER_UNAVAILABLE", "UNABLE_TO_LOCK_ROW", "UNKNOWN_EXCEPTION"}
# 406 and 420 come from the platform's front door, empty or as HTML, and pass by themselves (seen 2026-11).
_PASSING_STATUSES = {406, 408, 420, 425, 429}
_PASSING_LOGINS = {*_PASSING_CODES, "REQUEST_LIMIT_EXCEEDED", "server_error", "temporarily_unavailable"}

_REMEDIES = (
    ("not supported on this domain", "set url to the org's own My Domain, not to login or test"),
    ("hasn't approved", "let an administrator pre-authorise the user for the app"),
    ("no client credentials user", "give the app a Run As user"),
    ("must be installed", "install the app in the org and admit the integration user"),
    (
        "audience",
        "set audience to https://login.salesforce.com, or https://test.salesforce.com for a sandbox",
    ),
    ("security_token", "append or reset the user's security token, or trust this network's addresses"),
)
_REMEDY = "compare the keys under auth with the app, and see that it allows this flow and this user"

_SOAP = """<?xml version="1.0" encoding="utf-8"?>\
<env:Envelope xmlns:env="http://schemas.xmlsoap.org/soap/envelope/"><env:Body>\
<n1:login xmlns:n1="urn:partner.soap.sforce.com"><n1:username>{username}</n1:username>\
<n1:password>{password}</n1:password></n1:login></env:Body></env:Envelope>"""


class ClientCredentials(Settings):
    """OAuth client credentials: the app acts as its own integration user."""

    flow: Literal["client_credentials"]
    client_id: Secret
    client_secret: Secret


class JwtBearer(Settings):
    """OAuth JWT bearer: an assertion signed with the app's RSA key speaks for a pre-authorised user."""

    flow: Literal["jwt"]
    client_id: Secret
    username: str = Field(min_length=1, repr=False)
    private_key: Secret = Field(description="RSA key as PEM, without a passphrase")
    audience: Url = "https://login.salesforce.com"


class Password(Settings):
    """SOAP login with user name and password: only API versions up to 64.0 have it."""

    flow: Literal["password"]
    username: str = Field(min_length=1, repr=False)
    password: Secret
    security_token: Secret | None = None


Auth = Annotated[ClientCredentials | JwtBearer | Password, Field(discriminator="flow")]
"""How to log in, told apart by `flow`."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a login gave: the session id, and the URL of the host that it is good for."""

    session_id: str = field(repr=False)
    instance_url: str


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer of the org: its JSON, and the org's clock when it was asked, to the second.

    Where the org does not tell the time, it is ours.
    """

    body: Any
    asked: datetime


class _ExpiredError(Exception):
    """The token is refused; another login may cure it."""


class Session:
    """Calls to one org, logged in at the first one; safe for several threads, which share one login."""

    def __init__(self, url: str, *, auth: Auth, version: str, timeout: float, network: Network) -> None:
        """Make no request yet; `version` is such as "67.0", `timeout` in seconds for each request."""
        self._url = url
        self._auth = auth
        self._version = version
        self._network = network
        self._http = network.session(timeout=timeout)
        self._http.trust_env = not is_loopback(url)
        self._lock = threading.Lock()
        self._token: Token | None = None
        self._skew = timedelta(0)  # the server's clock minus ours, as last heard
        self._reserve_until = float("-inf")  # on the monotonic clock

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
        raised as TransientError; a daily limit that is reached, or of which more than RESERVE_SHARE was used
        at the last answer, is raised as TransientError at once. Raises CredentialsError where the org refuses
        the login or the user, SchemaError where a field or object is missing, else OperatorError.
        """

        def once() -> Reply:
            self._spare()
            token = self._login(stale=None)
            try:
                return self._send(token, method, path, params=params, json=json, headers=headers)
            except _ExpiredError:
                token = self._login(stale=token)
            try:
                return self._send(token, method, path, params=params, json=json, headers=headers)
            except _ExpiredError:
                raise CredentialsError(
                    f"{method} {path}: refused with a token just issued: see that the user is still admitted"
                ) from None

        return repeat(once, network=self._network)

    def now(self) -> datetime:
        """Return the org's clock by what it told last; logs in where it told none yet, raises as `call`."""
        if self._token is None:
            repeat(lambda: self._login(stale=None), network=self._network)
        return self._network.now() + self._skew

    def close(self) -> None:
        """Give back the connections and forget the token; it is not revoked, as others may share it."""
        self._token = None
        self._http.close()

    def _spare(self) -> None:
        left = self._reserve_until - self._network.monotonic()
        if left > 0:
            raise TransientError(
                f"more than {RESERVE_SHARE:.0%} of the org's daily API calls are used: "
                "the rest is left to its other applications",
                retry_after=left,
            )

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
            answer = _heard(response)

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
            if answer.status == 401 and not any(sign in text for sign in _NEVER_CURED for _, text in errors):
                raise _ExpiredError
            raise _classed(f"{method} {path}", answer, errors)
        if garbled:
            raise LostAnswerError(f"{method} {path}: HTTP {answer.status} without JSON")
        took = timedelta(seconds=int(self._network.monotonic() - begun))
        return Reply(body, (answer.date or self._network.now()) - took)

    def _note(self, answer: Answer) -> None:
        if answer.date is not None:
            self._skew = answer.date - self._network.now()
        usage = _USAGE.search(answer.headers.get("sforce-limit-info", ""))
        if usage and int(usage[1]) > RESERVE_SHARE * int(usage[2]):
            self._reserve_until = self._network.monotonic() + PAUSE_SECONDS

    def _login(self, *, stale: Token | None) -> Token:
        """Return the token, after a new login where there is none or it is the one that went stale."""
        with self._lock:
            if self._token is None or self._token is stale:
                self._token = None
                assumed = self._skew
                try:
                    self._token = self._log_in()
                except CredentialsError:
                    # A clock that is off is the commonest reason; the refusal told the server's time.
                    if abs(self._skew - assumed) <= CLOCK_TOLERANCE or self._auth.flow != "jwt":
                        raise
                    self._token = self._log_in()
            return self._token

    def _log_in(self) -> Token:
        match self._auth:
            case Password() as auth:
                return self._soap(auth)
            case JwtBearer() as auth:
                grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
                return self._oauth({"grant_type": grant, "assertion": self._assertion(auth)})
            case ClientCredentials() as auth:
                client_id = _read("client_id", auth.client_id)
                secret = _read("client_secret", auth.client_secret)
                form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
                return self._oauth(form)

    def _assertion(self, auth: JwtBearer) -> str:
        expires = self._network.now() + self._skew + ASSERTION_LIFE
        claims = {
            "iss": _read("client_id", auth.client_id),
            "sub": auth.username,
            "aud": auth.audience,
            "exp": int(expires.timestamp()),
        }
        try:
            return jwt.encode(claims, _read("private_key", auth.private_key), algorithm="RS256")
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise CredentialsError(
                "auth.private_key cannot be used: give an RSA private key as PEM, without a passphrase"
            ) from error

    def _oauth(self, form: Mapping[str, str]) -> Token:
        answer = self._post("/services/oauth2/token", form, headers={})
        try:
            body = answer.json()
        except ValueError:  # a gateway's page
            body = None
        if answer.status == 200 and isinstance(body, dict) and body.get("access_token"):
            return self._issued(str(body["access_token"]), str(body.get("instance_url")))
        code, text = "", ""
        if isinstance(body, dict):
            code, text = str(body.get("error", "")), str(body.get("error_description", ""))
        raise _refused_login(answer, code, text)

    def _soap(self, auth: Password) -> Token:
        # The client library's own SOAP login speaks to *.salesforce.com alone.
        secret = _read("password", auth.password)
        if auth.security_token is not None:
            secret += _read("security_token", auth.security_token)
        envelope = _SOAP.format(username=html.escape(auth.username), password=html.escape(secret))
        headers = {"Content-Type": "text/xml; charset=UTF-8", "SOAPAction": "login"}
        answer = self._post(f"/services/Soap/u/{self._version}", envelope.encode(), headers=headers)
        text = answer.body.decode("utf-8", "replace")
        session_id = _element(text, "sessionId")
        if answer.status == 200 and session_id:
            return self._issued(session_id, _element(text, "serverUrl"))
        raise _refused_login(answer, _element(text, "exceptionCode"), _element(text, "exceptionMessage"))

    def _issued(self, session_id: str, served_by: str) -> Token:
        host = _HOST.match(served_by)
        return Token(session_id, host[0] if host else self._url)

    def _post(self, path: str, data: Mapping[str, str] | bytes, *, headers: Mapping[str, str]) -> Answer:
        with session_errors(f"POST {path}"):
            response = self._http.post(self._url + path, data=data, headers=headers)
            answer = replace(_heard(response), body=response.content)
        self._note(answer)
        return answer


def _heard(response: Any) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, b"")


def _element(xml: str, name: str) -> str:
    # Three elements of a known shape: no XML parser, so no entities to be bombed with.
    found = re.search(rf"<(?:\w+:)?{name}>([^<]*)</", xml)
    return html.unescape(found[1]).strip() if found else ""


def _read(key: str, secret: Secret) -> str:
    problem = secret.problem()
    if problem:
        raise CredentialsError(f"auth.{key}: {problem}")
    return secret.read()


def _codes(content: Any) -> list[tuple[str, str]]:
    """Return the codes of an error body with their texts; a page of HTML has none."""
    items = content if isinstance(content, list) else []
    pairs = [(str(i.get("errorCode", "")), str(i.get("message", ""))) for i in items if isinstance(i, dict)]
    return [(code, text) for code, text in pairs if _CODE.fullmatch(code)]


def _refused_login(answer: Answer, code: str, text: str) -> SyncError:
    said = f"login refused: HTTP {answer.status}" + (f" {code}" if _CODE.fullmatch(code) else "")
    if "login rate exceeded" in text.lower():
        return TransientError(f"{said}: too many logins, wait for an hour", retry_after=LOCKED_OUT_SECONDS)
    if code == "UNSUPPORTED_API_VERSION":
        return OperatorError(f"{said}: flow password needs an api_version up to 64.0 that is not retired")
    if code in _PASSING_LOGINS or answer.status in _PASSING_STATUSES or (answer.status >= 500 and not code):
        return TransientError(said, retry_after=answer.retry_after)
    if not code and answer.status == 200:
        return TransientError(f"{said} without a token")
    if not code:
        return OperatorError(f"{said}: is url the org's My Domain?")
    known = f"{code} {text}".lower()
    return CredentialsError(f"{said}: {next((r for sign, r in _REMEDIES if sign in known), _REMEDY)}")


def _classed(call: str, answer: Answer, errors: Sequence[tuple[str, str]]) -> SyncError:
    codes, texts = {code for code, _ in errors}, " ".join(text for _, text in errors)
    said = " ".join([f"{call}: HTTP {answer.status}", *sorted(codes)])
    if "REQUEST_LIMIT_EXCEEDED" in codes:
        if "concurrent" in texts.lower():
            return TransientError(f"{said}: too many calls at once")
        return TransientError(f"{said}: the org's daily API limit is used up", retry_after=PAUSE_SECONDS)
    if codes & _PASSING_CODES:
        return TransientError(said, retry_after=answer.retry_after)
    if codes & {"INVALID_FIELD", "INVALID_TYPE"}:
        fields = sorted({a or b for a, b in _NO_FIELD.findall(texts)})
        named = ", ".join(fields) or ("the object" if "INVALID_TYPE" in codes else "a field")
        return SchemaError(f"{said}: {named} does not exist, or the user may not see it", fields=fields)
    return _by_status(said, answer, denied=any(code.startswith("INSUFFICIENT_ACCESS") for code in codes))


def _by_status(said: str, answer: Answer, *, denied: bool) -> SyncError:
    if answer.status in _PASSING_STATUSES or answer.status >= 500:
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
