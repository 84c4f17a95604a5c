"""Tells the line on which each key of a TOML text stands, so that a problem can be shown where it is.

Keys inside an inline table or an array share the line on which their statement begins.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence

Place = tuple[str | int, ...]

_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|\n|[\[\]{}=.,]|[^\s"\'#\[\]{}=.,]+',
    re.DOTALL,
)


def lines_of(text: str) -> dict[Place, int]:
    """Return the line of every table and of every key that begins a statement; `text` is valid TOML.

    A place is the path to a key: names, and numbers from 0 in an array of tables.
    """
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for line, statement in _statements(text):
        if statement[0] != "[":
            place = _place(table, statement[: statement.index("=")], counts)
        elif statement[1] == "[":
            place = _place((), statement[2:-2], counts)
            counts[place] = counts.get(place, -1) + 1
            table = place = (*place, counts[place])
        else:
            table = place = _place((), statement[1:-1], counts)
        for length in range(1, len(place) + 1):
            lines.setdefault(place[:length], line)
    return lines


def _place(table: Place, pieces: Sequence[str], counts: Mapping[Place, int]) -> Place:
    place = table
    for number, piece in enumerate(key for key in pieces if key != "."):
        if number and place in counts:
            place = (*place, counts[place])
        place = (*place, tomllib.loads(f"{piece}=0").popitem()[0])
    return place


def _statements(text: str) -> Iterator[tuple[int, list[str]]]:
    line = start = 1
    depth = 0
    pieces: list[str] = []
    for found in _PIECE.finditer(f"{text}\n"):
        piece = found[0]
        if piece == "\n" and depth == 0:
            if pieces:
                yield start, pieces
            pieces = []
        elif not piece.isspace() and not piece.startswith("#"):
            start = start if pieces else line
            pieces.append(piece.strip())
            depth += (piece in {"[", "{"}) - (piece in {"]", "}"})
        line += piece.count("\n")
