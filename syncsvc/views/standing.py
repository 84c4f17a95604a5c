"""How problems and the standing of organizations are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from rich.markup import escape

from syncsvc.check import SERVICE, Findings
from syncsvc.setup import Setup
from syncsvc.state.holds import Hold
from syncsvc.state.pauses import Pause
from syncsvc.state.replicas import Holder
from syncsvc.state.reports import Status
from syncsvc.state.store import Store
from syncsvc.views.interventions import told_of_pause
from syncsvc.views.paper import Paper, ago, empty_table, print_json, stamp


@dataclass(frozen=True, slots=True)
class Standing:
    """An organization's status, with what is held and what is paused."""

    status: Status
    holds: tuple[Hold, ...]
    pauses: tuple[Pause, ...] = ()

    @classmethod
    def of(cls, store: Store) -> Standing:
        """Return how an organization stands now."""
        holds = tuple(it for it in store.holds.open() if it.released_by is None)
        return cls(store.reports.status(), holds, tuple(store.pauses.open()))

    @property
    def needs_attention(self) -> bool:
        """Whether something is held, in doubt, perhaps paid twice, quarantined, cut short or paused."""
        status = self.status
        stopped = self.pauses or any(connector.trouble for connector in status.connectors)
        unsettled = status.rows_in_doubt or status.rows_held or status.rows_paid_twice
        return bool(self.holds or unsettled or status.quarantined or stopped or status.troubles)


def show_findings(found: Mapping[str, Findings], *, as_json: bool) -> None:
    """Show what `check` found, grouped by organization; the service's own where there is something to say."""
    if as_json:
        listed = {name: [asdict(problem) for problem in it.all] for name, it in found.items()}
        print_json({name: problems for name, problems in listed.items() if problems or name != SERVICE})
        return
    paper = Paper()
    for name, it in found.items():
        if it.all:
            count = f"{len(it.all)} {'problem' if len(it.all) == 1 else 'problems'}"
            paper.line(f"[red]✗[/] {escape(name)}: {count}")
        else:
            paper.line(f"[green]✓[/] {escape(name)}: everything is in order")
        for problem in it.all:
            paper.line(f"  {escape(problem.where)}: {escape(problem.message)}")
            paper.line(f"    → {escape(problem.remedy)}", style="cyan")
        for fact in it.facts:
            paper.line(f"  {escape(fact)}", style="dim")


def show_setup(found: Mapping[str, Sequence[Setup]], *, as_json: bool) -> None:
    """Show what `setup` made, and what it left."""
    if as_json:
        print_json({name: [asdict(step) for step in steps] for name, steps in found.items()})
        return
    paper = Paper()
    for name, steps in found.items():
        for step in steps:
            mark = "[green]✓[/]" if step.done else "[red]✗[/]"
            paper.line(f"{mark} {escape(name)}: {escape(step.connector)}: {escape(step.message)}")


def show_status(found: Mapping[str, Standing], *, as_json: bool, now: datetime) -> None:
    """Show where organizations stand."""
    if as_json:
        print_json({name: asdict(standing) for name, standing in found.items()})
        return
    paper = Paper()
    for name, standing in found.items():
        _show_standing(paper, name, standing, now)


def _show_standing(paper: Paper, name: str, standing: Standing, now: datetime) -> None:
    status = standing.status
    paper.line(
        f"[bold]{escape(name)}[/]: {status.members:,} members, {status.due:,} to send, points "
        f"{status.credited:,} of {status.earned:,} credited, {status.unsettled:,} unsettled"
    )
    if status.lease is not None:
        paper.line(_told_of_lease(status.lease.holder, now))
    for pause in standing.pauses:
        paper.line(f"[yellow]paused[/] {escape(told_of_pause(name, pause, now))}")
    table = empty_table(
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
        whole = "now" if it.sweeping else ago(it.swept_at, now)
        counts = (it.contacts, it.excluded, it.quarantined, it.gone, it.write_due)
        table.add_row(escape(it.name), ago(it.moved_at, now), whole, *(f"{count:,}" for count in counts))
    paper.table(table)
    dropped = sum(it.dropped for it in status.connectors)
    if status.quarantined or dropped:
        paper.line(f"quarantined {status.quarantined:,}, dropped {dropped:,} → syncsvc quarantine")
    _show_doubts(paper, status, now)
    _show_last_cycle(paper, status, now)
    for it in status.connectors:
        if it.calls_left is not None and it.calls_allowed is not None:
            calls = f"{it.calls_left:,} of {it.calls_allowed:,} API calls of the day left"
            paper.line(f"{escape(it.name)}: {calls}, as told {ago(it.calls_told_at, now)}")
        if it.partial is not None:
            paper.line(
                f"[yellow]read in part[/] {escape(it.name)}: some records could not be told from others, so "
                f"that {it.partial:,} known contacts which were not found are not taken for gone; mend those "
                "records → syncsvc quarantine"
            )
        if it.trouble:
            paper.line(f"[red]unreadable[/] {escape(it.name)}: {escape(it.trouble)}")
    for hold in standing.holds:
        paper.line(f"[red]held[/] by {escape(hold.brake)}: {escape(hold.detail)} → syncsvc release")


def _told_of_lease(holder: Holder | None, now: datetime) -> str:
    if holder is None:
        return (
            "[yellow]nobody[/] has the lease of its cycles: a service takes it within seconds → syncsvc run"
        )
    lasts = f"until {stamp(holder.until)} unless it is renewed"
    return f"cycles are run by {escape(holder.name)}, since {ago(holder.since, now)}; its lease lasts {lasts}"


def _show_last_cycle(paper: Paper, status: Status, now: datetime) -> None:
    last, when = status.last_cycle, ago(status.last_cycle_at, now)
    if last is None:
        return
    rows = f"{last['rows_landed']:,} of {last['rows_sent']:,} rows landed"
    paper.line(
        f"last cycle with news: {last['outcome']} {when}, {rows}, {last['points_landed']:,} points, "
        f"{last['written_back']:,} written back"
    )
    for trouble in status.troubles:
        paper.line(f"[red]cut short[/] since {when}: {escape(trouble)} → syncsvc check")


def _show_doubts(paper: Paper, status: Status, now: datetime) -> None:
    hint = " → syncsvc doubt" if status.rows_in_doubt or status.rows_held else ""
    paper.line(
        f"import log read {ago(status.log_read_at, now)}; in doubt {status.rows_in_doubt:,}, "
        f"held {status.rows_held:,}{hint}"
    )
    if status.rows_paid_twice:
        rows = f"{status.rows_paid_twice:,} {'row' if status.rows_paid_twice == 1 else 'rows'}"
        paper.line(
            f"[red]{status.points_paid_twice:,} points may be awarded twice[/] ({rows} landed late) "
            "→ syncsvc doubt"
        )
