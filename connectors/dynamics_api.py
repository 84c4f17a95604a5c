"""Calls to the Web API of one Dynamics 365 environment: the token, the batches, and what an answer means.

Every call made through here may be made twice, so whatever may pass is repeated. The texts of errors quote
values: only codes are kept.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.parser import BytesParser
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import orjson
from pydantic import Field

from syncsvc.errors import CredentialsError, LostAnswerError, OperatorError, TransientError
from syncsvc.remote.answer import Answer
from syncsvc.remote.retry import repeat
from syncsvc.remote.transport import Network
from syncsvc.settings import Secret, Settings, Url

LONGEST_WAIT = 86_400.0
"""Seconds that a server is believed to need."""

RENEWED_BEFORE = 60
"""Seconds before its end that a token is replaced."""

ROLE = "give the app's user a security role with organization-level read, and write, of contacts"

_PASSING = {408, 425, 429}
_CODE = re.compile(r"0x[0-9A-Fa-f]{8}")
_WORD = re.compile(r"[a-z_]{3,40}")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_MEANINGS = {"0x80044331": "a value is too long", "0x80040265": "a plug-in of the environment refuses it"}
_REMEDIES = {
    "invalid_client": "give a secret of the app that has not expired, its value and not its id",
    "unauthorized_client": "compare client_id and tenant with the app registration",
    "invalid_request": "compare tenant with the directory's id",
    "invalid_resource": "compare url with the environment's",
}
T = TypeVar("T")


class Auth(Settings):
    """The app registration in Entra that is an application user of the environment."""

    tenant: str = Field(
        pattern=r"^[A-Za-z0-9.-]+$",
        examples=["acme.onmicrosoft.com"],
        description="the directory's id, or a domain of it",
    )
    client_id: Secret = Field(examples=[{"env": "DYNAMICS_ID"}], description="the application's id")
    client_secret: Secret = Field(examples=[{"env": "DYNAMICS_SECRET"}], description="a secret of it")
    authority: Url = Field(default="https://login.microsoftonline.com", description="another in other clouds")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that concerns one request, or one part of a batch; its document is {} where it has none."""

    status: int
    document: Mapping[str, Any]

    @property
    def good(self) -> bool:
        """Whether it was done."""
        return 200 <= self.status < 300

    @property
    def passes(self) -> bool:
        """Whether it may be done later."""
        return self.status >= 500 or self.status in _PASSING

    @property
    def reason(self) -> str:
        """What the error says in its code, for messages."""
        error = self.document.get("error")
        code = str(error.get("code")) if isinstance(error, dict) else ""
        known = code if _CODE.fullmatch(code) else f"HTTP {self.status}"
        return f"{known}, {_MEANINGS[known]}" if known in _MEANINGS else known


class DynamicsApi:
    """The Web API of one environment; `root` is its path."""

    def __init__(self, url: str, *, auth: Auth, version: str, timeout: float, network: Network) -> None:
        """Make no request yet; `timeout` is in seconds for each."""
        self.root = f"/api/data/v{version}/"
        self._url = url
        self._auth = auth
        self._network = network
        self._http = network.client(url, timeout=timeout)
        self._entra = network.client(auth.authority, timeout=timeout)
        self._token: str | None = None
        self._good_until = 0.0
        self._ahead: timedelta | None = None  # the server's clock minus ours, as last heard

    def now(self) -> datetime:
        """Return the server's clock by what it told last; logs in where it told nothing yet."""
        if self._ahead is None:
            repeat(lambda: self._bearer(anew=False), network=self._network)
        return self._network.now() + (self._ahead or timedelta())

    def get(self, path: str, *, prefer: str = "") -> Reply:
        """Return the answer to a GET of a path with its query: a success, or a 4xx about this request.

        Raises CredentialsError where the app is refused, also with a new token, and TransientError for what
        passes: limits, 5xx, answers that are not whole.
        """
        return self._ask("GET", path, {"Prefer": prefer} if prefer else {}, None, _replied)

    def document(self, path: str, *, prefer: str = "") -> Mapping[str, Any]:
        """Return the document of a success; raises what `get` raises, and OperatorError for a refusal."""
        return accepted(self.get(path, prefer=prefer), path)

    def patch(self, contents: Sequence[tuple[str, Any]], *, select: str) -> list[Reply]:
        """Return the answers to updates of single records, in order, or of the first ones of them.

        `contents` are the records' paths below the root, with their new values; an answer's document has
        the columns of `select`. A record that is not there is not created. Raises what `document` raises.
        """
        boundary = f"batch_{uuid.uuid4()}"
        # If-Match keeps an update of what was deleted from creating it (Conditional operations, 2022-04).
        head = (
            f"--{boundary}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
            f"PATCH {self.root}{{}}?$select={select} HTTP/1.1\r\nContent-Type: application/json\r\n"
            "Content-Length: {}\r\nIf-Match: *\r\nPrefer: return=representation\r\n\r\n"
        )
        bodies = [(path, orjson.dumps(content)) for path, content in contents]
        parts = [head.format(path, len(body)).encode() + body + b"\r\n" for path, body in bodies]
        content = b"".join([*parts, f"--{boundary}--\r\n".encode()])
        kind = f'multipart/mixed; boundary="{boundary}"'
        headers = {"Content-Type": kind, "Prefer": "odata.continue-on-error"}
        return self._ask("POST", f"{self.root}$batch", headers, content, _parts)

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()
        self._entra.close()

    def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        content: bytes | None,
        read: Callable[[Answer], T],
    ) -> T:
        what = f"{method} {urlsplit(path).path}"

        def once() -> T:
            answer = self._send(method, path, headers, content)
            _raise_for_status(answer, what)
            return read(answer)

        return repeat(once, network=self._network)

    def _send(self, method: str, path: str, headers: Mapping[str, str], content: bytes | None) -> Answer:
        for anew in (False, True):
            sent = {"OData-Version": "4.0", "OData-MaxVersion": "4.0", **headers}
            sent["Authorization"] = f"Bearer {self._bearer(anew=anew)}"
            answer = self._http.relay(method, f"{self._url}{path}", headers=sent, content=content)
            if answer.status != 401:
                break
        self._hear(answer)
        return answer

    def _hear(self, answer: Answer) -> None:
        if answer.date is not None:
            self._ahead = answer.date - self._network.now()

    def _bearer(self, *, anew: bool) -> str:
        if anew or self._token is None or self._network.monotonic() >= self._good_until:
            self._token = self._log_in()
        return self._token

    def _log_in(self) -> str:
        form = {
            "grant_type": "client_credentials",
            "client_id": _read("client_id", self._auth.client_id),
            "client_secret": _read("client_secret", self._auth.client_secret),
            "scope": f"{self._url}/.default",
        }
        answer = self._entra.send(
            "POST",
            f"/{self._auth.tenant}/oauth2/v2.0/token",
            content=urlencode(form, quote_via=quote).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded"},
        )
        self._hear(answer)
        document = _object(answer) or {}
        token, lives = document.get("access_token"), document.get("expires_in")
        if answer.status != 200 or not isinstance(token, str) or not token.isascii():
            raise _refused_login(answer, document)
        seconds = lives if type(lives) is int else 0
        self._good_until = self._network.monotonic() + seconds - RENEWED_BEFORE
        return token


