"""Points history goes along: merges, emails that move, connectors that go; counted in the wallet's ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from enginelab import IMPORT, LOG, MEMBER_MAP, Crash, Lab

from syncsvc.sandbox.faults import Kind

Open = Callable[..., Lab]
A, B, C, SHARED = "a@example.org", "b@example.org", "c@example.org", "shared@example.org"
TWO: dict[str, dict[str, object]] = {"crm": {}, "shop": {}}
MOVE = {"on_email_change": "move"}


def conserved(lab: Lab) -> None:
    """Assert that the books hold what the wallet holds, in all: history moves between members, not in sum."""
    assert lab.rows("SELECT sum(credited), sum(unsettled) FROM member") == [(lab.wallet.total_awarded(), 0)]
    assert lab.value("SELECT sum(points) FROM ledger") == lab.wallet.total_awarded()
    assert list(lab.store.audit.differences()) == []


# Merges.


@pytest.mark.parametrize("lost", [Kind.RESET_AFTER, Kind.RESET_BEFORE])
@pytest.mark.parametrize("told_by", ["both", "winner", "loser"])
def test_a_merge_takes_points_along_that_are_still_in_doubt(lab: Lab, lost: Kind, told_by: str) -> None:
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("b", points=50)
    lab.fault(lost)
    lab.fault(Kind.STATUS, LOG, skip=1, times=9, status=503)
    lab.cycle()
    lab.crm.merge("a", "b", told_by=told_by)
    lab.crm.put("a", points=150)
    lab.cycle()
    assert lab.wallet.total_awarded() in {100, 150}
    lab.calm()
    assert lab.wallet.total_awarded() == 150
    assert lab.awarded(B) == (50 if lost is Kind.RESET_AFTER else 0)
    lab.crm.put("a", points=155)
    lab.calm()
    assert lab.wallet.total_awarded() == 155
    conserved(lab)


def test_a_merge_whose_request_was_cut_by_a_crash_takes_its_points_along(lab: Lab) -> None:
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("b", points=50)
    lab.crash_import("after")
    with pytest.raises(Crash):
        lab.cycle()
    lab.restart()
    lab.crm.merge("a", "b")
    lab.crm.put("a", points=150)
    lab.calm()
    assert (lab.awarded(A), lab.awarded(B)) == (100, 50)
    conserved(lab)


@pytest.mark.parametrize("lost", [Kind.RESET_AFTER, Kind.RESET_BEFORE])
@pytest.mark.parametrize("how", ["merged", "moved", "moved twice", "gone first", "unread"])
@pytest.mark.parametrize("others", [100, 0, None])
def test_points_in_doubt_of_a_shared_member_go_along_with_its_owner(
    open_lab: Open, lost: Kind, how: str, others: int | None
) -> None:
    told = MEMBER_MAP if others is not None else {"email": "{email}", "name": "{name}"}
    connectors = {"crm": {}, "shop": {"member": told}}
    lab = open_lab(connectors=connectors, policy=MOVE, brakes={"max_gone_share": "100%"})
    lab.crm.put("a", email=SHARED, points=100)
    lab.crms["shop"].put("z", email=SHARED, points=others or 0)
    if how != "unread":
        lab.crm.put("b", points=0)
    lab.cycle()
    lab.crm.put("a", points=150)
    lab.fault(lost)
    lab.fault(Kind.STATUS, LOG, skip=1, times=9, status=503)
    lab.cycle()
    assert lab.value("SELECT sum(unsettled) FROM member") == 50
    heir = "a" if how.startswith("moved") else "b"
    if how == "gone first":
        lab.crm.delete("a")
        lab.cycle()
    if how.startswith("moved"):
        lab.crm.put("a", email=A)
    else:
        lab.crm.merge("b", "a", told_by="loser" if how == "unread" else "winner")
    if how == "moved twice":
        lab.cycle()
        lab.crm.put("a", email=C)
    if how != "unread":
        lab.crm.put(heir, points=150)
    lab.cycle()
    assert list(lab.store.audit.differences()) == []
    lab.calm()
    lab.cycle(full=True)
    lab.calm()
    shared = 150 if lost is Kind.RESET_AFTER else 100
    assert lab.awarded(SHARED) == shared
    if how == "unread":
        lab.crm.put("b", points=150)
        lab.calm()
    assert lab.wallet.total_awarded() == 150
    lab.crm.put(heir, points=155)
    lab.calm()
    assert (lab.awarded(SHARED), lab.wallet.total_awarded()) == (shared, 155)
    assert lab.value("SELECT sum(unsettled) FROM member") == 0
    assert list(lab.store.audit.differences()) == []


@pytest.mark.parametrize("lost", [Kind.RESET_AFTER, Kind.RESET_BEFORE])
def test_contacts_that_swap_their_emails_while_points_are_in_doubt(open_lab: Open, lost: Kind) -> None:
    lab = open_lab(policy=MOVE)
    lab.crm.put("a", points=100)
    lab.crm.put("b", points=50)
    lab.fault(lost)
    lab.fault(Kind.STATUS, LOG, skip=1, times=9, status=503)
    lab.cycle()
    lab.crm.put("a", email=B)
    lab.crm.put("b", email=A)
    lab.cycle()
    assert list(lab.store.audit.differences()) == []
    lab.calm()
    assert lab.wallet.total_awarded() == 150
    lab.crm.put("a", points=101)
    lab.crm.put("b", points=52)
    lab.calm()
    first, second = (102, 51) if lost is Kind.RESET_AFTER else (52, 101)
    assert (lab.awarded(A), lab.awarded(B)) == (first, second)
    conserved(lab)


@pytest.mark.parametrize("why", ["unread", "refused"])
def test_history_waits_for_a_survivor_that_cannot_inherit_yet(lab: Lab, why: str) -> None:
    lab.crm.put("b", points=50)
    lab.cycle()
    if why == "refused":
        lab.crm.put("a", email=None, points=10)
        lab.cycle()
    lab.crm.delete("b", into="a")
    lab.cycle()
    conserved(lab)
    lab.crm.put("a", email=A, points=150)
    lab.cycle()
    assert (lab.awarded(A), lab.awarded(B)) == (100, 50)
    lab.crm.put("a", points=151)
    lab.cycle()
    assert lab.awarded(A) == 101
    assert lab.rows("SELECT * FROM inheritance") == []
    conserved(lab)


def test_a_survivor_whose_own_record_names_the_merge_while_it_is_refused(lab: Lab) -> None:
    lab.crm.put("b", points=50)
    lab.crm.put("c", points=30)
    lab.cycle()
    lab.crm.put("new", email=None, points=80)
    lab.crm.merge("new", "b", told_by="winner")
    lab.crm.merge("new", "c", told_by="winner")
    lab.cycle()
    lab.crm.put("new", email=A)
    lab.cycle()
    assert (lab.awarded(A), lab.wallet.total_awarded()) == (0, 80)
    lab.crm.put("new", points=81)
    lab.cycle()
    assert lab.wallet.total_awarded() == 81
    conserved(lab)


def test_history_of_a_merged_contact_that_a_sweep_missed_first(lab: Lab) -> None:
    lab.crm.put("a", points=100)
    lab.crm.put("b", points=50)
    lab.cycle()
    lab.crm.vanish("b")
    lab.cycle(full=True)
    lab.crm.merge("a", "b", told_by="winner")
    lab.crm.put("a", points=150)
    lab.cycle()
    assert lab.wallet.total_awarded() == 150
    lab.crm.put("a", points=160)
    lab.crm.put("b2", email=B, points=7)
    lab.cycle()
    lab.crm.put("a", points=161)
    lab.cycle()
    assert (lab.awarded(A), lab.awarded(B)) == (111, 57)
    conserved(lab)


@pytest.mark.parametrize("again", [False, True])
def test_a_survivor_names_whom_the_same_page_tells_gone_without_a_word(lab: Lab, *, again: bool) -> None:
    lab.crm.put("a", points=100)
    lab.crm.put("b", points=50)
    lab.cycle()
    lab.crm.delete("b")
    if again:
        lab.cycle()
        lab.crm.stamp("b")
    lab.crm.merge("a", "b", told_by="winner")
    lab.crm.put("a", points=150)
    lab.cycle()
    assert lab.wallet.total_awarded() == 150
    lab.crm.put("a", points=160)
    lab.cycle()
    assert lab.awarded(A) == 110
    conserved(lab)


def test_a_chain_of_merges_brings_everything_to_its_end(lab: Lab) -> None:
    for record, points in (("a", 1), ("b", 20), ("c", 300)):
        lab.crm.put(record, points=points)
    lab.cycle()
    lab.crm.delete("a", into="gone")
    lab.cycle()
    lab.crm.put("gone", points=21)
    lab.crm.delete("b", into="gone")
    lab.crm.delete("gone", into="c")
    lab.crm.put("c", points=321)
    lab.cycle()
    assert lab.wallet.total_awarded() == 321
    lab.crm.put("c", points=330)
    lab.cycle()
    assert (lab.awarded(C), lab.wallet.total_awarded()) == (309, 330)
    conserved(lab)


def test_what_a_member_is_owed_stays_where_its_next_owner_has_no_points_and_brings_a_history(
    open_lab: Open,
) -> None:
    shop = {"member": {"email": "{email}", "name": "{name}"}}
    brakes = {"max_gone_share": "100%"}
    lab = open_lab(connectors={"crm": {}, "shop": shop}, policy=MOVE, brakes=brakes)
    lab.crm.put("a", email=SHARED, points=100)
    lab.crm.put("b", points=0)
    lab.crm.put("c", points=70)
    lab.crms["shop"].put("z", email=C)
    lab.cycle()
    lab.crm.delete("c")
    lab.cycle()
    lab.crms["shop"].put("z", email=SHARED)
    lab.cycle()
    lab.crm.put("a", points=150)
    lab.cycle(send=False)
    lab.crm.delete("a")
    lab.cycle()
    lab.crm.merge("b", "a", told_by="winner")
    lab.crm.put("b", points=150)
    lab.cycle()
    lab.cycle(full=True)
    lab.calm()
    assert lab.wallet.total_awarded() == 70 + 150


def test_what_a_member_was_owed_and_not_paid_before_it_passed_to_another_is_not_brought_along(
    open_lab: Open,
) -> None:
    shop = {"member": {"email": "{email}", "name": "{name}"}}
    lab = open_lab(connectors={"crm": {}, "shop": shop}, policy=MOVE, brakes={"max_gone_share": "100%"})
    lab.crms["shop"].put("z", email=SHARED)
    lab.crm.put("b", points=0)
    lab.cycle()
    lab.crm.put("a", email=A, points=100)
    lab.cycle(send=False)
    lab.crm.put("a", email=SHARED)
    lab.crms["shop"].delete("z")
    lab.cycle(send=False)
    lab.crms["shop"].put("z", email=SHARED)
    lab.cycle(send=False)
    lab.crm.delete("a")
    lab.cycle(send=False)
    lab.crm.put("c", email=SHARED, points=0)
    lab.cycle(send=False)
    lab.crms["shop"].delete("z")
    lab.cycle(send=False)
    lab.crm.merge("b", "a", told_by="winner")
    lab.crm.put("b", points=100)
    lab.calm()
    assert (lab.awarded(SHARED), lab.awarded(B)) == (0, 100)
    conserved(lab)


def test_points_in_doubt_that_are_waited_for_in_part_and_then_in_whole_count_once(open_lab: Open) -> None:
    shop = {"member": {"email": "{email}", "name": "{name}"}}
    lab = open_lab(connectors={"crm": {}, "shop": shop}, policy=MOVE, brakes={"max_gone_share": "100%"})
    lab.crm.put("b", points=0)
    lab.crm.put("a", email=SHARED, points=100)
    lab.crms["shop"].put("z", email=SHARED)
    lab.fault(Kind.RESET_AFTER)
    lab.fault(Kind.STATUS, LOG, skip=1, times=30, status=503)
    lab.cycle()
    lab.crm.put("a", points=80)
    lab.cycle()
    lab.crm.delete("a")
    lab.cycle()
    lab.crm.put("c", email=SHARED, points=0)
    lab.cycle()
    lab.crms["shop"].delete("z")
    lab.cycle()
    assert lab.value("SELECT sum(unsettled) FROM member") == 100
    lab.calm()
    lab.crm.merge("b", "a", told_by="winner")
    lab.crm.put("b", points=150)
    lab.calm()
    assert (lab.awarded(SHARED), lab.awarded(B)) == (100, 50)


@pytest.mark.parametrize(("winner", "loser"), [("a", "b"), ("b", "a")])
def test_a_survivor_that_leaves_the_member_it_shares_with_whom_it_absorbs(
    open_lab: Open, winner: str, loser: str
) -> None:
    lab = open_lab(policy=MOVE)
    lab.crm.put(loser, email=SHARED, points=100)
    lab.cycle()
    lab.crm.put(winner, email=SHARED, points=50)
    lab.cycle()
    lab.crm.merge(winner, loser)
    lab.crm.put(winner, email=C, points=150)
    lab.cycle()
    assert (lab.awarded(SHARED), lab.awarded(C)) == (100, 50)
    conserved(lab)


def test_a_survivor_that_shares_its_member_inherits_once_it_owns_it(lab: Lab) -> None:
    lab.crm.put("a", email=SHARED, points=100)
    lab.crm.put("b", email=SHARED, points=10)
    lab.crm.put("c", points=50)
    lab.cycle()
    lab.crm.merge("b", "c")
    lab.crm.put("b", points=60)
    lab.cycle()
    assert lab.wallet.total_awarded() == 150
    lab.crm.delete("a")
    lab.cycle(full=True)
    lab.cycle(full=True)
    lab.crm.put("b", points=160)
    lab.cycle()
    assert lab.awarded(SHARED) == 110
    conserved(lab)


def test_a_merge_of_two_contacts_of_one_member_moves_nothing(lab: Lab) -> None:
    lab.crm.put("a", email=SHARED, points=100)
    lab.crm.put("b", email=SHARED, points=100)
    lab.cycle()
    lab.crm.merge("b", "a")
    lab.crm.put("b", points=105)
    lab.cycle(full=True)
    lab.cycle(full=True)
    assert lab.awarded(SHARED) == 105
    lab.balanced()


# Emails that move.


def test_contacts_that_swap_their_emails_keep_their_histories(open_lab: Open) -> None:
    lab = open_lab(policy=MOVE)
    lab.crm.put("a", points=100, name="Ada")
    lab.crm.put("b", points=50, name="Bob")
    lab.cycle()
    lab.crm.put("a", email=B)
    lab.crm.put("b", email=A)
    lab.cycle()
    assert lab.wallet.total_awarded() == 150
    assert (lab.profile(A)["name"], lab.profile(B)["name"]) == ("Bob", "Ada")
    lab.crm.put("a", points=101)
    lab.crm.put("b", points=52)
    lab.cycle()
    assert (lab.awarded(B), lab.awarded(A)) == (51, 102)
    assert "expires_at" not in lab.profile(A) | lab.profile(B)
    conserved(lab)


@pytest.mark.parametrize("newcomer", ["0new", "znew"])
def test_an_email_that_is_taken_over_on_the_page_on_which_it_is_left(open_lab: Open, newcomer: str) -> None:
    lab = open_lab(policy=MOVE)
    lab.crm.put("a", points=100)
    lab.cycle()
    first, second = sorted([newcomer, "a"])
    for record in (first, second):
        changes: dict[str, Any] = {"email": B} if record == "a" else {"email": A, "points": 30}
        lab.crm.put(record, **changes)
    lab.cycle()
    assert (lab.awarded(A), lab.awarded(B)) == (130, 0)
    lab.crm.put("a", points=101)
    lab.crm.put(newcomer, points=31)
    lab.cycle()
    assert (lab.awarded(A), lab.awarded(B)) == (131, 1)
    assert "expires_at" not in lab.profile(A)
    conserved(lab)


@pytest.mark.parametrize("lost", [Kind.RESET_AFTER, Kind.RESET_BEFORE])
@pytest.mark.parametrize(("policy", "paid"), [("move", 110), ("move_with_points", 210)])
def test_an_email_that_changes_while_points_are_in_doubt_takes_them_along(
    open_lab: Open, lost: Kind, policy: str, paid: int
) -> None:
    lab = open_lab(policy={"on_email_change": policy})
    lab.crm.put("a", points=100)
    lab.fault(lost)
    lab.fault(Kind.STATUS, LOG, skip=1, times=9, status=503)
    lab.cycle()
    lab.crm.put("a", email=B, points=110)
    lab.cycle()
    lab.calm()
    landed = 100 if lost is Kind.RESET_AFTER else 0
    assert lab.awarded(A) == landed
    assert lab.wallet.total_awarded() == (paid if landed else 110)
    conserved(lab)


def test_history_of_a_contact_that_moves_to_a_member_of_another_waits_until_it_owns_it(
    open_lab: Open,
) -> None:
    lab = open_lab(policy=MOVE)
    lab.crm.put("a", points=100)
    lab.crm.put("b", points=50)
    lab.cycle()
    lab.crm.put("a", email=B)
    lab.cycle()
    assert lab.wallet.total_awarded() == 150
    lab.crm.delete("b")
    lab.cycle(full=True)
    lab.cycle(full=True)
    assert lab.wallet.total_awarded() == 150
    lab.crm.put("a", points=155)
    lab.cycle()
    assert lab.wallet.total_awarded() == 155
    conserved(lab)


def test_an_email_that_goes_there_and_back_awards_nothing_twice(open_lab: Open) -> None:
    lab = open_lab(policy=MOVE)
    lab.crm.put("a", points=100)
    lab.cycle()
    for email, points in ((B, 110), (A, 120), (B, 130)):
        lab.crm.put("a", email=email, points=points)
        lab.cycle()
    assert (lab.awarded(A), lab.awarded(B)) == (110, 20)
    conserved(lab)


@pytest.mark.parametrize("lost", [Kind.RESET_AFTER, Kind.RESET_BEFORE])
@pytest.mark.parametrize("others", [10, None])
def test_who_takes_an_email_over_is_not_awarded_what_was_in_doubt_there(
    open_lab: Open, lost: Kind, others: int | None
) -> None:
    told = MEMBER_MAP if others is not None else {"email": "{email}", "name": "{name}"}
    lab = open_lab(connectors={"crm": {}, "shop": {"member": told}}, policy=MOVE)
    lab.crm.put("a", points=100)
    lab.crms["shop"].put("z", email=B, points=others or 0)
    lab.cycle(send=False)
    lab.fault(lost)
    lab.fault(Kind.STATUS, LOG, skip=1, times=9, status=503)
    lab.cycle()
    assert lab.value("SELECT unsettled FROM member WHERE owner_record = 'a'") == 100
    lab.crm.put("a", email=B)
    lab.crms["shop"].put("z", email=A)
    lab.cycle()
    lab.calm()
    lab.cycle(full=True)
    lab.calm()
    assert lab.wallet.total_awarded() == 100 + (others or 0)
    assert list(lab.store.audit.differences()) == []


# Expiries.


def test_an_expiry_is_lifted_when_the_contact_returns(open_lab: Open) -> None:
    lab = open_lab(policy={"on_gone": "expire"}, connectors={"crm": {"where": "name != 'Out'"}})
    lab.crm.put("a", points=7)
    lab.cycle()
    lab.crm.put("a", name="Out")
    lab.cycle()
    assert lab.profile(A)["expires_at"] == "2026-11-02"
    lab.crm.put("a", name="Ada")
    lab.cycle()
    assert lab.profile(A)["expires_at"] == "2099-12-31"
    imports = lab.asks(IMPORT)
    lab.cycle(full=True)
    assert (lab.asks(IMPORT), lab.awarded(A)) == (imports, 7)


def test_members_known_before_the_policy_was_expire_do_expire(lab: Lab) -> None:
    lab.crm.put("a", points=7)
    lab.crm.put("b", points=8)
    lab.cycle()
    lab.restart(policy={"on_gone": "expire"})
    imports = lab.asks(IMPORT)
    lab.cycle()
    assert lab.asks(IMPORT) == imports
    lab.crm.delete("a")
    lab.cycle()
    assert lab.profile(A)["expires_at"] == "2026-11-02"
    assert "expires_at" not in lab.profile(B)
    lab.restart(policy={"on_gone": "keep"})
    lab.cycle()
    assert lab.value("SELECT count(*) FROM payload") == 0


# Connectors that go.


def test_a_connector_that_was_renamed_keeps_its_members_and_awards_nothing_twice(lab: Lab) -> None:
    lab.crm.put("a", points=100)
    lab.crm.put("b", points=50)
    lab.cycle()
    crm = lab.crms.pop("crm")
    lab.crms["shop"] = crm
    lab.restart(connectors={"shop": {}})
    lab.cycle()
    assert lab.wallet.total_awarded() == 150
    crm.put("a", points=105, name="Eve")
    lab.cycle()
    assert (lab.awarded(A), lab.profile(A)["name"]) == (105, "Eve")
    lab.balanced()


def test_members_of_a_connector_that_was_taken_out_pass_to_those_that_stay(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    lab.crm.put("a", email=SHARED, points=100)
    lab.crm.put("only", points=5)
    lab.crms["shop"].put("z", email=SHARED, points=120, name="Heir")
    lab.cycle()
    lab.restart(connectors={"shop": {}})
    lab.cycle()
    assert (lab.awarded(SHARED), lab.profile(SHARED)["name"]) == (120, "Heir")
    assert "expires_at" not in lab.profile("only@example.org")
    lab.crm.put("a", points=500)
    lab.crm.put("only", points=6)
    lab.restart(connectors=TWO)
    lab.cycle()
    assert (lab.awarded(SHARED), lab.awarded("only@example.org")) == (120, 6)
    lab.balanced()


def test_who_only_looks_at_the_state_takes_no_connector_out(lab: Lab) -> None:
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.look(connectors={"shop": {"type": "crm"}})
    owners = "SELECT owner_connector, owner_record FROM member"
    assert lab.rows(owners) == [(1, "a")]
    assert lab.value("SELECT count(*) FROM member") == 1
