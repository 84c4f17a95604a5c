"""The commands that run cycles, or would: `plan`, `once`, `sweep`, `run`."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType

import click

from syncsvc.cli.context import Context, Stores, as_json_option
from syncsvc.cli.exits import ATTENTION, OK, TRY_AGAIN, exit_code
from syncsvc.once import run_once
from syncsvc.plan import plan_installation
from syncsvc.start import start
from syncsvc.state.condition import used_by
from syncsvc.traces import exporting
from syncsvc.views import cycles as views
from syncsvc.views.plan import show_plans
from syncsvc.views.progress import bars
from syncsvc.watch.log import logger


@click.command()
@click.option("--show-values", is_flag=True, help="Show what the samples would send, for your eyes only.")
@as_json_option
@click.pass_obj
def plan(context: Context, *, show_values: bool, as_json: bool) -> None:
    """Show what a cycle would send: reads everything, sends nothing, moves no cursor."""
    installation = context.installation()
    with bars() as progress:
        plans = plan_installation(
            installation, types=context.types, progress=progress, show_values=show_values
        )
    show_plans(plans, as_json=as_json)
    if any(it.passing for it in plans):
        sys.exit(TRY_AGAIN)
    sys.exit(ATTENTION if any(it.errors or it.brakes or it.refusals for it in plans) else OK)


@click.command()
@click.option("--plan", "digest", help="Deliver the plan with this digest, and nothing else.")
@as_json_option
@click.pass_obj
def once(context: Context, *, digest: str | None, as_json: bool) -> None:
    """Run one cycle of every organization."""
    _once(context, full=False, digest=digest, as_json=as_json)


@click.command()
@as_json_option
@click.pass_obj
def sweep(context: Context, *, as_json: bool) -> None:
    """Run one cycle that reads every contact again, and finds what has vanished.

    Where a service runs the cycles, its next one does so instead.
    """
    by = used_by(context.installation().service.state_url)
    if by:
        with Stores(context) as stores:
            for store in stores.values():
                store.intake.ask_for_sweep()
        views.show_asked(list(stores), by, as_json=as_json)
    else:
        _once(context, full=True, digest=None, as_json=as_json)


def _once(context: Context, *, full: bool, digest: str | None, as_json: bool) -> None:
    installation = context.installation()
    if digest is not None and len(installation.organizations) > 1:
        raise click.UsageError("--plan goes with one organization's file: name it with -c")
    stop = threading.Event()
    _stop_on_signals(stop)
    with bars() as progress, _traces():
        reports = run_once(
            installation, types=context.types, progress=progress, stop=stop, full=full, plan=digest
        )
    views.show_reports(reports, as_json=as_json)
    sys.exit(exit_code(reports))


@click.command()
@click.pass_obj
def run(context: Context) -> None:
    """Run as a service: cycles on schedule, health and metrics, until SIGTERM or SIGINT.

    Where its state is on a PostgreSQL server that is away, it waits for it.
    """
    stop = threading.Event()
    _stop_on_signals(stop)  # before anything else: the first process of a container ignores them until then
    roster = context.roster()
    with _traces():
        daemon = start(roster, types=context.types, stop=stop)
        if daemon is not None:
            daemon.run()


def _stop_on_signals(stop: threading.Event) -> None:
    """Let SIGTERM and SIGINT set `stop`; a second Ctrl-C ends the process at once."""

    def ask(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
        # By another thread: set() takes a lock that the very wait this handler interrupts may hold.
        threading.Thread(target=stop.set, name="stop", daemon=True).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)


@contextmanager
def _traces() -> Iterator[None]:
    """Send traces where the environment says so, or tell why not."""
    with exporting(version("syncsvc")) as missing:
        if missing is not None:
            remedy = "pip install 'syncsvc[otel]', or unset OTEL_EXPORTER_OTLP_ENDPOINT"
            logger().warning("traces_off", reason=missing, remedy=remedy)
        yield
