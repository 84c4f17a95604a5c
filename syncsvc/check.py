"""Check: everything that would keep an organization from working, found before it runs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

from syncsvc.alerts import may_be_told
from syncsvc.config import ConnectorConfig, OrganizationConfig
from syncsvc.configfile import Installation
from syncsvc.errors import ConfigurationError, CredentialsError, StateError, SyncError, TransientError
from syncsvc.model import Allowance, Problem
from syncsvc.organization import ConnectorTypes
from syncsvc.remote.clocks import MOST_SKEW
from syncsvc.remote.connector import Needs
from syncsvc.remote.transport import Network
from syncsvc.remote.wallet import WalletClient
from syncsvc.rules.mapping import Mapper
from syncsvc.rules.samples import failed_tests
from syncsvc.settings import reserved_calls
from syncsvc.state.condition import condition
from syncsvc.state.database import Database
from syncsvc.state.store import is_known

CONFIGURATION = "configuration"
"""Where problems of an organization's file stand."""

SERVICE = "service"
"""Where findings stand that are of no organization, by the name of the table that they are about."""

_DAY = timedelta(days=1)


@dataclass(slots=True)
class Findings:
    """The problems of one organization; `passing` are those that trying again may mend.

    `facts` are no problems: what is good to know, and what cannot be verified.
    """

    problems: list[Problem] = field(default_factory=list)
    passing: list[Problem] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

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
    installation: Installation,
    *,
    types: ConnectorTypes,
    offline: bool,
    show_values: bool = False,
    network: Network | None = None,
) -> dict[str, Findings]:
    """Return what is wrong by organization; `offline` looks at the configuration alone.

    What is of no organization stands under SERVICE. `show_values` lets failing samples show what would tell
    who somebody is.
    """
    network = network or Network(ca_file=installation.service.ca_file)
    found = {config.name: _maps(config, show_values=show_values) for config in installation.organizations}
    for config in installation.organizations:
        found[config.name].problems += _webhook(config)
    if not offline:
        for config in installation.organizations:
            for name, connector in config.connectors.items():
                _check_connector(found[config.name], name, connector, config, types, network.branch())
            _check_wallet(found[config.name], config, network.branch())
        state = condition(installation.service.state_url)
        service = found.setdefault(SERVICE, Findings())
        service.problems += state.problems
        service.facts += state.facts
        if not state.problems:
            _check_identities(found, installation)
    return found


def _webhook(config: OrganizationConfig) -> list[Problem]:
    webhook = config.alerts.webhook
    if webhook is None or webhook.problem() or may_be_told(webhook.read()):
        return []
    told = "holds no https:// URL, and nobody would be told anything"
    return [Problem("alerts.webhook", told, "put the webhook's whole address there")]


def _check_identities(found: Mapping[str, Findings], installation: Installation) -> None:
    """Tell organizations that the state does not know yet, and those that it knows as others."""
    url = installation.service.state_url
    if not Database.exists(url):
        return
    with contextlib.suppress(StateError), Database.open_beside(url) as database:  # an older one is a fact
        for config in installation.organizations:
            try:
                if not is_known(database, config):
                    told = f"the state does not know {config.name} yet: every contact is new to it"
                    found[config.name].facts.append(told)
            except ConfigurationError as error:
                found[config.name].problems += [
                    Problem(CONFIGURATION, *_with_remedy(it)) for it in error.problems
                ]


def of_files(broken: Mapping[Path, Sequence[str]]) -> dict[str, Findings]:
    """Return what is wrong with files that cannot be used, by the organizations that they are named for."""
    return {
        path.stem: Findings([Problem(CONFIGURATION, *_with_remedy(problem)) for problem in problems])
        for path, problems in broken.items()
    }


def _with_remedy(problem: str) -> tuple[str, str]:
    message, _, remedy = problem.rpartition("; ")
    return (message, remedy) if message else (problem, "mend the file")


def _maps(config: OrganizationConfig, *, show_values: bool) -> Findings:
    return Findings(
        [
            Problem(f"connectors.{name}.tests", failure, "mend the map, or the test")
            for name, connector in config.connectors.items()
            for failure in failed_tests(
                Mapper(connector, config.wallet), connector.tests, show_values=show_values
            )
        ]
    )


def _check_connector(
    findings: Findings,
    name: str,
    connector: ConnectorConfig,
    config: OrganizationConfig,
    types: ConnectorTypes,
    network: Network,
) -> None:
    where, asked = f"connectors.{name}", len(findings.passing)
    needs = Needs(Mapper(connector, config.wallet).needs, connector.write_back.model_dump(exclude_none=True))

    def ask() -> list[Problem]:
        opened = types[connector.type](connector.settings, needs, network)
        try:
            return opened.check()
        finally:
            opened.close()

    findings.ask(where, ask)
    findings.problems += _clocks(where, network)
    if network.allowance is not None:
        budget = _Budget.of(network.allowance, connector, config.schedule.every)
        findings.facts.append(f"{where}: {budget.told}")
        findings.problems += budget.too_small(where)
        if len(findings.passing) == asked:  # else the connector has said so itself
            findings.passing += budget.used_up(where)


