from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from town import environment

from syncsvc.sandbox.world import World

CONTACTS = 20


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Commands that run in this process set up its signals."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, former in signals.items():
        signal.signal(number, former)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, contacts=CONTACTS) as world, environment(world.environment):
        yield world


@pytest.fixture
def config(world: World) -> Path:
    return world.write_organization(every="200ms", settle_after="1s")
