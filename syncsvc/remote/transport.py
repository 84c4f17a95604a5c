"""HTTP as the engine needs it: a timeout on every call, no redirects, and three answers instead of two.

A call returns an `Answer`, or raises NotSentError (nothing can have happened) or LostAnswerError (anything
can have happened). No module but this one and `ways` names httpx. Bodies, queries and header values
never reach an error message. Proxies come from the environment, and never stand before a loopback address.
"""

from __future__ import annotations

import copy
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import httpcore
import httpx
import orjson
import requests

from syncsvc.errors import ConfigurationError, LostAnswerError, NotSentError, StoppedError
from syncsvc.model import Allowance
from syncsvc.remote.answer import Answer
from syncsvc.remote.calling import saying, telling
from syncsvc.remote.clocks import Clocks
from syncsvc.remote.deadline import Deadline, for_ever
from syncsvc.remote.reasons import why_unsent
from syncsvc.remote.sessions import Adapter, Session
from syncsvc.remote.ways import Ways

CONNECT_SECONDS = 5.0
MAX_BODY = 64 * 1024 * 1024
USER_AGENT = f"syncsvc/{version('syncsvc')}"

_NOT_SENT = (
    httpcore.ConnectError,
    httpcore.ConnectTimeout,
    httpcore.PoolTimeout,
    httpcore.UnsupportedProtocol,
    httpcore.ProxyError,  # the proxy refused the way to the server
    httpcore.LocalProtocolError,  # a header that HTTP does not allow; refused before anything is written
    UnicodeEncodeError,  # a header that is not ASCII
)
_LOST = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpx.DecodingError,  # the body is not packed as its header says
)
_TELLING = (httpcore.LocalProtocolError, UnicodeEncodeError)  # their texts repeat the value
_WITH_BODIES = frozenset({"POST", "PUT", "PATCH"})  # which say a length though there be no body
_IN_PATHS = "/%:@!$&'()*+,;=~?"  # what a path may hold as it stands (RFC 3986)


class Body:
    """The body of a streamed answer, to be read like a file."""

    def __init__(self, chunks: Iterator[bytes], describe: str, until: float, deadline: Deadline) -> None:
        """Read from `chunks` until `until` on the monotonic clock."""
        self._chunks, self._describe = chunks, describe
        self._until, self._deadline = until, deadline

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, of any number, or nothing at the end; a negative size reads all of it.

        Raises LostAnswerError where the body breaks off or the deadline passes.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(1), b""))
        if size == 0:
            return b""
        if time.monotonic() > self._until:
            raise LostAnswerError(f"{self._describe}: the answer took too long")
        self._deadline.until = self._until
        try:
            return next(self._chunks, b"")
        except _LOST as error:
            raise LostAnswerError(
                f"{self._describe}: the answer broke off ({type(error).__name__})"
            ) from error


class _Site(NamedTuple):
    """A server, its path, and the pool that holds connections to it, or to the proxy before it."""

    pool: httpcore.ConnectionPool
    host: str
    netloc: bytes
    path: bytes
    url: Callable[..., httpcore.URL]
    """Returns the URL of a `target`, a path with its query, on this server."""


