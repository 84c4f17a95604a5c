"""How problems, the standing of organizations and the lives of members are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from rich.markup import escape

from syncsvc.model import Problem
from syncsvc.setup import Setup
from syncsvc.state.holds import Hold
from syncsvc.state.pauses import Pause
from syncsvc.state.reports import Life, Status
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
        """Whether something is held, in doubt, perhaps paid twice, quarantined or paused."""
        status = self.status
        paused = self.pauses or any(connector.trouble for connector in status.connectors)
        unsettled = status.rows_in_doubt or status.rows_held or status.rows_paid_twice
        return bool(self.holds or unsettled or status.quarantined or paused)


def show_problems(found: Mapping[str, Sequence[Problem]], *, as_json: bool) -> None:
    """Show what `check` found, grouped by organization."""
    if as_json:
        print_json({name: [asdict(problem) for problem in problems] for name, problems in found.items()})
        return
    paper = Paper()
    for name, problems in found.items():
        if not problems:
            paper.line(f"[green]✓[/] {escape(name)}: everything is in order")
            continue
        count = f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}"
        paper.line(f"[red]✗[/] {escape(name)}: {count}")
        for problem in problems:
            paper.line(f"  {escape(problem.where)}: {escape(problem.message)}")
            paper.line(f"    → {escape(problem.remedy)}", style="cyan")


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
    if last := status.last_cycle:
        paper.line(
            f"last cycle with work: {last['outcome']}, {last['rows_landed']:,} of {last['rows_sent']:,} rows "
            f"landed, {last['points_landed']:,} points, {last['written_back']:,} written back"
        )
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
            paper.line(f"[red]paused[/] {escape(it.name)}: {escape(it.trouble)}")
    for hold in standing.holds:
        paper.line(f"[red]held[/] {hold.id}: {escape(hold.detail)} → syncsvc release {hold.id}")


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


def show_lives(lives: Sequence[tuple[str, Life]], *, as_json: bool) -> None:
    """Show the life of a member: one sentence first, then what happened."""
    if as_json:
        print_json([{"organization": name, "summary": summary(life), **asdict(life)} for name, life in lives])
        return
    paper = Paper()
    if not lives:
        paper.line("no member has this email: no contact with it was read, or it is in quarantine")
    for name, life in lives:
        _show_life(paper, name, life)


def _show_life(paper: Paper, name: str, life: Life) -> None:
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
                f"points {contact['points']}, written back {stamp(contact['written_back'])}{refused}"
            )
        )
    for it in life.happenings:
        facts = ", ".join(f"{key} {value}" for key, value in it.facts.items() if value not in {None, ""})
        paper.line(escape(f"  {stamp(it.at)} {it.what}: {facts}"))


def summary(life: Life) -> str:
    """Say in one sentence whether a member is up to date, and if not why."""
    fallen = life.credited - life.earned
    outcomes = {it.facts.get("outcome") for it in life.happenings if it.what == "sent"}
    sentences = (
        (life.in_doubt, "waits: a batch with it is in doubt, and the import log has not decided it yet."),
        (
            "held" in outcomes,
            f"waits: {life.unsettled:,} points are held until a person decides on them (`syncsvc doubt`).",
        ),
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
