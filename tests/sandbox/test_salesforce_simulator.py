"""What the Salesforce simulator refuses and what its commits look like, over HTTPS without its client."""

from __future__ import annotations

import base64
import json
import operator
import random
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.types import ASGIApp, Receive, Scope, Send

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.salesforce import SalesforceSimulator
from syncsvc.sandbox.salesforce_refusals import ApiError
from syncsvc.sandbox.salesforce_tables import long_id
from syncsvc.sandbox.server import Authority, Server
from syncsvc.sandbox.soql import parse

START = datetime(2026, 11, 20, 12, 0, 0, 700_000, tzinfo=UTC)
DATA = "/services/data/v67.0"
COLLECTION = f"{DATA}/composite/sobjects"


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
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def org(clock: ManualClock) -> SalesforceSimulator:
    org = SalesforceSimulator(clock=clock, seed=3)
    org.define("Contact", "Points__c", "double")
    org.define("Contact", "Wallet__c", "datetime")
    org.define("Contact", "Rank__c", "double", calculated=True)
    return org


@pytest.fixture
def http(org: SalesforceSimulator, authority: Authority, switch: Switch, url: str) -> Iterator[httpx.Client]:
    switch.app = org.app
    trust = ssl.create_default_context(cafile=authority.ca_file)
    with httpx.Client(base_url=url, verify=trust, trust_env=False) as client:
        yield client


@pytest.fixture
def rest(org: SalesforceSimulator, http: httpx.Client) -> httpx.Client:
    http.headers["Authorization"] = f"Bearer {log_in(org, http).json()['access_token']}"
    return http


def log_in(org: SalesforceSimulator, http: httpx.Client, **form: str) -> httpx.Response:
    known = {
        "grant_type": "client_credentials",
        "client_id": org.client_id,
        "client_secret": org.client_secret,
    }
    return http.post("/services/oauth2/token", data={**known, **form})


def soql(rest: httpx.Client, text: str, *, resource: str = "query") -> httpx.Response:
    return rest.get(f"{DATA}/{resource}", params={"q": text})


def ids(answer: httpx.Response) -> list[str]:
    return [record["Id"] for record in answer.json()["records"]]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()[0]["errorCode"]


def patch(rest: httpx.Client, records: list[dict[str, Any]], **more: Any) -> list[dict[str, Any]]:
    items = [{"attributes": {"type": "Contact"}, **record} for record in records]
    answer = rest.patch(COLLECTION, json={"records": items, **more})
    assert answer.status_code == 200, answer.text
    return list(answer.json())


def codes(results: list[dict[str, Any]]) -> list[str]:
    return [item["errors"][0]["statusCode"] if item["errors"] else "" for item in results]


# -- tokens


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": "guess"}, "unsupported_grant_type"),
        ({"client_id": "who"}, "invalid_client_id"),
        ({"client_secret": "who"}, "invalid_client"),
        (
            {"grant_type": "password", "username": "sync@sandbox.example", "password": "pwtok"},
            "invalid_grant",
        ),
    ],
)
def test_a_bad_grant_is_refused(
    org: SalesforceSimulator, http: httpx.Client, form: dict[str, str], error: str
) -> None:
    answer = log_in(org, http, **form)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


def test_password_grant_needs_the_org_to_allow_it(org: SalesforceSimulator, http: httpx.Client) -> None:
    org.knobs.password_grant = True
    who = {"grant_type": "password", "username": org.username}
    assert log_in(org, http, **who, password="pwtok").status_code == 200
    assert log_in(org, http, **who, password="pw").json()["error"] == "invalid_grant"


def test_client_credentials_are_not_for_the_login_host(org: SalesforceSimulator, http: httpx.Client) -> None:
    http.headers["Host"] = "login.salesforce.com"
    body = log_in(org, http).json()
    assert body == {"error": "invalid_grant", "error_description": "request not supported on this domain"}


def test_a_token_answer_names_user_and_instance(org: SalesforceSimulator, http: httpx.Client) -> None:
    basic = base64.b64encode(f"{org.client_id}:{org.client_secret}".encode()).decode()
    answer = http.post(
        "/services/oauth2/token",
        data={"grant_type": "client_credentials"},
        headers={"Authorization": f"Basic {basic}"},
    ).json()
    assert set(answer) == {
        "access_token", "signature", "scope", "instance_url", "id", "token_type", "issued_at"
    }  # fmt: skip
    assert answer["instance_url"] == str(http.base_url).rstrip("/")
    assert answer["id"].endswith(f"/id/{org.org_id}/{org.user_id}")
    assert answer["issued_at"] == str(int(START.timestamp() * 1000))


