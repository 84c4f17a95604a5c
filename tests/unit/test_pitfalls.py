"""The tables of what other integrations lost contacts by name tests that exist, and leave no pitfall out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| .+ \| (.+) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def defined() -> set[str]:
    sources = [*(ROOT / "tests").rglob("test_*.py"), *(ROOT / "syncsvc/testing").glob("*.py")]
    return {
        name for it in sources for name in re.findall(r"def (test_\w+)\(", it.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize(("page", "pitfalls"), [("hubspot", 29), ("salesforce", 31)])
def test_every_pitfall_has_a_test_that_exists_or_a_sentence(
    page: str, pitfalls: int, defined: set[str]
) -> None:
    rows = ROW.findall((ROOT / f"docs/connectors/{page}.md").read_text(encoding="utf-8"))
    assert [int(number) for number, _ in rows] == list(range(1, pitfalls + 1))
    for number, shown in rows:
        named = re.findall(r"`(test_\w+)`", shown)
        assert set(named) <= defined, number
        assert named or "cannot happen" in shown or "every test of a poll" in shown, number
