"""What every view writes on: tables and lines for people, JSON for programs, and how times are told."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import click
import orjson
from click.core import ParameterSource
from rich.console import Console
from rich.table import Table

SHOWN = 20
_WIDE = 180


class Paper:
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


def empty_table(*columns: str, title: str | None = None, left: int = 1) -> Table:
    """Return an empty table; the first `left` columns hold words, the others numbers."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def to_type(words: str, organization: str = "") -> str:
    """Return a command as it is to be typed: with the `-c` of this one, or the file of one `organization`."""
    context = click.get_current_context(silent=True)
    root = None if context is None else context.find_root()
    path = None if root is None else root.params.get("path")
    if root is None or path is None:
        return f"syncsvc {words}"
    alone = (path / f"{organization}.toml").is_file()  # where a file has the name of its organization
    if not alone and root.get_parameter_source("path") is not ParameterSource.COMMANDLINE:
        return f"syncsvc {words}"
    return f"syncsvc -c {shlex.quote(str(path / f'{organization}.toml' if alone else path))} {words}"


def print_json(value: Any) -> None:
    """Write a value as indented JSON."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode() + "\n")


def stream_json(lists: Mapping[str, Iterable[Any]]) -> None:
    """Write lists by name as one JSON object, an element a line, without ever holding a list whole."""
    opening = "{"
    for name, elements in lists.items():
        sys.stdout.write(f"{opening}\n{orjson.dumps(name).decode()}: [")
        comma = ""
        for element in elements:
            sys.stdout.write(f"{comma}\n{orjson.dumps(element, default=str).decode()}")
            comma = ","
        sys.stdout.write("]")
        opening = ","
    sys.stdout.write("}\n" if lists else "{}\n")


def stamp(at: datetime | None) -> str:
    """Return a time to the second, in UTC."""
    return "never" if at is None else f"{at:%Y-%m-%d %H:%M:%S}Z"


def ago(at: datetime | None, now: datetime) -> str:
    """Return how long ago a time was, in its largest unit."""
    if at is None:
        return "never"
    passed = max(timedelta(), now - at)
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed.total_seconds() >= seconds:
            return f"{passed.total_seconds() / seconds:.0f}{unit} ago"
    return f"{passed.total_seconds():.0f}s ago"
