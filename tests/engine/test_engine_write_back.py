"""Writing back: only what differs, each outcome remembered."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from enginelab import BRAND, Lab

from syncsvc.errors import TransientError
from syncsvc.model import STATUS_LENGTH, WriteBack, WriteOutcome, Written
from syncsvc.watch.report import Outcome

Open = Callable[..., Lab]


def test_only_records_that_differ_are_written(lab: Lab) -> None:
    for record in ("a", "b", "c"):
        lab.crm.put(record, points=1)
    lab.cycle()
    lab.cycle()
    lab.crm.writes.clear()
    lab.wallet.touch(BRAND, "b@example.org")
    lab.cycle(after=400)
    assert [value.record_id for value in lab.crm.writes] == ["b"]
    assert list(lab.crm.writes[0].values) == ["wallet_time"]


def test_write_back_looks_at_a_contact_once_its_member_was_sent(lab: Lab) -> None:
    due = "SELECT record_id, write_due FROM contact ORDER BY record_id"
    lab.crm.put("a", points=1)
    lab.cycle(send=False)
    assert lab.rows(due) == [("a", 0)]
    lab.cycle()
    assert lab.crm.records["a"]["wallet_time"] is not None
    lab.crm.put("b", email="a@example.org")
    lab.crm.put("c", points=1)
    lab.cycle(send=False)
    assert lab.rows(due)[1:] == [("b", 1), ("c", 0)]


def test_a_value_that_a_person_overwrote_is_put_right(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.cycle()
    right = lab.crm.records["a"]["wallet_time"]
    lab.crm.put("a", wallet_time=None, wallet_status="gone fishing")
    lab.cycle()
    assert (lab.crm.records["a"]["wallet_time"], lab.crm.records["a"]["wallet_status"]) == (right, "imported")


@pytest.mark.parametrize("name", ["wallet_time", "wallet_status"])
def test_only_the_fact_that_differs_is_written(lab: Lab, name: str) -> None:
    lab.crm.put("a", points=1)
    lab.cycle()
    lab.crm.writes.clear()
    lab.crm.put("a", **{name: None})
    lab.cycle()
    assert [list(value.values) for value in lab.crm.writes] == [[name]]


def test_a_value_that_stands_there_already_is_not_written(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.cycle()
    held = {name: lab.crm.records["a"][name] for name in ("wallet_time", "wallet_status")}
    lab.crm.put("a", wallet_time="2001-01-01T00:00:00Z")
    lab.crm.put("a", **held)
    lab.crm.writes.clear()
    lab.cycle()
    assert lab.crm.writes == []


def test_passing_trouble_is_tried_again_after_longer_and_longer_pauses(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.crm.put("b", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("a", Written.RETRY, "UNABLE_TO_LOCK_ROW")
    assert lab.cycle().write_back_failed == 1
    tried, last = [], 0
    for minute in range(1, 180):
        if lab.cycle().write_back_failed:
            tried.append(minute - last)
            last = minute
    assert tried == [1, 2, 4, 8, 16, 32, 60]
    assert lab.quarantine() == {"a": ("crm", "write_back", "UNABLE_TO_LOCK_ROW")}
    lab.crm.outcomes.clear()
    assert lab.cycle(after=3600).written_back == 1
    assert lab.quarantine() == {}
    assert lab.value("SELECT count(*) FROM write_retry") == 0


def test_trouble_that_passes_soon_is_in_no_quarantine(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("a", Written.RETRY)
    assert lab.cycle().outcome is Outcome.OK
    assert lab.quarantine() == {}
    lab.crm.outcomes.clear()
    assert lab.cycle().written_back == 1


def test_a_record_that_a_person_changed_is_tried_at_once(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("a", Written.REFUSED, "VALIDATION")
    lab.cycle()
    lab.crm.outcomes.clear()
    assert lab.cycle().written_back == 0
    lab.crm.put("a", name="Eve")
    assert lab.cycle().written_back == 1
    assert lab.quarantine() == {}


def test_a_rule_of_the_crm_that_was_mended_is_found_within_the_day(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("a", Written.REFUSED, "VALIDATION")
    lab.cycle()
    assert [lab.cycle(after=1800).write_back_failed for _ in range(8)] == [0, 1, 0, 0, 0, 1, 0, 0]
    lab.crm.outcomes.clear()
    assert lab.cycle(after=86_400).written_back == 1


def test_a_process_that_dies_after_a_failure_knows_of_it(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("a", Written.REFUSED, "VALIDATION")
    lab.cycle()
    lab.restart()
    assert lab.cycle().write_back_failed == 0


def test_a_refused_value_goes_to_quarantine_with_the_crms_words_and_is_not_tried_again(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.crm.put("b", points=1)
    lab.crm.outcomes["a"] = WriteOutcome(
        "a", Written.REFUSED, "FIELD_CUSTOM_VALIDATION_EXCEPTION: fill Country"
    )
    report = lab.cycle()
    assert report.outcome is Outcome.DEGRADED
    assert lab.quarantine() == {"a": ("crm", "write_back", "FIELD_CUSTOM_VALIDATION_EXCEPTION: fill Country")}
    assert lab.crm.records["b"]["wallet_status"] == "imported"
    assert lab.cycle().write_back_failed == 0
    lab.crm.outcomes.clear()
    lab.crm.put("a", country="NL")
    lab.wallet.touch(BRAND, "a@example.org")
    lab.cycle(after=400)
    assert lab.quarantine() == {}
    assert lab.crm.records["a"]["wallet_time"] is not None


def narrow(lab: Lab, most: int) -> None:
    """Let the CRM refuse a record's whole write where its status is longer than `most`."""
    write = lab.crm.write

    def refusing(value: WriteBack) -> WriteOutcome:
        if len(str(value.values.get("wallet_status", ""))) > most:
            return WriteOutcome(value.record_id, Written.REFUSED, "STRING_TOO_LONG")
        return write(value)

    lab.crm.write = refusing  # type: ignore[method-assign]


