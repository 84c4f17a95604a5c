"""The commands: `syncsvc -c PATH COMMAND`.

Exit codes: 0 ok · 1 something is held, quarantined or failed · 2 usage · 75 try again · 78 configuration.
Standard output is what was asked for, and with --json nothing but JSON; logs and errors go to standard error.
"""

from __future__ import annotations

import getpass
import json
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from syncsvc import views
from syncsvc.check import check_installation
from syncsvc.config import ServiceConfig
from syncsvc.configfile import Installation, json_schema, load
from syncsvc.daemon import Daemon, run_once, stop_on_signals
from syncsvc.errors import ConfigurationError, OperatorError, StateError, SyncError
from syncsvc.organization import ConnectorTypes
from syncsvc.plan import plan_installation
from syncsvc.plugins import InstalledSettings, InstalledTypes
from syncsvc.settings import Settings, secrets_of
from syncsvc.state.database import Database
from syncsvc.state.store import Store, open_store
from syncsvc.watch import log
from syncsvc.watch.report import CycleReport, Outcome

OK, ATTENTION, TRY_AGAIN, CONFIGURATION = 0, 1, 75, 78

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of tables.")


class _Commands(click.Group):
    """Turns the error tree into exit codes, each with its lines of advice."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as error:
            for problem in error.problems:
                click.echo(problem, err=True)
            sys.exit(CONFIGURATION)
        except SyncError as error:
            click.echo(f"{'state: ' if isinstance(error, StateError) else ''}{error}", err=True)
            sys.exit(ATTENTION if isinstance(error, OperatorError) else TRY_AGAIN)


class _Context:
    """What commands share: the configuration, read when a command asks for it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @cached_property
    def types(self) -> ConnectorTypes:
        return InstalledTypes()

    @property
    def settings(self) -> Mapping[str, type[Settings]]:
        return InstalledSettings(self.types)

    def installation(self, *, read_secrets: bool = True, shows_result: bool = True) -> Installation:
        """Return what is configured, with logging set up for it and its secrets kept out of every line.

        At a terminal, a command that `shows_result` leaves the log to warnings, unless asked for more.
        """
        if self._path is None:
            raise click.UsageError("name the configuration: -c FILE, -c DIRECTORY, or SYNCSVC_CONFIG")
        installation = load(self._path, self.settings, read_secrets=read_secrets)
        _log(installation.service, quietly=shows_result and sys.stderr.isatty())
        for organization in installation.organizations if read_secrets else ():
            for secret in secrets_of(organization):
                log.redact_secret(secret.read())
        return installation


def _log(service: ServiceConfig, *, quietly: bool) -> None:
    level = "warning" if quietly and service.log_level == "info" else service.log_level
    log.configure(format=service.log_format, level=level)


def _exit_code(reports: Sequence[CycleReport]) -> int:
    outcomes = {report.outcome for report in reports}
    if outcomes & {Outcome.TRANSIENT, Outcome.STOPPED}:
        return TRY_AGAIN
    return ATTENTION if Outcome.DEGRADED in outcomes else OK


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has a number only
        return f"uid {os.getuid()}"


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
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
    context.obj = _Context(path)


@main.command()
@click.option("--offline", is_flag=True, help="Look at the files only: no secret is read, nothing is asked.")
@_as_json
@click.pass_obj
def check(context: _Context, *, offline: bool, as_json: bool) -> None:
    """Verify configuration, credentials and every mapped and written field; names each fix."""
    installation = context.installation(read_secrets=not offline)
    found = check_installation(installation, types=context.types, offline=offline)
    views.show_problems({name: it.all for name, it in found.items()}, as_json=as_json)
    if any(it.problems for it in found.values()):
        sys.exit(ATTENTION)
    sys.exit(TRY_AGAIN if any(it.passing for it in found.values()) else OK)


@main.command()
@_as_json
@click.pass_obj
def plan(context: _Context, *, as_json: bool) -> None:
    """Show what a cycle would send: reads everything, sends nothing, moves no cursor."""
    installation = context.installation()
    with views.progress() as progress:
        plans = plan_installation(installation, types=context.types, progress=progress)
    views.show_plans(plans, as_json=as_json)
    if any(it.passing for it in plans):
        sys.exit(TRY_AGAIN)
    sys.exit(ATTENTION if any(it.errors or it.brakes or it.refusals for it in plans) else OK)


