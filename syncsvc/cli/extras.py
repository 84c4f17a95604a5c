"""The commands that need no organization: `schema`, `demo`."""

from __future__ import annotations

import json
import sys

import click

from syncsvc.cli.context import Context
from syncsvc.cli.exits import ATTENTION, OK
from syncsvc.schema import json_schema
from syncsvc.views.reference import reference


@click.command()
@click.option("--markdown", is_flag=True, help="Print the reference instead: every key, for people.")
@click.pass_obj
def schema(context: Context, *, markdown: bool) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    if markdown:
        click.echo(reference(context.settings), nl=False)
        return
    click.echo(json.dumps(json_schema(context.settings), indent=2))


@click.command()
@click.option("--contacts", type=click.IntRange(10, 100_000), default=500, help="Contacts in each CRM.")
@click.option(
    "--seconds",
    type=click.IntRange(5, 3600),
    help="Give up after this long.  [default: a minute or more, by contacts and faults]",
)
@click.option("--faults", is_flag=True, help="Let every service fail at random besides.")
@click.option("--keep", is_flag=True, help="Leave files and simulators, and say how to go on by hand.")
def demo(*, contacts: int, seconds: int | None, faults: bool, keep: bool) -> None:
    """Show the whole service at work, on this machine, with nothing else needed.

    The real service, against simulators of the three APIs. Its verdict is computed from what the simulators
    hold; the exit code is 0 only if every claim of it is true.
    """
    from syncsvc.sandbox.demo import Demo  # noqa: PLC0415 - a service never loads the simulators

    passed = Demo(contacts=contacts, seconds=seconds, faults=faults, keep=keep).run()
    sys.exit(OK if passed else ATTENTION)
