"""What `check` makes of a service that cannot be asked."""

from __future__ import annotations

import pytest

from syncsvc.check import Findings
from syncsvc.errors import TransientError
from syncsvc.model import Problem


@pytest.mark.parametrize(
    ("retry_after", "remedy"),
    [
        (None, "check that the service can be reached, then try again"),
        (899.3, "try again in 15 min: the service is reached"),
        (2.0, "try again in 1 min: the service is reached"),
    ],
)
def test_passing_trouble_says_when_to_try_again(retry_after: float | None, remedy: str) -> None:
    def refuse() -> list[Problem]:
        raise TransientError("the last calls are kept", retry_after=retry_after)

    findings = Findings()
    findings.ask("crm", refuse)
    assert list(findings.all) == [Problem("crm", "the last calls are kept", remedy)]
