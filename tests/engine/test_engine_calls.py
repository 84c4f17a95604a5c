"""What each CRM is asked: in a quiet cycle, for one change and for many, beside the fewest that could do."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from daylab import Day, open_lab
from dynamics_maker import DynamicsMaker
from hubspot_maker import HubSpotMaker
from pipedrive_maker import PipedriveMaker
from salesforce_maker import SalesforceMaker

from syncsvc.testing import Maker

CHANGED = 200
CYCLES = 12
PAGE = Path(__file__).parents[2] / "bench" / "README.md"


@pytest.mark.parametrize("made", [SalesforceMaker, HubSpotMaker, DynamicsMaker, PipedriveMaker])
def test_a_crm_is_asked_no_more_than_the_page_says(made: type[Maker], tmp_path: Path) -> None:
    def cycles(number: int) -> list[int]:
        found = []
        for _ in range(number):
            made_before = lab.network.calls[desk.address]  # type: ignore[attr-defined]
            lab.cycle(60)
            found.append(lab.network.calls[desk.address] - made_before)  # type: ignore[attr-defined]
        return found

    with open_lab(tmp_path) as lab:
        day = Day(lab, 1, [made])
        (desk,) = day.desks
        people = [{"email": f"m{it}@example.org", "name": "Ada", "note": "5"} for it in range(CHANGED)]
        records = desk.maker.put(people)
        cycles(2 * CYCLES)
        quiet = cycles(CYCLES)
        desk.maker.edit(records[:1], {"note": "6"})
        one = cycles(CYCLES)
        desk.maker.edit(records, {"note": "7"})
        many = cycles(CYCLES)
        day.close()
    assert quiet == [1] * CYCLES
    assert one == [2] + [1] * (
        CYCLES - 1
    )  # a poll and a write; its echo comes with a poll that is due anyway
    fewest = CYCLES + math.ceil(CHANGED / made.batch)
    row = f"| {made.type} | 1 | 1 | 2 | 2 | {sum(many)} | {fewest} |"
    assert row in PAGE.read_text(encoding="utf-8"), f"bench/README.md must have: {row}"
