from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any

import orjson
import pytest
import structlog

from syncsvc.errors import ConfigurationError, StateError
from syncsvc.watch import health
from syncsvc.watch.health import HealthServer
from syncsvc.watch.metrics import Metrics
from syncsvc.watch.report import CycleReport, Outcome

Ready = Callable[[], tuple[bool, dict[str, Any]]]


def yes() -> tuple[bool, dict[str, Any]]:
    return True, {"organizations": {"acme": {"outcome": "ok"}}}


@contextmanager
def serving(ready: Ready = yes, *, listen: str = "127.0.0.1:0", **more: Any) -> Iterator[HealthServer]:
    metrics = Metrics(version="1.0")
    metrics.observe(CycleReport(organization="acme", cycle="c-1", outcome=Outcome.OK, rows_landed=7))
    server = HealthServer(listen, metrics, ready, **more)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def server() -> Iterator[HealthServer]:
    with serving() as started:
        yield started


def connect(server: HealthServer, host: str = "127.0.0.1") -> HTTPConnection:
    assert server.port is not None
    return HTTPConnection(host, server.port, timeout=5)


def ask(
    server: HealthServer, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[HTTPResponse, bytes]:
    connection = connect(server)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


def exchange(server: HealthServer, raw: bytes) -> bytes:
    """Send bytes as they are and return all that comes until the server closes."""
    assert server.port is not None
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as wire:
        wire.sendall(raw)
        return b"".join(iter(lambda: wire.recv(65536), b""))


def test_metrics_are_shown_in_the_format_that_is_asked_for(server: HealthServer) -> None:
    answer, body = ask(server, "/metrics?x=1")
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b'syncsvc_rows_landed_total{organization="acme"} 7.0' in body
    answer, body = ask(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_a_living_process_says_so(server: HealthServer) -> None:
    answer, body = ask(server, "/healthz")
    assert (answer.status, body) == (200, b"OK\n")


def test_a_process_that_no_longer_turns_says_so() -> None:
    with serving(alive=lambda: False) as started:
        assert ask(started, "/healthz")[0].status == 503
        assert ask(started, "/readyz")[0].status == 200


@pytest.mark.parametrize(("ready", "status"), [(True, 200), (False, 503)])
def test_readiness_is_a_status_and_its_facts(ready: bool, status: int) -> None:  # noqa: FBT001 - a parameter of the test
    with serving(lambda: (ready, {"acme": {"held": 3, "token": "abc", "note": "ann@example.co"}})) as started:
        answer, body = ask(started, "/readyz")
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert orjson.loads(body) == {
        "ready": ready,
        "acme": {"held": 3, "token": "[redacted]", "note": "[redacted]"},
    }


def test_readiness_that_fails_is_no_readiness_and_keeps_its_reason_to_the_log() -> None:
    def broken() -> tuple[bool, dict[str, Any]]:
        raise RuntimeError("secret state")

    with structlog.testing.capture_logs() as events, serving(broken) as started:
        answer, body = ask(started, "/readyz")
        assert ask(started, "/healthz")[0].status == 200
    assert answer.status == 503
    assert b"secret" not in body
    assert [(event["event"], event["path"]) for event in events] == [("health_page_failed", "/readyz")]


def test_a_page_of_a_state_that_is_away_says_so_without_a_trace_of_calls() -> None:
    def away() -> tuple[bool, dict[str, Any]]:
        raise StateError("the state in db1 cannot be used: it is away")

    with structlog.testing.capture_logs() as events, serving(away) as started:
        answer, body = ask(started, "/readyz")
    assert answer.status == 503
    assert body == b"the state cannot be read now, see the log; look again once it can\n"
    (event,) = events
    assert "exc_info" not in event
    assert (event["event"], event["reason"]) == (
        "health_page_unavailable",
        "the state in db1 cannot be used: it is away",
    )


@pytest.mark.parametrize("path", ["/", "/metrics/", "/readyz/..", "/livez", "/%2e%2e/etc/passwd"])
def test_any_other_path_is_not_found(server: HealthServer, path: str) -> None:
    answer, body = ask(server, path)
    assert answer.status == 404
    assert path.encode() not in body.replace(b"try /metrics, /healthz or /readyz", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_any_other_method_is_refused(server: HealthServer, method: str) -> None:
    answer, body = ask(server, "/metrics", method, b"some body" if method == "POST" else None)
    assert answer.status == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert body == b"Method Not Allowed\n"


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/other"])
def test_head_has_the_head_of_get_and_no_body(server: HealthServer, path: str) -> None:
    head, _ = ask(server, path, "HEAD")
    got, body = ask(server, path)
    assert head.status == got.status
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    if path != "/metrics":  # its figures move
        assert head.headers["Content-Length"] == str(len(body))
    request = f"HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    assert exchange(server, request).index(b"\r\n\r\n") == len(exchange(server, request)) - 4


def test_one_connection_takes_many_requests(server: HealthServer) -> None:
    connection = connect(server)
    for path in ("/healthz", "/nowhere", "/metrics", "/healthz"):
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        assert answer.version == 11
        assert not answer.will_close
    connection.close()


def test_a_probes_answer_leaves_in_one_piece(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces: list[int] = []

    def counting(send: Callable[..., Any]) -> Callable[..., Any]:
        def counted(wire: socket.socket, data: bytes, *more: int) -> Any:
            if threading.current_thread() is not threading.main_thread():
                pieces.append(len(data))
            return send(wire, data, *more)

        return counted

    for name in ("send", "sendall"):
        monkeypatch.setattr(socket.socket, name, counting(getattr(socket.socket, name)))
    _, body = ask(server, "/healthz")
    assert len(pieces) == 1
    assert pieces[0] > len(body)


def test_the_body_of_one_request_is_not_taken_for_the_next(server: HealthServer) -> None:
    smuggled = b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n"
    length = str(len(smuggled)).encode()
    answer = exchange(
        server, b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: " + length + b"\r\n\r\n" + smuggled
    )
    assert answer.count(b"HTTP/1.1") == 1
    assert b"Connection: close" in answer


@pytest.mark.parametrize(
    "raw", [b"<script>\r\n\r\n", b"GET /healthz HTTP/9.9\r\n\r\n", b"GET " + b"a" * 70_000]
)
def test_a_request_that_is_none_is_refused_without_an_echo(
    server: HealthServer, raw: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = exchange(server, raw)
    assert b" 4" in answer[:13] or b" 505 " in answer[:13]
    assert b"script" not in answer
    assert b"aaaa" not in answer
    assert capsys.readouterr() == ("", "")


def test_a_server_says_nothing_of_its_software(server: HealthServer) -> None:
    assert ask(server, "/healthz")[0].headers["Server"] == "syncsvc"


def test_a_silent_connection_is_closed_and_blocks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert health._Handler.timeout == health.PATIENCE_SECONDS
    monkeypatch.setattr(health._Handler, "timeout", 0.2)
    with serving() as started:
        assert started.port is not None
        with socket.create_connection(("127.0.0.1", started.port), timeout=5) as silent:
            assert ask(started, "/healthz")[0].status == 200
            assert silent.recv(1) == b""


def test_connections_past_the_bound_are_turned_away_until_one_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "MAX_CONNECTIONS", 1)
    with serving() as started:
        first = connect(started)
        first.request("GET", "/healthz")
        assert first.getresponse().read() == b"OK\n"
        with pytest.raises((ConnectionError, OSError)):
            ask(started, "/healthz")
        assert started.port is not None
        first.request("GET", "/healthz", headers={"Connection": "close"})
        answer = first.getresponse()
        assert answer.read() == b"OK\n"
        assert first.sock is None
        for _ in range(1000):  # the server frees the place just after the answer
            try:
                assert ask(started, "/healthz")[0].status == 200
                break
            except OSError:
                continue
        else:
            pytest.fail("the place was never freed")


def test_stop_closes_the_port_and_the_open_connections() -> None:
    with serving() as started:
        kept = connect(started)
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        port = started.port
        assert port is not None
        started.stop()
        assert kept.sock.recv(1) == b""
        kept.close()
        assert started.port is None
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        started.stop()


def test_a_stopped_server_may_start_again() -> None:
    with serving() as started:
        started.stop()
        started.start()
        assert ask(started, "/healthz")[0].status == 200


def test_an_empty_address_serves_nothing() -> None:
    with serving(listen="") as started:
        assert started.port is None


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")
def test_ipv6_is_served_too() -> None:
    with serving(listen="[::1]:0") as started:
        connection = connect(started, "::1")
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"OK\n"
        connection.close()


def test_a_name_is_resolved() -> None:
    with serving(listen="localhost:0") as started:
        assert started.port


@pytest.mark.parametrize(
    "listen",
    [
        "9464",
        ":9464",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:65536",
        "::1:9464",
        "[::1]",
        "http://127.0.0.1:9464",
        "127.0.0.1:9464/",
        "a b:1",
        " ",
    ],
)
def test_a_malformed_address_is_refused_by_the_name_of_its_key(listen: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^service\.listen: .*write \"127\.0\.0\.1:9464\"") as error:
        HealthServer(listen, Metrics(), yes)
    assert len(error.value.problems) == 1


def test_a_taken_address_is_refused_by_the_name_of_its_key(server: HealthServer) -> None:
    second = HealthServer(f"127.0.0.1:{server.port}", Metrics(), yes)
    with pytest.raises(ConfigurationError, match=r"^service\.listen: .*in use.*choose a free one"):
        second.start()
    second.stop()
    assert ask(server, "/healthz")[0].status == 200


@pytest.mark.parametrize("listen", ["host.invalid:0", "a..b:0", "[::zz]:0", "192.0.2.1:0"])
def test_an_address_that_is_not_ours_is_refused_by_the_name_of_its_key(
    listen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(host: str, *args: Any, **more: Any) -> Any:
        if host == "host.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return looked_up(host, *args, **more)

    looked_up = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(ConfigurationError, match=r"^service\.listen: .*cannot be opened"):
        HealthServer(listen, Metrics(), yes).start()


class Page:
    """A status page of one path."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def render(self, path: str) -> bytes | None:
        return b"<p>all well</p>" if path == "/" else None


@contextmanager
def paged(token: str | None = None, listen: str = "127.0.0.1:0") -> Iterator[HealthServer]:
    with serving(listen=listen, page=Page(token)) as started:
        yield started


def test_the_status_page_is_shown_on_loopback_and_may_do_nothing() -> None:
    with paged() as started:
        answer, body = ask(started, "/")
        assert (answer.status, body, answer.headers["Content-Type"]) == (
            200,
            b"<p>all well</p>",
            "text/html; charset=utf-8",
        )
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert ask(started, "/organizations/nobody")[0].status == 404


def test_beyond_loopback_the_status_page_is_closed_without_a_token_and_the_rest_is_open() -> None:
    with paged(listen="0.0.0.0:0") as started:
        answer, body = ask(started, "/")
        assert (answer.status, b"service.page_token" in body) == (403, True)
        assert [ask(started, it)[0].status for it in ("/metrics", "/healthz", "/readyz")] == [200, 200, 200]
    with paged("s3cret", listen="0.0.0.0:0") as started:
        assert ask(started, "/", Authorization="Bearer s3cret")[0].status == 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer s3cret-ü", 200),
        ("bearer s3cret-ü", 200),
        ("Basic " + base64.b64encode("ann:s3cret-ü".encode()).decode(), 200),
        ("Bearer s3cret", 401),
        ("Bearer ", 401),
        ("Basic " + base64.b64encode(b"s3cret-").decode(), 401),
        ("Basic !", 401),
        ("s3cret-ü", 401),
        ("", 401),
    ],
)
def test_where_there_is_a_token_the_status_page_is_for_whoever_bears_it(
    authorization: str, status: int
) -> None:
    with paged("s3cret-ü") as started:
        sent = authorization.encode().decode("latin-1")  # header values travel as bytes
        answer, body = ask(started, "/", Authorization=sent)
        assert answer.status == status
        if status != 200:
            assert 'Basic realm="syncsvc"' in answer.headers["WWW-Authenticate"]
            assert b"well" not in body


def test_an_empty_token_opens_nothing() -> None:
    with paged("") as started:
        assert ask(started, "/")[0].status == 401
