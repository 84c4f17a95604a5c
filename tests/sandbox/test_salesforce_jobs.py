"""What the Salesforce simulator makes of Bulk API 2.0 query jobs, and what it refuses of them."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from salesforce_rest import Rest

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.salesforce import SalesforceSimulator

JOBS = "/services/data/v67.0/jobs/query"
START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ASK = {"operation": "query", "query": "SELECT Id, LastName FROM Contact"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def org(clock: ManualClock) -> SalesforceSimulator:
    org = SalesforceSimulator(clock=clock, seed=3)
    org.define("Contact", "Points__c", "double")
    org.define("Contact", "Address", "address")
    return org


@pytest.fixture
def rest(org: SalesforceSimulator) -> Rest:
    return Rest(org)


def made(rest: Rest, query: str = ASK["query"], **more: Any) -> str:
    answer = rest("POST", JOBS, json={**ASK, "query": query, **more})
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "UploadComplete"
    return str(answer.json()["id"])


def rows(answer: httpx.Response, **dialect: Any) -> list[list[str]]:
    assert answer.headers["content-type"].startswith("text/csv")
    return list(csv.reader(io.StringIO(answer.text, newline=""), **dialect))


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()[0]["errorCode"]


def test_a_job_takes_its_time_and_then_gives_its_results(
    org: SalesforceSimulator, rest: Rest, clock: ManualClock
) -> None:
    one = org.create("Contact", {"LastName": 'a "b",\nc'})
    job = made(rest)
    assert rest("GET", f"{JOBS}/{job}").json()["state"] == "UploadComplete"
    assert code(rest("GET", f"{JOBS}/{job}/results")) == (400, "INVALIDJOBSTATE")
    clock.advance(timedelta(seconds=4))
    assert rest("GET", f"{JOBS}/{job}").json()["state"] == "InProgress"
    clock.advance(timedelta(seconds=4))
    told = rest("GET", f"{JOBS}/{job}").json()
    assert (told["state"], told["numberRecordsProcessed"], told["jobType"]) == ("JobComplete", 1, "V2Query")
    answer = rest("GET", f"{JOBS}/{job}/results")
    assert rows(answer) == [["Id", "LastName"], [one, 'a "b",\nc']]
    assert (answer.headers["sforce-numberofrecords"], answer.headers["sforce-locator"]) == ("1", "null")
    assert "api-usage" in answer.headers["sforce-limit-info"]


def test_results_come_in_pages_each_with_its_header_row(
    org: SalesforceSimulator, rest: Rest, clock: ManualClock
) -> None:
    everyone = org.create_many("Contact", [{"LastName": str(n)} for n in range(5)])
    job = made(rest, "SELECT Id FROM Contact")
    clock.advance(timedelta(seconds=5))
    seen, locator = [], None
    for _ in range(3):
        params = {"maxRecords": "2", **({"locator": locator} if locator else {})}
        answer = rest("GET", f"{JOBS}/{job}/results", params=params)
        header, *found = rows(answer)
        assert header == ["Id"]
        assert len(found) == int(answer.headers["sforce-numberofrecords"])
        seen += [row[0] for row in found]
        locator = answer.headers["sforce-locator"]
    assert locator == "null"
    assert sorted(seen) == everyone
    assert seen != everyone, "in no order to rely on"
    org.knobs.job_page = 3
    assert rest("GET", f"{JOBS}/{job}/results").headers["sforce-numberofrecords"] == "3"
    for wrong in ("x", "null", "NQ=="):
        given = rest("GET", f"{JOBS}/{job}/results", params={"locator": wrong})
        assert code(given) == (400, "INVALID_QUERY_LOCATOR")


def test_values_are_text_as_csv_has_them(org: SalesforceSimulator, rest: Rest, clock: ManualClock) -> None:
    account = org.create("Account", {"Name": "Acme"})
    org.create("Contact", {"LastName": "A", "AccountId": account, "Points__c": 5, "HasOptedOutOfEmail": True})
    query = "SELECT LastName, Account.Name, points__c, HasOptedOutOfEmail, Email, CreatedDate FROM Contact"
    job = made(rest, query, columnDelimiter="SEMICOLON", lineEnding="CRLF")
    clock.advance(timedelta(seconds=5))
    answer = rest("GET", f"{JOBS}/{job}/results")
    header, row = rows(answer, delimiter=";")
    assert header == ["LastName", "Account.Name", "Points__c", "HasOptedOutOfEmail", "Email", "CreatedDate"]
    assert row == ["A", "Acme", "5.0", "true", "", "2026-11-20T12:00:00.000Z"]
    assert answer.text.endswith("\r\n")


def test_deleted_rows_are_shown_where_asked_for(
    org: SalesforceSimulator, rest: Rest, clock: ManualClock
) -> None:
    org.delete("Contact", org.create("Contact", {"LastName": "A"}))
    jobs = [made(rest, operation=operation) for operation in ("query", "queryAll")]
    clock.advance(timedelta(seconds=5))
    counts = [rest("GET", f"{JOBS}/{job}").json()["numberRecordsProcessed"] for job in jobs]
    assert counts == [0, 1]
    assert rows(rest("GET", f"{JOBS}/{jobs[0]}/results")) == [["Id", "LastName"]]


@pytest.mark.parametrize(
    ("query", "refusal"),
    [
        ("SELECT COUNT() FROM Contact", "API_ERROR"),
        ("SELECT Id FROM Contact ORDER BY Id", "API_ERROR"),
        ("SELECT Id FROM Contact LIMIT 5", "API_ERROR"),
        ("SELECT Address FROM Contact", "API_ERROR"),
        ("SELECT Nope FROM Contact", "INVALID_FIELD"),
        ("SELECT Id FROM Nope", "INVALID_TYPE"),
        ("SELECT", "MALFORMED_QUERY"),
    ],
)
def test_queries_that_no_job_takes_are_refused(rest: Rest, query: str, refusal: str) -> None:
    assert code(rest("POST", JOBS, json={**ASK, "query": query})) == (400, refusal)


@pytest.mark.parametrize(
    "more",
    [{"operation": "insert"}, {"query": None}, {"lineEnding": "CR"}, {"contentType": "JSON"}, {"x": 1}],
)
def test_what_is_no_job_is_refused(rest: Rest, more: dict[str, Any]) -> None:
    assert code(rest("POST", JOBS, json={**ASK, **more})) == (400, "JSON_PARSER_ERROR")


def test_a_job_ends_by_being_aborted_failing_being_deleted_or_growing_old(
    org: SalesforceSimulator, rest: Rest, clock: ManualClock
) -> None:
    aborted, deleted, old = made(rest), made(rest), made(rest)
    assert rest("PATCH", f"{JOBS}/{aborted}", json={"state": "Aborted"}).json()["state"] == "Aborted"
    assert code(rest("PATCH", f"{JOBS}/{aborted}", json={"state": "Aborted"})) == (400, "INVALIDJOBSTATE")
    assert code(rest("PATCH", f"{JOBS}/{old}", json={"state": "Open"})) == (400, "JSON_PARSER_ERROR")
    assert code(rest("DELETE", f"{JOBS}/{deleted}")) == (400, "INVALIDJOBSTATE")
    clock.advance(timedelta(seconds=5))
    assert rest("GET", f"{JOBS}/{aborted}").json()["state"] == "Aborted"
    assert rest("DELETE", f"{JOBS}/{deleted}").status_code == 204
    assert rest("GET", f"{JOBS}/{deleted}").status_code == 404
    org.knobs.job_failure = "QUERY_TIMEOUT: retried more than 15 times"
    told = rest("GET", f"{JOBS}/{old}").json()
    assert (told["state"], told["errorMessage"]) == ("Failed", org.knobs.job_failure)
    clock.advance(timedelta(days=8))
    assert rest("GET", f"{JOBS}/{old}").status_code == 401
    rest = Rest(org)
    assert rest("GET", f"{JOBS}/{old}").status_code == 404


def test_a_day_has_so_many_jobs_and_not_every_org_has_any(org: SalesforceSimulator, rest: Rest) -> None:
    org.knobs.foreign_query_jobs = 9_999
    made(rest)
    assert "Max bulk v2 query jobs" in rest("POST", JOBS, json=ASK).json()[0]["message"]
    told = rest("GET", "/services/data/v67.0/limits").json()["DailyBulkV2QueryJobs"]
    assert told == {"Max": 10_000, "Remaining": 0}
    assert rest("POST", JOBS.replace("67", "46"), json=ASK).status_code == 404
    org.knobs.bulk_api, org.knobs.foreign_query_jobs = False, 0
    assert code(rest("POST", JOBS, json=ASK)) == (400, "FEATURENOTENABLED")
