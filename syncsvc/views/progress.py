"""The progress of a cycle, at a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from syncsvc import tidings


@contextmanager
def bars() -> Iterator[tidings.Progress]:
    """Give what a cycle tells its progress to: bars on a terminal, nothing otherwise."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield tidings.no_progress
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        tasks: dict[tuple[str, str], TaskID] = {}

        def tell(step: str, where: str, done: int, expected: int | None) -> None:
            task = tasks.setdefault((step, where), TaskID(-1))
            if task == TaskID(-1):
                task = tasks[step, where] = shown.add_task(f"{step} {where}", total=expected)
            shown.update(task, completed=done, total=expected)

        yield tell
