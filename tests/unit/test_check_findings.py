"""What `check` verifies of an organization, and what it makes of a service that cannot be asked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from syncsvc.check import SERVICE, Findings, check_installation
from syncsvc.config import OrganizationConfig
from syncsvc.configfile import Installation
from syncsvc.errors import TransientError
from syncsvc.model import Allowance, Problem
from syncsvc.remote.connector import Connector, Needs
from syncsvc.remote.transport import Network
from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.server import Server
from syncsvc.sandbox.wallet import WalletKnobs, WalletSimulator
from syncsvc.service import ServiceConfig
from syncsvc.settings import Reserve, Settings
from syncsvc.testing.memory import MemoryCrm


@pytest.mark.parametrize(
    ("retry_after", "remedy"),
    [
        (None, "check that the service can be reached, then try again"),
        (899.3, "try again in 15 min: the service is reached"),
        (2.0, "try again in 1 min: the service is reached"),
    ],
)
def test_passing_trouble_says_when_to_try_again(retry_after: float | None, remedy: str) -> None:
    def refuse() -> list[Problem]:
        raise TransientError("the last calls are kept", retry_after=retry_after)

    findings = Findings()
    findings.ask("crm", refuse)
    assert list(findings.all) == [Problem("crm", "the last calls are kept", remedy)]


# What is verified of an organization, against a wallet and a CRM that are there.


class Metered(MemoryCrm):
    """A CRM that tells how many of its 1,000 calls of the day are left."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def __call__(self, settings: Any, needs: Needs, network: Network) -> Connector:
        network.allowance = Allowance(1000, self.left, network.now())
        return super().__call__(settings, needs, network)


class Kept(Settings):
    """Settings of a connector that leaves calls to others."""

    reserve: Reserve = "10%"


class Lab:
    """An organization of one connector, and a wallet with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(datetime.now(UTC))
        self.wallet = WalletSimulator(
            organization_id="01JCacme",
            brands={"brand-1": ("card-1",), "brand-2": ("card-1",)},
            clock=self.clock,
            knobs=WalletKnobs(),
        )
        self.types: dict[str, Any] = {"crm": MemoryCrm()}
        self.folder = folder
        (folder / "token").write_text("wallet-sandbox", encoding="utf-8")

    def check(
        self, url: str, *, offline: bool = False, every: str = "60s", **tables: Any
    ) -> dict[str, Findings]:
        config = OrganizationConfig.model_validate(
            {
                "organization_id": "01JCacme",
                "name": "acme",
                "first_run": "import",
                "schedule": {"every": every},
                "wallet": {
                    "base_url": url,
                    "token": {"file": str(self.folder / "token")},
                    "brand_id": "brand-1",
                    "storecard": "card-1",
                },
                "connectors": {
                    "people": {
                        "type": "crm",
                        "settings": Kept(),
                        "member": {"email": "{email}", "name": "{name}"},
                        "write_back": {"last_updated": "wallet_time"},
                    }
                },
                **tables,
            }
        )
        service = ServiceConfig(state=f"sqlite:///{self.folder / 'none' / 'state.db'}")
        path = self.folder / "acme.toml"
        installation = Installation(service, (config,), path, {"acme": path})
        return check_installation(installation, types=self.types, offline=offline)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def url(lab: Lab) -> Iterator[str]:
    with Server(lab.wallet.app) as server:
        yield server.url


def told(findings: Findings) -> list[str]:
    return [f"{it.where}: {it.message} → {it.remedy}" for it in findings.all]


def test_what_is_in_order_has_no_problem_and_says_what_nobody_can_verify(lab: Lab, url: str) -> None:
    found = lab.check(url)
    assert told(found["acme"]) == []
    (fact,) = found["acme"].facts
    assert fact.startswith("wallet: not verified: storecards card-1: the wallet has no documented call ")
    assert lab.wallet.imports == []


def test_the_state_is_told_once_for_all_organizations(lab: Lab, url: str) -> None:
    found = lab.check(url)
    (problem,) = found[SERVICE].all
    assert (problem.where, str(lab.folder / "none") in problem.message) == ("state", True)
    assert not (lab.folder / "none").exists()


def test_offline_asks_nobody_and_leaves_the_state_alone(lab: Lab, url: str) -> None:
    found = lab.check(url, offline=True)
    assert (list(found), found["acme"].all, found["acme"].facts) == (["acme"], [], [])
    assert not lab.wallet.requests


@pytest.mark.parametrize(
    ("ahead", "said"), [(3600, "ahead of"), (-3600, "behind"), (90, "ahead of"), (30, ""), (-30, "")]
)
def test_a_server_whose_clock_is_off_is_told(lab: Lab, url: str, ahead: int, said: str) -> None:
    lab.clock.advance(datetime.now(UTC) - lab.clock.now() + timedelta(seconds=ahead))
    lines = told(lab.check(url)["acme"])
    assert len(lines) == bool(said)
    for line in lines:
        assert line.startswith("wallet: the clock of 127.0.0.1 is ")
        assert f" s {said} this machine's → " in line
        assert line.endswith(
            "this machine's → let this machine's clock be set by NTP; if it is right, tell the "
            "server's operator"
        )


def test_a_brand_of_another_organization_is_told(lab: Lab, url: str) -> None:
    lab.wallet.organization_id = "01JCother"
    assert (
        "wallet: brand_id: the brand brand-1 is of organization 01JCother, not of 01JCacme → correct "
        "organization_id or the brand: points would go to another programme"
    ) in told(lab.check(url)["acme"])


@pytest.mark.parametrize(
    "rule", ["brand-9", {"field": "b", "values": {"x": "brand-2", "y": "brand-9"}}, {"value": "brand-9"}]
)
def test_every_brand_that_a_map_names_is_verified(lab: Lab, url: str, rule: Any) -> None:
    people = {"type": "crm", "member": {"email": "{email}", "brand_id": rule}}
    lines = told(lab.check(url, connectors={"people": people})["acme"])
    assert any("there is no brand brand-9 among those that the token reaches" in line for line in lines)
    assert not any("brand-1" in line or "brand-2" in line for line in lines)


def test_a_token_that_may_not_list_brands_is_no_problem(lab: Lab, url: str) -> None:
    lab.wallet.knobs.abilities["wallet-sandbox"] = {"import", "brand.import"}
    found = lab.check(url)["acme"]
    assert told(found) == []
    assert found.facts[0] == (
        "wallet: not verified: whose brands brand-1 are: a token with the ability `brands.get` would be told"
    )


@pytest.mark.parametrize(
    ("left", "every", "said"),
    [
        (900, "2m", None),
        (900, "90s", 'set schedule.every to "96s" or longer, or lower its reserve'),
        (100, "2m", "only 100 of 1,000 API calls of the day are left, 100 of which are kept"),
    ],
)
def test_calls_of_the_day_are_held_against_the_reserve_and_the_schedule(
    lab: Lab, url: str, left: int, every: str, said: str | None
) -> None:
    lab.types["crm"] = Metered(left)
    found = lab.check(url, every=every)["acme"]
    assert found.facts[0].startswith(
        f"connectors.people: {left} of 1,000 API calls of the day are left, 100 "
    )
    assert [said in line for line in told(found)] == ([True] if said else [])  # type: ignore[operator]
    assert bool(found.passing) is (left == 100)
