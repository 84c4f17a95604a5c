"""HTTP as the engine needs it, over real sockets: three answers, never more waiting than was agreed."""

from __future__ import annotations

import contextlib
import errno
import gzip
import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from syncsvc.errors import ConfigurationError, LostAnswerError, NotSentError, StoppedError, TransientError
from syncsvc.remote import deadline, transport
from syncsvc.remote.answer import Answer
from syncsvc.remote.clocks import Clocks
from syncsvc.remote.sessions import session_errors
from syncsvc.remote.transport import USER_AGENT, Network
from syncsvc.sandbox.server import Authority, Server

TIMEOUT = 0.3
PATIENCE = 5.0
Play = Callable[[socket.socket], None]


class Wire:
    """A server on loopback that reads each request whole and then does what it is told to do."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.closing = threading.Event()
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                self._open.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while request := self._read(connection):
                self.requests.append(request)
                self._play(connection)

    def _read(self, connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(65536)):
                return b""
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        while len(body) < int(lines.get(b"content-length", b"0")):
            body += connection.recv(65536)
        return head + b"\r\n\r\n" + body

    def trickle(self, connection: socket.socket, piece: bytes) -> None:
        """Send a piece again and again, far slower than its reader would like, until somebody gives up."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and not self.closing.wait(0.05):
            connection.sendall(piece)

    def close(self) -> None:
        self.closing.set()
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wires() -> Iterator[Callable[[Play], Wire]]:
    made: list[Wire] = []

    def make(play: Play) -> Wire:
        made.append(Wire(play))
        return made[-1]

    yield make
    for wire in made:
        wire.close()