class HttpClient:
    """HTTP calls to one service over httpx, each within a deadline for the whole answer.

    Connections are those of the whole network: an organization uses one that another has just left. httpx
    chooses the way (TLS, proxies, pools), and its pools are asked directly: its client's own way there
    (authentication, cookies, redirects, none of which we want) and its requests and answers, which look at
    each URL and header anew, take longer than the pools do.
    """

    def __init__(
        self,
        base_url: str,
        *,
        ways: Ways,
        timeout: float,
        user_agent: str,
        network: Network,
    ) -> None:
        """Make no connection yet; `timeout` is in seconds, for the whole of each call."""
        self._base_url = base_url
        self._timeout = timeout
        self._user_agent = user_agent
        self._network = network
        self._deadline = ways.deadline
        self._ways: Ways | None = ways
        self._http = ways.take()
        limits = httpx.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout))
        self._extensions = {"timeout": limits.as_dict()}
        self._headers = {name.lower(): (name, value) for name, value in self._http.headers.raw}
        self._home: _Site | None = None

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
        asked = self.stream(method, path, params=params, json=json, content=content, headers=headers)
        with asked as (head, body):
            return Answer(head.status, head.headers, _whole(body, f"{method} {path}"))

    def relay(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | None) -> Answer:
        """Return the whole answer to a request that another library made, or to a link that a server gave.

        `url` is a whole one, and goes out as it is.
        """
        describe = f"{method} {urlsplit(url).path}"
        until = time.monotonic() + self._timeout
        site = self._site(url, describe)
        with self._exchange(describe, until, method, site, site.path, headers, content) as (head, body):
            return Answer(head.status, head.headers, _whole(body, describe))

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
    ) -> AbstractContextManager[tuple[Answer, Body]]:
        """Give the head of the answer (its body empty) and the body to read; `deadline` is in seconds."""
        describe = f"{method} {path}"
        until = time.monotonic() + (deadline or self._timeout)
        if json is not None:
            content = orjson.dumps(json)
        sent = dict(headers or {})
        if content is not None:
            sent.setdefault("Content-Type", "application/json")
        if self._home is None:
            self._home = self._site(self._base_url, describe)
        query = f"?{urlencode(params, safe=',', quote_via=quote)}" if params else ""
        target = self._home.path.rstrip(b"/") + (quote(path, safe=_IN_PATHS) + query).encode()
        return self._exchange(describe, until, method, self._home, target, sent, content)

    def _site(self, url: str, describe: str) -> _Site:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:  # whose text repeats it
            raise NotSentError(f"{describe}: not sent (InvalidURL)") from None
        pool = self._http._transport_for_url(parsed)._pool  # type: ignore[attr-defined]  # noqa: SLF001 - no public way in
        at = partial(httpcore.URL, scheme=parsed.raw_scheme, host=parsed.raw_host, port=parsed.port)
        return _Site(pool, parsed.host, parsed.netloc, parsed.raw_path, at)

    @contextmanager
    def _exchange(
        self,
        describe: str,
        until: float,
        method: str,
        site: _Site,
        target: bytes,
        headers: Mapping[str, str],
        content: bytes | None,
    ) -> Iterator[tuple[Answer, Body]]:
        self._network.require_lease(describe)
        self._network.count()
        self._deadline.until, began = until, time.monotonic()
        self._deadline.left = self._network.left
        try:
            sent = self._sent(method, site.netloc, headers, content)
            url = site.url(target=target)
            request = httpcore.Request(method, url, content=content, extensions=self._extensions)
            request.headers = sent  # they are bytes, and need not be looked at one by one
            with telling(describe, site.host) as traced:
                response = site.pool.handle_request(request)
                traced.answered(response.status)
        except _NOT_SENT as error:
            cause = None if isinstance(error, _TELLING) else error
            why = _why(error, site)
            raise NotSentError(f"{describe}: not sent ({type(error).__name__}){why}") from cause
        except _LOST as error:
            raise LostAnswerError(
                f"{describe}: no answer from {site.host} ({type(error).__name__})"
            ) from error
        try:
            told: dict[str, str] = {}
            for raw, value in response.headers:
                name, text = raw.decode("latin-1").lower(), value.decode("latin-1")
                told[name] = f"{told[name]}, {text}" if name in told else text
            if "date" in told and "age" not in told:  # no cache between us kept it
                self._network.hear(site.host, told["date"], time.monotonic() - began)
            chunks = response.iter_stream()
            if "content-encoding" in told:
                chunks = httpx.Response(response.status, headers=told, content=chunks).iter_bytes()
            yield Answer(response.status, told, b""), Body(chunks, describe, until, self._deadline)
        finally:
            response.close()

    def _sent(
        self, method: str, host: bytes, headers: Mapping[str, str], content: bytes | None
    ) -> list[tuple[bytes, bytes]]:
        """Return the headers of a request, the given ones before those that every request has."""
        sent = {b"host": (b"Host", host), **self._headers}
        if content or method in _WITH_BODIES:
            sent[b"content-length"] = b"Content-Length", str(len(content or b"")).encode()
        for name, value in headers.items():
            sent[name.lower().encode("ascii")] = name.encode("ascii"), value.encode("ascii")
        sent[b"user-agent"] = b"User-Agent", saying(self._user_agent).encode("ascii")
        return list(sent.values())

    def close(self) -> None:
        """Give back the connections."""
        if self._ways is not None:
            self._ways.leave()
            self._ways = None


