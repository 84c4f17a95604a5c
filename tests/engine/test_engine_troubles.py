"""Trouble with one connector, told once; and the import log in every form and mood."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta
from zoneinfo import ZoneInfo

import pytest
from enginelab import BRAND, IMPORT, LOG, Lab

from syncsvc.errors import CredentialsError, OperatorError, SchemaError, TransientError
from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.wallet_knobs import LogTime
from syncsvc.watch.report import Outcome

Open = Callable[..., Lab]
A = "a@example.org"


@pytest.mark.parametrize(
    "error", [SchemaError("no field x", fields=["x"]), CredentialsError("the token is refused")]
)
def test_a_connector_that_needs_a_person_is_told_once_and_the_others_go_on(
    open_lab: Open, error: OperatorError
) -> None:
    lab = open_lab(connectors={"crm": {}, "shop": {}})
    lab.crms["shop"].put("z", points=5)
    told = []
    for _ in range(3):
        lab.crm.fail(error)
        assert lab.cycle().outcome is Outcome.DEGRADED
        told.append(len(lab.said("connector_unreadable")))
    assert told == [1, 0, 0]
    assert lab.awarded("z@example.org") == 5
    assert lab.cycle().outcome is Outcome.OK
    assert len(lab.said("connector_readable_again")) == 1
    lab.cycle()
    assert lab.said("connector_readable_again") == []


def test_passing_trouble_of_one_connector_does_not_stop_the_others(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {}, "shop": {}})
    lab.crms["shop"].put("z", points=5)
    lab.crm.fail(TransientError("the CRM is down", retry_after=30))
    report = lab.cycle()
    assert report.outcome is Outcome.TRANSIENT
    assert report.connectors["crm"].read_until is None
    assert report.connectors["shop"].read_until == lab.clock.now()
    assert lab.awarded("z@example.org") == 5
    assert lab.crms["shop"].records["z"]["wallet_status"] == "imported"


def test_a_paused_connector_is_not_written_to(lab: Lab) -> None:
    lab.crm.put("a", points=5)
    lab.cycle()
    lab.wait(5)
    lab.wallet.touch(BRAND, A)
    writes = len(lab.crm.writes)
    lab.crm.fail(SchemaError("no field x"))
    lab.cycle(after=400)
    assert len(lab.crm.writes) == writes
    lab.cycle()
    assert len(lab.crm.writes) == writes + 1


AMSTERDAM = {"timezone": "Europe/Amsterdam"}


@pytest.mark.parametrize("form", LogTime)
def test_the_log_is_understood_in_every_form(open_lab: Open, form: LogTime) -> None:
    lab = open_lab(wallet=AMSTERDAM)
    lab.wallet.knobs.log_time = form
    lab.wallet.knobs.zone = ZoneInfo("Europe/Amsterdam")
    lab.wait(0.25)
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.cycle(after=2 * 86_400)
    lab.crm.put("a", points=110)
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()
    at = lab.clock.now().astimezone(UTC)
    if form is LogTime.DATE_ONLY:
        midnight = at.astimezone(ZoneInfo("Europe/Amsterdam")).replace(hour=0, minute=0, second=0)
        at = midnight.astimezone(UTC)
    lab.cycle()
    assert lab.crm.records["a"]["wallet_time"] == f"{at:%Y-%m-%dT%H:%M:%SZ}"
    lab.crm.put("a", points=120)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle(after=2 * 86_400)
    lab.calm()
    assert lab.awarded(A) == 120
    lab.balanced()


def test_a_log_of_plain_days_keeps_points_back_until_their_award_could_be_seen(lab: Lab) -> None:
    lab.wallet.knobs.log_time = LogTime.DATE_ONLY
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.put("a", points=110)
    lab.cycle(after=3600)
    assert lab.awarded(A) == 100
    lab.cycle(after=2 * 86_400)
    assert lab.awarded(A) == 110


def test_an_email_that_the_log_spells_otherwise_is_the_same_member(lab: Lab) -> None:
    lab.crm.put("a", email="Ada.Lovelace@Example.org", points=10)
    lab.wallet.knobs.log_emails_lowered = True
    lab.fault(Kind.RESET_AFTER)
    lab.calm()
    assert lab.awarded("ada.lovelace@example.org") == 10
    assert [it.points for it in lab.wallet.imports] == [10, 0]  # the profile once more, in case
    assert lab.crm.records["a"]["wallet_time"] is not None


def test_points_are_not_sent_while_the_log_cannot_be_read_and_profiles_are(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.put("a", points=20)
    lab.fault(Kind.CUT_BODY, LOG, times=None)
    assert lab.cycle().outcome is Outcome.TRANSIENT
    assert lab.awarded(A) == 10
    lab.wallet.faults.clear()
    lab.cycle()
    assert lab.awarded(A) == 20


def test_a_log_that_breaks_off_decides_nothing(lab: Lab) -> None:
    for number in range(1200):
        lab.crm.put(f"r{number:04}", points=1)
    lab.fault(Kind.RESET_AFTER)
    lab.fault(Kind.CUT_BODY, LOG, skip=1, times=3)
    assert lab.cycle().in_doubt == 1200
    assert lab.wallet.total_awarded() == 1200
    lab.fault(Kind.CUT_BODY, LOG, times=6)
    report = lab.cycle(after=1000)
    assert report.in_doubt == 1200
    lab.cycle()
    assert (lab.wallet.total_awarded(), lab.asks(IMPORT)) == (1200, 1)
    lab.balanced()


def test_a_log_of_a_hundred_thousand_strangers_is_read_as_a_stream(lab: Lab) -> None:
    lab.crm.put("a")
    lab.wallet.knobs.log_shuffled = False
    for number in range(100_000):
        lab.wallet._member(BRAND, f"stranger{number}@example.org").logged = lab.clock.now()
    most = 0
    record = lab.store.confirmations.record

    def counting(brand_id: str, entries: dict[str, object], seen: object) -> int:
        nonlocal most
        most = max(most, len(entries))
        moved: int = record(brand_id, entries, seen)
        return moved

    lab.store.confirmations.record = counting
    lab.cycle()
    assert lab.crm.records["a"]["wallet_time"] is not None
    assert 0 < most < 20_000


def test_an_unreadable_time_in_the_log_is_kept_as_text_and_harms_nobody(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.fault(
        Kind.STATUS, LOG, status=200, body={"success": True, "data": [{"email": A, "last_updated": "soon"}]}
    )
    assert lab.cycle(after=400).outcome is Outcome.OK
    lab.crm.put("a", points=30)
    lab.cycle()
    assert lab.awarded(A) == 30


def test_a_log_that_does_not_say_success_is_not_believed(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.fault(Kind.STATUS, LOG, status=200, body={"success": False, "data": []}, times=3)
    assert lab.cycle().outcome is Outcome.TRANSIENT
    assert lab.wallet.ledger == []


def test_the_clock_that_counts_is_the_wallets(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    ours = lab.network.now
    lab.network.now = lambda: ours() + timedelta(hours=5)  # type: ignore[method-assign]
    lab.organization.wallet._network.now = lab.network.now  # type: ignore[method-assign]
    lab.crm.put("a", points=20)
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()
    lab.calm()
    assert lab.awarded(A) == 20
    lab.balanced()
