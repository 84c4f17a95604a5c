"""The commands that tell how things stand: `check`, `status`, `explain`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from syncsvc.check import SERVICE, Findings, check_installation, of_files
from syncsvc.cli.context import Context, Stores, as_json_option
from syncsvc.cli.exits import ATTENTION, CONFIGURATION, OK, TRY_AGAIN
from syncsvc.configfile import Installation
from syncsvc.errors import StateError
from syncsvc.explanation import explain as explain_member
from syncsvc.explanation import unknown
from syncsvc.state.condition import refusal
from syncsvc.state.witness import WitnessStanding
from syncsvc.views import standing as views
from syncsvc.views.lives import show_explanations
from syncsvc.views.witness import show_witnesses, witness_problems


@click.command()
@click.option("--offline", is_flag=True, help="Look at the files only: no secret is read, nothing is asked.")
@click.option("--show-values", is_flag=True, help="Show what differs in failing samples, for your eyes only.")
@as_json_option
@click.pass_obj
def check(context: Context, *, offline: bool, show_values: bool, as_json: bool) -> None:
    """Verify configuration, credentials and every mapped and written field; names each fix."""
    survey = context.survey(read_secrets=not offline)
    installation, broken = survey.usable, of_files(survey.broken)
    found = check_installation(installation, types=context.types, offline=offline, show_values=show_values)
    for name, it in broken.items():
        found.setdefault(name, Findings()).problems += it.problems
    if SERVICE in found:
        found[SERVICE] = found.pop(SERVICE)  # last, as it is of all
    standings = {} if offline else _witnesses(installation)
    now = datetime.now(UTC)
    for name, them in standings.items():
        found[name].problems += [it for witness in them or () for it in witness_problems(witness, now)]
    views.show_findings(found, as_json=as_json)
    if not as_json:
        show_witnesses(standings)
    if broken:
        sys.exit(CONFIGURATION)
    if any(it.problems for it in found.values()):
        sys.exit(ATTENTION)
    sys.exit(TRY_AGAIN if any(it.passing for it in found.values()) else OK)


def _witnesses(installation: Installation) -> dict[str, list[WitnessStanding] | None]:
    """Return what is known of each configured witness, None where there is no state to know it from."""
    names = [it.name for it in installation.organizations if it.wallet.witness is not None]
    if not names:
        return {}
    try:
        with Stores(installation) as stores:
            return {name: stores[name].accounts.witnesses() for name in names}
    except StateError:
        return dict.fromkeys(names)


@click.command()
@as_json_option
@click.pass_obj
def status(context: Context, *, as_json: bool) -> None:
    """Show where every connector stands, and what is in doubt, held or quarantined."""
    opened = Stores(context)
    with opened as stores:
        found = {name: views.Standing.of(store) for name, store in stores.items()}
    views.show_status(found, as_json=as_json, now=datetime.now(UTC))
    if refused := refusal(opened.url):
        click.echo(f"state: {refused}", err=True)
    waits = refused or opened.broken or any(standing.needs_attention for standing in found.values())
    sys.exit(ATTENTION if waits else OK)


@click.command()
@click.argument("email")
@as_json_option
@click.pass_obj
def explain(context: Context, email: str, *, as_json: bool) -> None:
    """Say why a member is or is not up to date, then tell its life.

    What the CRM said, what was sent, what proved it, and what was written back.
    """
    key, now = email.strip().casefold(), datetime.now(UTC)
    opened = Stores(context)
    with opened as stores:
        found = {it.name: explain_member(stores[it.name], it, key, now=now) for it in opened.organizations}
        known = any(found.values())
        why = {} if known else {name: unknown(store) for name, store in stores.items()}
    show_explanations(found, why, as_json=as_json)
    sys.exit(OK if known else ATTENTION)
