"""Which contact a member belongs to, where several map to one email.

The first seen owns the member, and keeps it through every edit: profile and points come from the owner alone.
Ownership passes on only when the owner is gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def heir(contacts: Iterable[tuple[int, str]], positions: Mapping[int, int]) -> tuple[int, str] | None:
    """Return the contact that a member passes to, or None where nobody is left.

    `contacts` are (connector id, record id); the connector that stands first in the file comes first, then
    the lowest record id, so that the choice does not depend on the order of reading.
    """
    return min(contacts, key=lambda it: (positions.get(it[0], len(positions)), it[1]), default=None)
