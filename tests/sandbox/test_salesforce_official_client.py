"""The Salesforce simulator driven by simple-salesforce, unchanged, over TLS."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import requests.adapters
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from simple_salesforce.api import Salesforce
from simple_salesforce.bulk2 import Operation
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceExpiredSession,
    SalesforceMalformedRequest,
    SalesforceOperationError,
    SalesforceRefusedRequest,
    SalesforceResourceNotFound,
)
from starlette.types import ASGIApp, Receive, Scope, Send

from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.salesforce import SalesforceSimulator
from syncsvc.sandbox.server import Authority, Server

VERSION = "67.0"


class ToSimulator(requests.adapters.HTTPAdapter):
    """Sends what is meant for *.salesforce.com to the simulator, with the Host header it was meant for."""

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__()

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        parts = urlsplit(str(request.url))
        if str(parts.hostname).endswith(".salesforce.com"):
            request.headers["Host"] = str(parts.hostname)
            request.url = self._url + str(request.url).removeprefix(f"https://{parts.netloc}")
        return super().send(request, *args, **kwargs)

    def close(self) -> None:
        # A pool that a kept exception still refers to is closed by nobody else, and the server waits for it.
        for key in self.poolmanager.pools.keys():  # noqa: SIM118 - not a dict: it cannot be iterated over
            self.poolmanager.pools[key].close()
        super().close()


class Switch:
    """One server for all tests of this module: it serves the org of the test that runs."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def switch() -> Switch:
    return Switch()


@pytest.fixture(scope="module")
def url(authority: Authority, switch: Switch) -> Iterator[str]:
    with Server(switch, authority=authority) as server:
        yield server.url


@pytest.fixture
def org() -> SalesforceSimulator:
    return SalesforceSimulator(seed=7)


@pytest.fixture
def session(
    org: SalesforceSimulator, authority: Authority, switch: Switch, url: str
) -> Iterator[requests.Session]:
    switch.app, org.instance_url = org.app, url
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(authority.ca_file)
        session.mount("https://", ToSimulator(url))
        yield session


@pytest.fixture
def sf(org: SalesforceSimulator, session: requests.Session) -> Salesforce:
    answer = session.post(
        f"{org.instance_url}/services/oauth2/token",
        data={"grant_type": "client_credentials"},
        auth=(org.client_id, org.client_secret),
    )
    return Salesforce(
        session_id=answer.json()["access_token"],
        instance_url=org.instance_url,
        session=session,
        version=VERSION,
    )


def test_client_credentials_open_a_session_on_my_domain(
    org: SalesforceSimulator, session: requests.Session
) -> None:
    sf = Salesforce(
        consumer_key=org.client_id,
        consumer_secret=org.client_secret,
        domain="acme.my",
        session=session,
        version=VERSION,
    )
    assert sf.query("SELECT COUNT() FROM Contact")["totalSize"] == 0


def test_wrong_client_secret_is_an_authentication_failure(
    org: SalesforceSimulator, session: requests.Session
) -> None:
    with pytest.raises(SalesforceAuthenticationFailed) as caught:
        Salesforce(consumer_key=org.client_id, consumer_secret="no", domain="acme.my", session=session)
    assert caught.value.code == "invalid_client"


def test_jwt_bearer_opens_a_session_only_with_the_uploaded_key(
    org: SalesforceSimulator, session: requests.Session
) -> None:
    keys = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    org.public_key = keys[0].public_key().public_bytes(serialization.Encoding.PEM, form).decode()
    texts = [
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        for key in keys
    ]

    def log_in(key: str) -> Salesforce:
        return Salesforce(
            username=org.username,
            consumer_key=org.client_id,
            privatekey=key,
            session=session,
            version=VERSION,
        )

    assert log_in(texts[0]).query("SELECT Id FROM Contact")["done"]
    with pytest.raises(SalesforceAuthenticationFailed) as caught:
        log_in(texts[1])
    assert caught.value.code == "invalid_grant"


def test_soap_login_ends_with_version_64(org: SalesforceSimulator, session: requests.Session) -> None:
    who = {"username": org.username, "password": org.password, "security_token": org.security_token}
    sf = Salesforce(**who, session=session, version="64.0")
    assert sf.query("SELECT Id FROM Contact")["totalSize"] == 0
    with pytest.raises(SalesforceAuthenticationFailed) as caught:
        Salesforce(**who, session=session, version="65.0")
    assert caught.value.code == "UNSUPPORTED_API_VERSION"
    with pytest.raises(SalesforceAuthenticationFailed) as caught:
        Salesforce(**{**who, "security_token": "wrong"}, session=session, version="64.0")
    assert caught.value.code == "INVALID_LOGIN"
    org.knobs.soap_login = False
    with pytest.raises(SalesforceAuthenticationFailed) as caught:
        Salesforce(**who, session=session, version="64.0")
    assert caught.value.code == "INVALID_OPERATION"