def test_a_jwt_may_not_expire_too_late_nor_be_for_another_audience(
    org: SalesforceSimulator, http: httpx.Client
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    org.public_key = key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()

    def ask(**changes: Any) -> tuple[int, str]:
        good = {"iss": org.client_id, "sub": org.username, "aud": "https://login.salesforce.com"}
        claims = {**good, "exp": int(START.timestamp()) + 180, **changes}
        answer = http.post(
            "/services/oauth2/token",
            data={
                "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
                "assertion": jwt.encode(claims, key, algorithm="RS256"),
            },
        )
        return answer.status_code, answer.json().get("error_description", "")

    soon = int(START.timestamp())
    assert ask() == (200, "")
    assert ask(exp=str(soon + 300)) == (200, "")
    assert ask(exp=soon + 302) == (400, "invalid assertion")
    assert ask(exp=soon - 1) == (400, "invalid assertion")
    assert ask(aud="https://elsewhere.example") == (400, "invalid assertion")
    assert ask(sub="other@sandbox.example") == (400, "user hasn't approved this consumer")
    assert ask(iss="other") == (400, "client identifier invalid")
    org.public_key = ""
    assert ask() == (400, "invalid assertion")


def test_too_many_logins_lock_out_for_the_hour(
    org: SalesforceSimulator, http: httpx.Client, clock: ManualClock
) -> None:
    org.knobs.login_limit = 2
    assert [log_in(org, http).status_code for _ in range(3)] == [200, 200, 400]
    clock.advance(timedelta(hours=1))
    assert log_in(org, http).status_code == 200


@pytest.mark.parametrize("version", ["65.0", "68.0", "30.0", "x"])
def test_soap_login_is_refused_outside_its_versions(http: httpx.Client, version: str) -> None:
    answer = http.post(f"/services/Soap/u/{version}", content=b"<x/>")
    assert answer.status_code == 500
    assert "<sf:exceptionCode>UNSUPPORTED_API_VERSION</sf:exceptionCode>" in answer.text


def test_sessions_end_by_idleness_by_use_and_by_force(
    org: SalesforceSimulator, rest: httpx.Client, clock: ManualClock
) -> None:
    def ask() -> int:
        return rest.get(f"{DATA}/limits").status_code

    def anew() -> None:
        rest.headers["Authorization"] = f"Bearer {log_in(org, rest).json()['access_token']}"

    clock.advance(timedelta(seconds=7200))
    assert ask() == 200
    clock.advance(timedelta(seconds=7201))
    assert ask() == 401
    org.knobs.token_calls = 2
    anew()
    assert [ask(), ask(), ask()] == [200, 200, 401]
    anew()
    org.expire_tokens()
    assert ask() == 401
    anew()
    assert ask() == 200
    org.revoke("This session is not valid for use with the REST API")
    anew()
    answer = rest.get(f"{DATA}/limits")
    assert code(answer) == (401, "INVALID_SESSION_ID")
    assert answer.json()[0]["message"] == "This session is not valid for use with the REST API"


# -- limits and heads


def test_usage_is_told_on_rest_answers_alone(org: SalesforceSimulator, rest: httpx.Client) -> None:
    org.knobs.app_usage = "per-app-api-usage=17/250(appName=x)"
    told = [soql(rest, "SELECT Id FROM Contact").headers["Sforce-Limit-Info"] for _ in range(2)]
    assert told[1] == "api-usage=2/100000; per-app-api-usage=17/250(appName=x)"
    assert "Sforce-Limit-Info" not in rest.get("/services/data").headers
    assert "Sforce-Limit-Info" not in log_in(org, rest).headers


def test_daily_and_concurrent_limits_share_a_code_and_differ_in_words(
    org: SalesforceSimulator, rest: httpx.Client
) -> None:
    org.knobs.running_elsewhere = 25
    answer = soql(rest, "SELECT Id FROM Contact")
    assert code(answer) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert answer.json()[0]["message"].startswith("ConcurrentRequests")
    org.knobs.running_elsewhere, org.knobs.daily_requests = 0, 1
    answer = soql(rest, "SELECT Id FROM Contact")
    assert code(answer) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert answer.json()[0]["message"] == "TotalRequests Limit exceeded."


def test_heads_beyond_sixteen_kibibytes_are_refused_as_html(rest: httpx.Client) -> None:
    long = soql(rest, f"SELECT Id FROM Contact WHERE LastName = '{'x' * 16_400}'")
    assert (long.status_code, long.headers["content-type"].split(";")[0]) == (414, "text/html")
    wide = rest.get(f"{DATA}/query", params={"q": "SELECT Id FROM Contact"}, headers={"X-Wide": "x" * 16_300})
    assert wide.status_code == 431
    assert soql(rest, f"SELECT Id FROM Contact WHERE LastName = '{'x' * 15_000}'").status_code == 200


def test_versions_are_known_retired_or_missing(rest: httpx.Client) -> None:
    listed = rest.get("/services/data").json()
    assert listed[-1] == {"label": "Winter '27", "url": "/services/data/v68.0", "version": "68.0"}
    assert {"label": "Summer '26", "url": DATA, "version": "67.0"} in listed
    assert code(rest.get("/services/data/v30.0/limits")) == (410, "UNSUPPORTED_API_VERSION")
    assert code(rest.get("/services/data/v99.0/limits")) == (404, "NOT_FOUND")
    assert rest.get(f"{DATA}/limits/").status_code == 200
    assert code(rest.put(COLLECTION)) == (405, "METHOD_NOT_ALLOWED")
    assert code(rest.get(f"{DATA}/sobjects/Nothing__c/describe")) == (404, "NOT_FOUND")


def test_answers_are_compressed_where_asked_for(org: SalesforceSimulator, rest: httpx.Client) -> None:
    org.create_many("Contact", ({"LastName": "L"} for _ in range(50)))
    assert soql(rest, "SELECT Id FROM Contact").headers["content-encoding"] == "gzip"
    rest.headers["Accept-Encoding"] = "identity"
    assert "content-encoding" not in soql(rest, "SELECT Id FROM Contact").headers


# -- queries


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("SELECT Id FROM Contact WHERE SystemModstamp > '2026-01-01T00:00:00Z'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE SystemModstamp > 2026-01-01T00:00:00", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE SystemModstamp > 2026-01-01T00:00:00 00:00", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE SystemModstamp > 2026-01-01", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE SystemModstamp > 2026-13-01T00:00:00Z", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE Birthdate = 2026-01-01T00:00:00Z", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Points__c = '5'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Email = 5", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE IsDeleted = 'false'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Description = 'x'", "INVALID_FIELD"),
        ("SELECT Id FROM Contact WHERE Id > 'nonsense'", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM Contact WHERE Id > ''", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM Contact WHERE Id LIKE '003%'", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM Contact WHERE IsDeleted > FALSE", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM Contact WHERE Name = 'a' AND Email = 'b' OR Phone = 'c'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE Name = 'a' AND NOT Email = 'b'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE Name IN ()", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE Name = 'O'Brien'", "MALFORMED_QUERY"),
        (r"SELECT Id FROM Contact WHERE Name = 'a\x'", "MALFORMED_QUERY"),
        ('SELECT Id FROM Contact WHERE Name = "a"', "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact WHERE", "MALFORMED_QUERY"),
        ("SELECT * FROM Contact", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact LIMIT 1.5", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact LIMIT 5 WHERE Name = 'a'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Contact ORDER BY Description", "MALFORMED_QUERY"),
        ("SELECT Id, id FROM Contact", "INVALID_FIELD"),
        ("SELECT Id, Company FROM Contact", "INVALID_FIELD"),
        ("SELECT Boss.Name FROM Contact", "INVALID_FIELD"),
        ("SELECT Id FROM Nothing__c", "INVALID_TYPE"),
        ("", "MALFORMED_QUERY"),
    ],
)  # fmt: skip
def test_a_query_outside_the_grammar_is_refused(rest: httpx.Client, text: str, error: str) -> None:
    assert code(soql(rest, text)) == (400, error)


