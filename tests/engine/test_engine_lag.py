"""A server that comes back without what was committed, as one that lagged does, awards nothing again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from enginelab import SETTLED
from grounds import GROUNDS, Tables
from postgres import Postgres
from quicklab import QuickLab

from syncsvc.errors import StateError
from syncsvc.state.database import Database
from syncsvc.state.restoration import put_back

TOLD = "does not know batch"
CUT = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


@pytest.fixture
def lab(open_quick: Callable[..., QuickLab], postgres: Postgres) -> Iterator[QuickLab]:
    GROUNDS.server = None
    lab = open_quick()
    lab.close()
    own, lab.ground = lab.ground, Tables(postgres.database(), [])
    lab.restart()
    yield lab
    lab.close()
    lab.ground.end()
    lab.ground = own
    lab.restart()


def lag(lab: QuickLab, contents: str) -> None:
    """Let a replica take over that has these contents: every connection to the other one is gone."""
    lab.ground.restore(contents)
    lab.ground.rows(CUT)


def test_what_was_sent_before_a_replica_took_over_that_lagged_is_not_sent_again(lab: QuickLab) -> None:
    lab.crm.put("a", points=100)
    lab.calm()
    lagging = lab.ground.contents()
    lab.crm.put("a", points=150)
    lab.cycle()
    lab.cycle(SETTLED)
    assert lab.awarded("a@example.org") == 150
    lag(lab, lagging)
    for _ in range(3):
        with pytest.raises(StateError, match=TOLD):
            lab.cycle(SETTLED)
    assert lab.awarded("a@example.org") == 150
    with pytest.raises(StateError, match=TOLD):  # whoever else comes is told, too
        Database.open(lab.state)
    lab.close()
    lab.ground.change("DELETE FROM replica")  # as time does
    with Database.open_older(lab.state) as database:
        put_back(database, [lab.organization.config], by="ann")
    lab.restart()
    for _ in range(3):
        lab.cycle(SETTLED)
    assert lab.awarded("a@example.org") == 150
    assert sum(it.points for it in lab.store.doubts.suspects()) == 50


def test_a_replica_that_knows_all_that_was_sent_goes_on(lab: QuickLab) -> None:
    lab.crm.put("a", points=100)
    lab.calm()
    lag(lab, lab.ground.contents())
    lab.crm.put("a", points=150)
    for _ in range(3):
        lab.cycle(SETTLED)
    assert lab.awarded("a@example.org") == 150
    lab.balanced()
