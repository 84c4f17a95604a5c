"""The test suite that every connector passes, for this project's own and for those of other distributions.

A connector's test is a subclass of `ConnectorTests` that names a `Maker`: a world with the verbs of a CRM.

    from syncsvc.testing import ConnectorTests
    from acme_maker import AcmeMaker

    class TestAcme(ConnectorTests):
        Maker = AcmeMaker

Needs pytest: `pip install syncsvc[testing]`.
"""

from __future__ import annotations

import pytest

for _module in ("maker", "polling", "reading", "schema", "suite", "telling", "wire", "writing"):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from syncsvc.testing.maker import Feature, Ground, Maker, Timeline, needing  # noqa: E402 - rewritten before
from syncsvc.testing.suite import ConnectorTests  # noqa: E402 - the same

__all__ = ["ConnectorTests", "Feature", "Ground", "Maker", "Timeline", "needing"]
