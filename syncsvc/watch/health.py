"""What is served: /metrics for Prometheus, /healthz and /readyz for whoever restarts us, / for people.

Plain HTTP/1.1 by the standard library, in threads of its own, so that it answers while a cycle works. It
bounds its connections and their patience, and never passes anything through unredacted.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import ipaddress
import re
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, NamedTuple, Protocol

import orjson

from syncsvc.errors import ConfigurationError, StateError
from syncsvc.watch.log import logger
from syncsvc.watch.page import SECURITY
from syncsvc.watch.redaction import redacted

PATIENCE_SECONDS = 10.0
"""How long a connection may stay silent."""

MAX_CONNECTIONS = 32

_POLL_SECONDS = 0.1
_MAX_DRAINED = 64 * 1024
_LISTEN = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.%\w]+)\]|(?P<host>[^\s:\[\]/@]+)):(?P<port>\d{1,5})")
_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json"
_HTML = "text/html; charset=utf-8"


class Exposition(Protocol):
    """What /metrics shows; `Metrics` is one."""

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the body and its content type, in the format that an `Accept` header asks for."""


class StatusPage(Protocol):
    """What people are shown, under / and /organizations/NAME."""

    @property
    def token(self) -> str | None:
        """The token that the page is shown for, as it is now; None where none is configured."""

    def render(self, path: str) -> bytes | None:
        """Return the HTML under a path, None where there is none."""


