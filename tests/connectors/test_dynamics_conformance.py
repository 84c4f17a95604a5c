"""The Dynamics connector passes the suite."""

from __future__ import annotations

from dynamics_maker import DynamicsMaker

from syncsvc.testing import ConnectorTests


class TestDynamics(ConnectorTests):
    Maker = DynamicsMaker
