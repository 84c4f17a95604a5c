"""The suite as one base class; see the package's docstring for how to use it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from syncsvc.testing import maker as makers
from syncsvc.testing.maker import Feature, Ground
from syncsvc.testing.polling import PollingTests
from syncsvc.testing.schema import SchemaTests
from syncsvc.testing.telling import TellingTests
from syncsvc.testing.wire import WireTests
from syncsvc.testing.writing import WritingTests


class ConnectorTests(SchemaTests, PollingTests, TellingTests, WritingTests, WireTests):
    """Everything that the engine relies on in a connector.

    A test about a feature that the maker lacks is not part of the subclass: it is neither run nor skipped.
    """

    Maker: ClassVar[type[makers.Maker]]

    def __init_subclass__(cls, **options: Any) -> None:
        """Leave out what the maker's CRM does not have."""
        super().__init_subclass__(**options)
        for name in dir(cls):
            needed: frozenset[Feature] = getattr(getattr(cls, name), "needed", frozenset())
            if not needed <= cls.Maker.features:
                setattr(cls, name, None)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Strike every shape of the vendor's limits."""
        if "limit" in metafunc.fixturenames:
            limits = self.Maker.limits
            metafunc.parametrize("limit", limits.values(), ids=limits)

    @pytest.fixture(scope="class")
    @classmethod
    def ground(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
        """Serve the CRM of all tests of this class."""
        served, folder = Feature.WIRE in cls.Maker.features, tmp_path_factory.mktemp("ground")
        with Ground.open(folder, served=served, tls=cls.Maker.tls) as ground:
            yield ground

    @pytest.fixture
    def crm(self, ground: Ground, tmp_path: Path) -> Iterator[makers.Maker]:
        """Make the account of one test."""
        maker = self.Maker(ground, tmp_path)
        yield maker
        maker.close()
