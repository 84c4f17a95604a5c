"""The commands: `syncsvc -c PATH COMMAND`.

Exit codes: 0 ok · 1 something is held, quarantined or failed · 2 usage · 75 try again · 78 configuration.
"""

from __future__ import annotations

import getpass
import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Any, TypeVar

import click

from syncsvc import views
from syncsvc.check import check_installation
from syncsvc.config import ServiceConfig
from syncsvc.configfile import Installation, json_schema, load
from syncsvc.daemon import Daemon, run_once
from syncsvc.errors import ConfigurationError, StateError, SyncError
from syncsvc.organization import ConnectorTypes
from syncsvc.plan import plan_installation
from syncsvc.sandbox.demo import Demo
from syncsvc.settings import Settings, secrets_of
from syncsvc.state.database import Database
from syncsvc.state.store import open_store
from syncsvc.watch import log
from syncsvc.watch.report import CycleReport, Outcome

OK, ATTENTION, TRY_AGAIN, CONFIGURATION = 0, 1, 75, 78

F = TypeVar("F", bound=Callable[..., Any])

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs instead of tables.")


def connector_types() -> ConnectorTypes:
    """Return every installed connector type by the name of its entry point."""
    return {point.name: point.load() for point in entry_points(group="syncsvc.connectors")}


def _settings(types: ConnectorTypes) -> dict[str, type[Settings]]:
    return {name: connector.Settings for name, connector in types.items()}


@contextmanager
def _exits() -> Iterator[None]:
    """Turn the error tree into exit codes and one line of advice each."""
    try:
        yield
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(problem, err=True)
        sys.exit(CONFIGURATION)
    except StateError as error:
        click.echo(f"state: {error}", err=True)
        sys.exit(TRY_AGAIN)
    except SyncError as error:
        click.echo(str(error), err=True)
        sys.exit(TRY_AGAIN)


class _Context:
    """What commands share: the configuration, loaded when the first of them asks."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.types = connector_types()

    def load(self, *, read_secrets: bool = True) -> Installation:
        if self._path is None:
            raise click.UsageError("name the configuration: -c FILE, -c DIRECTORY, or SYNCSVC_CONFIG")
        return load(self._path, _settings(self.types), read_secrets=read_secrets)

    def installation(self) -> Installation:
        installation = self.load()
        _log(installation.service)
        for organization in installation.organizations:
            for secret in secrets_of(organization):
                log.redact_secret(secret.read())
        return installation


def _log(service: ServiceConfig) -> None:
    log.configure(format=service.log_format, level=service.log_level)


def _exit_code(reports: list[CycleReport]) -> int:
    outcomes = {report.outcome for report in reports}
    if Outcome.TRANSIENT in outcomes or Outcome.STOPPED in outcomes:
        return TRY_AGAIN
    return ATTENTION if Outcome.DEGRADED in outcomes else OK


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
    with _exits():
        installation = context.load(read_secrets=not offline)
        _log(installation.service)
        found = check_installation(installation, types=context.types, offline=offline)
    views.show_problems(found, as_json=as_json)
    sys.exit(ATTENTION if any(found.values()) else OK)


@main.command()
@_as_json
@click.pass_obj
def plan(context: _Context, *, as_json: bool) -> None:
    """Show what a cycle would send: reads everything, sends nothing, moves no cursor."""
    with _exits():
        installation = context.installation()
        with views.progress() as progress:
            plans = plan_installation(installation, types=context.types, progress=progress)
    views.show_plans(plans, as_json=as_json)
    sys.exit(
        TRY_AGAIN if any(it.errors for it in plans) else ATTENTION if any(it.brakes for it in plans) else OK
    )


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
    with _exits():
        installation = context.installation()
        if digest is not None and len(installation.organizations) > 1:
            raise click.UsageError("--plan goes with one organization's file: name it with -c")
        with views.progress() as progress:
            reports = run_once(installation, types=context.types, progress=progress, full=full, plan=digest)
    views.show_reports(reports, as_json=as_json)
    sys.exit(_exit_code(reports))


@main.command()
@click.pass_obj
def run(context: _Context) -> None:
    """Run as a service: cycles on schedule, health and metrics, until SIGTERM or SIGINT."""
    with _exits():
        daemon = Daemon(context.installation(), types=context.types)
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: daemon.stop())
        daemon.run()


@main.command()
@_as_json
@click.pass_obj
def status(context: _Context, *, as_json: bool) -> None:
    """Show where every connector stands, and what is in doubt, held or quarantined."""
    with _exits():
        installation = context.load(read_secrets=False)
        with Database.open_beside(installation.service.state) as database:
            found = {
                organization.name: views.Standing.of(open_store(database, organization))
                for organization in installation.organizations
            }
    views.show_status(found, as_json=as_json, now=datetime.now(UTC))
    sys.exit(ATTENTION if any(standing.needs_attention for standing in found.values()) else OK)


@main.command()
@click.argument("email")
@_as_json
@click.pass_obj
def explain(context: _Context, email: str, *, as_json: bool) -> None:
    """Tell the life of one member: what the CRM said, what was sent, what proved it, what was written back."""
    with _exits():
        installation = context.load(read_secrets=False)
        with Database.open_beside(installation.service.state) as database:
            lives = [
                (organization.name, life)
                for organization in installation.organizations
                for life in open_store(database, organization).reports.lives(email.strip().casefold())
            ]
    views.show_lives(lives, as_json=as_json)
    sys.exit(OK if lives else ATTENTION)


@main.command()
@click.argument("hold", type=int, required=False)
@click.option(
    "--by", default=getpass.getuser, show_default="the user", help="Who lets it go; it is recorded."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def release(context: _Context, hold: int | None, *, by: str, yes: bool) -> None:
    """Let what a brake holds go, once; without HOLD, list what is held."""
    with _exits():
        installation = context.load(read_secrets=False)
        with Database.open_beside(installation.service.state) as database:
            for organization in installation.organizations:
                store = open_store(database, organization)
                held = [it for it in store.holds.open() if it.released_by is None]
                chosen = next((it for it in held if it.id == hold), None)
                if hold is None:
                    views.show_holds(organization.name, held)
                elif chosen is not None:
                    if not yes:
                        click.confirm(f"{organization.name}: {chosen.detail}. Let it go once?", abort=True)
                    store.holds.release(chosen.id, by=by, now=datetime.now(UTC))
                    click.echo(f"released by {by}: the next cycle delivers it")
                    return
    if hold is not None:
        click.echo(f"nothing is held under {hold}: `syncsvc release` lists what is", err=True)
        sys.exit(ATTENTION)


@main.command()
@click.pass_obj
def schema(context: _Context) -> None:
    """Print the JSON Schema of the configuration, for editors."""
    click.echo(json.dumps(json_schema(_settings(context.types)), indent=2))


@main.command()
@click.option("--contacts", type=click.IntRange(10, 100_000), default=500, help="Contacts in each CRM.")
@click.option("--seconds", type=click.IntRange(5, 3600), default=30, help="Give up after this long.")
@click.option("--faults", is_flag=True, help="Let every service fail at random besides.")
@click.option("--keep", is_flag=True, help="Leave files and simulators, and say how to go on by hand.")
def demo(*, contacts: int, seconds: int, faults: bool, keep: bool) -> None:
    """Show the whole service against simulators of the three APIs, on this machine, with nothing else needed."""
    with _exits():
        passed = Demo(contacts=contacts, seconds=seconds, faults=faults, keep=keep).run()
    sys.exit(OK if passed else ATTENTION)
