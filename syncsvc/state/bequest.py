"""What a contact brings along from a member that it left: see `inheritance`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from syncsvc.state.counted import Origin, parts_text, read_parts
from syncsvc.state.database import Record
from syncsvc.state.member import Member
from syncsvc.state.stakes import OpenRow


@dataclass(slots=True, eq=False)
class Bequest:
    """What an heir brings along from `source`: points that it was credited, and rows without an outcome.

    `taken` says that the source was emptied for it; `parts` are those points by where they were paid, and
    `owed` what the source was yet to be paid of them. `stored_for` is the record it is remembered for.
    """

    source: Member
    credited: int
    rows: list[OpenRow]
    parts: Mapping[Origin, int] = field(default_factory=dict)
    owed: int = 0
    taken: bool = False
    stored_for: str | None = None

    @property
    def unsettled(self) -> int:
        """The points of its rows."""
        return sum(row.points for row in self.rows)


class Remembered(NamedTuple):
    """What a contact is to bring along from the member `source`: see `Bequest`.

    `parts` are those points by where they were paid; what came since was paid in the source's `life` then.
    """

    source: int
    points: int
    owed: int
    parts: Mapping[Origin, int]
    rows: list[OpenRow]


def parts_of(row: Record) -> dict[Origin, int]:
    """Return where what is remembered was paid, by its row; the source's own part comes first."""
    others = read_parts(row.parts)
    return {Origin(row.member_id, row.life): max(0, row.points - sum(others.values())), **others}


def both(one: Bequest, other: Bequest) -> Bequest:
    """Return what comes from one source in two ways: the most paid at each place, and each row once."""
    late, early = sorted((one, other), key=lambda it: (next(iter(it.parts)).life, it.credited), reverse=True)
    own = next(iter(late.parts))
    parts = {own: late.parts[own]}
    for origin, points in chain(late.parts.items(), early.parts.items()):
        parts[origin] = max(parts.get(origin, 0), points)
    rows: dict[tuple[int, int], OpenRow] = {}
    for row in (*late.rows, *early.rows):
        key = row.batch_id, row.position
        rows[key] = max(row, rows.get(key, row), key=lambda it: it.points)
    return Bequest(late.source, sum(parts.values()), list(rows.values()), parts, late.owed)


def kept(source: int, parts: Mapping[Origin, int]) -> dict[str, Any]:
    """Return the columns that tell where an inheritance was paid; the source's own part comes first."""
    own, *others = parts
    assert own.member == source  # noqa: S101 - as `Counted.parts` and `parts_of` give them
    return {"life": own.life, "parts": parts_text({origin: parts[origin] for origin in others})}