class HealthServer:
    """The endpoint, from `start` to `stop`.

    GET and HEAD of /metrics; of /healthz (200, or 503 where `alive` says no: restart this process); of
    /readyz (200 or 503, with the facts of `ready` as a JSON object); of what `page` renders: where it has a
    token, for requests that bear it (a browser sends it as the password it asks for); where it has none, on a
    loopback address alone. Any other path is 404, any other method 405. All are called from threads of the
    server; one that raises counts as a no.
    """

    def __init__(
        self,
        listen: str,
        metrics: Exposition,
        ready: Callable[[], tuple[bool, Mapping[str, Any]]],
        *,
        alive: Callable[[], bool] = lambda: True,
        page: StatusPage | None = None,
    ) -> None:
        """Open nothing yet; `listen` is host:port, [IPv6]:port, or "" to serve nothing; port 0 takes any.

        Raises ConfigurationError, naming `service.listen`, where `listen` is none of these.
        """
        self._listen = listen
        self._address = _parse(listen) if listen else None
        self._pages = _Pages(metrics, ready, alive, page)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int | None:
        """The port that is served, or None where nothing is."""
        return None if self._server is None else int(self._server.server_address[1])

    def start(self) -> None:
        """Serve in a thread; connections are taken when this returns.

        Raises ConfigurationError, naming `service.listen`, where the address cannot be opened.
        """
        if self._address is None or self._server is not None:
            return
        host, port = self._address
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, address = found[0]
            self._pages.private = ipaddress.ip_address(address[0]).is_loopback
            self._server = _Server(family, address, self._pages)
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or "no such host"
            raise ConfigurationError(
                [f'service.listen: "{self._listen}" cannot be opened ({reason}); choose a free one, or ""']
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": _POLL_SECONDS},
            name="health",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and every connection; may be called again, and without a start."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server = self._thread = None


def _parse(listen: str) -> tuple[str, int]:
    match = _LISTEN.fullmatch(listen)
    if match is None or int(match["port"]) > 65535:  # noqa: PLR2004 - the highest TCP port
        raise ConfigurationError(
            [f'service.listen: "{listen}" is not an address; write "127.0.0.1:9464", "[::1]:9464", or ""']
        )
    return match["v6"] or match["host"], int(match["port"])


class _Answer(NamedTuple):
    """What a path is answered with."""

    status: HTTPStatus
    content_type: str
    body: bytes
    headers: Mapping[str, str] = {}


class _Pages:
    """What each path shows."""

    def __init__(
        self,
        metrics: Exposition,
        ready: Callable[[], tuple[bool, Mapping[str, Any]]],
        alive: Callable[[], bool],
        page: StatusPage | None,
    ) -> None:
        self._metrics = metrics
        self._ready = ready
        self._alive = alive
        self._page = page
        self.private = False  # whether nobody but this machine can ask

    def show(self, path: str, headers: Message[str, str]) -> _Answer:
        match path:
            case "/metrics":
                body, content_type = self._metrics.render(headers.get("Accept", ""))
                return _Answer(HTTPStatus.OK, content_type, body)
            case "/healthz":
                status = HTTPStatus.OK if self._alive() else HTTPStatus.SERVICE_UNAVAILABLE
                return _Answer(status, _TEXT, f"{status.phrase}\n".encode())
            case "/readyz":
                ready, facts = self._ready()
                status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
                return _Answer(status, _JSON, orjson.dumps({"ready": ready} | redacted(facts)))
        return self._people(path, headers.get("Authorization", "")) or _NOT_FOUND

    def _people(self, path: str, authorization: str) -> _Answer | None:
        if self._page is None:
            return None
        token = self._page.token
        if token is None and not self.private:
            return _CLOSED
        if token is not None and not _opens(_borne(authorization), token):
            return _WHO
        shown = self._page.render(path)
        return None if shown is None else _Answer(HTTPStatus.OK, _HTML, shown, _SAFE)


_NOT_FOUND = _Answer(HTTPStatus.NOT_FOUND, _TEXT, b"try /metrics, /healthz or /readyz\n")
_CLOSED = _Answer(
    HTTPStatus.FORBIDDEN,
    _TEXT,
    b"the status page is shown on a loopback address alone, unless service.page_token is set\n",
)
_WHO = _Answer(
    HTTPStatus.UNAUTHORIZED,
    _TEXT,
    b"send service.page_token as a bearer token, or as the password, with any user\n",
    {"WWW-Authenticate": 'Bearer realm="syncsvc", Basic realm="syncsvc", charset="UTF-8"'},
)
_SAFE = {
    "Content-Security-Policy": SECURITY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def _opens(borne: bytes, token: str) -> bool:
    return bool(token) and hmac.compare_digest(borne, token.encode())


def _borne(authorization: str) -> bytes:
    """Return the token that a request bears, by either scheme; empty where it bears none."""
    scheme, _, value = authorization.partition(" ")
    if scheme.casefold() == "bearer":
        return value.strip().encode("latin-1")  # the server reads headers so
    if scheme.casefold() == "basic":
        with contextlib.suppress(binascii.Error):
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    return b""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, family: int, address: Any, pages: _Pages) -> None:
        self.address_family = family
        self.pages = pages
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer would look up its own name, and wait for a lame resolver

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._open) >= MAX_CONNECTIONS
            if not full:
                self._open.add(request)
        if full:
            super().shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address
        if not isinstance(sys.exception(), OSError):  # else the client went away, and nobody waits for us
            logger().error("health_connection_failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # a malformed request gets a status line too
    timeout = PATIENCE_SECONDS
    # As few packets as can be, none held back: else answers on a kept connection wait 40 ms for an ACK.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body stays unread, and must not pass for the next request
        path = self.path.partition("?")[0]
        try:
            answer = self.server.pages.show(path, self.headers)
        except StateError as error:  # it passes by itself, and every cycle tells it too
            logger().warning("health_page_unavailable", path=path, reason=str(error))
            told = b"the state cannot be read now, see the log; look again once it can\n"
            answer = _Answer(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, told)
        except Exception:  # noqa: BLE001 - whatever a probe meets, the one who asks is told "no"
            logger().error("health_page_failed", path=path, exc_info=True)
            answer = _Answer(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, b"this page failed, see the log\n")
        self._answer(answer)

    do_HEAD = do_GET  # noqa: N815 - the name that the base class looks for

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        del message, explain  # they quote what was sent to us
        status = HTTPStatus(code)
        if status is HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self.close_connection = True
        self._answer(_Answer(status, _TEXT, f"{status.phrase}\n".encode()))

    def _answer(self, answer: _Answer) -> None:
        status, content_type, body, headers = answer
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name, value)
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        return "syncsvc"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: probes are normal work, and normal work is quiet."""