@main.command()
@click.option("--plan", "digest", help="Deliver the plan with this digest, and nothing else.")
@_as_json
@click.pass_obj
def once(context: _Context, *, digest: str | None, as_json: bool) -> None:
    """Run one cycle of every organization."""
    _once(context, full=False, digest=digest, as_json=as_json)


@main.command()
@_as_json
@click.pass_obj
def sweep(context: _Context, *, as_json: bool) -> None:
    """Run one cycle that reads every contact again, and finds what has vanished."""
    _once(context, full=True, digest=None, as_json=as_json)


def _once(context: _Context, *, full: bool, digest: str | None, as_json: bool) -> None:
    installation = context.installation()
    if digest is not None and len(installation.organizations) > 1:
        raise click.UsageError("--plan goes with one organization's file: name it with -c")
    stop = threading.Event()
    stop_on_signals(stop)
    with views.progress() as progress:
        reports = run_once(
            installation, types=context.types, progress=progress, stop=stop, full=full, plan=digest
        )
    views.show_reports(reports, as_json=as_json)
    sys.exit(_exit_code(reports))


@main.command()
@click.pass_obj
def run(context: _Context) -> None:
    """Run as a service: cycles on schedule, health and metrics, until SIGTERM or SIGINT."""
    stop = threading.Event()
    stop_on_signals(stop)  # before anything else: the first process of a container ignores them until then
    Daemon(context.installation(shows_result=False), types=context.types, stop=stop).run()


@main.command()
@_as_json
@click.pass_obj
def status(context: _Context, *, as_json: bool) -> None:
    """Show where every connector stands, and what is in doubt, held or quarantined."""
    with _Stores(context) as stores:
        found = {name: views.Standing.of(store) for name, store in stores.items()}
    views.show_status(found, as_json=as_json, now=datetime.now(UTC))
    sys.exit(ATTENTION if any(standing.needs_attention for standing in found.values()) else OK)


@main.command()
@click.argument("email")
@_as_json
@click.pass_obj
def explain(context: _Context, email: str, *, as_json: bool) -> None:
    """Tell the life of one member.

    What the CRM said, what was sent, what proved it, and what was written back.
    """
    key = email.strip().casefold()
    with _Stores(context) as stores:
        lives = [(name, life) for name, store in stores.items() for life in store.reports.lives(key)]
    views.show_lives(lives, as_json=as_json)
    sys.exit(OK if lives else ATTENTION)


@main.command()
@click.argument("hold", type=int, required=False)
@click.option("--by", default=_user, show_default="the user", help="Who lets it go; it is recorded.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_as_json
@click.pass_obj
def release(context: _Context, hold: int | None, *, by: str, yes: bool, as_json: bool) -> None:
    """Let what a brake holds go, once; without HOLD, list what is held."""
    with _Stores(context) as stores:
        held = {name: views.Standing.of(store).holds for name, store in stores.items()}
        if hold is None:
            views.show_holds(held, as_json=as_json)
            return
        for name, holds in held.items():
            for chosen in (it for it in holds if it.id == hold):
                if not yes:
                    click.confirm(f"{name}: {chosen.detail}. Let it go once?", abort=True, err=True)
                if stores[name].holds.release(chosen.id, by=by, now=datetime.now(UTC)):
                    views.show_release(chosen, by=by, as_json=as_json)
                    return
    click.echo(f"nothing is held under {hold}: `syncsvc release` lists what is", err=True)
    sys.exit(ATTENTION)


class _Stores:
    """The state of every organization by name, opened beside a service that may be running."""

    def __init__(self, context: _Context) -> None:
        self._installation = context.installation(read_secrets=False)
        self._database = Database.open_beside(self._installation.service.state)

    def __enter__(self) -> dict[str, Store]:
        return {it.name: open_store(self._database, it) for it in self._installation.organizations}

    def __exit__(self, *_: object) -> None:
        self._database.close()


@main.command()
@click.pass_obj
def schema(context: _Context) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    click.echo(json.dumps(json_schema(context.settings), indent=2))


@main.command()
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
