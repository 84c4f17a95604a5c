"""Who owns a member, who is gone, whose email changed, and what a first read means."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from enginelab import BRAND, IMPORT, MEMBER_MAP, Lab

from syncsvc.errors import TransientError
from syncsvc.state.codes import FirstRead

Open = Callable[..., Lab]
A, B, SHARED = "a@example.org", "b@example.org", "shared@example.org"
TWO: dict[str, dict[str, object]] = {"crm": {}, "shop": {}}
BRANDED = {**MEMBER_MAP, "brand_id": "{brand}", "storecard": {"value": "card-1"}}


def owner(lab: Lab, email: str) -> str | None:
    found: str | None = lab.value(f"SELECT owner_record FROM member WHERE email_key = '{email}'")
    return found


# Ownership.


def test_the_first_contact_seen_owns_a_member_and_edits_of_the_linked_one_do_nothing(lab: Lab) -> None:
    lab.crm.put("a", email=SHARED, points=10, name="Owner")
    lab.crm.put("b", email=" Shared@Example.ORG ", points=99, name="Linked")
    lab.cycle()
    lab.crm.put("b", points=500, name="Other")
    lab.cycle()
    assert (lab.awarded(SHARED), lab.profile(SHARED)["name"], owner(lab, SHARED)) == (10, "Owner", "a")
    assert lab.crm.records["a"]["wallet_time"] == lab.crm.records["b"]["wallet_time"] is not None
    lab.balanced()


def test_the_connector_that_stands_first_owns_across_connectors(open_lab: Open) -> None:
    lab = open_lab(connectors=TWO)
    lab.crms["shop"].put("z", email=SHARED, points=99)
    lab.crm.put("a", email=SHARED, points=10)
    lab.cycle()
    lab.crms["shop"].put("z", points=300)
    lab.cycle()
    assert lab.awarded(SHARED) == 10
    assert lab.crms["shop"].records["z"]["wallet_time"] is not None
    lab.balanced()


@pytest.mark.parametrize("how", ["delete", "vanish", "exclude"])
def test_ownership_passes_on_when_the_owner_is_gone_and_awards_nothing_twice(
    open_lab: Open, how: str
) -> None:
    lab = open_lab(
        connectors={"crm": {"where": "name != 'Out'"}, "shop": {}}, brakes={"max_gone_share": "100%"}
    )
    lab.crm.put("a", email=SHARED, points=100, name="Owner")
    lab.crms["shop"].put("z", email=SHARED, points=130, name="Heir")
    lab.crm.put("stays")
    lab.cycle()
    if how == "exclude":
        lab.crm.put("a", name="Out")
    else:
        getattr(lab.crm, how)("a")
    lab.cycle(full=True)
    lab.cycle(full=True)
    assert owner(lab, SHARED) == "z"
    assert (lab.awarded(SHARED), lab.profile(SHARED)["name"]) == (130, "Heir")
    lab.balanced()


def test_an_heir_that_leaves_on_the_same_page_inherits_nothing(open_lab: Open) -> None:
    lab = open_lab(policy={"on_email_change": "move"})
    lab.crm.put("a", email=SHARED, points=10)
    lab.crm.put("b", email=SHARED, points=20)
    lab.cycle()
    lab.crm.delete("a")
    lab.crm.put("b", email=B)
    lab.cycle()
    assert owner(lab, B) == "b"
    assert owner(lab, SHARED) is None


# Gone.


@pytest.mark.parametrize("how", ["delete", "vanish"])
def test_a_contact_that_is_made_again_is_awarded_nothing_twice(lab: Lab, how: str) -> None:
    lab.crm.put("a", points=100)
    lab.crm.put("b", points=1)
    lab.cycle()
    getattr(lab.crm, how)("a")
    lab.cycle(full=True)
    assert lab.value("SELECT state FROM contact WHERE record_id = 'a'") == 3
    lab.crm.put("anew", email=A, points=105)
    lab.cycle()
    assert [it.points for it in lab.wallet.ledger if it.email == A] == [100, 5]
    lab.balanced()


def test_a_contact_that_is_gone_leaves_quarantine(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_gone_share": "100%"})
    for record in ("bad", "worse", "b"):
        lab.crm.put(record, email=None if record != "b" else B)
    lab.cycle()
    assert set(lab.quarantine()) == {"bad", "worse"}
    lab.crm.delete("bad")
    lab.crm.vanish("worse")
    lab.cycle(full=True)
    assert lab.quarantine() == {}


@pytest.mark.parametrize("how", ["delete", "exclude"])
def test_a_member_whose_contact_is_gone_is_kept_or_expired(open_lab: Open, how: str) -> None:
    for policy, expires in (("keep", None), ("expire", "2026-11-02")):
        lab = open_lab(policy={"on_gone": policy}, connectors={"crm": {"where": "name != 'Out'"}})
        lab.crm.put("a", points=7)
        lab.cycle()
        if how == "delete":
            lab.crm.delete("a")
        else:
            lab.crm.put("a", name="Out")
        lab.cycle()
        assert lab.profile(A).get("expires_at") == expires
        assert lab.awarded(A) == 7
        imports = lab.asks(IMPORT)
        lab.cycle()
        assert lab.asks(IMPORT) == imports


def test_an_excluded_contact_is_not_sent_and_comes_back_without_a_second_award(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {"where": "name != 'Out'"}})
    lab.crm.put("a", points=100)
    lab.crm.put("b", points=5, name="Out")
    lab.cycle()
    lab.crm.put("a", name="Out", points=120)
    lab.cycle()
    assert (lab.awarded(A), lab.wallet.member(BRAND, B)) == (100, None)
    lab.crm.put("a", name="Ada", points=130)
    lab.cycle()
    assert lab.awarded(A) == 130
    lab.balanced()


def test_an_email_changed_while_excluded_brings_the_history_along(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {"where": "name != 'Out'"}}, policy={"on_email_change": "move"})
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("a", name="Out")
    lab.cycle()
    lab.crm.put("a", name="Out", email=B)
    lab.cycle()
    lab.crm.put("a", name="Ada", points=110)
    lab.cycle()
    assert (lab.awarded(A), lab.awarded(B)) == (100, 10)


@pytest.mark.parametrize("told_by", ["both", "winner", "loser"])
def test_a_merge_brings_the_points_history_along(lab: Lab, told_by: str) -> None:
    lab.crm.put("a", points=100)
    lab.crm.put("b", points=50)
    lab.cycle()
    lab.crm.merge("a", "b", told_by=told_by)
    lab.crm.put("a", points=150)
    lab.cycle()
    assert lab.wallet.total_awarded() == 150
    lab.crm.put("a", points=160)
    lab.cycle()
    assert lab.awarded(A) == 110
    assert lab.value("SELECT state FROM contact WHERE record_id = 'b'") == 3


@pytest.mark.parametrize("between", ["linked", "made again", "nobody"])
def test_who_is_merged_after_it_was_gone_brings_what_was_paid_to_it(open_lab: Open, between: str) -> None:
    lab = open_lab(connectors=TWO, brakes={"max_gone_share": "100%"})
    lab.crm.put("a", email=SHARED, points=100)
    if between == "linked":
        lab.crms["shop"].put("z", email=SHARED, points=100)
    lab.crm.put("b", points=0)
    lab.cycle()
    lab.crm.delete("a")
    lab.cycle()
    if between == "made again":
        lab.crms["shop"].put("z", email=SHARED, points=100)
        lab.cycle()
    assert owner(lab, SHARED) == (None if between == "nobody" else "z")
    lab.crm.merge("b", "a", told_by="winner")
    lab.crm.put("b", points=100)
    lab.cycle()
    assert lab.wallet.total_awarded() == 100
    lab.crm.put("b", points=110)
    lab.cycle()
    assert lab.awarded(B) == 10


@pytest.mark.parametrize("how", ["merged", "moved", "gone"])
def test_what_a_member_is_still_owed_goes_along_with_its_owner(open_lab: Open, how: str) -> None:
    lab = open_lab(connectors=TWO, policy={"on_email_change": "move"}, brakes={"max_gone_share": "100%"})
    lab.crm.put("a", email=SHARED, points=100)
    lab.crms["shop"].put("z", email=SHARED, points=100)
    lab.crm.put("b", points=0)
    lab.cycle()
    lab.crm.put("a", points=150)
    lab.cycle(send=False)
    match how:
        case "merged":
            lab.crm.merge("b", "a", told_by="winner")
            lab.crm.put("b", points=150)
        case "moved":
            lab.crm.put("a", email=A)
        case _:
            lab.crm.delete("a")
    lab.cycle()
    lab.cycle(full=True)
    assert (lab.awarded(SHARED), lab.wallet.total_awarded()) == (100, 100 if how == "gone" else 150)


def test_sudden_emptiness_buries_nobody_until_it_is_released(lab: Lab) -> None:
    for number in range(20):
        lab.crm.put(f"r{number:02}", points=1)
    lab.cycle()
    for record in list(lab.crm.records):
        lab.crm.vanish(record)
    report = lab.cycle(full=True)
    assert len(lab.said("brake_tripped")) == 1
    assert (report.gone, lab.value("SELECT count(*) FROM contact WHERE state = 3")) == (0, 0)
    lab.cycle(full=True)
    assert lab.said("brake_tripped") == []
    assert lab.release() == ["max_gone_share:crm"]
    assert lab.cycle().gone == 20
    assert lab.value("SELECT count(*) FROM contact WHERE state = 3") == 20


def test_a_sweep_that_lost_too_many_of_a_hundred_is_held(lab: Lab) -> None:
    for number in range(100):
        lab.crm.put(f"r{number:02}")
    lab.cycle()
    for number in range(6):
        lab.crm.vanish(f"r{number:02}")
    assert lab.cycle(full=True).gone == 0
    lab.crm.put("r00")  # it was an accident after all
    assert lab.cycle(full=True).gone == 5
    assert lab.store.holds.open() == []


# Email changes.


def test_a_changed_email_waits_for_a_person_by_default(lab: Lab) -> None:
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("a", email=B, points=120)
    lab.cycle()
    assert lab.quarantine()["a"][:2] == ("email", "email_change")
    assert lab.wallet.member(BRAND, B) is None
    lab.crm.put("a", email=A)
    lab.cycle()
    assert (lab.quarantine(), lab.awarded(A)) == ({}, 120)


@pytest.mark.parametrize(("policy", "awarded"), [("move", 20), ("move_with_points", 120)])
def test_a_changed_email_moves_the_member(open_lab: Open, policy: str, awarded: int) -> None:
    lab = open_lab(policy={"on_email_change": policy})
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("a", email=B, points=120)
    lab.cycle()
    assert (lab.awarded(A), lab.awarded(B)) == (100, awarded)
    assert lab.profile(A)["expires_at"] == "2026-11-02"
    assert "expires_at" not in lab.profile(B)
    assert lab.crm.records["a"]["wallet_time"] == f"{lab.clock.now():%Y-%m-%dT%H:%M:%SZ}"
    lab.crm.put("a", points=130)
    lab.cycle()
    assert lab.awarded(B) == awarded + 10


def test_a_held_email_moves_with_the_next_sweep_once_the_policy_says_so(lab: Lab) -> None:
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("a", email=B, points=120)
    lab.cycle()
    lab.restart(policy={"on_email_change": "move"})
    lab.cycle(full=True)
    assert (lab.awarded(A), lab.awarded(B), lab.quarantine()) == (100, 20, {})


def test_a_member_whose_owner_moved_away_passes_to_the_contact_that_stays(open_lab: Open) -> None:
    lab = open_lab(policy={"on_email_change": "move"})
    lab.crm.put("a", email=SHARED, points=100)
    lab.crm.put("b", email=SHARED, points=100, name="Heir")
    lab.cycle()
    lab.crm.put("a", email=A, points=101)
    lab.cycle()
    lab.cycle(full=True)
    assert (lab.awarded(SHARED), lab.awarded(A)) == (100, 1)
    assert owner(lab, SHARED) == "b"
    assert "expires_at" not in lab.profile(SHARED)


# First reads.


@pytest.mark.parametrize(
    ("first_run", "member", "first", "later"),
    [("import", True, 100, 130), ("adopt_points", True, 0, 30), ("adopt", False, 0, 30)],
)
@pytest.mark.parametrize("cut", [False, True])
def test_a_first_read_means_what_first_run_says(
    open_lab: Open, first_run: str, *, member: bool, first: int, later: int, cut: bool
) -> None:
    lab = open_lab(first_run=first_run)
    lab.crm.page_size = 1
    lab.crm.put("a", points=100)
    lab.crm.put("b", points=100)
    if cut:
        lab.crm.fail(TransientError("the CRM is down"), after=1)
        lab.cycle()
    lab.cycle()
    for email in (A, B):
        assert (lab.wallet.member(BRAND, email) is not None, lab.awarded(email)) == (member, first)
    lab.crm.put("a", points=130)
    lab.crm.put("c", points=11)
    lab.cycle()
    assert (lab.awarded(A), lab.awarded("c@example.org")) == (later, 11)


def test_a_connector_that_is_added_later_has_a_first_read_of_its_own(open_lab: Open) -> None:
    lab = open_lab(first_run="adopt_points")
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("new", points=3)
    lab.restart(connectors=TWO)
    lab.crms["shop"].put("z", points=70)
    lab.crms["shop"].put("y", email=A, points=900)
    lab.cycle()
    assert (lab.awarded("new@example.org"), lab.awarded("z@example.org"), lab.awarded(A)) == (3, 0, 0)


def test_a_first_read_adopts_a_member_that_nobody_owns_any_more(open_lab: Open) -> None:
    lab = open_lab(first_run="adopt_points")
    lab.crm.put("a", points=0)
    lab.crm.put("b", points=0)
    lab.cycle()
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.delete("a")
    lab.cycle()
    lab.restart(connectors=TWO)
    lab.crms["shop"].put("z", email=A, points=500)
    lab.cycle()
    assert lab.awarded(A) == 100
    lab.crms["shop"].put("z", points=505)
    lab.cycle()
    assert lab.awarded(A) == 105


# Newcomers, who are stored without being weighed.

_STORED = """SELECT m.email_key, m.email, m.owner_record, m.wanted IS NULL, m.delivered IS NULL, m.refused,
    p.content, m.earned, m.credited, m.unsettled, m.due, m.introduced, m.expired, b.brand_id, c.record_id,
    c.state, c.fingerprint = m.wanted, c.points, c.seen, c.written_at, c.written_status, c.write_due,
    c.first_read
    FROM contact c JOIN member m ON m.id = c.member_id JOIN brand b ON b.id = m.brand
    LEFT JOIN payload p ON p.member_id = m.id ORDER BY c.record_id"""


@pytest.mark.parametrize("left_out", ["", "points"])
def test_newcomers_are_stored_as_those_are_who_are_weighed(open_lab: Open, left_out: str) -> None:
    stored = []
    member = {name: rule for name, rule in BRANDED.items() if name != left_out}
    for first_run in ("import", "adopt_points"):
        lab = open_lab(first_run=first_run, connectors={"crm": {"member": member}})
        lab.crm.put("a", points=None, name="Ann", brand="brand-1")
        lab.crm.put("b", points=0, name="Bob", brand="brand-2", email="B@Example.org")
        lab.crm.put("c", points=None, name="Cy", brand="brand-1", wallet_status="imported")
        lab.crm.put("d", points=None, name="Dee", brand="brand-1", wallet_time="2026-11-01T00:00:00Z")
        lab.crm.put("e", points=None, name="Eve", brand="brand-2", email=A)
        lab.cycle(send=False)
        stored.append(lab.rows(_STORED))
    assert len(stored[0]) == 5
    later = FirstRead.RESTORED if left_out else FirstRead.PAST  # what is adopted as soon as there is any
    assert {row[-1] for row in stored[1]} == {later}
    assert stored[0] == [(*row[:-1], FirstRead.PAST) for row in stored[1]]


@pytest.mark.parametrize("page_size", [1, 100])
def test_a_newcomer_shares_a_member_with_whom_it_finds_there(open_lab: Open, page_size: int) -> None:
    lab = open_lab()
    lab.crm.page_size = page_size
    for record in ("a", "b", "c"):
        lab.crm.put(record, email=SHARED if record != "b" else B, points=10)
    lab.cycle()
    lab.crm.put("d", email=SHARED, points=70)
    lab.crm.put("e", email="e@example.org", points=5)
    lab.crm.put("f", email="e@example.org", points=7)
    lab.cycle()
    assert [lab.awarded(email) for email in (SHARED, B, "e@example.org")] == [10, 10, 5]
    assert lab.rows("SELECT count(*), count(DISTINCT member_id) FROM contact") == [(6, 3)]
    lab.balanced()
