"""How the commands show things: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from syncsvc import cycle
from syncsvc.model import Problem
from syncsvc.plan import Plan
from syncsvc.state.holds import Hold
from syncsvc.state.reports import Life, Status
from syncsvc.state.store import Store
from syncsvc.watch.report import CycleReport

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """An organization's status with what is held."""

    status: Status
    holds: tuple[Hold, ...]

    @classmethod
    def of(cls, store: Store) -> Standing:
        """Return how an organization stands now."""
        return cls(store.reports.status(), tuple(it for it in store.holds.open() if it.released_by is None))

    @property
    def needs_attention(self) -> bool:
        """Whether something is held, in doubt, quarantined or paused."""
        status = self.status
        paused = any(connector.trouble for connector in status.connectors)
        return bool(self.holds or status.rows_in_doubt or status.rows_held or status.quarantined or paused)


def _console() -> Console:
    return Console(highlight=False)


def _print_json(value: Any) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")


@contextmanager
def progress() -> Iterator[cycle.Progress]:
    """Give what a cycle tells its progress to: bars on a terminal, nothing otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield cycle.no_progress
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[tuple[str, str], TaskID] = {}

        def tell(step: str, where: str, done: int, expected: int | None) -> None:
            task = tasks.setdefault((step, where), TaskID(-1))
            if task == TaskID(-1):
                task = tasks[step, where] = bars.add_task(f"{step} {where}", total=expected)
            bars.update(task, completed=done, total=expected)

        yield tell


def show_problems(found: Mapping[str, Sequence[Problem]], *, as_json: bool) -> None:
    """Show what `check` found, grouped by organization."""
    if as_json:
        _print_json({name: [asdict(problem) for problem in problems] for name, problems in found.items()})
        return
    console = _console()
    for name, problems in found.items():
        if not problems:
            console.print(f"[green]✓[/] {escape(name)}: everything is in order")
            continue
        console.print(
            f"[red]✗[/] {escape(name)}: {len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
        )
        for problem in problems:
            console.print(f"  {escape(problem.where)}: {escape(problem.message)}")
            console.print(f"    → {escape(problem.remedy)}", style="cyan")


def show_plans(plans: Sequence[Plan], *, as_json: bool) -> None:
    """Show what a cycle would send, so that a person can approve it."""
    if as_json:
        _print_json([asdict(plan) for plan in plans])
        return
    console = _console()
    for plan in plans:
        table = Table(
            title=f"{plan.organization}: plan {plan.digest}", title_justify="left", show_header=False
        )
        table.add_column()
        table.add_column(justify="right")
        for label, value in (
            ("contacts read", plan.read),
            ("left out by `where`", plan.excluded),
            ("gone from the CRM", plan.gone),
            ("new members", plan.totals.new),
            ("changed members", plan.totals.changed),
            ("points to award", plan.totals.points),
            ("largest award", plan.totals.largest),
            ("in quarantine", len(plan.refusals)),
        ):
            table.add_row(label, f"{value:,}")
        console.print(table)
        for brake in plan.brakes:
            console.print(f"[red]brake[/] {escape(brake)}")
        for error in plan.errors:
            console.print(f"[red]error[/] {escape(error)}")
        _show_refusals(console, plan.refusals)
        if plan.totals.members:
            console.print(f"deliver exactly this: syncsvc once --plan {plan.digest}")


def _show_refusals(console: Console, refusals: Sequence[Mapping[str, Any]]) -> None:
    if not refusals:
        return
    table = Table(title="quarantined", title_justify="left")
    for heading in ("connector", "record", "reason"):
        table.add_column(heading, overflow="fold")
    for refusal in refusals[:_SHOWN]:
        table.add_row(refusal["connector"], refusal["record"], escape(refusal["reason"]))
    console.print(table)
    if len(refusals) > _SHOWN:
        console.print(f"… and {len(refusals) - _SHOWN} more")


def show_reports(reports: Sequence[CycleReport], *, as_json: bool) -> None:
    """Show what cycles came to."""
    if as_json:
        _print_json([report.facts() for report in reports])
        return
    console = _console()
    table = Table()
    for heading in (
        "organization",
        "outcome",
        "read",
        "changed",
        "rows sent",
        "landed",
        "points",
        "in doubt",
    ):
        table.add_column(heading, justify="left" if heading in {"organization", "outcome"} else "right")
    table.add_column("written back", justify="right")
    table.add_column("quarantined", justify="right")
    table.add_column("seconds", justify="right")
    for it in reports:
        counts = (it.read, it.changed, it.rows_sent, it.rows_landed, it.points_landed, it.in_doubt)
        table.add_row(
            it.organization,
            str(it.outcome),
            *(f"{count:,}" for count in (*counts, it.written_back, it.quarantined)),
            f"{it.duration:.1f}",
        )
    console.print(table)
    for it in reports:
        for error in it.errors:
            console.print(f"[red]{escape(it.organization)}[/]: {escape(error)}")


def show_status(found: Mapping[str, Standing], *, as_json: bool, now: datetime) -> None:
    """Show where organizations stand."""
    if as_json:
        _print_json({name: asdict(standing) for name, standing in found.items()})
        return
    console = _console()
    for name, standing in found.items():
        status = standing.status
        console.print(
            f"[bold]{escape(name)}[/]: {status.members:,} members, {status.due:,} to send, points "
            f"{status.credited:,} of {status.earned:,} credited, {status.unsettled:,} unsettled"
        )
        table = Table()
        for heading in (
            "connector",
            "cursor moved",
            "read whole",
            "contacts",
            "excluded",
            "quarantined",
            "gone",
        ):
            table.add_column(heading, justify="left" if heading == "connector" else "right")
        table.add_column("to write back", justify="right")
        for it in status.connectors:
            whole = "now" if it.sweeping else _ago(it.swept_at, now)
            counts = (it.contacts, it.excluded, it.quarantined, it.gone, it.write_due)
            table.add_row(it.name, _ago(it.moved_at, now), whole, *(f"{count:,}" for count in counts))
        console.print(table)
        console.print(
            f"import log read {_ago(status.log_read_at, now)}; in doubt {status.rows_in_doubt:,}, "
            f"held {status.rows_held:,}"
        )
        for it in status.connectors:
            if it.trouble:
                console.print(f"[red]paused[/] {escape(it.name)}: {escape(it.trouble)}")
        for hold in standing.holds:
            console.print(f"[red]held[/] {hold.id}: {escape(hold.detail)} → syncsvc release {hold.id}")


def show_holds(organization: str, holds: Sequence[Hold]) -> None:
    """Show what brakes hold."""
    console = _console()
    if not holds:
        console.print(f"{escape(organization)}: nothing is held")
    for hold in holds:
        console.print(f"{escape(organization)}: {hold.id} · {hold.brake} · {escape(hold.detail)}")


def show_lives(lives: Sequence[tuple[str, Life]], *, as_json: bool) -> None:
    """Show the life of a member: one sentence first, then what happened."""
    if as_json:
        _print_json(
            [{"organization": name, "summary": summary(life), **asdict(life)} for name, life in lives]
        )
        return
    console = _console()
    if not lives:
        console.print("no member has this email: no contact with it was read, or it is in quarantine")
    for name, life in lives:
        console.print(f"[bold]{escape(name)}, {escape(life.brand_id)}[/]: {summary(life)}")
        console.print(
            f"  points: {life.earned:,} earned, {life.credited:,} credited, {life.unsettled:,} unsettled; "
            f"the wallet's log says {life.log_value or 'nothing'}"
        )
        for contact in life.contacts:
            role = "owner" if contact["owner"] else "linked"
            written = contact["written_back"]
            console.print(
                f"  {contact['connector']} {contact['record']}: {role}, {contact['state']}, "
                f"points {contact['points']}, written back {written or 'never'}"
                + (f"; refused: {escape(contact['refused'])}" if contact["refused"] else "")
            )
        for it in life.happenings:
            facts = ", ".join(f"{key} {value}" for key, value in it.facts.items() if value is not None)
            console.print(f"  {it.at:%Y-%m-%d %H:%M:%S}Z {it.what}: {escape(facts)}")


def summary(life: Life) -> str:
    """Say in one sentence whether a member is up to date, and if not why."""
    if life.in_doubt:
        return "waits: a batch with this member is in doubt, and the import log has not decided it yet."
    if life.unsettled:
        return f"{life.unsettled} points are held: a person decides whether they arrived."
    if life.refused:
        return "is held back: the wallet refuses its row; it is tried again when the contact changes."
    if any(contact["refused"] for contact in life.contacts):
        return "is not up to date: a contact of this member is in quarantine."
    if life.due:
        return "is about to be sent with the next cycle."
    if life.earned < life.credited:
        return f"is up to date; the CRM's points fell by {life.credited - life.earned}, which is never taken back."
    return "is up to date." if life.delivered else "is known, and nothing is to be sent."


def _ago(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "never"
    passed = max(timedelta(), now - at)
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed.total_seconds() >= seconds:
            return f"{passed.total_seconds() / seconds:.0f}{unit} ago"
    return f"{passed.total_seconds():.0f}s ago"
