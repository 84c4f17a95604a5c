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
from syncsvc.watch.report import CycleReport, Outcome

_SHOWN = 20
_WIDE = 180


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


class _Paper:
    """Standard output: tables as wide as they need where nobody watches, and lines that are never broken."""

    def __init__(self) -> None:
        wide = None if sys.stdout.isatty() else _WIDE
        self._console = Console(highlight=False, width=wide)

    def line(self, text: str, style: str | None = None) -> None:
        """Write one line of markup."""
        self._console.print(text, style=style, soft_wrap=True)

    def table(self, table: Table) -> None:
        """Write a table."""
        self._console.print(table)


def _table(*columns: str, title: str | None = None, left: int = 1) -> Table:
    """Return an empty table; the first `left` columns hold words, the others numbers."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


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
    paper = _Paper()
    for name, problems in found.items():
        if not problems:
            paper.line(f"[green]✓[/] {escape(name)}: everything is in order")
            continue
        count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
        paper.line(f"[red]✗[/] {escape(name)}: {count}")
        for problem in problems:
            paper.line(f"  {escape(problem.where)}: {escape(problem.message)}")
            paper.line(f"    → {escape(problem.remedy)}", style="cyan")


def show_plans(plans: Sequence[Plan], *, as_json: bool) -> None:
    """Show what a cycle would send, so that a person can approve it."""
    if as_json:
        _print_json([asdict(plan) for plan in plans])
        return
    paper = _Paper()
    for plan in plans:
        table = _table("", "", title=f"{escape(plan.organization)}: plan {plan.digest}")
        table.show_header = False
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
        paper.table(table)
        for brake in plan.brakes:
            paper.line(f"[red]brake[/] {escape(brake)}")
        for error in plan.errors:
            paper.line(f"[red]error[/] {escape(error)}")
        _show_refusals(paper, plan.refusals)
        if plan.totals.members and not plan.errors:
            paper.line(f"deliver exactly this: syncsvc once --plan {plan.digest}")


def _show_refusals(paper: _Paper, refusals: Sequence[Mapping[str, Any]]) -> None:
    if not refusals:
        return
    table = _table("connector", "record", "reason", title="quarantined", left=3)
    for refusal in refusals[:_SHOWN]:
        table.add_row(*(escape(str(refusal[name])) for name in ("connector", "record", "reason")))
    paper.table(table)
    if len(refusals) > _SHOWN:
        paper.line(f"… and {len(refusals) - _SHOWN} more")


def show_reports(reports: Sequence[CycleReport], *, as_json: bool) -> None:
    """Show what cycles came to."""
    if as_json:
        _print_json([report.facts() for report in reports])
        return
    paper = _Paper()
    for it in reports:
        color = "green" if it.outcome is Outcome.OK else "red"
        paper.line(f"[bold]{escape(it.organization)}[/]: [{color}]{it.outcome}[/] in {it.duration:.1f} s")
        paper.line(f"  read {it.read:,} contacts, {it.changed:,} changed, {it.gone:,} gone")
        paper.line(
            f"  sent {it.rows_sent:,} rows; {it.rows_landed:,} landed, with {it.points_landed:,} points; "
            f"{it.written_back:,} records written back"
        )
        paper.line(f"  waiting: {it.in_doubt:,} in doubt, {it.held:,} held, {it.quarantined:,} quarantined")
        for error in it.errors:
            paper.line(f"  [red]error[/] {escape(error)}")


def show_status(found: Mapping[str, Standing], *, as_json: bool, now: datetime) -> None:
    """Show where organizations stand."""
    if as_json:
        _print_json({name: asdict(standing) for name, standing in found.items()})
        return
    paper = _Paper()
    for name, standing in found.items():
        _show_standing(paper, name, standing, now)


def _show_standing(paper: _Paper, name: str, standing: Standing, now: datetime) -> None:
    status = standing.status
    paper.line(
        f"[bold]{escape(name)}[/]: {status.members:,} members, {status.due:,} to send, points "
        f"{status.credited:,} of {status.earned:,} credited, {status.unsettled:,} unsettled"
    )
    table = _table(
        "connector",
        "cursor moved",
        "read whole",
        "contacts",
        "excluded",
        "quarantined",
        "gone",
        "to write back",
    )
    for it in status.connectors:
        whole = "now" if it.sweeping else _ago(it.swept_at, now)
        counts = (it.contacts, it.excluded, it.quarantined, it.gone, it.write_due)
        table.add_row(escape(it.name), _ago(it.moved_at, now), whole, *(f"{count:,}" for count in counts))
    paper.table(table)
    paper.line(
        f"import log read {_ago(status.log_read_at, now)}; in doubt {status.rows_in_doubt:,}, "
        f"held {status.rows_held:,}"
    )
    if last := status.last_cycle:
        paper.line(
            f"last cycle with work: {last['outcome']}, {last['rows_landed']:,} of {last['rows_sent']:,} rows "
            f"landed, {last['points_landed']:,} points, {last['written_back']:,} written back"
        )
    for it in status.connectors:
        if it.trouble:
            paper.line(f"[red]paused[/] {escape(it.name)}: {escape(it.trouble)}")
    for hold in standing.holds:
        paper.line(f"[red]held[/] {hold.id}: {escape(hold.detail)} → syncsvc release {hold.id}")


def show_holds(held: Mapping[str, Sequence[Hold]], *, as_json: bool) -> None:
    """Show what brakes hold."""
    if as_json:
        _print_json({name: [asdict(hold) for hold in holds] for name, holds in held.items()})
        return
    paper = _Paper()
    for name, holds in held.items():
        if not holds:
            paper.line(f"{escape(name)}: nothing is held")
        for hold in holds:
            paper.line(f"{escape(name)}: {hold.id} · {escape(hold.brake)} · {escape(hold.detail)}")


def show_release(hold: Hold, *, by: str, as_json: bool) -> None:
    """Show that a hold was let go."""
    if as_json:
        _print_json(asdict(hold) | {"released_by": by})
    else:
        _Paper().line(f"released by {escape(by)}: the next cycle delivers it")


def show_lives(lives: Sequence[tuple[str, Life]], *, as_json: bool) -> None:
    """Show the life of a member: one sentence first, then what happened."""
    if as_json:
        _print_json(
            [{"organization": name, "summary": summary(life), **asdict(life)} for name, life in lives]
        )
        return
    paper = _Paper()
    if not lives:
        paper.line("no member has this email: no contact with it was read, or it is in quarantine")
    for name, life in lives:
        _show_life(paper, name, life)


def _show_life(paper: _Paper, name: str, life: Life) -> None:
    paper.line(f"[bold]{escape(name)}, {escape(life.brand_id)}[/]: {summary(life)}")
    paper.line(
        f"  points: {life.earned:,} earned, {life.credited:,} credited, {life.unsettled:,} unsettled; "
        f"the wallet's log says {escape(life.log_value or 'nothing')}"
    )
    for contact in life.contacts:
        role = "owner" if contact["owner"] else "linked"
        refused = f"; refused: {contact['refused']}" if contact["refused"] else ""
        paper.line(
            escape(
                f"  {contact['connector']} {contact['record']}: {role}, {contact['state']}, "
                f"points {contact['points']}, written back {_stamp(contact['written_back'])}{refused}"
            )
        )
    for it in life.happenings:
        facts = ", ".join(f"{key} {value}" for key, value in it.facts.items() if value not in {None, ""})
        paper.line(escape(f"  {_stamp(it.at)} {it.what}: {facts}"))


def summary(life: Life) -> str:
    """Say in one sentence whether a member is up to date, and if not why."""
    fallen = life.credited - life.earned
    outcomes = {it.facts.get("outcome") for it in life.happenings if it.what == "sent"}
    sentences = (
        (life.in_doubt, "waits: a batch with it is in doubt, and the import log has not decided it yet."),
        ("held" in outcomes, f"waits: {life.unsettled:,} points are held until a person decides on them."),
        (life.unsettled, f"is being sent at this moment, with {life.unsettled:,} points."),
        (life.refused, "waits: the wallet refuses its row; it is sent again when the contact changes."),
        (
            any(contact["refused"] for contact in life.contacts),
            "is not up to date: a contact of it is in quarantine.",
        ),
        (life.due, "is about to be sent with the next cycle."),
        (fallen > 0, f"is up to date; the CRM's points fell by {fallen:,}, which is never taken back."),
        (life.delivered, "is up to date."),
    )
    return next((text for holds, text in sentences if holds), "is known, and nothing is to be sent.")


def _stamp(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"


def _ago(at: datetime | None, now: datetime) -> str:
    if at is None:
        return "never"
    passed = max(timedelta(), now - at)
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed.total_seconds() >= seconds:
            return f"{passed.total_seconds() / seconds:.0f}{unit} ago"
    return f"{passed.total_seconds():.0f}s ago"
