"""The Pipedrive connector passes the suite."""

from __future__ import annotations

from pipedrive_maker import PipedriveMaker

from syncsvc.testing import ConnectorTests


class TestPipedrive(ConnectorTests):
    Maker = PipedriveMaker