def reply(body: bytes = b"{}", *, status: int = 200, headers: Mapping[str, str] | None = None) -> bytes:
    told = {"Content-Length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode() + body


def mark() -> str:
    """What stands for a person's data; not written in one piece here, for traces show the source."""
    return "dekram"[::-1]


def says(answer: bytes) -> Play:
    return lambda connection: connection.sendall(answer)


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Way:
    """One of the two ways to call a service: our client, or a session lent to another library."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ask(
        self,
        url: str,
        method: str = "GET",
        *,
        network: Network | None = None,
        timeout: float = TIMEOUT,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        world = network or Network()
        if self.name == "client":
            client = world.client(url, timeout=timeout)
            with contextlib.closing(client):
                return client.send(method, "/p", params=params, content=content, headers=headers)
        with world.session(timeout=timeout) as session, session_errors(f"{method} /p"):
            answer = session.request(
                method, url + "/p", params=dict(params or {}), data=content, headers=dict(headers or {})
            )
            lowered = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status_code, lowered, answer.content)


@pytest.fixture(params=["client", "session"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


pytestmark = pytest.mark.usefixtures("no_proxies")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


# What an answer is.


def test_an_answer_is_returned_whole_whatever_its_status(way: Way, wires: Callable[[Play], Wire]) -> None:
    for status in (200, 204, 304, 400, 401, 404, 422, 429, 500, 503, 599):
        body = b"" if status in {204, 304} else b'{"a": 1}'
        answer = way.ask(wires(says(reply(body, status=status))).url)
        assert (answer.status, answer.body) == (status, body)


def test_header_names_are_lower_whatever_the_server_writes(way: Way, wires: Callable[[Play], Wire]) -> None:
    answer = way.ask(wires(says(reply(headers={"X-WiLd": "Kept", "RETRY-AFTER": "7"}))).url)
    assert answer.headers["x-wild"] == "Kept"
    assert answer.retry_after == 7.0
    assert all(name == name.lower() for name in answer.headers)


def test_a_packed_body_is_unpacked(way: Way, wires: Callable[[Play], Wire]) -> None:
    wire = wires(says(reply(gzip.compress(b'{"a":1}'), headers={"Content-Encoding": "gzip"})))
    assert way.ask(wire.url).json() == {"a": 1}
    assert b"gzip" in wire.requests[0].lower()


def test_a_chunked_body_is_put_together(way: Way, wires: Callable[[Play], Wire]) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert way.ask(wires(says(head + b"2\r\n{}\r\n1\r\n \r\n0\r\n\r\n")).url).body == b"{} "


def test_a_body_that_is_no_json_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="JSON"):
        Answer(200, {}, b"<html>").json()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 2.5 ", 2.5),
        ("-5", 0.0),
        ("", None),
        ("soon", None),
        ("inf", None),
        ("-inf", None),
        ("nan", None),
        ("1e999", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_a_number_of_seconds_or_nothing(text: str, seconds: float | None) -> None:
    assert Answer(429, {"retry-after": text}, b"").retry_after == seconds


def test_retry_after_may_be_a_date() -> None:
    until = datetime.now(UTC) + timedelta(seconds=90)
    told = Answer(429, {"retry-after": format_datetime(until, usegmt=True)}, b"").retry_after
    assert told is not None
    assert 60.0 < told <= 90.0


@pytest.mark.parametrize(
    "text",
    ["Sun, 22 Nov 2026 08:00:00 GMT", "Sun, 22 Nov 2026 09:00:00 +0100", "Sun, 22 Nov 2026 08:00:00 -0000"],
)
def test_the_servers_clock_is_read_from_its_date(text: str) -> None:
    assert Answer(200, {"date": text}, b"").date == datetime(2026, 11, 22, 8, tzinfo=UTC)


@given(
    st.text()
    | st.from_regex(r"\A(Sun, )?[0-9]{1,3} [A-Z][a-z]{2} [0-9]{1,6} [0-9:.]{1,9} [+-]?[0-9A-Z]{1,9}\Z")
)
def test_no_date_a_server_can_write_makes_reading_fail(text: str) -> None:
    answer = Answer(200, {"date": text, "retry-after": text}, b"")
    assert answer.date is None or answer.date.tzinfo is not None
    assert answer.retry_after is None or 0.0 <= answer.retry_after < float("inf")


def test_without_headers_there_is_neither_date_nor_wait() -> None:
    assert (Answer(200, {}, b"").date, Answer(200, {}, b"").retry_after) == (None, None)


# Who asks, and how often.


def test_a_request_says_who_asks(way: Way, wires: Callable[[Play], Wire]) -> None:
    wire = wires(says(reply()))
    way.ask(wire.url)
    way.ask(wire.url, network=Network(user_agent="other/1"))
    assert f"user-agent: {USER_AGENT}".encode() in wire.requests[0].lower()
    assert b"user-agent: other/1" in wire.requests[1].lower()
    assert USER_AGENT.startswith("syncsvc/")


def test_what_is_sent_arrives_as_it_was_given(way: Way, wires: Callable[[Play], Wire]) -> None:
    wire = wires(says(reply()))
    way.ask(
        wire.url,
        "PATCH",
        params={"q": "SELECT Id FROM Contact WHERE Name = 'A & B'"},
        content=b'{"a":1}',
        headers={"Authorization": "Bearer t", "Content-Type": "application/json"},
    )
    head, _, body = wire.requests[0].partition(b"\r\n\r\n")
    assert body == b'{"a":1}'
    assert head.startswith(b"PATCH /p?q=SELECT")
    assert b"A+%26+B" in head or b"A%20%26%20B" in head
    assert b"authorization: bearer t" in head.lower()
    assert head.lower().count(b"content-type: application/json") == 1


def test_our_client_asks_for_json_and_says_that_it_sends_it(wires: Callable[[Play], Wire]) -> None:
    wire = wires(says(reply()))
    with contextlib.closing(Network().client(wire.url, timeout=TIMEOUT)) as client:
        client.send("POST", "/p", json={"a": "é"})
    assert b"accept: application/json" in wire.requests[0].lower()
    assert b"content-type: application/json" in wire.requests[0].lower()
    assert wire.requests[0].endswith('{"a":"é"}'.encode())


def test_requests_are_counted_by_the_network_they_belong_to(way: Way, wires: Callable[[Play], Wire]) -> None:
    wire, network = wires(says(reply())), Network()
    branch = network.branch()
    for _ in range(3):
        way.ask(wire.url, network=branch)
    way.ask(wire.url, network=network)
    with pytest.raises(NotSentError):
        way.ask(f"http://127.0.0.1:{closed_port()}", network=network)
    assert (branch.requests, network.requests) == (3, 2)


@pytest.mark.parametrize(
    ("headers", "off"),
    [
        ({}, 0),
        ({"Date": "Mon, 02 Nov 2026 12:00:00 GMT"}, 3600),
        ({"Date": "Mon, 02 Nov 2026 10:00:00 GMT"}, -3600),
        ({"Date": "Mon, 02 Nov 2026 10:00:00 GMT", "Age": "3600"}, 0),  # of a cache
        ({"Date": "yesterday"}, 0),
    ],
)
def test_an_answer_tells_how_far_its_servers_clock_is_off(
    way: Way, wires: Callable[[Play], Wire], headers: dict[str, str], off: int
) -> None:
    class Eleven(Network):
        def now(self) -> datetime:
            return datetime(2026, 11, 2, 11, tzinfo=UTC)

    network = Eleven()
    branch = network.branch()
    way.ask(wires(says(reply(headers=headers))).url, network=branch)
    assert network.clocks.skews() == {}
    (skew,) = branch.clocks.skews().values() if off else (timedelta(),)
    assert abs(skew.total_seconds() - off) <= 1 + PATIENCE


def test_time_that_an_answer_took_is_no_skew() -> None:
    clocks, asked = Clocks(), datetime(2026, 11, 2, 12, tzinfo=UTC)
    for seconds in (0, 50, 100):
        date = format_datetime(asked + timedelta(seconds=seconds), usegmt=True)
        clocks.keep("h", date, asked, asked + timedelta(seconds=100))
        assert clocks.skews() == {"h": timedelta()}
    date = format_datetime(asked + timedelta(seconds=170), usegmt=True)
    clocks.keep("h", date, asked, asked + timedelta(seconds=100))
    assert clocks.skews() == {"h": timedelta(seconds=70)}


def test_a_call_whose_answer_is_lost_is_not_repeated(way: Way, wires: Callable[[Play], Wire]) -> None:
    wire = wires(reset)
    for method in ("GET", "POST"):
        with pytest.raises(LostAnswerError, match=r"no answer from 127\.0\.0\.1 \("):
            way.ask(wire.url, method)
    assert len(wire.requests) == 2


def test_a_connection_the_server_gave_up_while_idle_is_replaced_before_sending(
    wires: Callable[[Play], Wire],
) -> None:
    closed = threading.Event()

    def once(connection: socket.socket) -> None:
        connection.sendall(reply())
        connection.close()
        closed.set()

    wire = wires(once)
    with contextlib.closing(Network().client(wire.url, timeout=TIMEOUT)) as client:
        for _ in range(3):
            closed.clear()
            assert client.send("POST", "/p", json={}).status == 200
            assert closed.wait(PATIENCE)
    assert len(wire.requests) == 3


def test_clients_of_a_network_share_connections_until_the_last_of_them_is_closed(
    wires: Callable[[Play], Wire],
) -> None:
    gone = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(reply())
        if not connection.recv(1):
            gone.set()

    def keep(connection: socket.socket) -> None:
        connection.sendall(reply())

    wire, alone, network = wires(keep), wires(serve), Network()
    first, second = (network.branch().client(wire.url, timeout=TIMEOUT) for _ in range(2))
    for client in (first, second, first):
        assert client.send("GET", "/p").status == 200
    assert (len(wire.requests), wire.connections) == (3, 1)
    first.close()
    first.close()
    assert second.relay("GET", f"{alone.url}/p", headers={}, content=None).status == 200
    assert not gone.is_set()
    second.close()
    assert gone.wait(PATIENCE)


def test_organizations_that_wait_for_an_answer_keep_none_from_asking(
    wires: Callable[[Play], Wire],
) -> None:
    answer, asked = threading.Event(), threading.Barrier(21)

    def hang(connection: socket.socket) -> None:
        asked.wait(PATIENCE)
        answer.wait(PATIENCE)
        connection.sendall(reply())

    slow, quick, network = wires(hang), wires(lambda it: it.sendall(reply())), Network()
    clients = [network.branch().client(slow.url, timeout=PATIENCE) for _ in range(20)]
    threads = [threading.Thread(target=it.send, args=("GET", "/p")) for it in clients]
    for thread in threads:
        thread.start()
    asked.wait(PATIENCE)  # all twenty are under way
    with contextlib.closing(network.client(quick.url, timeout=TIMEOUT)) as client:
        assert client.send("GET", "/p").status == 200
    answer.set()
    for thread in threads:
        thread.join()
    for it in clients:
        it.close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_never_followed(
    way: Way, wires: Callable[[Play], Wire], status: int
) -> None:
    elsewhere = wires(says(reply(b'{"stolen": true}')))
    wire = wires(says(reply(status=status, headers={"Location": elsewhere.url + "/p"})))
    for method in ("GET", "POST"):
        assert way.ask(wire.url, method, headers={"Authorization": "Bearer t"}).status == status
    assert (len(wire.requests), elsewhere.requests) == (2, [])


def test_a_cookie_that_a_server_sets_is_not_kept(wires: Callable[[Play], Wire]) -> None:
    wire = wires(says(reply(headers={"Set-Cookie": "sid=1; Path=/"})))
    with contextlib.closing(Network().client(wire.url, timeout=TIMEOUT)) as client:
        for _ in range(2):
            client.send("GET", "/p")
    with Network().session(timeout=TIMEOUT) as session:
        for _ in range(2):
            session.get(f"{wire.url}/p")
    assert len(wire.requests) == 4
    assert not any(b"cookie" in request.lower() for request in wire.requests)


# Nothing of the machine gets in between.


def test_a_netrc_entry_does_not_replace_our_credentials(
    way: Way, wires: Callable[[Play], Wire], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login thief password thief\ndefault login thief password thief\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HOME", str(tmp_path))
    wire = wires(says(reply()))
    way.ask(wire.url, headers={"Authorization": "Bearer ours"})
    way.ask(wire.url)
    assert b"authorization: bearer ours" in wire.requests[0].lower()
    assert b"authorization" not in wire.requests[1].lower()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_no_proxy_stands_before_a_loopback_address(
    way: Way, wires: Callable[[Play], Wire], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    proxy, wire = wires(says(reply(status=502))), wires(says(reply()))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    assert way.ask(f"http://{host}:{wire.port}").status == 200
    assert proxy.requests == []


def test_a_proxy_of_the_environment_is_used_for_everything_else(
    way: Way, wires: Callable[[Play], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = wires(says(reply(b'{"by": "proxy"}')))
    monkeypatch.setenv("http_proxy", proxy.url)
    assert way.ask("http://crm.example").json() == {"by": "proxy"}
    assert proxy.requests[0].startswith(b"GET http://crm.example/p ")


def test_a_proxy_that_gives_no_way_through_means_nothing_was_sent(
    way: Way, wires: Callable[[Play], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = wires(says(reply(status=403)))
    monkeypatch.setenv("https_proxy", proxy.url)
    told = r"the proxy before crm\.example:443 \(HTTPS_PROXY, HTTP_PROXY\) refuses the way: allow it there"
    with pytest.raises(NotSentError, match=told):
        way.ask("https://crm.example", "POST", content=b"{}")
    assert [request.split()[0] for request in proxy.requests] == [b"CONNECT"]


# Three answers instead of two.


def _unresolvable(*_: Any, **__: Any) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def test_a_port_that_is_closed_means_nothing_was_sent(way: Way) -> None:
    port = closed_port()
    told = rf"not sent \(ConnectError\): nothing listens on 127\.0\.0\.1:{port}: does it run"
    with pytest.raises(NotSentError, match=told):
        way.ask(f"http://127.0.0.1:{port}", "POST", content=b"{}")


def test_a_proxy_that_is_away_is_told_and_not_the_server_behind_it(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port()}")
    told = r"nothing listens on the proxy before crm\.example:443 \(HTTPS_PROXY, HTTP_PROXY\)"
    with pytest.raises(NotSentError, match=told):
        way.ask("https://crm.example", "POST", content=b"{}")


def test_a_network_without_a_way_means_nothing_was_sent(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    told = r"there is no way from this machine to crm\.example:80: see to its network"
    with pytest.raises(NotSentError, match=told):
        way.ask("http://crm.example", "POST", content=b"{}")


def test_a_name_that_does_not_resolve_means_nothing_was_sent(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _unresolvable)
    for scheme, port in (("http", 80), ("https", 443)):
        told = rf"the name of crm\.example:{port} is not known: correct it, or see to this machine's DNS"
        with pytest.raises(NotSentError, match=told):
            way.ask(f"{scheme}://crm.example", "POST", content=b"{}")


def test_tls_to_a_server_that_speaks_none_means_nothing_was_sent(way: Way) -> None:
    plain = socket.create_server(("127.0.0.1", 0))
    with plain:

        def answer() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply(status=400))

        threading.Thread(target=answer, daemon=True).start()
        port = plain.getsockname()[1]
        with pytest.raises(
            NotSentError, match=rf"127\.0\.0\.1:{port} does not speak TLS as we do: is it http"
        ):
            way.ask(f"https://127.0.0.1:{port}", "POST", content=b"{}")


def test_a_server_that_never_shakes_hands_means_nothing_was_sent(way: Way) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(NotSentError, match=rf"127\.0\.0\.1:{port} does not answer: a firewall between"):
            way.ask(f"https://127.0.0.1:{port}", "POST", content=b"{}")


def _ok(_: Request) -> JSONResponse:
    return JSONResponse({"secure": True})


def test_a_certificate_nobody_vouches_for_means_nothing_was_sent(way: Way, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Server(Starlette(routes=[Route("/p", _ok)]), authority=authority) as server:
        told = (
            r"certificate of 127\.0\.0\.1:\d+ is not trusted \(.*\): name the authority that vouches for it"
        )
        with pytest.raises(NotSentError, match=told):
            way.ask(server.url)
        trusting = Network(ca_file=str(authority.ca_file))
        assert way.ask(server.url, network=trusting, timeout=PATIENCE).json() == {"secure": True}


def test_a_tls_connection_that_breaks_after_the_request_may_have_done_anything(
    way: Way, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.configure(context)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def garble() -> None:
            raw, _ = listener.accept()
            secure = context.wrap_socket(raw, server_side=True)
            secure.recv(65536)
            with socket.socket(fileno=secure.detach()) as bare:
                bare.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)  # a record that cannot be deciphered

        thread = threading.Thread(target=garble, daemon=True)
        thread.start()
        with pytest.raises(LostAnswerError):
            way.ask(
                f"https://127.0.0.1:{listener.getsockname()[1]}",
                network=Network(ca_file=str(authority.ca_file)),
                timeout=PATIENCE,
            )
        thread.join(PATIENCE)


def breaks(sent: bytes) -> Play:
    def play(connection: socket.socket) -> None:
        connection.sendall(sent)
        connection.close()

    return play


CHUNKED = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
LOSSES: dict[str, Play] = {
    "reset": reset,
    "closed": breaks(b""),
    "half a head": breaks(reply()[:12]),
    "half a body": breaks(reply(b"x" * 99)[:-9]),
    "half a chunk": breaks(CHUNKED + b"9\r\nab"),
    "no last chunk": breaks(CHUNKED + b"2\r\nab\r\n"),
    "no http": says(b"SSH-2.0-nothing\r\n\r\n"),
    "not gzip": says(reply(b"not packed at all", headers={"Content-Encoding": "gzip"})),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_an_answer_that_does_not_arrive_whole_is_lost(
    way: Way, wires: Callable[[Play], Wire], loss: str
) -> None:
    wire = wires(LOSSES[loss])
    with pytest.raises(LostAnswerError):
        way.ask(wire.url, "POST", content=b"{}", timeout=PATIENCE)
    assert len(wire.requests) == 1


def slow_head(wire: Wire, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    wire.trickle(connection, b"x")


def slow_body(wire: Wire, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    wire.trickle(connection, b"x")


def slow_chunks(wire: Wire, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    wire.trickle(connection, b"1\r\nx\r\n")


def slow_packing(wire: Wire, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1000000\r\n\r\n")
    connection.sendall(gzip.compress(b"")[:10])
    wire.trickle(connection, b"\x00\x00\x00\xff\xff")  # empty blocks: bytes that unpack to nothing


def heartbeats(wire: Wire, connection: socket.socket) -> None:
    wire.trickle(connection, b"HTTP/1.1 102 Processing\r\n\r\n")


def silence(wire: Wire, connection: socket.socket) -> None:
    wire.closing.wait(PATIENCE)
    connection.close()


@pytest.mark.parametrize("stall", [silence, slow_head, slow_body, slow_chunks, slow_packing, heartbeats])
def test_no_server_keeps_a_call_waiting_beyond_its_timeout(
    way: Way, wires: Callable[[Play], Wire], stall: Callable[[Wire, socket.socket], None]
) -> None:
    wire = wires(lambda connection: stall(wire, connection))
    begun = time.monotonic()
    with pytest.raises(LostAnswerError):
        way.ask(wire.url)
    assert time.monotonic() - begun < PATIENCE / 2


def test_a_stream_may_take_longer_than_a_call_but_not_for_ever(wires: Callable[[Play], Wire]) -> None:
    wire = wires(lambda connection: slow_body(wire, connection))
    with contextlib.closing(Network().client(wire.url, timeout=TIMEOUT)) as client:
        begun = time.monotonic()
        with client.stream("GET", "/p", deadline=2 * TIMEOUT) as (head, body):
            assert (head.status, head.body) == (200, b"")
            with pytest.raises(LostAnswerError):
                body.read()
        assert 2 * TIMEOUT <= time.monotonic() - begun < PATIENCE / 2


def test_after_a_call_that_took_too_long_the_next_one_has_its_own_time(
    wires: Callable[[Play], Wire],
) -> None:
    slow = True

    def first_slow(connection: socket.socket) -> None:
        nonlocal slow
        if slow:
            slow = False
            slow_head(wire, connection)
        else:
            connection.sendall(reply())

    wire = wires(first_slow)
    with contextlib.closing(Network().client(wire.url, timeout=TIMEOUT)) as client:
        with pytest.raises(LostAnswerError):
            client.send("GET", "/p")
        assert client.send("GET", "/p").status == 200


def test_a_streamed_body_reads_like_a_file(wires: Callable[[Play], Wire]) -> None:
    wire = wires(says(reply(b"abc" * 1000)))
    with contextlib.closing(Network().client(wire.url, timeout=TIMEOUT)) as client:
        with client.stream("GET", "/p") as (_, body):
            assert body.read(0) == b""
            assert body.read() == b"abc" * 1000
            assert body.read(5) == b""
        with client.stream("GET", "/p") as (_, body):
            assert body.read(1)


@pytest.mark.parametrize("packed", [False, True])
def test_a_huge_body_is_given_up(
    way: Way, wires: Callable[[Play], Wire], monkeypatch: pytest.MonkeyPatch, *, packed: bool
) -> None:
    monkeypatch.setattr(transport, "MAX_BODY", 1 << 16)

    def answer(size: int) -> bytes:
        body = b"x" * size
        return reply(gzip.compress(body), headers={"Content-Encoding": "gzip"}) if packed else reply(body)

    assert len(way.ask(wires(says(answer(1 << 16))).url).body) == 1 << 16
    with pytest.raises(LostAnswerError, match="larger than 65536 bytes"):
        way.ask(wires(says(answer((1 << 16) + 1))).url)


@pytest.mark.parametrize("value", ["marked\nbreak", "marked\x00", "marked \u2013 dash"])
def test_a_header_that_http_does_not_allow_is_never_sent(
    way: Way, wires: Callable[[Play], Wire], value: str
) -> None:
    wire = wires(says(reply()))
    with pytest.raises(NotSentError) as caught:
        way.ask(wire.url, headers={"Authorization": value})
    assert wire.requests == []
    assert mark() not in "".join(traceback.format_exception(caught.value))


# Nothing personal in an error.


@pytest.mark.parametrize(
    "trouble", ["closed port", "no name", "reset", "half a body", "no http", "tls", "stall"]
)
def test_no_error_repeats_a_query_a_body_or_a_header(
    way: Way, wires: Callable[[Play], Wire], monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    marked = mark()
    url = f"http://127.0.0.1:{closed_port()}"
    if trouble == "no name":
        monkeypatch.setattr(socket, "getaddrinfo", _unresolvable)
        url = "http://crm.example"
    elif trouble in LOSSES:
        url = wires(LOSSES[trouble]).url
    elif trouble == "tls":
        url = wires(says(reply())).url.replace("http:", "https:")
    elif trouble == "stall":
        wire = wires(lambda connection: slow_body(wire, connection))
        url = wire.url
    with pytest.raises(TransientError) as caught:
        way.ask(
            url,
            "POST",
            params={"email": marked},
            content=marked.encode(),
            headers={"Authorization": f"Bearer {marked}"},
        )
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert marked not in told
    assert "POST /p" in str(caught.value)


# Waiting.


def test_a_request_to_stop_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    network = Network(stop=stop)
    network.sleep(0)
    asked = threading.Timer(0.05, stop.set)
    asked.start()
    begun = time.monotonic()
    with pytest.raises(StoppedError):
        network.branch().sleep(60)
    with pytest.raises(StoppedError):
        network.sleep(60)
    assert time.monotonic() - begun < PATIENCE
    asked.join()


def test_the_clocks_are_aware_and_go_forward() -> None:
    network = Network()
    assert network.now().utcoffset() == timedelta()
    assert network.monotonic() <= network.monotonic()


def test_a_ca_file_that_holds_no_certificate_is_named_with_its_key(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate", encoding="utf-8")
    for path in (file, tmp_path / "missing.pem"):
        with pytest.raises(ConfigurationError, match=r"service\.ca_file: .* holds no certificate"):
            Network(ca_file=str(path))


# Of a lease that is over, nothing is written any more.


def leased(left: Callable[[], float]) -> Network:
    return Network().leased(left=left, clock=lambda: datetime(2026, 11, 2, tzinfo=UTC))


def test_a_request_does_not_begin_once_the_lease_is_over(wires: Callable[[Play], Wire]) -> None:
    wire = wires(says(reply()))
    network = leased(lambda: 0.0)
    with pytest.raises(NotSentError, match="the lease of this organization is over"):
        network.client(wire.url, timeout=5).send("POST", "/p", content=b"{}")
    assert wire.connections == 0
    assert network.now() == datetime(2026, 11, 2, tzinfo=UTC)


def test_a_request_whose_sender_was_stopped_within_it_is_never_written_to_its_end(
    wires: Callable[[Play], Wire],
) -> None:
    wire = wires(says(reply()))
    looks = iter([1.0, 1.0])  # before it, and before its head; the process stops before its body
    client = leased(lambda: next(looks, -1.0)).client(wire.url, timeout=5)
    with pytest.raises(LostAnswerError):
        client.send("POST", "/p", content=b"{}")
    client.close()
    wire.close()
    assert wire.requests == []


# The system holds bytes back while the other side takes none.


class Deaf:
    """A server that takes no more than the first bytes of what it is sent, until it is asked what came."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def came(self) -> int:
        """Return how many bytes arrive before the connection ends."""
        connection, _ = self._listener.accept()
        count = 0
        with connection, contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                count += len(data)
        return count

    def close(self) -> None:
        self._listener.close()


HELD_BACK = 200_000  # bytes, which the system takes at once


def test_what_the_other_side_does_not_take_is_given_up_with_the_lease() -> None:
    with contextlib.closing(Deaf()) as deaf:
        client, begun = leased(lambda: TIMEOUT).client(deaf.url, timeout=2 * PATIENCE), time.monotonic()
        with contextlib.closing(client), pytest.raises(LostAnswerError):
            client.send("POST", "/p", content=b"x" * HELD_BACK)
        assert time.monotonic() - begun < PATIENCE
        assert deaf.came() < HELD_BACK


def test_nothing_of_a_call_that_took_too_long_leaves_later() -> None:
    with contextlib.closing(Deaf()) as deaf:
        client = Network().client(deaf.url, timeout=TIMEOUT)
        with contextlib.closing(client), pytest.raises(LostAnswerError):
            client.send("POST", "/p", content=b"x" * HELD_BACK)
        assert deaf.came() < HELD_BACK


def test_a_body_that_is_taken_slowly_is_written_until_the_lease_is_over() -> None:
    looks = iter([1.0, 1.0, 1.0])  # before the request, before its head, and before its body's first piece
    with contextlib.closing(Deaf()) as deaf:
        client = leased(lambda: next(looks, -1.0)).client(deaf.url, timeout=PATIENCE)
        with contextlib.closing(client), pytest.raises(LostAnswerError, match="WriteTimeout"):
            client.send("POST", "/p", content=b"x" * HELD_BACK)
        assert deaf.came() < HELD_BACK


def test_a_system_that_cannot_give_up_silence_is_asked_for_nothing_else(
    wires: Callable[[Play], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadline, "_SILENCE", 9999)  # which no system knows
    wire = wires(says(reply()))
    with contextlib.closing(leased(lambda: PATIENCE).client(wire.url, timeout=PATIENCE)) as client:
        assert client.send("POST", "/p", content=b"{}").status == 200