def test_literals_compare_as_salesforce_compares_them(org: SalesforceSimulator) -> None:
    owner = org.create("Account", {"Name": "Acme"})
    first = org.create(
        "Contact",
        {"LastName": "O'Brien", "Email": "Ann@X.example", "Points__c": 5, "AccountId": owner},
    )
    second = org.create("Contact", {"LastName": "50%_off"})

    def found(where: str) -> list[str]:
        query = parse(f"SELECT Id FROM Contact WHERE {where} ORDER BY Id", org)
        return [row["Id"] for row in query.run(deleted=False)]

    assert found(r"LastName = 'o\'brien'") == [first]
    assert found("Email = 'ann@x.EXAMPLE'") == [first]
    assert found("Email = null") == found("Email = ''") == [second]
    assert found("Email != 'nobody'") == [first, second]
    assert found("Points__c >= 5.0") == [first]
    assert found("Points__c < 100") == [first]
    assert found("NOT Points__c = 5") == [second]
    assert found(r"LastName LIKE '50\%\_%'") == [second]
    assert found("LastName LIKE '_0%'") == [second]
    assert found(f"Id IN ('{first[:15]}', '{second}')") == [first, second]
    assert found(f"Id NOT IN ('{first}')") == [second]
    assert found("Account.Name = 'ACME'") == [first]
    assert found("SystemModstamp = 2026-11-20T13:00:00.999+01:00") == [first, second]
    assert found("SystemModstamp > 2026-11-20T12:00:00.000Z") == []
    assert found("HasOptedOutOfEmail = FALSE AND (Points__c = 5 OR Points__c = null)") == [first, second]


def test_records_are_shown_as_json_shows_them(org: SalesforceSimulator, rest: httpx.Client) -> None:
    account = org.create("Account", {"Name": "Acme"})
    key = org.create("Contact", {"LastName": "Doe", "Points__c": 5, "AccountId": account})
    answer = soql(
        rest, "select points__C, Id, Account.Name, Owner.Username, Email, SystemModstamp from contact"
    )
    [record] = answer.json()["records"]
    assert list(record) == ["attributes", "Points__c", "Id", "Account", "Owner", "Email", "SystemModstamp"]
    assert record["attributes"] == {"type": "Contact", "url": f"{DATA}/sobjects/Contact/{key}"}
    assert '"Points__c":5.0' in answer.text
    assert (record["Account"]["Name"], record["Owner"]["Username"]) == ("Acme", "human@sandbox.example")
    assert (record["Email"], record["SystemModstamp"]) == (None, "2026-11-20T12:00:00.000+0000")
    assert soql(rest, "SELECT COUNT() FROM Contact").json() == {"totalSize": 1, "done": True, "records": []}


def test_an_error_points_into_the_query(rest: httpx.Client) -> None:
    told = soql(rest, "SELECT Id, X__c FROM Lead").json()[0]["message"]
    assert told.startswith(
        "\nSELECT Id, X__c FROM Lead\n           ^\nERROR at Row:1:Column:12\nNo such column 'X__c'"
    )
    told = soql(rest, "SELECT Id FROM XYZZY").json()[0]["message"]
    assert "\nsObject type 'XYZZY' is not supported. If you are attempting to use a custom object" in told


def test_ties_come_in_no_order_to_rely_on(org: SalesforceSimulator, rest: httpx.Client) -> None:
    made = org.create_many("Contact", ({"LastName": "L"} for _ in range(50)))
    loose = ids(soql(rest, "SELECT Id FROM Contact ORDER BY SystemModstamp"))
    assert loose != made
    assert sorted(loose) == made
    assert ids(soql(rest, "SELECT Id FROM Contact ORDER BY SystemModstamp, Id DESC")) == made[::-1]


