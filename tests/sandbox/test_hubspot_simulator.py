"""The HubSpot simulator refuses what HubSpot refuses, and is late where HubSpot is late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.hubspot import HubSpotKnobs, HubSpotSimulator
from syncsvc.sandbox.hubspot_refusals import Refusal
from syncsvc.sandbox.server import Server

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
START_MS = int(START.timestamp()) * 1000
SECOND = timedelta(seconds=1)
V3 = "/crm/v3/objects/contacts"
DATED = "/crm/objects/2026-03/contacts"
NEWEST = "/crm/objects/2026-09/contacts"


class Stage:
    """What the one server of this module serves: the account of the running test."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage()


@pytest.fixture(scope="module")
def url(stage: Stage) -> Iterator[str]:
    with Server(stage) as server:
        yield server.url


@pytest.fixture(scope="module")
def connection(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers={"Authorization": "Bearer pat-sandbox"}) as client:
        yield client


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def account(clock: ManualClock) -> HubSpotSimulator:
    simulator = HubSpotSimulator(clock=clock, knobs=HubSpotKnobs(limits=False))
    simulator.define("loyalty_points", "number", "number")
    simulator.define("wallet_last_updated", "datetime", "date")
    simulator.define("member_since", "date", "date")
    simulator.define("tier", "enumeration", "select", options=("gold", "basic"))
    return simulator


@pytest.fixture
def http(account: HubSpotSimulator, stage: Stage, connection: httpx.Client) -> httpx.Client:
    stage.app = account.app
    return connection


def some(account: HubSpotSimulator, number: int, *, at: datetime | None = None) -> list[str]:
    return account.create_many(({"lastname": f"N{i}"} for i in range(number)), at=at)


def where(name: str, operator: str, **value: Any) -> dict[str, Any]:
    return {"propertyName": name, "operator": operator, **value}


def search(http: httpx.Client, *filters: dict[str, Any], path: str = V3, **more: Any) -> httpx.Response:
    body = {"filterGroups": [{"filters": list(filters)}]} if filters else {}
    return http.post(f"{path}/search", json=body | more)


def ids_of(answer: httpx.Response) -> list[str]:
    assert answer.status_code in {200, 207}, answer.text
    return [result["id"] for result in answer.json()["results"]]


def update(http: httpx.Client, *inputs: dict[str, Any], path: str = V3) -> httpx.Response:
    return http.post(f"{path}/batch/update", json={"inputs": list(inputs)})


def one(record_id: str, **properties: Any) -> dict[str, Any]:
    return {"id": record_id, "properties": properties}


# --- paths, tokens, scopes


@pytest.mark.parametrize("path", [V3, DATED, NEWEST, "/crm/v3/objects/0-1", "/crm/objects/2026-09/contact"])
def test_every_path_family_gives_the_same_answers(
    http: httpx.Client, account: HubSpotSimulator, path: str
) -> None:
    ids = some(account, 3)
    assert ids_of(http.get(path)) == ids
    assert http.get(f"{path}/{ids[0]}").json()["id"] == ids[0]
    assert ids_of(search(http, where("lastname", "EQ", value="n1"), path=path)) == [ids[1]]
    assert ids_of(update(http, one(ids[2], lastname="Z"), path=path)) == [ids[2]]
    prefix = path.rsplit("/", 1)[0].replace("/objects", "/properties")
    assert http.get(f"{prefix}/contacts/tier").json()["options"][0]["value"] == "gold"
    assert account.requests == {
        ("GET", "/contacts"): 1,
        ("GET", "/contacts/{id}"): 1,
        ("POST", "/contacts/search"): 1,
        ("POST", "/contacts/batch/update"): 1,
        ("GET", "/properties/contacts/{id}"): 1,
    }


@pytest.mark.parametrize("path", ["/crm/objects/2025-09/contacts", "/crm/objects/v3/contacts"])
def test_an_unknown_version_is_not_found(http: httpx.Client, path: str) -> None:
    assert http.get(path).status_code == 404


def test_another_object_type_is_refused(http: httpx.Client) -> None:
    assert http.get("/crm/v3/objects/companies").status_code == 400


