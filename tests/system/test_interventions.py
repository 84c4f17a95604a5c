"""`quarantine`, `pause` and `resume` as an operator uses them, over the shop that needs no CRM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from town import command, environment, said

from syncsvc.sandbox.world import World


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    with World(tmp_path, contacts=10) as world, environment(world.environment):
        customers = tmp_path / "customers.csv"
        customers.write_text(
            "id;mail;name;points\n1;ann@example.org;Ann;10\n2;bob at home;Bob;20\n3;;Cy;30\n",
            encoding="utf-8",
        )
        path = tmp_path / "shop.toml"
        path.write_text(
            f"""
organization_id = "{world.wallet.organization_id}"
first_run = "import"
[service]
state = "sqlite:///{tmp_path}/shop.db"
log_format = "json"
listen = ""
[wallet]
base_url = "{world.wallet_url}"
token = {{ env = "ACME_WALLET_TOKEN" }}
brand_id = "brand-1"
storecard = "card-1"
[connectors.till]
type = "csv"
path = "{customers}"
key = "id"
[connectors.till.member]
email = "{{mail}}"
name = "{{name}}"
points = "{{points}}"
""",
            encoding="utf-8",
        )
        yield path


def test_quarantine_is_listed_retried_and_dropped_by_record_id(shop: Path) -> None:
    assert command("-c", shop, "once").code == 1
    listed = command("-c", shop, "quarantine", "list")
    assert listed.code == 1
    assert "│ till" in listed.out
    assert "mapping" in listed.out
    assert "bob" not in listed.out.casefold()
    assert "syncsvc quarantine retry RECORD" in listed.out
    (two, three) = command("-c", shop, "quarantine", "list", "--side", "mapping", "--json").json()["shop"]
    assert {two["record"], three["record"]} == {"2", "3"}
    assert two.keys() == {"connector", "record", "side", "field", "reason", "since", "dropped"}

    nowhere = command("-c", shop, "quarantine", "drop", "9", "--yes")
    assert (nowhere.code, "9 is not in quarantine" in nowhere.err) == (1, True)
    for wrong in (["retry"], ["drop"], ["drop", "2", "--all"], ["retry", "2", "-o", "other"]):
        assert command("-c", shop, "quarantine", *wrong).code == 2
    asked = command("-c", shop, "quarantine", "retry", "2", stdin="n\n")
    told = "retry 2? The next cycle reads every contact of till again, and judges it anew. [y/N]"
    assert (asked.code, told in asked.err) == (1, True)
    dropped = command("-c", shop, "quarantine", "drop", "2", "--by", "Ann", "--yes")
    assert dropped.code == 0
    assert "shop: 1 of till dropped by Ann. Nobody is told of it again until" in dropped.out
    assert (
        said(dropped, "quarantine_decided").items() >= {"choice": "drop", "by": "Ann", "refusals": 1}.items()
    )
    assert "quarantined 1, dropped 1 → syncsvc quarantine" in command("-c", shop, "status").out
    assert [it["record"] for it in command("-c", shop, "quarantine", "list", "--json").json()["shop"]] == [
        "3"
    ]
    assert command("-c", shop, "quarantine", "drop", "--all", "--yes").code == 0
    assert command("-c", shop, "quarantine").code == 0
    assert command("-c", shop, "once").code == 0
    assert len(command("-c", shop, "quarantine", "list", "--dropped", "--json").json()["shop"]) == 2
    retried = command("-c", shop, "quarantine", "retry", "--all", "--yes", "--json").json()["shop"]
    assert [it["choice"] for it in retried] == ["retry", "retry"]
    assert command("-c", shop, "once").code == 1


def test_an_organization_and_a_connector_are_paused_shown_and_resumed(shop: Path) -> None:
    assert command("-c", shop, "once").code == 1
    assert command("-c", shop, "quarantine", "drop", "--all", "--yes").code == 0
    assert command("-c", shop, "pause", "nothing").code == 2
    paused = command("-c", shop, "pause", "--by", "Ann", "--reason", "the till counts twice")
    assert (paused.code, "paused: shop as a whole, by Ann" in paused.out) == (0, True)
    assert said(paused, "paused")["by"] == "Ann"
    again = command("-c", shop, "pause", "till", "--by", "Bob", "--json")
    assert (again.json()["connector"], again.json()["news"]) == ("till", True)
    assert "is paused already" in command("-c", shop, "pause", "till").out
    status = command("-c", shop, "status")
    assert status.code == 1
    assert "paused shop as a whole, by Ann " in status.out
    assert "s ago: the till counts twice → syncsvc resume -o shop" in status.out
    assert "paused till of shop, by Bob" in status.out
    assert [it["connector"] for it in command("-c", shop, "status", "--json").json()["shop"]["pauses"]] == [
        None,
        "till",
    ]
    cycle = command("-c", shop, "once", "--json")
    assert (cycle.code, cycle.json()[0]["outcome"], cycle.json()[0]["stages"]) == (1, "paused", {})
    resumed = command("-c", shop, "resume", "--by", "Cy")
    assert "shop goes on with its next cycle; it was paused by Ann\nstill paused: till of shop, by Bob" in (
        resumed.out
    )
    assert command("-c", shop, "once", "--json").json()[0]["paused"] == ["till"]
    assert command("-c", shop, "resume", "till", "--json").json()["resumed_by"]
    nothing = command("-c", shop, "resume")
    assert (nothing.code, nothing.err) == (1, "it is not paused\n")
    assert command("-c", shop, "once").code == 0


def test_a_directory_of_organizations_asks_which_one_is_meant(shop: Path, tmp_path: Path) -> None:
    text = shop.read_text(encoding="utf-8")
    table = text[text.index("[service]") : text.index("[wallet]")]
    folder = tmp_path / "both"
    folder.mkdir()
    (folder / "service.toml").write_text(table, encoding="utf-8")
    for name in ("one", "two"):
        identity = "" if name == "one" else name
        (folder / f"{name}.toml").write_text(
            text.replace(table, "").replace('organization_id = "', f'organization_id = "{identity}'), "utf-8"
        )
    assert command("-c", folder, "once").code == 1
    unclear = command("-c", folder, "pause")
    assert (unclear.code, "name the organization: -o one or -o two" in unclear.err) == (2, True)
    assert command("-c", folder, "pause", "-o", "two").code == 0
    assert {
        name: bool(it["pauses"]) for name, it in command("-c", folder, "status", "--json").json().items()
    } == {
        "one": False,
        "two": True,
    }
    assert command("-c", folder, "quarantine", "list", "--json").json().keys() == {"one", "two"}
