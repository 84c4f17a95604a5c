"""What the Salesforce simulator makes of person accounts, and what it refuses of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from salesforce_rest import Rest

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.salesforce import SalesforceSimulator

DATA = "/services/data/v67.0"
START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def org(clock: ManualClock) -> SalesforceSimulator:
    org = SalesforceSimulator(clock=clock, seed=3)
    org.define("Contact", "Early__c")
    org.enable_person_accounts()
    org.define("Contact", "Late__c", "datetime")
    return org


@pytest.fixture
def rest(org: SalesforceSimulator) -> Rest:
    return Rest(org)


def refusal(rest: Rest, path: str, body: dict[str, Any]) -> tuple[str, list[str]]:
    answer = rest("PATCH", f"{DATA}/sobjects/{path}", json=body)
    assert answer.status_code == 400, answer.text
    return answer.json()[0]["errorCode"], answer.json()[0]["fields"]


def test_a_person_is_an_account_and_a_contact_with_the_same_values(
    org: SalesforceSimulator, rest: Rest
) -> None:
    fields = {"FirstName": "Ada", "LastName": "L", "PersonEmail": "ada@example.org", "Early__pc": "x"}
    made = rest("POST", f"{DATA}/sobjects/Account", json=fields)
    assert made.status_code == 201
    account = org.record("Account", made.json()["id"])
    contact = org.record("Contact", account["PersonContactId"])
    assert (account["Name"], account["IsPersonAccount"]) == ("Ada L", True)
    assert (contact["Name"], contact["IsPersonAccount"]) == ("Ada L", True)
    assert (contact["Email"], contact["Early__c"]) == ("ada@example.org", "x")
    assert contact["AccountId"] == account["Id"]
    company = org.record("Account", org.create("Account", {"Name": "Acme"}))
    assert "PersonContactId" not in company


def test_a_write_through_the_account_moves_both_records(
    org: SalesforceSimulator, rest: Rest, clock: ManualClock
) -> None:
    one = org.create("Account", {"LastName": "L"})
    clock.advance(timedelta(minutes=1))
    written = rest("PATCH", f"{DATA}/sobjects/Account/{one}", json={"Late__pc": "2026-01-01T00:00:00Z"})
    assert written.status_code == 204
    account = org.record("Account", one)
    contact = org.record("Contact", account["PersonContactId"])
    assert contact["Late__c"] == account["Late__pc"] == "2026-01-01T00:00:00.000+0000"
    assert contact["SystemModstamp"] == account["SystemModstamp"] == "2026-11-20T12:01:00.000+0000"
    assert contact["LastModifiedById"] == org.user_id


def test_the_contact_of_a_person_cannot_be_written_nor_deleted(org: SalesforceSimulator, rest: Rest) -> None:
    contact = org.record("Account", org.create("Account", {"LastName": "L"}))["PersonContactId"]
    assert refusal(rest, f"Contact/{contact}", {"Early__c": "x"})[0] == "INSUFFICIENT_ACCESS_OR_READONLY"
    deleted = rest("DELETE", f"{DATA}/sobjects/Contact/{contact}")
    assert (deleted.status_code, deleted.json()[0]["errorCode"]) == (400, "INSUFFICIENT_ACCESS_OR_READONLY")


def test_fields_of_the_other_kind_of_account_are_refused(org: SalesforceSimulator, rest: Rest) -> None:
    one, company = org.create("Account", {"LastName": "L"}), org.create("Account", {"Name": "Acme"})
    wrong = "INVALID_FIELD_FOR_INSERT_UPDATE"
    assert refusal(rest, f"Account/{one}", {"Name": "x"}) == (wrong, ["Name"])
    assert refusal(rest, f"Account/{company}", {"PersonEmail": "x@example.org"}) == (wrong, ["PersonEmail"])
    assert refusal(rest, f"Account/{company}", {"Early__pc": "x"}) == (wrong, ["Early__pc"])
    assert refusal(rest, f"Account/{one}", {"LastName": None}) == ("REQUIRED_FIELD_MISSING", ["LastName"])
    assert rest("PATCH", f"{DATA}/sobjects/Account/{company}", json={"Phone": "1"}).status_code == 204


def test_late_commits_merges_deletes_and_purges_of_a_person_are_those_of_its_contact(
    org: SalesforceSimulator, clock: ManualClock
) -> None:
    winner, loser = (org.create("Account", {"LastName": name}) for name in "AB")
    twins = {one: org.record("Account", one)["PersonContactId"] for one in (winner, loser)}
    org.update("Account", loser, {"LastName": "C"}, visible_after=60)
    assert org.table("Contact").rows[twins[loser]]["LastName"] == "B"  # type: ignore[union-attr]
    clock.advance(timedelta(seconds=61))
    org.settle()
    assert org.table("Contact").rows[twins[loser]]["LastName"] == "C"  # type: ignore[union-attr]
    org.merge("Account", winner, loser)
    gone = org.record("Contact", twins[loser])
    assert (gone["IsDeleted"], gone["MasterRecordId"]) == (True, twins[winner])
    org.purge("Account", loser)
    assert org.purged["Contact"].keys() == {twins[loser]}


def test_the_field_that_tells_persons_is_there_only_with_the_feature() -> None:
    plain = SalesforceSimulator()
    assert "ispersonaccount" not in plain.table("Contact").fields  # type: ignore[union-attr]