@pytest.mark.parametrize("column", ["x" * 300, "\N{PILE OF POO}" * 150])
def test_a_status_is_never_longer_than_a_line_of_text(open_lab: Open, column: str) -> None:
    lab = open_lab(connectors={"crm": {"member": {"email": "{email}", "name": f"{{{column}}}"}}})
    lab.crm.put("a", **{column: None})
    lab.cycle()
    told = lab.crm.records["a"]["wallet_status"]
    assert isinstance(told, str)
    assert told.startswith("quarantined: name")
    assert STATUS_LENGTH - 2 <= len(told.encode("utf-16-le")) / 2 <= STATUS_LENGTH
    lab.cycle()
    assert len(lab.crm.writes) == 1


def test_a_status_that_is_refused_keeps_no_time_from_being_written(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.crm.put("b", points=1)
    narrow(lab, 5)
    report = lab.cycle()
    assert (report.written_back, report.write_back_failed) == (2, 2)
    assert all(lab.crm.records[it]["wallet_time"] is not None for it in "ab")
    assert lab.quarantine()["a"] == ("crm", "write_back.status", "STRING_TOO_LONG")
    asked = lab.network.requests
    quiet = lab.cycle()
    assert (quiet.written_back, quiet.write_back_failed) == (0, 0)
    assert lab.network.requests - asked <= 2
    lab.wallet.touch(BRAND, "a@example.org")
    lab.cycle(after=400)
    assert lab.crm.records["a"]["wallet_time"] > lab.crm.records["b"]["wallet_time"]
    narrow(lab, 99)
    del lab.crm.write
    lab.cycle(after=90_000)
    assert [lab.crm.records[it]["wallet_status"] for it in "ab"] == ["imported", "imported"]
    assert lab.quarantine() == {}


def test_a_record_that_takes_neither_is_refused_once(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("a", Written.REFUSED, "VALIDATION")
    report = lab.cycle()
    assert (report.written_back, report.write_back_failed) == (0, 1)
    assert lab.quarantine() == {"a": ("crm", "write_back", "VALIDATION")}
    assert lab.value("SELECT written_at FROM contact") is None


@pytest.mark.parametrize("result", [Written.GONE, Written.MERGED])
def test_a_record_that_is_not_there_any_more_is_no_error(lab: Lab, result: Written) -> None:
    lab.crm.put("a", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("other", result)
    assert lab.cycle().outcome is Outcome.OK
    assert lab.value("SELECT write_due FROM contact") == 0
    lab.crm.outcomes.clear()
    lab.cycle()
    assert lab.crm.writes == []


def test_a_record_that_was_gone_for_a_moment_is_written_when_it_is_read_again(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("a", Written.GONE)
    lab.cycle()
    lab.crm.outcomes.clear()
    lab.crm.stamp("a")
    lab.cycle()
    lab.cycle()
    assert lab.crm.records["a"]["wallet_status"] == "imported"
    before = len(lab.crm.writes)
    lab.cycle(full=True)
    assert len(lab.crm.writes) == before


def test_more_records_than_one_call_takes_are_all_written(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncsvc.stages.write_back._PAGE", 500)
    for number in range(1100):
        lab.crm.put(f"r{number:04}")
    assert lab.cycle().written_back == 1100
    assert {it["wallet_status"] for it in lab.crm.records.values()} == {"imported"}


def test_a_process_that_is_asked_to_stop_does_so_among_many_records(lab: Lab) -> None:
    for number in range(650):
        lab.crm.put(f"r{number:03}")
    assert lab.cycle(stopping=lambda: len(lab.crm.writes) >= 300).outcome is Outcome.STOPPED
    assert lab.value("SELECT count(*) FROM contact WHERE write_due <> 1") == len(lab.crm.writes) == 400
    lab.cycle()
    assert len(lab.crm.writes) == 650


def test_what_was_written_before_an_error_is_known(lab: Lab) -> None:
    for number in range(450):
        lab.crm.put(f"r{number:03}")
    write, calls = lab.crm.write, 0

    def failing(value: WriteBack) -> WriteOutcome:
        nonlocal calls
        calls += 1
        if calls == 301:
            raise TransientError("the CRM is down")
        return write(value)

    lab.crm.write = failing  # type: ignore[method-assign]
    assert lab.cycle().outcome is Outcome.TRANSIENT
    assert lab.value("SELECT count(*) FROM contact WHERE write_due <> 1") == 300
    lab.cycle()
    assert len(lab.crm.writes) == 450


def test_a_connector_that_writes_nothing_back_is_never_written_to(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {"write_back": {}}})
    lab.crm.put("a", points=1)
    lab.cycle()
    assert lab.crm.writes == []
    assert lab.value("SELECT write_due FROM contact") == 0


def test_an_excluded_contact_is_not_written_to(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {"where": "name != 'Out'"}})
    lab.crm.put("a", points=1)
    lab.cycle()
    lab.crm.put("a", name="Out")
    lab.cycle()
    lab.crm.writes.clear()
    lab.wallet.touch(BRAND, "a@example.org")
    lab.cycle(after=400)
    assert lab.crm.writes == []


LATER = [
    ({}, {"last_updated": "wallet_time"}),
    ({}, {"status": "wallet_status"}),
    ({"last_updated": "wallet_time"}, {"last_updated": "wallet_time", "status": "wallet_status"}),
    ({"last_updated": "old", "status": "state"}, {"last_updated": "wallet_time", "status": "wallet_status"}),
]


@pytest.mark.parametrize(("before", "after"), LATER)
def test_what_is_to_be_written_later_is_written_on_every_record(
    open_lab: Open, before: dict[str, str], after: dict[str, str]
) -> None:
    lab = open_lab(connectors={"crm": {"write_back": before}})
    for record in ("a", "b"):
        lab.crm.put(record, points=1)
    lab.cycle()
    lab.cycle(after=400)
    lab.crm.writes.clear()
    lab.restart(connectors={"crm": {"write_back": after}})
    assert lab.cycle().written_back == 2
    shown = {fact: {it.get(field) for it in lab.crm.records.values()} for fact, field in after.items()}
    assert shown.get("status", {"imported"}) == {"imported"}
    assert None not in shown.get("last_updated", ())
    news = set(after.values()) - set(before.values())
    assert {field for it in lab.crm.writes for field in it.values} == news
    lab.restart()
    assert lab.cycle().written_back == 0


def test_what_is_not_to_be_written_any_more_waits_for_nothing(open_lab: Open) -> None:
    lab = open_lab()
    lab.crm.put("a", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("a", Written.REFUSED, "VALIDATION")
    lab.cycle()
    assert lab.quarantine() == {"a": ("crm", "write_back", "VALIDATION")}
    lab.restart(connectors={"crm": {"write_back": {}}})
    lab.cycle()
    assert lab.quarantine() == {}
    assert lab.value("SELECT write_due FROM contact") == 0


def test_a_field_that_takes_no_value_may_be_changed_for_one_that_does(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {"write_back": {"last_updated": "narrow"}}})
    lab.crm.put("a", points=1)
    lab.crm.outcomes["a"] = WriteOutcome("a", Written.REFUSED, "VALIDATION")
    lab.cycle()
    del lab.crm.outcomes["a"]
    lab.restart(connectors={"crm": {"write_back": {"last_updated": "wallet_time"}}})
    assert lab.cycle(after=1).written_back == 1
    assert lab.quarantine() == {}


def test_a_state_that_does_not_know_what_was_written_is_looked_at_once(open_lab: Open) -> None:
    lab = open_lab()
    for record in "abc":
        lab.crm.put(record, points=1)
    lab.crm.outcomes["c"] = WriteOutcome("c", Written.REFUSED, "VALIDATION")
    lab.cycle()
    lab.cycle(after=1)
    refused, written = lab.quarantine(), len(lab.crm.writes)
    lab.ground.change("UPDATE connector SET writes = NULL")
    lab.ground.change("UPDATE contact SET written_status = NULL WHERE record_id = 'a'")  # it was added later
    lab.restart()
    assert lab.cycle(after=1).written_back == 1
    assert [it.record_id for it in lab.crm.writes[written:]] == ["a"]
    assert lab.quarantine() == refused
    assert lab.value("SELECT tries FROM write_retry") == 1
