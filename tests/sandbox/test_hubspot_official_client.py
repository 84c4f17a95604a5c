"""The oracle: HubSpot's official client, unchanged, works with the simulator as it does with HubSpot."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hubspot import HubSpot
from hubspot.crm.contacts import (
    ApiException,
    BatchInputSimplePublicObjectBatchInput,
    BatchInputSimplePublicObjectBatchInputForCreate,
    BatchInputSimplePublicObjectBatchInputUpsert,
    BatchInputSimplePublicObjectId,
    BatchReadInputSimplePublicObjectId,
    Filter,
    FilterGroup,
    PublicGdprDeleteInput,
    PublicMergeInput,
    PublicObjectSearchRequest,
    SimplePublicObjectBatchInput,
    SimplePublicObjectBatchInputForCreate,
    SimplePublicObjectBatchInputUpsert,
    SimplePublicObjectId,
    SimplePublicObjectInput,
    SimplePublicObjectInputForCreate,
)
from hubspot.crm.properties import ApiException as PropertiesApiException
from hubspot.crm.properties import PropertyCreate
from starlette.types import ASGIApp, Receive, Scope, Send

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.hubspot import HubSpotSimulator
from syncsvc.sandbox.server import Server

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


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


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def account(clock: ManualClock) -> HubSpotSimulator:
    simulator = HubSpotSimulator(clock=clock)
    simulator.define("loyalty_points", "number", "number")
    return simulator


@pytest.fixture
def client(account: HubSpotSimulator, stage: Stage, url: str) -> HubSpot:
    stage.app = account.app
    return HubSpot(access_token="pat-sandbox", host=url)


def some(account: HubSpotSimulator, number: int) -> list[str]:
    return account.create_many({"email": f"p{i}@acme.example", "lastname": f"N{i}"} for i in range(number))


def test_get_all_lists_every_contact_in_the_order_of_ids(client: HubSpot, account: HubSpotSimulator) -> None:
    ids = some(account, 230)
    found = client.crm.contacts.get_all(properties=["email", "loyalty_points", "no_such_property"])
    assert [contact.id for contact in found] == ids
    assert found[7].properties["email"] == "p7@acme.example"
    assert found[7].properties["loyalty_points"] is None
    assert "no_such_property" not in found[7].properties
    assert account.requests["GET", "/contacts"] == 3


def test_get_all_with_history_takes_pages_of_fifty(client: HubSpot, account: HubSpotSimulator) -> None:
    ids = some(account, 60)
    account.update(ids[0], {"lastname": "Later"}, at=START + timedelta(seconds=1))
    found = client.crm.contacts.get_all(properties_with_history=["lastname"])
    versions = found[0].properties_with_history["lastname"]
    assert [version.value for version in versions] == ["Later", "N0"]
    assert account.requests["GET", "/contacts"] == 2
    with pytest.raises(ApiException) as refused:
        client.crm.contacts.basic_api.get_page(limit=51, properties_with_history=["lastname"])
    assert refused.value.status == 400


def test_search_pages_by_offset(client: HubSpot, account: HubSpotSimulator) -> None:
    ids = some(account, 25)
    request = PublicObjectSearchRequest(
        filter_groups=[
            FilterGroup(filters=[Filter(property_name="email", operator="CONTAINS_TOKEN", value="acme")])
        ],
        sorts=["hs_object_id"],
        properties=["email"],
        limit=10,
    )
    found: list[str] = []
    while True:
        page = client.crm.contacts.search_api.do_search(request)
        assert page.total == 25
        found += [contact.id for contact in page.results]
        if page.paging is None:
            break
        request.after = page.paging.next.after
    assert found == ids
    assert account.requests["POST", "/contacts/search"] == 3


def test_batch_update_writes_all_or_names_what_is_missing(client: HubSpot, account: HubSpotSimulator) -> None:
    ids = some(account, 3)
    account.archive(ids[1])

    def update(*inputs: tuple[str, dict[str, str]]) -> object:
        return client.crm.contacts.batch_api.update(
            BatchInputSimplePublicObjectBatchInput(
                inputs=[SimplePublicObjectBatchInput(id=one, properties=values) for one, values in inputs]
            )
        )

    whole = update((ids[0], {"loyalty_points": "5"}), (ids[2], {"loyalty_points": "6"}))
    assert {result.id for result in whole.results} == {ids[0], ids[2]}

    partial = update((ids[0], {"loyalty_points": "7"}), (ids[1], {"loyalty_points": "8"}))
    assert partial.num_errors == 1
    assert partial.errors[0].category == "OBJECT_NOT_FOUND"
    assert partial.errors[0].context["ids"] == [ids[1]]
    assert account.contact(ids[0])["loyalty_points"] == "7"

    with pytest.raises(ApiException) as refused:
        update((ids[0], {"loyalty_points": "9"}), (ids[2], {"loyalty_points": "many"}))
    assert refused.value.status == 400
    assert account.contact(ids[0])["loyalty_points"] == "7"


def test_batch_read_names_the_missing(client: HubSpot, account: HubSpotSimulator) -> None:
    ids = some(account, 2)
    answer = client.crm.contacts.batch_api.read(
        BatchReadInputSimplePublicObjectId(
            inputs=[SimplePublicObjectId(id=one) for one in (*ids, "999")],
            properties=["email"],
            properties_with_history=[],
        )
    )
    assert {result.id for result in answer.results} == set(ids)
    assert answer.errors[0].context["ids"] == ["999"]


def test_batch_create_and_upsert(client: HubSpot, account: HubSpotSimulator) -> None:
    made = client.crm.contacts.batch_api.create(
        BatchInputSimplePublicObjectBatchInputForCreate(
            inputs=[
                SimplePublicObjectBatchInputForCreate(
                    properties={"email": "New@Acme.Example"}, associations=[]
                )
            ]
        )
    )
    assert made.results[0].properties["email"] == "new@acme.example"
    answer = client.crm.contacts.batch_api.upsert(
        BatchInputSimplePublicObjectBatchInputUpsert(
            inputs=[
                SimplePublicObjectBatchInputUpsert(
                    id=email, id_property="email", properties={"firstname": "F"}
                )
                for email in ("new@acme.example", "newer@acme.example")
            ]
        )
    )
    assert {result.properties["email"]: result.new for result in answer.results} == {
        "new@acme.example": False,
        "newer@acme.example": True,
    }
    assert len(account) == 2


def test_create_of_a_taken_email_is_a_conflict(client: HubSpot, account: HubSpotSimulator) -> None:
    taken = account.create({"email": "a@acme.example"})
    with pytest.raises(ApiException) as refused:
        client.crm.contacts.basic_api.create(
            SimplePublicObjectInputForCreate(properties={"email": "A@acme.example"})
        )
    assert refused.value.status == 409
    body = json.loads(refused.value.body)
    assert body["category"] == "CONFLICT"
    assert body["message"].endswith(f"Existing ID: {taken}")


def test_one_contact_from_creation_to_the_recycle_bin(client: HubSpot, account: HubSpotSimulator) -> None:
    basic = client.crm.contacts.basic_api
    made = basic.create(SimplePublicObjectInputForCreate(properties={"email": "a@acme.example"}))
    basic.update(made.id, SimplePublicObjectInput(properties={"firstname": "Ann"}))
    read = basic.get_by_id("a@acme.example", id_property="email")
    assert (read.id, read.properties["firstname"]) == (made.id, "Ann")
    assert read.updated_at == START

    basic.archive(made.id)
    with pytest.raises(ApiException) as refused:
        basic.get_by_id(made.id)
    assert refused.value.status == 404
    assert refused.value.headers["X-HubSpot-NotFound"] == "true"
    assert [one.id for one in client.crm.contacts.get_all(archived=True)] == [made.id]
    assert [write.record_id for write in account.writes] == [made.id, made.id]


def test_batch_archive_passes_over_the_missing(client: HubSpot, account: HubSpotSimulator) -> None:
    ids = some(account, 2)
    client.crm.contacts.batch_api.archive(
        BatchInputSimplePublicObjectId(inputs=[SimplePublicObjectId(id=one) for one in (ids[0], "999")])
    )
    assert [one for one, _ in account.contacts()] == [ids[1]]


def test_merge_makes_a_new_contact_to_which_old_ids_lead(client: HubSpot, account: HubSpotSimulator) -> None:
    winner, loser = some(account, 2)
    merged = client.crm.contacts.basic_api.merge(
        PublicMergeInput(primary_object_id=winner, object_id_to_merge=loser)
    )
    assert merged.id not in {winner, loser}
    assert client.crm.contacts.basic_api.get_by_id(loser).id == merged.id
    assert account.contact(winner)["hs_merged_object_ids"] == f"{winner};{loser}"
    assert account.contact(winner)["hs_additional_emails"] == "p1@acme.example"


def test_gdpr_delete_leaves_no_trace(client: HubSpot, account: HubSpotSimulator) -> None:
    erased, other = some(account, 2)
    client.crm.contacts.basic_api.purge(PublicGdprDeleteInput(object_id=erased))
    assert [one.id for one in client.crm.contacts.get_all()] == [other]
    assert client.crm.contacts.get_all(archived=True) == []


def test_too_many_requests_is_an_exception_with_the_reason(
    client: HubSpot, account: HubSpotSimulator, clock: ManualClock
) -> None:
    account.knobs.burst = 2
    basic = client.crm.contacts.basic_api
    basic.get_page()
    basic.get_page()
    with pytest.raises(ApiException) as refused:
        basic.get_page()
    assert refused.value.status == 429
    assert json.loads(refused.value.body)["policyName"] == "TEN_SECONDLY_ROLLING"
    clock.advance(timedelta(seconds=10))
    assert basic.get_page().results == []


def test_properties_are_read_and_created(client: HubSpot) -> None:
    core = client.crm.properties.core_api
    assert core.get_by_name("contacts", "loyalty_points").type == "number"
    assert core.get_by_name("contacts", "lastmodifieddate").modification_metadata.read_only_value is True
    wanted = PropertyCreate(
        name="wallet_last_updated",
        label="Wallet last updated",
        group_name="contactinformation",
        type="datetime",
        field_type="date",
    )
    core.create("contacts", wanted)
    assert "wallet_last_updated" in {one.name for one in core.get_all("contacts").results}
    with pytest.raises(PropertiesApiException) as refused:
        core.create("contacts", wanted)
    assert refused.value.status == 409


def test_refresh_tokens_are_exchanged_and_access_tokens_expire(
    client: HubSpot, account: HubSpotSimulator, clock: ManualClock
) -> None:
    account.add_oauth_app(client_id="id", client_secret="secret", refresh_token="refresh")
    answer = client.oauth.tokens_api.create(
        grant_type="refresh_token", client_id="id", client_secret="secret", refresh_token="refresh"
    )
    assert answer.expires_in == 1800
    host = client.config["host"]
    fresh = HubSpot(access_token=answer.access_token, host=host)
    assert fresh.crm.contacts.get_all() == []
    clock.advance(timedelta(seconds=1800))
    with pytest.raises(ApiException) as refused:
        fresh.crm.contacts.get_all()
    assert json.loads(refused.value.body)["category"] == "EXPIRED_AUTHENTICATION"


def test_an_unavailable_server_is_an_exception(client: HubSpot, account: HubSpotSimulator) -> None:
    account.faults.add(Fault(Kind.STATUS, path="/contacts", status=503))
    with pytest.raises(ApiException) as refused:
        client.crm.contacts.basic_api.get_page()
    assert refused.value.status == 503
    assert account.requests.total() == 0
