"""How the outcomes of cycles are shown."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape

from syncsvc.views.paper import Paper, print_json
from syncsvc.watch.report import CycleReport, Outcome


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
        paper.line(
            f"  waiting: {it.in_doubt:,} rows in doubt, {it.held:,} rows held, {it.quarantined:,} quarantined"
        )
        for error in it.errors:
            paper.line(f"  [red]error[/] {escape(error)}")
        if it.errors:
            paper.line("  → see also: syncsvc check", style="cyan")


def show_asked(organizations: Sequence[str], by: Sequence[str], *, as_json: bool) -> None:
    """Show whose next cycle was asked to read everything again, and who runs it."""
    if as_json:
        print_json({"asked": organizations, "of": by})
        return
    paper = Paper()
    for name in organizations:
        paper.line(f"[bold]{escape(name)}[/]: its next cycle reads every contact again")
    paper.line(f"  cycles are run by {escape(', '.join(by))}; a cycle that runs already ends first")