def test_tokens_that_are_missing_unknown_expired_or_revoked(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    def category(authorization: str) -> tuple[int, str]:
        answer = http.get(V3, headers={"Authorization": authorization})
        return answer.status_code, answer.json()["category"]

    assert category("") == (401, "INVALID_AUTHENTICATION")
    assert category("Bearer other") == (401, "INVALID_AUTHENTICATION")
    account.expire_token("pat-sandbox")
    assert category("Bearer pat-sandbox") == (401, "EXPIRED_AUTHENTICATION")
    account.add_token("second")
    assert http.get(V3, headers={"Authorization": "Bearer second"}).status_code == 200
    account.revoke_token("second")
    assert category("Bearer second") == (401, "INVALID_AUTHENTICATION")


def test_a_scope_taken_away_is_named(http: httpx.Client, account: HubSpotSimulator) -> None:
    (record,) = some(account, 1)
    account.scopes.remove("crm.objects.contacts.write")
    refused = update(http, one(record, lastname="Z"))
    assert refused.status_code == 403
    assert refused.json()["category"] == "MISSING_SCOPES"
    wanted = refused.json()["errors"][0]["context"]["requiredGranularScopes"]
    assert wanted == ["crm.objects.contacts.write"]
    assert ids_of(http.get(V3)) == [record]
    assert account.writes == []


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({}, "BAD_REFRESH_TOKEN", "invalid_grant"),
        ({"client_secret": "wrong"}, "BAD_CLIENT_ID", "invalid_client"),
        ({"grant_type": "password"}, "BAD_GRANT_TYPE", "unsupported_grant_type"),
    ],
)
def test_the_token_endpoint_says_what_it_does_not_know(
    http: httpx.Client, account: HubSpotSimulator, change: dict[str, str], status: str, error: str
) -> None:
    account.add_oauth_app(client_id="id", client_secret="secret", refresh_token="right")
    form = {
        "grant_type": "refresh_token",
        "client_id": "id",
        "client_secret": "secret",
        "refresh_token": "wrong",
    }
    refused = http.post("/oauth/2026-03/token", data=form | change)
    assert refused.status_code == 400
    assert (refused.json()["status"], refused.json()["error"]) == (status, error)


def test_answers_are_dated_by_the_clock_of_the_account(http: httpx.Client) -> None:
    answer = http.get(V3)
    assert answer.headers.get_list("date") == ["Sun, 22 Nov 2026 12:00:00 GMT"]
    assert parsedate_to_datetime(answer.headers["date"]) == START


# --- list and read


def test_list_is_a_keyset_over_ids(http: httpx.Client, account: HubSpotSimulator) -> None:
    ids = some(account, 5)
    first = http.get(V3, params={"limit": "2"})
    assert first.json()["paging"]["next"]["after"] == ids[2]
    account.archive(ids[2])
    assert ids_of(http.get(V3, params={"limit": "2", "after": ids[2]})) == ids[3:]
    assert ids_of(http.get(V3, params={"archived": "true"})) == [ids[2]]


@pytest.mark.parametrize("limit", ["0", "101", "-1", "ten"])
def test_list_refuses_other_page_sizes(http: httpx.Client, limit: str) -> None:
    assert http.get(V3, params={"limit": limit}).status_code == 400


def test_properties_are_named_with_commas_or_repeated(http: httpx.Client, account: HubSpotSimulator) -> None:
    account.create({"email": "a@acme.example", "lastname": "A"})
    commas = http.get(f"{V3}?properties=email,lastname,no_such_thing").json()
    assert http.get(f"{V3}?properties=email&properties=lastname").json() == commas
    assert commas["results"][0]["properties"] == {
        "createdate": "2026-11-22T12:00:00.000Z",
        "hs_object_id": commas["results"][0]["id"],
        "lastmodifieddate": "2026-11-22T12:00:00.000Z",
        "email": "a@acme.example",
        "lastname": "A",
    }


def test_unfilled_is_null_emptied_is_empty_text(http: httpx.Client, account: HubSpotSimulator) -> None:
    record = account.create({"lastname": "A"})
    update(http, one(record, lastname=""))
    answer = http.get(f"{V3}/{record}").json()["properties"]
    assert (answer["lastname"], answer["firstname"]) == ("", None)
    assert ids_of(search(http, where("lastname", "NOT_HAS_PROPERTY"))) == [record]


# --- search


def test_search_refuses_paging_past_ten_thousand(http: httpx.Client, account: HubSpotSimulator) -> None:
    some(account, 10_300)
    last = search(http, limit=200, after="9800")
    assert last.json()["total"] == 10_300
    assert last.json()["paging"]["next"]["after"] == "10000"
    refused = search(http, limit=200, after="10000")
    assert refused.status_code == 400
    assert refused.json()["message"] == "There was a problem with the request."
    assert search(http, limit=200, after="9801").status_code == 400