def test_query_all_iter_follows_the_pages_that_the_server_chose(
    org: SalesforceSimulator, sf: Salesforce
) -> None:
    org.knobs.page_size = 4
    ids = org.create_many("Contact", ({"LastName": f"L{n}", "Email": f"n{n}@x.example"} for n in range(11)))
    found = list(sf.query_all_iter("SELECT Id, Email, LastName FROM Contact ORDER BY Id"))
    assert [record["Id"] for record in found] == ids
    assert list(found[3]) == ["attributes", "Id", "Email", "LastName"]
    template = "/services/data/v{version}"
    assert org.requests["GET", f"{template}/query"] == 1
    assert org.requests["GET", f"{template}/query/{{locator}}"] == 2


def test_query_more_continues_by_url(org: SalesforceSimulator, sf: Salesforce) -> None:
    org.knobs.page_size = 2
    ids = org.create_many("Contact", ({"LastName": f"L{n}"} for n in range(3)))
    first = sf.query("SELECT Id FROM Contact ORDER BY Id")
    assert (first["totalSize"], first["done"], len(first["records"])) == (3, False, 2)
    last = sf.query_more(first["nextRecordsUrl"], identifier_is_url=True)
    assert (last["done"], last["records"][0]["Id"]) == (True, ids[2])
    assert "nextRecordsUrl" not in last


def test_query_all_shows_deleted_rows_that_query_hides(org: SalesforceSimulator, sf: Salesforce) -> None:
    winner, loser = org.create_many("Contact", [{"LastName": "A"}, {"LastName": "B"}])
    org.merge("Contact", winner, loser)
    text = "SELECT Id, IsDeleted, MasterRecordId FROM Contact ORDER BY Id"
    assert [r["Id"] for r in sf.query(text)["records"]] == [winner]
    rows = sf.query(text, include_deleted=True)["records"]
    assert [(r["Id"], r["IsDeleted"], r["MasterRecordId"]) for r in rows] == [
        (winner, False, None),
        (loser, True, winner),
    ]


def test_collections_patch_answers_by_index(org: SalesforceSimulator, sf: Salesforce) -> None:
    org.define("Contact", "Wallet__c", "datetime")
    kept, gone, locked = org.create_many("Contact", [{"LastName": name} for name in "ABC"])
    org.delete("Contact", gone)
    org.knobs.locked = {locked}
    records = [
        {"attributes": {"type": "Contact"}, "id": key, "Wallet__c": "2026-11-01T10:00:00.250Z"}
        for key in (gone, kept, locked, "003nonsense")
    ]
    answer = sf.restful(
        "composite/sobjects",
        method="PATCH",
        json={"allOrNone": False, "records": records},
        headers={"Sforce-Auto-Assign": "FALSE"},
    )
    assert [item["success"] for item in answer] == [False, True, False, False]
    assert answer[1] == {"id": kept, "success": True, "errors": []}
    assert [item["errors"][0]["statusCode"] for item in answer if not item["success"]] == [
        "ENTITY_IS_DELETED",
        "UNABLE_TO_LOCK_ROW",
        "MALFORMED_ID",
    ]
    assert org.record("Contact", kept)["Wallet__c"] == "2026-11-01T10:00:00.000+0000"
    assert org.record("Contact", locked).get("Wallet__c") is None
    [write] = org.writes
    assert write.headers["sforce-auto-assign"] == "FALSE"
    assert write.records[1] == {"type": "Contact", "id": kept, "Wallet__c": "2026-11-01T10:00:00.250Z"}


def test_single_records_are_created_read_changed_and_deleted(
    org: SalesforceSimulator, sf: Salesforce
) -> None:
    made = sf.Contact.create({"LastName": "Doe", "FirstName": "Jo", "Birthdate": "2000-02-29"})
    key = made["id"]
    assert made == {"id": key, "success": True, "errors": []}
    assert sf.Contact.get(key[:15])["Name"] == "Jo Doe"
    assert sf.Contact.update(key, {"FirstName": None}) == 204
    record = sf.Contact.get(key)
    assert (record["Name"], record["LastModifiedById"]) == ("Doe", org.user_id)
    assert sf.Contact.delete(key) == 204
    with pytest.raises(SalesforceResourceNotFound) as caught:
        sf.Contact.get(key)
    assert caught.value.content[0]["errorCode"] == "NOT_FOUND"
    with pytest.raises(SalesforceResourceNotFound) as caught:
        sf.Contact.update(key, {"FirstName": "X"})
    assert caught.value.content[0]["errorCode"] == "ENTITY_IS_DELETED"


