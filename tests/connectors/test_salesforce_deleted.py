"""Salesforce's log of deletions: a hint that is looked at seldom, checked, and never needed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from salesforce_maker import SalesforceMaker

from connectors import salesforce_deleted
from syncsvc.errors import TransientError
from syncsvc.remote.window import PollCursor
from syncsvc.sandbox.faults import Kind
from syncsvc.testing import Ground
from syncsvc.testing.reading import Read, read, swept

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
LOG = "/sobjects/Contact/deleted"


class LeadMaker(SalesforceMaker):
    """An org of leads."""

    sobject = "Lead"

    def settings(self) -> dict[str, object]:
        return super().settings() | {"object": "Lead"}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=True) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[SalesforceMaker]:
    maker = SalesforceMaker(ground, tmp_path)
    yield maker
    maker.close()


def looks(crm: SalesforceMaker) -> int:
    return crm.org.requests["GET", "/services/data/v{version}/sobjects/{sobject}/deleted"]


def without_look(cursor: str) -> str:
    """Return a cursor as it was stored before polls looked for deletions."""
    return PollCursor(since=PollCursor.parse(cursor).since).encode()


def gone(found: Read) -> set[str]:
    return found.latest.keys() - found.live


def test_cursor_from_before_there_were_looks_goes_on_and_tells_what_was_missed(crm: SalesforceMaker) -> None:
    purged, kept = crm.people(2)
    old = without_look(swept(crm))
    assert "look" not in old
    crm.wait(HOUR)
    crm.purge(purged)
    crm.wait(timedelta(days=10))
    found = read(crm, old)
    assert gone(found) == {purged}
    assert read(crm, found.cursor).cursor == found.cursor
    assert kept in read(crm, None).live


def test_rows_that_came_back_or_were_merged_are_told_as_what_they_are(crm: SalesforceMaker) -> None:
    crm.org.knobs.deletions_name_restored = True
    restored, loser, winner, purged = crm.people(4)
    old = without_look(swept(crm))
    crm.wait(HOUR)
    crm.delete(restored)
    crm.purge(purged)
    crm.merge(winner, loser)
    crm.wait(MINUTE)
    crm.restore(restored)
    crm.wait(HOUR)
    found = read(crm, old)
    told = found.pages[-1].contacts  # the look's own page
    assert {(it.record_id, it.merged_into) for it in told} == {(loser, winner), (purged, None)}
    assert found.live == {restored, winner}


def test_look_stops_before_a_transaction_that_still_runs_and_tells_its_deletions_later(
    crm: SalesforceMaker,
) -> None:
    slow, quick = crm.people(2)
    cursor = without_look(swept(crm))
    crm.wait(HOUR)
    crm.org.delete("Contact", slow, visible_after=5400)
    crm.wait(10 * MINUTE)
    crm.purge(quick)
    crm.wait(20 * MINUTE)
    found = read(crm, cursor)
    assert gone(found) == {quick}
    crm.wait(HOUR + MINUTE)
    crm.org.purge("Contact", slow)
    assert gone(read(crm, found.cursor)) == {slow, quick}, "it goes on where the org had covered all"


@pytest.mark.parametrize("refusal", ["limit", "trimmed", "too-many"])
def test_deletions_that_the_org_does_not_tell_are_left_to_the_sweep(
    crm: SalesforceMaker, monkeypatch: pytest.MonkeyPatch, refusal: str
) -> None:
    purged, other, kept = crm.people(3)
    cursor = without_look(swept(crm))
    crm.wait(HOUR)
    if refusal == "limit":
        crm.org.knobs.deletions_limit = 1
    elif refusal == "trimmed":
        crm.org.knobs.refuses_trimmed = True
        crm.org.trim_deletions("Contact")
    else:
        monkeypatch.setattr(salesforce_deleted, "MOST", 1)
    crm.purge(purged)
    crm.purge(other)
    crm.wait(HOUR)
    found = read(crm, cursor)
    assert (gone(found), looks(crm)) == (set(), 2)
    crm.wait(MINUTE)
    assert read(crm, found.cursor).cursor == found.cursor
    assert looks(crm) == 2, "it is not asked again for an hour"
    assert read(crm, None).live == {kept}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"deletedRecords": [{"id": "zebra' OR '"}], "latestDateCovered": "2026-11-02T12:00:00.000+0000"},
        {"deletedRecords": [], "latestDateCovered": "soon"},
        {"deletedRecords": [], "latestDateCovered": "2026-11-02T12:00:00"},
    ],
    ids=["empty", "no-id", "no-time", "no-zone"],
)
def test_answer_that_is_no_list_of_deletions_ends_the_poll_and_keeps_what_it_brought(
    crm: SalesforceMaker, body: dict[str, object]
) -> None:
    purged, edited = crm.people(2)
    cursor = without_look(swept(crm))
    crm.wait(HOUR)
    crm.purge(purged)
    crm.edit([edited], {"note": "edited"})
    crm.wait(HOUR)
    crm.strike(Kind.STATUS, LOG, status=200, body=body, times=None)
    pages = crm.connect().changes(cursor)
    first = next(pages)
    assert [it.record_id for it in first.contacts] == [edited]
    with pytest.raises(TransientError):
        next(pages)
    crm.faults.clear()
    assert gone(read(crm, first.cursor)) == {purged}


def test_sweep_does_not_need_the_log(crm: SalesforceMaker) -> None:
    purged, kept = crm.people(2)
    crm.purge(purged)
    crm.wait(HOUR)
    crm.strike(Kind.STATUS, LOG, status=500, times=None)
    assert read(crm, None).latest.keys() == {kept}


def test_many_deletions_are_checked_in_pages_however_small(crm: SalesforceMaker) -> None:
    made = crm.people(700)
    cursor = without_look(swept(crm))
    crm.wait(HOUR)
    for record_id in made[:650]:
        crm.purge(record_id)
    crm.org.knobs.page_size = 30
    crm.org.knobs.deletions_name_restored = True
    for record_id in made[650:]:
        crm.delete(record_id)
        crm.restore(record_id)
    crm.wait(HOUR)
    found = read(crm, cursor)
    assert gone(found) == set(made[:650])
    assert found.live == set(made[650:])


def test_lead_that_was_purged_is_told_too(ground: Ground, tmp_path: Path) -> None:
    crm = LeadMaker(ground, tmp_path)
    crm.org.define("Lead", "Note__c", "textarea", length=32_000)
    crm.org.define("Lead", "Wallet_At__c", "datetime")
    crm.org.define("Lead", "Wallet_Status__c")
    purged, converted, kept = crm.org.create_many(
        "Lead", [{"LastName": name, "Company": "Acme", "Email": f"{name}@example.org"} for name in "abc"]
    )
    cursor = without_look(swept(crm))
    crm.wait(HOUR)
    crm.purge(purged)
    crm.org.convert_lead(converted)
    crm.wait(HOUR)
    found = read(crm, cursor)
    assert gone(found) == {purged, converted}
    assert kept in read(crm, found.cursor).latest or read(crm, None).live == {kept}
    crm.close()


def test_looks_are_left_out_where_they_are_not_wanted(crm: SalesforceMaker) -> None:
    (purged,) = crm.people(1)
    connector = crm.connect(deletions_every="0s")
    cursor = read(crm, None, connector).cursor
    crm.purge(purged)
    for _ in range(3):
        crm.wait(HOUR)
        cursor = read(crm, cursor, connector).cursor
    assert looks(crm) == 0
    assert read(crm, None, connector).live == set()
