"""A server stops at once, whatever its clients still hold."""

from __future__ import annotations

import gc
import http.client
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.responses import Response

from syncsvc.sandbox.server import Authority, Server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=["http", "https"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Server]:
    with Server(Response("served"), authority=authority if request.param == "https" else None) as server:
        yield server


@pytest.fixture
def client(server: Server, authority: Authority) -> Iterator[http.client.HTTPConnection]:
    if server.url.startswith("https:"):
        context = ssl.create_default_context(cafile=str(authority.ca_file))
        held: http.client.HTTPConnection = http.client.HTTPSConnection(
            "127.0.0.1", server.port, timeout=5, context=context
        )
    else:
        held = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    yield held
    held.close()


def ask(client: http.client.HTTPConnection) -> bytes:
    client.request("GET", "/")
    return client.getresponse().read()


@pytest.fixture
def stop(server: Server) -> Callable[[], float]:
    def timed() -> float:
        began = time.monotonic()
        server.stop()
        passed = time.monotonic() - began
        gc.collect()  # a transport that nobody closed warns here, and a warning fails the test
        return passed

    return timed


def test_a_client_that_keeps_its_connection_does_not_delay_the_stop(
    client: http.client.HTTPConnection, stop: Callable[[], float], caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(client) == b"served"
    with caplog.at_level(logging.WARNING):
        assert stop() < 0.5
    assert not caplog.records


def test_a_client_finds_its_connection_broken_after_the_stop(
    client: http.client.HTTPConnection, stop: Callable[[], float]
) -> None:
    assert ask(client) == b"served"
    stop()
    with pytest.raises((ConnectionError, ssl.SSLError, http.client.RemoteDisconnected)):
        ask(client)


def test_nothing_is_served_after_the_stop(server: Server, stop: Callable[[], float]) -> None:
    port = server.port
    stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
