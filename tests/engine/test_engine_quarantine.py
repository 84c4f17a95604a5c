"""One bad contact never stops the others and never vanishes."""

from __future__ import annotations

import pytest
from enginelab import Lab

from syncsvc.model import FieldValue
from syncsvc.watch.report import Outcome

MAPPED = {"email": "{email}", "name": "{name}", "points": "{points}", "start_date": "{since}"}

BAD: dict[str, tuple[dict[str, FieldValue], dict[str, FieldValue], str]] = {
    "no email": ({"email": None}, {"email": "x@example.org"}, "email"),
    "no address": ({"email": "x@"}, {"email": "x@example.org"}, "email"),
    "no integer": ({"points": "12.5"}, {"points": 12}, "points"),
    "below zero": ({"points": -1}, {"points": 12}, "points"),
    "no date": ({"since": "tomorrow"}, {"since": "2026-01-02"}, "start_date"),
    "long name": ({"name": "x" * 256}, {"name": "Xi"}, "name"),
    "no name": ({"name": None}, {"name": "Xi"}, "name"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_contact_waits_with_a_reason_and_is_delivered_once_mended(lab: Lab, case: str) -> None:
    bad, mended, field = BAD[case]
    lab.restart(connectors={"crm": {"member": MAPPED}})
    lab.crm.put("x", **{"points": 3, **bad})
    lab.crm.put("good", points=5)
    report = lab.cycle()
    assert (report.outcome, report.quarantined) == (Outcome.DEGRADED, 1)
    assert lab.awarded("good@example.org") == 5
    side, found, reason = lab.quarantine()["x"]
    assert (side, found) == ("mapping", field)
    assert "correct the record, or the map" in reason
    assert str(next(iter(bad.values()))) not in reason or case == "no email"
    assert lab.crm.records["x"]["wallet_status"] == f"quarantined: {reason}"
    lab.crm.put("x", **mended)
    report = lab.cycle()
    assert (report.outcome, lab.quarantine()) == (Outcome.OK, {})
    assert lab.awarded("x@example.org") == int(lab.crm.records["x"]["points"] or 0)
    assert lab.crm.records["x"]["wallet_status"] == "imported"


def test_an_unchanged_bad_contact_costs_nothing(lab: Lab) -> None:
    lab.crm.overlap = 10
    lab.crm.put("x", email=None)
    lab.crm.put("good")
    lab.cycle()
    lab.cycle()
    before, writes = lab.contents(), len(lab.crm.writes)
    report = lab.cycle(after=1)
    assert (report.changed, report.quarantined) == (0, 1)
    assert (lab.contents(), len(lab.crm.writes)) == (before, writes)


def test_a_member_whose_contact_turned_bad_stays_as_it_was(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.crm.put("a", email=None, points=50)
    lab.cycle()
    assert lab.awarded("a@example.org") == 10
    lab.crm.put("a", email="a@example.org")
    lab.cycle()
    assert lab.awarded("a@example.org") == 50


def test_ids_of_refused_contacts_are_told_at_debug_without_their_values(lab: Lab) -> None:
    lab.crm.put("x", email="secret@nowhere")
    lab.cycle()
    told = lab.said("contact_quarantined")
    assert [(line["record"], line["field"], line["log_level"]) for line in told] == [("x", "email", "debug")]
    assert "secret" not in str(lab.lines)


def test_refused_by_the_mapping_and_by_the_wallet_at_once_is_written_back_once(lab: Lab) -> None:
    # The owner turns bad on the page before its pending row is refused by the wallet.
    lab.crm.put("a", points=30)
    lab.wallet.knobs.abilities["wallet-sandbox"].discard("import")
    lab.cycle()
    lab.wallet.knobs.abilities["wallet-sandbox"].add("import")
    lab.wallet.knobs.max_points = 25
    lab.crm.put("a", name=None)
    lab.cycle()
    assert lab.value("SELECT count(*) FROM quarantine WHERE record_id = 'a'") == 2
    assert str(lab.crm.records["a"]["wallet_status"]).startswith("quarantined: ")
