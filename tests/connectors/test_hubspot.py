"""The HubSpot connector against the simulator, over real HTTP, with time moved by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.hubspot import HubSpot, HubSpotSettings
from syncsvc.errors import CredentialsError, CursorError, OperatorError, SchemaError, TransientError
from syncsvc.model import Contact, Page, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Connector, Needs
from syncsvc.remote.transport import Network
from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.hubspot import HubSpotKnobs, HubSpotSimulator
from syncsvc.sandbox.server import Server

NOON = datetime(2026, 11, 2, 12, 0, 0, 500_000, tzinfo=UTC)
LAG = timedelta(minutes=10)
NEEDS = Needs(
    read=frozenset({"email", "firstname", "loyalty_points"}),
    write={"last_updated": "wallet_last_updated", "status": "wallet_status"},
)
LIST = ("GET", "/contacts")
SEARCH = ("POST", "/contacts/search")
UPDATE = ("POST", "/contacts/batch/update")
SCHEMA = ("GET", "/properties/contacts")


class Timeline(Network):
    """Waits by moving the simulator's clock; its own is wrong by `skew`."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock
        self.skew = timedelta()
        self.waits: list[float] = []

    def now(self) -> datetime:
        return self.clock.now() + self.skew

    def monotonic(self) -> float:
        return self.clock.now().timestamp()

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.clock.advance(timedelta(seconds=seconds))


