"""What other HubSpot integrations lost contacts by, where no other test shows it; see docs/connectors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from hubspot_maker import HubSpotMaker

from connectors.hubspot_pages import Pages
from syncsvc.model import WriteBack, Written
from syncsvc.remote.window import PollCursor
from syncsvc.sandbox.faults import Kind
from syncsvc.testing import Ground
from syncsvc.testing.maker import NOON
from syncsvc.testing.reading import calm, read, swept
from syncsvc.testing.writing import write, written

UPDATE = ("POST", "/contacts/batch/update")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "connectors" / "hubspot.md"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=False) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[HubSpotMaker]:
    maker = HubSpotMaker(ground, tmp_path)
    yield maker
    maker.close()


def test_cursor_from_the_epoch_on_is_searched_from_the_first_second_on(crm: HubSpotMaker) -> None:
    (made,) = crm.people(1)
    assert read(crm, PollCursor(since=NOON - timedelta(days=365 * 60)).encode()).live == {made}


def test_change_within_the_millisecond_that_was_read_last_is_found(crm: HubSpotMaker) -> None:
    first, second = crm.people(2)
    cursor = calm(crm, swept(crm))
    at = crm.clock.now().replace(microsecond=123_456)
    crm.crm.touch_many([first], at)
    found = read(crm, cursor)
    assert first in found.live
    crm.crm.touch_many([second], at + timedelta(microseconds=400))
    crm.wait(timedelta(seconds=5))
    assert second in read(crm, found.cursor).live


@pytest.mark.parametrize(
    "stamp",
    [
        "2026-11-02T12:00:00Z",
        "2026-11-02T12:00:00.5Z",
        "2026-11-02T14:00:00+02:00",
        "1793620800",
        "",
        None,
    ],
)
def test_stamps_of_any_form_are_read(crm: HubSpotMaker, stamp: str | None) -> None:
    cursor = swept(crm)
    properties = {**dict.fromkeys(crm.needs().fields), "lastmodifieddate": stamp}
    crm.strike(Kind.STATUS, "search", status=200, body={"results": [{"id": "7", "properties": properties}]})
    found = read(crm, cursor)
    assert found.live == {"7"}
    assert PollCursor.parse(found.cursor).since <= crm.clock.now()


@pytest.mark.parametrize(
    "body",
    [
        b'{"results":[],"more":%b}',
        b'{"results":[{"id":"1","properties":{"email":%b}}]}',
        b'{"results":[{"id":"1","properties":{"email":12,"other":%b}}]}',
    ],
)
def test_lists_in_lists_without_end_are_no_page(body: bytes) -> None:
    deep = 100_000
    assert Pages(["email"]).read(body % (b"[" * deep + b"]" * deep)) is None


def test_calculated_property_is_told_by_check_and_its_changes_come_with_the_sweep(crm: HubSpotMaker) -> None:
    (made,) = crm.people(1)
    crm.crm.define("note", "string", "calculation_equation", read_only=True)
    cursor = calm(crm, swept(crm))
    crm.edit([made], {"note": "calculated"})
    assert read(crm, cursor).live == set()
    assert read(crm, None).value(made, "note") == "calculated"
    (problem,) = crm.connect().check()
    assert (problem.where, "calculates it" in problem.message) == ("property note", True)


def test_bulk_job_that_moves_every_stamp_is_read_once_and_not_for_ever(crm: HubSpotMaker) -> None:
    made = crm.people(1000)
    cursor = calm(crm, swept(crm))
    crm.crm.touch_many(made, crm.clock.now())
    before = crm.network.requests
    calm(crm, cursor)
    assert crm.network.requests - before < 40


def test_write_back_names_no_record_twice_in_a_batch_though_two_were_merged(crm: HubSpotMaker) -> None:
    winner, loser, other = crm.people(3)
    into = crm.merge(winner, loser)
    outcomes = write(crm, [written(crm, one) for one in (winner, loser, into, other)])
    assert [one.result for one in outcomes] == [Written.MERGED] * 2 + [Written.WRITTEN] * 2


def test_batch_whose_answer_says_nothing_is_never_taken_for_written(crm: HubSpotMaker) -> None:
    made = crm.people(3)
    body = {"status": "COMPLETE", "results": [], "startedAt": "", "completedAt": ""}
    crm.strike(Kind.STATUS, "update", status=200, body=body, times=None)
    outcomes = write(crm, [written(crm, one) for one in made])
    assert [one.result for one in outcomes] == [Written.RETRY] * 3
    assert all(crm.holds(one)["last_updated"] is None for one in made)


def test_conflict_refuses_one_contact_and_not_its_batch(crm: HubSpotMaker) -> None:
    made = crm.people(4)
    body = {"status": "error", "category": "CONFLICT", "message": "zebra@example.org already exists"}
    crm.strike(Kind.STATUS, "update", status=409, body=body, times=3)  # all, the first half, the first
    outcomes = write(crm, [written(crm, one) for one in made])
    assert [one.result for one in outcomes] == [Written.REFUSED] + [Written.WRITTEN] * 3
    assert outcomes[0].detail == "CONFLICT"


def test_empty_text_is_written_as_empty_and_null_never(crm: HubSpotMaker) -> None:
    (made,) = crm.people(1)
    write(crm, [written(crm, made)])
    write(crm, [WriteBack(made, {"wallet_status": ""})])
    assert crm.holds(made)["status"] in {None, ""}


def test_every_test_that_the_page_names_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    places = [*ROOT.glob("tests/*/test_*.py"), *ROOT.glob("syncsvc/testing/*.py")]
    known = set(re.findall(r"def (test_\w+)\(", "".join(one.read_text(encoding="utf-8") for one in places)))
    assert named <= known, sorted(named - known)
    assert len(re.findall(r"^\| \d+ \|", text, re.MULTILINE)) == 29
