from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
from town import command, environment

from syncsvc.sandbox.server import Server
from syncsvc.sandbox.shop import write_shop
from syncsvc.sandbox.wallet import WalletSimulator

BRAND = "brand-1"


@pytest.fixture
def wallet() -> WalletSimulator:
    return WalletSimulator(organization_id="01JCSHOP", brands={BRAND: ("card-1",)}, seed=1)


@pytest.fixture
def shop(wallet: WalletSimulator, tmp_path: Path) -> Iterator[Path]:
    """The organization file of a shop without a CRM, as `demo --keep` leaves it."""
    with Server(wallet.app) as server, environment({"ACME_WALLET_TOKEN": "wallet-sandbox"}):
        place = {"organization_id": "01JCSHOP", "wallet_url": server.url}
        path = write_shop(tmp_path, brand_id=BRAND, **place)
        path.write_text(path.read_text(encoding="utf-8").replace('"500ms"', '"1ms"'), encoding="utf-8")
        yield path


def test_the_service_is_tried_with_no_crm_at_all(shop: Path, wallet: WalletSimulator) -> None:
    checked = command("-c", shop, "check")
    assert (checked.code, command("-c", shop, "setup").code) == (0, 0), checked.out
    planned = command("-c", shop, "plan", "--json").json()[0]
    assert (planned["totals"]["new"], planned["totals"]["points"], len(planned["refusals"])) == (3, 195, 1)
    first = command("-c", shop, "once", "--json").json()[0]
    assert (first["rows_landed"], first["points_landed"], first["quarantined"]) == (3, 195, 1)

    customers = shop.with_name("customers.csv")
    text = customers.read_text(encoding="utf-8")
    text = text.replace("Ann Abel", "Ann Zorn").replace("dora at ", "dora@")
    customers.write_text(text, encoding="utf-8")
    assert command("-c", shop, "once").code == 0
    told = command("-c", shop, "explain", "ann@example.org").out
    assert "120 earned, 120 credited" in told
    member = wallet.member(BRAND, "ann@example.org")
    assert member is not None
    assert member.profile["name"] == "Ann Zorn"
    assert "customers C001: owner, active, points 120, written back" in told
    assert wallet.total_awarded() == 120 + 75 + 40
    with shop.with_name("customers.results.csv").open(encoding="utf-8", newline="") as file:
        results = {row["Customer"]: row for row in csv.DictReader(file, delimiter=";")}
    assert {it["Wallet status"] for it in results.values()} == {"imported"}
    assert all(it["Wallet time"].endswith("Z") for it in results.values())
    assert len(results) == 4


def test_check_names_what_an_export_lacks(shop: Path) -> None:
    customers = shop.with_name("customers.csv")
    text = customers.read_text(encoding="utf-8")
    customers.write_text(text.replace("Customer;E-mail;Name", "customer;Email;Name"), encoding="utf-8")
    told = command("-c", shop, "check")
    assert told.code == 1
    assert "customers.csv has no column Customer" in told.out
    assert "did you mean customer? its columns are customer, Email, Name, Points" in told.out
    customers.unlink()
    assert "let it be exported, or correct path" in command("-c", shop, "check").out
