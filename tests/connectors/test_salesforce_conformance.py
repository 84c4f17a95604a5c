"""The Salesforce connector passes the suite."""

from __future__ import annotations

from salesforce_maker import SalesforceMaker

from syncsvc.testing import ConnectorTests


class TestSalesforce(ConnectorTests):
    Maker = SalesforceMaker
