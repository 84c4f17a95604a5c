"""How plans and the outcomes of cycles are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.markup import escape

from syncsvc.plan import Plan
from syncsvc.views.paper import SHOWN, Paper, empty_table, print_json
from syncsvc.watch.report import CycleReport, Outcome


def show_plans(plans: Sequence[Plan], *, as_json: bool) -> None:
    """Show what a cycle would send, so that a person can approve it."""
    if as_json:
        print_json([asdict(plan) for plan in plans])
        return
    paper = Paper()
    for plan in plans:
        table = empty_table("", "", title=f"{escape(plan.organization)}: plan {plan.digest}")
        table.show_header = False
        for label, value in (
            ("contacts read", plan.read),
            ("left out by `where`", plan.excluded),
            ("gone from the CRM", plan.gone),
            ("new members", plan.totals.new),
            ("changed members", plan.totals.changed),
            ("points to award", plan.totals.points),
            ("points adopted, not awarded", plan.adopted),
            ("largest award", plan.totals.largest),
            ("in quarantine", len(plan.refusals)),
        ):
            table.add_row(label, f"{value:,}")
        paper.table(table)
        if not plan.totals.points:
            why = f', as first_run = "{plan.first_run}" says' if plan.adopted else ""
            paper.line(f"0 points would be awarded{escape(why)}")
        for brake in plan.brakes:
            paper.line(f"[red]brake[/] {escape(brake)}")
        if plan.brakes:
            paper.line(
                "what brakes hold is no part of this plan: run `once`, look, release it, and plan again"
            )
        for error in plan.errors:
            paper.line(f"[red]error[/] {escape(error)}")
        _show_refusals(paper, plan.refusals)
        if plan.totals.members and not plan.errors:
            paper.line(f"deliver exactly this: syncsvc once --plan {plan.digest}")
            if plan.forgotten:
                paper.line(
                    f"(if it no longer holds by then, nobody can say what changed: {escape(plan.forgotten)})"
                )


def _show_refusals(paper: Paper, refusals: Sequence[Mapping[str, Any]]) -> None:
    if not refusals:
        return
    table = empty_table("connector", "record", "reason", title="quarantined", left=3)
    for refusal in refusals[:SHOWN]:
        table.add_row(*(escape(str(refusal[name])) for name in ("connector", "record", "reason")))
    paper.table(table)
    if len(refusals) > SHOWN:
        paper.line(f"… and {len(refusals) - SHOWN} more")


def show_reports(reports: Sequence[CycleReport], *, as_json: bool) -> None:
    """Show what cycles came to."""
    if as_json:
        print_json([report.facts() for report in reports])
        return
    paper = Paper()
    for it in reports:
        color = "green" if it.outcome is Outcome.OK else "red"
        paper.line(f"[bold]{escape(it.organization)}[/]: [{color}]{it.outcome}[/] in {it.duration:.1f} s")
        paper.line(f"  read {it.read:,} contacts, {it.changed:,} changed, {it.gone:,} gone")
        paper.line(
            f"  sent {it.rows_sent:,} rows; {it.rows_landed:,} landed, with {it.points_landed:,} points; "
            f"{it.written_back:,} records written back"
        )
        for connector in it.paused:
            paper.line(f"  [yellow]paused[/] {escape(connector)}: see `syncsvc status`")
        for brake in it.braked:
            paper.line(f"  [red]held[/] by {escape(brake)} → syncsvc release")
        paper.line(f"  waiting: {it.in_doubt:,} in doubt, {it.held:,} held, {it.quarantined:,} quarantined")
        for error in it.errors:
            paper.line(f"  [red]error[/] {escape(error)}")