def test_indexes_answer_as_a_full_scan_does() -> None:
    """Random conditions over ids and stamps, against the same conditions in Python on every row."""
    chance = random.Random(11)
    org = SalesforceSimulator(clock=ManualClock(START + timedelta(minutes=1)))
    made: list[str] = []
    for second in range(12):
        at = START + timedelta(seconds=second)
        made += org.create_many("Contact", ({"LastName": f"L{n % 3}"} for n in range(10)), at=at)
    for key in chance.sample(made, 40):
        org.update("Contact", key, {}, at=START + timedelta(seconds=chance.randrange(12)))
    for key in chance.sample(made, 10):
        org.delete("Contact", key, at=START + timedelta(seconds=chance.randrange(12)))
    rows = [org.record("Contact", key) for key in made]
    signs: dict[str, Callable[[str, str], bool]] = {
        "=": operator.eq,
        "!=": operator.ne,
        "<": operator.lt,
        "<=": operator.le,
        ">": operator.gt,
        ">=": operator.ge,
    }

    def condition(depth: int) -> tuple[str, Callable[[dict[str, Any]], bool]]:
        if depth and chance.random() < 0.7:
            parts = [condition(depth - 1) for _ in range(chance.choice((2, 2, 3)))]
            word, every = chance.choice((("AND", all), ("OR", any)))
            text = f"({f' {word} '.join(text for text, _ in parts)})"
            return text, lambda row: every(test(row) for _, test in parts)
        sign = chance.choice(list(signs))
        field = chance.choice(("Id", "SystemModstamp", "SystemModstamp"))
        wanted = chance.choice(rows)[field]
        literal = f"'{wanted}'" if field == "Id" else wanted.replace("+0000", "Z")
        return f"{field} {sign} {literal}", lambda row: signs[sign](row[field], wanted)

    for _ in range(400):
        text, test = condition(3)
        fields, down = (
            chance.choice((["Id"], ["SystemModstamp", "Id"], ["LastName", "Id"])),
            chance.random() < 0.3,
        )
        order = ", ".join(f"{field} DESC" if down else field for field in fields)
        limit = chance.choice((1, 7, 1000))
        deleted = chance.random() < 0.5
        query = parse(f"SELECT Id FROM Contact WHERE {text} ORDER BY {order} LIMIT {limit}", org)
        expected = [row for row in rows if test(row) and (deleted or not row["IsDeleted"])]
        expected.sort(key=lambda row: [row[field] for field in fields], reverse=down)
        assert [row["Id"] for row in query.run(deleted=deleted)] == [row["Id"] for row in expected[:limit]], (
            text
        )


def test_keyset_pages_over_equal_stamps_miss_nothing(org: SalesforceSimulator) -> None:
    made = org.create_many("Contact", ({"LastName": "L"} for _ in range(5_000)))
    seen: list[str] = []
    where = "SystemModstamp >= 2026-11-20T12:00:00Z"
    while True:
        query = parse(f"SELECT Id FROM Contact WHERE {where} ORDER BY SystemModstamp, Id LIMIT 700", org)
        page = [row["Id"] for row in query.run(deleted=True)]
        seen += page
        if len(page) < 700:
            break
        tie = f"SystemModstamp = 2026-11-20T12:00:00Z AND Id > '{page[-1]}'"
        where = f"(SystemModstamp > 2026-11-20T12:00:00Z OR ({tie}))"
    assert seen == made


def test_a_locator_dies_of_age_and_of_newer_ones(
    org: SalesforceSimulator, rest: httpx.Client, clock: ManualClock
) -> None:
    org.knobs.page_size = 2
    org.create_many("Contact", ({"LastName": "L"} for _ in range(5)))

    def begin() -> str:
        return str(soql(rest, "SELECT Id FROM Contact").json()["nextRecordsUrl"])

    first = begin()
    assert re.fullmatch(rf"{DATA}/query/0r8\w{{15}}-2", first)
    for _ in range(9):
        begin()
    assert rest.get(first).status_code == rest.get(first).status_code == 200
    for _ in range(10):
        last = begin()
    assert code(rest.get(first)) == (400, "INVALID_QUERY_LOCATOR")
    assert code(rest.get(last.replace("-2", "-99"))) == (400, "INVALID_QUERY_LOCATOR")
    clock.advance(timedelta(hours=47))
    rest.headers["Authorization"] = f"Bearer {log_in(org, rest).json()['access_token']}"
    assert rest.get(last).status_code == 200
    clock.advance(timedelta(hours=1, seconds=1))
    assert code(rest.get(last)) == (400, "INVALID_QUERY_LOCATOR")


@pytest.mark.parametrize(("live", "shown"), [(True, "changed"), (False, "L3")])
def test_later_pages_show_rows_as_the_knob_says(
    org: SalesforceSimulator, rest: httpx.Client, *, live: bool, shown: str
) -> None:
    org.knobs.page_size, org.knobs.live_pages = 3, live
    made = org.create_many("Contact", ({"LastName": f"L{n}"} for n in range(5)))
    first = soql(rest, "SELECT Id, LastName FROM Contact ORDER BY Id").json()
    org.update("Contact", made[3], {"LastName": "changed"})
    late = org.create("Contact", {"LastName": "late"})
    page = rest.get(first["nextRecordsUrl"]).json()
    assert [record["LastName"] for record in page["records"]] == [shown, "L4"]
    assert late not in str(page)


