"""The command that prepares a CRM: `setup`."""

from __future__ import annotations

import sys

import click

from syncsvc.cli.context import Context, as_json_option
from syncsvc.cli.exits import ATTENTION
from syncsvc.remote.connector import Missing
from syncsvc.remote.transport import Network
from syncsvc.setup import set_up
from syncsvc.views.standing import show_setup


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@click.pass_obj
def setup(context: Context, *, yes: bool, as_json: bool) -> None:
    """Make the fields that are written back in the CRMs, where they are missing; asks before each."""
    installation = context.installation()
    network = Network(ca_file=installation.service.ca_file)

    def agree(connector: str, missing: Missing) -> bool:
        return yes or click.confirm(f"{connector}: make the {missing.description}?", err=True)

    found = {
        it.name: set_up(it, types=context.types, network=network, agree=agree)
        for it in installation.organizations
    }
    show_setup(found, as_json=as_json)
    sys.exit(0 if all(step.done for steps in found.values() for step in steps) else ATTENTION)
