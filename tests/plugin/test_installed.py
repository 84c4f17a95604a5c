"""The plug-in is built and installed as its users do, and the service finds it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rolodex_simulator import RolodexSimulator

from syncsvc.sandbox.clock import RealClock
from syncsvc.sandbox.server import Server
from syncsvc.sandbox.wallet import WalletSimulator

Run = Callable[..., subprocess.CompletedProcess[str]]
HERE = Path(__file__).parent
INSTALL = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
ORGANIZATION = """
organization_id = "01JCPLUGIN"
first_run = "import"
[service]
state = "sqlite:///{folder}/state.db"
[wallet]
base_url = "{wallet}"
token = {{ env = "WALLET_TOKEN" }}
brand_id = "brand-1"
storecard = "card-1"
[connectors.people]
type = "rolodex"
url = "{rolodex}"
key = {{ env = "ROLODEX_KEY" }}
[connectors.people.member]
email = "{{mail}}"
name = "{{name}}"
[connectors.people.write_back]
last_updated = "wallet_at"
status = "wallet_status"
"""


@pytest.fixture
def crm() -> RolodexSimulator:
    return RolodexSimulator(key="k-1", clock=RealClock())


@pytest.fixture
def run(tmp_path: Path, crm: RolodexSimulator) -> Iterator[Run]:
    """Run a command of the service, with the plug-in installed into a directory of its own."""
    source, target = tmp_path / "source", tmp_path / "site"
    shutil.copytree(HERE, source, ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--no-deps", "--no-build-isolation", "--target", str(target)]
    subprocess.run([*INSTALL, *offline, str(source)], check=True, timeout=100)
    wallet = WalletSimulator(organization_id="01JCPLUGIN", brands={"brand-1": ("card-1",)}, seed=1)
    with Server(wallet.app) as wallets, Server(crm.app) as rolodex:
        places = {"folder": tmp_path, "wallet": wallets.url, "rolodex": rolodex.url}
        (tmp_path / "acme.toml").write_text(ORGANIZATION.format(**places), encoding="utf-8")
        secrets = {"WALLET_TOKEN": "wallet-sandbox", "ROLODEX_KEY": "k-1", "PYTHONPATH": str(target)}

        def command(*arguments: str) -> subprocess.CompletedProcess[str]:
            whole = [sys.executable, "-m", "syncsvc", "-c", str(tmp_path / "acme.toml"), *arguments]
            environment = {**os.environ, **secrets}
            return subprocess.run(whole, env=environment, capture_output=True, text=True, check=False)

        yield command


def test_installed_connector_is_found_and_asks_its_crm(run: Run, crm: RolodexSimulator) -> None:
    checked = run("check", "--json")
    assert (checked.returncode, json.loads(checked.stdout)) == (0, {"acme": []}), checked.stderr
    assert crm.asked["/v1/fields"] == 1
