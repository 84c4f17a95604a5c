"""Check: everything that would keep an organization from working, found before it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syncsvc.config import ConnectorConfig, OrganizationConfig
from syncsvc.configfile import Installation
from syncsvc.errors import CredentialsError, SyncError
from syncsvc.model import Problem
from syncsvc.organization import ConnectorTypes
from syncsvc.remote.connector import Needs
from syncsvc.remote.transport import Network
from syncsvc.remote.wallet import WalletClient
from syncsvc.rules.mapping import Mapper, failed_tests


def check_installation(
    installation: Installation, *, types: ConnectorTypes, offline: bool
) -> dict[str, list[Problem]]:
    """Return every problem by organization; `offline` looks at the configuration alone."""
    network = Network(ca_file=installation.service.ca_file)
    return {
        config.name: _check(config, types=types, network=network, offline=offline)
        for config in installation.organizations
    }


def _check(
    config: OrganizationConfig, *, types: ConnectorTypes, network: Network, offline: bool
) -> list[Problem]:
    problems = []
    for name, connector in config.connectors.items():
        mapper = Mapper(connector, config.wallet)
        where = f"connectors.{name}"
        problems += [
            Problem(f"{where}.tests", failure, "mend the map, or the test")
            for failure in failed_tests(mapper, connector.tests)
        ]
        if not offline:
            problems += _asked(where, lambda: _connector(connector, mapper, types, network))
    if not offline:
        problems += _asked("wallet", lambda: _wallet(config, network))
    return problems


def _connector(
    connector: ConnectorConfig, mapper: Mapper, types: ConnectorTypes, network: Network
) -> list[Problem]:
    needs = Needs(mapper.needs, connector.write_back.model_dump(exclude_none=True))
    opened = types[connector.type](connector.settings, needs, network)
    try:
        return opened.check()
    finally:
        opened.close()


def _wallet(config: OrganizationConfig, network: Network) -> list[Problem]:
    client = WalletClient(config.organization_id, config.wallet, network)
    try:
        return client.check([config.wallet.brand_id] if config.wallet.brand_id else [])
    finally:
        client.close()


def _asked(where: str, ask: Callable[[], list[Problem]]) -> list[Problem]:
    """Return what asking finds; a service that cannot be asked is a problem of its own."""
    try:
        found: list[Any] = ask()
    except CredentialsError as error:
        return [Problem(where, str(error), "check the credentials and what they may do")]
    except SyncError as error:
        return [Problem(where, str(error), "check that the service can be reached, then try again")]
    return [
        Problem(f"{where}: {it.where}" if it.where != where else where, it.message, it.remedy) for it in found
    ]
