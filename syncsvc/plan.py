"""Plan: what a cycle would send, found out on a private copy of the state by the code that would send it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from syncsvc.config import OrganizationConfig
from syncsvc.configfile import Installation
from syncsvc.cycle import Cycle, Progress
from syncsvc.organization import ConnectorTypes, open_organization
from syncsvc.remote.transport import Network
from syncsvc.rules.brakes import Totals
from syncsvc.state.database import Database
from syncsvc.watch.report import Outcome

_MOST_REFUSALS = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """What one organization's next cycle would do; `digest` covers every row and every point.

    `refusals` are the contacts that would be left out, each with its reason; `brakes` what would be held;
    `errors` what kept something from being read, and `passing` whether trying again may mend that.
    """

    organization: str
    digest: str
    read: int
    excluded: int
    gone: int
    totals: Totals
    refusals: tuple[dict[str, Any], ...]
    brakes: tuple[str, ...]
    errors: tuple[str, ...]
    passing: bool


def plan_installation(installation: Installation, *, types: ConnectorTypes, progress: Progress) -> list[Plan]:
    """Return the plan of every organization. Sends nothing, moves no cursor, leaves the state as it is.

    Raises StateError where the state cannot be used.
    """
    network = Network(ca_file=installation.service.ca_file)
    with Database.scratch(installation.service.state) as database:
        return [
            _plan(config, database, types=types, network=network.branch(), progress=progress)
            for config in installation.organizations
        ]


def _plan(
    config: OrganizationConfig,
    database: Database,
    *,
    types: ConnectorTypes,
    network: Network,
    progress: Progress,
) -> Plan:
    with open_organization(config, database, types=types, network=network) as organization:
        cycle = Cycle(organization, progress=progress, send=False)
        report = cycle.run()
        store, allowed = organization.store, cycle.allowed
        return Plan(
            organization=config.name,
            digest=store.outbox.digest(allowed),
            read=report.read,
            excluded=report.excluded,
            gone=report.gone,
            totals=store.outbox.totals(allowed.most_points),
            refusals=tuple(store.reports.refusals(_MOST_REFUSALS)),
            brakes=tuple(
                f"{hold.brake}: {hold.detail}" for hold in store.holds.open() if hold.released_by is None
            ),
            errors=report.errors,
            passing=report.outcome is Outcome.TRANSIENT,
        )
