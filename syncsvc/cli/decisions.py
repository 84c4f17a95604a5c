"""The commands by which a person decides: `release`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from syncsvc.cli.context import Context, Stores, as_json_option, user
from syncsvc.cli.exits import ATTENTION
from syncsvc.views import decisions as views
from syncsvc.views.standing import Standing


@click.command()
@click.argument("hold", type=int, required=False)
@click.option("--by", default=user, show_default="the user", help="Who lets it go; it is recorded.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@click.pass_obj
def release(context: Context, hold: int | None, *, by: str, yes: bool, as_json: bool) -> None:
    """Let what a brake holds go, once; without HOLD, list what is held."""
    with Stores(context) as stores:
        held = {name: Standing.of(store).holds for name, store in stores.items()}
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
