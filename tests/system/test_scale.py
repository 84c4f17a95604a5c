"""Many contacts, and many organizations, by the commands that a user runs; `make soak` takes far more.

What is judged are counts and memory; how long it takes is for the benchmarks.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from syncsvc.sandbox.hubspot import HubSpotKnobs, HubSpotSimulator
from syncsvc.sandbox.server import Server
from syncsvc.sandbox.wallet import WalletSimulator

Proven = Callable[[str, int], None]
SOAK = bool(os.environ.get("SYNCSVC_SOAK"))
CONTACTS = 1_000_000 if SOAK else 3_000
ORGANIZATIONS = 1_000 if SOAK else 8
EACH = 100
LIMIT = 7200 if SOAK else 300
TOKEN = "scale-token-0123456789"
PEAK = 150_000_000  # bytes
OF_A_CONTACT, OF_A_STATE = 400, 300_000  # bytes: what a settled contact takes of a file, and an empty one
STANDIN = Path(__file__).parents[2] / "bench" / "standin.py"

_ORGANIZATION = """\
organization_id = "01JC{number:06}"
first_run = "import"

[wallet]
base_url = "{wallet}"
token = {{ env = "SCALE_TOKEN" }}
brand_id = "brand-{number}"
storecard = "card-1"

[connectors.marketing]
type = "hubspot"
token = {{ env = "SCALE_TOKEN" }}
base_url = "{hubspot}"

[connectors.marketing.member]
email = "{{email}}"
name = "{{firstname}} {{lastname}}"
points = "{{loyalty_points}}"

[connectors.marketing.write_back]
last_updated = "wallet_last_updated"
"""

# The peak of a process begins with the memory of the one that starts it: let that be small.
_MEASURED = """\
import resource, subprocess, sys
code = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as peak:
    peak.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


class Installation:
    """A folder of organization files, and the commands that run on it, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.state = folder / "state.db"
        self._config = folder / "organizations"
        self._config.mkdir()
        service = f'[service]\nstate = "sqlite:///{self.state}"\n'
        (self._config / "service.toml").write_text(service, encoding="utf-8")

    def add(self, number: int, *, wallet: str, hubspot: str) -> None:
        text = _ORGANIZATION.format(number=number, wallet=wallet, hubspot=hubspot)
        (self._config / f"o{number}.toml").write_text(text, encoding="utf-8")

    def command(self, *arguments: str) -> int:
        """Run a command to its good end; returns the most memory that it held."""
        told = self._folder / "told"
        command = [sys.executable, "-m", "syncsvc", "-c", str(self._config), *arguments]
        environment = {**os.environ, "SCALE_TOKEN": TOKEN}
        with told.open("wb") as stream:
            ran = subprocess.run(
                [sys.executable, "-c", _MEASURED, str(self._folder / "peak"), *command],
                env=environment,
                stdout=stream,
                stderr=stream,
                check=False,
            )
        assert ran.returncode == 0, told.read_text(encoding="utf-8")[-4000:]
        return int((self._folder / "peak").read_text(encoding="ascii")) * 1024


@contextmanager
def standin(contacts: int) -> Iterator[str]:
    """Serve so many contacts and their wallet from a process that keeps a few numbers for each."""
    with subprocess.Popen([sys.executable, STANDIN, str(contacts)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
        finally:
            process.terminate()


def totals(url: str) -> Mapping[str, Any]:
    with urllib.request.urlopen(f"{url}/standin/totals", timeout=60) as answer:  # noqa: S310 - our own process
        found: Mapping[str, Any] = json.loads(answer.read())
        return {name: found[name] for name in ("rows", "awarded", "written_back")}


@pytest.mark.timeout(LIMIT)
def test_an_organization_of_many_contacts_is_delivered_within_the_memory_of_a_small_one(
    tmp_path: Path, proven: Proven
) -> None:
    installation = Installation(tmp_path)
    said = {"rows": CONTACTS, "awarded": sum(it % 500 for it in range(1, CONTACTS + 1))}
    done = {**said, "written_back": CONTACTS}
    with standin(CONTACTS) as url:
        installation.add(1, wallet=url, hubspot=url)
        peak = installation.command("once")
        assert totals(url) == done
        assert peak < PEAK
        installation.command("once")
        assert totals(url) == done
        assert installation.command("books", "--verify") < PEAK
    assert installation.state.stat().st_size < OF_A_CONTACT * CONTACTS + OF_A_STATE
    proven("contacts in one organization", CONTACTS)


class Towns:
    """A wallet and a HubSpot account for each of many organizations, behind one port, by their paths."""

    def __init__(self, number: int) -> None:
        self.wallets, self.hubspots = [], []
        for it in range(number):
            organization = {"organization_id": f"01JC{it:06}", "brands": {f"brand-{it}": ["card-1"]}}
            self.wallets.append(WalletSimulator(**organization, token=TOKEN, seed=it))
            hubspot = HubSpotSimulator(token=TOKEN, seed=it, knobs=HubSpotKnobs(limits=False))
            hubspot.define("loyalty_points", "number", "number")
            hubspot.define("wallet_last_updated", "datetime", "date")
            people = [
                {"firstname": "Ann", "email": f"p{at}@example.com", "loyalty_points": str(at)}
                for at in range(EACH)
            ]
            hubspot.create_many(people, at=datetime.now(UTC) - timedelta(days=2))
            self.hubspots.append(hubspot)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        _, kind, number, rest = scope["path"].split("/", 3)
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        theirs = self.wallets if kind == "wallet" else self.hubspots
        await theirs[int(number)].app(inner, receive, send)


@pytest.mark.timeout(LIMIT)
def test_many_organizations_are_delivered_by_one_command(tmp_path: Path, proven: Proven) -> None:
    installation, towns = Installation(tmp_path), Towns(ORGANIZATIONS)
    with Server(towns) as server:
        for number in range(ORGANIZATIONS):
            wallet, hubspot = (f"{server.url}/{kind}/{number}" for kind in ("wallet", "hubspot"))
            installation.add(number, wallet=wallet, hubspot=hubspot)
        for _ in range(2):
            installation.command("once")
            assert [it.total_awarded() for it in towns.wallets] == [sum(range(EACH))] * ORGANIZATIONS
            assert [len(it.writes) for it in towns.hubspots] == [EACH] * ORGANIZATIONS
        installation.command("books", "--verify")
    proven("organizations in one service", ORGANIZATIONS)
