"""No test is timed; at the end of a run is said how much was tried: the proofs count what they show."""

from __future__ import annotations

import gc
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import settings
from postgres import Postgres, programs, shared

from syncsvc.watch import log

gc.set_threshold(50_000)  # as the service does: looking for garbage takes a part of every test

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

_PROVEN = "proven: "
_SPENT = "spent: "


def pytest_xdist_auto_num_workers() -> int:
    """Return how many tests run at once: some wait for a service of their own, and leave a core to others."""
    return (os.cpu_count() or 1) * 3 // 2


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Let no test see how the one before it, or a command that this ran, had set up the logging."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", "psycopg", *log.QUIET)}
    handlers = list(root.handlers)
    yield
    for handler in [new for new in root.handlers if new not in handlers]:
        root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def proven(record_property: Callable[[str, object], None]) -> Callable[[str, int], None]:
    """Count cases of a kind that held, for the end of the run; what a failed test counted does not count."""

    def count(kind: str, cases: int) -> None:
        record_property(f"{_PROVEN}{kind}", cases)

    return count


@pytest.fixture
def spent(record_property: Callable[[str, object], None]) -> Callable[[str, tuple[int, int, int]], None]:
    """Count the calls to a CRM, the fewest that could have done, and the contacts that changed in it."""

    def count(crm: str, counts: tuple[int, int, int]) -> None:
        record_property(f"{_SPENT}{crm}", counts)

    return count


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """Give the run's PostgreSQL server; what needs it is left out where none is installed."""
    if programs() is None and os.environ.get("SYNCSVC_POSTGRES") != "required":
        pytest.skip("no PostgreSQL server is installed; .ci/run installs one")
    folder = tmp_path_factory.getbasetemp()
    with shared(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) as server:
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts: Counter[str] = Counter()
    spent: dict[str, list[int]] = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, cases in report.user_properties:
            if name.startswith(_PROVEN) and report.when == "call":
                counts[name.removeprefix(_PROVEN)] += cases
            if name.startswith(_SPENT) and report.when == "call":
                before = spent.get(name.removeprefix(_SPENT), [0, 0, 0])
                spent[name.removeprefix(_SPENT)] = [sum(pair) for pair in zip(before, cases, strict=True)]
    for kind, cases in sorted(counts.items()):
        terminalreporter.write_line(f"proven without a violation: {cases:,} {kind}")
    for crm, (calls, fewest, changed) in sorted(spent.items()):
        ratios = f"{calls / changed:.2f} calls a changed contact, of at least {fewest / changed:.2f}"
        terminalreporter.write_line(f"{crm}: {ratios}")