class Account:
    """A simulated account with a connector to it, and the shortest ways to use both."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.clock = ManualClock(NOON)
        self.crm = HubSpotSimulator(clock=self.clock, knobs=HubSpotKnobs(), seed=1)
        self.crm.define("loyalty_points", "number", "number")
        self.crm.define("wallet_last_updated", "datetime", "date")
        self.crm.define("wallet_status", "string", "text")
        self.network = Timeline(self.clock)
        self.token_file = folder / "token"
        self.token_file.write_text("pat-sandbox\n", encoding="utf-8")
        self.opened: list[HubSpot] = []

    def connect(self, needs: Needs = NEEDS, **keys: Any) -> HubSpot:
        settings = HubSpotSettings.model_validate(
            {"token": {"file": str(self.token_file)}, "base_url": self.url, **keys}
        )
        self.opened.append(HubSpot(settings, needs, self.network))
        return self.opened[-1]

    def add(self, count: int) -> list[str]:
        return self.crm.create_many({"email": f"m{n}@example.org", "loyalty_points": n} for n in range(count))

    def fail(self, kind: Kind, path: str = "", **more: Any) -> Fault:
        return self.crm.faults.add(Fault(kind, path=path, **more))

    def wait(self, **by: float) -> None:
        self.clock.advance(timedelta(**by))

    def swept(self, connector: Connector) -> str:
        return list(connector.changes(None))[-1].cursor


class Socket:
    """What is served: the account of the test that runs."""

    serving: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serving(scope, receive, send)


@pytest.fixture(scope="module")
def socket() -> Iterator[tuple[Socket, str]]:
    made = Socket()
    with Server(made) as server:
        yield made, server.url


@pytest.fixture
def account(tmp_path: Path, socket: tuple[Socket, str]) -> Iterator[Account]:
    made = Account(tmp_path, socket[1])
    socket[0].serving = made.crm.app
    yield made
    for connector in made.opened:
        connector.close()


def contacts(pages: list[Page]) -> list[Contact]:
    return [contact for page in pages for contact in page.contacts]


def ids(pages: list[Page]) -> list[str]:
    return [contact.record_id for contact in contacts(pages)]


def stamp(record_id: str, at: datetime = NOON, **values: str) -> WriteBack:
    return WriteBack(record_id, {"wallet_last_updated": at, **values})


# --- sweeps


def test_sweep_brings_every_live_contact_once_with_the_fields_asked_for(account: Account) -> None:
    made = account.add(230)
    account.crm.archive(made[7])
    pages = list(account.connect().changes(None))
    assert ids(pages) == [record_id for record_id in made if record_id != made[7]]
    assert [len(page.contacts) for page in pages] == [100, 100, 29]
    assert contacts(pages)[3].fields == {
        "email": "m3@example.org",
        "firstname": None,
        "loyalty_points": "3",
        "wallet_last_updated": None,
        "wallet_status": None,
    }


def test_sweep_of_an_empty_account_is_one_empty_page(account: Account) -> None:
    pages = list(account.connect().changes(None))
    assert [len(page.contacts) for page in pages] == [0]


def test_interrupted_sweep_goes_on_as_a_sweep(account: Account) -> None:
    made = account.add(230)
    first = next(iter(account.connect().changes(None)))
    account.crm.archive(made[100])  # the very record at which the next page was to begin
    rest = list(account.connect().changes(first.cursor))
    assert ids([first, *rest]) == made[:100] + made[101:]


def test_change_made_behind_a_running_sweep_is_found_by_the_poll_after_it(account: Account) -> None:
    made = account.add(150)
    connector = account.connect()
    pages = connector.changes(None)
    next(pages)
    account.crm.update(made[0], {"firstname": "Ada"})
    account.wait(hours=2)  # a long sweep
    cursor = list(pages)[-1].cursor
    found = contacts(list(connector.changes(cursor)))
    assert [(one.record_id, one.fields["firstname"]) for one in found if one.record_id == made[0]] == [
        (made[0], "Ada")
    ]


def test_change_made_behind_an_interrupted_sweep_is_found_by_the_poll_after_it(account: Account) -> None:
    made = account.add(150)
    first = next(iter(account.connect().changes(None)))
    account.wait(minutes=1)
    account.crm.update(made[0], {"firstname": "Ada"})
    account.wait(hours=2)
    connector = account.connect()
    cursor = list(connector.changes(first.cursor))[-1].cursor
    assert made[0] in ids(list(connector.changes(cursor)))


def test_poll_after_a_sweep_does_not_read_everything_again(account: Account) -> None:
    account.add(30)
    account.wait(minutes=2)
    connector = account.connect()
    cursor = account.swept(connector)
    account.wait(minutes=1)
    assert ids(list(connector.changes(cursor))) == []


def test_sweep_position_that_is_refused_asks_for_a_new_sweep(account: Account) -> None:
    account.add(101)
    connector = account.connect()
    first = next(iter(connector.changes(None)))
    account.fail(Kind.STATUS, "objects", status=400, body={"category": "VALIDATION_ERROR"})
    with pytest.raises(CursorError):
        list(connector.changes(first.cursor))


def test_list_that_does_not_move_on_is_trouble_and_no_endless_loop(account: Account) -> None:
    page = {"results": [], "paging": {"next": {"after": "7"}}}
    account.fail(Kind.STATUS, "objects", status=200, body=page, times=None)
    with pytest.raises(TransientError, match="does not move on"):
        list(account.connect().changes(None))


# --- polls


def test_poll_of_an_unchanged_account_is_one_request_and_keeps_the_cursor(account: Account) -> None:
    account.add(3)
    account.wait(hours=1)
    connector = account.connect()
    cursor = account.swept(connector)
    for _ in range(4):
        account.wait(minutes=7)
        account.crm.requests.clear()
        pages = list(connector.changes(cursor))
        assert [(list(page.contacts), page.cursor) for page in pages] == [([], cursor)]
        assert account.crm.requests == {SEARCH: 1}


def test_account_that_falls_silent_is_idle_again_within_two_lags(account: Account) -> None:
    made = account.add(3)
    connector = account.connect()
    cursor = account.swept(connector)
    account.wait(minutes=1)
    account.crm.update(made[0], {"firstname": "Ada"})
    for _ in range(20):
        cursor = list(connector.changes(cursor))[-1].cursor
        account.wait(minutes=1)
    pages = list(connector.changes(cursor))
    assert [(list(page.contacts), page.cursor) for page in pages] == [([], cursor)]


def test_change_of_this_very_moment_is_in_the_next_poll(account: Account) -> None:
    made = account.add(3)
    account.wait(minutes=5)
    connector = account.connect()
    cursor = account.swept(connector)
    account.wait(minutes=1)
    account.crm.update(made[1], {"loyalty_points": 77})
    found = contacts(list(connector.changes(cursor)))
    assert [(one.record_id, one.fields["loyalty_points"]) for one in found] == [(made[1], "77")]


def test_more_contacts_of_one_millisecond_than_search_pages_through(account: Account) -> None:
    account.crm.knobs.search_ceiling = 400
    made = account.add(900)
    account.wait(hours=1)
    connector = account.connect()
    cursor = account.swept(connector)
    account.wait(minutes=1)
    account.crm.touch_many(made, account.clock.now())
    account.crm.requests.clear()
    pages = list(connector.changes(cursor))
    assert ids(pages) == made
    assert pages[0].expected == 900
    assert account.crm.requests == {SEARCH: 5}


def test_poll_cut_off_inside_a_window_loses_nothing(account: Account) -> None:
    made = account.add(450)
    account.wait(hours=1)
    cursor = account.swept(account.connect())
    account.wait(minutes=1)
    account.crm.touch_many(made, account.clock.now())
    account.wait(seconds=2)
    first = next(iter(account.connect().changes(cursor)))
    account.wait(seconds=2)
    account.crm.update(made[0], {"firstname": "Ada"})  # its id is behind the position already
    account.wait(days=3)
    connector = account.connect()
    rest = list(connector.changes(first.cursor))
    assert set(ids([first, *rest])) == set(made)
    after = contacts(list(connector.changes(rest[-1].cursor)))
    assert {one.record_id: one.fields["firstname"] for one in after}[made[0]] == "Ada"


def test_cursor_inside_a_window_remembers_the_end_by_hubspots_clock(account: Account) -> None:
    made = account.add(250)
    account.wait(hours=1)
    cursor = account.swept(account.connect())
    account.network.skew = timedelta(hours=1)
    account.crm.touch_many(made, account.clock.now())
    first = next(iter(account.connect().changes(cursor)))
    account.wait(minutes=5)
    account.crm.update(made[0], {"firstname": "Ada"})
    account.wait(hours=3)
    cursor = list(account.connect().changes(first.cursor))[-1].cursor
    assert made[0] in ids(list(account.connect().changes(cursor)))


@pytest.mark.parametrize(("hours", "restarts"), [(0, True), (2, True), (-2, False)])
def test_changes_that_the_index_shows_late_and_in_disorder_are_all_found(
    account: Account, hours: int, *, restarts: bool
) -> None:
    made = account.add(40)
    account.wait(hours=1)
    account.network.skew = timedelta(hours=hours)
    connector = account.connect()
    cursor = account.swept(connector)
    account.crm.knobs.index_lag, account.crm.knobs.index_jitter = 5, 580
    found: set[str] = set()
    for minute in range(40):
        if minute < len(made) / 2:
            for record_id in made[2 * minute : 2 * minute + 2]:
                account.crm.update(record_id, {"firstname": "Ada"})
        connector = account.connect() if restarts else connector
        pages = list(connector.changes(cursor))
        cursor = pages[-1].cursor
        found |= {one.record_id for one in contacts(pages) if one.fields["firstname"] == "Ada"}
        account.wait(minutes=1)
    assert found == set(made)


@pytest.mark.parametrize(
    "knobs",
    [{"short_search_pages": True}, {"phantom_hits": 430}, {"shuffled_search_pages": True}],
    ids=str,
)
def test_short_empty_and_shuffled_pages_hide_nothing(account: Account, knobs: Mapping[str, Any]) -> None:
    made = account.add(450)
    account.wait(hours=1)
    connector = account.connect()
    cursor = account.swept(connector)
    account.wait(minutes=1)
    account.crm.touch_many(made, account.clock.now())
    for name, value in knobs.items():
        setattr(account.crm.knobs, name, value)
    assert sorted(ids(list(connector.changes(cursor)))) == made


def test_empty_pages_without_end_are_trouble_and_not_the_end(account: Account) -> None:
    made = account.add(1)
    connector = account.connect()
    cursor = account.swept(connector)
    account.crm.touch_many(made, account.clock.now())
    account.crm.knobs.phantom_hits = 20_000
    with pytest.raises(TransientError, match="without end"):
        list(connector.changes(cursor))


def test_search_that_ignores_the_position_is_trouble_and_no_endless_loop(account: Account) -> None:
    body = {
        "results": [{"id": "5", "properties": dict.fromkeys([*NEEDS.fields, "lastmodifieddate"])}],
        "paging": {"next": {"after": "200"}},
    }
    connector = account.connect()
    cursor = account.swept(connector)
    account.fail(Kind.STATUS, "search", status=200, body=body, times=None)
    with pytest.raises(TransientError, match="does not move on"):
        list(connector.changes(cursor))


def test_merged_contact_tells_which_it_absorbed(account: Account) -> None:
    first, second, third = account.add(3)
    account.wait(hours=1)
    connector = account.connect()
    cursor = account.swept(connector)
    account.wait(minutes=1)
    both = account.crm.merge(first, second)
    all_three = account.crm.merge(third, both)
    (found,) = contacts(list(connector.changes(cursor)))
    assert (found.record_id, found.fields["email"]) == (all_three, "m2@example.org")
    assert {first, second, third, both} == set(found.merged_from)
    account.crm.update(all_three, {"hs_merged_object_ids": f"{first};{all_three}"})
    (found,) = contacts(list(connector.changes(cursor)))
    assert found.merged_from == (first,)


def test_searches_keep_below_the_limit_that_the_account_shares(account: Account) -> None:
    made = account.add(900)
    account.wait(hours=1)
    connector = account.connect()
    cursor = account.swept(connector)
    account.crm.knobs.foreign_searches_per_second = 1
    account.crm.knobs.short_search_pages = True
    account.crm.touch_many(made, account.clock.now())
    account.crm.requests.clear()
    pages = list(connector.changes(cursor))
    assert account.crm.requests == {SEARCH: len(pages)}
    assert len(pages) > 8
    assert max(account.network.waits) <= 0.25


@pytest.mark.parametrize(
    "cursor",
    [
        *("", "x", "[]", "7", '"sweep"', "{}", '{"sweep":"a","after":""}', '{"sweep":1}', '{"since":"a"}'),
        '{"since":1,"window":{"start":1,"until":2,"full":true,"after":"x"}}',
    ],
)
def test_cursor_of_another_kind_asks_for_a_sweep(account: Account, cursor: str) -> None:
    with pytest.raises(CursorError):
        list(account.connect().changes(cursor))
    assert not account.crm.requests


@pytest.mark.parametrize("moves", [False, True])
def test_a_restored_contact_comes_with_a_poll_where_that_counts_as_modified_else_with_a_sweep(
    account: Account, *, moves: bool
) -> None:
    account.crm.knobs.restore_moves = moves
    made = account.add(3)
    connector = account.connect()
    account.crm.archive(made[1])
    account.wait(hours=1)
    cursor = account.swept(connector)
    account.wait(hours=1)
    account.crm.restore(made[1])
    account.wait(minutes=1)
    assert ids(list(connector.changes(cursor))) == [made[1]] * moves
    assert made[1] in ids(list(connector.changes(None)))


# --- properties


def test_vanished_property_is_an_error_and_never_empty(account: Account) -> None:
    made = account.add(3)
    account.wait(hours=1)
    connector = account.connect()
    cursor = account.swept(connector)
    account.crm.archive_property("loyalty_points")
    account.wait(minutes=1)
    assert ids(list(connector.changes(cursor))) == []  # nothing read, so nothing read wrongly
    account.crm.update(made[0], {"firstname": "Ada"})
    for begin in (cursor, None):
        with pytest.raises(SchemaError, match="loyalty_points") as caught:
            list(connector.changes(begin))
        assert caught.value.fields == ("loyalty_points",)


def test_property_that_vanishes_during_a_sweep_is_an_error(account: Account) -> None:
    account.add(150)
    pages = account.connect().changes(None)
    next(pages)
    account.crm.archive_property("loyalty_points")
    with pytest.raises(SchemaError, match="loyalty_points"):
        next(pages)


def test_property_that_answers_leave_out_though_it_exists_is_asked_about_once(account: Account) -> None:
    results = [{"id": str(n), "properties": {"email": "a@example.org"}} for n in (1, 2)]
    page = {"results": results, "paging": {"next": {"after": "3"}}}
    account.fail(Kind.STATUS, "objects", status=200, body=page)
    account.fail(Kind.STATUS, "objects", status=200, body={"results": results})
    found = contacts(list(account.connect(deletions_every="0s").changes(None)))
    assert [one.fields for one in found] == [{"email": "a@example.org"}] * 4
    assert account.crm.requests == {SCHEMA: 2}


def test_every_value_is_a_text_and_an_empty_one_is_none(account: Account) -> None:
    usual = {"email": "a@example.org", "firstname": None, "loyalty_points": "12", "wallet_status": "x"}
    other = {"email": "", "firstname": {"a": 1}, "loyalty_points": 12, "hs_merged_object_ids": "", "new": [1]}
    results = [{"id": "1", "properties": usual}, {"id": "2", "properties": other}]
    for page in (results[:1], results):
        account.fail(Kind.STATUS, "objects", status=200, body={"results": page})
        first, *more = contacts(list(account.connect(deletions_every="0s").changes(None)))
        asked = set(NEEDS.fields)
        assert first == Contact("1", {name: it for name, it in usual.items() if name in asked})
        texts = {"email": None, "firstname": "{'a': 1}", "loyalty_points": "12"}
        assert more == [Contact("2", {name: it for name, it in texts.items() if name in asked})] * (
            len(page) - 1
        )


@pytest.mark.parametrize(
    "results",
    [
        None,
        {},
        ["5"],
        [{"id": 5, "properties": {}}],
        [{"id": "five", "properties": {}}],
        [{"properties": {}}],
        [{"id": "5", "properties": None}],
    ],
)
def test_success_that_holds_no_contacts_is_trouble_that_passes(account: Account, results: Any) -> None:
    account.add(1)
    account.fail(Kind.STATUS, "objects", status=200, body={"results": results})
    assert len(ids(list(account.connect(deletions_every="0s").changes(None)))) == 1
    account.fail(Kind.STATUS, "objects", status=200, body={"results": results}, times=None)
    with pytest.raises(TransientError, match="no whole document"):
        list(account.connect(deletions_every="0s").changes(None))


def test_more_property_names_than_a_search_takes_are_read_all_the_same(account: Account) -> None:
    names = [f"a_rather_long_property_name_{n:03d}" for n in range(120)]
    for name in names:
        account.crm.define(name, "string", "text")
    needs = Needs(read=frozenset({*names, "email"}), write={})
    made = account.crm.create_many({"email": f"m{n}@example.org", names[9]: "x"} for n in range(230))
    connector = account.connect(needs)
    pages = list(connector.changes(None))
    assert sorted(ids(pages)) == made
    assert {one.fields[names[9]] for one in contacts(pages)} == {"x"}
    account.wait(minutes=1)
    account.crm.update(made[0], {names[119]: "y"})
    changed = {one.record_id: one.fields for one in contacts(list(connector.changes(pages[-1].cursor)))}
    assert (changed[made[0]][names[119]], changed[made[0]][names[118]]) == ("y", None)


def test_check_of_a_fitting_account_finds_nothing_with_one_request(account: Account) -> None:
    assert account.connect().check() == []
    assert account.crm.requests == {SCHEMA: 1}


def test_check_names_each_problem_and_its_remedy(account: Account) -> None:
    account.crm.define("calculated", "string", "calculation_equation", read_only=True)
    account.crm.archive_property("loyalty_points")
    needs = Needs(
        read=frozenset({"email", "fristname", "loyalty_points"}),
        write={"last_updated": "wallet_updated", "status": "calculated"},
    )
    problems = account.connect(needs).check()
    assert [problem.where for problem in problems] == [
        "property fristname",
        "property loyalty_points",
        "write_back.last_updated",
        "write_back.status",
    ]
    assert "did you mean firstname?" in problems[0].remedy
    assert "archived" in problems[1].message
    for words in ("wallet_updated", "contactinformation", "type datetime", "fieldType date"):
        assert words in problems[2].remedy
    assert "read-only" in problems[3].message


def test_check_takes_an_archived_property_for_none(account: Account) -> None:
    body = {"results": [{"name": "email", "archived": True}]}
    account.fail(Kind.STATUS, "properties", status=200, body=body)
    (problem,) = account.connect(Needs(read=frozenset({"email"}), write={})).check()
    assert problem.where == "property email"


def test_check_refuses_a_type_that_cannot_hold_the_time(account: Account) -> None:
    needs = Needs(read=frozenset({"email"}), write={"last_updated": "loyalty_points"})
    (problem,) = account.connect(needs).check()
    assert "datetime or string" in problem.message


# --- write back


def test_write_back_accounts_for_every_value_in_order(account: Account) -> None:
    made = account.add(230)
    at = datetime(2026, 11, 1, 23, 30, 5, 123_456, tzinfo=UTC)
    values = [stamp(record_id, at, wallet_status="imported") for record_id in reversed(made)]
    outcomes = list(account.connect().write_back(values))
    assert outcomes == [WriteOutcome(value.record_id, Written.WRITTEN) for value in values]
    assert account.crm.requests == {UPDATE: 3}
    assert account.crm.contact(made[5])["wallet_last_updated"] == "2026-11-01T23:30:05.123Z"
    assert account.crm.contact(made[5])["wallet_status"] == "imported"


def test_write_back_outcomes_come_as_soon_as_their_batch_is_answered(account: Account) -> None:
    outcomes = account.connect().write_back([stamp(record_id) for record_id in account.add(150)])
    next(outcomes)
    assert account.crm.requests == {UPDATE: 1}


def test_write_back_tells_gone_merged_and_refused_apart(account: Account) -> None:
    good, archived, erased, old, other, bad = account.add(6)
    account.crm.archive(archived)
    account.crm.gdpr_delete(erased)
    merged = account.crm.merge(old, other)
    account.crm.define("wallet_status", "enumeration", "select", options=("imported",))
    values = [stamp(one) for one in (good, archived, erased, old, "no-number")]
    values.append(stamp(bad, wallet_status="held for ada@example.org"))
    outcomes = list(account.connect().write_back(values))
    assert [(one.record_id, one.result) for one in outcomes] == [
        (good, Written.WRITTEN),
        (archived, Written.GONE),
        (erased, Written.GONE),
        (merged, Written.MERGED),
        ("no-number", Written.GONE),
        (bad, Written.REFUSED),
    ]
    assert "INVALID_OPTION wallet_status" in outcomes[-1].detail
    assert "ada" not in outcomes[-1].detail
    assert account.crm.contact(merged)["wallet_last_updated"] == "2026-11-02T12:00:00.500Z"


def test_write_back_to_two_records_merged_into_one_sends_no_id_twice(account: Account) -> None:
    first, second = account.add(2)
    merged = account.crm.merge(first, second)
    values = [stamp(first), stamp(second), stamp(merged)]
    outcomes = list(account.connect().write_back(values))
    assert [one.record_id for one in outcomes] == [merged] * 3
    assert [one.result for one in outcomes] == [Written.MERGED, Written.MERGED, Written.WRITTEN]


def test_batch_refused_as_a_whole_is_halved_until_the_bad_one_stands_alone(account: Account) -> None:
    made = account.add(4)
    body = {"category": "VALIDATION_ERROR", "message": "ada@example.org is not midnight"}
    account.fail(Kind.STATUS, "update", status=400, body=body, times=3)  # all, the first half, the first
    outcomes = list(account.connect().write_back([stamp(one) for one in made]))
    refused = WriteOutcome(made[0], Written.REFUSED, "VALIDATION_ERROR")
    assert outcomes == [refused, *(WriteOutcome(one, Written.WRITTEN) for one in made[1:])]


def test_rule_of_the_2026_09_api_refuses_one_record_and_not_its_neighbours(account: Account) -> None:
    account.crm.knobs.required_on_write = ("firstname",)
    bare, whole = account.add(2)
    account.crm.update(whole, {"firstname": "Ada"})
    outcomes = list(account.connect(api_version="2026-09").write_back([stamp(bare), stamp(whole)]))
    assert [one.result for one in outcomes] == [Written.REFUSED, Written.WRITTEN]
    assert account.crm.requests == {UPDATE: 1}
    assert "REQUIRED_PROPERTY firstname" in outcomes[0].detail


@pytest.mark.parametrize("vanish", [True, False])
def test_property_that_cannot_be_written_is_an_error_and_not_an_outcome(
    account: Account, *, vanish: bool
) -> None:
    made = account.add(2)
    if vanish:
        account.crm.archive_property("wallet_last_updated")
    else:
        account.crm.define("wallet_last_updated", "datetime", "date", read_only=True)
    with pytest.raises(SchemaError, match="wallet_last_updated") as caught:
        list(account.connect().write_back([stamp(one) for one in made]))
    assert caught.value.fields == ("wallet_last_updated",)


def test_property_blamed_only_inside_the_message_of_a_refused_batch_is_found(account: Account) -> None:
    blamed = '[{"isValid":false,"error":"PROPERTY_DOESNT_EXIST","name":"wallet_last_updated"}]'
    body = {"status": "error", "message": f"Property values were not valid: {blamed}"}
    account.fail(Kind.STATUS, "update", status=400, body=body)
    with pytest.raises(SchemaError, match="wallet_last_updated"):
        list(account.connect().write_back([stamp(one) for one in account.add(2)]))


def test_record_of_which_nothing_is_said_is_tried_again_later(account: Account) -> None:
    account.fail(Kind.STATUS, "update", status=200, body={"status": "COMPLETE", "results": []}, times=None)
    (made,) = account.add(1)
    (outcome,) = account.connect().write_back([stamp(made)])
    assert (outcome.record_id, outcome.result) == (made, Written.RETRY)


def test_error_that_passes_is_tried_again_later(account: Account) -> None:
    (made,) = account.add(1)
    error = {"status": "error", "category": "RATE_LIMITS", "context": {"ids": [made]}}
    body = {"status": "COMPLETE", "results": [], "errors": [error]}
    account.fail(Kind.STATUS, "update", status=207, body=body)
    assert list(account.connect().write_back([stamp(made)])) == [
        WriteOutcome(made, Written.RETRY, "RATE_LIMITS")
    ]


# --- the wire


@pytest.mark.parametrize("version", ["2026-03", "2026-09", "v3"])
def test_every_version_of_the_api_is_spoken(account: Account, version: str) -> None:
    made = account.add(2)
    connector = account.connect(api_version=version)
    assert connector.check() == []
    cursor = account.swept(connector)
    assert [one.result for one in connector.write_back([stamp(made[0])])] == [Written.WRITTEN]
    assert made[0] in ids(list(connector.changes(cursor)))


@pytest.mark.parametrize("kind", [Kind.RESET_BEFORE, Kind.RESET_AFTER, Kind.CUT_BODY, Kind.HTML, Kind.STATUS])
def test_trouble_that_passes_is_waited_out(account: Account, kind: Kind) -> None:
    made = account.add(2)
    connector = account.connect()
    for path in ("properties", "contacts$", "search", "update"):
        account.fail(kind, path, status=502)
    pages = list(connector.changes(None))
    assert ids(pages) == made
    assert [one.result for one in connector.write_back([stamp(one) for one in made])] == [Written.WRITTEN] * 2
    assert sorted(ids(list(connector.changes(pages[-1].cursor)))) == made
    assert len(account.network.waits) == 4


def test_success_that_is_no_json_is_trouble_that_passes(account: Account) -> None:
    account.fail(Kind.HTML, status=200)
    assert account.connect().check() == []


def test_lasting_trouble_ends_the_read_without_a_last_page(account: Account) -> None:
    account.add(101)
    pages = account.connect().changes(None)
    next(pages)
    account.fail(Kind.STATUS, status=503, times=None)
    with pytest.raises(TransientError, match="503"):
        next(pages)


@pytest.mark.parametrize(
    ("fault", "shortest", "longest"),
    [
        (Fault(Kind.STATUS, status=423), 2, 2),
        (Fault(Kind.STATUS, status=477, headers={"Retry-After": "7"}), 7, 7),
        (Fault(Kind.STATUS, status=429, body={"message": "You have reached your secondly limit."}), 1, 2),
        (Fault(Kind.STATUS, status=429, body={"policyName": "TEN_SECONDLY_ROLLING"}), 10, 10),
        (
            Fault(
                Kind.STATUS,
                status=429,
                body={"policyName": "TEN_SECONDLY_ROLLING"},
                headers={"Retry-After": "3"},
            ),
            3,
            3,
        ),
    ],
    ids=["lock", "move", "search", "burst", "burst-told"],
)
def test_wait_is_the_one_that_the_refusal_means(
    account: Account, fault: Fault, shortest: float, longest: float
) -> None:
    account.crm.faults.add(fault)
    account.connect().check()
    (wait,) = account.network.waits
    assert shortest <= wait <= longest


def test_used_up_day_ends_the_work_at_once(account: Account) -> None:
    account.crm.knobs.daily = 0
    with pytest.raises(TransientError) as caught:
        account.connect().check()
    assert (caught.value.retry_after or 0) >= 900
    assert account.crm.requests == {SCHEMA: 1}
    assert account.network.waits == []


def test_bursts_of_other_apps_are_waited_out(account: Account) -> None:
    account.add(450)
    account.crm.knobs.burst = 4
    assert len(ids(list(account.connect().changes(None)))) == 450
    assert account.network.waits == [10.0]


def test_token_that_was_replaced_is_read_again(account: Account) -> None:
    connector = account.connect()
    connector.check()
    account.crm.add_token("pat-new")
    account.crm.expire_token("pat-sandbox")
    account.token_file.write_text("pat-new", encoding="utf-8")
    assert connector.check() == []


@pytest.mark.parametrize("content", ["zebra", "", "zebra\u2013", "ze\nbra"])
def test_refused_token_is_never_shown(account: Account, content: str) -> None:
    account.token_file.write_text(content, encoding="utf-8")
    with pytest.raises(CredentialsError) as caught:
        account.connect().check()
    assert "bra" not in str(caught.value)
    assert sum(account.crm.requests.values()) == (2 if content == "zebra" else 0)


def test_missing_scope_is_named(account: Account) -> None:
    account.crm.scopes.discard("crm.objects.contacts.write")
    with pytest.raises(CredentialsError, match=r"crm\.objects\.contacts\.write"):
        list(account.connect().write_back([stamp(one) for one in account.add(1)]))


@pytest.mark.parametrize(
    "work",
    [
        lambda one: one.check(),
        lambda one: list(one.changes(None)),
        lambda one: list(one.write_back([stamp("1")])),
    ],
    ids=["check", "changes", "write_back"],
)
def test_wrong_address_is_for_a_person_to_mend(account: Account, work: Callable[[HubSpot], object]) -> None:
    connector = account.connect(base_url=f"{account.url}/elsewhere")
    with pytest.raises(OperatorError, match="check base_url"):
        work(connector)


def test_search_that_blames_a_property_names_it(account: Account) -> None:
    connector = account.connect()
    cursor = account.swept(connector)
    errors = [{"code": "PROPERTY_DOESNT_EXIST", "context": {"propertyName": ["lastmodifieddate"]}}]
    account.fail(Kind.STATUS, "search", status=400, body={"errors": errors})
    with pytest.raises(SchemaError, match="lastmodifieddate"):
        list(connector.changes(cursor))


@pytest.mark.parametrize(
    "body", [b"[]", b'{"category": "ada@x.org"}', b'{"errors": 5, "context": [], "message": null}', b"{"]
)
def test_errors_of_any_form_are_understood(account: Account, body: bytes) -> None:
    account.fail(Kind.STATUS, "update", status=400, body=body, times=None)
    (outcome,) = account.connect().write_back([stamp(one) for one in account.add(1)])
    assert (outcome.result, outcome.detail) == (Written.REFUSED, "no reason given")


def test_settings_refuse_a_literal_token_and_unknown_keys() -> None:
    with pytest.raises(ValidationError) as caught:
        HubSpotSettings.model_validate({"token": "pat-secret", "objekt": "companies", "api_version": "v1"})
    assert {error["loc"][0] for error in caught.value.errors()} == {"token", "objekt", "api_version"}
    assert "pat-secret" not in str(caught.value)
