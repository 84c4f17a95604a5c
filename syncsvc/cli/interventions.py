"""The commands by which a person steps in: `quarantine`, `pause`, `resume`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from syncsvc.cli.context import Context, Stores, as_json_option, user
from syncsvc.cli.exits import ATTENTION, OK
from syncsvc.state.quarantine import Choice, Refusal, Side
from syncsvc.state.store import Store
from syncsvc.views import interventions as views
from syncsvc.views.paper import print_json
from syncsvc.watch.log import logger

_by = click.option("--by", default=user, show_default="the user", help="Who does it; it is recorded.")
_organization = click.option("-o", "--organization", help="Its name; needed where several are configured.")
_connector = click.option("--connector", help="Of this connector only.")
_side = click.option(
    "--side", type=click.Choice([it.value for it in Side]), help="Refused by this side only."
)


@click.group(invoke_without_command=True)
@click.pass_context
def quarantine(context: click.Context) -> None:
    """List what is in quarantine, retry it, or drop it."""
    if context.invoked_subcommand is None:
        context.invoke(
            list_, organization=None, connector=None, side=None, dropped=False, limit=50, as_json=False
        )


@quarantine.command("list")
@click.option("-o", "--organization", help="Of this organization only.")
@_connector
@_side
@click.option("--dropped", is_flag=True, help="Show what was dropped too.")
@click.option("--limit", type=click.IntRange(min=0), default=50, show_default=True, help="0 shows all.")
@as_json_option
@click.pass_obj
def list_(
    context: Context,
    *,
    organization: str | None,
    connector: str | None,
    side: str | None,
    dropped: bool,
    limit: int,
    as_json: bool,
) -> None:
    """List what was refused, by record id, with the reason. Exits 1 where anything waits."""
    with Stores(context) as stores:
        found = _refusals(_chosen(stores, organization, several=True), connector, side)
    shown = {name: [it for it in them if dropped or not it.dropped] for name, them in found.items()}
    views.show_quarantine(shown, limit=limit or sys.maxsize, as_json=as_json, now=datetime.now(UTC))
    sys.exit(ATTENTION if any(not it.dropped for them in found.values() for it in them) else OK)


def _choosing(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        as_json_option,
        click.option("--yes", is_flag=True, help="Do not ask."),
        _by,
        _side,
        _connector,
        _organization,
        click.option("--all", "everything", is_flag=True, help="Everything that the other options leave."),
        click.argument("records", nargs=-1),
    ):
        command = option(command)
    return command


@quarantine.command()
@_choosing
@click.pass_obj
def retry(context: Context, /, **chosen: Any) -> None:
    """Let RECORDS be judged anew at the next cycle, though nothing about them has changed.

    What the wallet refused is sent again, and a write-back tried again. What our own map refused, or an email
    change, asks for every contact of its connector to be read again.
    """
    _decide(context, Choice.RETRY, **chosen)


@quarantine.command()
@_choosing
@click.pass_obj
def drop(context: Context, /, **chosen: Any) -> None:
    """Be told no more of RECORDS until they change in the CRM; they are not sent until then."""
    _decide(context, Choice.DROP, **chosen)


def _decide(
    context: Context,
    choice: Choice,
    *,
    records: Sequence[str],
    everything: bool,
    organization: str | None,
    connector: str | None,
    side: str | None,
    by: str,
    yes: bool,
    as_json: bool,
) -> None:
    if bool(records) == everything:
        raise click.UsageError("name RECORDS, as `syncsvc quarantine list` shows them, or --all")
    decided: dict[str, list[Refusal]] = {}
    with Stores(context) as stores:
        mine = _chosen(stores, organization, several=False)
        for name, them in _refusals(mine, connector, side).items():
            chosen = [it for it in them if everything or it.record in records]
            if choice is Choice.DROP:
                chosen = [it for it in chosen if not it.dropped]
            _refuse_ambiguous(chosen, records)
            if not chosen:
                continue
            if not yes:
                click.confirm(views.question(name, chosen, choice), abort=True, err=True)
            mine[name].quarantine.decide(chosen, choice, by=by, now=datetime.now(UTC))
            logger().info(
                "quarantine_decided", organization=name, choice=str(choice), refusals=len(chosen), by=by
            )
            decided[name] = chosen
    views.show_choice(decided, choice, by=by, as_json=as_json)
    missing = sorted(set(records) - {it.record for them in decided.values() for it in them})
    for record in missing:
        click.echo(f"{record} is not in quarantine: `syncsvc quarantine list` shows what is", err=True)
    sys.exit(OK if decided and not missing else ATTENTION)


def _refusals(
    stores: Mapping[str, Store], connector: str | None, side: str | None
) -> dict[str, list[Refusal]]:
    return {
        name: [
            it
            for it in store.quarantine.refusals()
            if connector in {None, it.connector} and side in {None, it.side.value}
        ]
        for name, store in stores.items()
    }


def _refuse_ambiguous(chosen: Sequence[Refusal], records: Sequence[str]) -> None:
    for record in records:
        connectors = sorted({it.connector for it in chosen if it.record == record})
        if len(connectors) > 1:
            raise click.UsageError(f"{record} is a record of {' and '.join(connectors)}: name --connector")


def _chosen(stores: Mapping[str, Store], organization: str | None, *, several: bool) -> dict[str, Store]:
    """Return the organizations that are meant: one where `several` may not be."""
    if organization is None and (several or len(stores) == 1):
        return dict(stores)
    if organization is None:
        raise click.UsageError(f"name the organization: -o {' or -o '.join(stores)}")
    if organization not in stores:
        raise click.UsageError(f"{organization} is not configured; known are {', '.join(stores)}")
    return {organization: stores[organization]}


@click.command()
@click.argument("connector", required=False)
@_organization
@_by
@click.option("--reason", help="Why; it is recorded, and shown wherever the pause is.")
@as_json_option
@click.pass_obj
def pause(
    context: Context,
    *,
    connector: str | None,
    organization: str | None,
    by: str,
    reason: str | None,
    as_json: bool,
) -> None:
    """Stop an organization, or one CONNECTOR of it, from its next cycle on; nothing is asked of it then.

    What changes meanwhile is read when it goes on, and nothing is lost. A running cycle ends first.
    """
    now = datetime.now(UTC)
    with Stores(context) as stores:
        name, store = _one(stores, organization, connector)
        news = store.pauses.begin(connector, by=by, reason=reason, now=now)
        (found,) = (it for it in store.pauses.open() if it.connector == connector)
    if news:
        logger().info("paused", organization=name, connector=connector or "", by=by)
    if as_json:
        print_json({"organization": name, **asdict(found), "news": news})
    else:
        click.echo(f"{'paused' if news else 'is paused already'}: {views.told_of_pause(name, found, now)}")


@click.command()
@click.argument("connector", required=False)
@_organization
@_by
@as_json_option
@click.pass_obj
def resume(
    context: Context, *, connector: str | None, organization: str | None, by: str, as_json: bool
) -> None:
    """Let an organization, or one CONNECTOR of it, go on with its next cycle."""
    now = datetime.now(UTC)
    with Stores(context) as stores:
        name, store = _one(stores, organization, connector)
        ended = store.pauses.end(connector, by=by, now=now)
        others = store.pauses.open()
    if ended is None:
        told = "; ".join(views.told_of_pause(name, it, now) for it in others)
        click.echo(f"it is not paused{f'; paused is {told}' if told else ''}", err=True)
        sys.exit(ATTENTION)
    logger().info("resumed", organization=name, connector=connector or "", by=by)
    if as_json:
        print_json({"organization": name, **asdict(ended), "resumed_by": by})
        return
    click.echo(f"{connector or name} goes on with its next cycle; it was paused by {ended.by}")
    for it in others:
        click.echo(f"still paused: {views.told_of_pause(name, it, now)}")


def _one(stores: Mapping[str, Store], organization: str | None, connector: str | None) -> tuple[str, Store]:
    ((name, store),) = _chosen(stores, organization, several=False).items()
    if connector is not None and connector not in store.connectors:
        raise click.UsageError(f"{connector} is no connector of {name}; it has {', '.join(store.connectors)}")
    return name, store