def test_batch_size_is_honoured_down_to_two_hundred(org: SalesforceSimulator, rest: httpx.Client) -> None:
    org.create_many("Contact", ({"LastName": "L"} for _ in range(2_001)))

    def size(options: str) -> int:
        headers = {"Sforce-Query-Options": options} if options else {}
        answer = rest.get(f"{DATA}/query", params={"q": "SELECT Id FROM Contact"}, headers=headers)
        return len(answer.json()["records"])

    assert [size(text) for text in ("", "batchSize=500", "batchSize=5")] == [2000, 500, 200]
    org.knobs.page_size = 50
    assert size("batchSize=500") == 50


# -- commits


def test_a_late_commit_appears_with_an_old_stamp(
    org: SalesforceSimulator, rest: httpx.Client, clock: ManualClock
) -> None:
    org.knobs.commit_delay = 90
    late = org.create("Contact", {"LastName": "late"})
    org.knobs.commit_delay = 0
    clock.advance(timedelta(seconds=30))
    prompt = org.create("Contact", {"LastName": "prompt"})
    text = "SELECT Id, SystemModstamp FROM Contact ORDER BY SystemModstamp, Id"
    assert ids(soql(rest, text)) == [prompt]
    assert rest.get(f"{DATA}/sobjects/Contact/{late}").status_code == 404
    assert org.record("Contact", late)["LastName"] == "late"
    clock.advance(timedelta(seconds=60))
    answer = soql(rest, text)
    assert ids(answer) == [late, prompt]
    assert answer.json()["records"][0]["SystemModstamp"] == "2026-11-20T12:00:00.000+0000"


def test_an_uncommitted_update_locks_its_row_and_shows_the_old_values(
    org: SalesforceSimulator, rest: httpx.Client, clock: ManualClock
) -> None:
    key = org.create("Contact", {"LastName": "old"})
    org.update("Contact", key, {"LastName": "new"}, visible_after=60)
    org.update("Contact", key, {"FirstName": "Ann"}, visible_after=0)
    assert rest.get(f"{DATA}/sobjects/Contact/{key}").json()["Name"] == "old"
    assert codes(patch(rest, [{"id": key, "Points__c": 1}])) == ["UNABLE_TO_LOCK_ROW"]
    clock.advance(timedelta(seconds=60))
    assert rest.get(f"{DATA}/sobjects/Contact/{key}").json()["Name"] == "Ann new"
    assert codes(patch(rest, [{"id": key, "Points__c": 1}])) == [""]
    assert org.record("Contact", key)["Points__c"] == 1.0


def test_latest_date_covered_waits_for_open_transactions(
    org: SalesforceSimulator, rest: httpx.Client, clock: ManualClock
) -> None:
    org.create("Contact", {"LastName": "late"}, visible_after=600)
    clock.advance(timedelta(minutes=5))
    span = {"start": "2026-11-20T11:00:00Z", "end": "2026-11-20T12:30:45Z"}
    answer = rest.get(f"{DATA}/sobjects/Contact/updated", params=span).json()
    assert answer == {"ids": [], "latestDateCovered": "2026-11-20T12:00:00.000+0000"}
    clock.advance(timedelta(minutes=5))
    answer = rest.get(f"{DATA}/sobjects/Contact/updated", params=span).json()
    assert (len(answer["ids"]), answer["latestDateCovered"]) == (1, "2026-11-20T12:10:00.000+0000")


def test_stamps_tell_a_human_from_the_system_and_from_the_api(
    org: SalesforceSimulator, rest: httpx.Client, clock: ManualClock
) -> None:
    key = org.create("Contact", {"LastName": "Doe"})
    clock.advance(timedelta(seconds=10))
    org.system_bump("Contact", key)
    row = org.record("Contact", key)
    assert row["SystemModstamp"] == "2026-11-20T12:00:10.000+0000"
    assert (row["LastModifiedDate"], row["LastModifiedById"]) == (
        "2026-11-20T12:00:00.000+0000",
        org.human_id,
    )
    org.recalculate("Contact", key, {"Rank__c": 3})
    assert org.record("Contact", key) == {**row, "Rank__c": 3.0}
    clock.advance(timedelta(seconds=10))
    patch(rest, [{"id": key, "LastName": "Doe"}])
    row = org.record("Contact", key)
    assert row["SystemModstamp"] == row["LastModifiedDate"] == "2026-11-20T12:00:20.000+0000"
    assert row["LastModifiedById"] == org.user_id


def test_merge_leaves_a_tombstone_that_names_the_winner(
    org: SalesforceSimulator, rest: httpx.Client, clock: ManualClock
) -> None:
    winner, loser = org.create_many("Contact", [{"LastName": "A"}, {"LastName": "B"}])
    clock.advance(timedelta(seconds=5))
    org.merge("Contact", winner, loser)
    since = "SystemModstamp > 2026-11-20T12:00:00Z"
    text = f"SELECT Id, IsDeleted, MasterRecordId FROM Contact WHERE {since} ORDER BY Id"
    rows = soql(rest, text, resource="queryAll").json()["records"]
    assert [(row["Id"], row["IsDeleted"], row["MasterRecordId"]) for row in rows] == [
        (winner, False, None),
        (loser, True, winner),
    ]
    assert [row["Id"] for row in org.records("Contact")] == [winner]
    assert codes(patch(rest, [{"id": loser, "Points__c": 1}])) == ["ENTITY_IS_DELETED"]


