"""The commands over the state as a whole: `state backup`, `restore`, `copy`, `salvage`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from syncsvc.cli.context import Context, as_json_option, user
from syncsvc.cli.exits import ATTENTION, OK
from syncsvc.config import OrganizationConfig
from syncsvc.errors import StateError
from syncsvc.state.backups import backing_up, put_in_place
from syncsvc.state.condition import nothing_to_copy, used_by
from syncsvc.state.copying import copy_state
from syncsvc.state.database import Database
from syncsvc.state.restoration import put_back
from syncsvc.state.salvage import salvage as salvage_state
from syncsvc.state.store import claim_all, known_organization, not_configured, open_store, register
from syncsvc.stateurl import state_problem
from syncsvc.views import states as views
from syncsvc.watch.log import logger


@click.group()
def state() -> None:
    """Look after the state as a whole."""


def _a_state(_context: click.Context, _parameter: click.Parameter, url: str | None) -> str | None:
    if url is not None and (problem := state_problem(url, secret=False)):
        raise click.BadParameter(f"it {problem}")
    return url


@state.command()
@click.argument("source", metavar="FROM", callback=_a_state)
@click.argument("target", metavar="[TO]", required=False, callback=_a_state)
@as_json_option
@click.pass_obj
def copy(context: Context, source: str, target: str | None, *, as_json: bool) -> None:
    """Copy the state FROM one storage TO another, which holds nothing yet.

    TO is what the configuration names, unless it is given: sqlite:///FILE, or
    postgresql+psycopg://USER@HOST/DATABASE. Stop the service first, and start it on the copy: no cycle runs
    on the original any more, which does not know what is sent since. Where FROM is a backup, none runs on
    the copy before `syncsvc state restore`. The books of every configured organization are verified on both.
    """
    installation = context.installation(read_secrets=False)
    url = target or installation.service.state_url
    if url == source:
        raise click.UsageError("FROM and TO are the same state")
    if why := nothing_to_copy(source):
        raise click.UsageError(f"there is no state in FROM: {why}")
    if by := used_by(source):
        raise StateError(
            f"FROM is in use by {', '.join(by)}, which may run cycles on it: stop it first; one that was "
            "killed is forgotten within service.lease"
        )
    old, newest = Database.open_original(source)
    with old, Database.open_for_copy(url, old) as new:
        claim_all(old)
        others = not_configured(old, installation.organizations)
        if others and not any(known_organization(old, it) for it in installation.organizations):
            raise click.UsageError(
                f"FROM is the state of others ({', '.join(others)}): name their configuration with -c; their "
                "books are verified on both"
            )
        with views.progress() as told:
            copied = copy_state(old, new, told)
        balance = {
            side: _differences(database, installation.organizations)
            for side, database in (("original", old), ("copy", new))
        }
        differences = any(count for of_side in balance.values() for count in of_side.values())
        if not newest and copied["batch"]:
            new.bar(f"was copied from {old.place}, beside which no .gate says that it is the newest, and")
        elif newest and not differences:
            old.bar(f"was copied to {new.place}, where more may have been sent since, and")
    views.show_copied(copied, balance, others, as_json=as_json)
    sys.exit(ATTENTION if differences else OK)


@state.command()
@click.argument("new", type=click.Path(path_type=Path, dir_okay=False))
@as_json_option
@click.pass_obj
def salvage(context: Context, new: Path, *, as_json: bool) -> None:
    """Copy what can be read of a damaged state file into the file NEW, and say whether anything is missing.

    Stop the service first; the damaged file stays as it is. Exits 0 only where a service may go on with NEW
    in its place: nothing is missing, and the books balance.
    """
    installation = context.installation(read_secrets=False)
    found, balance = salvage_state(installation.service.state_url, new), False
    if found.whole:
        with Database.open_beside(f"sqlite:///{new}") as database:
            balance = not any(_differences(database, installation.organizations).values())
    views.show_salvaged(found, new, balance=balance, as_json=as_json)
    sys.exit(OK if balance else ATTENTION)


@state.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@as_json_option
@click.pass_obj
def backup(context: Context, file: Path, *, as_json: bool) -> None:
    """Copy the state as it is now into FILE, beside a running service.

    FILE holds all that was committed, its -wal included; its books are verified. Exits 1 where they do not
    balance.
    """
    installation = context.installation(read_secrets=False)
    with (
        backing_up(installation.service.state_url, file) as copied,
        Database.open_beside(f"sqlite:///{copied}") as database,
    ):
        balance = _differences(database, installation.organizations)
        others = not_configured(database, installation.organizations)
    views.show_backed_up(file, balance, others, as_json=as_json)
    sys.exit(ATTENTION if any(balance.values()) else OK)


@state.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--by", default=user, show_default="the user", help="Who puts it back; it is recorded.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json_option
@click.pass_obj
def restore(context: Context, file: Path | None, *, by: str, yes: bool, as_json: bool) -> None:
    """Put the backup FILE in the place of the state, or take on an older state that is in place already.

    Stop the service first. What was sent since the backup is not known any more: everything that members are
    owed when their contacts have been read again is in doubt. The import log proves what was not awarded;
    the rest is held, and a person decides with `syncsvc doubt`. No point is awarded twice.
    """
    installation = context.installation(read_secrets=False)
    url = installation.service.state_url
    if not yes:
        click.confirm(views.question_restore(file), abort=True, err=True)
    former = None
    if file is not None:
        former = put_in_place(url, file, installation.organizations, now=datetime.now(UTC))
    with Database.open_older(url) as database:
        claim_all(database)
        for it in installation.organizations:
            register(database, it)
        put_back(database, installation.organizations, by=by)
    logger().warning("state_put_back", by=by, organizations=len(installation.organizations))
    views.show_restored(file, former, by=by, as_json=as_json)


def _differences(database: Database, organizations: Sequence[OrganizationConfig]) -> dict[str, int]:
    """Return how many differences the books of each organization have that the state knows."""
    known = [it for it in organizations if known_organization(database, it) is not None]
    return {it.name: sum(1 for _ in open_store(database, it).audit.differences()) for it in known}
