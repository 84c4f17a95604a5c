"""How what waits for a person, and what they decided, is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.markup import escape

from syncsvc.rules.brakes import Brake
from syncsvc.state.holds import Concerned, Hold
from syncsvc.views.paper import Paper, print_json, to_type

SHOWN = 5
"""So many of those whom a hold keeps back are named; JSON names more."""


def show_holds(held: Mapping[str, Mapping[Hold, Sequence[Concerned]]], *, as_json: bool) -> None:
    """Show what brakes hold, and of whom."""
    if as_json:
        listed = {
            name: [asdict(hold) | {"concerned": [asdict(it) for it in who]} for hold, who in holds.items()]
            for name, holds in held.items()
        }
        print_json(listed)
        return
    paper = Paper()
    for name, holds in held.items():
        if not holds:
            paper.line(f"{escape(name)}: nothing is held")
        for hold, concerned in holds.items():
            paper.line(f"{escape(name)}: {hold.id} · {escape(hold.brake)} · {escape(hold.detail)}")
            named = [it.record + (f" ({it.points:,} points)" if it.points else "") for it in concerned]
            more = ", …" if len(named) > SHOWN else ""
            paper.line(escape(f"  such as: {', '.join(named[:SHOWN])}{more}"))
            paper.line(escape(ways_out(hold)))


def ways_out(hold: Hold) -> str:
    """Return what ends a hold, by what a person finds, a line each."""
    let_go = to_type(f"release {hold.id}")
    if hold.brake != Brake.ELSEWHERE:
        return f"  the CRM is as it should be: {let_go}"
    return (
        "  this is not the state that sent them: stop the service, and put that one in place\n"
        f"  they have these points already, from a state that is lost or another tool: {let_go} --adopt\n"
        f"  they have not, and all of them are to be awarded in full: {let_go} --award"
    )


def show_release(hold: Hold, *, by: str, adopted: int, as_json: bool) -> None:
    """Show that a hold was let go, and of how many members the points were adopted."""
    if as_json:
        print_json(asdict(hold) | {"released_by": by, "adopted": adopted})
        return
    paper = Paper()
    if adopted:
        told = "count as awarded and mailed: `syncsvc books` shows their points as adopted"
        paper.line(f"{adopted:,} members {told}")
    paper.line(f"released by {escape(by)}: the next cycle delivers it")
