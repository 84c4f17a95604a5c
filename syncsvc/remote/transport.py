"""HTTP as the engine needs it: a timeout on every call, no redirects, and three answers instead of two.

A call returns an `Answer`, or raises NotSentError (nothing can have happened) or LostAnswerError (anything
can have happened). This is the only module that names the HTTP libraries. Bodies, queries and header values
never reach an error message.
"""

from __future__ import annotations

import copy
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import Any, Protocol

import httpx
import orjson
import requests
import requests.adapters

from syncsvc.errors import LostAnswerError, NotSentError, StoppedError, TransientError
from syncsvc.settings import is_loopback

CONNECT_SECONDS = 5.0
MAX_BODY = 64 * 1024 * 1024
USER_AGENT = f"syncsvc/{version('syncsvc')}"

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


def _http_date(value: str | None) -> datetime | None:
    if not value:
        return None
    try:
        parsed = parsedate_to_datetime(value)
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer: status, headers by lower-case name, and the decoded body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; raises ValueError where it is none."""
        return orjson.loads(self.body)

    @property
    def date(self) -> datetime | None:
        """The server's own clock (`Date` header), or None."""
        return _http_date(self.headers.get("date"))

    @property
    def retry_after(self) -> float | None:
        """Seconds the server asks to wait (`Retry-After`, a number or a date), or None."""
        value = self.headers.get("retry-after", "").strip()
        try:
            return max(0.0, float(value))
        except ValueError:
            until = _http_date(value)
        return None if until is None else max(0.0, (until - datetime.now(UTC)).total_seconds())


class Body:
    """The body of a streamed answer, to be read like a file."""

    def __init__(self, chunks: Iterator[bytes], describe: str, deadline: float) -> None:
        """Read from `chunks` until `deadline` on the monotonic clock."""
        self._chunks = chunks
        self._describe = describe
        self._deadline = deadline

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, of any number, or nothing at the end; a negative size reads all of it.

        Raises LostAnswerError where the body breaks off or the deadline passes.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(1), b""))
        if size == 0:
            return b""
        if time.monotonic() > self._deadline:
            raise LostAnswerError(f"{self._describe}: the answer took too long")
        try:
            return next(self._chunks, b"")
        except httpx.HTTPError as error:
            raise LostAnswerError(
                f"{self._describe}: the answer broke off ({type(error).__name__})"
            ) from error


class Client(Protocol):
    """HTTP calls to one service."""

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the whole answer, whatever its status; `path` begins with a slash.

        `content` is a body that is JSON already. Raises NotSentError or LostAnswerError.
        """

    def close(self) -> None:
        """Give back the connections."""


class HttpClient:
    """HTTP calls to one service over httpx, each within a deadline for the whole answer."""

    def __init__(
        self,
        base_url: str,
        *,
        tls: ssl.SSLContext,
        timeout: float,
        user_agent: str,
        count: Callable[[], None],
    ) -> None:
        """Make no connection yet; `timeout` is in seconds, for the whole of each call."""
        self._timeout = timeout
        self._count = count
        self._http = httpx.Client(
            base_url=base_url,
            verify=tls,
            follow_redirects=False,
            trust_env=not is_loopback(base_url),
            timeout=httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
            limits=httpx.Limits(max_connections=4, keepalive_expiry=30.0),
            headers={"User-Agent": user_agent, "Accept": "application/json"},
        )

    def send(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return the whole answer, whatever its status; see `Client.send`."""
        with self.stream(method, path, params=params, json=json, content=content, headers=headers) as (
            answer,
            body,
        ):
            chunks, size = [], 0
            while chunk := body.read(MAX_BODY):
                size += len(chunk)
                if size > MAX_BODY:
                    raise LostAnswerError(f"{method} {path}: the answer is larger than {MAX_BODY} bytes")
                chunks.append(chunk)
            return Answer(answer.status, answer.headers, b"".join(chunks))

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Iterator[tuple[Answer, Body]]:
        """Give the head of the answer (its body empty) and the body to read; `deadline` is in seconds."""
        describe = f"{method} {path}"
        until = time.monotonic() + (deadline or self._timeout)
        if json is not None:
            content = orjson.dumps(json)
        sent = dict(headers or {})
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        request = self._http.build_request(method, path, params=params, content=content, headers=sent)
        self._count()
        try:
            response = self._http.send(request, stream=True)
        except _NOT_SENT as error:
            raise NotSentError(f"{describe}: not sent ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            raise LostAnswerError(f"{describe}: no answer ({type(error).__name__})") from error
        try:
            head = Answer(response.status_code, {k.lower(): v for k, v in response.headers.items()}, b"")
            yield head, Body(response.iter_bytes(), describe, until)
        finally:
            response.close()

    def close(self) -> None:
        """Give back the connections."""
        self._http.close()


class _Adapter(requests.adapters.HTTPAdapter):
    """Gives every request a timeout and our trust store; requests itself has neither by default."""

    def __init__(self, tls: ssl.SSLContext, timeout: float, count: Callable[[], None]) -> None:
        self._tls = tls
        self._count = count
        self._timeout = (min(CONNECT_SECONDS, timeout), timeout)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._tls, **kwargs)

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # type: ignore[override]
        kwargs["timeout"] = kwargs.get("timeout") or self._timeout
        self._count()
        return super().send(request, **kwargs)