def test_search_refuses_the_cursor_of_a_list(http: httpx.Client, account: HubSpotSimulator) -> None:
    some(account, 11)
    cursor = http.get(V3).json()["paging"]["next"]["after"]
    refused = search(http, after=cursor)
    assert refused.status_code == 400
    assert "Cannot deserialize value of type" in refused.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"filterGroups": [{"filters": [where("no_such_property", "EQ", value="1")]}]},
        {"filterGroups": [{"filters": [where("lastmodifieddate", "GTE", value="2026-11-22")]}]},
        {"filterGroups": [{"filters": [where("lastmodifieddate", "GTE", value="")]}]},
        {"filterGroups": [{"filters": [where("lastmodifieddate", "GTE")]}]},
        {"filterGroups": [{"filters": [where("lastmodifieddate", "AFTER", value="1")]}]},
        {"filterGroups": [{"filters": [where("loyalty_points", "GT", value="many")]}]},
        {"filterGroups": [{"filters": [where("tier", "IN", values=[])]}]},
        {"filterGroups": [{"filters": [where("loyalty_points", "CONTAINS_TOKEN", value="1")]}]},
        {"filterGroups": [{"filters": [where("tier", "HAS_PROPERTY")] * 7}]},
        {"filterGroups": [{"filters": [where("tier", "HAS_PROPERTY")]}] * 6},
        {"filterGroups": [{"filters": [where("tier", "HAS_PROPERTY")] * 5}] * 4},
        {"sorts": ["no_such_property"]},
        {"sorts": [{"propertyName": "email", "direction": "UP"}]},
        {"limit": 201},
        {"limit": 0},
        {"after": "x"},
        {"query": "x" * 3001},
        {"properties": ["x" * 3000]},
        {"properties": "email"},
        {"filter": []},
    ],
)
def test_search_refuses_what_hubspot_refuses(http: httpx.Client, body: dict[str, Any]) -> None:
    assert http.post(f"{V3}/search", json=body).status_code == 400


def test_search_from_the_epoch_is_a_server_error(http: httpx.Client) -> None:
    assert search(http, where("lastmodifieddate", "GTE", value="0")).status_code == 500


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([where("lastmodifieddate", "GTE", value=str(START_MS + 1))], "bc"),
        ([where("lastmodifieddate", "GT", value=str(START_MS + 1))], "c"),
        ([where("lastmodifieddate", "LT", value=str(START_MS + 1))], "a"),
        ([where("lastmodifieddate", "LTE", value="2026-11-22T12:00:00.001Z")], "ab"),
        ([where("lastmodifieddate", "EQ", value=str(START_MS + 2))], "c"),
        (
            [where("lastmodifieddate", "BETWEEN", value=str(START_MS), highValue=str(START_MS + 1))],
            "ab",
        ),
        ([where("hs_lastmodifieddate", "GTE", value=str(START_MS))], ""),
        ([where("email", "EQ", value="A@acme.example")], "a"),
        ([where("email", "IN", values=["A@acme.example"])], ""),
        ([where("email", "IN", values=["a@acme.example", "b@acme.example"])], "ab"),
        ([where("email", "NOT_IN", values=["a@acme.example"])], "bc"),
        ([where("email", "CONTAINS_TOKEN", value="b*")], "b"),
        ([where("loyalty_points", "GT", value="9")], "ab"),
        ([where("loyalty_points", "NEQ", value="10")], "b"),
        ([where("loyalty_points", "HAS_PROPERTY"), where("email", "NEQ", value="a@acme.example")], "b"),
        ([where("loyalty_points", "NOT_HAS_PROPERTY")], "c"),
        ([where("tier", "EQ", value="Gold")], ""),
        ([where("tier", "EQ", value="gold")], "a"),
        ([where("member_since", "LT", value="2021-01-01T00:00:00Z")], "b"),
    ],
)
def test_filters_compare_by_the_type_of_the_property(
    http: httpx.Client,
    account: HubSpotSimulator,
    clock: ManualClock,
    filters: list[dict[str, Any]],
    found: str,
) -> None:
    ids = [
        account.create({"email": f"{name}@acme.example"} | values, at=START + timedelta(milliseconds=late))
        for late, (name, values) in enumerate(
            {
                "a": {"loyalty_points": "10", "tier": "gold"},
                "b": {"loyalty_points": 100, "member_since": "2020-02-29"},
                "c": {},
            }.items()
        )
    ]
    clock.advance(SECOND)
    answer = search(http, *filters, sorts=["hs_object_id"])
    assert "".join("abc"[ids.index(one)] for one in ids_of(answer)) == found


def test_groups_are_alternatives(http: httpx.Client, account: HubSpotSimulator) -> None:
    ids = some(account, 4)
    groups = [{"filters": [where("lastname", "EQ", value=name)]} for name in ("n1", "n3", "n1")]
    answer = http.post(f"{V3}/search", json={"filterGroups": groups, "sorts": ["hs_object_id"]})
    assert ids_of(answer) == [ids[1], ids[3]]


