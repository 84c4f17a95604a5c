"""Sweeps in bulk: the same contacts for fewer calls, and queries bring them where the org gives no bulk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from salesforce_maker import SalesforceBulkMaker, SalesforceMaker

from syncsvc.errors import CredentialsError, CursorError, LostAnswerError, SchemaError, TransientError
from syncsvc.remote.connector import Needs
from syncsvc.remote.window import PollCursor
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.testing import Ground
from syncsvc.testing.reading import Read, collected, read, read_in_steps
from syncsvc.testing.wire import PASSING, copied

VERSIONED = "/services/data/v{version}"
QUERY, MAKE = ("GET", f"{VERSIONED}/query"), ("POST", f"{VERSIONED}/jobs/query")
LOOK, RESULTS = (
    ("GET", f"{VERSIONED}/jobs/query/{{job_id}}"),
    ("GET", f"{VERSIONED}/jobs/query/{{job_id}}/results"),
)
TYPES = {
    "Whole__c": "int",
    "Points__c": "double",
    "Spent__c": "currency",
    "Share__c": "percent",
    "Since__c": "date",
    "Seen__c": "datetime",
    "Vip__c": "boolean",
    "Tier__c": "picklist",
}
FULL = {
    "Whole__c": 7,
    "Points__c": 120,
    "Spent__c": 12_345_678.25,
    "Share__c": -0.5,
    "Since__c": "2026-03-04",
    "Seen__c": "2026-03-04T05:06:07Z",
    "Vip__c": True,
    "Tier__c": "Gold",
}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=True) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[SalesforceBulkMaker]:
    maker = SalesforceBulkMaker(ground, tmp_path)
    maker.org.knobs.job_page = 2
    yield maker
    maker.close()


def asks(crm: SalesforceMaker) -> list[int]:
    """Return how many queries, jobs, looks and pages of results were asked for."""
    return [crm.org.requests[request] for request in (QUERY, MAKE, LOOK, RESULTS)]


def ids(found: Read) -> list[str]:
    return [contact.record_id for page in found.pages for contact in page.contacts]


def begun(crm: SalesforceMaker, pages: int) -> Read:
    """Read the first pages of a sweep: the first is of no contacts, since it only keeps the job."""
    reading = crm.connect().changes(None)
    return Read(crm, tuple(next(reading) for _ in range(pages)))


def test_sweep_goes_on_in_bulk_where_queries_have_brought_enough(crm: SalesforceBulkMaker) -> None:
    made = crm.people(9)
    found = read(crm, None, crm.connect(bulk_above=3, page_size=2))
    assert sorted(ids(found)) == made
    assert asks(crm) == [2, 1, 3, 3]
    assert [page.expected for page in found.pages][3:] == [9, 9, 9]
    assert [len(page.contacts) for page in found.pages] == [2, 2, 0, 2, 2, 1]
    crm.wait(timedelta(minutes=1))
    crm.edit(made[:1], {"note": "edited"})
    assert read(crm, found.cursor).value(made[0], "note") == "edited"


def test_sweep_that_queries_finish_makes_no_job(crm: SalesforceBulkMaker) -> None:
    made = crm.people(4)
    assert ids(read(crm, None, crm.connect(bulk_above=4, page_size=2))) == made
    assert asks(crm)[1] == 1, "a full page does not tell that it is the last"
    assert ids(read(crm, None, crm.connect(bulk_above=5, page_size=2))) == made
    assert asks(crm)[1] == 1
    assert ids(read(crm, None, crm.connect(bulk_above=50_000))) == made
    assert asks(crm)[1] == 1


@pytest.mark.parametrize(
    "note",
    ['a\n"b",\r\n c\r', "😀 é \u202e", "null", "#N/A", "'", "00123", "a\x00b", "x" * 32_000, None],
    ids=lambda it: repr(it)[:9],
)
def test_contact_is_the_same_in_bulk_as_by_queries(crm: SalesforceBulkMaker, note: str | None) -> None:
    for name, kind in TYPES.items():
        crm.org.define("Contact", name, kind)
    account = crm.org.create("Account", {"Name": 'Ac,"me'})
    full = crm.org.create("Contact", {"LastName": "A", "Note__c": note, "AccountId": account, **FULL})
    bare = crm.org.create("Contact", {"LastName": "B"})
    read_too = {"LastName", "Note__c", "Id", "CreatedDate", "Account.Name", "Account.Owner.Username", *TYPES}
    needs = Needs(frozenset(read_too), crm.written)
    in_bulk = read(crm, None, crm.connect(needs)).latest
    by_queries = read(crm, None, crm.connect(needs, bulk_above=50_000)).latest
    assert in_bulk == by_queries
    for one in (full, bare):
        types = [[type(value) for value in it[one].fields.values()] for it in (in_bulk, by_queries)]
        assert types[0] == types[1]
    assert in_bulk[full].fields["Account.Name"] == 'Ac,"me'
    assert asks(crm)[1] == 1


def test_sweep_that_was_interrupted_goes_on_with_the_same_job(crm: SalesforceBulkMaker) -> None:
    made = crm.people(7)
    found = read_in_steps(crm, None)
    assert sorted(ids(found)) == made
    assert asks(crm)[:2] == [0, 1]
    assert asks(crm)[3] <= 2 * 4, "each page once, and once more to see that another follows"


def test_poll_after_a_sweep_in_bulk_begins_before_the_job_was_made(crm: SalesforceBulkMaker) -> None:
    at, (made,) = crm.clock.now(), crm.people(1)
    crm.org.knobs.job_seconds = 200.0
    pages = crm.connect().changes(None)
    found = Read(crm, (next(pages),))
    crm.edit([made], {"note": "meanwhile"})
    found += collected(crm, pages)
    poll = PollCursor.parse(found.cursor)
    assert poll.read is not None
    assert abs(poll.read - at) < timedelta(seconds=5)
    assert poll.since == poll.read - timedelta(minutes=10)
    assert found.value(made, "note") is None
    assert read(crm, found.cursor).value(made, "note") == "meanwhile"


def test_slow_job_is_waited_for_in_later_cycles(crm: SalesforceBulkMaker) -> None:
    made = crm.people(3)
    crm.org.knobs.job_seconds = 900.0
    found = begun(crm, 1)
    for _ in range(2):
        looks = asks(crm)[2]
        with pytest.raises(TransientError, match="still running"):
            read(crm, found.cursor)
        assert asks(crm)[2] - looks <= 14
    crm.wait(timedelta(minutes=5))
    assert sorted(ids(read(crm, found.cursor))) == made
    assert asks(crm)[:2] == [0, 1]


def test_job_that_never_ends_is_aborted_and_queries_bring_the_rest(crm: SalesforceBulkMaker) -> None:
    made = crm.people(3)
    crm.org.knobs.job_seconds = 1e9
    found = begun(crm, 1)
    crm.wait(timedelta(hours=6))
    assert ids(read(crm, found.cursor)) == made
    assert [job.aborted for job in crm.org.jobs.values()] == [True]


def no_bulk(crm: SalesforceMaker) -> None:
    crm.org.knobs.bulk_api = False


def no_more_jobs(crm: SalesforceMaker) -> None:
    crm.org.knobs.foreign_query_jobs = 10_000


def forbidden(crm: SalesforceMaker) -> Fault:
    body = [{"errorCode": "API_DISABLED_FOR_ORG", "message": "zebra@example.org"}]
    return crm.strike(Kind.STATUS, "jobs/query$", status=403, body=body, times=None)


def failing(crm: SalesforceMaker) -> None:
    crm.org.knobs.job_failure = "QUERY_TIMEOUT: retried more than 15 times"


@pytest.mark.parametrize("why", [no_bulk, no_more_jobs, forbidden, failing])
def test_queries_bring_what_the_org_does_not_give_in_bulk(
    crm: SalesforceBulkMaker, why: Callable[[SalesforceMaker], Fault | None]
) -> None:
    made = crm.people(5)
    fault = why(crm)
    found = read_in_steps(crm, None)
    assert ids(found) == made
    assert asks(crm)[1] + (fault.struck if fault else 0) == 1, "it is not tried again in the same sweep"
    crm.wait(timedelta(minutes=1))
    crm.edit(made[:1], {"note": "edited"})
    assert read(crm, found.cursor).value(made[0], "note") == "edited"


@pytest.mark.parametrize("pages", [1, 2])
@pytest.mark.parametrize("lost", ["old", "deleted", "aborted"])
def test_job_that_is_lost_on_the_way_costs_calls_and_no_contacts(
    crm: SalesforceBulkMaker, pages: int, lost: str
) -> None:
    made = crm.people(5)
    if lost == "aborted":
        crm.org.knobs.job_seconds = 60.0
    found = begun(crm, 1 if lost == "aborted" else pages)
    if lost == "old":
        crm.wait(timedelta(days=8))
    elif lost == "deleted":
        crm.org.jobs.clear()
    else:
        next(iter(crm.org.jobs.values())).aborted = True
    rest = read(crm, found.cursor)
    assert set(ids(rest)) == set(made)
    assert asks(crm)[1] == 1


def test_token_that_ends_between_pages_is_renewed(crm: SalesforceBulkMaker) -> None:
    made = crm.people(9)
    crm.org.knobs.token_calls = 2
    assert sorted(ids(read(crm, None))) == made
    assert (asks(crm)[0], len(crm.org.jobs)) == (0, 1)


@pytest.mark.parametrize(
    "path", ["jobs/query$", r"jobs/query/\w+$", "results$"], ids=["make", "look", "results"]
)
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_trouble_of_every_call_in_bulk_is_waited_out(
    crm: SalesforceBulkMaker, fault: Fault, path: str
) -> None:
    made = crm.people(3)
    struck = crm.faults.add(copied(fault, path=path))
    assert set(ids(read(crm, None))) == set(made)
    assert struck.struck == 1
    assert asks(crm)[0] == 0, "no query is needed"


@pytest.mark.parametrize("path", [r"jobs/query/\w+$", "results$"], ids=["look", "results"])
@pytest.mark.parametrize("status", [401, 403])
def test_rights_that_are_lost_while_a_job_runs_need_a_person(
    crm: SalesforceBulkMaker, path: str, status: int
) -> None:
    crm.people(3)
    body = [{"errorCode": "INSUFFICIENT_ACCESS", "message": "zebra@example.org"}]
    fault = crm.strike(Kind.STATUS, path, status=status, body=body, times=None)
    with pytest.raises(CredentialsError) as caught:
        read(crm, None)
    assert "zebra" not in str(caught.value)
    assert fault.struck <= 2


CSV_TYPE = {"content-type": "text/csv", "Sforce-NumberOfRecords": "1", "Sforce-Locator": "null"}
HEAD = '"Id","Email","LastName","Note__c","Wallet_At__c","Wallet_Status__c"\n'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (HEAD + '"003000000000001AAA","","","","",""', {"Sforce-NumberOfRecords": "2"}),
        (HEAD + '"003000000000001AAA","","","","",""', {"Sforce-NumberOfRecords": ""}),
        (HEAD, {}),
        ("", {"Sforce-NumberOfRecords": "0"}),
        (HEAD + '"003000000000001AAA","",""', {}),
        (HEAD + '"003000000000001AAA","","","","","never closed', {}),
        (HEAD.replace("Note__c", "Other") + '"003000000000001AAA","","","","",""', {}),
        ("<html>login</html>", {"content-type": "text/html"}),
        (HEAD + '"003000000000001AAA","","\udcff","","",""', {}),
    ],
)
def test_page_of_results_that_is_not_whole_is_no_end(
    crm: SalesforceBulkMaker, body: str, headers: dict[str, str]
) -> None:
    crm.people(1)
    crm.strike(
        Kind.STATUS,
        "results$",
        status=200,
        body=body.encode(errors="surrogateescape"),
        headers={**CSV_TYPE, **headers},
        times=None,
    )
    with pytest.raises(LostAnswerError):
        read(crm, None)


def test_mark_at_the_beginning_of_results_is_no_part_of_a_name(crm: SalesforceBulkMaker) -> None:
    body = HEAD + '"003000000000001AAA","","Zebra","","",""'
    crm.strike(Kind.STATUS, "results$", status=200, body=body.encode("utf-8-sig"), headers=CSV_TYPE)
    crm.people(1)
    assert ids(read(crm, None)) == ["003000000000001AAA"]


def test_results_that_do_not_move_on_are_no_end(crm: SalesforceBulkMaker) -> None:
    crm.people(5)
    body = (HEAD + '"003000000000001AAA","","","","",""').encode()
    headers = {**CSV_TYPE, "Sforce-Locator": "Mg=="}
    crm.strike(Kind.STATUS, "results$", status=200, body=body, headers=headers, times=None)
    with pytest.raises(TransientError, match="do not move on"):
        read(crm, None)


@pytest.mark.parametrize("stripped", ["Sforce-Locator", "Sforce-NumberOfRecords"])
def test_queries_bring_what_a_proxy_makes_unreadable_in_bulk(crm: SalesforceBulkMaker, stripped: str) -> None:
    made = crm.people(5)
    headers = {name: value for name, value in CSV_TYPE.items() if name != stripped}
    crm.strike(Kind.STATUS, "results$", status=200, body=HEAD.encode(), headers=headers, times=None)
    assert ids(read(crm, None)) == made


def test_field_that_vanished_is_named_before_and_while_a_job_runs(crm: SalesforceBulkMaker) -> None:
    crm.people(5)
    found = begun(crm, 2)
    crm.org.knobs.hidden.add("Contact.Note__c")
    with pytest.raises(SchemaError, match="Note__c"):
        read(crm, None)
    with pytest.raises(SchemaError, match="Note__c"):
        read(crm, found.cursor)


def test_field_whose_type_differs_from_record_to_record_is_read_by_queries(crm: SalesforceBulkMaker) -> None:
    (made,) = crm.people(1)
    connector = crm.connect(Needs(frozenset({"Owner.Username"}), {}))
    described = connector._describe("Contact")
    owner = next(field for field in described["fields"] if field["name"] == "OwnerId")
    owner["referenceTo"] = ["Group", "User"]
    crm.strike(Kind.STATUS, "Contact/describe", status=200, body=described, times=None)
    assert read(crm, None, connector).latest[made].fields == {"Owner.Username": "human@sandbox.example"}
    assert asks(crm)[:2] == [1, 0]


def test_persons_and_leads_are_told_apart_in_bulk_too(crm: SalesforceBulkMaker) -> None:
    crm.org.enable_person_accounts()
    person = crm.org.create("Account", {"LastName": "A", "PersonEmail": "zebra-a@example.org"})
    crm.org.create("Account", {"Name": "Acme"})
    made = crm.people(3)
    assert ids(read(crm, None, crm.connect(Needs(frozenset({"Name"}), {}), object="Account"))) == [person]
    found = read_in_steps(crm, None)
    assert sorted(ids(found)) == made
    assert json.loads(found.cursor)["persons"] is True
    kept, converted = (crm.org.create("Lead", {"LastName": it, "Company": "C"}) for it in "AB")
    crm.org.convert_lead(converted)
    assert ids(read(crm, None, crm.connect(Needs(frozenset({"LastName"}), {}), object="Lead"))) == [kept]
    assert asks(crm)[:2] == [0, 3]


@pytest.mark.parametrize(
    "changed",
    [
        {"job": "x"},
        {"locator": "Mg==", "job": ""},
        {"locator": "a b"},
        {"read": "5"},
        {"job": "", "after": ""},
        {"after": "x"},
        {"job": 5},
    ],
)
def test_position_that_is_none_of_ours_is_refused(crm: SalesforceBulkMaker, changed: dict[str, Any]) -> None:
    crm.people(5)
    cursor = json.loads(begun(crm, 2).cursor)
    with pytest.raises(CursorError):
        read(crm, json.dumps({**cursor, **changed}))
