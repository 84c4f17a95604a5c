from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from town import environment

from syncsvc.sandbox.world import World
from syncsvc.watch import log

CONTACTS = 20


@pytest.fixture(autouse=True)
def _process_as_before() -> Iterator[None]:
    """Commands that run in this process set up its logging and its signals."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", *log.QUIET)}
    handlers = list(root.handlers)
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, former in signals.items():
        signal.signal(number, former)
    for handler in [new for new in root.handlers if new not in handlers]:
        root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, contacts=CONTACTS) as world, environment(world.environment):
        yield world


@pytest.fixture
def config(world: World) -> Path:
    return world.write_organization(every="200ms", settle_after="1s")
