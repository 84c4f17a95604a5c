"""The overview: what the status page shows of a running service, gathered when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from syncsvc.remote.transport import USER_AGENT
from syncsvc.runner import Runner
from syncsvc.settings import Secret
from syncsvc.state.replicas import Holder
from syncsvc.state.store import Store
from syncsvc.watch.log import redact_secret
from syncsvc.watch.page import MOST_IN_FULL, ORGANIZATIONS, Card, Tenure, detail, overview, referral

REFUSALS = 20
"""How many refusals are shown of an organization, the newest."""


class Overview:
    """The status page of a service: `/`, and one page of each organization."""

    def __init__(
        self,
        runners: Callable[[], Collection[Runner]],
        facts: Callable[[], Mapping[str, Mapping[str, Any]]],
        token: Secret | None,
        elsewhere: Callable[[], Mapping[str, Holder | None]] = dict,
    ) -> None:
        """Show these organizations, with the facts of /readyz, to whoever bears the token.

        Of those that are run `elsewhere` it shows by whom, None for nobody yet.
        """
        self._runners = runners
        self._facts = facts
        self._token = token
        self._elsewhere = elsewhere

    @property
    def token(self) -> str | None:
        """The token that the page is shown for, read anew each time."""
        if self._token is None:
            return None
        token = self._token.read()
        redact_secret(token)
        return token

    def render(self, path: str) -> bytes | None:
        """Return the HTML under a path, None where there is none."""
        runners = {it.name: it for it in self._runners()}
        facts, now, version = self._facts(), datetime.now(UTC), USER_AGENT.partition("/")[2]
        elsewhere = {name: _tenure(it) for name, it in self._elsewhere().items()}
        if path == "/":
            whole = len(runners) <= MOST_IN_FULL
            cards = [_card(it, facts, whole=whole) for it in runners.values()]
            return overview(cards, version=version, now=now, elsewhere=elsewhere)
        name = unquote(path.removeprefix(ORGANIZATIONS))
        if not path.startswith(ORGANIZATIONS) or name not in runners.keys() | elsewhere.keys():
            return None
        if name not in runners:
            return referral(name, elsewhere[name], version=version, now=now)
        return detail(_card(runners[name], facts, whole=True), version=version, now=now)


def _card(runner: Runner, facts: Mapping[str, Mapping[str, Any]], *, whole: bool) -> Card:
    own = facts.get(runner.name, {})
    return Card(
        name=runner.name,
        ready=bool(own.get("ready")),
        facts=own,
        turns=tuple(runner.health.turns),
        pauses=_pauses(runner) if whole else {},
        holds=_holds(runner.store) if whole else {},
        refusals=runner.store.reports.refusals(REFUSALS) if whole else (),
        tenure=_tenure(runner.lease.holder),
    )


def _tenure(holder: Holder | None) -> Tenure | None:
    return None if holder is None else Tenure(holder.name, holder.since, holder.until)


def _pauses(runner: Runner) -> dict[str, str]:
    told = {}
    for it in runner.store.pauses.open():
        why = f": {it.reason}" if it.reason else ""
        command = f"syncsvc resume -o {runner.name}" + (f" {it.connector}" if it.connector else "")
        told[
            f"{it.connector or 'everything'} was paused by {it.by} at {it.since:%Y-%m-%d %H:%M} UTC{why}"
        ] = command
    return told


def _holds(store: Store) -> dict[int, str]:
    return {it.id: it.detail for it in store.holds.open() if it.released_by is None}
