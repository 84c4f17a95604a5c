"""The lines that `docs/operations.md` says are printed when something breaks are what the code prints."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## The line that is printed")[2].partition("\n## ")[0]
OF_OTHERS = {
    "ConnectError": "httpcore", "ReadTimeout": "httpcore", "disk I/O error": "SQLite",
    "database disk image is malformed": "SQLite", "file is not a database": "SQLite",
    "attempt to write a readonly database": "SQLite", "Permission denied": "the system",
    "No space left on device": "the system", "GET /import/log": "the request", "INVALID_FIELD": "Salesforce",
    "401": "HTTP", "HTTP 400": "HTTP", "503": "HTTP",
}  # fmt: skip
"""Words in those lines that are not ours."""


@cache
def ours() -> str:
    """Return every piece of text in the code, one a line; parts of one f-string each on its own."""
    pieces = []
    for folder in ("syncsvc", "connectors"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            pieces += [
                it.value
                for it in ast.walk(tree)
                if isinstance(it, ast.Constant) and isinstance(it.value, str)
            ]
    return re.sub(r"\[/?[a-z]*\]", "", "\n".join(pieces))  # without how it is shown


def lines() -> list[str]:
    return [
        line
        for row in SECTION.splitlines()
        if row.startswith("| `")
        for line in re.findall(r"`([^`]+)`", row.split(" | ")[0])
    ]


@pytest.mark.parametrize("line", lines())
def test_a_line_of_the_page_is_printed_by_the_code(line: str) -> None:
    parts = [part.strip() for part in re.split("[…;:()]", line)]
    for word in OF_OTHERS:
        parts = [rest.strip() for part in parts for rest in part.split(word)]
    told = [part for part in parts if len(part) > 2]
    assert told, f"nothing in {line!r} is ours"
    for part in told:
        assert part in ours(), f"docs/operations.md: no text of the code holds {part!r}"


def test_everything_that_an_operator_breaks_has_its_line() -> None:
    assert len(lines()) >= 20