def test_a_purged_record_is_known_to_deleted_alone(
    org: SalesforceSimulator, rest: httpx.Client, clock: ManualClock
) -> None:
    key, back = org.create_many("Contact", [{"LastName": "A"}, {"LastName": "B"}])
    with pytest.raises(ValueError, match="recycle bin"):
        org.purge("Contact", key)
    org.delete("Contact", key)
    org.delete("Contact", back)
    org.undelete("Contact", back)
    clock.advance(timedelta(hours=1))
    org.purge("Contact", key)
    assert ids(soql(rest, "SELECT Id FROM Contact", resource="queryAll")) == [back]
    span = {"start": "2026-11-20T11:00:00+00:00", "end": "2026-11-20T13:00:00+00:00"}
    answer = rest.get(f"{DATA}/sobjects/Contact/deleted", params=span).json()
    assert answer["deletedRecords"] == [{"id": key, "deletedDate": "2026-11-20T12:00:00.000+0000"}]
    assert answer["latestDateCovered"] == "2026-11-20T13:00:00.000+0000"
    clock.advance(timedelta(days=16))
    rest.headers["Authorization"] = f"Bearer {log_in(org, rest).json()['access_token']}"
    late = rest.get(f"{DATA}/sobjects/Contact/deleted", params=span)
    assert code(late) == (400, "INVALID_REPLICATION_DATE")
    assert rest.get(f"{DATA}/sobjects/Contact/updated", params=span).status_code == 200


def test_deletions_are_told_as_far_as_their_log_goes(
    org: SalesforceSimulator, rest: httpx.Client, clock: ManualClock
) -> None:
    old, new, back = org.create_many("Contact", [{"LastName": name} for name in "ABC"])
    org.delete("Contact", old)
    org.purge("Contact", old)
    clock.advance(timedelta(minutes=10))
    org.trim_deletions("Contact")
    clock.advance(timedelta(minutes=10))
    org.delete("Contact", back)
    org.undelete("Contact", back)
    org.delete("Contact", new)
    clock.advance(timedelta(minutes=10))
    span = {"start": "2026-11-20T11:00:00Z", "end": "2026-11-20T13:00:00Z"}

    def asked() -> httpx.Response:
        return rest.get(f"{DATA}/sobjects/Contact/deleted", params=span)

    assert [entry["id"] for entry in asked().json()["deletedRecords"]] == [new]
    assert asked().json()["earliestDateAvailable"] == "2026-11-20T12:10:00.000+0000"
    org.knobs.deletions_name_restored = True
    assert [entry["id"] for entry in asked().json()["deletedRecords"]] == [new, back]
    org.knobs.deletions_limit = 1
    assert code(asked()) == (400, "EXCEEDED_ID_LIMIT")
    org.knobs.refuses_trimmed = True
    assert code(asked()) == (400, "INVALID_REPLICATION_DATE")


def test_a_converted_lead_lives_on_as_a_contact_and_cannot_be_written(
    org: SalesforceSimulator, rest: httpx.Client
) -> None:
    lead = org.create("Lead", {"LastName": "Doe", "Company": "Acme", "Email": "doe@x.example"})
    contact = org.convert_lead(lead)
    assert org.record("Contact", contact)["Email"] == "doe@x.example"
    row = soql(rest, "SELECT IsConverted, ConvertedContactId FROM Lead").json()["records"][0]
    assert (row["IsConverted"], row["ConvertedContactId"]) == (True, contact)
    [result] = patch(rest, [{"attributes": {"type": "Lead"}, "id": lead, "Phone": "1"}])
    assert codes([result]) == ["CANNOT_UPDATE_CONVERTED_LEAD"]


# -- writes


def test_more_than_two_hundred_records_or_ten_chunks_are_refused_whole(
    org: SalesforceSimulator, rest: httpx.Client
) -> None:
    made = org.create_many("Contact", ({"LastName": "L"} for _ in range(201)))
    lead = org.create("Lead", {"LastName": "L", "Company": "C"})
    contacts = [{"attributes": {"type": "Contact"}, "id": key, "Points__c": 1} for key in made]
    leads = [{"attributes": {"type": "Lead"}, "id": lead, "Phone": "1"}] * 6
    mixed = [record for pair in zip(contacts, leads, strict=False) for record in pair]
    assert code(rest.patch(COLLECTION, json={"records": contacts})) == (400, "EXCEEDED_ID_LIMIT")
    assert code(rest.patch(COLLECTION, json={"records": mixed})) == (400, "LIMIT_EXCEEDED")
    assert org.writes == []
    assert all(item["success"] for item in patch(rest, contacts[:200]))
    assert len(org.writes[0].records) == 200
    assert len(rest.patch(COLLECTION, json={"records": mixed[:10]}).json()) == 10


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"Wallet__c": "yesterday"}, "JSON_PARSER_ERROR"),
        ({"Wallet__c": "2026-11-20T10:00:00"}, "JSON_PARSER_ERROR"),
        ({"Wallet__c": "2026-11-20"}, "JSON_PARSER_ERROR"),
        ({"Points__c": "5"}, "JSON_PARSER_ERROR"),
        ({"Points__c": True}, "JSON_PARSER_ERROR"),
        ({"LastName": 5}, "JSON_PARSER_ERROR"),
        ({"HasOptedOutOfEmail": 1}, "JSON_PARSER_ERROR"),
        ({"Birthdate": "2026-02-30"}, "JSON_PARSER_ERROR"),
        ({"Nothing__c": 1}, "INVALID_FIELD"),
        ({"attributes": {"type": "Nothing__c"}}, "INVALID_TYPE"),
        ({"attributes": None}, "INVALID_TYPE"),
    ],
)
def test_an_unreadable_record_fails_the_whole_call(
    org: SalesforceSimulator, rest: httpx.Client, record: dict[str, Any], error: str
) -> None:
    good, bad = org.create_many("Contact", [{"LastName": "A"}, {"LastName": "B"}])
    kind = {"attributes": {"type": "Contact"}}
    records = [{**kind, "id": good, "Points__c": 1}, {**kind, "id": bad, **record}]
    assert code(rest.patch(COLLECTION, json={"records": records})) == (400, error)
    assert (org.record("Contact", good).get("Points__c"), org.writes) == (None, [])


