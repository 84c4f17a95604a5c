"""Check: everything that would keep an organization from working, found before it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from syncsvc.config import ConnectorConfig, OrganizationConfig
from syncsvc.configfile import Installation
from syncsvc.errors import CredentialsError, SyncError, TransientError
from syncsvc.model import Problem
from syncsvc.organization import ConnectorTypes
from syncsvc.remote.connector import Needs
from syncsvc.remote.transport import Network
from syncsvc.remote.wallet import WalletClient
from syncsvc.rules.mapping import Mapper
from syncsvc.rules.samples import failed_tests


@dataclass(slots=True)
class Findings:
    """The problems of one organization; `passing` are those that trying again may mend."""

    problems: list[Problem] = field(default_factory=list)
    passing: list[Problem] = field(default_factory=list)

    @property
    def all(self) -> Sequence[Problem]:
        """Every problem, lasting ones first."""
        return [*self.problems, *self.passing]

    def ask(self, where: str, question: Callable[[], list[Problem]]) -> None:
        """Add what asking a service finds; one that cannot be asked is a problem of its own."""
        try:
            found = question()
        except TransientError as error:
            remedy = "check that the service can be reached, then try again"
            if error.retry_after is not None:
                remedy = f"try again in {max(1, round(error.retry_after / 60))} min: the service is reached"
            self.passing.append(Problem(where, str(error), remedy))
        except CredentialsError as error:
            self.problems.append(Problem(where, str(error), "check the credentials and what they may do"))
        except SyncError as error:
            self.problems.append(Problem(where, str(error), "mend what it names, then check again"))
        else:
            self.problems += [
                Problem(where if it.where == where else f"{where}: {it.where}", it.message, it.remedy)
                for it in found
            ]


def check_installation(
    installation: Installation, *, types: ConnectorTypes, offline: bool, show_values: bool = False
) -> dict[str, Findings]:
    """Return what is wrong by organization; `offline` looks at the configuration alone.

    `show_values` lets failing samples show what would tell who somebody is.
    """
    network = Network(ca_file=installation.service.ca_file)
    return {
        config.name: _check(config, types=types, network=network, offline=offline, show_values=show_values)
        for config in installation.organizations
    }


def _check(
    config: OrganizationConfig, *, types: ConnectorTypes, network: Network, offline: bool, show_values: bool
) -> Findings:
    findings = Findings()
    for name, connector in config.connectors.items():
        mapper, where = Mapper(connector, config.wallet), f"connectors.{name}"
        findings.problems += [
            Problem(f"{where}.tests", failure, "mend the map, or the test")
            for failure in failed_tests(mapper, connector.tests, show_values=show_values)
        ]
        if not offline:
            findings.ask(where, partial(_connector, connector, mapper, types, network))
    if not offline:
        findings.ask("wallet", partial(_wallet, config, network))
    return findings


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