def _why(error: Exception, site: _Site) -> str:
    port = site.url(target=b"").origin.port
    why = why_unsent(error, site.host, port, proxied=isinstance(site.pool, httpcore.HTTPProxy))
    return f": {why}" if why else ""


def _whole(body: Body, describe: str) -> bytes:
    chunks, size = [], 0
    while chunk := body.read(MAX_BODY):
        size += len(chunk)
        if size > MAX_BODY:
            raise LostAnswerError(f"{describe}: the answer is larger than {MAX_BODY} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


def trusting(ca_file: str = "") -> ssl.SSLContext:
    """Return a context that trusts the usual authorities and those in `ca_file`; networks can share it.

    Raises ConfigurationError where `ca_file` cannot be read as certificates.
    """
    tls = httpx.create_ssl_context()
    if ca_file:
        try:
            tls.load_verify_locations(cafile=ca_file)
        except OSError as error:
            problem = f"service.ca_file: {ca_file} holds no certificate that can be read"
            raise ConfigurationError([f"{problem}; name a PEM file"]) from error
    return tls


def _wall() -> datetime:
    return datetime.now(UTC)


class Network:
    """What connectors and the wallet client need of the world: connections, the clock, and waiting."""

    def __init__(
        self,
        *,
        ca_file: str = "",
        tls: ssl.SSLContext | None = None,
        stop: threading.Event | None = None,
        user_agent: str = USER_AGENT,
    ) -> None:
        """Trust what `tls` trusts, else as `trusting(ca_file)` does; a set `stop` interrupts every wait."""
        self._tls = tls or trusting(ca_file)
        self._ways = Ways(self._tls)
        self._stop = stop or threading.Event()
        self._user_agent = user_agent
        self._clock: Callable[[], datetime] = _wall
        self.left: Callable[[], float] = for_ever
        """For how many seconds requests may be written yet."""
        self.requests = 0
        self.clocks = Clocks()
        self.allowance: Allowance | None = None
        """What the remote side last told of its calls a day; connectors keep it where it tells them."""

    def branch(self) -> Network:
        """Return a network that shares everything with this one but what it learns of its own requests."""
        branch = copy.copy(self)
        branch.requests, branch.allowance, branch.clocks = 0, None, Clocks()
        return branch

    def leased(self, *, left: Callable[[], float], clock: Callable[[], datetime]) -> Network:
        """Return one like this with another clock, whose requests are written while anything is `left`."""
        leased = self.branch()
        leased.left, leased._clock = left, clock  # noqa: SLF001 - its own
        return leased

    def unleased(self) -> Network:
        """Return one like this whose requests no lease ends: for those that change nothing anywhere."""
        unleased = self.branch()
        unleased.left = for_ever
        return unleased

    def require_lease(self, describe: str) -> None:
        """Raise NotSentError where another process may run this organization's cycles by now.

        Requests ask by themselves; whoever writes elsewhere does before that.
        """
        if self.left() <= 0:
            raise NotSentError(f"{describe}: not sent (the lease of this organization is over)")

    def count(self) -> None:
        """Count one request; told by the clients and sessions of this network."""
        self.requests += 1

    def hear(self, host: str, date: str, seconds: float) -> None:
        """Keep what a server told of its clock, in an answer that came `seconds` after its request."""
        now = self.now()
        self.clocks.keep(host, date, now - timedelta(seconds=seconds), now)

    def client(self, base_url: str, *, timeout: float) -> HttpClient:
        """Return a client for one service; `timeout` is in seconds for the whole of each call."""
        return HttpClient(
            base_url, ways=self._ways, timeout=timeout, user_agent=self._user_agent, network=self
        )

    def session(self, *, timeout: float) -> requests.Session:
        """Return a `requests` session with the same manners, for libraries that need one."""
        session = Session()
        session.headers["User-Agent"] = self._user_agent
        session.auth = lambda request: request  # a ~/.netrc entry would replace our Authorization header
        adapter = Adapter(self.client("", timeout=timeout))
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def now(self) -> datetime:
        """Return the time in UTC: by the wall clock, or by the one that all replicas have in common."""
        return self._clock()

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait; raises StoppedError as soon as the process is asked to stop."""
        if self._stop.wait(seconds):
            raise StoppedError("asked to stop while waiting")
