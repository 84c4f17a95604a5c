from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from connectors.salesforce import Salesforce, SalesforceSettings
from syncsvc.errors import (
    CredentialsError,
    CursorError,
    LostAnswerError,
    OperatorError,
    SchemaError,
    TransientError,
)
from syncsvc.model import Contact, Page, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Needs
from syncsvc.remote.transport import Network
from syncsvc.remote.window import PollCursor, Window
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.salesforce import SalesforceSimulator
from syncsvc.sandbox.server import Authority, Server

QUERY = ("GET", "/services/data/v{version}/query")
QUERY_ALL = ("GET", "/services/data/v{version}/queryAll")
COLLECTION = ("PATCH", "/services/data/v{version}/composite/sobjects")
UPDATED, STATUS = "Wallet_Last_Updated__c", "Wallet_Status__c"
NEEDS = Needs(frozenset({"Email", "FirstName", "LastName"}), {"last_updated": UPDATED, "status": STATUS})
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)


class Quiet(Network):
    """Does not wait, and its wall clock can be moved."""

    ahead = timedelta(0)

    def sleep(self, seconds: float) -> None:
        del seconds

    def now(self) -> datetime:
        return super().now() + self.ahead


class Stage:
    """One server for many tests, each with an org of its own."""

    org: SalesforceSimulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.org.app(scope, receive, send)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def served(authority: Authority) -> Iterator[tuple[Server, Stage]]:
    stage = Stage()
    with Server(stage, authority=authority) as server:
        yield server, stage


@pytest.fixture
def org(served: tuple[Server, Stage]) -> SalesforceSimulator:
    org = served[1].org = SalesforceSimulator()
    org.define("Contact", UPDATED, "datetime")
    org.define("Contact", STATUS)
    return org


@pytest.fixture
def network(authority: Authority) -> Quiet:
    return Quiet(ca_file=str(authority.ca_file))


@pytest.fixture
def connect(
    served: tuple[Server, Stage], org: SalesforceSimulator, network: Quiet, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Salesforce]]:
    opened = []
    monkeypatch.setenv("SF_ID", org.client_id)
    monkeypatch.setenv("SF_SECRET", org.client_secret)

    def open_connector(needs: Needs = NEEDS, **keys: Any) -> Salesforce:
        opened.append(Salesforce(settings(url=served[0].url, **keys), needs, network))
        return opened[-1]

    yield open_connector
    for each in opened:
        each.close()


def settings(**keys: Any) -> SalesforceSettings:
    auth = {
        "flow": "client_credentials",
        "client_id": {"env": "SF_ID"},
        "client_secret": {"env": "SF_SECRET"},
    }
    return SalesforceSettings.model_validate({"url": "https://acme.my.salesforce.com", "auth": auth, **keys})


def now() -> datetime:
    return datetime.now(UTC)


def people(org: SalesforceSimulator, count: int, *, ago: timedelta = timedelta(days=2)) -> list[str]:
    return org.create_many("Contact", [{"LastName": f"Person {i}"} for i in range(count)], at=now() - ago)


def swept(connector: Salesforce) -> str:
    """Return the cursor after a sweep."""
    *_, last = connector.changes(None)
    return last.cursor


def ids(pages: Iterator[Page]) -> list[str]:
    return [contact.record_id for page in pages for contact in page.contacts]


def polled(connector: Salesforce, cursor: str) -> dict[str, Contact]:
    return {contact.record_id: contact for page in connector.changes(cursor) for contact in page.contacts}


def settled(connector: Salesforce) -> str:
    """Return a cursor as it is once nothing has changed for a while."""
    cursor = PollCursor.parse(swept(connector))
    return PollCursor(since=cursor.since, look=cursor.look).encode()


def write(record_id: str, *, status: str = "imported", at: datetime | None = None) -> WriteBack:
    return WriteBack(
        record_id, {UPDATED: at or datetime(2026, 3, 4, 5, 6, 7, 890_000, tzinfo=UTC), STATUS: status}
    )


def unchanged(org: SalesforceSimulator, record_id: str) -> bool:
    return org.record("Contact", record_id).get(STATUS) is None


# Reading


