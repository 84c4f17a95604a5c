"""A wallet that answers nonsense: nothing is awarded twice, nothing is lost, nothing ends in an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from enginelab import LOG, SETTLED
from quicklab import QuickLab

from syncsvc.sandbox.faults import Kind

Open = Callable[..., QuickLab]
A = "a@example.org"
FUTURE = "SELECT count(*) FROM batch WHERE outcome < 3"

ANSWERS: list[tuple[int, Any]] = [
    (200, None),
    (200, []),
    (200, "landed"),
    (200, {"import_id": 7, "imported_members": 1}),
    (200, {"import_id": "x", "imported_members": "9" * 5000}),
    (200, {"import_id": "x", "imported_members": True}),
    (200, {"import_id": "x", "imported_members": 1, "errors": {"users.0.email": ["bad"]}}),
    (204, None),
    (226, {"import_id": ["x"], "imported_members": 1}),
    (300, None),
    (304, None),
    (400, {"message": "x"}),
    (402, None),
    (409, {"errors": {"users.0.email": ["exists"]}}),
    (418, b"\xff\xfe\x00"),
    (422, {"errors": {"users.5.email": ["no such row"]}}),
    (422, {"errors": {"organization_id": ["bad"]}}),
    (422, {"errors": [["users.0.email"]]}),
    (422, b"[" * 5000),
    (500, {"import_id": "x", "imported_members": 1}),
    (599, b""),
]


def test_no_nonsense_in_an_answer_awards_twice_loses_a_point_or_ends_in_an_error(quick: QuickLab) -> None:
    for number, (status, body) in enumerate(ANSWERS):
        quick.begin_anew(f"nonsense{number}")
        quick.crm.put("a", points=10)
        quick.cycle()
        quick.crm.put("a", points=50)
        quick.fault(Kind.STATUS, status=status, body=body)
        report = quick.cycle()
        assert "unexpectedly" not in " ".join(report.errors), (status, body)
        for after in (SETTLED, SETTLED):
            quick.cycle(after)
        refused = set(quick.quarantine())  # a row that is refused alone, and not named, is the bad one
        assert refused <= {"a"}
        assert quick.awarded(A) == (10 if refused else 50), (status, body)


def test_an_entry_far_in_the_future_keeps_no_points_waiting_and_proves_nothing(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    future = [{"email": A, "last_updated": "2031-01-01T00:00:00Z"}]
    quick.fault(Kind.STATUS, LOG, times=None, status=200, body={"success": True, "data": future})
    quick.cycle(SETTLED)
    quick.crm.put("a", points=50)
    quick.cycle()
    assert quick.awarded(A) == 50
    quick.crm.put("a", points=57)
    quick.fault(Kind.RESET_BEFORE)
    quick.cycle()
    for _ in range(3):
        quick.cycle(SETTLED)
    assert quick.awarded(A) == 50  # the entry cannot show that nothing arrived
    quick.cycle(3700)
    assert quick.cycle().held == 1


@pytest.mark.parametrize("spelled", ["A@EXAMPLE.ORG", "a@Example.org "])
def test_an_email_in_another_spelling_is_the_same_members_entry(quick: QuickLab, spelled: str) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", points=50)
    quick.fault(Kind.RESET_AFTER)
    quick.cycle(SETTLED)
    quick.wait(1)
    moved = [{"email": spelled, "last_updated": quick.wallet.log_time("brand-1", A)}]
    quick.fault(Kind.STATUS, LOG, times=None, status=200, body={"success": True, "data": moved})
    quick.calm()
    assert quick.awarded(A) == 50
    assert quick.value(FUTURE) == 0
