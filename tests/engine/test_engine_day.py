"""Two simulated hours of random work and trouble in several CRMs at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from daylab import Day, open_lab
from dynamics_maker import DynamicsMaker
from hubspot_maker import HubSpotMaker
from pipedrive_maker import PipedriveMaker
from salesforce_maker import SalesforceMaker
from soak import SOAK

from syncsvc.testing import Maker

SEEDS = 300 if SOAK else 2
GROUPS = 2
THREE = (SalesforceMaker, HubSpotMaker, DynamicsMaker)
WORLDS: dict[str, tuple[type[Maker], ...]] = {"three CRMs": THREE}
if SOAK:
    WORLDS["Pipedrive"] = (PipedriveMaker,)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("group", range(GROUPS))
def test_a_day_of_edits_merges_deletes_lags_and_faults_ends_in_order(
    tmp_path: Path,
    world: str,
    group: int,
    proven: Callable[[str, int], None],
    spent: Callable[[str, tuple[int, int, int]], None],
) -> None:
    with open_lab(tmp_path) as lab:
        for seed in range(group, SEEDS, GROUPS):
            print("seed", seed)  # noqa: T201 - what a failing day is lived again with
            day = Day(lab, seed, WORLDS[world])
            day.live()
            day.evening()
            day.in_order()
            day.silent()
            day.close()
            for crm, counts in day.spent().items():
                spent(crm, counts)
    proven(f"days of two hours in {world}", len(range(group, SEEDS, GROUPS)))
