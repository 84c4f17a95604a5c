"""How the books are shown, and where they do not balance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import Any

from rich.markup import escape

from syncsvc.state.accounts import By, Summary
from syncsvc.state.audit import Difference
from syncsvc.state.twice import PaidTwice
from syncsvc.views.paper import SHOWN, Paper, empty_table, print_json, stamp, stream_json
from syncsvc.views.witness import told_of_witness

_WORDS = {By.MEMBER: 4, By.CYCLE: 2, By.DAY: 1, By.BATCH: 4}
"""How many of the first columns hold words; the others are numbers."""


def show_summaries(books: Mapping[str, Summary], *, as_json: bool) -> None:
    """Show what the books come to."""
    if as_json:
        print_json({name: asdict(summary) for name, summary in books.items()})
        return
    paper = Paper()
    for name, it in books.items():
        paper.line(
            f"[bold]{escape(name)}[/]: {it.members:,} members, {it.ledger_rows:,} rows in the ledger, "
            f'points = "{escape(it.mode)}"'
        )
        table = empty_table("points", "")
        table.show_header = False
        for label, points in (
            ("earned, says the CRM", it.earned),
            ("= credited", it.credited),
            ("+ in flight", it.in_flight),
            ("+ in doubt", it.in_doubt),
            ("+ held", it.held),
            ("+ owed", it.owed),
            (f"- fallen behind ({it.members_fallen:,} members)", it.fallen_behind),
        ):
            table.add_row(label, f"{points:,}")
        paper.table(table)
        table = empty_table("credited as", "proof", "rows", "points", left=2)
        for rest in it.rests_on:
            table.add_row(rest.entry, rest.grade, f"{rest.rows:,}", f"{rest.points:,}")
        if it.rests_on:
            paper.table(table)
        _show_paid_twice(paper, it.paid_twice)
        if it.found_twice:
            paper.line(
                f"{it.found_twice:,} points were awarded twice, as people found → syncsvc doubt --history"
            )
        for witness in it.witnesses:
            paper.line(escape(f"beside these books: {told_of_witness(witness)}"))


def _show_paid_twice(paper: Paper, rows: Sequence[PaidTwice]) -> None:
    if not rows:
        return
    points = sum(it.points for it in rows)
    paper.line(
        f"[red]{points:,} points may be awarded twice[/]: no entry had moved, so they were sent again, then "
        "their entries moved once more → syncsvc doubt"
    )
    for it in rows[:SHOWN]:
        owner = f"member {it.member}" if it.record is None else f"{it.connector} {it.record}"
        what = f"  batch {it.batch} row {it.row} ({owner}): {it.points:,} points, moved {stamp(it.landed_at)}"
        paper.line(escape(what))
    if len(rows) > SHOWN:
        paper.line(f"  … and {len(rows) - SHOWN:,} more (--json gives all)")


def show_books(
    books: Mapping[str, Iterator[dict[str, Any]]], *, by: By, limit: int | None, as_json: bool
) -> None:
    """Show the books line by line, up to `limit` lines of each organization."""
    if as_json:
        stream_json({name: lines if limit is None else islice(lines, limit) for name, lines in books.items()})
        return
    paper = Paper()
    for name, lines in books.items():
        shown = list(lines if limit is None else islice(lines, limit))
        if not shown:
            paper.line(f"{escape(name)}: nothing stands in the books yet")
            continue
        columns = (column.replace("_", " ") for column in shown[0])
        table = empty_table(*columns, title=escape(name), left=_WORDS[by])
        for line in shown:
            table.add_row(*(_cell(value) for value in line.values()))
        paper.table(table)
        if next(lines, None) is not None:
            paper.line(f"… and more: --limit 0 shows all, --limit N the first N (now {limit})")


def show_differences(found: Mapping[str, Iterable[Difference]], *, as_json: bool) -> bool:
    """Show where the books do not balance; returns whether they do."""
    counts = dict.fromkeys(found, 0)

    def counted(name: str) -> Iterator[Difference]:
        for difference in found[name]:
            counts[name] += 1
            yield difference

    if as_json:
        stream_json({name: (asdict(it) for it in counted(name)) for name in found})
        return not any(counts.values())
    paper = Paper()
    for name in found:
        for it in counted(name):
            if counts[name] <= SHOWN:
                paper.line(f"[red]✗[/] {escape(name)}: {escape(it.where)}: {escape(it.what)}")
                paper.line(f"    → {escape(it.remedy)}", style="cyan")
        if counts[name] == 0:
            paper.line(f"[green]✓[/] {escape(name)}: the books balance, to the point")
        else:
            rest = f", of which {SHOWN} are shown (--json gives all)" if counts[name] > SHOWN else ""
            paper.line(
                f"[red]{escape(name)}: {counts[name]:,} differences{rest}[/]: stop the service before it "
                'sends more, and follow docs/operations.md, "The books do not balance"'
            )
    return not any(counts.values())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return stamp(value)
    return escape(f"{value:,}") if isinstance(value, int) else escape(str(value))
