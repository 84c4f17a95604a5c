"""The commands: `syncsvc -c PATH COMMAND`.

Exit codes: 0 ok · 1 something is held, quarantined or failed · 2 usage · 75 try again · 78 configuration.
Standard output is what was asked for, and with --json nothing but JSON; logs and errors go to standard error.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import click

from syncsvc.cli import (
    cycles,
    decisions,
    extras,
    interventions,
    ledger,
    preparation,
    privacy,
    standing,
    states,
)
from syncsvc.cli.context import Context
from syncsvc.cli.exits import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c",
    "--config",
    "path",
    type=click.Path(path_type=Path),
    envvar="SYNCSVC_CONFIG",
    help="One organization file, or a directory of them.  [env: SYNCSVC_CONFIG]",
)
@click.version_option(version("syncsvc"), prog_name="syncsvc")
@click.pass_context
def main(context: click.Context, path: Path | None) -> None:
    """Keep a CRM and a Wallet App loyalty programme in step, and never award a point twice."""
    context.obj = Context(path)


for _command in (
    standing.check,
    preparation.setup,
    standing.status,
    standing.explain,
    cycles.plan,
    cycles.once,
    cycles.sweep,
    cycles.run,
    decisions.doubt,
    decisions.release,
    interventions.quarantine,
    interventions.pause,
    interventions.resume,
    ledger.books,
    privacy.forget,
    states.state,
    extras.schema,
    extras.demo,
):
    main.add_command(_command)
