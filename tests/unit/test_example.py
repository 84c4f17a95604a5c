from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from connectors.csv import Csv
from connectors.dynamics import Dynamics
from connectors.hubspot import HubSpot
from connectors.pipedrive import Pipedrive
from connectors.salesforce import Salesforce
from syncsvc.config import OrganizationConfig
from syncsvc.configfile import load
from syncsvc.rules.mapping import Mapper
from syncsvc.rules.samples import failed_tests
from syncsvc.tomllines import lines_of

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
TYPES = {
    "salesforce": Salesforce.Settings,
    "hubspot": HubSpot.Settings,
    "csv": Csv.Settings,
    "dynamics": Dynamics.Settings,
    "pipedrive": Pipedrive.Settings,
}
# A key that is shown behind a comment sign, with its value and perhaps a remark.
SHOWN = re.compile(r"^# (\w+ = (?:\"[^\"]*\"|\{[^}]*\}|\w+))", re.MULTILINE)


def organization(path: Path = EXAMPLE) -> OrganizationConfig:
    return load(path, TYPES, read_secrets=False).organizations[0]


def test_the_example_loads_once_its_secrets_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACME_WALLET_TOKEN", "SF_ID", "SF_SECRET", "HUBSPOT_TOKEN"):
        monkeypatch.setenv(name, "x")
    installation = load(EXAMPLE, TYPES)
    assert list(installation.organizations[0].connectors) == ["crm", "marketing"]


def test_the_samples_of_the_example_map_as_they_say() -> None:
    loaded = organization()
    samples = 0
    for connector in loaded.connectors.values():
        samples += len(connector.tests)
        assert list(failed_tests(Mapper(connector, loaded.wallet), connector.tests)) == []
    assert samples == 3


def test_what_the_example_shows_as_a_default_is_the_default(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    shown = SHOWN.findall(text)
    assert len(shown) > 15
    everything = tmp_path / EXAMPLE.name
    everything.write_text(SHOWN.sub(r"\1 #", text), encoding="utf-8")
    own = {"name", "log_token", "witness", "max_points_per_member", "max_points_per_cycle"}
    before, after = organization(), organization(everything)
    for table in ("wallet", "brakes", "policy", "schedule"):
        assert getattr(after, table).model_dump(exclude=own) == getattr(before, table).model_dump(exclude=own)
    shown_service = load(everything, TYPES, read_secrets=False).service
    assert shown_service.page_token is not None
    assert (
        shown_service.model_copy(update={"page_token": None})
        == load(EXAMPLE, TYPES, read_secrets=False).service
    )


def test_the_csv_export_of_the_example_loads_and_shows_every_key_and_default(tmp_path: Path) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    head, rest = text.split("#[connectors.members]\n")
    used = tmp_path / EXAMPLE.name
    used.write_text(
        head + "[connectors.members]\n" + re.sub("^#", "", rest, flags=re.MULTILINE), encoding="utf-8"
    )
    members = organization(used).connectors["members"]
    assert members.settings == Csv.Settings(path="/exports/members.csv", key="Customer")  # type: ignore[call-arg]
    shown = dict(re.findall(r"^##?(\w+) = \"([^\"]*)\"", rest, re.MULTILINE))
    assert Csv.Settings.model_fields.keys() <= shown.keys()
    everything = {name: shown[name] for name in Csv.Settings.model_fields}
    loaded = Csv.Settings.model_validate(everything).model_dump(exclude={"files", "results"})
    assert loaded == members.settings.model_dump(exclude={"files", "results"})


@pytest.mark.parametrize("name", ["dynamics", "pipedrive"])
def test_the_section_of_a_crm_in_the_example_loads_and_shows_every_key_and_default(
    name: str, tmp_path: Path
) -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    section = re.split(r"^# --- ", text.split(f"#[connectors.{name}]\n")[1], flags=re.MULTILINE)[0]
    used, everything = tmp_path / "used.toml", tmp_path / "everything.toml"
    bare = f"[connectors.{name}]\n" + re.sub("^#", "", section, flags=re.MULTILINE)
    used.write_text(f"{text}\n{bare}", encoding="utf-8")
    everything.write_text(
        f"{text}\n{re.sub('^#(?=[a-z_]+ = )', '', bare, flags=re.MULTILINE)}", encoding="utf-8"
    )
    one, other = (organization(path).connectors[name].settings for path in (used, everything))
    assert one == other, "what is shown as a default is the default"
    for key in TYPES[name].model_fields:
        assert re.search(rf"^##?{key} = ", section, re.MULTILINE), key


def test_the_example_names_every_key_there_is() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    for table in OrganizationConfig.model_fields.keys() - {"connectors"}:
        assert re.search(rf"^(# )?(\[{table}\]|{table} = )", text, re.MULTILINE), table
    for table in ("schedule", "wallet", "policy", "brakes"):
        section = re.split(rf"^\[{table}\]$", text, flags=re.MULTILINE)[1].split("\n[", 1)[0]
        model = OrganizationConfig.model_fields[table].annotation
        assert model is not None
        for key in model.model_fields:
            assert re.search(rf"^(# )?{key} = ", section, re.MULTILINE), f"{table}.{key}"


def test_every_key_of_the_example_is_found_on_its_line() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    written = text.splitlines()
    found = lines_of(text)
    assert {place[0] for place in found} == tomllib.loads(text).keys()
    for place, line in found.items():
        name = next(part for part in reversed(place) if isinstance(part, str))
        assert name in written[line - 1]
