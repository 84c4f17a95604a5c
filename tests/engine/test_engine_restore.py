"""An older state that is put back awards nothing again: what may have been sent since is in doubt."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from enginelab import BRAND, LOG, MEMBER_MAP, NOON, SETTLED, Crash, Lab
from quicklab import QuickLab
from soak import SOAK

from syncsvc.doubts import cases
from syncsvc.errors import TransientError
from syncsvc.sandbox.faults import Kind
from syncsvc.state.database import Database
from syncsvc.state.restoration import put_back
from syncsvc.state.store import register
from syncsvc.views.doubts import show_doubts

OpenQuick = Callable[..., QuickLab]
KNOWN = "ann", "bob"
NAMES = *KNOWN, "eve", "kim", "new", "old"


def put(lab: Lab, contents: str) -> None:
    """Put the state back as it was, and take it on."""
    lab.close()
    lab.ground.restore(contents)
    with Database.open_older(lab.state) as database:
        put_back(database, [lab.organization.config], by="ann")
    lab.restart()


def go_on(lab: Lab) -> None:
    """Run cycles until what the log decides is decided, and it has been read a while after."""
    for after in (60, SETTLED, SETTLED):
        lab.cycle(after)


def held(lab: Lab) -> dict[str, int]:
    return {str(it.record): it.points for it in lab.store.doubts.suspects() if it.held}


def paid(lab: Lab, names: Iterable[str]) -> list[int]:
    return [lab.awarded(f"{it}@example.org") for it in names]


def test_points_awarded_since_are_held_and_those_that_were_not_are_sent(
    quick: QuickLab, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (*KNOWN, "eve"):
        quick.crm.put(name, points=100)
    go_on(quick)
    backup = quick.ground.contents()
    quick.crm.put("ann", points=150)
    quick.crm.put("new", points=70)
    go_on(quick)
    quick.crm.put("bob", points=130)
    put(quick, backup)
    quick.cycle()
    assert paid(quick, ["ann", "new", "bob"]) == [150, 70, 100]
    (said,) = quick.said("restored_points_in_doubt")
    assert (said["rows"], said["points"]) == (3, 150)
    show_doubts(
        {"acme": cases(quick.store, quick.organization.config.wallet)}, {"acme": []}, now=NOON, as_json=False
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert "30 points for crm bob, perhaps sent, after 2026-11-02" in shown
    assert "the state was put back by ann, and may not know that it was sent" in shown
    assert (
        "its log entry moved since: by an award that is not known any more, a till, or a dashboard" in shown
    )
    go_on(quick)
    assert held(quick) == {"ann": 50, "new": 70}
    assert paid(quick, ["ann", "new", "bob", "eve"]) == [150, 70, 130, 100]


@pytest.mark.parametrize("seed", range(200 if SOAK else 1))
def test_no_walk_through_older_states_awards_more_than_was_earned(quick: QuickLab, seed: int) -> None:
    chance = random.Random(seed)
    earned = dict.fromkeys(KNOWN, 100)
    for name in earned:
        quick.crm.put(name, points=100)
    go_on(quick)
    backups = [quick.ground.contents()]
    for _ in range(14):
        name = chance.choice(NAMES)
        match chance.randrange(9):
            case 0 | 1 | 2:
                earned[name] = earned.get(name, 0) + chance.randrange(1, 50)
                quick.crm.put(name, points=earned[name], email=f"{name}@example.org")
            case 3:
                quick.fault(chance.choice([Kind.RESET_BEFORE, Kind.RESET_AFTER]), times=1)
            case 4:
                backups.append(quick.ground.contents())
            case 5 if "bob" in quick.crm.records:
                quick.crm.put("bob", email="")  # in quarantine
            case 6 if "ann" in quick.crm.records:
                quick.crm.delete("ann")
            case 7:
                put(quick, chance.choice(backups))
            case _:
                pass
        quick.cycle(chance.choice([60, SETTLED]))
        for it, points in earned.items():
            assert quick.awarded(f"{it}@example.org") <= points, it
        assert quick.differences() == []


POINTLESS = {"connectors": {"crm": {"member": {it: MEMBER_MAP[it] for it in MEMBER_MAP if it != "points"}}}}
POINTS = {"connectors": {"crm": {"member": MEMBER_MAP}}}


@pytest.mark.parametrize(
    ("without", "then", "in_doubt"),
    [
        ({"wallet": {"points": "off"}}, {"wallet": {"points": "add"}}, {"ann": 50, "new": 70}),
        (POINTLESS, POINTS, {}),
    ],
    ids=["off", "unmapped"],
)
def test_what_was_awarded_since_is_so_though_points_were_sent_later_again(
    quick: QuickLab, without: dict[str, Any], then: dict[str, Any], in_doubt: dict[str, int]
) -> None:
    for name in KNOWN:
        quick.crm.put(name, points=100)
    go_on(quick)
    backup = quick.ground.contents()
    quick.crm.put("ann", points=150)
    quick.crm.put("new", points=70)
    go_on(quick)
    quick.tables |= without
    put(quick, backup)
    go_on(quick)
    quick.crm.put("ann", name="Anne")  # read once more, without points
    go_on(quick)
    quick.restart(**then)
    go_on(quick)
    assert paid(quick, ["ann", "new", "bob"]) == [150, 70, 100]
    assert held(quick) == in_doubt
    for name, points in {"ann": 151, "new": 72, "bob": 103}.items():
        quick.crm.put(name, points=points)
    go_on(quick)
    assert paid(quick, ["bob"]) == [103]
    if not in_doubt:
        assert paid(quick, ["ann", "new"]) == [151, 72]
    assert quick.differences() == []


def test_a_contact_that_could_not_be_read_is_awarded_nothing_again_once_it_can_be(quick: QuickLab) -> None:
    for name in KNOWN:
        quick.crm.put(name, points=100)
    go_on(quick)
    backup = quick.ground.contents()
    for name in KNOWN:
        quick.crm.put(name, points=150)
    go_on(quick)
    quick.crm.put("ann", email="")
    quick.crm.delete("bob")
    put(quick, backup)
    go_on(quick)
    for name in KNOWN:
        quick.crm.put(name, points=150, email=f"{name}@example.org")
    go_on(quick)
    assert (held(quick), paid(quick, KNOWN)) == ({}, [150, 150])
    for name in KNOWN:  # what is earned from then on is awarded
        quick.crm.put(name, points=155)
    go_on(quick)
    assert paid(quick, KNOWN) == [155, 155]


def test_what_was_in_doubt_already_is_in_doubt_once_with_what_came_since(quick: QuickLab) -> None:
    for name in KNOWN:
        quick.crm.put(name, points=100)
    go_on(quick)
    for name in KNOWN:
        quick.crm.put(name, points=120)
    quick.crash_import("after")
    with pytest.raises(Crash):
        quick.cycle()
    backup = quick.ground.contents()
    quick.restart()
    go_on(quick)
    quick.crm.put("ann", points=150)
    go_on(quick)
    put(quick, backup)
    go_on(quick)
    # Of ann the log does not tell twenty from fifty, of bob it tells that his twenty landed.
    assert held(quick) == {"ann": 50}
    assert paid(quick, KNOWN) == [150, 120]
    assert quick.value("SELECT credited FROM member WHERE email_key = 'bob@example.org'") == 120


def test_who_left_with_a_stake_in_what_is_doubted_anew_keeps_it(open_quick: OpenQuick) -> None:
    lab = open_quick(policy={"on_email_change": "move"}, brakes={"max_gone_share": "100%"})
    lab.crm.put("ann", email="both@example.org", points=100)
    lab.cycle()
    lab.crm.put("kim", email="both@example.org", points=0)
    lab.calm()
    lab.crm.put("ann", points=150)
    lab.fault(Kind.RESET_AFTER)
    lab.fault(Kind.STATUS, LOG, skip=1, times=9, status=503)
    lab.cycle()
    lab.crm.put("ann", email="ann@example.org")
    lab.cycle(send=False)
    assert lab.rows("SELECT points FROM stake") == [(50,)]
    lab.crm.put("kim", points=160)
    put(lab, lab.ground.contents())
    go_on(lab)
    go_on(lab)
    assert paid(lab, ["both", "ann"]) == [150, 0]
    assert held(lab) == {"kim": 60}


def test_nothing_is_sent_before_every_connector_was_read(open_quick: OpenQuick) -> None:
    lab = open_quick(connectors={"crm": {}, "shop": {}})
    lab.crms["crm"].put("ann", points=100)
    lab.crms["shop"].put("bob", points=100)
    go_on(lab)
    backup = lab.ground.contents()
    lab.crms["shop"].put("bob", points=150)
    go_on(lab)
    put(lab, backup)
    lab.crms["crm"].put("kim", points=30)
    lab.crms["shop"].fail(TransientError("away"))
    report = lab.cycle()
    told = "the state was put back by ann: nothing is sent before shop was read"
    assert (report.rows_sent, report.proven, report.errors) == (0, False, ("shop: away", told))
    lab.restart()
    go_on(lab)
    assert (held(lab), paid(lab, ["bob", "kim"])) == ({"bob": 50, "kim": 30}, [150, 0])


def test_a_state_that_was_lost_begins_anew_and_awards_nothing_again(
    quick: QuickLab, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = quick.ground.contents()
    quick.crm.put("ann", points=100)
    go_on(quick)
    quick.crm.put("kim", points=30)
    quick.close()
    quick.ground.restore(nothing)
    with Database.open_older(quick.state) as database:
        register(database, quick.organization.config)
        put_back(database, [quick.organization.config], by="ann")
    quick.restart()
    quick.cycle()
    show_doubts(
        {"acme": cases(quick.store, quick.organization.config.wallet)}, {"acme": []}, now=NOON, as_json=False
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert "its log entry has not moved, but its contact is new or another since" in shown
    go_on(quick)
    assert (held(quick), paid(quick, ["ann", "kim"])) == ({"ann": 100, "kim": 30}, [100, 0])


def test_mails_that_may_have_been_sent_are_not_sent_again(open_quick: OpenQuick) -> None:
    mails = {"welcome_email": {"value": True}, "update_mail": {"value": True}}
    lab = open_quick(connectors={"crm": {"member": {**MEMBER_MAP, **mails}}})
    lab.crm.put("ann", points=100)
    go_on(lab)
    backup = lab.ground.contents()
    lab.crm.put("kim")
    lab.crm.put("ann", name="Anne")
    go_on(lab)
    put(lab, backup)
    go_on(lab)
    found = [lab.wallet.member(BRAND, f"{it}@example.org") for it in ("ann", "kim")]
    assert [it and it.mails for it in found] == [("welcome", "update", "update"), ("welcome", "update")]
