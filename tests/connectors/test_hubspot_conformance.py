"""The HubSpot connector passes the suite."""

from __future__ import annotations

from hubspot_maker import HubSpotMaker

from syncsvc.testing import ConnectorTests


class TestHubSpot(ConnectorTests):
    Maker = HubSpotMaker
