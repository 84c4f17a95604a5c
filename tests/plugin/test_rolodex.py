"""The Rolodex connector passes the suite."""

from __future__ import annotations

from rolodex_maker import RolodexMaker

from syncsvc.testing import ConnectorTests


class TestRolodex(ConnectorTests):
    Maker = RolodexMaker
