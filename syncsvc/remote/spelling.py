"""What a name that is not known was probably meant to be."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

_ALIKE = 0.75


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a question that names the known name most like this one, with a space behind, or nothing."""
    close = get_close_matches(name, known, n=1, cutoff=_ALIKE)
    return f"did you mean {close[0]}? " if close else ""
