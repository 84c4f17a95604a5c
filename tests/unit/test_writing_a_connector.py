"""What docs/writing-a-connector.md says is so."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from syncsvc.testing import Feature, Maker

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-connector.md").read_text(encoding="utf-8")


def test_it_names_every_feature_and_what_the_maker_brings_for_it() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| .* \|(.*)\|$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == [it.name for it in Feature]
    for _, brings in rows:
        for verb in re.findall(r"`(\w+)`", brings):
            assert hasattr(Maker, verb), verb


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(syncsvc(?:\.\w+)+)`", PAGE))))
def test_modules_that_it_names_exist(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        if module == "syncsvc":
            raise
        assert hasattr(importlib.import_module(module), attribute), name


def test_files_that_it_names_exist() -> None:
    linked = re.findall(r"\]\(\.\./([^)]+)\)", PAGE)
    named = re.findall(r"`(connectors/\w+\.py)`", PAGE)
    assert {*linked, *named} >= {"tests/plugin", "connectors/csv.py"}
    for name in (*linked, *named):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\| `((?:src/syncsvc_)?(?:py|rolodex)[\w/]*\.(?:py|toml))` \|", PAGE):
        assert (ROOT / "tests" / "plugin" / name).exists(), name


def test_its_test_is_the_plug_ins() -> None:
    shown = re.findall(r"```python\n(from rolodex_maker.*?)```", PAGE, re.DOTALL)
    test = (ROOT / "tests" / "plugin" / "test_rolodex.py").read_text(encoding="utf-8")
    assert len(shown) == 1
    assert test.endswith(shown[0])
    assert len(test.splitlines()) <= 20
