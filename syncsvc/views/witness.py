"""How the witness is told of: what it has done, and whether it can be relied on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from rich.markup import escape

from syncsvc.model import Problem
from syncsvc.state.witness import WitnessStanding
from syncsvc.views.paper import Paper, stamp

_EXPLAINED = (
    "it rides last in every points batch, with one point; its log entry proves the batch when others move "
    "the log too"
)
_LATELY = timedelta(days=7)


def told_of_witness(it: WitnessStanding) -> str:
    """Say in one line what a brand's witness has, what it has proven, and what speaks against it."""
    entry = it.entry or "nothing"
    has = f"the witness of {it.brand_id} has {it.points:,} points of its own, its log entry says {entry}"
    rode = f"of its batches {it.landed:,} landed, {it.refuted:,} were refuted, {it.undecided:,} wait for it"
    words = [has, rode]
    if it.unseen:
        words.append("the log never shows it: it proves nothing")
    if it.moved_by_others_at is not None:
        words.append(f"somebody else moved it at {stamp(it.moved_by_others_at)}")
    return "; ".join(words)


def show_witnesses(found: Mapping[str, Sequence[WitnessStanding] | None]) -> None:
    """Show each organization's witness and whether it works; None where nothing is known yet."""
    paper = Paper()
    for name, standings in found.items():
        paper.line(escape(f"{name}: wallet.witness: {_EXPLAINED}"))
        for it in standings or ():
            paper.line(escape(f"  {told_of_witness(it)}"))
        if not standings:
            paper.line("  it has not ridden in a batch yet")


def witness_problems(it: WitnessStanding, now: datetime) -> list[Problem]:
    """Return what keeps a witness from proving anything; a move by others is one for a week."""
    another = "name another email in wallet.witness, which nobody else awards points to"
    problems = []
    if it.unseen:
        what = f"the import log of {it.brand_id} never shows the witness, though batches with it landed"
        problems.append(Problem("wallet.witness", what, another))
    if it.moved_by_others_at is not None and now - it.moved_by_others_at < _LATELY:
        when = stamp(it.moved_by_others_at)
        what = f"somebody else moved the witness of {it.brand_id} at {when}: then it proves nothing"
        problems.append(Problem("wallet.witness", what, another))
    return problems
