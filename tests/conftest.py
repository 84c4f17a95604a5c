"""No test is timed; at the end of a run is said how much was tried: the proofs count what they show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_PROVEN = "proven: "


@pytest.fixture
def proven(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Count cases of a kind that held, for the end of the run; what a failed test counted does not count."""

    def count(kind: str, cases: int) -> None:
        record_property(f"{_PROVEN}{kind}", cases)

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, cases in report.user_properties:
            if name.startswith(_PROVEN) and report.when == "call":
                counts[name.removeprefix(_PROVEN)] += cases
    for kind, cases in sorted(counts.items()):
        terminalreporter.write_line(f"proven without a violation: {cases:,} {kind}")
