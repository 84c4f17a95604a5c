"""Serving a simulator: a port of its own on loopback, TLS that only its own authority vouches for."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from syncsvc.sandbox.server import Authority, Server


async def _scheme(request: Request) -> JSONResponse:
    return JSONResponse({"scheme": request.url.scheme})


def app() -> Starlette:
    return Starlette(routes=[Route("/", _scheme)])


def get(url: str, *, verify: ssl.SSLContext | bool = True) -> httpx.Response:
    with httpx.Client(verify=verify, trust_env=False, timeout=5) as client:
        return client.get(url)


def test_a_server_chooses_a_free_port_and_tells_its_url() -> None:
    with Server(app()) as one, Server(app()) as other:
        assert one.port != other.port
        assert one.url == f"http://127.0.0.1:{one.port}"
        for server in (one, other):
            assert get(server.url + "/").json() == {"scheme": "http"}


def test_a_server_listens_on_loopback_alone() -> None:
    with Server(app()) as server:
        assert [it.getsockname()[0] for it in server._server.servers[0].sockets] == ["127.0.0.1"]


def test_a_server_answers_as_soon_as_it_has_started_and_not_after_it_stopped() -> None:
    server = Server(app()).start()
    assert get(server.url).status_code == 200
    url, port = server.url, server.port
    server.stop()
    with pytest.raises(httpx.ConnectError):
        get(url)
    assert not server._thread.is_alive()
    with Server(app(), port=port) as again:
        assert again.url == url


def test_a_port_that_is_taken_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = Server(app(), port=taken.getsockname()[1])
        with pytest.raises(RuntimeError, match="port taken"):
            server.start()
    assert "address already in use" in caplog.text


def test_tls_is_vouched_for_by_the_authority_and_by_nobody_else(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with Server(app(), authority=authority) as server:
        assert server.url == f"https://127.0.0.1:{server.port}"
        trusting = ssl.create_default_context(cafile=str(authority.ca_file))
        for url in (server.url, f"https://localhost:{server.port}"):
            assert get(url, verify=trusting).json() == {"scheme": "https"}
        with pytest.raises(httpx.ConnectError, match="certificate"):
            get(server.url)


def test_one_authority_is_not_another(tmp_path: Path) -> None:
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        folder.mkdir()
    ours, theirs = (Authority(folder) for folder in folders)
    with Server(app(), authority=ours) as server, pytest.raises(httpx.ConnectError, match="certificate"):
        get(server.url, verify=ssl.create_default_context(cafile=str(theirs.ca_file)))


def test_the_file_of_an_authority_holds_no_private_key(tmp_path: Path) -> None:
    text = Authority(tmp_path).ca_file.read_text()
    assert "BEGIN CERTIFICATE" in text
    assert "PRIVATE" not in text


def test_a_server_says_nothing_of_what_serves_it() -> None:
    with Server(app()) as server:
        assert "server" not in get(server.url).headers


def test_an_error_inside_a_block_still_stops_the_server() -> None:
    server = Server(app())
    with pytest.raises(BrokenPipeError), server:
        raise BrokenPipeError
    assert not server._thread.is_alive()