@dataclass(frozen=True, slots=True)
class _Budget:
    """The calls that a CRM allows in a day, with those that are kept for its other applications."""

    allowance: Allowance
    kept: int
    every: timedelta

    @classmethod
    def of(cls, allowance: Allowance, connector: ConnectorConfig, every: timedelta) -> Self:
        """Return the budget of a connector; one without the setting `reserve` keeps nothing."""
        reserve = getattr(connector.settings, "reserve", None)
        return cls(allowance, reserved_calls(reserve, allowance.allowed) if reserve else 0, every)

    @property
    def told(self) -> str:
        kept = f", {self.kept:,} of which are kept for its other apps" if self.kept else ""
        return f"{self.allowance.left:,} of {self.allowance.allowed:,} API calls of the day are left{kept}"

    def used_up(self, where: str) -> list[Problem]:
        """Return that no more calls are left than are kept, if so."""
        if self.allowance.left > self.kept:
            return []
        return [Problem(where, f"only {self.told}", "wait for the day's end, or lower its reserve")]

    def too_small(self, where: str) -> list[Problem]:
        """Return that a day's polls alone are more calls than a day has for us, if they are."""
        ours, polls = self.allowance.allowed - self.kept, math.ceil(_DAY / self.every)
        if polls <= ours:
            return []
        message = (
            f'with schedule.every = "{self.every.total_seconds():g}s" it is asked {polls:,} times a day at '
            f"least, and of its {self.allowance.allowed:,} API calls a day {ours:,} are ours"
        )
        longer = (
            f'set schedule.every to "{math.ceil(_DAY.total_seconds() / ours)}s" or longer' if ours else ""
        )
        return [Problem(where, message, f"{longer}{', or ' if longer else ''}lower its reserve")]


def _check_wallet(findings: Findings, config: OrganizationConfig, network: Network) -> None:
    named = _named(config, "brand_id")
    client = WalletClient(config.organization_id, config.wallet, network)
    try:
        findings.ask(
            "wallet",
            lambda: [*client.check(named), *_brands(findings, client, config.organization_id, named)],
        )
    finally:
        client.close()
    findings.problems += _clocks("wallet", network)
    if cards := _named(config, "storecard"):
        told = "the wallet has no documented call that tells which storecards there are"
        findings.facts.append(f"wallet: not verified: storecards {', '.join(cards)}: {told}")


def _brands(
    findings: Findings, client: WalletClient, organization_id: str, named: Sequence[str]
) -> list[Problem]:
    """Return which of the named brands are not this organization's, as far as the wallet tells."""
    try:
        known = client.brands()
    except (TransientError, CredentialsError):
        known = None
    if known is None:
        if named:
            why = "a token with the ability `brands.get` would be told"
            findings.facts.append(f"wallet: not verified: whose brands {', '.join(named)} are: {why}")
        return []
    problems = []
    for brand in named:
        if brand not in known:
            message, remedy = f"there is no brand {brand} among those that the token reaches", "correct it"
        elif known[brand] not in {None, organization_id}:
            message = f"the brand {brand} is of organization {known[brand]}, not of {organization_id}"
            remedy = "correct organization_id or the brand: points would go to another programme"
        else:
            continue
        problems.append(Problem("brand_id", message, remedy))
    return problems


def _named(config: OrganizationConfig, name: str) -> list[str]:
    """Return the values of a member field that the configuration itself names, the default first."""
    default = getattr(config.wallet, name)
    found = [default] if default is not None else []
    for connector in config.connectors.values():
        rule = getattr(connector.member, name)
        if rule is not None:
            found += [
                it for it in (rule.value, rule.default, *(rule.values or {}).values()) if it is not None
            ]
            found += [rule.template] if rule.template and "{" not in rule.template else []
    return list(dict.fromkeys(map(str, found)))


def _clocks(where: str, network: Network) -> list[Problem]:
    problems = []
    for host, skew in network.clocks.skews().items():
        if abs(skew) > MOST_SKEW:
            side = "ahead of" if skew > timedelta() else "behind"
            message = f"the clock of {host} is {round(abs(skew).total_seconds()):,} s {side} this machine's"
            remedy = "let this machine's clock be set by NTP; if it is right, tell the server's operator"
            problems.append(Problem(where, message, remedy))
    return problems
