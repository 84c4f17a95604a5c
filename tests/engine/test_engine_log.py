"""A log that is not to be trusted: it never makes an award happen twice, and the doubt is shown."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from enginelab import LOG, SETTLED, Lab

from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.wallet_knobs import LogTime

Open = Callable[..., Lab]
A, B = "a@example.org", "b@example.org"
HOUR, DAY = 3600, 86400


def crowd(lab: Lab, count: int = 30) -> None:
    for number in range(count):
        lab.crm.put(f"r{number:02}", points=10)
    lab.crm.put("a", points=10)
    lab.cycle()


def says(lab: Lab, entries: list[Any], **more: Any) -> Fault:
    """Let the log say this from now on, but for the next reading."""
    body = {"success": True, "data": entries, **more}
    return lab.fault(Kind.STATUS, LOG, skip=1, times=None, status=200, body=body)


def entries(lab: Lab, *, without: str = "") -> list[dict[str, Any]]:
    listed = [
        {"email": it.email, "last_updated": lab.wallet.log_time("brand-1", it.email)}
        for it in lab.wallet.members("brand-1")
    ]
    return [it for it in listed if it["email"] != without]


def lose(lab: Lab, kind: Kind = Kind.RESET_AFTER) -> None:
    """Lose the answer to an award of 40 points for a."""
    lab.crm.put("a", points=50)
    lab.fault(kind)


def shown(lab: Lab) -> bool:
    """Return whether the doubt is there for everybody to see."""
    report = lab.cycle()
    return (report.in_doubt + report.held, lab.crm.records["a"]["wallet_status"]) in {
        (1, "in doubt"),
        (1, "held"),
    }


@pytest.mark.parametrize("left", ["none", "half", "all but a"])
def test_a_log_that_leaves_members_out_refutes_nothing(lab: Lab, left: str) -> None:
    crowd(lab)
    lose(lab)
    keeps = {"none": 0, "half": 15, "all but a": 30}[left]
    fault = says(lab, entries(lab, without=A)[:keeps])
    lab.cycle()
    for _ in range(4):
        lab.cycle(SETTLED)
    assert lab.awarded(A) == 50
    assert shown(lab)
    lab.wallet.faults.clear()
    assert fault.struck
    lab.calm()
    assert lab.awarded(A) == 50
    lab.balanced()


def test_a_new_member_is_not_awarded_twice_because_the_log_is_empty(lab: Lab) -> None:
    crowd(lab)
    lab.crm.put("b", points=40)
    lab.fault(Kind.RESET_AFTER)
    says(lab, [])
    lab.cycle()
    for _ in range(4):
        lab.cycle(SETTLED)
    assert lab.awarded(B) == 40
    lab.wallet.faults.clear()
    lab.calm()
    assert lab.awarded(B) == 40
    lab.balanced()


def test_a_log_that_is_short_is_said_once_and_again_when_it_is_whole(lab: Lab) -> None:
    crowd(lab)
    says(lab, entries(lab)[:10])
    lab.cycle(HOUR)
    assert lab.said("import_log_short") == []
    lab.cycle(HOUR)
    (line,) = lab.said("import_log_short")
    assert (line["shown"], line["known"]) == (10, 31)
    lab.cycle(HOUR)
    assert lab.said("import_log_short") == []
    lab.wallet.faults.clear()
    lab.cycle(HOUR)
    assert len(lab.said("import_log_whole")) == 1


def test_members_that_left_the_wallet_are_believed_gone_after_a_day(lab: Lab) -> None:
    crowd(lab, 8)
    lab.wallet.remove("brand-1", "r01@example.org")
    for _ in range(27):
        lab.cycle(HOUR)
    assert lab.value("SELECT count(*) FROM member WHERE log_value IS NULL") == 1
    lose(lab, Kind.RESET_BEFORE)
    lab.cycle()
    lab.cycle(SETTLED)
    assert lab.awarded(A) == 50


def test_an_empty_log_is_never_believed(lab: Lab) -> None:
    crowd(lab, 8)
    lose(lab)
    says(lab, [])
    lab.cycle()
    for _ in range(60):
        lab.cycle(HOUR)
    assert lab.awarded(A) == 50
    lab.wallet.faults.clear()
    lab.calm()
    lab.crm.put("a", points=51)
    lab.calm()
    assert lab.awarded(A) in {50, 51}


@pytest.mark.parametrize("order", ["newest first", "newest last", "far apart"])
def test_an_email_that_stands_twice_counts_with_its_latest_time(lab: Lab, order: str) -> None:
    crowd(lab)
    lose(lab)
    lab.cycle(after=60)
    moved = lab.wallet.log_time("brand-1", A)
    lab.restart()
    twice = [
        {"email": A, "last_updated": moved},
        {"email": " A@Example.ORG", "last_updated": "2026-11-02T11:00:00Z"},
    ]
    others = entries(lab, without=A)
    strangers = [
        {"email": f"s{number}@example.org", "last_updated": "2026-11-02T11:00:00Z"} for number in range(4100)
    ]
    said = {
        "newest first": [*twice, *others],
        "newest last": [*others, *reversed(twice)],
        "far apart": [twice[0], *others, *strangers, twice[1]],
    }[order]
    lab.fault(Kind.STATUS, LOG, times=None, status=200, body={"success": True, "data": said})
    for _ in range(3):
        lab.cycle(SETTLED)
    assert lab.awarded(A) == 50
    assert lab.value("SELECT log_value FROM member WHERE email_key = 'a@example.org'") == moved
    lab.wallet.faults.clear()
    lab.calm()
    lab.balanced()


@pytest.mark.parametrize("kind", [Kind.RESET_AFTER, Kind.RESET_BEFORE])
@pytest.mark.parametrize("what", ["backwards", "future", "unreadable", "null", "another form"])
def test_times_that_make_no_sense_never_award_twice(lab: Lab, what: str, kind: Kind) -> None:
    crowd(lab)
    lose(lab, kind)
    told: dict[str, Any] = {
        "backwards": "2026-11-01T00:00:00Z",
        "future": f"{lab.clock.now() + timedelta(days=400):%Y-%m-%dT%H:%M:%SZ}",
        "unreadable": "yesterday, at tea time",
        "null": None,
        "another form": 1793620800,
    }
    said = [it | {"last_updated": told[what]} for it in entries(lab)]
    says(lab, said)
    lab.cycle()
    for _ in range(5):
        lab.cycle(SETTLED)
    assert lab.awarded(A) == (50 if kind is Kind.RESET_AFTER else 10)
    assert kind is Kind.RESET_AFTER or shown(lab)
    lab.wallet.faults.clear()
    lab.calm()
    assert lab.awarded(A) == 50
    lab.balanced()


@pytest.mark.parametrize("seed", range(12))
def test_no_mixture_of_nonsense_awards_twice_or_ends_in_an_error(lab: Lab, seed: int) -> None:
    chance = random.Random(seed)
    print("seed", seed)  # noqa: T201 - what a failing mixture is played again with
    crowd(lab, 12)
    earned = 10
    nonsense: list[Any] = [
        {"status": 200, "body": {"success": True, "data": []}},
        {"status": 200, "body": {"success": False, "data": []}},
        {"status": 200, "body": {"success": True, "data": {"a": 1}}},
        {"status": 200, "body": {"success": True, "data": [{"email": 7}, 3, None, {"email": A}]}},
        {"status": 200, "body": {"success": True, "data": [{"email": A, "last_updated": "2027-01-01"}]}},
        {"status": 200, "body": ["nonsense"]},
        {"status": 500},
    ]
    forms = list(LogTime)
    for _ in range(10):
        if chance.random() < 0.6:
            lab.fault(
                Kind.STATUS,
                LOG,
                skip=chance.randrange(3),
                times=chance.randrange(1, 4),
                **chance.choice(nonsense),
            )
        if chance.random() < 0.3:
            lab.wallet.knobs.log_time = chance.choice(forms)
        if chance.random() < 0.5:
            earned += chance.randrange(1, 9)
            lab.crm.put("a", points=earned)
        if chance.random() < 0.5:
            lab.fault(chance.choice([Kind.RESET_AFTER, Kind.RESET_BEFORE]))
        report = lab.cycle(chance.choice([1, 60, SETTLED, HOUR]))
        assert "unexpectedly" not in " ".join(report.errors)
        assert lab.awarded(A) <= earned
    lab.wallet.faults.clear()
    lab.calm()
    assert lab.awarded(A) <= earned
    books = "SELECT credited + unsettled FROM member WHERE email_key = 'a@example.org'"
    assert lab.awarded(A) <= lab.value(books) <= earned
