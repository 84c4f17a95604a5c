from __future__ import annotations

from pathlib import Path

import pytest
from town import command, settled, until

from syncsvc.sandbox.world import World

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


@pytest.fixture
def example(world: World, tmp_path: Path) -> Path:
    """`config.example.toml`, with nothing changed but where things are."""
    text = EXAMPLE.read_text(encoding="utf-8")
    for old, new in (
        ('"01JC0000000000000000000000"', f'"{world.wallet.organization_id}"'),
        ('"sqlite:///syncsvc.db"', f'"sqlite:///{tmp_path}/example.db"'),
        ('# ca_file = ""', f'ca_file = "{world.ca_file}"'),
        ('# base_url = "https://api.walletapp.co"', f'base_url = "{world.wallet_url}"'),
        ('"https://acme.my.salesforce.com"', f'"{world.salesforce_url}"'),
        ('# base_url = "https://api.hubapi.com"', f'base_url = "{world.hubspot_url}"'),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = tmp_path / "example.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_example_configuration_works_as_it_stands(world: World, example: Path) -> None:
    checked = command("-c", example, "check", "--json")
    assert (checked.code, checked.json()) == (0, {"example": []})
    (plan,) = command("-c", example, "plan", "--json").json()
    members = len(world.balances())
    assert (plan["totals"]["new"], plan["brakes"], plan["refusals"]) == (members, [], [])

    first = command("-c", example, "once", "--json")
    assert (first.code, first.json()[0]["rows_landed"]) == (0, members)
    assert settled(world)
    before = world.noise()
    assert command("-c", example, "once").code == 0
    assert world.noise() == before, "a second cycle does nothing"

    world.edit(3)
    until("the edits", lambda: command("-c", example, "once").code or settled(world))
    assert settled(world)
    person = next(world.salesforce_people())
    told = command("-c", example, "explain", person.email)
    assert (told.code, "is up to date: " in told.out) == (0, True)
    member = world.wallet.member("brand-1", person.email)
    assert member is not None
    assert member.profile["licenseplate"].startswith("SB-")
