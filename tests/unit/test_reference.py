"""`docs/configuration.md` is what the models say."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, TypeAdapter

from connectors.csv import Csv
from connectors.dynamics import Dynamics
from connectors.hubspot import HubSpot
from connectors.pipedrive import Pipedrive
from connectors.salesforce import Salesforce
from syncsvc.cli import main
from syncsvc.settings import Secret
from syncsvc.views.reference import _TABLES, _variants, keys, reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
TYPES = {
    "salesforce": Salesforce.Settings,
    "hubspot": HubSpot.Settings,
    "csv": Csv.Settings,
    "dynamics": Dynamics.Settings,
    "pipedrive": Pipedrive.Settings,
}


def tables() -> Iterator[type[BaseModel]]:
    yield from (model for _, _, model in _TABLES)
    for settings in TYPES.values():
        yield settings
        yield from (variant for _, variant in _variants(settings))


def test_the_page_is_current() -> None:
    made = reference(TYPES)
    assert PAGE.read_text(encoding="utf-8") == made, "run: syncsvc schema --markdown > docs/configuration.md"


def test_every_key_has_a_type_and_a_meaning() -> None:
    for model in tables():
        for key in keys(model):
            assert key.type, (model, key)
            assert len(key.meaning) > 5, f"{model.__name__}.{key.name}: give it Field(description=...)"


def test_every_example_is_one_that_the_file_may_hold() -> None:
    seen = 0
    for model in tables():
        for key in keys(model):
            if not key.example:
                continue
            value = tomllib.loads(key.example)[key.name]
            info = model.model_fields[key.name]
            TypeAdapter(info.rebuild_annotation()).validate_python(value)
            seen += 1
    assert seen > 100


def test_what_must_be_given_has_an_example() -> None:
    for model in tables():
        for key in keys(model):
            info = model.model_fields[key.name]
            if info.is_required() and key.type not in {"table", "tables"}:
                assert key.example, f"{model.__name__}.{key.name}: give it Field(examples=[...])"


class _Own(BaseModel):
    """The keys of a plug-in."""

    account: str
    token: Secret


def test_an_installed_plug_in_is_on_the_page_too(monkeypatch: pytest.MonkeyPatch) -> None:
    page = reference({"own": _Own})  # type: ignore[dict-item]
    assert '## `type = "own"`\n\nThe keys of a plug-in.' in page
    assert '| `token` | secret | **needed** |  | `token = { env = "TOKEN" }` |' in page
    monkeypatch.delenv("SYNCSVC_CONFIG", raising=False)
    answer = CliRunner().invoke(main, ["schema", "--markdown"])
    assert answer.exit_code == 0
    assert answer.stdout.startswith("# The configuration\n")
    assert '## `type = "salesforce"`' in answer.stdout
