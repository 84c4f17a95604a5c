"""Once: one cycle of every organization, for a person who waits for it."""

from __future__ import annotations

import threading

from syncsvc.configfile import Installation
from syncsvc.cycle import Cycle
from syncsvc.errors import HeldError, LeaseLostError
from syncsvc.organization import ConnectorTypes, open_organization
from syncsvc.remote.transport import Network
from syncsvc.runner import attempt
from syncsvc.state.database import Database
from syncsvc.tidings import Progress
from syncsvc.watch.report import CycleReport, Outcome


def run_once(
    installation: Installation,
    *,
    types: ConnectorTypes,
    progress: Progress,
    stop: threading.Event,
    full: bool = False,
    plan: str | None = None,
) -> list[CycleReport]:
    """Run one cycle of every organization, one after the other, and return what they came to.

    An organization whose turn did not come before `stop` was set is reported as stopped. Raises StateError
    where the state cannot be used.
    """
    reports = []
    network = Network(ca_file=installation.service.ca_file, stop=stop)
    with Database.open(installation.service.state_url, installation.service.lease) as database:
        for config in installation.organizations:
            if stop.is_set():
                reports.append(CycleReport(organization=config.name, cycle="", outcome=Outcome.STOPPED))
                continue
            try:
                opened = open_organization(config, database, types=types, network=network.branch())
            except (HeldError, LeaseLostError) as error:
                told = (f"no cycle was run: {error}",)
                reports.append(
                    CycleReport(organization=config.name, cycle="", outcome=Outcome.TRANSIENT, errors=told)
                )
                continue
            with opened as organization:
                cycle = Cycle(organization, stopping=stop.is_set, progress=progress, full=full, plan=plan)
                reports.append(attempt(organization, cycle))
    return reports
