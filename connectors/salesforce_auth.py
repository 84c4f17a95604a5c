"""Logging in to a Salesforce org: the flows, and the token that they give.

Every refusal leaves as one of our errors, classed by what the engine does next. The vendor's texts can quote
record values, so messages carry codes and names alone, and the vendor's exception is not chained.
"""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Annotated, Any, Literal

import jwt
from pydantic import Field

from syncsvc.errors import CredentialsError, OperatorError, SyncError, TransientError
from syncsvc.remote.answer import Answer
from syncsvc.remote.sessions import session_errors
from syncsvc.remote.transport import Network
from syncsvc.settings import Secret, Settings, Url

ASSERTION_LIFE = timedelta(minutes=3)
"""An assertion may expire at most five minutes after the server's time (Salesforce help on JWT, 2026-11)."""

CLOCK_TOLERANCE = timedelta(minutes=1)
"""How far our clock may be from the server's before a refused assertion is worth a second try."""

LOCKED_OUT_SECONDS = 3600.0
"""More than 3,600 logins of one user within an hour lock that user out for the hour (seen 2026-11)."""

CODE = re.compile(r"[A-Za-z_]{3,60}")
"""What an error code looks like: anything else may quote a value and is not repeated."""

PASSING_CODES = frozenset({"QUERY_TIMEOUT", "SERVER_UNAVAILABLE", "UNABLE_TO_LOCK_ROW", "UNKNOWN_EXCEPTION"})

# 406 and 420 come from the platform's front door, empty or as HTML, and pass by themselves (seen 2026-11).
PASSING_STATUSES = frozenset({406, 408, 420, 425, 429})

_PASSING_LOGINS = {*PASSING_CODES, "REQUEST_LIMIT_EXCEEDED", "server_error", "temporarily_unavailable"}
_HOST = re.compile(r"https://[\w.-]+(?::\d{1,5})?(?=/|$)")

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

    flow: Literal["client_credentials"] = Field(description="this way to log in")
    client_id: Secret = Field(examples=[{"env": "SF_ID"}], description="the app's consumer key")
    client_secret: Secret = Field(examples=[{"env": "SF_SECRET"}], description="the app's consumer secret")


class JwtBearer(Settings):
    """OAuth JWT bearer: an assertion signed with the app's RSA key speaks for a pre-authorised user."""

    flow: Literal["jwt"] = Field(description="this way to log in")
    client_id: Secret = Field(examples=[{"env": "SF_ID"}], description="the app's consumer key")
    username: str = Field(
        min_length=1, repr=False, examples=["sync@acme.example"], description="the user that it speaks for"
    )
    private_key: Secret = Field(
        examples=[{"file": "sf.pem"}], description="RSA key as PEM, without a passphrase"
    )
    audience: Url = Field(
        default="https://login.salesforce.com", description="https://test.salesforce.com for a sandbox"
    )


class Password(Settings):
    """SOAP login with user name and password: only API versions up to 64.0 have it."""

    flow: Literal["password"] = Field(description="this way to log in")
    username: str = Field(
        min_length=1, repr=False, examples=["sync@acme.example"], description="the user's name"
    )
    password: Secret = Field(examples=[{"env": "SF_PASSWORD"}], description="its password")
    security_token: Secret | None = Field(
        default=None,
        examples=[{"env": "SF_SECURITY"}],
        description="its security token, where logins from this address need one",
    )


Auth = Annotated[ClientCredentials | JwtBearer | Password, Field(discriminator="flow")]
"""How to log in, told apart by `flow`."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a login gave: the session id, and the URL of the host that it is good for."""

    session_id: str = field(repr=False)
    instance_url: str


class Login:
    """The login of one user at one org; safe for several threads, which share its token."""

    def __init__(self, url: str, *, auth: Auth, version: str, http: Any, network: Network) -> None:
        """Make no request yet; `http` is a session of `network`, `version` is such as "67.0"."""
        self.ahead = timedelta(0)
        """The org's clock minus ours, as last heard."""
        self._url = url
        self._auth = auth
        self._version = version
        self._http = http
        self._network = network
        self._lock = threading.Lock()
        self._token: Token | None = None

    @property
    def done(self) -> bool:
        """Whether there is a token."""
        return self._token is not None

    def token(self, *, stale: Token | None = None) -> Token:
        """Return the token, after a new login where there is none or it is the one that went stale.

        Raises CredentialsError where the org refuses the login, TransientError for what passes.
        """
        with self._lock:
            if self._token is None or self._token is stale:
                self._token = None
                assumed = self.ahead
                try:
                    self._token = self._log_in()
                except CredentialsError:
                    # A clock that is off is the commonest reason; the refusal told the server's time.
                    if abs(self.ahead - assumed) <= CLOCK_TOLERANCE or self._auth.flow != "jwt":
                        raise
                    self._token = self._log_in()
            return self._token

    def hear(self, answer: Answer) -> None:
        """Learn the org's clock from any of its answers."""
        if answer.date is not None:
            self.ahead = answer.date - self._network.now()

    def forget(self) -> None:
        """Forget the token; it is not revoked, as others may share it."""
        self._token = None

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
        expires = self._network.now() + self.ahead + ASSERTION_LIFE
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
            answer = replace(heard(response), body=response.content)
        self.hear(answer)
        return answer


def heard(response: Any) -> Answer:
    """Return the head of an answer that a `requests` session gave, without its body."""
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


def _refused_login(answer: Answer, code: str, text: str) -> SyncError:
    said = f"login refused: HTTP {answer.status}" + (f" {code}" if CODE.fullmatch(code) else "")
    if "login rate exceeded" in text.lower():
        return TransientError(f"{said}: too many logins, wait for an hour", retry_after=LOCKED_OUT_SECONDS)
    if code == "UNSUPPORTED_API_VERSION":
        return OperatorError(f"{said}: flow password needs an api_version up to 64.0 that is not retired")
    if code in _PASSING_LOGINS or answer.status in PASSING_STATUSES or (answer.status >= 500 and not code):
        return TransientError(said, retry_after=answer.retry_after)
    if not code and answer.status == 200:
        return TransientError(f"{said} without a token")
    if not code:
        return OperatorError(f"{said}: is url the org's My Domain?")
    known = f"{code} {text}".lower()
    return CredentialsError(f"{said}: {next((r for sign, r in _REMEDIES if sign in known), _REMEDY)}")
