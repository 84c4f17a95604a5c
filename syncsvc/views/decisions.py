"""How what waits for a person, and what they decided, is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.markup import escape

from syncsvc.rules.brakes import Brake
from syncsvc.state.holds import Hold
from syncsvc.views.paper import Paper, print_json


def show_holds(held: Mapping[str, Sequence[Hold]], *, as_json: bool) -> None:
    """Show what brakes hold."""
    if as_json:
        print_json({name: [asdict(hold) for hold in holds] for name, holds in held.items()})
        return
    paper = Paper()
    for name, holds in held.items():
        if not holds:
            paper.line(f"{escape(name)}: nothing is held")
        for hold in holds:
            paper.line(f"{escape(name)}: {hold.id} · {escape(hold.brake)} · {escape(hold.detail)}")
            if hold.brake == Brake.ELSEWHERE:
                paper.line(f"  were they awarded these points already? syncsvc release {hold.id} --adopt")


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
