"""How the erasure of a person is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import click
from rich.markup import escape

from syncsvc.state.erasure import Trace
from syncsvc.views.paper import Paper, print_json

Traces = Mapping[str, Sequence[Trace]]
"""The traces of one person by the organization's name."""


def show_obstacles(found: Traces) -> None:
    """Say on standard error what must be done before the person can be forgotten."""
    for name, traces in found.items():
        for trace in traces:
            for obstacle in trace.obstacles:
                click.echo(f"{name}: {trace.brand_id}: {obstacle}", err=True)
    click.echo("nothing was erased", err=True)


def question(found: Traces) -> str:
    """Return what is asked before a person is erased."""
    told = [_told(name, trace) for name, traces in found.items() for trace in traces]
    return "\n".join([*told, "This cannot be undone. Erase the person?"])


def show_forgotten(done: Traces, *, scrubbed: bool, on_server: bool, as_json: bool) -> None:
    """Show what was erased, and what still holds the person."""
    if as_json:
        found = [
            {"organization": name, **asdict(trace), "pseudonym": trace.pseudonym}
            for name, traces in done.items()
            for trace in traces
        ]
        print_json({"forgotten": found, "scrubbed": scrubbed})
        return
    paper = Paper()
    for name, traces in done.items():
        for trace in traces:
            paper.line(f"{escape(_told(name, trace))} under {trace.pseudonym}")
    if scrubbed and on_server:
        paper.line("no query finds the person in the state any more; erase it in the wallet too")
        paper.line(
            "the server's files may hold remnants until VACUUM FULL; its log, its replicas and backups hold "
            "the person for as long as they are kept: docs/postgresql.md"
        )
    elif scrubbed:
        paper.line("nothing of the person is left in the state; erase it in the wallet too, and in backups")
    else:
        paper.line(
            "free pages of the state still hold the person: somebody reads it, so run the same again soon; "
            "or, on a server, its tables belong to somebody else, who may say VACUUM"
        )


def _told(name: str, trace: Trace) -> str:
    records = ", ".join(f"{connector} {record}" for connector, record in trace.records) or "no record"
    return f"{name}: the member of {trace.brand_id} ({records}) is erased; {trace.credited:,} points stay"
