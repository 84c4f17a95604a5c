"""What a command ends with: the exit codes, and the error tree turned into them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from syncsvc.errors import ConfigurationError, OperatorError, StateError, SyncError
from syncsvc.watch.report import CycleReport, Outcome

OK, ATTENTION, TRY_AGAIN, CONFIGURATION = 0, 1, 75, 78


class Commands(click.Group):
    """Turns the error tree into exit codes, each with its lines of advice."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and end with the code of what it failed with."""
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            sys.exit(CONFIGURATION)
        except SyncError as error:
            click.echo(f"{'state: ' if isinstance(error, StateError) else ''}{error}", err=True)
            sys.exit(ATTENTION if isinstance(error, OperatorError) else TRY_AGAIN)


def exit_code(reports: Sequence[CycleReport]) -> int:
    """Return the exit code of cycles that came to this."""
    outcomes = {report.outcome for report in reports}
    if outcomes & {Outcome.TRANSIENT, Outcome.STOPPED}:
        return TRY_AGAIN
    return ATTENTION if outcomes & {Outcome.DEGRADED, Outcome.PAUSED} else OK
