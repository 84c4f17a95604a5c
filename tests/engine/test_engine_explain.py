"""`explain` in every condition: the reason that has to be over first, and what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from enginelab import BRAND, IMPORT, LOG, SETTLED
from quicklab import QuickLab

from syncsvc.errors import SchemaError
from syncsvc.explanation import Condition, Explanation, explain, unknown
from syncsvc.model import WriteOutcome, Written
from syncsvc.sandbox.faults import Kind
from syncsvc.state.quarantine import Choice

OpenQuick = Callable[..., QuickLab]


def told(lab: QuickLab, record: str = "a") -> Explanation:
    (found,) = explain(lab.store, lab.organization.config, f"{record}@example.org", now=lab.clock.now())
    return found


def assert_told(lab: QuickLab, condition: Condition, *words: str, record: str = "a") -> None:
    found = told(lab, record)
    assert found.condition is condition, found.sentence
    for word in words:
        assert word in found.sentence
    assert found.sentence.endswith(".")
    assert "\n" not in found.sentence
    assert "@" not in found.sentence


def test_up_to_date_with_the_evidence_of_each_step(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    report = quick.cycle()
    assert_told(quick, Condition.UP_TO_DATE, "everything the CRM says is in the wallet", "2026-11-02")
    life = told(quick).life
    assert [it.what for it in life.happenings] == ["sent", "credited"]
    assert life.happenings[0].facts["cycle"] == report.cycle
    assert life.contacts[0].written_back == life.log_at


def test_due_says_what_is_sent_next(quick: QuickLab) -> None:
    quick.wallet.knobs.abilities["wallet-sandbox"].discard("import")
    quick.crm.put("a", points=10)
    quick.cycle()
    assert_told(quick, Condition.DUE, "the next cycle sends 10 points and its profile")


def test_points_that_wait_for_an_older_log_entry_say_so(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", points=12)
    quick.cycle(after=0)
    assert_told(
        quick, Condition.WAITING, "2 points wait", "so fresh that a second award would leave no trace"
    )


def test_points_that_wait_for_the_log_to_show_the_row_before_them_say_so(quick: QuickLab) -> None:
    quick.wallet.knobs.apply_seconds = 90
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.put("a", points=12)
    quick.cycle(60)
    assert_told(quick, Condition.WAITING, "2 points wait", "until the import log shows the row sent at")


def test_in_doubt_and_held_name_batch_time_and_command(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.fault(Kind.RESET_BEFORE)
    quick.cycle()
    assert_told(quick, Condition.IN_DOUBT, "batch 1 with 10 points", "by 2026-11-02 12:06:00Z", "sent again")
    quick.wait(2 * SETTLED)
    quick.wallet.award("brand-1", "a@example.org", 1)
    quick.cycle(0)
    assert_told(quick, Condition.IN_DOUBT, 'by 2026-11-02 13:01:00Z, on_doubt = "hold" does')
    quick.cycle(3700)
    assert_told(quick, Condition.HELD, "10 points of batch 1", "`syncsvc doubt 1:0`")


@pytest.mark.parametrize(
    ("brakes", "name", "what"),
    [
        ({"max_points_per_cycle": 5}, "max_points_per_cycle", "holds 10 points"),
        ({"max_points_per_member": 5}, "max_points_per_member", "holds 10 points"),
    ],
)
def test_a_brake_that_holds_points_is_named_with_its_numbers(
    open_quick: OpenQuick, brakes: dict[str, int], name: str, what: str
) -> None:
    lab = open_quick(brakes=brakes)
    lab.crm.put("a", points=10)
    lab.crm.put("b", points=0)
    lab.cycle()
    lab.cycle()
    assert_told(
        lab,
        Condition.BRAKED,
        f"the brake {name} {what}",
        "(the limit is 5",
        "`syncsvc release` names the ways out",
    )
    assert told(lab, "b").condition is Condition.UP_TO_DATE


def test_a_brake_on_changes_holds_known_members(open_quick: OpenQuick) -> None:
    lab = open_quick()
    for number in range(120):
        lab.crm.put(f"r{number}")
    lab.cycle()
    for number in range(119):
        lab.crm.put(f"r{number}", name="Zoe")
    lab.crm.put("a")
    lab.cycle()
    assert_told(lab, Condition.BRAKED, "max_share holds its changed profile", record="r1")
    assert told(lab, "r119").condition is Condition.UP_TO_DATE
    assert told(lab).condition is Condition.UP_TO_DATE


def test_a_brake_on_whom_others_have_imported_holds_new_members(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.crm.put("b", points=0)
    quick.wallet.touch(BRAND, "a@example.org")
    quick.wait(3600)
    quick.cycle()
    assert_told(quick, Condition.BRAKED, "max_elsewhere holds 10 points", "in the import log already")
    assert_told(quick, Condition.BRAKED, "max_elsewhere holds its profile", record="b")


def test_refused_by_the_wallet_by_the_map_or_for_its_email_is_told_with_the_record(quick: QuickLab) -> None:
    quick.wallet.knobs.max_points = 25
    quick.crm.put("a", points=30)
    quick.crm.put("b", points=3)
    quick.crm.put("c", points=3)
    quick.calm()
    assert_told(quick, Condition.REFUSED, "crm a (the wallet refuses", "`syncsvc quarantine retry a`")
    quick.crm.put("b", name=None)
    quick.crm.put("c", email="other@example.org")
    quick.cycle()
    assert_told(
        quick, Condition.QUARANTINED, "quarantine holds crm b", "`syncsvc quarantine retry b`", record="b"
    )
    assert_told(quick, Condition.QUARANTINED, "crm c (the email or the brand changed", record="c")
    listed = quick.store.quarantine.refusals()
    quick.store.quarantine.decide(listed, Choice.DROP, by="ann", now=quick.clock.now())
    assert_told(quick, Condition.QUARANTINED, "was dropped from sight", record="b")
    happened = [
        (it.what, it.facts.get("by"), it.facts.get("choice")) for it in told(quick, "b").life.happenings
    ]
    assert happened[-2:] == [("refused", None, None), ("decided", "ann", "drop")]


def test_what_is_paused_or_cannot_be_read_is_told_before_anything_that_follows_from_it(
    quick: QuickLab,
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.crm.fail(SchemaError("the field points does not exist"))
    quick.cycle()
    assert_told(quick, Condition.UNREADABLE, "crm cannot be read (the field points does not exist)")
    now = quick.clock.now()
    quick.store.pauses.begin("crm", by="ann", reason="audit", now=now)
    assert_told(quick, Condition.PAUSED, "is as crm left it", "ann paused it (audit)", "resume -o acme crm`")
    quick.store.pauses.begin(None, by="bob", reason=None, now=now)
    quick.store.pauses.end("crm", by="ann", now=now)
    assert_told(quick, Condition.PAUSED, "is as acme left it", "bob paused it: `syncsvc resume -o acme`")


def test_points_that_the_log_does_not_show_yet_are_told(quick: QuickLab) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.fault(Kind.STATUS, LOG, status=500, times=None, skip=1)
    quick.crm.put("a", points=15)
    quick.cycle()
    assert quick.awarded("a@example.org") == 15
    assert_told(quick, Condition.UNSEEN, "batch 2 was confirmed", "read 2026-11-02 12:02:00Z")
    assert quick.asks(IMPORT) == 2


def test_write_backs_that_are_due_fail_or_are_refused_are_told(quick: QuickLab) -> None:
    quick.crm.outcomes["a"] = WriteOutcome("a", Written.RETRY, "UNABLE_TO_LOCK_ROW")
    quick.crm.put("a", points=10)
    quick.cycle()
    assert_told(quick, Condition.NOT_WRITTEN_BACK, "to crm a again 2026-11-02 12:02:00Z, after 1 failures")
    quick.wait(300)
    assert_told(quick, Condition.NOT_WRITTEN_BACK, "to crm a with the next cycle")
    quick.crm.outcomes["a"] = WriteOutcome("a", Written.REFUSED, "FIELD_FILTER_VALIDATION_EXCEPTION")
    quick.cycle()
    assert_told(quick, Condition.WRITE_BACK_REFUSED, "refuses the write-back to crm a (FIELD_FILTER")


def test_what_others_say_of_a_contact_names_no_person(quick: QuickLab) -> None:
    words = "DUPLICATE_VALUE: duplicates ann.abel@example.org, phone +491711234567"
    quick.crm.outcomes["a"] = WriteOutcome("a", Written.REFUSED, words)
    quick.crm.put("a", points=10)
    quick.cycle()
    assert_told(
        quick, Condition.WRITE_BACK_REFUSED, "(DUPLICATE_VALUE: duplicates [redacted], phone [redacted])"
    )
    life = told(quick).life
    assert all(word not in str(life) for word in ("ann.abel", "49171"))
    assert "refused" in [it.what for it in life.happenings]


@pytest.mark.parametrize(
    ("policy", "then"), [("keep", "it stays in the wallet"), ("expire", "it was expired")]
)
def test_a_member_without_contacts_says_what_became_of_it(
    open_quick: OpenQuick, policy: str, then: str
) -> None:
    lab = open_quick(policy={"on_gone": policy})
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.delete("a")
    lab.calm()
    assert_told(lab, Condition.GONE, "crm a is gone", f'as on_gone = "{policy}" says, {then}')


def test_points_that_fell_and_members_that_were_adopted_are_up_to_date(open_quick: OpenQuick) -> None:
    lab = open_quick(first_run="adopt")
    lab.crm.put("a", points=10)
    lab.cycle()
    assert_told(lab, Condition.KNOWN, 'first_run = "adopt"')
    lab.crm.put("a", points=4)
    lab.cycle()
    assert_told(lab, Condition.FALLEN, "fell by 6, which is never taken back")


def test_an_email_that_nobody_has_says_why_that_may_be(quick: QuickLab) -> None:
    assert "crm is still being read for the first time" in unknown(quick.store)
    quick.crm.put("bad", email=None)
    quick.cycle()
    quick.store.pauses.begin("crm", by="ann", reason=None, now=quick.clock.now())
    assert unknown(quick.store) == (
        "no member has this email: no contact with it was read, or it is that of a contact in quarantine "
        "(`syncsvc quarantine`), or `where` leaves it out, or crm is paused"
    )
    assert explain(quick.store, quick.organization.config, "x@example.org", now=quick.clock.now()) == []
