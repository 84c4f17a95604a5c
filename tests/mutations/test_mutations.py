"""Every mutation still finds its place in the source, so that `make mutations` says something."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from laws import MUTATIONS


def test_every_mutation_still_applies_and_names_tests_that_exist() -> None:
    assert [it.name for it in MUTATIONS if not it.applies()] == []
    named = {test.partition("::")[0] for it in MUTATIONS for test in it.tests}
    assert [test for test in named if not (Path(__file__).parents[2] / test).exists()] == []
