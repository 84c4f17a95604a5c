"""Ready means delivering: the age of the last cycle that read everything and delivered what was due."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from enginelab import IMPORT, LOG
from quicklab import QuickLab

from syncsvc.errors import OperatorError
from syncsvc.runner import Health
from syncsvc.sandbox.faults import Kind
from syncsvc.watch.report import Outcome


def test_what_waits_for_a_person_does_not_unprove_the_loop(quick: QuickLab) -> None:
    quick.crm.put("a", points=1)
    quick.crm.put("b", email="nobody")
    report = quick.cycle()
    assert (report.outcome, report.quarantined, report.proven) == (Outcome.DEGRADED, 1, True)
    quick.crm.put("a", points=2)
    quick.fault(Kind.RESET_AFTER)
    assert not quick.cycle().proven
    assert quick.cycle().proven


def test_a_wallet_that_refuses_us_unproves_the_loop(quick: QuickLab) -> None:
    quick.crm.put("a", points=1)
    quick.cycle()
    fault = quick.fault(Kind.STATUS, LOG, times=None, status=403)
    reports = [quick.cycle(301) for _ in range(2)]
    assert fault.struck
    assert [(it.outcome, it.proven) for it in reports] == [(Outcome.DEGRADED, False)] * 2
    quick.wallet.faults.clear()
    assert quick.cycle().proven
    quick.crm.put("a", points=1, name="New")
    quick.fault(Kind.STATUS, IMPORT, status=401)
    assert not quick.cycle().proven
    assert quick.cycle().proven


def test_a_crm_that_refuses_us_unproves_the_loop(quick: QuickLab) -> None:
    def refuse(cursor: str | None) -> Iterator[Any]:
        raise OperatorError("the token is refused")
        yield cursor

    quick.cycle()
    read, quick.crm.read = quick.crm.read, refuse  # type: ignore[method-assign]
    report = quick.cycle()
    assert (report.outcome, report.proven) == (Outcome.DEGRADED, False)
    quick.crm.read = read  # type: ignore[method-assign]
    assert quick.cycle().proven


def test_a_crm_that_takes_no_write_backs_leaves_the_loop_proven(quick: QuickLab) -> None:
    def refuse(value: Any) -> Any:
        raise OperatorError(f"may not write {value.record_id}")

    quick.crm.write = refuse  # type: ignore[method-assign]
    quick.crm.put("a", points=1)
    report = quick.cycle()
    assert (report.outcome, report.proven) == (Outcome.DEGRADED, True)


def test_ready_is_a_loop_proven_within_three_intervals_and_a_minute_at_least() -> None:
    health = Health(every=60.0, born=0.0)
    assert (health.is_ready(1.0), health.facts(1.0)["last_proven_seconds"]) == (False, None)
    health.last_proven = 100.0
    assert (health.is_ready(280.0), health.is_ready(281.0)) == (True, False)
    assert health.facts(281.0)["last_proven_seconds"] == 181.0
    assert health.facts(281.0)["late_after_seconds"] == 180.0
    assert Health(every=0.2, born=0.0, last_proven=100.0).is_ready(160.0)