def test_a_sweep_brings_every_live_contact_with_the_fields_asked_for(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    kept = org.create("Contact", {"FirstName": "Ada", "LastName": "L", "Email": "ada@example.org"})
    org.delete("Contact", org.create("Contact", {"LastName": "Gone"}))
    (page,) = connect().changes(None)
    assert page.contacts == [
        Contact(
            kept,
            {"Email": "ada@example.org", "FirstName": "Ada", "LastName": "L", UPDATED: None, STATUS: None},
        )
    ]


def test_a_sweep_pages_by_id_and_ends_with_a_cursor_for_polling(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    everyone = people(org, 5)
    before = now() - 3 * SECOND  # the Date header is renewed once a second
    pages = list(connect(page_size=2).changes(None))
    assert ids(iter(pages)) == everyone
    assert [len(page.contacts) for page in pages] == [2, 2, 1]
    assert json.loads(pages[0].cursor)["after"] == everyone[1]
    poll = PollCursor.parse(pages[-1].cursor)
    assert poll.read is not None
    assert before <= poll.read <= now()
    assert poll.since == poll.read - 10 * MINUTE
    assert poll.recheck == poll.read + 5 * MINUTE


def test_a_sweep_whose_last_page_is_full_is_complete_too(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    everyone = people(org, 4)
    pages = list(connect(page_size=2).changes(None))
    assert ids(iter(pages)) == everyone
    assert PollCursor.parse(pages[-1].cursor)


def test_a_sweep_of_an_empty_org_still_gives_a_cursor(connect: Callable[..., Salesforce]) -> None:
    (page,) = connect().changes(None)
    assert page.contacts == []
    assert PollCursor.parse(page.cursor)


def test_an_interrupted_sweep_goes_on_where_it_was_and_keeps_its_beginning(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    everyone = people(org, 5)
    first = next(connect(page_size=2).changes(None))
    cursor = json.dumps({**json.loads(first.cursor), "sweep": 1_700_000_000_000})
    rest = list(connect(page_size=2).changes(cursor))
    assert ids(iter([first, *rest])) == everyone
    assert PollCursor.parse(rest[-1].cursor).read == datetime.fromtimestamp(1_700_000_000, UTC)


@pytest.mark.parametrize("path", ["query$", "queryAll$"])
def test_a_read_that_breaks_raises_and_never_ends_as_if_complete(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], path: str
) -> None:
    people(org, 5, ago=MINUTE)
    connector = connect(page_size=2)
    cursor = None if path == "query$" else settled(connector)
    org.faults.add(Fault(Kind.CUT_BODY, path=path, skip=1, times=None))
    reading = connector.changes(cursor)
    assert len(next(reading).contacts) == 2
    with pytest.raises(TransientError):
        next(reading)


def test_an_idle_poll_is_one_request_one_empty_page_and_the_same_cursor(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    people(org, 3)
    connector = connect()
    cursor = swept(connector)
    for _ in range(2):  # just after the sweep, and with all read for good
        org.requests.clear()
        (page,) = connector.changes(cursor)
        assert page.contacts == []
        assert page.cursor == cursor
        assert org.requests == {QUERY_ALL: 1}
        cursor = settled(connector)


def test_a_poll_brings_creations_edits_and_system_changes(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    quiet, edited, bumped = people(org, 3)
    connector = connect()
    cursor = swept(connector)
    new = org.create("Contact", {"LastName": "New"})
    org.update("Contact", edited, {"Email": "new@example.org"})
    org.system_bump("Contact", bumped)
    seen = polled(connector, cursor)
    assert seen.keys() == {new, edited, bumped}
    assert quiet not in seen
    assert seen[edited].fields["Email"] == "new@example.org"


def test_deleted_and_merged_contacts_come_as_gone(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    deleted, loser, winner, restored = people(org, 4)
    connector = connect()
    cursor = swept(connector)
    org.delete("Contact", deleted)
    org.merge("Contact", winner, loser)
    org.delete("Contact", restored)
    org.undelete("Contact", restored)
    seen = polled(connector, cursor)
    assert (seen[deleted].gone, seen[deleted].merged_into) == (True, None)
    assert (seen[loser].gone, seen[loser].merged_into) == (True, winner)
    assert not seen[winner].gone
    assert not seen[restored].gone


def test_many_contacts_of_one_second_are_read_once_each(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    everyone = people(org, 7, ago=MINUTE)
    connector = connect(page_size=2)
    cursor = PollCursor(since=now() - 10 * MINUTE).encode()
    assert ids(connector.changes(cursor)) == everyone


@pytest.mark.parametrize("size", [200, 2000])
def test_a_server_that_sends_smaller_pages_loses_nothing(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], size: int
) -> None:
    everyone = people(org, 7, ago=MINUTE)
    org.knobs.page_size = 3
    org.knobs.locator_limit = 0
    connector = connect(page_size=size)
    assert ids(connector.changes(None)) == everyone
    assert ids(connector.changes(PollCursor(since=now() - 10 * MINUTE).encode())) == everyone


def test_a_poll_goes_on_in_the_middle_of_its_window(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    everyone = [*people(org, 3, ago=2 * MINUTE), *people(org, 4, ago=MINUTE)]
    first = next(connect(page_size=2).changes(PollCursor(since=now() - 5 * MINUTE).encode()))
    rest = list(connect(page_size=2).changes(first.cursor))
    assert ids(iter([first, *rest])) == everyone
    assert PollCursor.parse(rest[-1].cursor).window is None


def test_a_window_has_an_end_that_later_changes_cannot_move(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    first, second, third = people(org, 3, ago=2 * MINUTE)
    connector = connect(page_size=1)
    until = now().replace(microsecond=0) - MINUTE
    window = Window(until - 5 * MINUTE, until, full=True)
    cursor = PollCursor(since=until - 5 * MINUTE).within(window).encode()
    org.update("Contact", third, {}, at=until)
    org.update("Contact", first, {}, at=until + SECOND)
    assert ids(connector.changes(cursor)) == [second, third]


def test_a_contact_stamped_in_the_second_of_a_fractional_beginning_is_read(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    at = now().replace(microsecond=0) - MINUTE
    (contact,) = people(org, 1)
    org.update("Contact", contact, {}, at=at)
    cursor = PollCursor(since=at + timedelta(milliseconds=900)).encode()
    assert ids(connect().changes(cursor)) == [contact]


def test_a_contact_stamped_in_the_second_of_a_fractional_end_is_read(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    at = now().replace(microsecond=0) - MINUTE
    (contact,) = people(org, 1)
    org.update("Contact", contact, {}, at=at)
    window = Window(at - MINUTE, at - timedelta(milliseconds=100), full=True)
    assert ids(connect().changes(PollCursor(since=at - MINUTE).within(window).encode())) == [contact]


def test_a_contact_that_was_committed_late_is_found_by_the_second_pass(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], network: Quiet
) -> None:
    connector = connect()
    cursor = swept(connector)
    late = org.create("Contact", {"LastName": "Late"}, at=now() - 4 * MINUTE)
    assert polled(connector, cursor) == {}
    network.ahead = 6 * MINUTE
    assert polled(connector, cursor).keys() == {late}


def test_the_second_pass_comes_by_the_servers_clock(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], network: Quiet
) -> None:
    network.ahead = -60 * MINUTE
    connector = connect()
    late = org.create("Contact", {"LastName": "Late"}, at=now() - 8 * MINUTE)
    cursor = PollCursor(since=now() - 10 * MINUTE, read=now() - 5 * MINUTE, recheck=now() - 10 * SECOND)
    assert polled(connector, cursor.encode()).keys() == {late}


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_is_off_does_not_make_idle_polls_read_again(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], network: Quiet, hours: int
) -> None:
    network.ahead = timedelta(hours=hours)
    people(org, 3, ago=3 * MINUTE)
    cursor = swept(connect())
    (page,) = connect().changes(cursor)
    assert page.contacts == []
    assert page.cursor == cursor


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_is_off_neither_hides_changes_nor_skips_any(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], network: Quiet, hours: int
) -> None:
    network.ahead = timedelta(hours=hours)
    connector = connect()
    cursor = swept(connector)
    new = org.create("Contact", {"LastName": "New"})
    (page,) = connector.changes(cursor)
    assert [contact.record_id for contact in page.contacts] == [new]
    read = PollCursor.parse(page.cursor).read
    assert read is not None
    assert abs(read - now()) < MINUTE


def test_fields_of_related_records_are_flattened_and_empty_text_is_none(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    account = org.create("Account", {"Name": "Acme"})
    with_account = org.create("Contact", {"LastName": "A", "AccountId": account})
    without = org.create("Contact", {"LastName": "B"})
    connector = connect(Needs(frozenset({"Account.Name", "LastName", "Id"}), {}))
    (page,) = connector.changes(None)
    fields = {contact.record_id: contact.fields for contact in page.contacts}
    assert fields[with_account] == {"Account.Name": "Acme", "LastName": "A", "Id": with_account}
    assert fields[without] == {"Account.Name": None, "LastName": "B", "Id": without}


def answer_query(org: SalesforceSimulator, body: Any) -> None:
    org.faults.add(Fault(Kind.STATUS, path="query$", status=200, body=body))


def row(**fields: Any) -> dict[str, Any]:
    fixed = {"Id": "003000000000001AAA", "SystemModstamp": "2026-01-01T00:00:00.000+0000", "IsDeleted": False}
    return {"attributes": {"type": "Contact"}, **fixed, "MasterRecordId": None, **fields}


def test_an_empty_string_is_none(org: SalesforceSimulator, connect: Callable[..., Salesforce]) -> None:
    answer_query(org, {"totalSize": 1, "done": True, "records": [row(LastName="", Email="x")]})
    (page,) = connect().changes(None)
    assert page.contacts[0].fields == {"LastName": None, "Email": "x"}


def test_a_compound_field_is_refused_by_name(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    answer_query(org, {"totalSize": 1, "done": True, "records": [row(LastName={"city": "Paris"})]})
    with pytest.raises(SchemaError, match="LastName is a compound field") as caught:
        list(connect().changes(None))
    assert "Paris" not in str(caught.value)


@pytest.mark.parametrize("body", [{"totalSize": 5, "done": False, "records": []}, {"hello": 1}, [], {}])
def test_an_answer_that_is_none_of_a_query_is_no_end_of_data(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], body: Any
) -> None:
    answer_query(org, body)
    with pytest.raises(LostAnswerError):
        list(connect().changes(None))


@pytest.mark.parametrize("name", ["Lead", "Account", "User"])
def test_other_objects_are_read_too(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], name: str
) -> None:
    fields = {"Lead": {"LastName": "L", "Company": "C"}, "Account": {"Name": "A"}, "User": {"Username": "u"}}
    if name == "User":
        org.define("User", "IsDeleted", "boolean")
    created = org.create(name, fields[name])
    connector = connect(Needs(frozenset({"CreatedDate"}), {}), object=name)
    assert created in ids(connector.changes(None))


def test_a_missing_field_is_named(org: SalesforceSimulator, connect: Callable[..., Salesforce]) -> None:
    org.knobs.hidden.add("Contact.Email")
    with pytest.raises(SchemaError) as caught:
        list(connect().changes(None))
    assert caught.value.fields == ("Email",)


def test_too_many_fields_for_one_query_are_refused_before_it_is_sent(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    needs = Needs(frozenset(f"Quite_A_Long_Name_Of_A_Field_{i}__c" for i in range(400)), {})
    with pytest.raises(SchemaError, match="map fewer"):
        list(connect(needs, object="Lead").changes(None))
    assert not org.requests


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "garbage",
        "[]",
        "5",
        '{"since":"x"}',
        "{}",
        '{"sweep":1}',
        '{"sweep":"x","after":"003000000000001AAA"}',
        '{"sweep":1,"after":"\' OR Id != \'"}',
        '{"sweep":99999999999999999,"after":"003000000000001AAA"}',
        '{"since":1,"window":{"start":1,"until":2,"full":true,"after":"2026-01-01T00:00:00Z \' OR"}}',
    ],
)
def test_a_cursor_that_is_none_of_ours_is_refused(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], cursor: str
) -> None:
    with pytest.raises(CursorError):
        list(connect().changes(cursor))
    assert not org.requests


# Writing back


def test_values_are_written_to_the_second_with_rules_kept_out(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    (contact,) = people(org, 1)
    assert list(connect().write_back([write(contact)])) == [WriteOutcome(contact, Written.WRITTEN)]
    record = org.record("Contact", contact)
    assert record[UPDATED] == "2026-03-04T05:06:07.000+0000"
    assert record[STATUS] == "imported"
    (sent,) = org.writes
    assert sent.records[0][UPDATED] == "2026-03-04T05:06:07Z"
    assert sent.headers["sforce-auto-assign"] == "FALSE"
    assert sent.headers["sforce-duplicate-rule-header"] == "allowSave=true"


def test_many_values_go_in_chunks_and_come_back_in_order(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    everyone = people(org, 401)
    outcomes = list(connect().write_back([write(contact) for contact in everyone]))
    assert outcomes == [WriteOutcome(contact, Written.WRITTEN) for contact in everyone]
    assert org.requests[COLLECTION] == 3


def test_nothing_to_write_asks_nothing(org: SalesforceSimulator, connect: Callable[..., Salesforce]) -> None:
    assert list(connect().write_back([])) == []
    assert not org.requests


@pytest.mark.parametrize("named", [True, False])
def test_each_record_has_its_own_outcome(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], *, named: bool
) -> None:
    org.knobs.failed_items_name_id = named
    good, deleted, purged, locked, ruled, last = people(org, 6)
    org.delete("Contact", deleted)
    org.delete("Contact", purged)
    org.purge("Contact", purged)
    org.knobs.locked.add(locked)
    org.knobs.invalid[ruled] = ("Ada Lovelace may not", "nor may ada@example.org")
    missing, bad, misspelt = "003000000000001AAA", "nonsense", "003000000000001ZZZ"
    targets = [good, deleted, purged, missing, bad, misspelt, locked, ruled, last]
    outcomes = list(connect().write_back([write(target) for target in targets]))
    assert [outcome.record_id for outcome in outcomes] == targets
    assert [outcome.result for outcome in outcomes] == [
        Written.WRITTEN,
        *[Written.GONE] * 5,
        Written.RETRY,
        Written.REFUSED,
        Written.WRITTEN,
    ]
    assert outcomes[7].detail == "FIELD_CUSTOM_VALIDATION_EXCEPTION"
    assert not unchanged(org, last)


def test_a_refusal_names_codes_and_fields_but_no_values(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    good, contact = people(org, 2)
    org.define("Contact", STATUS, length=5)
    outcome = list(connect().write_back([write(good, status="ok"), write(contact, status="quarantined")]))[1]
    assert outcome == WriteOutcome(contact, Written.REFUSED, f"STRING_TOO_LONG ({STATUS})")
    assert org.requests[QUERY_ALL] == 0, "only a lost record is looked for among the merged"


def test_a_merged_contact_passes_its_value_on(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    first, second, loser, winner = people(org, 4)
    org.merge("Contact", winner, loser)
    outcomes = list(connect().write_back([write(first), write(loser, status="of the loser"), write(second)]))
    assert outcomes == [
        WriteOutcome(first, Written.WRITTEN),
        WriteOutcome(winner, Written.MERGED),
        WriteOutcome(second, Written.WRITTEN),
    ]
    assert org.record("Contact", winner)[STATUS] == "of the loser"


def test_a_chain_of_merges_is_followed_to_its_end(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    first, second, third, last = people(org, 4)
    org.merge("Contact", second, first)
    org.merge("Contact", third, second)
    org.merge("Contact", last, third)
    assert list(connect().write_back([write(first)])) == [WriteOutcome(last, Written.MERGED)]
    assert not unchanged(org, last)


def test_a_merged_contact_does_not_overwrite_what_its_winner_is_given(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    loser, other, winner = people(org, 3)
    org.merge("Contact", winner, loser)
    org.merge("Contact", winner, other)
    values = [write(loser, status="of the loser"), write(winner, status="of the winner"), write(other)]
    outcomes = list(connect().write_back(values))
    assert outcomes == [
        WriteOutcome(winner, Written.MERGED),
        WriteOutcome(winner, Written.WRITTEN),
        WriteOutcome(winner, Written.MERGED),
    ]
    assert org.record("Contact", winner)[STATUS] == "of the winner"
    assert org.requests[COLLECTION] == 1


def test_a_winner_that_cannot_be_written_now_is_told_as_such(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    loser, winner = people(org, 2)
    org.merge("Contact", winner, loser)
    org.knobs.locked.add(winner)
    (outcome,) = connect().write_back([write(loser)])
    assert (outcome.record_id, outcome.result) == (winner, Written.RETRY)


def test_a_contact_merged_into_one_that_was_deleted_is_gone(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    loser, winner = people(org, 2)
    org.merge("Contact", winner, loser)
    org.delete("Contact", winner)
    (outcome,) = connect().write_back([write(loser)])
    assert outcome.result is Written.GONE


def test_a_record_that_makes_a_trigger_fail_does_not_take_its_chunk_along(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    everyone = people(org, 40)
    org.delete("Contact", everyone[3])
    org.knobs.poisoned.update({everyone[7], everyone[30]})
    outcomes = list(connect().write_back([write(contact) for contact in everyone]))
    assert [outcome.record_id for outcome in outcomes] == everyone
    refused = {outcome.record_id for outcome in outcomes if outcome.result is Written.REFUSED}
    assert refused == {everyone[7], everyone[30]}
    assert outcomes[3].result is Written.GONE
    assert sum(outcome.result is Written.WRITTEN for outcome in outcomes) == 37


def test_records_that_make_a_trigger_fail_are_singled_out_among_thousands(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    everyone = people(org, 2000)
    bad = set(everyone[::400])
    org.knobs.poisoned.update(bad)
    outcomes = list(connect().write_back([write(contact) for contact in everyone]))
    assert {outcome.record_id for outcome in outcomes if outcome.result is Written.REFUSED} == bad


def test_a_trigger_that_fails_for_all_costs_a_bounded_number_of_calls(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    everyone = people(org, 400)
    org.knobs.poisoned.update(everyone)
    outcomes = list(connect().write_back([write(contact) for contact in everyone]))
    assert [outcome.record_id for outcome in outcomes] == everyone
    assert {outcome.result for outcome in outcomes} == {Written.REFUSED}
    assert org.requests[COLLECTION] <= 2 + 2 * 32


@pytest.mark.parametrize("whole_call", [True, False])
def test_a_write_field_that_does_not_exist_is_a_matter_for_a_person(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], *, whole_call: bool
) -> None:
    org.knobs.unknown_field_fails_call = whole_call
    org.knobs.hidden.add(f"Contact.{UPDATED}")
    with pytest.raises(SchemaError) as caught:
        list(connect().write_back([write(contact) for contact in people(org, 3)]))
    assert UPDATED in caught.value.fields


def test_a_write_field_without_edit_access_is_a_matter_for_a_person(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    org.knobs.read_only.add(f"Contact.{STATUS}")
    with pytest.raises(SchemaError, match="edit access") as caught:
        list(connect().write_back([write(contact) for contact in people(org, 3)]))
    assert caught.value.fields == (STATUS,)


def test_a_whole_call_that_is_refused_is_no_outcome_of_any_record(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    body = [{"errorCode": "JSON_PARSER_ERROR", "message": "ada@example.org"}]
    org.faults.add(Fault(Kind.STATUS, path="composite", status=400, body=body))
    with pytest.raises(OperatorError, match="JSON_PARSER_ERROR") as caught:
        list(connect().write_back([write(contact) for contact in people(org, 2)]))
    assert "ada" not in str(caught.value)


@pytest.mark.parametrize("kind", [Kind.RESET_BEFORE, Kind.RESET_AFTER, Kind.HTML_AFTER, Kind.CUT_BODY])
def test_a_lost_answer_is_asked_for_again(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], kind: Kind
) -> None:
    (contact,) = people(org, 1)
    org.faults.add(Fault(kind, path="composite"))
    assert list(connect().write_back([write(contact)])) == [WriteOutcome(contact, Written.WRITTEN)]
    assert not unchanged(org, contact)


@pytest.mark.parametrize("body", [[], [{"success": True, "errors": []}] * 2, {"x": 1}, [{}], [5]])
def test_results_that_do_not_fit_the_records_prove_nothing(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], body: Any
) -> None:
    org.faults.add(Fault(Kind.STATUS, path="composite", status=200, body=body))
    with pytest.raises(LostAnswerError):
        list(connect().write_back([write(people(org, 1)[0])]))


# Checking


def test_a_connector_that_fits_has_no_problems(connect: Callable[..., Salesforce]) -> None:
    needs = Needs(NEEDS.read | {"Account.Name", "Account.Owner.Username"}, NEEDS.write)
    assert connect(needs).check() == []


def test_every_problem_is_found_at_once_with_its_remedy(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    org.define("Contact", "Loyalty_Points__c", "double", calculated=True)
    org.define("Contact", "Address", "address")
    org.define("Contact", STATUS, "double")
    org.knobs.read_only.add(f"Contact.{UPDATED}")
    org.knobs.hidden.add("Contact.Email")
    read = {"Email", "firstname", "Loyalty_Points__c", "Acount.Name", "Account.Nome", "Address", "LastName"}
    problems = {each.where: each for each in connect(Needs(frozenset(read), NEEDS.write)).check()}
    assert problems.keys() == {
        "Contact.Email",
        "Contact.firstname",
        "Contact.Loyalty_Points__c",
        "Contact.Acount.Name",
        "Contact.Account.Nome",
        "Contact.Address",
        f"Contact.{UPDATED}",
        f"Contact.{STATUS}",
    }
    assert "field-level security" in problems["Contact.Email"].remedy
    assert problems["Contact.firstname"].message.endswith("did you mean FirstName?")
    assert problems["Contact.Account.Nome"].message.endswith("did you mean Name?")
    assert "formula" in problems["Contact.Loyalty_Points__c"].message
    assert "compound" in problems["Contact.Address"].message
    assert "edit access" in problems[f"Contact.{UPDATED}"].remedy
    assert "picklist or string or textarea" in problems[f"Contact.{STATUS}"].remedy


def test_a_last_updated_field_must_be_a_datetime(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    org.define("Contact", UPDATED, "date")
    (problem,) = connect().check()
    assert problem.message == "is of type date"


def test_an_object_that_does_not_exist_is_a_problem(connect: Callable[..., Salesforce]) -> None:
    (problem,) = connect(object="Contacts").check()
    assert problem.where == "object"
    assert "404" in problem.message


def test_an_object_without_a_stamp_cannot_be_polled(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    org.knobs.hidden.add("Contact.SystemModstamp")
    (problem,) = connect().check()
    assert problem.where == "Contact.SystemModstamp"


@pytest.mark.parametrize(("write", "flags"), [({"last_updated": UPDATED}, 2), ({}, 1)])
def test_an_object_without_access_is_a_problem_for_what_is_done_with_it(
    org: SalesforceSimulator, connect: Callable[..., Salesforce], write: dict[str, str], flags: int
) -> None:
    usual = {
        "filterable": True,
        "sortable": True,
        "updateable": True,
        "type": "datetime",
        "calculated": False,
    }
    fields = [{"name": "SystemModstamp", **usual}, {"name": UPDATED, **usual}]
    body = {"queryable": False, "updateable": False, "fields": fields}
    org.faults.add(Fault(Kind.STATUS, path="describe", status=200, body=body))
    problems = connect(Needs(frozenset(), write)).check()
    said = ["is not queryable for the user", "is not updateable for the user"]
    assert [each.message for each in problems] == said[:flags]


def test_refused_credentials_are_raised_by_check(
    org: SalesforceSimulator, connect: Callable[..., Salesforce]
) -> None:
    org.client_secret = "another"
    with pytest.raises(CredentialsError):
        connect().check()


# Settings


def test_settings_have_safe_defaults() -> None:
    given = settings()
    assert (given.object, given.api_version, given.page_size) == ("Contact", "67.0", 2000)
    assert given.overlap == timedelta(minutes=10)
    assert given.timeout == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"url": "http://127.0.0.1:8080"}, "use https"),
        ({"url": "http://acme.my.salesforce.com"}, "use https"),
        ({"object": "Contact; DROP"}, "object"),
        ({"api_version": "v67"}, "api_version"),
        ({"page_size": 0}, "page_size"),
        ({"page_size": 2001}, "page_size"),
        ({"overlap": "0s"}, "overlap"),
        ({"timeout": 60}, "timeout"),
        ({"polling": True}, "polling"),
        ({"auth": {"flow": "magic"}}, "flow"),
        ({"auth": {"flow": "client_credentials", "client_id": "literal"}}, "never written here"),
        ({"auth": {"flow": "password", "username": "u", "password": {"env": "P"}}}, "at most 64.0"),
    ],
)
def test_settings_that_cannot_work_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**keys)


def test_a_soap_login_is_allowed_up_to_its_last_version(tmp_path: Path) -> None:
    auth = {"flow": "password", "username": "u", "password": {"file": str(tmp_path / "password")}}
    assert settings(auth=auth, api_version="64.0").auth.flow == "password"


def test_the_schema_of_the_settings_can_be_published() -> None:
    schema = SalesforceSettings.model_json_schema()
    assert schema["properties"]["auth"]["discriminator"]["propertyName"] == "flow"
