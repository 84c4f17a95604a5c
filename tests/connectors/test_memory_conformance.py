"""The reference of the conformance suite passes it."""

from __future__ import annotations

from syncsvc.testing import ConnectorTests
from syncsvc.testing.memory import MemoryMaker


class TestMemory(ConnectorTests):
    Maker = MemoryMaker
