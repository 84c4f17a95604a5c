"""Points that may be awarded twice stay shown until somebody has looked into them, whoever decided before."""

from __future__ import annotations

from datetime import timedelta

from enginelab import SETTLED
from quicklab import QuickLab

from syncsvc.sandbox.faults import Kind
from syncsvc.state.doubts import Choice, Evidence
from syncsvc.state.twice import Found
from syncsvc.watch.report import Outcome


def test_a_row_that_a_person_took_for_lost_and_that_lands_late_is_to_be_looked_into_once_more(
    quick: QuickLab,
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", points=50)
    quick.wallet.knobs.apply_seconds = 2 * SETTLED
    quick.fault(Kind.RESET_AFTER)
    quick.cycle()
    quick.wallet.knobs.apply_seconds = 0
    (row,) = quick.store.doubts.suspects()
    evidence = {row.row: Evidence(None, None, "unmoved")}
    assert quick.store.doubts.decide(row.batch, Choice.REFUTED, evidence, by="ann", now=quick.clock.now())
    quick.cycle()
    assert (quick.awarded("a@example.org"), quick.store.twice.open()) == (50, [])
    found = quick.cycle(3 * SETTLED)
    assert quick.awarded("a@example.org") == 90
    assert (found.points_paid_twice, found.outcome) == (40, Outcome.DEGRADED)
    (twice,) = quick.store.twice.open()
    assert (twice.record, twice.points, quick.store.reports.status().points_paid_twice) == ("a", 40, 40)
    now, ours = quick.clock.now(), (quick.crms, quick.wallet)
    quick.begin_anew("other")
    assert (quick.store.twice.open(), quick.store.reports.status().rows_paid_twice) == ([], 0)
    assert quick.store.twice.record(twice.batch, Found.TWICE, [twice.row], by="bob", now=now) == []
    quick.tables["name"] = "acme"
    quick.crms, quick.wallet = ours
    quick.reopen()
    assert quick.differences() == []
    assert quick.store.twice.record(twice.batch, Found.TWICE, [twice.row], by="bob", now=now) == [twice.row]
    assert quick.store.twice.record(twice.batch, Found.ONCE, [twice.row], by="ann", now=now) == []
    assert quick.cycle().points_paid_twice == 0
    books = quick.store.accounts.summary()
    assert (books.paid_twice, books.found_twice, books.credited) == ((), 40, 50)
    decided = [("twice", "bob"), ("refuted", "ann")]
    assert [(it.choice, it.by) for it in quick.store.doubts.history()] == decided

    # What was found stays found when the rest of the history has gone.
    assert quick.store.retention.prune(now + timedelta(days=400))
    assert quick.value("SELECT count(*) FROM batch_row") == 1
    assert (quick.store.twice.open(), quick.store.accounts.summary().found_twice) == ([], 40)
    assert [(it.choice, it.by) for it in quick.store.doubts.history()] == decided
    assert quick.differences() == []
