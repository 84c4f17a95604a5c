"""Labs to test the engine in: see `enginelab`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from enginelab import Lab, Socket

from syncsvc.sandbox.server import Server

OpenLab = Callable[..., Lab]


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
        lab.close()
        assert differences == []


@pytest.fixture
def lab(open_lab: OpenLab) -> Lab:
    return open_lab()
