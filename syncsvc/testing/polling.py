"""Nothing is missed: sweeps, polls, and every edge at which change feeds lie."""

from __future__ import annotations

from datetime import timedelta

import pytest

from syncsvc.errors import CursorError
from syncsvc.testing.maker import Feature, Maker, needing
from syncsvc.testing.reading import Read, by_threads, calm, collected, read, read_in_steps, swept

MINUTE = timedelta(minutes=1)


class PollingTests:
    """Tests of `changes`, for contacts that are there."""

    def test_sweep_of_an_empty_account_is_complete_and_can_be_polled_from(self, crm: Maker) -> None:
        empty = read(crm, None)
        assert empty.live == set()
        crm.wait(MINUTE)
        (made,) = crm.people(1)
        assert made in read(crm, empty.cursor).live

    def test_sweep_brings_every_contact_with_its_fields(self, crm: Maker) -> None:
        made = crm.people(2 * crm.page + 1, note="ä")
        found = read(crm, None)
        assert found.live == set(made)
        assert len(found.pages) > 1
        assert found.value(made[-1], "note") == "ä"
        names = set(crm.needs().fields)
        assert all(names <= set(contact.fields) for contact in found.latest.values())

    def test_pages_may_be_taken_by_threads_in_turn(self, crm: Maker) -> None:
        made = crm.people(2 * crm.page + 1)
        assert collected(crm, by_threads(crm.connect().changes(None))).live == set(made)

    def test_sweep_resumed_after_every_page_loses_nothing(self, crm: Maker) -> None:
        made = crm.people(2 * crm.page + 1)
        found = read_in_steps(crm, None)
        assert found.live == set(made)
        assert len(found.pages) > 2

    def test_poll_resumed_after_every_page_loses_nothing(self, crm: Maker) -> None:
        made = crm.people(2 * crm.page + 1)
        cursor = calm(crm, swept(crm))
        crm.edit(made, {"note": "edited"})
        found = read_in_steps(crm, cursor)
        assert {one for one in found.live if found.value(one, "note") == "edited"} == set(made)

    def test_cursor_of_an_interrupted_sweep_goes_on_as_a_sweep_days_later(self, crm: Maker) -> None:
        made = crm.people(2 * crm.page + 1)
        first = Read(crm, (next(iter(crm.connect().changes(None))),))
        crm.wait(timedelta(days=3))
        assert (first + read(crm, first.cursor)).live == set(made)

    def test_change_comes_with_the_next_poll(self, crm: Maker) -> None:
        made = crm.people(3)
        cursor = calm(crm, swept(crm))
        crm.edit(made[1:2], {"note": "edited", "name": "Yak"})
        found = read(crm, cursor)
        assert (found.value(made[1], "note"), found.value(made[1], "name")) == ("edited", "Yak")

    def test_new_contact_comes_with_the_next_poll(self, crm: Maker) -> None:
        cursor = swept(crm)
        crm.wait(MINUTE)
        (made,) = crm.people(1)
        assert made in read(crm, cursor).live

    @pytest.mark.parametrize("skew", [timedelta(), timedelta(hours=2), timedelta(hours=-2)], ids=str)
    def test_change_is_found_whatever_this_machines_clock_says(self, crm: Maker, skew: timedelta) -> None:
        crm.network.skew = skew
        made = crm.people(3)
        cursor = swept(crm)
        for number in range(5):
            crm.wait(MINUTE)
            crm.edit(made[:1], {"note": str(number)})
            found = read(crm, cursor)
            assert found.value(made[0], "note") == str(number)
            cursor = found.cursor

    def test_idle_poll_is_at_most_one_request_and_keeps_the_cursor(self, crm: Maker) -> None:
        made = crm.people(3)
        cursor = swept(crm)
        crm.edit(made[:1], {"note": "edited"})
        cursor = calm(crm, cursor)
        if Feature.LOOKS in crm.features:
            crm.wait(crm.looks_every)
            cursor = read(crm, cursor).cursor  # a look was due, and none is for long
        connector = crm.connect()
        read(crm, cursor, connector)
        for _ in range(3):
            crm.wait(7 * MINUTE)
            before = crm.network.requests
            idle = read(crm, cursor, connector)
            assert [page.cursor for page in idle.pages] == [cursor]
            assert crm.network.requests - before <= 1

    def test_equal_stamps_across_page_edges_hide_nothing(self, crm: Maker) -> None:
        crm.people(crm.page // 2)
        cursor = calm(crm, swept(crm))
        before = crm.people(crm.page // 2 + 1)
        crm.wait(MINUTE)
        at_once = crm.people(2 * crm.page)
        crm.wait(MINUTE)
        after = crm.people(2)
        found = read_in_steps(crm, cursor)
        assert found.live >= {*before, *at_once, *after}
        assert len(found.pages) > 2

    def test_more_than_10_000_changes_of_one_instant_hide_nothing(self, crm: Maker) -> None:
        cursor = calm(crm, swept(crm))
        made = crm.people(10_050)
        found = read(crm, cursor)
        assert found.live == set(made)
        crm.wait(MINUTE)
        crm.edit(made[:1], {"note": "edited"})
        assert read(crm, found.cursor).value(made[0], "note") == "edited"

    @needing(Feature.LATE)
    def test_changes_that_become_visible_late_with_an_old_stamp_are_found(self, crm: Maker) -> None:
        made = crm.people(6)
        cursor = calm(crm, swept(crm))
        found = Read(crm, ())
        for number, late in enumerate(made[:3]):
            with crm.delayed(crm.lag * 0.9):
                crm.edit([late], {"note": "late"})
            crm.wait(MINUTE)
            crm.edit(made[3 + number :], {"note": "prompt"})
            found += read(crm, cursor)
            cursor = found.cursor
        for _ in range(14):
            crm.wait(MINUTE)
            found += read(crm, cursor)
            cursor = found.cursor
        assert [found.value(one, "note") for one in made] == ["late"] * 3 + ["prompt"] * 3

    @needing(Feature.LATE)
    def test_change_that_becomes_visible_after_a_sweep_with_a_stamp_before_it_is_found(
        self, crm: Maker
    ) -> None:
        (made,) = crm.people(1)
        with crm.delayed(crm.lag * 0.9):
            crm.edit([made], {"note": "late"})
        crm.wait(crm.lag * 0.1)
        found = Read(crm, ())
        cursor: str | None = None
        for _ in range(14):
            found += read(crm, cursor)
            cursor = found.cursor
            crm.wait(MINUTE)
        assert found.value(made, "note") == "late"

    @needing(Feature.LATE)
    def test_change_that_becomes_visible_in_the_middle_of_a_read_is_found(self, crm: Maker) -> None:
        made = crm.people(2 * crm.page + 1)
        cursor = calm(crm, swept(crm))
        with crm.delayed(MINUTE):
            crm.edit(made[:1], {"note": "late"})
        crm.edit(made[1:], {"note": "prompt"})
        pages = crm.connect().changes(cursor)
        found = Read(crm, (next(pages),))
        crm.wait(2 * MINUTE)
        found += collected(crm, pages)
        for _ in range(3):
            found += read(crm, found.cursor)
            crm.wait(crm.lag)
        assert found.value(made[0], "note") == "late"
        assert found.value(made[-1], "note") == "prompt"

    @pytest.mark.parametrize("sweeping", [True, False], ids=["sweep", "poll"])
    @pytest.mark.parametrize("restarts", [True, False], ids=["restarted", "running"])
    def test_changes_made_while_a_read_runs_are_found(
        self, crm: Maker, *, sweeping: bool, restarts: bool
    ) -> None:
        made = crm.people(2 * crm.page + 1)
        cursor = None
        if not sweeping:
            cursor = calm(crm, swept(crm))
            crm.edit(made, {"note": "before"})
        pages = crm.connect().changes(cursor)
        found = Read(crm, (next(pages),))
        crm.wait(2 * MINUTE)
        crm.edit([made[0], made[-1]], {"note": "meanwhile"})
        (new,) = crm.people(1)
        crm.wait(timedelta(hours=3))
        found += read(crm, found.cursor) if restarts else collected(crm, pages)
        crm.wait(MINUTE)
        found += read(crm, found.cursor)
        assert found.live == {*made, new}
        assert found.value(made[0], "note") == found.value(made[-1], "note") == "meanwhile"

    @needing(Feature.SHORT_PAGES)
    @pytest.mark.parametrize("sweeping", [True, False], ids=["sweep", "poll"])
    def test_short_and_empty_pages_are_not_taken_for_the_end(self, crm: Maker, *, sweeping: bool) -> None:
        made = crm.people(crm.page + 1)
        cursor = None
        if not sweeping:
            cursor = calm(crm, swept(crm))
            crm.edit(made, {"note": "edited"})
        crm.shorten_pages()
        assert read(crm, cursor).live == set(made)

    @pytest.mark.parametrize("text", ["", "{}", "null", "7 of 9", '{"since": "x"}', '{"sweep": "x"}'])
    def test_cursor_that_is_none_of_the_connectors_asks_for_a_sweep(self, crm: Maker, text: str) -> None:
        crm.people(1)
        with pytest.raises(CursorError):
            read(crm, text)

    @needing(Feature.EXPIRY)
    def test_cursor_that_the_crm_has_forgotten_asks_for_a_sweep(self, crm: Maker) -> None:
        crm.people(2 * crm.page + 1)
        first = next(iter(crm.connect().changes(None)))
        crm.forget_cursors()
        with pytest.raises(CursorError):
            read(crm, first.cursor)

    @pytest.mark.parametrize("value", [None, "", "😀 é \u202e", "x" * 10_000, "q\"'\\", " a\n b\t"], ids=repr)
    def test_value_arrives_as_it_is_and_empty_as_none(self, crm: Maker, value: str | None) -> None:
        edited, made = crm.people(1) + crm.people(1, note=value)
        cursor = swept(crm)
        crm.wait(MINUTE)
        crm.edit([edited], {"note": value})
        for found in (read(crm, None), read(crm, cursor)):
            assert found.value(edited, "note") == (value or None)
        assert read(crm, None).value(made, "note") == (value or None)

    def test_value_that_was_emptied_is_read_as_empty(self, crm: Maker) -> None:
        (made,) = crm.people(1, note="full")
        cursor = calm(crm, swept(crm))
        crm.edit([made], {"note": None})
        assert read(crm, cursor).value(made, "note") is None
