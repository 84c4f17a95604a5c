"""Contacts that end, come back, or become one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from syncsvc.testing.maker import Feature, Maker, needing
from syncsvc.testing.reading import Read, calm, collected, read, read_in_steps, swept

MINUTE = timedelta(minutes=1)


class TellingTests:
    """Tests of `changes`, for contacts that are deleted, restored, merged or erased."""

    def test_deleted_contact_is_in_no_sweep_any_more(self, crm: Maker) -> None:
        kept, deleted = crm.people(2)
        crm.delete(deleted)
        assert read(crm, None).live == {kept}

    def test_contact_deleted_while_a_sweep_runs_is_brought_by_no_later_sweep(self, crm: Maker) -> None:
        made = crm.people(2 * crm.page + 1)
        pages = crm.connect().changes(None)
        found = Read(crm, (next(pages),))
        crm.delete(made[-1])
        found += collected(crm, pages)
        assert found.live >= set(made[:-1])
        assert read(crm, None).live == set(made[:-1])

    @needing(Feature.TOMBSTONES)
    def test_deleted_contact_is_told_by_the_next_poll(self, crm: Maker) -> None:
        _, deleted = crm.people(2)
        cursor = calm(crm, swept(crm))
        crm.delete(deleted)
        found = read(crm, cursor)
        assert found.latest[deleted].gone
        assert found.latest[deleted].merged_into is None

    @needing(Feature.LOOKS)
    def test_deletion_that_no_change_tells_is_told_by_polls_in_time(self, crm: Maker) -> None:
        kept, purged, other = crm.people(3)
        cursor = swept(crm)
        crm.purge(purged)
        crm.wait(MINUTE)
        crm.edit([other], {"note": "edited"})
        found = _polled(crm, cursor)
        assert found.latest[purged].gone
        assert found.latest[purged].merged_into is None
        assert kept not in found.latest or not found.latest[kept].gone
        assert not found.latest[other].gone

    @needing(Feature.LOOKS)
    def test_deletion_that_no_change_tells_is_told_by_the_next_sweep_for_certain(self, crm: Maker) -> None:
        made = crm.people(2 * crm.page + 1)
        crm.purge(made[0])
        crm.wait(2 * crm.lag)
        found = read_in_steps(crm, None)
        assert found.latest[made[0]].gone
        assert found.live == set(made[1:])

    @needing(Feature.LOOKS)
    def test_polls_look_for_deletions_seldom_also_after_restarts(self, crm: Maker) -> None:
        (purged,) = crm.people(1)
        connector, hours = crm.connect(), 6
        crm.wait(timedelta(days=1))
        cursor = read(crm, None, connector).cursor
        before, moves = crm.network.requests, 0
        for _ in range(4 * hours):
            crm.wait(crm.looks_every / 4)
            following = read(crm, cursor, connector).cursor
            moves += following != cursor
            cursor = following
        assert crm.network.requests - before <= 5 * hours
        assert 0 < moves <= hours + 2, "a look is remembered, and so is that all was read for good"
        crm.purge(purged)
        crm.wait(crm.looks_every)
        looked = read(crm, cursor).cursor
        before = crm.network.requests
        assert read(crm, looked, connector).cursor == looked
        assert crm.network.requests - before == 1

    @needing(Feature.LOOKS, Feature.RESTORE)
    def test_contact_that_came_back_before_a_look_is_not_told_as_gone(self, crm: Maker) -> None:
        kept, restored = crm.people(2)
        cursor = swept(crm)
        crm.delete(restored)
        crm.wait(MINUTE)
        crm.restore(restored)
        found = _polled(crm, cursor)
        assert restored not in found.latest or restored in found.live
        assert read(crm, None).live == {kept, restored}

    @needing(Feature.LOOKS, Feature.MERGE)
    def test_merge_is_told_as_a_merge_though_looks_see_the_loser_deleted(self, crm: Maker) -> None:
        winner, loser = crm.people(2)
        cursor = swept(crm)
        into = crm.merge(winner, loser)
        found = _polled(crm, cursor)
        assert into in found.live
        for old in {winner, loser} - {into}:
            assert _told(found, old, into)

    @needing(Feature.RESTORE)
    @pytest.mark.parametrize("polled", [True, False], ids=["polled-between", "at-once"])
    def test_restored_contact_is_live_again(self, crm: Maker, *, polled: bool) -> None:
        kept, deleted = crm.people(2)
        cursor = calm(crm, swept(crm))
        crm.delete(deleted)
        if polled:
            crm.wait(MINUTE)
            cursor = read(crm, cursor).cursor
        crm.restore(deleted)
        crm.wait(MINUTE)
        found = read(crm, cursor) + read(crm, None)
        assert found.live == {kept, deleted}

    @needing(Feature.VANISH)
    def test_erased_contact_is_in_no_sweep_any_more(self, crm: Maker) -> None:
        kept, erased = crm.people(2)
        cursor = swept(crm)
        crm.vanish(erased)
        crm.wait(MINUTE)
        assert erased not in read(crm, cursor).live
        assert read(crm, None).live == {kept}

    @needing(Feature.MERGE)
    def test_merge_is_told_by_the_next_poll_from_one_side_at_least(self, crm: Maker) -> None:
        winner, loser, other = crm.people(3)
        cursor = calm(crm, swept(crm))
        into = crm.merge(winner, loser)
        found = read(crm, cursor)
        assert into in found.live
        assert not found.live & ({winner, loser} - {into})
        for old in {winner, loser} - {into}:
            assert _told(found, old, into)
        assert read(crm, None).live == {into, other}

    @needing(Feature.MERGE)
    def test_chain_of_merges_is_told_to_its_end(self, crm: Maker) -> None:
        first, second, third = crm.people(3)
        cursor = calm(crm, swept(crm))
        both = crm.merge(first, second)
        found = read(crm, cursor)
        crm.wait(MINUTE)
        into = crm.merge(third, both)
        found += read(crm, found.cursor)
        assert read(crm, None).live == {into}
        for old in {first, second, third, both} - {into}:
            assert _reaches(found, old, into)


def _polled(crm: Maker, cursor: str) -> Read:
    """Read what polls bring in the time after which they have looked for deletions."""
    found, connector, times = Read(crm, ()), crm.connect(), 4
    for _ in range(times):
        crm.wait((crm.looks_every + 2 * crm.lag) / times)
        found += read(crm, cursor, connector)
        cursor = found.cursor
    return found


def _told(found: Read, old: str, into: str) -> bool:
    """Return whether a read tells that one contact has become another."""
    contacts = [contact for page in found.pages for contact in page.contacts]
    return any(
        (contact.record_id == old and contact.gone and contact.merged_into == into)
        or (contact.record_id == into and old in contact.merged_from)
        for contact in contacts
    )


def _reaches(found: Read, old: str, into: str) -> bool:
    ids = {contact.record_id for page in found.pages for contact in page.contacts}
    reached, news = set[str](), {old}
    while news:
        reached |= news
        news = {one for one in ids for last in news if _told(found, last, one)} - reached
    return into in reached
