"""The command that erases a person: `forget`."""

from __future__ import annotations

import sys

import click

from syncsvc.cli.context import Context, Stores, as_json_option
from syncsvc.cli.exits import ATTENTION, OK, TRY_AGAIN
from syncsvc.views import privacy as views
from syncsvc.watch.log import logger


@click.command()
@click.argument("email")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@click.pass_obj
def forget(context: Context, email: str, *, yes: bool, as_json: bool) -> None:
    """Erase a person from the state; the points stay in the books under a pseudonym.

    Erase it in the CRM first: a contact that is still there would come back with the next sweep. The wallet's
    own member, logs and backups are not touched.
    """
    key = email.strip().casefold()
    opened = Stores(context)
    with opened as stores:
        found = {name: traces for name, store in stores.items() if (traces := store.erasure.traces(key))}
        if not found:
            opened.database.scrub()  # an erasure before may have been kept from it
            click.echo("nobody is known by that email: there is nothing to forget", err=True)
            sys.exit(ATTENTION)
        if any(trace.obstacles for traces in found.values() for trace in traces):
            views.show_obstacles(found)
            sys.exit(ATTENTION)
        if not yes:
            click.confirm(views.question(found), abort=True, err=True)
        done = {name: stores[name].erasure.forget(key) for name in found}
        for name, traces in done.items():
            pseudonyms = [trace.pseudonym for trace in traces]
            logger().info("person_forgotten", organization=name, members=pseudonyms)
        scrubbed, on_server = opened.database.scrub(), opened.database.leases.shared
    views.show_forgotten(done, scrubbed=scrubbed, on_server=on_server, as_json=as_json)
    sys.exit(OK if scrubbed else TRY_AGAIN)
