"""The Salesforce connector passes the suite: contacts by queries, person accounts in bulk."""

from __future__ import annotations

from salesforce_maker import SalesforceMaker, SalesforcePersonsMaker

from syncsvc.testing import ConnectorTests
from syncsvc.testing.wire import WireTests


class TestSalesforce(ConnectorTests):
    Maker = SalesforceMaker


class TestSalesforcePersonsInBulk(ConnectorTests):
    Maker = SalesforcePersonsMaker
    test_more_than_10_000_changes_of_one_instant_hide_nothing = None  # a poll, which is never in bulk


# The same calls over the same wire: what bulk adds to them is struck in `test_salesforce_bulk`.
for name in vars(WireTests):
    if name.startswith("test_"):
        setattr(TestSalesforcePersonsInBulk, name, None)