class _Session(requests.Session):
    """A session that never follows a redirect: a POST would become a GET, and a token could leak."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        del resp


@contextmanager
def session_errors(describe: str) -> Iterator[None]:
    """Turn the errors of a `requests` session into NotSentError and LostAnswerError."""
    try:
        yield
    except (requests.exceptions.ConnectTimeout, requests.exceptions.SSLError) as error:
        raise NotSentError(f"{describe}: not sent ({type(error).__name__})") from error
    except requests.exceptions.ConnectionError as error:
        refused = "NewConnectionError" in repr(error.args)
        kind: type[TransientError] = NotSentError if refused else LostAnswerError
        raise kind(f"{describe}: no answer ({type(error).__name__})") from error
    except requests.exceptions.RequestException as error:
        raise LostAnswerError(f"{describe}: no answer ({type(error).__name__})") from error


class Network:
    """What connectors and the wallet client need of the world: connections, the clock, and waiting."""

    def __init__(
        self, *, ca_file: str = "", stop: threading.Event | None = None, user_agent: str = USER_AGENT
    ) -> None:
        """Trust the usual authorities and those in `ca_file`; a set `stop` interrupts every wait."""
        self._tls = httpx.create_ssl_context()
        if ca_file:
            self._tls.load_verify_locations(cafile=ca_file)
        self._stop = stop or threading.Event()
        self._user_agent = user_agent
        self.requests = 0

    def branch(self) -> Network:
        """Return a network that shares everything with this one but counts its own requests."""
        branch = copy.copy(self)
        branch.requests = 0
        return branch

    def count(self) -> None:
        """Count one request; told by the clients and sessions of this network."""
        self.requests += 1

    def client(self, base_url: str, *, timeout: float) -> HttpClient:
        """Return a client for one service; `timeout` is in seconds for the whole of each call."""
        return HttpClient(
            base_url, tls=self._tls, timeout=timeout, user_agent=self._user_agent, count=self.count
        )

    def session(self, *, timeout: float) -> requests.Session:
        """Return a `requests` session with the same manners, for libraries that need one."""
        session = _Session()
        session.headers["User-Agent"] = self._user_agent
        session.auth = lambda request: request  # a ~/.netrc entry would replace our Authorization header
        session.mount("https://", _Adapter(self._tls, timeout, self.count))
        return session

    def now(self) -> datetime:
        """Return the wall clock in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait; raises StoppedError as soon as the process is asked to stop."""
        if self._stop.wait(seconds):
            raise StoppedError("asked to stop while waiting")
