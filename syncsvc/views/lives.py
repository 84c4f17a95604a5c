"""How the life of a member is shown: one sentence first, then the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from rich.markup import escape

from syncsvc.explanation import Condition, Explanation
from syncsvc.state.lives import Link
from syncsvc.views.paper import Paper, print_json, stamp

_FINE = {Condition.UP_TO_DATE, Condition.KNOWN, Condition.FALLEN, Condition.GONE}


def show_explanations(
    found: Mapping[str, Sequence[Explanation]], unknown: Mapping[str, str], *, as_json: bool
) -> None:
    """Show members by organization; `unknown` says of each organization why it may know nobody."""
    if as_json:
        print_json(
            [
                {"organization": name, "condition": it.condition, "summary": it.sentence, **asdict(it.life)}
                for name, them in found.items()
                for it in them
            ]
        )
        return
    paper = Paper()
    for name, them in found.items():
        for it in them:
            _show(paper, name, it)
    if not any(found.values()):
        for name, why in unknown.items():
            paper.line(escape(f"{name}: {why}"))


def _show(paper: Paper, name: str, it: Explanation) -> None:
    life, color = it.life, "green" if it.condition in _FINE else "yellow"
    paper.line(
        f"[bold]{escape(name)}, {escape(life.brand_id)}[/]: the member [{color}]{escape(it.sentence)}[/]"
    )
    paper.line(
        f"  points: {life.earned:,} earned, {life.credited:,} credited, {life.unsettled:,} unsettled; "
        f"the wallet's log says {escape(life.log_value or 'nothing')}, as read {stamp(life.log_read_at)}"
    )
    for link in life.contacts:
        paper.line(escape(f"  {_contact(link)}"))
    for happening in life.happenings:
        facts = ", ".join(
            f"{key} {value}" for key, value in happening.facts.items() if value not in {None, ""}
        )
        paper.line(escape(f"  {stamp(happening.at)} {happening.what}: {facts}"))


def _contact(link: Link) -> str:
    role = "owner" if link.owner else "linked"
    refused = "".join(f"; refused by {it.side}: {it.reason}" for it in link.refusals)
    return (
        f"{link.connector} {link.record}: {role}, {link.state}, points {link.points}, "
        f"written back {stamp(link.written_back)}{refused}"
    )
