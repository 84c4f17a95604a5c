"""Labs to test the engine in: see `enginelab`."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from enginelab import Lab, Socket
from grounds import GROUNDS
from quicklab import QuickLab
from sqlalchemy import Engine, event

from syncsvc.sandbox.server import Server

OpenLab = Callable[..., Lab]
OpenQuick = Callable[..., QuickLab]
TWICE_UNSETTLED = """SELECT r.member_id FROM batch_row r JOIN batch b ON b.id = r.batch_id
    WHERE b.lane = 1 AND r.outcome < 3 AND r.points > 0 GROUP BY r.member_id HAVING count(*) > 1"""


FILES = {"test_engine_salvage"}
"""What is about files alone."""
TOO = {"test_engine_fresh", "test_engine_mails"}
"""What always runs whole on both engines of the state, where a server is installed; see `grounds`.

Of all else, every test runs on the server besides, with the first of its parameters.
"""

_WANTED = os.environ.get("SYNCSVC_STATE", "")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ not in FILES:
        grounds = ["postgresql"] if _WANTED == "postgresql" else ["sqlite", "postgresql"]
        metafunc.parametrize("ground", grounds, indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _WANTED == "postgresql":
        return
    met: set[object] = set()
    left: set[pytest.Item] = set()
    for item in items:
        if (
            isinstance(item, pytest.Function)
            and _ground_of(item) == "postgresql"
            and item.path.stem not in TOO
        ):
            if item.function in met:
                left.add(item)
            met.add(item.function)
    config.hook.pytest_deselected(items=list(left))
    items[:] = [it for it in items if it not in left]


def _ground_of(test: pytest.Function) -> str:
    return str(test.callspec.params.get("ground")) if hasattr(test, "callspec") else ""


@pytest.fixture(autouse=True)
def ground(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the test's labs keep their states in files, or on a server."""
    on_a_server = getattr(request, "param", "sqlite") == "postgresql"
    GROUNDS.server = request.getfixturevalue("postgres") if on_a_server else None
    yield
    GROUNDS.server = None


@pytest.fixture(autouse=True)
def any_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a file give every other test its rows the other way round where no order is asked for."""
    reverse = crc32(request.node.nodeid.encode()) % 2 == 0

    def reversed_rows(connection: Any, _record: Any) -> None:
        if reverse and isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA reverse_unordered_selects = ON")

    event.listen(Engine, "connect", reversed_rows)
    yield
    event.remove(Engine, "connect", reversed_rows)


@pytest.fixture(scope="session")
def socket() -> Iterator[tuple[Socket, str]]:
    made = Socket()
    with Server(made) as server:
        yield made, server.url


@pytest.fixture
def open_lab(tmp_path: Path, socket: tuple[Socket, str]) -> Iterator[OpenLab]:
    opened: list[Lab] = []

    def open_one(**tables: Any) -> Lab:
        folder = tmp_path / f"lab{len(opened)}"
        folder.mkdir()
        opened.append(Lab(folder, socket[1], **tables))
        socket[0].serving = opened[-1].serve
        return opened[-1]

    yield open_one
    for lab in opened:
        differences = lab.differences()
        twice = lab.rows(TWICE_UNSETTLED)
        lab.close()
        GROUNDS.end(lab.folder)
        assert differences == []
        assert twice == []


@pytest.fixture
def lab(open_lab: OpenLab) -> Lab:
    return open_lab()


@pytest.fixture
def open_quick(tmp_path: Path) -> Iterator[OpenQuick]:
    opened: list[QuickLab] = []

    def open_one(**tables: Any) -> QuickLab:
        folder = tmp_path / f"quick{len(opened)}"
        folder.mkdir()
        opened.append(QuickLab(folder, **tables).__enter__())
        return opened[-1]

    yield open_one
    for lab in opened:
        differences = lab.differences()
        twice = lab.rows(TWICE_UNSETTLED)
        lab.__exit__()
        assert differences == []
        assert twice == []


@pytest.fixture
def quick(open_quick: OpenQuick) -> QuickLab:
    return open_quick()
