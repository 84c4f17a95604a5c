"""Write-back: visible, idempotent, accounted for value by value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from syncsvc.model import WriteBack, WriteOutcome, Written
from syncsvc.rules.values import read_instant
from syncsvc.testing.maker import Feature, Maker, needing
from syncsvc.testing.reading import calm, read, swept

MINUTE = timedelta(minutes=1)
AT = datetime(2026, 11, 1, 23, 30, 5, tzinfo=UTC)


def written(crm: Maker, record_id: str, *, at: datetime = AT, status: str = "imported") -> WriteBack:
    """Return both facts for a contact."""
    return WriteBack(record_id, {crm.written["last_updated"]: at, crm.written["status"]: status})


def write(crm: Maker, values: Sequence[WriteBack]) -> list[WriteOutcome]:
    """Write with a new connector; there is one outcome per value."""
    outcomes = list(crm.connect().write_back(values))
    assert len(outcomes) == len(values)
    return outcomes


class WritingTests:
    """Tests of `write_back`."""

    def test_what_is_written_is_what_the_crm_holds(self, crm: Maker) -> None:
        made, other = crm.people(2)
        assert write(crm, [written(crm, made)]) == [WriteOutcome(made, Written.WRITTEN)]
        holds = crm.holds(made)
        assert (holds["last_updated"], holds["status"]) == (AT, "imported")
        assert crm.holds(other)["last_updated"] is None

    def test_what_is_written_is_read_back_as_the_same(self, crm: Maker) -> None:
        (made,) = crm.people(1)
        cursor = calm(crm, swept(crm))
        write(crm, [written(crm, made, status="held: é 😀")])
        crm.wait(MINUTE)
        polled = [read(crm, cursor)] if Feature.ECHOES in crm.features else []
        for found in (*polled, read(crm, None)):
            assert read_instant(found.value(made, "last_updated")).at == AT
            assert found.value(made, "status") == "held: é 😀"

    def test_writing_changes_nothing_that_is_mapped(self, crm: Maker) -> None:
        (made,) = crm.people(1, note="as it was")
        before = {name: read(crm, None).value(made, name) for name in crm.names}
        write(crm, [written(crm, made)])
        assert {name: read(crm, None).value(made, name) for name in crm.names} == before

    def test_writing_the_same_twice_leaves_the_same(self, crm: Maker) -> None:
        (made,) = crm.people(1)
        write(crm, [written(crm, made)])
        once = dict(crm.holds(made))
        assert write(crm, [written(crm, made)]) == [WriteOutcome(made, Written.WRITTEN)]
        assert crm.holds(made) == once

    def test_a_later_value_replaces_the_earlier_one(self, crm: Maker) -> None:
        (made,) = crm.people(1)
        write(crm, [written(crm, made)])
        write(crm, [written(crm, made, at=AT + MINUTE, status="in doubt")])
        holds = crm.holds(made)
        assert (holds["last_updated"], holds["status"]) == (AT + MINUTE, "in doubt")

    def test_one_fact_alone_leaves_the_other_as_it_is(self, crm: Maker) -> None:
        (made,) = crm.people(1)
        write(crm, [written(crm, made)])
        write(crm, [WriteBack(made, {crm.written["status"]: "held"})])
        holds = crm.holds(made)
        assert (holds["last_updated"], holds["status"]) == (AT, "held")

    def test_more_than_one_request_takes_is_split_and_answered_in_order(self, crm: Maker) -> None:
        made = crm.people(2 * crm.batch + 1)
        values = [written(crm, one, at=AT + n * MINUTE) for n, one in enumerate(reversed(made))]
        outcomes = write(crm, values)
        assert outcomes == [WriteOutcome(value.record_id, Written.WRITTEN) for value in values]
        assert crm.holds(made[0])["last_updated"] == AT + 2 * crm.batch * MINUTE

    def test_nothing_to_write_asks_for_nothing(self, crm: Maker) -> None:
        assert write(crm, []) == []
        assert crm.network.requests == 0

    def test_write_to_a_deleted_contact_is_an_outcome(self, crm: Maker) -> None:
        first, deleted, last = crm.people(3)
        crm.delete(deleted)
        outcomes = write(crm, [written(crm, one) for one in (first, deleted, last)])
        assert [one.result for one in outcomes] == [Written.WRITTEN, Written.GONE, Written.WRITTEN]
        assert [one.record_id for one in outcomes] == [first, deleted, last]
        assert crm.holds(last)["last_updated"] == AT

    @needing(Feature.VANISH)
    def test_write_to_an_erased_contact_is_an_outcome(self, crm: Maker) -> None:
        kept, erased = crm.people(2)
        crm.vanish(erased)
        outcomes = write(crm, [written(crm, erased), written(crm, kept)])
        assert [one.result for one in outcomes] == [Written.GONE, Written.WRITTEN]

    @needing(Feature.MERGE)
    def test_write_to_a_merged_contact_is_an_outcome(self, crm: Maker) -> None:
        winner, loser, other = crm.people(3)
        into = crm.merge(winner, loser)
        outcomes = write(crm, [written(crm, loser), written(crm, other)])
        assert outcomes[0].result in {Written.MERGED, Written.GONE}
        assert outcomes[0].record_id == (into if outcomes[0].result is Written.MERGED else loser)
        assert outcomes[1] == WriteOutcome(other, Written.WRITTEN)

    @needing(Feature.MERGE, Feature.MERGED_WRITES)
    def test_write_to_a_merged_contact_reaches_the_one_that_lives_on(self, crm: Maker) -> None:
        winner, loser = crm.people(2)
        into = crm.merge(winner, loser)
        (outcome,) = write(crm, [written(crm, loser)])
        assert (outcome.record_id, outcome.result) == (into, Written.MERGED)
        assert crm.holds(into)["last_updated"] == AT

    @needing(Feature.REFUSALS)
    def test_refused_contact_neither_stops_the_others_nor_vanishes(self, crm: Maker) -> None:
        made = crm.people(crm.batch + 3)
        bad = {made[0], made[2], made[-1]}
        for one in bad:
            crm.refuse(one)
        outcomes = write(crm, [written(crm, one) for one in made])
        assert [one.record_id for one in outcomes] == made
        assert {one.record_id for one in outcomes if one.result is Written.REFUSED} == bad
        assert all(one.detail for one in outcomes if one.result is Written.REFUSED)
        assert {one.record_id for one in outcomes if one.result is Written.WRITTEN} == set(made) - bad
        for one in made:
            assert crm.holds(one)["last_updated"] == (None if one in bad else AT)

    @needing(Feature.LOCKS)
    def test_passing_trouble_of_one_contact_is_tried_again_later(self, crm: Maker) -> None:
        locked, free = crm.people(2)
        crm.lock(locked)
        outcomes = write(crm, [written(crm, locked), written(crm, free)])
        assert [one.result for one in outcomes] == [Written.RETRY, Written.WRITTEN]
