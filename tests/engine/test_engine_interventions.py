"""What a person does beside the service: pausing, and deciding on what is in quarantine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from quicklab import QuickLab

from syncsvc.model import WriteOutcome, Written
from syncsvc.state.quarantine import Choice, Refusal, Side
from syncsvc.watch.report import CycleReport, Outcome

OpenQuick = Callable[..., QuickLab]


def refusals(lab: QuickLab) -> list[Refusal]:
    found: list[Refusal] = lab.store.quarantine.refusals()
    return found


def decide(lab: QuickLab, choice: Choice, *sides: Side) -> None:
    chosen = [it for it in refusals(lab) if it.side in sides]
    assert {it.side for it in chosen} == {*sides}
    lab.store.quarantine.decide(chosen, choice, by="ann", now=lab.clock.now())


def asked(lab: QuickLab) -> tuple[int, int, int]:
    return (*lab.noise(), sum(crm.asked for crm in lab.crms.values()))


def pause(lab: QuickLab, connector: str | None = None) -> None:
    assert lab.store.pauses.begin(connector, by="ann", reason="the till counts twice", now=lab.clock.now())


def resume(lab: QuickLab, connector: str | None = None) -> None:
    assert lab.store.pauses.end(connector, by="bob", now=lab.clock.now()).by == "ann"


def outcome(report: CycleReport) -> tuple[Outcome, int]:
    return report.outcome, report.quarantined


def test_a_paused_organization_asks_nobody_anything_and_loses_nothing(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", points=15)
    pause(quick)
    before = asked(quick)
    for _ in range(3):
        assert quick.cycle(after=7200).outcome is Outcome.PAUSED
    assert asked(quick) == before
    assert not quick.store.pauses.begin(None, by="bob", reason=None, now=quick.clock.now())
    quick.restart()
    (it,) = quick.store.pauses.open()
    assert (it.connector, it.by, it.reason) == (None, "ann", "the till counts twice")
    resume(quick)
    assert quick.store.pauses.end(None, by="bob", now=quick.clock.now()) is None
    quick.calm()
    assert quick.awarded("a@example.org") == 15
    quick.balanced()


def test_a_paused_connector_is_left_alone_and_the_others_go_on(open_quick: OpenQuick) -> None:
    lab = open_quick(connectors={"crm": {}, "shop": {}})
    lab.crms["crm"].put("a", points=10)
    lab.crms["shop"].put("b", points=20)
    pause(lab, "crm")
    lab.wait(90_000)
    report = lab.cycle()
    assert (report.outcome, report.paused) == (Outcome.DEGRADED, ("crm",))
    assert (lab.crms["crm"].asked, lab.awarded("a@example.org")) == (0, 0)
    assert lab.awarded("b@example.org") == 20
    resume(lab, "crm")
    assert (lab.cycle().paused, lab.awarded("a@example.org")) == ((), 10)


def test_what_a_paused_connector_brought_before_is_delivered_and_not_written_back(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.wallet.knobs.abilities["wallet-sandbox"].discard("import")
    quick.cycle()
    quick.wallet.knobs.abilities["wallet-sandbox"].add("import")
    pause(quick, "crm")
    quick.cycle()
    assert quick.awarded("a@example.org") == 10
    assert quick.crm.writes == []
    resume(quick, "crm")
    quick.cycle()
    assert quick.crm.records["a"]["wallet_status"] == "imported"


def test_a_pause_of_a_connector_that_is_no_longer_configured_counts_no_more(open_quick: OpenQuick) -> None:
    lab = open_quick(connectors={"crm": {}, "shop": {}})
    pause(lab, "shop")
    lab.restart(connectors={"crm": {}})
    assert lab.store.pauses.open() == []
    assert lab.cycle().outcome is Outcome.OK


def test_a_plan_is_made_while_cycles_are_paused(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    pause(quick)
    assert quick.cycle(send=False).read == 1


def refused_by_wallet(lab: QuickLab) -> None:
    lab.crm.put("a", points=30)
    lab.wallet.knobs.max_points = 25
    lab.calm()
    assert [(it.record, it.side) for it in refusals(lab)] == [("a", Side.WALLET)]


def test_a_row_that_the_wallet_refused_is_sent_again_on_retry_and_stays_refused_where_it_refuses_again(
    quick: QuickLab,
) -> None:
    refused_by_wallet(quick)
    decide(quick, Choice.RETRY, Side.WALLET)
    assert refusals(quick) == []
    quick.calm()
    assert [it.side for it in refusals(quick)] == [Side.WALLET]
    quick.wallet.knobs.max_points = 100
    decide(quick, Choice.RETRY, Side.WALLET)
    quick.calm()
    assert (refusals(quick), quick.awarded("a@example.org")) == ([], 30)
    assert quick.crm.records["a"]["wallet_status"] == "imported"
    quick.balanced()


def test_a_dropped_row_is_told_of_no_more_until_its_contact_changes(quick: QuickLab) -> None:
    refused_by_wallet(quick)
    decide(quick, Choice.DROP, Side.WALLET)
    assert [it.dropped for it in refusals(quick)] == [True]
    assert outcome(quick.cycle()) == (Outcome.OK, 0)
    assert outcome(quick.cycle(after=90_000)) == (Outcome.OK, 0)
    assert quick.awarded("a@example.org") == 0
    quick.crm.put("a", points=31)
    quick.calm()
    assert outcome(quick.cycle()) == (Outcome.DEGRADED, 1)
    quick.crm.put("a", points=20)
    quick.calm()
    assert (refusals(quick), quick.awarded("a@example.org")) == ([], 20)


def test_a_contact_that_the_map_refused_is_read_and_judged_again_on_retry(quick: QuickLab) -> None:
    quick.crm.put("bad", email=None)
    quick.crm.put("good", points=3)
    quick.cycle()
    (first,) = refusals(quick)
    quick.cycle()
    before = quick.crm.asked
    quick.cycle()
    assert quick.crm.asked == before + 1, "a poll"
    decide(quick, Choice.RETRY, Side.MAPPING)
    quick.cycle()
    assert quick.crm.asked == before + 3, "a poll and a sweep"
    (again,) = refusals(quick)
    assert (again.record, again.reason) == (first.record, first.reason)
    assert again.since > first.since
    quick.cycle()
    assert quick.crm.asked == before + 4, "a poll: what was asked for is done"


def test_a_retry_during_a_sweep_asks_for_another_one(quick: QuickLab) -> None:
    quick.crm.page_size = 1000
    for number in range(2000):
        quick.crm.put(f"r{number:04}", email=None if number == 0 else f"r{number}@example.org")
    reached = iter([False, True])
    quick.cycle(stopping=lambda: next(reached))
    assert quick.value("SELECT sweep_cursor FROM connector")
    decide(quick, Choice.RETRY, Side.MAPPING)
    quick.cycle()
    assert quick.value("SELECT fingerprint IS NULL FROM contact WHERE record_id = 'r0000'")
    quick.cycle()
    assert not quick.value("SELECT fingerprint IS NULL FROM contact WHERE record_id = 'r0000'")


@pytest.mark.parametrize("change", ["mended", "worse", "gone"])
def test_a_dropped_contact_is_out_of_sight_until_what_it_is_refused_for_changes(
    quick: QuickLab, change: str
) -> None:
    quick.crm.put("bad", email=None, points=4)
    quick.cycle()
    decide(quick, Choice.DROP, Side.MAPPING)
    for _ in range(3):  # sweeps among them
        assert outcome(quick.cycle(after=90_000)) == (Outcome.OK, 0)
    if change == "mended":
        quick.crm.put("bad", email="bad@example.org")
        assert (outcome(quick.cycle()), quick.awarded("bad@example.org")) == ((Outcome.OK, 0), 4)
    elif change == "worse":
        quick.crm.put("bad", email="bad@example.org", name=None)
        assert outcome(quick.cycle()) == (Outcome.DEGRADED, 1)
    else:
        quick.crm.delete("bad")
        assert (outcome(quick.cycle()), refusals(quick)) == ((Outcome.OK, 0), [])


def test_a_dropped_email_change_stays_out_of_sight_though_sweeps_judge_it_anew(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", email="other@example.org")
    assert outcome(quick.cycle()) == (Outcome.DEGRADED, 1)
    decide(quick, Choice.DROP, Side.EMAIL)
    for _ in range(3):
        assert outcome(quick.cycle(after=90_000)) == (Outcome.OK, 0)
    quick.crm.put("a", email="third@example.org")
    assert outcome(quick.cycle()) == (Outcome.DEGRADED, 1)


def test_a_write_back_that_the_crm_refused_is_tried_at_once_on_retry_and_no_more_once_dropped(
    quick: QuickLab,
) -> None:
    quick.crm.put("a", points=10)
    quick.crm.outcomes["a"] = WriteOutcome("a", Written.REFUSED, "FIELD_FILTER_VALIDATION_EXCEPTION")
    quick.cycle()
    next_try = "SELECT next_at FROM write_retry"
    first = quick.value(next_try)
    quick.cycle()
    assert quick.value(next_try) == first
    decide(quick, Choice.RETRY, Side.CRM)
    quick.cycle()
    assert quick.value(next_try) > first
    decide(quick, Choice.DROP, Side.CRM)
    assert outcome(quick.cycle(after=90_000)) == (Outcome.OK, 0)
    assert quick.rows(next_try) == []
    quick.ground.change("UPDATE connector SET writes = NULL")  # as of a version before
    quick.restart()
    assert outcome(quick.cycle()) == (Outcome.OK, 0)
    assert quick.rows(next_try) == []
    del quick.crm.outcomes["a"]
    quick.crm.put("a", points=15)
    quick.calm()
    assert refusals(quick) == []
    assert quick.crm.records["a"]["wallet_status"] == "imported"


def test_what_was_settled_since_it_was_listed_is_left_alone(quick: QuickLab) -> None:
    refused_by_wallet(quick)
    listed = refusals(quick)
    quick.crm.put("a", points=20)
    quick.calm()
    for choice in Choice:
        quick.store.quarantine.decide(listed, choice, by="ann", now=quick.clock.now())
    assert refusals(quick) == []
    assert quick.rows("SELECT * FROM quarantine_decision") == []
    assert quick.cycle().rows_sent == 0


def test_decisions_are_remembered_with_who_and_when(quick: QuickLab) -> None:
    refused_by_wallet(quick)
    decide(quick, Choice.RETRY, Side.WALLET)
    kept: list[tuple[Any, ...]] = quick.rows(
        "SELECT record_id, side, choice, decided_by, decided_at > 0 FROM quarantine_decision"
    )
    assert kept == [("a", "wallet", "retry", "ann", 1)]
