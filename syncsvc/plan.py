"""Plan: what a cycle would send, found out on a private copy of the state by the code that would send it.

The plan itself is remembered in the state, so that `once --plan` can say what has changed since.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from syncsvc.config import OrganizationConfig
from syncsvc.configfile import Installation
from syncsvc.cycle import Cycle
from syncsvc.errors import StateError
from syncsvc.organization import ConnectorTypes, open_organization
from syncsvc.remote.transport import Network
from syncsvc.rules.brakes import Totals
from syncsvc.state.database import Database
from syncsvc.state.plans import Planned, Plans
from syncsvc.state.preview import Carried, Effect, Skipped
from syncsvc.state.store import known_organization, open_store
from syncsvc.tidings import Progress
from syncsvc.watch.log import bound
from syncsvc.watch.report import Outcome

_MOST_REFUSALS = 1000


@dataclass(frozen=True, slots=True)
class Plan:
    """What one organization's next cycle would do; `digest` covers every row and every point.

    `totals` are of all that is due, `effects` and `fields` of what the brakes let through: the rows that the
    digest covers. `refusals` are the `quarantined` contacts that would be left out, each with its reason, the
    newest 1,000; `skipped` tells all of them by reason. `brakes` are what would be held;
    `errors` what kept something from being read, and `passing` whether trying again may mend that. `adopted`
    are points that would count as credited without being awarded, as `first_run` says. `forgotten` is why the
    plan is not remembered, None where it is.
    """

    organization: str
    digest: str
    read: int
    excluded: int
    gone: int
    totals: Totals
    effects: tuple[Effect, ...]
    fields: tuple[Carried, ...]
    skipped: tuple[Skipped, ...]
    quarantined: int
    first_run: str
    adopted: int
    refusals: tuple[dict[str, Any], ...]
    brakes: tuple[str, ...]
    errors: tuple[str, ...]
    passing: bool
    forgotten: str | None


def plan_installation(
    installation: Installation, *, types: ConnectorTypes, progress: Progress, show_values: bool = False
) -> list[Plan]:
    """Return the plan of every organization. Sends nothing and moves no cursor; the plans are remembered.

    `show_values` lets samples show what would be sent of a person; else they are record ids.
    Raises StateError where the state cannot be used.
    """
    network = Network(ca_file=installation.service.ca_file)
    with _Memory(installation) as memory, Database.scratch(installation.service.state_url) as database:
        return [
            _plan(
                config,
                database,
                memory,
                types=types,
                network=network.branch(),
                progress=progress,
                show_values=show_values,
            )
            for config in installation.organizations
        ]


def _plan(
    config: OrganizationConfig,
    database: Database,
    memory: _Memory,
    *,
    types: ConnectorTypes,
    network: Network,
    progress: Progress,
    show_values: bool,
) -> Plan:
    with (
        bound(plan=True),  # else what is logged reads like a cycle's
        open_organization(config, database, types=types, network=network) as organization,
    ):
        cycle = Cycle(organization, progress=progress, send=False)
        adopted = organization.store.accounts.adopted()
        report = cycle.run()
        store, allowed = organization.store, cycle.allowed
        preview = store.preview
        totals, digest = store.outbox.totals(allowed.most_points), store.outbox.digest(allowed)
        held = [hold for hold in store.holds.open() if hold.released_by is None]
        forgotten = memory.keep(
            config,
            digest,
            store.outbox.planned(allowed),
            members=totals.members,
            points=totals.points,
            brakes=", ".join(sorted(hold.brake for hold in held)),
            now=network.now(),
        )
        return Plan(
            organization=config.name,
            digest=digest,
            read=report.read,
            excluded=report.excluded,
            gone=report.gone,
            totals=totals,
            effects=preview.effects(allowed, show_values=show_values),
            fields=preview.fields(allowed),
            skipped=preview.skipped(),
            quarantined=store.reports.quarantined(),
            first_run=config.first_run,
            adopted=store.accounts.adopted() - adopted,
            refusals=tuple(store.reports.refusals(_MOST_REFUSALS)),
            brakes=tuple(f"{hold.brake}: {hold.detail}" for hold in held),
            errors=report.errors,
            passing=report.outcome is Outcome.TRANSIENT,
            forgotten=forgotten,
        )


class _Memory:
    """The state itself, beside a service that may be running, in which plans are remembered.

    Where there is none yet it is made, so that the copy to plan on has its key. Where it cannot be written,
    plans are made all the same.
    """

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._stack = ExitStack()
        self._database: Database | None = None
        self._trouble: str | None = None

    def __enter__(self) -> Self:
        url = self._installation.service.state_url
        try:
            if not Database.exists(url):
                with Database.open(url) as made:
                    for config in self._installation.organizations:
                        open_store(made, config)
            self._database = self._stack.enter_context(Database.open_beside(url))
        except StateError as error:
            self._trouble = str(error)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def keep(
        self,
        config: OrganizationConfig,
        digest: str,
        rows: Iterable[Planned],
        *,
        members: int,
        points: int,
        brakes: str,
        now: datetime,
    ) -> str | None:
        """Remember a plan; returns why it is not, or None."""
        if self._database is None:
            return self._trouble
        try:
            organization_id = known_organization(self._database, config)
            if organization_id is None:
                return "the state does not know this organization yet: run a cycle first"
            plans = Plans(self._database.of(organization_id), organization_id)
            plans.remember(digest, rows, members=members, points=points, brakes=brakes, now=now)
        except StateError as error:
            return str(error)
        return None