def test_describe_leaves_hidden_fields_out_and_marks_what_cannot_be_written(
    org: SalesforceSimulator, sf: Salesforce
) -> None:
    org.define("Contact", "Points__c", "double")
    org.define("Contact", "Rank__c", "double", calculated=True)
    org.knobs.hidden.add("Contact.Phone")
    org.knobs.read_only.add("Contact.Points__c")
    fields = {field["name"]: field for field in sf.Contact.describe()["fields"]}
    assert "Phone" not in fields
    assert [fields[name]["updateable"] for name in ("Email", "Points__c", "Rank__c", "SystemModstamp")] == [
        True,
        False,
        False,
        False,
    ]
    assert fields["Rank__c"]["calculated"]
    assert fields["Email"]["type"] == "email"
    assert {entry["name"] for entry in sf.describe()["sobjects"]} >= {"Contact", "Lead", "Account"}


def test_deleted_and_updated_list_ids_of_a_span(org: SalesforceSimulator, sf: Salesforce) -> None:
    now = datetime.now(UTC)
    alive, gone, purged = org.create_many(
        "Contact", ({"LastName": name} for name in "ABC"), at=now - timedelta(days=2)
    )
    for key in (gone, purged):
        org.delete("Contact", key, at=now - timedelta(days=1))
    org.purge("Contact", purged)
    assert sf.query("SELECT Id FROM Contact", include_deleted=True)["totalSize"] == 2
    span = (now - timedelta(days=3), now + timedelta(minutes=2))
    assert sf.Contact.updated(*span)["ids"] == [alive]
    assert {entry["id"] for entry in sf.Contact.deleted(*span)["deletedRecords"]} == {gone, purged}
    with pytest.raises(SalesforceMalformedRequest) as caught:
        sf.Contact.deleted(now - timedelta(days=16), now)
    assert caught.value.content[0]["errorCode"] == "INVALID_REPLICATION_DATE"
    with pytest.raises(SalesforceMalformedRequest):
        sf.Contact.updated(now - timedelta(seconds=60), now)


def test_unknown_and_hidden_fields_are_refused_alike(org: SalesforceSimulator, sf: Salesforce) -> None:
    org.knobs.hidden.add("Contact.Phone")
    for name in ("Phone", "Nothing__c"):
        with pytest.raises(SalesforceMalformedRequest) as caught:
            sf.query(f"SELECT Id, {name} FROM Contact")
        [error] = caught.value.content
        assert error["errorCode"] == "INVALID_FIELD"
        assert f"ERROR at Row:1:Column:12\nNo such column '{name}' on entity 'Contact'." in error["message"]


def test_an_expired_session_is_told_from_a_used_up_day(org: SalesforceSimulator, sf: Salesforce) -> None:
    org.knobs.daily_requests = 2
    sf.query("SELECT Id FROM Contact")
    assert sf.api_usage["api-usage"].used == 1
    assert sf.limits()["DailyApiRequests"] == {"Max": 2, "Remaining": 0}
    with pytest.raises(SalesforceRefusedRequest) as caught:
        sf.query("SELECT Id FROM Contact")
    assert caught.value.content[0]["message"] == "TotalRequests Limit exceeded."
    org.expire_tokens()
    with pytest.raises(SalesforceExpiredSession) as expired:
        sf.query("SELECT Id FROM Contact")
    assert expired.value.content[0]["errorCode"] == "INVALID_SESSION_ID"


def test_a_write_whose_answer_is_lost_has_still_happened(org: SalesforceSimulator, sf: Salesforce) -> None:
    key = org.create("Contact", {"LastName": "Doe"})
    org.faults.add(Fault(Kind.RESET_AFTER, method="PATCH", path="composite/sobjects"))
    record = {"attributes": {"type": "Contact"}, "id": key, "LastName": "Roe"}
    with pytest.raises(requests.exceptions.ConnectionError):
        sf.restful("composite/sobjects", method="PATCH", json={"records": [record]})
    assert org.record("Contact", key)["LastName"] == "Roe"


def test_bulk_queries_come_in_pages_of_csv(org: SalesforceSimulator, sf: Salesforce) -> None:
    org.knobs.job_seconds = 0.0
    everyone = org.create_many("Contact", [{"LastName": f"a,\n{n}"} for n in range(5)])
    pages = list(sf.bulk2.Contact.query("SELECT Id, LastName FROM Contact", max_records=2, wait=0))
    read = [list(csv.DictReader(io.StringIO(page, newline=""))) for page in pages]
    assert [len(page) for page in read] == [2, 2, 1]
    assert {row["Id"]: row["LastName"] for page in read for row in page} == {
        one: f"a,\n{n}" for n, one in enumerate(everyone)
    }


def test_bulk_jobs_that_fail_or_are_aborted_are_told(org: SalesforceSimulator, sf: Salesforce) -> None:
    org.knobs.job_failure = "too much"
    org.knobs.job_seconds = 0.0
    with pytest.raises(SalesforceOperationError, match="too much"):
        list(sf.bulk2.Contact.query("SELECT Id FROM Contact", wait=0))
    org.knobs.job_seconds = 60.0
    client = sf.bulk2.Contact._client
    job = client.create_job(Operation.query, "SELECT Id FROM Contact")["id"]
    assert client.abort_job(job, is_query=True)["state"] == "Aborted"
