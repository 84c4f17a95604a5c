"""How a copy of the state is shown while it is made, and what became of it, or of what was saved."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from syncsvc.state.copying import Told
from syncsvc.state.salvage import Salvaged
from syncsvc.views.paper import Paper, print_json


@contextmanager
def progress() -> Iterator[Told | None]:
    """Give what the copy tells its progress to: a bar for each table on a terminal, nothing otherwise."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        tasks: dict[str, int] = {}

        def tell(table: str, done: int, whole: int) -> None:
            if table not in tasks:
                tasks[table] = shown.add_task(table, total=whole)
            shown.update(tasks[table], completed=done)  # type: ignore[arg-type]

        yield tell


def show_copied(
    copied: Mapping[str, int],
    balance: Mapping[str, Mapping[str, int]],
    others: Sequence[str],
    *,
    as_json: bool,
) -> None:
    """Show how many rows were copied, and whether the books balance; `balance` counts their differences.

    Those of the `others`, who are not configured, were not verified.
    """
    if as_json:
        counted = {side: dict(it) for side, it in balance.items()}
        print_json({"rows": dict(copied), "differences": counted, "not_verified": list(others)})
        return
    paper = Paper()
    told = ", ".join(f"{rows:,} of {escape(name)}" for name, rows in copied.items() if rows)
    paper.line(f"[green]✓[/] copied {sum(copied.values()):,} rows: {told or 'there were none'}")
    for side, differences in balance.items():
        for name, count in differences.items():
            if count:
                paper.line(f"[red]✗[/] {escape(name)}: the books of the {side} have {count:,} differences")
            else:
                paper.line(f"[green]✓[/] {escape(name)}: the books of the {side} balance, to the point")
    _show_others(paper, others)
    if any(balance["original"].values()):
        paper.line('    → see `syncsvc books --verify`, and docs/operations.md, "The books do not balance"')
    elif any(balance["copy"].values()):
        paper.line("    → do not start on the copy: empty it and copy again")
    else:
        paper.line("start the service on the copy; never on the original again: it knows nothing sent since")
        older = "was the original a backup, or older than what was sent?"
        first = "first `syncsvc state restore --by NAME` on the copy, or all sent since is awarded again"
        paper.line(f"{older} then {first}")


def _show_others(paper: Paper, others: Sequence[str]) -> None:
    for name in others:
        paper.line(f"[yellow]![/] {escape(name)}: its books were not verified, as it is not configured")


def show_backed_up(file: Path, balance: Mapping[str, int], others: Sequence[str], *, as_json: bool) -> None:
    """Show that a backup was made, and whether its books balance; `balance` counts their differences.

    Those of the `others`, who are not configured, were not verified.
    """
    if as_json:
        print_json({"file": str(file), "differences": dict(balance), "not_verified": list(others)})
        return
    paper = Paper()
    paper.line(f"[green]✓[/] the state as it is now is in {escape(str(file))}")
    paper.line("  it does not know what is sent from now on: go on with it by `syncsvc state restore` alone")
    for name, count in balance.items():
        if count:
            paper.line(f"[red]✗[/] {escape(name)}: its books have {count:,} differences")
            where = 'docs/operations.md, "The books do not balance"'
            paper.line(f"  → see `syncsvc books --verify`, and {where}", style="cyan")
        else:
            paper.line(f"[green]✓[/] {escape(name)}: its books balance, to the point")
    _show_others(paper, others)


def question_restore(file: Path | None) -> str:
    """Ask whether a state is to be put back, in the words of what follows from it."""
    what = "the state that is in place" if file is None else f"{file} in the place of the state"
    return (
        f"Go on with {what}, though it may not know what was sent last? All connectors are read, and all "
        "points that are owed then are in doubt: what the import log does not decide waits for a person"
    )


def show_restored(file: Path | None, former: Path | None, *, by: str, as_json: bool) -> None:
    """Show that a state was put back, and what comes next."""
    if as_json:
        facts = {"file": file and str(file), "former": former and str(former), "by": by}
        print_json(facts)
        return
    paper = Paper()
    what = "the state that is in place" if file is None else escape(str(file))
    paper.line(f"[green]✓[/] {what} is the state from now on, put back by {escape(by)}")
    if former is not None:
        paper.line(f"  the former one is kept as {escape(str(former))}")
    paper.line("  → start the service: it reads every connector before it sends anything", style="cyan")
    paper.line("  → then `syncsvc doubt` lists the points that may have been awarded since", style="cyan")


def show_salvaged(found: Salvaged, new: Path, *, balance: bool, as_json: bool) -> None:
    """Show what was saved, and whether a service may go on with it."""
    if as_json:
        print_json(asdict(found) | {"whole": found.whole, "balance": balance})
        return
    paper = Paper()
    rows = ", ".join(f"{table} {count:,}" for table, count in found.rows.items() if count)
    paper.line(f"saved into {escape(str(new))}: {escape(rows or 'nothing')}")
    if not found.whole:
        paper.line(f"[red]✗[/] rows are missing in: {escape(', '.join(found.damaged))}")
        why = "what is missing may be points that were awarded"
        paper.line(f"  → run no service on it: {why}; go on as docs/operations.md says", style="cyan")
    elif not balance:
        paper.line("[red]✗[/] every row was read, but the books do not balance")
        paper.line("  → syncsvc books --verify on it names the rows", style="cyan")
    else:
        paper.line("[green]✓[/] every row was read, and the books balance, to the point")
        then = "put it in the place of the damaged file, without the old -wal and -shm"
        paper.line(f"  → {then}", style="cyan")
