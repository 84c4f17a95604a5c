"""States that last, so that only their changes are told: a trouble of an hour is two lines, not sixty."""

from __future__ import annotations

WHOLE = ""
"""The condition of a part that has no trouble, and of one that nothing was told of yet."""

PAUSED = "paused"
"""The condition of what a person paused."""

UNREADABLE = "unreadable"
"""The condition of a connector that cannot be read until a person acts."""


class States:
    """The conditions of the parts of one organization, remembered from cycle to cycle of a process."""

    def __init__(self) -> None:
        self._conditions: dict[str, str] = {}

    def became(self, part: str, condition: str) -> bool:
        """Remember that a part is in this condition, and return whether that is news."""
        before = self._conditions.get(part, WHOLE)
        self._conditions[part] = condition
        return condition != before

    def of(self, part: str) -> str:
        """Return the condition a part is in."""
        return self._conditions.get(part, WHOLE)
