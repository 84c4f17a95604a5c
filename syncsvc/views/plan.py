"""How plans are shown, so that a person can approve them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.markup import escape

from syncsvc.plan import Plan
from syncsvc.state.preview import Skipped
from syncsvc.views.paper import SHOWN, Paper, empty_table, print_json, to_type

_FIELDS = (
    "which of these differ from what the wallet holds is not known: of what was sent the state keeps a "
    "fingerprint, not the values"
)


def show_plans(plans: Sequence[Plan], *, as_json: bool) -> None:
    """Show what a cycle would send."""
    if as_json:
        print_json([asdict(plan) for plan in plans])
        return
    paper = Paper()
    for plan in plans:
        _show_totals(paper, plan)
        _show_effects(paper, plan)
        _show_fields(paper, plan)
        for brake in plan.brakes:
            paper.line(f"[red]brake[/] {escape(brake)}")
        if plan.brakes:
            paper.line(
                "what brakes hold is no part of this plan: run `once`, look, release it, and plan again"
            )
        for error in plan.errors:
            paper.line(f"[red]error[/] {escape(error)}")
        _show_skipped(paper, plan.skipped)
        if plan.effects and not plan.errors:
            deliver = to_type(f"once --plan {plan.digest}", plan.organization)
            paper.line(f"deliver exactly this: {escape(deliver)}")
            if plan.forgotten:
                paper.line(
                    f"(if it no longer holds by then, nobody can say what changed: {escape(plan.forgotten)})"
                )


def _show_totals(paper: Paper, plan: Plan) -> None:
    what = "what could be read, which is no plan" if plan.errors else f"plan {plan.digest}"
    table = empty_table("", "", title=f"{escape(plan.organization)}: {what}")
    table.show_header = False
    points = sum(it.points for it in plan.effects)
    held = plan.totals.members - sum(it.members for it in plan.effects)
    for label, value in (
        ("contacts read", plan.read),
        ("left out by `where`", plan.excluded),
        ("gone from the CRM", plan.gone),
        ("new members", plan.totals.new),
        ("changed members", plan.totals.changed),
        *([("members of these, held", held)] if plan.brakes else ()),
        ("points to award", points),
        ("points adopted, not awarded", plan.adopted),
        ("largest award", plan.totals.largest),
        ("in quarantine", plan.quarantined),
    ):
        table.add_row(label, f"{value:,}")
    paper.table(table)
    if not points and not plan.errors:
        why = f', as first_run = "{plan.first_run}" says' if plan.adopted else ""
        paper.line(f"0 points would be awarded{escape(why)}")


def _show_effects(paper: Paper, plan: Plan) -> None:
    if not plan.effects:
        return
    samples = any(it.values is not None for effect in plan.effects for it in effect.samples)
    table = empty_table(
        "would be sent", "members", "points", "largest", "such as", title="this plan, by kind"
    )
    table.columns[-1].justify = "left"
    for effect in plan.effects:
        named = ", ".join(it.record for it in effect.samples)
        more = ", …" if effect.members > len(effect.samples) else ""
        counts = (f"{value:,}" for value in (effect.members, effect.points, effect.largest))
        table.add_row(escape(effect.kind), *counts, escape(named + more))
    paper.table(table)
    for it in (it for effect in plan.effects for it in effect.samples if samples):
        told = ", ".join(f"{name} {value}" for name, value in (it.values or {}).items())
        paper.line(escape(f"  {it.record}: {told}, points {it.points:,}"))


def _show_fields(paper: Paper, plan: Plan) -> None:
    if not plan.fields:
        return
    table = empty_table("field", "of new members", "of changed profiles", title="rows that carry a field")
    for it in plan.fields:
        table.add_row(escape(it.field), f"{it.new:,}", f"{it.changed:,}")
    paper.table(table)
    if any(it.changed for it in plan.fields):
        paper.line(_FIELDS)


def _show_skipped(paper: Paper, skipped: Sequence[Skipped]) -> None:
    if not skipped:
        return
    table = empty_table("contacts", "refused by", "reason", "such as", title="quarantined, and why", left=4)
    for it in skipped[:SHOWN]:
        named = ", ".join(it.samples) + (", …" if it.contacts > len(it.samples) else "")
        table.add_row(f"{it.contacts:,}", escape(it.side), escape(it.reason), escape(named))
    paper.table(table)
    if len(skipped) > SHOWN:
        paper.line(f"… and {len(skipped) - SHOWN} more reasons: --json has them all")