def accepted(reply: Reply, what: str) -> Mapping[str, Any]:
    """Return the document of a success; raises OperatorError for a refusal."""
    if reply.good:
        return reply.document
    raise OperatorError(
        f"Dynamics refuses {urlsplit(what).path} with {reply.status} ({reply.reason}): "
        "check url and api_version"
    )


def objects(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the list of objects in a document; raises TransientError where there is none."""
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise TransientError("Dynamics' answer does not have the form of its kind")
    return found


def _object(answer: Answer) -> Mapping[str, Any] | None:
    try:
        document = answer.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _replied(answer: Answer) -> Reply:
    document = _object(answer)
    if 200 <= answer.status < 300 and answer.status != 204 and document is None:
        raise LostAnswerError(f"Dynamics answers with {answer.status} and no whole document")
    return Reply(answer.status, document or {})


def _parts(answer: Answer) -> list[Reply]:
    """Return the answers in a batch's; the first failure ends one that is not told to go on."""
    kind = answer.headers.get("content-type", "")
    if not kind.startswith("multipart/mixed"):
        accepted(_replied(answer), "/$batch")
        raise LostAnswerError("Dynamics answers a batch with something else")
    # The header is the server's own, which cannot hold a line's end; the parser is that of mails.
    message = BytesParser().parsebytes(b"Content-Type: " + kind.encode() + b"\r\n\r\n" + answer.body)
    replies = []
    for part in message.get_payload() if message.is_multipart() else []:
        payload: Any = part.get_payload(decode=True) if not isinstance(part, str) else b""
        head, _, body = (payload or b"").partition(b"\r\n\r\n")
        status = _STATUS.match(head)
        if status is None:
            raise LostAnswerError("Dynamics answers a part of a batch with something else")
        replies.append(Reply(int(status[1]), _object(Answer(int(status[1]), {}, body)) or {}))
    if not replies:
        raise LostAnswerError("Dynamics answers a batch with no parts")
    return replies


def _read(key: str, secret: Secret) -> str:
    if problem := secret.problem():
        raise CredentialsError(f"auth.{key}: {problem}")
    return secret.read()


def _raise_for_status(answer: Answer, what: str) -> None:
    """Raise for an answer that means the same for every request."""
    reply = Reply(answer.status, _object(answer) or {})
    said = f"Dynamics answers {what} with {reply.reason}"
    if answer.status == 401:
        raise CredentialsError(f"{said} to a new token: make the app an application user of the environment")
    if answer.status == 403:
        raise CredentialsError(f"{said}: {ROLE}")
    if reply.passes:
        raise TransientError(said, retry_after=_wait(answer))
    if answer.status < 200 or 300 <= answer.status < 400:
        raise OperatorError(f"{said}: set url to the environment's own address")


def _wait(answer: Answer) -> float | None:
    return None if answer.retry_after is None else min(answer.retry_after, LONGEST_WAIT)


def _refused_login(answer: Answer, document: Mapping[str, Any]) -> Exception:
    error = str(document.get("error"))
    code = error if _WORD.fullmatch(error) else ""
    numbers = document.get("error_codes")
    number = numbers[0] if isinstance(numbers, list) and numbers else None
    told = f"{code} AADSTS{number}" if type(number) is int else code
    said = f"Entra answers the login with {answer.status} {told}".strip()
    if Reply(answer.status, {}).passes or code in {"temporarily_unavailable", "server_error"}:
        return TransientError(said, retry_after=_wait(answer))
    if answer.status == 200:
        return TransientError(f"{said} without a token")
    if not code:
        return OperatorError(f"{said}: check auth.authority and auth.tenant")
    return CredentialsError(f"{said}: {_REMEDIES.get(code, 'compare auth with the app registration')}")
