"""The CSV connector passes the suite."""

from __future__ import annotations

from csv_maker import CsvMaker

from syncsvc.testing import ConnectorTests


class TestCsv(ConnectorTests):
    Maker = CsvMaker