def test_a_text_finds_the_beginnings_of_words(http: httpx.Client, account: HubSpotSimulator) -> None:
    ids = some(account, 12)
    assert ids_of(search(http, query="N1", sorts=["hs_object_id"])) == [ids[1], ids[10], ids[11]]
    assert ids_of(search(http, query="n11", sorts=["hs_object_id"])) == [ids[11]]


def test_record_ids_bound_a_search_in_any_order(http: httpx.Client, account: HubSpotSimulator) -> None:
    ids = some(account, 3)
    for sorts in (["hs_object_id"], ["-hs_object_id"], ["lastmodifieddate"]):
        above = ids_of(search(http, where("hs_object_id", "GT", value=ids[1]), sorts=sorts))
        below = ids_of(search(http, where("hs_object_id", "LT", value=ids[1]), sorts=sorts))
        assert (above, below) == ([ids[2]], [ids[0]])


def test_only_the_first_sort_counts_and_ties_have_no_order(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    ids = some(account, 40)
    sorts = ["lastmodifieddate", "hs_object_id"]
    tied = ids_of(search(http, sorts=sorts, limit=200))
    assert sorted(tied) == ids
    assert tied != ids
    assert ids_of(search(http, sorts=["-lastmodifieddate"], limit=200)) != tied
    assert ids_of(search(http, sorts=["-hs_object_id"], limit=200)) == ids[::-1]
    descending = [{"propertyName": "hs_object_id", "direction": "DESCENDING"}]
    assert ids_of(search(http, sorts=descending, limit=200)) == ids[::-1]


def test_an_email_is_found_by_a_secondary_one(http: httpx.Client, account: HubSpotSimulator) -> None:
    winner, loser = (account.create({"email": f"{name}@acme.example"}) for name in "ab")
    merged = account.merge(winner, loser)
    assert ids_of(search(http, where("email", "EQ", value="b@acme.example"))) == [merged]
    read = {"idProperty": "email"}
    assert http.get(f"{V3}/b@acme.example", params=read).status_code == 404
    assert http.get(f"{V3}/a@acme.example", params=read).json()["id"] == merged


def test_more_than_ten_thousand_of_one_millisecond_are_walked_by_id(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    ids = some(account, 10_400, at=START - timedelta(days=1))
    account.touch_many(ids, START)
    found: list[str] = []
    while True:
        page = ids_of(
            search(
                http,
                where("lastmodifieddate", "EQ", value=str(START_MS)),
                where("hs_object_id", "GT", value=found[-1] if found else "0"),
                sorts=["hs_object_id"],
                limit=200,
            )
        )
        if not page:
            break
        found += page
    assert found == ids


def test_the_index_learns_late_and_keeps_the_old_value_until_then(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    account.knobs.index_lag = 5
    record = account.create({"lastname": "Old"}, at=START - timedelta(minutes=1))
    account.update(record, {"lastname": "New"})
    clock.advance(timedelta(seconds=4))
    assert ids_of(search(http, where("lastname", "EQ", value="old"))) == [record]
    assert http.get(f"{V3}/{record}").json()["properties"]["lastname"] == "New"
    clock.advance(SECOND)
    assert ids_of(search(http, where("lastname", "EQ", value="old"))) == []
    found = search(http, where("lastname", "EQ", value="new")).json()["results"][0]
    assert found["updatedAt"] == "2026-11-22T12:00:00.000Z"


def test_with_jitter_changes_show_up_out_of_order(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    account.knobs.index_jitter = 10
    ids = some(account, 30)
    clock.advance(timedelta(seconds=5))
    early = ids_of(search(http, sorts=["hs_object_id"], limit=200))
    assert 0 < len(early) < 30
    assert early != ids[: len(early)]
    clock.advance(timedelta(seconds=5))
    assert ids_of(search(http, sorts=["hs_object_id"], limit=200)) == ids


def test_an_early_change_never_overwrites_a_later_one_in_the_index(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    record = account.create({"lastname": "A"})
    account.knobs.index_lag = 60
    account.update(record, {"lastname": "B"})
    account.knobs.index_lag = 0
    account.update(record, {"lastname": "C"})
    clock.advance(timedelta(seconds=60))
    assert ids_of(search(http, where("lastname", "EQ", value="c"))) == [record]


def test_archived_and_merged_contacts_leave_search_at_once_but_not_its_count(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    ids = some(account, 12)
    search(http)
    account.knobs.index_lag = 5
    account.archive(ids[0])
    account.gdpr_delete(ids[1])
    merged = account.merge(ids[2], ids[3])
    page = search(http, sorts=["hs_object_id"], limit=3)
    assert ids_of(page) == []
    assert (page.json()["total"], page.json()["paging"]["next"]["after"]) == (12, "3")
    clock.advance(timedelta(seconds=5))
    later = search(http, sorts=["hs_object_id"], limit=200)
    assert ids_of(later) == [*ids[4:], merged]
    assert later.json()["total"] == 9


def test_pages_can_be_empty_short_and_shuffled(http: httpx.Client, account: HubSpotSimulator) -> None:
    ids = some(account, 30)

    def pages() -> list[list[str]]:
        found, after = [], "0"
        while True:
            page = search(http, sorts=["hs_object_id"], limit=10, after=after)
            found.append(ids_of(page))
            if "paging" not in page.json():
                return found
            after = page.json()["paging"]["next"]["after"]

    account.knobs.phantom_hits = 14
    assert [len(page) for page in pages()] == [0, 6, 10, 10, 4]
    account.knobs.phantom_hits = 0
    account.knobs.short_search_pages = True
    assert [len(page) for page in pages()] == [5] * 6
    assert [record for page in pages() for record in page] == ids
    account.knobs.short_search_pages = False
    account.knobs.shuffled_search_pages = True
    first, *_ = pages()
    assert first != ids[:10]
    assert sorted(first) == ids[:10]


def test_offsets_shift_when_the_index_changes_between_pages(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    ids = [
        account.create({"lastname": "A"}, at=START - timedelta(seconds=30 - number)) for number in range(30)
    ]
    first = ids_of(search(http, sorts=["lastmodifieddate"], limit=10))
    account.update(ids[0], {"lastname": "B"})
    second = ids_of(search(http, sorts=["lastmodifieddate"], limit=10, after="10"))
    assert first == ids[:10]
    assert second == ids[11:21]  # the eleventh is on neither page


# --- writing


def test_one_hundred_and_one_inputs_are_too_many(http: httpx.Client, account: HubSpotSimulator) -> None:
    ids = some(account, 101)
    inputs = [one(record, lastname="Z") for record in ids]
    assert update(http, *inputs).status_code == 400
    assert account.writes == []
    assert update(http, *inputs[:100]).status_code == 200
    assert len(account.writes) == 100
    read = {"inputs": [{"id": record} for record in ids]}
    assert http.post(f"{V3}/batch/read", json=read).status_code == 400
    history = {"inputs": read["inputs"][:51], "propertiesWithHistory": ["lastname"]}
    assert http.post(f"{V3}/batch/read", json=history).status_code == 400


def test_a_duplicate_id_refuses_the_batch(http: httpx.Client, account: HubSpotSimulator) -> None:
    (record,) = some(account, 1)
    refused = update(http, one(record, lastname="Y"), one(record, lastname="Z"))
    assert refused.status_code == 400
    assert refused.json()["context"]["ids"] == [record]
    assert account.writes == []


def test_a_body_without_inputs_does_nothing_and_says_complete(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    some(account, 1)
    answer = http.post(f"{V3}/batch/update", json={"contacts": []})
    assert (answer.status_code, answer.json()["status"]) == (200, "COMPLETE")
    assert answer.json()["results"] == []


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"no_such_property": "1"}, "PROPERTY_DOESNT_EXIST"),
        ({"lastmodifieddate": "1"}, "READ_ONLY_VALUE"),
        ({"hs_merged_object_ids": "1"}, "READ_ONLY_VALUE"),
        ({"wallet_last_updated": "2026-11-22"}, "INVALID_LONG"),
        ({"wallet_last_updated": "2026-11-22T10:00:00"}, "INVALID_LONG"),
        ({"wallet_last_updated": "2026-11-22 10:00:00Z"}, "INVALID_LONG"),
        ({"member_since": str(START_MS)}, "INVALID_DATE"),
        ({"member_since": "22.11.2026"}, "INVALID_DATE"),
        ({"loyalty_points": "12 points"}, "INVALID_DOUBLE"),
        ({"loyalty_points": "nan"}, "INVALID_DOUBLE"),
        ({"tier": "silver"}, "INVALID_OPTION"),
        ({"email": "nobody"}, "INVALID_EMAIL"),
        ({"lastname": None}, "INVALID_VALUE"),
        ({"lastname": ["A"]}, "INVALID_VALUE"),
    ],
)
def test_one_bad_value_refuses_the_batch_and_writes_nothing(
    http: httpx.Client, account: HubSpotSimulator, properties: dict[str, Any], code: str
) -> None:
    good, bad = some(account, 2)
    refused = update(http, one(good, lastname="Z"), one(bad, **properties))
    assert refused.status_code == 400
    assert refused.json()["category"] == "VALIDATION_ERROR"
    assert refused.json()["errors"][0]["code"] == code
    assert refused.json()["errors"][0]["context"]["propertyName"] == list(properties)
    assert refused.json()["message"].startswith("Property values were not valid: [{")
    assert account.contact(good)["lastname"] == "N0"
    assert account.writes == []


def test_with_trace_ids_only_the_bad_input_is_refused(http: httpx.Client, account: HubSpotSimulator) -> None:
    good, bad, missing = *some(account, 2), "999"
    inputs = [
        one(good, lastname="Z") | {"objectWriteTraceId": "t1"},
        one(bad, no_such_property="Z") | {"objectWriteTraceId": "t2"},
        one(missing, lastname="Z") | {"objectWriteTraceId": "t3"},
    ]
    answer = update(http, *inputs)
    assert answer.status_code == 207
    assert ids_of(answer) == [good]
    assert answer.json()["numErrors"] == 2
    absent, refused = answer.json()["errors"]
    assert absent["context"] == {"ids": [missing], "objectWriteTraceId": ["t3"]}
    assert (refused["category"], refused["context"]["objectWriteTraceId"]) == ("VALIDATION_ERROR", ["t2"])
    assert [write.record_id for write in account.writes] == [good]
    inputs[1]["objectWriteTraceId"] = "t1"
    assert update(http, *inputs).status_code == 400


def test_a_merged_away_id_is_silently_left_out_of_a_batch_update(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    winner, loser, other = some(account, 3)
    merged = account.merge(winner, loser)
    answer = update(http, one(loser, lastname="Z"), one(other, lastname="Z"))
    assert answer.status_code == 200
    assert ids_of(answer) == [other]
    assert account.contact(merged)["lastname"] == "N0"
    patched = http.patch(f"{V3}/{loser}", json={"properties": {"lastname": "Y"}})
    assert patched.json()["id"] == merged
    read = http.post(f"{V3}/batch/read", json={"inputs": [{"id": winner}, {"id": loser}]})
    assert ids_of(read) == [merged]


def test_a_chain_of_merges_leads_to_the_last_contact(http: httpx.Client, account: HubSpotSimulator) -> None:
    a, b, c = some(account, 3)
    first = account.merge(a, b)
    last = account.merge(c, first)
    assert http.get(f"{V3}/{a}").json()["id"] == last
    assert set(account.contact(last)["hs_merged_object_ids"].split(";")) == {a, b, c, first}
    assert len(account) == 1
    with pytest.raises(Refusal):
        account.merge(a, last)


@pytest.mark.parametrize("name", ["email", "lastname"])
def test_batch_update_goes_by_record_id_only(
    http: httpx.Client, account: HubSpotSimulator, name: str
) -> None:
    account.create({"email": "a@acme.example"})
    refused = update(http, {"id": "a@acme.example", "idProperty": name, "properties": {"lastname": "Z"}})
    assert refused.status_code == 400
    assert "non-unique 0-1 property" in refused.json()["message"]


def test_an_email_taken_as_secondary_is_a_conflict(http: httpx.Client, account: HubSpotSimulator) -> None:
    merged = account.merge(*(account.create({"email": f"{name}@acme.example"}) for name in "ab"))
    refused = http.post(V3, json={"properties": {"email": "B@acme.example"}})
    assert refused.status_code == 409
    assert refused.json()["message"] == f"Contact already exists. Existing ID: {merged}"
    (other,) = some(account, 1)
    assert update(http, one(other, email="b@acme.example")).status_code == 409
    upsert = {"inputs": [{"id": "b@acme.example", "idProperty": "email", "properties": {}}]}
    assert http.post(f"{V3}/batch/upsert", json=upsert).status_code == 409
    assert account.writes == []


def test_batch_create_refuses_two_of_one_email(http: httpx.Client, account: HubSpotSimulator) -> None:
    inputs = [{"properties": {"email": "a@acme.example"}}] * 2
    assert http.post(f"{V3}/batch/create", json={"inputs": inputs}).status_code == 409
    assert len(account) == 0
    traced = [entry | {"objectWriteTraceId": str(number)} for number, entry in enumerate(inputs)]
    assert http.post(f"{V3}/batch/create", json={"inputs": traced}).status_code == 207
    assert len(account) == 1


def test_a_write_moves_the_modification_time_only_where_something_changes(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    record = account.create({"wallet_last_updated": "2026-11-22T10:00:00Z"})
    clock.advance(timedelta(milliseconds=7))
    same = update(http, one(record, wallet_last_updated="1795341600000"))
    assert same.json()["results"][0]["updatedAt"] == "2026-11-22T12:00:00.000Z"
    assert len(account.writes) == 1
    other = update(http, one(record, wallet_last_updated="2026-11-22T11:00:00+00:00"))
    assert other.json()["results"][0]["updatedAt"] == "2026-11-22T12:00:00.007Z"
    clock.advance(SECOND)
    account.knobs.same_value_bumps = True
    update(http, one(record, wallet_last_updated="2026-11-22T11:00:00Z"))
    since = where("lastmodifieddate", "GTE", value=str(START_MS + 1000))
    assert ids_of(search(http, since)) == [record]


def test_a_calculated_change_an_archive_and_a_restore_move_nothing(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    account.define("score", "number", "number", read_only=True)
    (record,) = some(account, 1)
    clock.advance(SECOND)
    account.update(record, {"score": 5})
    account.archive(record)
    assert http.get(f"{V3}/{record}").status_code == 404
    assert http.get(f"{V3}/{record}?archived=true").json()["archivedAt"] == "2026-11-22T12:00:01.000Z"
    account.restore(record)
    answer = http.get(f"{V3}/{record}?properties=score").json()
    assert answer["properties"]["score"] == "5"
    assert answer["updatedAt"] == "2026-11-22T12:00:00.000Z"
    assert update(http, one(record, score="6")).status_code == 400


def test_a_write_answers_with_what_was_written_in_no_order(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    ids = some(account, 20)
    answer = update(http, *(one(record, loyalty_points=5) for record in ids))
    assert sorted(ids_of(answer)) == ids
    assert ids_of(answer) != ids
    assert set(answer.json()["results"][0]["properties"]) == {
        "createdate",
        "hs_object_id",
        "lastmodifieddate",
        "loyalty_points",
    }


def test_history_tells_the_app_from_people(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    (record,) = some(account, 1)
    clock.advance(SECOND)
    update(http, one(record, lastname="Z"))
    answer = http.get(f"{V3}/{record}?propertiesWithHistory=lastname").json()
    versions = [(one["value"], one["sourceType"]) for one in answer["propertiesWithHistory"]["lastname"]]
    assert versions == [("Z", "INTEGRATION"), ("N0", "CRM_UI")]


def test_write_validation_of_2026_09_strikes_unrelated_writes_there_and_only_there(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    account.knobs.required_on_write = ("company",)
    filled = account.create({"company": "Acme"})
    (empty,) = some(account, 1)
    refused = update(http, one(filled, lastname="Z"), one(empty, lastname="Z"), path=NEWEST)
    assert (refused.status_code, refused.json()["category"]) == (400, "VALIDATION_ERROR")
    assert account.writes == []
    assert http.patch(f"{NEWEST}/{empty}", json={"properties": {}}).status_code == 400
    assert update(http, one(filled, lastname="Z"), path=NEWEST).status_code == 200
    assert update(http, one(empty, lastname="Z"), path=DATED).status_code == 200


def test_unknown_json_keys_are_refused_unless_the_knob_says_otherwise(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    (record,) = some(account, 1)
    typo = one(record, lastname="Z") | {"objectWriteTraceID": "t"}
    assert update(http, typo).status_code == 400
    account.knobs.refuse_unknown_keys = False
    assert update(http, typo).status_code == 200


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"inputs": {}}', b'{"inputs": [{"properties": {}}]}']
)
def test_other_json_is_refused(http: httpx.Client, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    assert http.post(f"{V3}/batch/update", content=content, headers=headers).status_code == 400


def test_a_body_that_is_not_called_json_is_refused(http: httpx.Client) -> None:
    assert http.post(f"{V3}/search", content=b"{}").status_code == 415


# --- properties


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Has Capitals"},
        {"label": ""},
        {"groupName": "no_such_group"},
        {"type": "datetime", "fieldType": "text"},
        {"type": "money"},
    ],
)
def test_a_property_that_does_not_fit_is_not_created(http: httpx.Client, change: dict[str, str]) -> None:
    body = {
        "name": "new_one",
        "label": "New one",
        "groupName": "contactinformation",
        "type": "string",
        "fieldType": "text",
    }
    assert http.post("/crm/v3/properties/contacts", json=body | change).status_code == 400
    assert http.post("/crm/v3/properties/contacts", json=body).status_code == 201


def test_an_archived_property_is_neither_read_nor_written(
    http: httpx.Client, account: HubSpotSimulator
) -> None:
    record = account.create({"tier": "gold"})
    account.archive_property("tier")
    assert http.get("/crm/v3/properties/contacts/tier").status_code == 404
    archived = http.get("/crm/v3/properties/contacts?archived=true").json()["results"]
    assert [one["name"] for one in archived] == ["tier"]
    assert "tier" not in http.get(f"{V3}/{record}?properties=tier").json()["properties"]
    assert update(http, one(record, tier="basic")).status_code == 400


# --- limits


def test_searches_have_their_own_limit_and_say_nothing_of_it(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    account.knobs.limits = True
    answers = [search(http) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    refused = answers[-1]
    assert {name: value for name, value in refused.json().items() if name != "correlationId"} == {
        "status": "error",
        "message": "You have reached your secondly limit.",
        "category": "RATE_LIMITS",
    }
    for answer in answers:
        assert "retry-after" not in answer.headers
        assert "x-hubspot-ratelimit-max" not in answer.headers
        assert "x-hubspot-ratelimit-daily-remaining" in answer.headers
    clock.advance(SECOND)
    account.knobs.foreign_searches_per_second = 4
    assert [search(http).status_code for _ in range(2)] == [200, 429]


def test_the_burst_limit_rolls_and_leaves_searches_alone(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    account.knobs.limits = True
    account.knobs.burst = 2
    assert http.get(V3).headers["x-hubspot-ratelimit-remaining"] == "1"
    clock.advance(timedelta(seconds=9))
    http.get(V3)
    account.knobs.retry_after = 3
    refused = http.get(V3)
    assert refused.status_code == 429
    assert refused.json()["policyName"] == "TEN_SECONDLY_ROLLING"
    assert refused.json()["errorType"] == "RATE_LIMIT"
    assert refused.headers["retry-after"] == "3"
    assert refused.headers["x-hubspot-ratelimit-remaining"] == "0"
    assert search(http).status_code == 200
    clock.advance(SECOND)
    assert [http.get(V3).status_code for _ in range(2)] == [200, 429]


def test_the_daily_limit_counts_searches_and_ends_at_midnight_of_the_account(
    http: httpx.Client, account: HubSpotSimulator, clock: ManualClock
) -> None:
    account.knobs.limits = True
    account.knobs.time_zone = "Europe/Amsterdam"
    account.knobs.daily, account.knobs.foreign_daily = 10, 8
    search(http)
    assert http.get(V3).headers["x-hubspot-ratelimit-daily-remaining"] == "0"
    for refused in (search(http), http.get(V3)):
        assert (refused.status_code, refused.json()["policyName"]) == (429, "DAILY")
    clock.advance(timedelta(hours=11) - SECOND)
    assert http.get(V3).status_code == 429
    clock.advance(SECOND)
    assert http.get(V3).status_code == 200


# --- faults


def test_a_reset_after_the_write_has_written(http: httpx.Client, account: HubSpotSimulator) -> None:
    (record,) = some(account, 1)
    account.faults.add(Fault(Kind.RESET_AFTER, path="/batch/update"))
    with pytest.raises(httpx.TransportError):
        update(http, one(record, lastname="Z"))
    assert account.contact(record)["lastname"] == "Z"


def test_a_reset_before_the_write_has_not(http: httpx.Client, account: HubSpotSimulator) -> None:
    (record,) = some(account, 1)
    account.faults.add(Fault(Kind.RESET_BEFORE, path="/batch/update"))
    with pytest.raises(httpx.TransportError):
        update(http, one(record, lastname="Z"))
    assert account.contact(record)["lastname"] == "N0"
    assert account.writes == []


def test_a_cut_answer_is_no_answer(http: httpx.Client, account: HubSpotSimulator) -> None:
    some(account, 3)
    account.faults.add(Fault(Kind.CUT_BODY, path=V3))
    with pytest.raises(httpx.TransportError):
        http.get(V3)


# --- the methods


def test_methods_refuse_contacts_that_are_not_there(account: HubSpotSimulator) -> None:
    for call in (account.archive, account.gdpr_delete, account.restore, account.contact):
        with pytest.raises(KeyError):
            call("999")
    with pytest.raises(Refusal):
        account.create({"no_such_property": "1"})
    with pytest.raises(Refusal):
        account.create({"lastmodifieddate": "2026-11-22T12:00:00Z"})
    with pytest.raises(ValueError, match="does not fit"):
        account.define("odd", "datetime", "text")


def test_an_archived_contact_gives_its_email_free_and_cannot_come_back_then(
    account: HubSpotSimulator,
) -> None:
    first = account.create({"email": "a@acme.example"})
    account.archive(first)
    second = account.create({"email": "a@acme.example"})
    with pytest.raises(Refusal):
        account.restore(first)
    account.gdpr_delete(first)
    assert [record for record, _ in account.contacts()] == [second]


def test_values_stay_out_of_reprs(http: httpx.Client, account: HubSpotSimulator) -> None:
    (record,) = some(account, 1)
    update(http, one(record, lastname="Secret"))
    assert repr(account.writes) == f"[Wrote(record_id='{record}')]"
    with pytest.raises(Refusal) as refused:
        account.create({"email": "Secret"})
    assert "Secret" not in repr(refused.value)