def test_a_bad_record_fails_alone_and_in_its_place(org: SalesforceSimulator, rest: httpx.Client) -> None:
    made = org.create_many("Contact", ({"LastName": "L"} for _ in range(8)))
    org.knobs.read_only.add("Contact.Phone")
    org.knobs.invalid[made[1]] = ("first rule", "second rule")
    org.knobs.unknown_field_fails_call = False
    results = patch(
        rest,
        [
            {"id": made[0], "Points__c": 1},
            {"id": made[1], "Points__c": 1},
            {"id": made[2], "Email": "nonsense"},
            {"id": made[3], "FirstName": "x" * 41},
            {"id": made[4], "Phone": "1", "Rank__c": 1, "SystemModstamp": "2026-01-01T00:00:00Z"},
            {"id": made[5], "LastName": None},
            {"id": made[6], "Nothing__c": 1},
            {"id": made[0][:15], "Points__c": 2},
            {"Points__c": 1},
            {"id": "003000000000000", "Points__c": 1},
            {"id": made[7], "Points__c": 7},
        ],
    )
    assert codes(results) == [
        "",
        "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        "INVALID_EMAIL_ADDRESS",
        "STRING_TOO_LONG",
        "INVALID_FIELD_FOR_INSERT_UPDATE",
        "REQUIRED_FIELD_MISSING",
        "INVALID_FIELD",
        "DUPLICATE_VALUE",
        "MISSING_ARGUMENT",
        "INVALID_CROSS_REFERENCE_KEY",
        "",
    ]
    assert [error["message"] for error in results[1]["errors"]] == ["first rule", "second rule"]
    assert results[4]["errors"][0]["fields"] == ["Phone", "Rank__c", "SystemModstamp"]
    assert "id" not in results[1]
    assert [org.record("Contact", made[place]).get("Points__c") for place in (0, 1, 7)] == [1.0, None, 7.0]


def test_all_or_none_rolls_siblings_back(org: SalesforceSimulator, rest: httpx.Client) -> None:
    good, locked = org.create_many("Contact", [{"LastName": "A"}, {"LastName": "B"}])
    org.knobs.locked.add(locked)
    org.knobs.failed_items_name_id = True
    records = [{"id": good, "Points__c": 1}, {"id": locked, "Points__c": 1}]
    results = patch(rest, records, allOrNone=True)
    assert codes(results) == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "UNABLE_TO_LOCK_ROW"]
    assert [item["id"] for item in results] == [good, locked]
    assert org.record("Contact", good).get("Points__c") is None


def test_one_poisoned_record_fails_its_chunk_and_no_other(
    org: SalesforceSimulator, rest: httpx.Client
) -> None:
    made = org.create_many("Contact", ({"LastName": "L"} for _ in range(3)))
    lead = org.create("Lead", {"LastName": "L", "Company": "C"})
    org.knobs.poisoned.add(made[1])
    records = [{"id": key, "Points__c": 1} for key in made]
    results = patch(rest, [*records, {"attributes": {"type": "Lead"}, "id": lead, "Phone": "1"}])
    assert codes(results) == ["CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY"] * 3 + [""]
    assert codes(patch(rest, [records[0], records[2]])) == ["", ""]


def test_triggers_duplicates_and_assignment_act_on_what_we_write(
    org: SalesforceSimulator, rest: httpx.Client
) -> None:
    key = org.create("Contact", {"LastName": "A", "Email": "a@x.example"})
    org.create("Contact", {"LastName": "B", "Email": "A@x.example"})
    lead = org.create("Lead", {"LastName": "L", "Company": "C"})
    org.knobs.duplicate_rule = True
    org.knobs.trigger_edits["Contact"] = {"Phone": "set by a flow"}
    org.knobs.assign_to = org.user_id
    assert codes(patch(rest, [{"id": key, "Points__c": 1}])) == ["DUPLICATES_DETECTED"]
    rest.headers["Sforce-Duplicate-Rule-Header"] = "allowSave=true"
    rest.headers["Sforce-Auto-Assign"] = "FALSE"
    lead_record = {"attributes": {"type": "Lead"}, "id": lead, "Phone": "1"}
    assert codes(patch(rest, [{"id": key, "Points__c": 1}, lead_record])) == ["", ""]
    row = org.record("Contact", key)
    assert (row["Phone"], row["LastModifiedById"]) == ("set by a flow", org.user_id)
    assert org.record("Lead", lead)["OwnerId"] == org.human_id
    del rest.headers["Sforce-Auto-Assign"]
    patch(rest, [lead_record])
    assert org.record("Lead", lead)["OwnerId"] == org.user_id


