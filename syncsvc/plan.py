"""Plan: what a cycle would send, found out on a private copy of the state by the same code that would send it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from syncsvc.configfile import Installation
from syncsvc.cycle import Cycle, Progress
from syncsvc.organization import ConnectorTypes, open_organization
from syncsvc.remote.transport import Network
from syncsvc.rules.brakes import Totals
from syncsvc.state.database import Database

_MOST_REFUSALS = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """What one organization's next cycle would do; `digest` covers every row and every point.

    `refusals` are the contacts that would be left out, each with its reason; `brakes` what would be held.
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


def plan_installation(installation: Installation, *, types: ConnectorTypes, progress: Progress) -> list[Plan]:
    """Return the plan of every organization. Sends nothing, moves no cursor, leaves the state as it is."""
    plans = []
    network = Network(ca_file=installation.service.ca_file)
    with Database.scratch(installation.service.state) as database:
        for config in installation.organizations:
            with open_organization(config, database, types=types, network=network.branch()) as organization:
                report = Cycle(organization, progress=progress, send=False).run()
                store, most = organization.store, config.brakes.max_points_per_member
                plans.append(
                    Plan(
                        organization=config.name,
                        digest=store.outbox.digest(most=most),
                        read=report.read,
                        excluded=report.excluded,
                        gone=report.gone,
                        totals=store.outbox.totals(most),
                        refusals=tuple(store.reports.refusals(_MOST_REFUSALS)),
                        brakes=tuple(f"{hold.brake}: {hold.detail}" for hold in store.holds.open()),
                        errors=report.errors,
                    )
                )
    return plans
