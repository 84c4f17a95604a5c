"""The Salesforce connector passes the suite, by queries and by bulk queries."""

from __future__ import annotations

from salesforce_maker import SalesforceBulkMaker, SalesforceMaker

from syncsvc.testing import ConnectorTests


class TestSalesforce(ConnectorTests):
    Maker = SalesforceMaker


class TestSalesforceInBulk(ConnectorTests):
    Maker = SalesforceBulkMaker
    test_more_than_10_000_changes_of_one_instant_hide_nothing = None  # a poll, which is never in bulk