def test_locks_by_chance_are_repeatable(org: SalesforceSimulator, rest: httpx.Client) -> None:
    made = org.create_many("Contact", ({"LastName": "L"} for _ in range(100)))
    org.knobs.lock_chance = 0.3
    results = patch(rest, [{"id": key, "Points__c": 1} for key in made])
    locked = codes(results).count("UNABLE_TO_LOCK_ROW")
    assert 10 < locked < 60
    assert sum(org.record("Contact", key).get("Points__c") == 1 for key in made) == 100 - locked


def test_records_are_created_in_collections(org: SalesforceSimulator, rest: httpx.Client) -> None:
    kind = {"attributes": {"type": "Contact"}}
    records = [
        {**kind, "LastName": "A", "Email": "a@x.example"},
        {**kind, "FirstName": "B"},
        {**kind, "LastName": "C", "id": "003000000000000AAA"},
    ]
    results = rest.post(COLLECTION, json={"allOrNone": False, "records": records}).json()
    assert codes(results) == ["", "REQUIRED_FIELD_MISSING", "INVALID_FIELD_FOR_INSERT_UPDATE"]
    row = org.record("Contact", results[0]["id"])
    assert (row["Email"], row["CreatedById"], row["OwnerId"]) == ("a@x.example", org.user_id, org.user_id)


def test_a_single_write_answers_with_error_codes_and_obeys_preconditions(
    org: SalesforceSimulator, rest: httpx.Client
) -> None:
    key = org.create("Contact", {"LastName": "Doe"})
    url = f"{DATA}/sobjects/Contact/{key}"
    since = {"If-Unmodified-Since": "Fri, 20 Nov 2026 11:59:59 GMT"}
    assert code(rest.patch(url, json={"Points__c": 1}, headers=since)) == (412, "PRECONDITION_FAILED")
    assert rest.patch(url, json={"Points__c": 1}, headers={"If-Unmodified-Since": "soon"}).status_code == 400
    assert code(rest.patch(url, json={"Id": key})) == (400, "INVALID_FIELD")
    assert code(rest.patch(url, content=b"{", headers={"Content-Type": "application/json"})) == (
        400,
        "JSON_PARSER_ERROR",
    )
    assert rest.patch(url, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    org.knobs.invalid[key] = ("no",)
    refused = rest.patch(url, json={"Points__c": 1})
    assert code(refused) == (400, "FIELD_CUSTOM_VALIDATION_EXCEPTION")
    assert refused.json()[0] == {
        "message": "no", "errorCode": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "fields": []
    }  # fmt: skip
    assert code(rest.patch(f"{DATA}/sobjects/Contact/003000000000000", json={})) == (404, "NOT_FOUND")
    org.knobs.invalid.clear()
    since = {"If-Unmodified-Since": "Fri, 20 Nov 2026 12:00:00 GMT"}
    assert rest.patch(url, json={"Points__c": 1}, headers=since).status_code == 204
    chosen = rest.get(url, params={"fields": "Points__c"}).json()
    assert (chosen["Points__c"], "LastName" in chosen) == (1.0, False)


# -- the whole


def test_ids_of_fifteen_and_eighteen_characters_are_one() -> None:
    assert long_id("001A0000006Vm9r") == "001A0000006Vm9rIAC"
    assert long_id("001A0000006Vm9rIAC") == "001A0000006Vm9rIAC"
    assert long_id("001A0000006Vm9rIAD") is None
    assert long_id("001A0000006Vm9") is None


def test_faults_strike_before_the_org_is_asked(org: SalesforceSimulator, rest: httpx.Client) -> None:
    key = org.create("Contact", {"LastName": "Doe"})
    timeout = [{"errorCode": "QUERY_TIMEOUT", "message": "Your query request was running for too long."}]
    org.faults.add(Fault(Kind.STATUS, path="/query", status=400, body=timeout))
    org.faults.add(Fault(Kind.HTML, method="PATCH", path="composite"))
    before = org.requests.total()
    assert code(soql(rest, "SELECT Id FROM Contact")) == (400, "QUERY_TIMEOUT")
    refused = rest.patch(COLLECTION, json={"records": []})
    assert (refused.status_code, refused.headers["content-type"]) == (503, "text/html")
    assert org.requests.total() == before
    org.faults.add(Fault(Kind.CUT_BODY, path="/query"))
    with pytest.raises(httpx.RemoteProtocolError):
        soql(rest, "SELECT Id FROM Contact")
    assert ids(soql(rest, "SELECT Id FROM Contact")) == [key]


def test_a_hundred_thousand_contacts_are_paged_by_id(org: SalesforceSimulator) -> None:
    made = org.create_many("Contact", ({"LastName": "L"} for _ in range(100_000)))
    page = parse(f"SELECT Id FROM Contact WHERE Id > '{made[97_999]}' ORDER BY Id LIMIT 2000", org)
    assert [row["Id"] for row in page.run(deleted=False)] == made[98_000:]
    assert made == sorted(made)
    assert len(set(made)) == 100_000


def test_an_error_of_the_grammar_carries_its_status() -> None:
    with pytest.raises(ApiError) as caught:
        parse("SELECT", SalesforceSimulator())
    assert (caught.value.status, caught.value.code) == (400, "MALFORMED_QUERY")
    assert json.dumps(caught.value.message)
