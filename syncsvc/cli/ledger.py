"""The command over the points ledger: `books`."""

from __future__ import annotations

import sys
from contextlib import ExitStack, closing

import click

from syncsvc.cli.context import Context, Stores, as_json_option
from syncsvc.cli.exits import ATTENTION, OK
from syncsvc.state.accounts import By
from syncsvc.views import ledger as views

_LINES = 50


@click.command()
@click.option("--by", type=click.Choice([it.value for it in By]), help="List the books by this.")
@click.option("--verify", is_flag=True, help="Recompute them from their rows; exits 1 on a difference.")
@click.option(
    "--limit",
    type=click.IntRange(0),
    help=f"So many lines of --by, the newest first; 0 for all.  [default: {_LINES}, all with --json]",
)
@click.option("--show-values", is_flag=True, help="Name members by their email, for your eyes only.")
@as_json_option
@click.pass_obj
def books(
    context: Context, *, by: str | None, verify: bool, limit: int | None, show_values: bool, as_json: bool
) -> None:
    """Show the points ledger: what was earned and credited, on what proof, and what is not settled.

    Works beside a running service.
    """
    if verify and by is not None:
        raise click.UsageError("--verify goes without --by: it verifies everything")
    most = (limit or None) if limit is not None or as_json else _LINES
    with Stores(context) as stores:
        if verify:
            balance = views.show_differences(
                {name: store.audit.differences() for name, store in stores.items()}, as_json=as_json
            )
            sys.exit(OK if balance else ATTENTION)
        if by is None:
            found = {name: store.accounts.summary() for name, store in stores.items()}
            views.show_summaries(found, as_json=as_json)
            return
        with ExitStack() as reading:
            lines = {
                name: reading.enter_context(closing(store.accounts.rows(By(by), show_values=show_values)))
                for name, store in stores.items()
            }
            views.show_books(lines, by=By(by), limit=most, as_json=as_json)
