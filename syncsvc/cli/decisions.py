"""The commands by which a person decides: `release`, `doubt`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import click

from syncsvc.cli.context import Context, Stores, as_json_option, user
from syncsvc.cli.exits import ATTENTION, OK
from syncsvc.doubts import Case, cases
from syncsvc.rules.brakes import Brake
from syncsvc.rules.settling import Finding
from syncsvc.state.doubts import Choice
from syncsvc.state.holds import Hold
from syncsvc.state.store import Store
from syncsvc.state.twice import Found, PaidTwice
from syncsvc.views import decisions as views
from syncsvc.views import doubts as doubts_views
from syncsvc.views.standing import Standing
from syncsvc.watch.log import logger

_NAMED = 1000  # of those whom a hold keeps back


@click.command()
@click.argument("hold", type=int, required=False)
@click.option("--by", default=user, show_default="the user", help="Who lets it go; it is recorded.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--adopt",
    is_flag=True,
    help=f"Of {Brake.ELSEWHERE}: those that the import log shows were awarded their points already.",
)
@click.option(
    "--award",
    is_flag=True,
    help=f"Of {Brake.ELSEWHERE}: award all of them all that they are owed, whoever has imported them.",
)
@as_json_option
@click.pass_obj
def release(
    context: Context, hold: int | None, *, by: str, yes: bool, adopt: bool, award: bool, as_json: bool
) -> None:
    """Let what a brake holds go, once; without HOLD, list what is held, and exit 1 where anything is."""
    with Stores(context) as stores:
        held = {name: Standing.of(store).holds for name, store in stores.items()}
        if hold is None:
            if adopt or award:
                raise click.UsageError("name the number of a hold: `syncsvc release` lists them")
            most = _NAMED if as_json else views.SHOWN + 1
            listed = {
                name: {it: stores[name].holds.concerned(it, most=most) for it in holds}
                for name, holds in held.items()
            }
            views.show_holds(listed, as_json=as_json)
            sys.exit(ATTENTION if any(held.values()) else OK)
        for name, chosen in ((name, it) for name, holds in held.items() for it in holds if it.id == hold):
            what = _what_becomes(chosen, adopt=adopt, award=award)
            if not yes:
                click.confirm(f"{name}: {chosen.detail}. {what}", abort=True, err=True)
            holds, now = stores[name].holds, datetime.now(UTC)
            if adopt:
                adopted = holds.adopt(hold, by=by, now=now)
            else:
                adopted = 0 if holds.release(hold, by=by, now=now) else None
            if adopted is not None:
                facts = {"hold": hold, "brake": chosen.brake, "adopted": adopted}
                logger().info("hold_released", organization=name, **facts)
                views.show_release(chosen, by=by, adopted=adopted, as_json=as_json)
                return
    click.echo(f"nothing is held under {hold}: `syncsvc release` lists what is", err=True)
    sys.exit(ATTENTION)


def _what_becomes(hold: Hold, *, adopt: bool, award: bool) -> str:
    """Return the question whether to let a hold go; raises UsageError where it is not said how."""
    if hold.brake != Brake.ELSEWHERE:
        if adopt or award:
            told = f"{hold.id} is of {hold.brake}"
            raise click.UsageError(f"--adopt and --award are for {Brake.ELSEWHERE}; {told}")
        return "Let it go once?"
    if adopt is award:
        raise click.UsageError(f"say what they are to get:\n{views.ways_out(hold)}")
    return "Count their points as awarded, and let the rest go once?" if adopt else "Award them all the same?"


_FINDINGS = [it.name.lower() for it in Finding]


class _Case(click.ParamType[tuple[int, int | None]]):
    """`BATCH` or `BATCH:ROW`."""

    name = "case"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int | None]:
        """Return the batch, and the row where one is named."""
        batch, colon, row = str(value).partition(":")
        if not batch.isdecimal() or (colon and not row.isdecimal()):
            self.fail(
                f"{value!r} is no case: write BATCH or BATCH:ROW, as `syncsvc doubt` lists them", param, ctx
            )
        return int(batch), int(row) if colon else None


@click.command()
@click.argument("case", type=_Case(), required=False)
@click.argument("choice", type=click.Choice([it.value for it in (*Choice, *Found)]), required=False)
@click.option("--by", default=user, show_default="the user", help="Who decides; it is recorded.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--only", type=click.Choice(_FINDINGS), help="Settle only rows whose log entry is so.")
@click.option("--history", is_flag=True, help="List what people decided and found out.")
@as_json_option
@click.pass_obj
def doubt(
    context: Context,
    *,
    case: tuple[int, int | None] | None,
    choice: str | None,
    by: str,
    yes: bool,
    only: str | None,
    history: bool,
    as_json: bool,
) -> None:
    """List what is in doubt or held, with the evidence; with CASE and CHOICE, settle it by hand.

    CASE is BATCH (all its rows) or BATCH:ROW. CHOICE is what you found out in the wallet: landed (credit it),
    refuted (it did not arrive: it is owed again), award (unknown: send it again) or skip (unknown: never send
    it again). With --only, of a BATCH only the rows whose log entry is so: unmoved, say.

    Points that may have been awarded twice are listed too. Of these CHOICE says what the wallet has: twice
    (they were), or once (they were not). It is recorded, and they are listed no more.
    """
    if only and choice not in list(Choice):
        raise click.UsageError("--only goes with landed, refuted, award or skip")
    if (case is None) != (choice is None) or (history and case is not None):
        raise click.UsageError("name both a CASE and a CHOICE to settle, or neither to list")
    now = datetime.now(UTC)
    opened = Stores(context)
    with opened as stores:
        if history:
            shown = {name: store.doubts.history() for name, store in stores.items()}
            doubts_views.show_history(shown, as_json=as_json)
            return
        found = {it.name: cases(stores[it.name], it.wallet) for it in opened.organizations}
        twice = {name: store.twice.open() for name, store in stores.items()}
        if case is None or choice is None:
            doubts_views.show_doubts(found, twice, now=now, as_json=as_json)
            sys.exit(ATTENTION if any(found.values()) or any(twice.values()) else OK)
        batch, row = case
        if choice in list(Found):
            _find(stores, twice, case, Found(choice), by=by, yes=yes, as_json=as_json)
        for name, them in found.items():
            named = [it for it in them if it.suspect.batch == batch and row in {None, it.suspect.row}]
            chosen = [it for it in named if only in {None, it.evidence.finding}]
            if named and not chosen:
                click.echo(f"no row that is in doubt or held there has an entry that is {only}", err=True)
                sys.exit(ATTENTION)
            if chosen:
                _settle(name, stores[name], chosen, Choice(choice), by=by, yes=yes, as_json=as_json)
                return
        fates = [fate for store in stores.values() if (fate := store.doubts.fate(batch))]
    click.echo(doubts_views.not_open(batch, row, fates[0] if fates else {}), err=True)
    sys.exit(ATTENTION)


def _find(
    stores: Mapping[str, Store],
    twice: Mapping[str, Sequence[PaidTwice]],
    case: tuple[int, int | None],
    found: Found,
    *,
    by: str,
    yes: bool,
    as_json: bool,
) -> NoReturn:
    batch, row = case
    for name, them in twice.items():
        chosen = [it for it in them if it.batch == batch and row in {None, it.row}]
        if not chosen:
            continue
        if not yes:
            click.confirm(doubts_views.question_twice(name, chosen, found), abort=True, err=True)
        recorded = stores[name].twice.record(
            batch, found, [it.row for it in chosen], by=by, now=datetime.now(UTC)
        )
        done = [it for it in chosen if it.row in recorded]
        points = sum(it.points for it in done)
        logger().info(
            "paid_twice_looked_into",
            organization=name,
            batch=batch,
            rows=len(done),
            points=points,
            choice=str(found),
        )
        doubts_views.show_found(name, done, found, by=by, as_json=as_json)
        sys.exit(OK)
    click.echo(doubts_views.not_twice(batch, row), err=True)
    sys.exit(ATTENTION)


def _settle(
    name: str, store: Store, chosen: list[Case], choice: Choice, *, by: str, yes: bool, as_json: bool
) -> None:
    if not yes:
        click.confirm(doubts_views.question(name, chosen, choice), abort=True, err=True)
    batch = chosen[0].suspect.batch
    evidence = {it.suspect.row: it.evidence for it in chosen}
    settled = store.doubts.decide(batch, choice, evidence, by=by, now=datetime.now(UTC))
    done = [it for it in chosen if it.suspect.row in settled]
    if done:
        logger().info(
            "doubt_settled_by_hand",
            organization=name,
            batch=batch,
            rows=len(done),
            points=sum(it.suspect.points for it in done),
            choice=str(choice),
        )
        doubts_views.show_settled(name, done, choice, by=by, as_json=as_json)
    left = [it.suspect.row for it in chosen if it.suspect.row not in settled]
    for row in left:
        click.echo(doubts_views.not_open(batch, row, store.doubts.fate(batch) or {}), err=True)
    sys.exit(ATTENTION if left else OK)
