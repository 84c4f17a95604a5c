"""Labs to test the engine in: see `enginelab`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from enginelab import Lab, Socket
from quicklab import QuickLab

from syncsvc.sandbox.server import Server

OpenLab = Callable[..., Lab]
OpenQuick = Callable[..., QuickLab]
TWICE_UNSETTLED = """SELECT r.member_id FROM batch_row r JOIN batch b ON b.id = r.batch_id
    WHERE b.lane = 1 AND r.outcome < 3 AND r.points > 0 GROUP BY r.member_id HAVING count(*) > 1"""


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
