"""The books: what they say, and that one point's difference anywhere is found and named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from enginelab import Lab

from syncsvc.rules.settling import Grade
from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.wallet_knobs import PointsMode
from syncsvc.state.accounts import By
from syncsvc.state.books import Credit, link
from syncsvc.state.codes import Entry

Open = Callable[..., Lab]


@pytest.fixture
def lab(open_lab: Open) -> Lab:
    """An organization with two awards, one that the log proved, one in doubt, and a total that fell."""
    lab = open_lab()
    lab.crm.put("a", points=10)
    lab.crm.put("b", points=20)
    lab.cycle()
    lab.crm.put("c", points=40)
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()
    lab.cycle(600)
    lab.crm.put("a", points=15)
    lab.crm.put("b", points=19)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    return lab


def tamper(lab: Lab, *statements: str) -> list[tuple[str, str]]:
    """Change the state by hand, and return what the audit says then; the state is put back after it."""
    before = lab.contents()
    for statement in statements:
        assert lab.ground.change(statement) > 0, statement
    assert lab.contents() != before
    found = [(it.where, it.what) for it in lab.differences()]
    assert all(it.remedy for it in lab.differences())
    lab.ground.restore(before)
    assert lab.differences() == []
    return found


def test_the_books_say_what_was_earned_and_on_what_it_rests(lab: Lab) -> None:
    it = lab.store.accounts.summary()
    assert (it.members, it.earned, it.credited, it.in_doubt, it.fallen_behind) == (3, 74, 70, 5, 1)
    assert it.earned == it.credited + it.in_flight + it.in_doubt + it.held + it.owed - it.fallen_behind
    assert [(rest.entry, rest.grade, rest.rows, rest.points) for rest in it.rests_on] == [
        ("awarded", "answer", 2, 30),
        ("awarded", "window", 1, 40),
    ]


def test_the_books_by_member_name_the_record_and_by_wish_alone_the_email(lab: Lab) -> None:
    lines = list(lab.store.accounts.rows(By.MEMBER))
    assert [(it["record"], it["earned"], it["credited"], it["in_doubt"]) for it in lines] == [
        ("a", 15, 10, 5),
        ("b", 19, 20, 0),
        ("c", 40, 40, 0),
    ]
    assert [it["fallen_behind"] for it in lines] == [0, 1, 0]
    assert "example.org" not in str(lines)
    assert [it["email"][0] for it in lab.store.accounts.rows(By.MEMBER, show_values=True)] == ["a", "b", "c"]


def test_the_books_by_cycle_batch_and_day_add_up(lab: Lab) -> None:
    cycles, batches, days = (list(lab.store.accounts.rows(by)) for by in (By.CYCLE, By.BATCH, By.DAY))
    assert [(it["credited"], it["rows"], it["members"]) for it in cycles] == [(40, 1, 1), (30, 2, 2)]
    assert [(it["points"], it["landed"], it["in_doubt"]) for it in batches] == [
        (5, 0, 5),
        (40, 40, 0),
        (30, 30, 0),
    ]
    assert [(it["day"], it["credited"]) for it in days] == [("2026-11-02", 70)]


OFF_BY_ONE = {
    "UPDATE member SET credited = 21 WHERE id = 2": "member 2 (crm b): 21 points credited",
    "UPDATE member SET credited = 19 WHERE id = 2": "member 2 (crm b): 19 points credited",
    "UPDATE member SET unsettled = 6 WHERE owner_record = 'a'": "member 1 (crm a): 6 points unsettled",
    "UPDATE member SET earned = 16 WHERE owner_record = 'a'": "member 1 (crm a): 16 points earned",
    "UPDATE contact SET points = 18 WHERE record_id = 'b'": "member 2 (crm b): 19 points earned",
    "UPDATE batch SET points = 31 WHERE id = 1": "batch 1: it was sent with 31 points",
    "UPDATE batch SET row_count = 3 WHERE id = 1": "batch 1: it was sent with 3 rows",
    "UPDATE batch SET outcome = 4 WHERE id = 1": "batch 1: it counts as refuted",
    "UPDATE batch_row SET points = 11 WHERE batch_id = 1 AND position = 0": "batch 1: it was sent with 30",
    "UPDATE batch_row SET outcome = 4 WHERE batch_id = 1 AND position = 0": "ledger row 1: 10 points",
    "UPDATE batch_row SET outcome = 3 WHERE batch_id = 4": "batch 4 row 0: 5 points of member 1, landed",
    "UPDATE ledger SET points = 11 WHERE id = 1": "ledger row 1: its digest",
    "UPDATE ledger SET grade = 'person' WHERE id = 2": "ledger row 2: its digest",
    "UPDATE ledger SET grade = 'whim' WHERE id = 2": "ledger row 2: its digest",
    "UPDATE ledger SET entry = 1 WHERE id = 2": "ledger row 2: its digest",
    "UPDATE ledger SET at = at + 1 WHERE id = 3": "ledger row 3: its digest",
    "DELETE FROM ledger WHERE id = 1": "ledger row 2: its digest",
    "DELETE FROM ledger WHERE id = 3": "member 3 (crm c): 40 points credited",
    "UPDATE ledger SET id = 9 WHERE id = 2": "ledger row 3: its digest",
    "UPDATE ledger SET batch_id = 2 WHERE id = 1": "ledger row 1: its digest",
    "UPDATE batch_row SET grade = 'person' WHERE batch_id = 1 AND position = 0": "batch 1 row 0: its 10",
    "UPDATE member SET open_batch = NULL WHERE owner_record = 'a'": "member 1 (crm a): it waits for no batch",
}


def test_one_points_difference_is_found_and_names_the_row(lab: Lab) -> None:
    for statement, expected in OFF_BY_ONE.items():
        told = [f"{where}: {what}" for where, what in tamper(lab, statement)]
        assert any(it.startswith(expected) for it in told), (statement, told)


def test_a_last_entry_removed_with_its_members_credit_is_missed_by_its_batch(lab: Lab) -> None:
    found = tamper(
        lab,
        "DELETE FROM ledger WHERE id = 3",
        "UPDATE member SET credited = 0 WHERE owner_record = 'c'",
    )
    assert [where for where, _ in found] == ["batch 2 row 0"]


def test_an_entry_whose_digest_was_made_anew_does_not_hide_it(lab: Lab) -> None:
    before = lab.value("SELECT digest FROM ledger WHERE id = 2")
    at, member, batch = lab.rows("SELECT at, member_id, batch_id FROM ledger WHERE id = 3")[0]
    digest = link(before, Credit(Entry.AWARDED, 41, Grade.WINDOW, batch, member), at)
    found = tamper(lab, f"UPDATE ledger SET points = 41, digest = {lab.ground.bytes(digest)} WHERE id = 3")
    assert {where for where, _ in found} == {"member 3 (crm c)", "batch 2 row 0"}


def test_books_of_one_organization_are_not_disturbed_by_another(lab: Lab) -> None:
    lab.begin_anew("other")
    lab.crm.put("z", points=7)
    lab.cycle()
    assert lab.differences() == []
    assert lab.store.accounts.summary().credited == 7
    found = tamper(lab, "UPDATE ledger SET member_id = 1 WHERE id = 4")
    assert {where for where, _ in found} >= {"ledger row 4", "member 4 (crm z)"}


def test_a_balance_that_was_set_is_verified_by_its_ledger_rows(open_lab: Open) -> None:
    lab = open_lab(wallet={"points": "set"})
    lab.wallet.knobs.points = PointsMode.SET
    for points in (10, 40, 25):
        lab.crm.put("a", points=points)
        lab.cycle()
    lab.crm.put("a", name="Eve")
    lab.cycle()  # a profile that changes no balance stands in no ledger
    assert lab.differences() == []
    changed = "UPDATE batch_row SET points = 41 WHERE points = 40"
    (found,) = tamper(lab, changed)
    assert found == ("ledger row 2", "member 1 was set to 41 points, but its ledger rows add up to 40 there")
