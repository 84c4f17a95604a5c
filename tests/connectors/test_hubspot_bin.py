"""HubSpot's recycle bin: read by every sweep, and by polls now and then where that is cheap."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import orjson
import pytest
from hubspot_maker import HubSpotMaker

from connectors import hubspot_bin
from syncsvc.errors import CursorError, TransientError
from syncsvc.remote.window import PollCursor
from syncsvc.sandbox.faults import Kind
from syncsvc.testing import Ground
from syncsvc.testing.reading import Read, collected, read, read_in_steps, swept

LIST = ("GET", "/contacts")
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=False) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[HubSpotMaker]:
    maker = HubSpotMaker(ground, tmp_path)
    yield maker
    maker.close()


def gone(found: Read) -> set[str]:
    return found.latest.keys() - found.live


def archive(crm: HubSpotMaker, record_ids: list[str]) -> None:
    for record_id in record_ids:
        crm.crm.archive(record_id)


def test_sweep_reads_the_whole_bin_and_goes_on_in_it_after_every_page(crm: HubSpotMaker) -> None:
    made = crm.people(260)
    archive(crm, made[:250])
    crm.wait(HOUR)
    found = read_in_steps(crm, None)
    assert (gone(found), found.live) == (set(made[:250]), set(made[250:]))
    assert orjson.loads(found.pages[0].cursor)["bin"] is True
    assert len(found.pages) == 3  # two of the bin, its last with the first of the living


def test_position_in_the_bin_that_hubspot_does_not_take_any_more_asks_for_a_new_sweep(
    crm: HubSpotMaker,
) -> None:
    archive(crm, crm.people(150))
    crm.wait(HOUR)
    first = next(iter(crm.connect().changes(None)))
    crm.forget_cursors()
    with pytest.raises(CursorError):
        read(crm, first.cursor)


def test_contact_that_is_restored_while_a_sweep_runs_is_found_alive(crm: HubSpotMaker) -> None:
    made = crm.people(150)
    archive(crm, made)
    crm.wait(HOUR)
    pages = crm.connect().changes(None)
    found = Read(crm, (next(pages),))
    assert made[3] in gone(found)
    crm.restore(made[3])
    found += collected(crm, pages)
    assert found.live == {made[3]}


def test_cursors_from_before_the_bin_was_read_go_on(crm: HubSpotMaker) -> None:
    made = crm.people(150)
    sweeping = orjson.loads(next(iter(crm.connect(deletions_every="0s").changes(None))).cursor)
    assert set(sweeping) == {"sweep", "after"}
    found = read(crm, orjson.dumps(sweeping).decode())
    assert found.live == set(made[100:])
    crm.wait(HOUR)
    archive(crm, made[:1])
    crm.wait(HOUR)
    old = PollCursor(since=PollCursor.parse(found.cursor).since).encode()
    polled = read(crm, old)
    assert gone(polled) == {made[0]}
    assert read(crm, polled.cursor).cursor == polled.cursor


def test_full_bin_costs_polls_a_few_calls_a_day_and_is_left_to_the_sweep(
    crm: HubSpotMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubspot_bin, "LOOK_PAGES", 2)
    made = crm.people(202)
    connector = crm.connect()
    cursor = read(crm, None, connector).cursor
    archive(crm, made[:201])
    before = crm.crm.requests[LIST]
    for _ in range(24):
        crm.wait(HOUR)
        cursor = read(crm, cursor, connector).cursor
    assert crm.crm.requests[LIST] - before == 2
    found = read(crm, None)
    assert (len(gone(found)), found.live) == (201, {made[-1]})


def test_merged_contact_is_told_as_merged_before_a_bin_that_lists_it_tells_it_gone(crm: HubSpotMaker) -> None:
    crm.crm.knobs.merged_are_archived = True
    winner, loser = crm.people(2)
    cursor = swept(crm)
    crm.wait(HOUR - 2 * MINUTE)
    with crm.delayed(crm.lag - MINUTE):
        into = crm.merge(winner, loser)
    found = Read(crm, ())
    for _ in range(24):
        crm.wait(3 * MINUTE)
        found += read(crm, cursor)
        cursor = found.cursor
    told = [(it.record_id, it.gone) for page in found.pages for it in page.contacts]
    assert told.index((into, False)) < told.index((loser, True))
    assert found.live == {into}


def test_who_was_merged_into_a_contact_that_is_archived_unread_is_told_with_it(crm: HubSpotMaker) -> None:
    winner, loser, stays = crm.people(3)
    cursor = swept(crm)
    into = crm.merge(winner, loser)
    crm.delete(into)
    found = Read(crm, ())
    for _ in range(3):
        crm.wait(HOUR)
        found += read(crm, cursor)
        cursor = found.cursor
    told = {it.record_id: it.merged_into for page in found.pages for it in page.contacts if it.gone}
    assert told == {winner: into, loser: into, into: None}
    assert gone(read(crm, None)) >= {winner, loser}
    assert read(crm, None).live == {stays}


def test_bin_that_shows_an_archived_contact_late_hides_none(crm: HubSpotMaker) -> None:
    crm.crm.knobs.archive_lag = (crm.lag - MINUTE).total_seconds()
    made = crm.people(12)
    cursor, found = swept(crm), Read(crm, ())
    for record_id in made:
        crm.crm.archive(record_id)
        crm.wait(11 * MINUTE)
        found += read(crm, cursor)
        cursor = found.cursor
    for _ in range(3):
        crm.wait(HOUR)
        found += read(crm, cursor)
        cursor = found.cursor
    assert gone(found) == set(made)


def test_trouble_in_a_look_keeps_what_the_poll_brought(crm: HubSpotMaker) -> None:
    archived, edited = crm.people(2)
    cursor = swept(crm)
    crm.wait(HOUR)
    archive(crm, [archived])
    crm.edit([edited], {"note": "edited"})
    crm.wait(HOUR)
    crm.strike(Kind.STATUS, "contacts$", status=500, times=None)
    pages = crm.connect().changes(cursor)
    first = next(pages)
    assert [it.record_id for it in first.contacts] == [edited]
    with pytest.raises(TransientError):
        next(pages)
    crm.faults.clear()
    assert gone(read(crm, first.cursor)) == {archived}


def test_bin_is_not_read_where_that_is_not_wanted(crm: HubSpotMaker) -> None:
    (archived,) = crm.people(1)
    connector = crm.connect(deletions_every="0s")
    cursor = read(crm, None, connector).cursor
    archive(crm, [archived])
    before = crm.crm.requests[LIST]
    for _ in range(3):
        crm.wait(HOUR)
        cursor = read(crm, cursor, connector).cursor
    assert crm.crm.requests[LIST] == before
    assert read(crm, None, connector).live == set()
