"""What the Dynamics simulator answers and refuses, without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.dynamics import DynamicsSimulator

START = datetime(2026, 11, 2, 12, 0, 0, 400_000, tzinfo=UTC)
URL = "http://acme.crm.test"
ROOT = "/api/data/v9.2"
TRACK = {"Prefer": "odata.track-changes"}
FORM = {
    "grant_type": "client_credentials",
    "client_id": "11111111-2222-3333-4444-555555555555",
    "client_secret": "sandbox-secret",
    "scope": f"{URL}/.default",
}
NOBODY = "00000000-0000-4000-8000-000000000000"


class Environment:
    """An environment and someone who speaks to it."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.crm = DynamicsSimulator(clock=self.clock, seed=7)
        self.crm.define("acme_points", "Integer")
        self.crm.define("acme_at", "DateTime")
        self._loop = asyncio.Runner()
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(self.crm.app), base_url=URL)
        self.token = self.log_in().json()["access_token"]

    def log_in(self, tenant: str = "sandbox.example", **changed: str) -> httpx.Response:
        return self.send("POST", f"/{tenant}/oauth2/v2.0/token", data=FORM | changed)

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._loop.run(self._http.request(method, path, **more))

    def close(self) -> None:
        self._loop.run(self._http.aclose())
        self._loop.close()

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}", **more.pop("headers", {})}
        target = path if path.startswith(("http", "/")) else f"{ROOT}/{path}"
        return self.send(method, target, headers=headers, **more)

    def get(self, path: str, **headers: str) -> dict[str, Any]:
        answer = self.ask("GET", path, headers=headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def refusal(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        answer = self.ask(method, path, **more)
        assert answer.status_code >= 400
        error = answer.json()["error"] if answer.content else {"code": ""}
        return answer.status_code, error["code"]

    def people(self, count: int) -> list[str]:
        return self.crm.create_many([{"lastname": f"N{n}"} for n in range(count)])

    def tracked(self) -> str:
        """Return a delta link of now."""
        link: str = self.get("contacts?$select=lastname", **TRACK)["@odata.deltaLink"]
        return link


@pytest.fixture
def env() -> Iterator[Environment]:
    made = Environment()
    yield made
    made.close()


def ids(document: dict[str, Any]) -> list[str]:
    return [row.get("contactid") or row["id"] for row in document["value"]]


# Who may call.


@pytest.mark.parametrize(
    ("changed", "status", "error", "number"),
    [
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_id": "other"}, 400, "unauthorized_client", 700016),
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"scope": f"{URL}/user_impersonation"}, 400, "invalid_scope", 1002012),
        ({"scope": "http://other.crm.test/.default"}, 400, "invalid_resource", 500011),
        ({"tenant": "nobody.example"}, 400, "invalid_request", 90002),
    ],
)
def test_login_that_does_not_fit_is_refused_in_entras_words(
    env: Environment, changed: dict[str, str], status: int, error: str, number: int
) -> None:
    answer = env.log_in(**changed)
    assert answer.status_code == status
    assert (answer.json()["error"], answer.json()["error_codes"]) == (error, [number])


def test_token_is_good_until_its_time(env: Environment) -> None:
    assert env.log_in().json()["expires_in"] == 3599
    assert env.get("WhoAmI")["UserId"]
    env.clock.advance(timedelta(seconds=3600))
    answer = env.ask("GET", "WhoAmI")
    assert (answer.status_code, answer.content) == (401, b"")
    assert answer.headers["www-authenticate"].startswith("Bearer authorization_uri=")


def test_calls_without_a_token_or_a_right_are_refused(env: Environment) -> None:
    assert env.send("GET", f"{ROOT}/contacts").status_code == 401
    env.crm.knobs.may_read = False
    assert env.refusal("GET", "contacts") == (403, "0x80040220")
    env.crm.knobs.member = False
    assert env.refusal("GET", "WhoAmI") == (403, "0x80072560")


def test_each_of_the_three_limits_has_its_code_and_wait(env: Environment) -> None:
    env.crm.knobs.requests = 3
    for _ in range(3):
        env.get("WhoAmI")
    env.clock.advance(timedelta(seconds=100))
    limited = env.ask("GET", "WhoAmI")
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "200")
    assert limited.json()["error"]["code"] == "0x80072322"
    env.clock.advance(timedelta(seconds=200))
    assert env.ask("GET", "WhoAmI").headers["x-ms-ratelimit-burst-remaining-xrm-requests"] == "2"
    env.crm.knobs.execution = env.crm.knobs.cost
    assert env.refusal("GET", "WhoAmI") == (429, "0x80072321")
    env.crm.knobs.running_elsewhere = 52
    assert env.refusal("GET", "WhoAmI") == (429, "0x80072326")


def test_paths_and_methods_that_are_none_are_refused(env: Environment) -> None:
    assert env.refusal("GET", "leads")[0] == 404
    assert env.refusal("GET", "/api/data/v8.2/contacts")[0] == 404
    assert env.refusal("DELETE", "contacts")[0] == 405
    assert env.refusal("PUT", f"contacts({NOBODY})")[0] == 405
    assert env.refusal("GET", "contacts", headers={"OData-Version": "3.0"})[0] == 400


# Reading.


@pytest.mark.parametrize(
    "query",
    [
        "$select=lastname,nothing",
        "$select=parentcustomerid",  # a lookup is read by another name
        "$select=parentcustomeridname",  # belongs to the lookup
        "$select=",
        "$skip=10",
        "$filter=lastname like 'x'",
        "$filter=nothing eq 1",
        "$filter=modifiedon ge yesterday",
        "$orderby=nothing",
        "$deltatoken=yesterday",
        "$skiptoken=2",
    ],
)
def test_query_that_the_table_cannot_answer_is_refused(env: Environment, query: str) -> None:
    assert env.refusal("GET", f"contacts?{query}") == (400, "0x80060888")


@pytest.mark.parametrize("option", ["$filter=statecode eq 0", "$orderby=lastname", "$top=3"])
def test_tracked_query_takes_no_other_options(env: Environment, option: str) -> None:
    assert env.refusal("GET", f"contacts?{option}", headers=TRACK) == (400, "0x80060888")


def test_row_has_what_was_selected_its_key_and_its_etag(env: Environment) -> None:
    (made,) = env.people(1)
    (row,) = env.get("contacts?$select=lastname,_parentcustomerid_value")["value"]
    assert set(row) == {"@odata.etag", "contactid", "lastname", "_parentcustomerid_value"}
    assert (row["contactid"], row["lastname"], row["_parentcustomerid_value"]) == (made, "N0", None)
    assert env.refusal("GET", f"contacts({NOBODY})") == (404, "0x80040217")


def test_pages_are_as_large_as_preferred_and_linked(env: Environment) -> None:
    made = env.people(5)
    found, link = [], "contacts?$select=lastname"
    for expected in (2, 2, 1):
        page = env.get(link, Prefer="odata.maxpagesize=2")
        assert len(page["value"]) == expected
        found += ids(page)
        link = page.get("@odata.nextLink", "")
    assert (sorted(found), link) == (sorted(made), "")


def test_filter_by_modification_time_compares_to_the_second(env: Environment) -> None:
    first, second = env.people(2)
    env.clock.advance(timedelta(minutes=1))
    env.crm.update(second, {"lastname": "later"})
    assert ids(env.get("contacts?$select=lastname&$filter=modifiedon ge 2026-11-02T12:01:00Z")) == [second]
    both = "contacts?$select=lastname&$filter=modifiedon ge 2026-11-02T12:00:00Z and statecode eq 0"
    assert sorted(ids(env.get(both))) == sorted([first, second])


def test_delta_link_tells_changes_and_deletions_since(env: Environment) -> None:
    changed, deleted, same = env.people(3)
    link = env.tracked()
    assert env.get(link)["value"] == []
    env.crm.update(changed, {"lastname": "new"})
    env.crm.delete(deleted)
    document = env.get(link)
    assert document["@odata.context"].endswith("#contacts(lastname)/$delta")
    row, gone = document["value"]
    assert (row["contactid"], row["lastname"]) == (changed, "new")
    context = f"{URL}{ROOT}/$metadata#contacts/$deletedEntity"
    assert gone == {"@odata.context": context, "id": deleted, "reason": "deleted"}
    assert env.get(document["@odata.deltaLink"])["value"] == []
    assert same not in ids(document)


def test_link_without_changes_may_be_answered_with_nothing_at_all(env: Environment) -> None:
    env.people(1)
    link = env.tracked()
    env.crm.knobs.idle_answer = "empty"
    assert env.get(link) == {}
    env.crm.knobs.idle_answer = "none"
    answer = env.ask("GET", link)
    assert (answer.status_code, answer.content) == (204, b"")


def test_first_tracked_read_tells_no_deletions(env: Environment) -> None:
    kept, deleted = env.people(2)
    env.crm.delete(deleted)
    assert ids(env.get("contacts?$select=lastname", **TRACK)) == [kept]


def test_changes_come_in_the_order_of_their_versions_and_deletions_after_them(env: Environment) -> None:
    made = env.people(6)
    link = env.tracked()
    env.crm.delete(made[0])
    for one in reversed(made[1:]):
        env.crm.update(one, {"lastname": "new"})
    found: list[str] = []
    while link and "$deltatoken" in link and len(found) < 6:
        page = env.get(link, Prefer="odata.maxpagesize=4")
        found += ids(page)
        link = page.get("@odata.nextLink", "")
    assert found == [*reversed(made[1:]), made[0]]


@pytest.mark.parametrize("at_end", [True, False])
def test_delta_link_counts_from_the_first_page_or_the_last(env: Environment, *, at_end: bool) -> None:
    env.crm.knobs.token_at_end = at_end
    env.crm.knobs.by_version = False
    made = sorted(env.people(4))
    page = env.get("contacts?$select=lastname", Prefer="odata.track-changes,odata.maxpagesize=2")
    env.crm.update(made[0], {"lastname": "meanwhile"})
    last = env.get(page["@odata.nextLink"], Prefer="odata.maxpagesize=2")
    assert made[0] not in ids(last)
    assert ids(env.get(last["@odata.deltaLink"])) == ([] if at_end else [made[0]])


@pytest.mark.parametrize("waits", [True, False])
def test_change_that_commits_late_is_counted_past_or_waited_for(env: Environment, *, waits: bool) -> None:
    (made,) = env.people(1)
    env.crm.knobs.token_waits = waits
    env.crm.knobs.commit_delay = 60.0
    env.crm.update(made, {"lastname": "late"})
    link = env.tracked()
    assert env.get(link)["value"] == []
    env.clock.advance(timedelta(seconds=61))
    assert ids(env.get(link)) == ([made] if waits else [])


def test_delta_link_expires_when_nobody_asks_it_for_days(env: Environment) -> None:
    link = env.tracked()
    env.clock.advance(timedelta(days=6, hours=23))
    env.token = env.log_in().json()["access_token"]
    assert env.get(link)["value"] == []
    env.clock.advance(timedelta(hours=2))
    env.token = env.log_in().json()["access_token"]
    assert env.refusal("GET", link) == (400, "0x80044352")
    env.crm.knobs.expired_status = 410
    assert env.refusal("GET", link) == (410, "0x80044352")


def test_delta_link_names_the_version_and_the_time(env: Environment) -> None:
    (token,) = parse_qs(urlsplit(env.tracked()).query)["$deltatoken"]
    version, _, at = token.partition("!")
    assert (version.isdecimal(), at) == (True, "11/02/2026 12:00:00")


def test_table_that_is_not_tracked_gives_no_delta_link(env: Environment) -> None:
    env.crm.knobs.tracking = False
    assert env.refusal("GET", "contacts?$select=lastname", headers=TRACK) == (400, "0x80060888")
    assert "@odata.deltaLink" not in env.get("contacts?$select=lastname")


def test_restored_contact_comes_as_a_row_and_where_so_set_as_deleted_too(env: Environment) -> None:
    (made,) = env.people(1)
    link = env.tracked()
    env.crm.delete(made)
    env.crm.restore(made)
    assert ids(env.get(link)) == [made]
    env.crm.knobs.ghosts = True
    row, gone = env.get(link)["value"]
    assert (row["contactid"], gone["id"]) == (made, made)


def test_deleted_column_is_unknown_to_new_and_old_links(env: Environment) -> None:
    link = env.tracked()
    env.crm.drop_column("lastname")
    assert env.refusal("GET", link) == (400, "0x80060888")


# Writing.


def test_update_without_a_condition_creates_what_is_not_there(env: Environment) -> None:
    assert env.ask("PATCH", f"contacts({NOBODY})", json={"lastname": "Ghost"}).status_code == 204
    assert env.crm.contact(NOBODY)["lastname"] == "Ghost"
    env.crm.delete(NOBODY)
    strict = {"headers": {"If-Match": "*"}, "json": {"lastname": "Ghost"}}
    assert env.refusal("PATCH", f"contacts({NOBODY})", **strict) == (404, "0x80040217")


def test_update_under_another_version_is_refused(env: Environment) -> None:
    (made,) = env.people(1)
    old = {"headers": {"If-Match": 'W/"1"'}, "json": {"lastname": "x"}}
    assert env.refusal("PATCH", f"contacts({made})", **old)[0] == 412
    none = {"headers": {"If-None-Match": "*"}, "json": {"lastname": "x"}}
    assert env.refusal("PATCH", f"contacts({made})", **none)[0] == 412


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"nothing": "x"}, "0x80048d19"),
        ({"_masterid_value": NOBODY}, "0x80048d19"),
        ({"lastname": 7}, "0x80048d19"),
        ({"acme_points": "7"}, "0x80048d19"),
        ({"acme_points": True}, "0x80048d19"),
        ({"acme_at": "2026-11-02T12:00:00"}, "0x80048d19"),
        ({"acme_at": "yesterday"}, "0x80048d19"),
        ({"donotemail": "true"}, "0x80048d19"),
        ({"lastname": "x" * 51}, "0x80044331"),
    ],
)
def test_value_that_does_not_fit_its_column_is_refused(
    env: Environment, body: dict[str, Any], code: str
) -> None:
    (made,) = env.people(1)
    assert env.refusal("PATCH", f"contacts({made})", json=body) == (400, code)


def test_column_that_cannot_be_updated_is_ignored_or_refused(env: Environment) -> None:
    (made,) = env.people(1)
    assert env.ask("PATCH", f"contacts({made})", json={"fullname": "x"}).status_code == 204
    assert env.crm.contact(made)["fullname"] == "N0"
    env.crm.knobs.read_only_refused = True
    assert env.refusal("PATCH", f"contacts({made})", json={"fullname": "x"}) == (400, "0x80048d19")


def test_update_gives_back_what_is_selected_where_that_is_preferred(env: Environment) -> None:
    (made,) = env.people(1)
    asked = {"headers": {"Prefer": "return=representation"}, "json": {"acme_at": "2026-11-02T13:00:00+01:00"}}
    answer = env.ask("PATCH", f"contacts({made})?$select=acme_at,merged", **asked)
    assert answer.status_code == 200
    assert (answer.json()["acme_at"], answer.json()["merged"]) == ("2026-11-02T12:00:00Z", False)
    assert "lastname" not in answer.json()


def test_body_that_is_no_json_object_is_refused(env: Environment) -> None:
    (made,) = env.people(1)
    kind = {"Content-Type": "application/json"}
    assert env.refusal("PATCH", f"contacts({made})", content=b"{", headers=kind)[0] == 400
    assert env.refusal("PATCH", f"contacts({made})", content=b"[]", headers=kind)[0] == 400
    assert env.refusal("PATCH", f"contacts({made})", content=b"{}")[0] == 415


# Merging and deactivating.


def merging(target: str, subordinate: str, **more: Any) -> dict[str, Any]:
    kind = {"@odata.type": "Microsoft.Dynamics.CRM.contact"}
    rows = {"Target": {"contactid": target, **kind}, "Subordinate": {"contactid": subordinate, **kind}}
    return {"json": {**rows, "PerformParentingChecks": False, **more}}


def test_merged_contact_is_deactivated_and_names_its_master(env: Environment) -> None:
    winner, loser = env.crm.create_many([{"lastname": "W"}, {"lastname": "L", "jobtitle": "Clerk"}])
    link = env.tracked()
    assert env.ask("POST", "Merge", **merging(winner, loser)).status_code == 204
    merged = env.crm.contact(loser)
    assert (merged["statecode"], merged["merged"], merged["_masterid_value"]) == (1, True, winner)
    kept = env.crm.contact(winner)
    assert (kept["statecode"], kept["lastname"], kept["jobtitle"]) == (0, "W", "Clerk")
    assert sorted(ids(env.get(link))) == sorted([winner, loser])


def test_merge_that_cannot_be_is_refused(env: Environment) -> None:
    first, second, third = env.people(3)
    assert env.refusal("POST", "Merge", **merging(first, first))[0] == 400
    assert env.refusal("POST", "Merge", **merging(first, NOBODY))[0] == 404
    assert env.refusal("POST", "Merge", **merging(first, second, Subordinate={"contactid": second}))[0] == 400
    assert env.refusal("POST", "Merge", **merging(first, second, PerformParentingChecks=None))[0] == 400
    env.crm.deactivate(third)
    assert env.refusal("POST", "Merge", **merging(first, third))[0] == 400
    env.crm.activate(third)
    assert env.ask("POST", "Merge", **merging(first, third)).status_code == 204


# Batches.


def batch(*parts: str, boundary: str = "batch_1", end: str = "\r\n", **headers: str) -> dict[str, Any]:
    body = "".join(f"--{boundary}{end}{part}{end}" for part in parts) + f"--{boundary}--{end}"
    return {
        "content": body.encode(),
        "headers": {"Content-Type": f'multipart/mixed; boundary="{boundary}"', **headers},
    }


def patch(record_id: str, values: dict[str, Any], *, about: str = "", match: str = "If-Match: *\r\n") -> str:
    outer = about or "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    body = json.dumps(values)
    line = f"PATCH {ROOT}/contacts({record_id}) HTTP/1.1\r\nContent-Type: application/json\r\n"
    return f"{outer}{line}Content-Length: {len(body)}\r\n{match}\r\n{body}"


def statuses(answer: httpx.Response) -> list[int]:
    assert answer.headers["content-type"].startswith("multipart/mixed; boundary=batchresponse_")
    return [int(line.split()[1]) for line in answer.text.splitlines() if line.startswith("HTTP/1.1 ")]


def test_batch_is_answered_part_by_part_in_order(env: Environment) -> None:
    made = env.people(3)
    env.crm.delete(made[1])
    answer = env.ask(
        "POST",
        "$batch",
        **batch(*(patch(one, {"lastname": "new"}) for one in made), Prefer="odata.continue-on-error"),
    )
    assert (answer.status_code, statuses(answer)) == (200, [204, 404, 204])
    assert [wrote.record_id for wrote in env.crm.writes] == [made[0], made[2]]


def test_batch_that_is_not_told_to_go_on_ends_at_the_first_failure(env: Environment) -> None:
    made = env.people(3)
    bad = patch(made[1], {"lastname": "x" * 51})
    answer = env.ask(
        "POST", "$batch", **batch(patch(made[0], {"lastname": "a"}), bad, patch(made[2], {"lastname": "c"}))
    )
    assert (answer.status_code, statuses(answer)) == (400, [204, 400])
    assert "0x80044331" in answer.text
    assert env.crm.contact(made[2])["lastname"] == "N2"


@pytest.mark.parametrize(
    "asked",
    [
        batch("x", end="\n"),
        batch("Content-Type: text/plain\r\n\r\nx"),
        batch("Content-Type: application/http\r\n\r\nGET /api/data/v9.2/WhoAmI HTTP/1.1\r\n\r\n"),
        batch(patch(NOBODY, {}).replace("PATCH", "FETCH")),
        batch(patch(NOBODY, {}).replace(f"contacts({NOBODY})", "$batch")),
        batch("Content-Type: multipart/mixed; boundary=changeset_1\r\n\r\nx"),
        batch(),
        batch("x") | {"headers": {"Content-Type": "application/json"}},
    ],
    ids=["bare-lf", "text", "not-binary", "no-request", "nested", "changeset", "empty", "json"],
)
def test_batch_that_is_not_put_together_as_it_must_be_is_refused(
    env: Environment, asked: dict[str, Any]
) -> None:
    assert env.refusal("POST", "$batch", **asked) == (400, "0x80060888")


def test_part_whose_length_is_untold_or_wrong_is_refused(env: Environment) -> None:
    (made,) = env.people(1)
    part = patch(made, {"lastname": "new"})
    untold = part.replace("Content-Length: 19\r\n", "")
    for bad in (untold, part.replace("Content-Length: 19", "Content-Length: 7")):
        assert env.refusal("POST", "$batch", **batch(bad)) == (400, "0x80048d19")
    env.crm.knobs.length_needed = False
    assert statuses(env.ask("POST", "$batch", **batch(untold))) == [204]


def test_batch_of_more_than_a_thousand_is_refused(env: Environment) -> None:
    assert env.refusal("POST", "$batch", **batch(*([patch(NOBODY, {})] * 1001)))[0] == 400
    assert env.crm.writes == []


def test_batch_counts_as_one_request_and_as_the_work_of_all(env: Environment) -> None:
    made = env.people(50)
    before = float(env.ask("GET", "WhoAmI").headers["x-ms-ratelimit-time-remaining-xrm-requests"])
    answer = env.ask("POST", "$batch", **batch(*(patch(one, {"lastname": "a"}) for one in made)))
    left = float(answer.headers["x-ms-ratelimit-time-remaining-xrm-requests"])
    assert before - left == pytest.approx(50 * env.crm.knobs.cost)


# The definition of the table.


def test_definition_tells_whether_changes_are_tracked_and_what_columns_are(env: Environment) -> None:
    path = "EntityDefinitions(LogicalName='contact')"
    expanded = (
        f"{path}?$select=ChangeTrackingEnabled&$expand=Attributes($select=LogicalName,IsValidForUpdate)"
    )
    document = env.get(expanded)
    assert document["ChangeTrackingEnabled"] is True
    updatable = {it["LogicalName"]: it["IsValidForUpdate"] for it in document["Attributes"]}
    assert (updatable["acme_points"], updatable["fullname"], updatable["masterid"]) == (True, False, False)
    dates = f"{path}/Attributes/Microsoft.Dynamics.CRM.DateTimeAttributeMetadata?$select=LogicalName,Format"
    formats = {it["LogicalName"]: it["Format"] for it in env.get(dates)["value"]}
    assert (formats["birthdate"], formats["acme_at"]) == ("DateOnly", "DateAndTime")
    lines = f"{path}/Attributes/Microsoft.Dynamics.CRM.StringAttributeMetadata?$select=LogicalName,MaxLength"
    lengths = {it["LogicalName"]: it["MaxLength"] for it in env.get(lines)["value"]}
    assert (lengths["lastname"], "acme_points" in lengths) == (50, False)


def test_definition_is_asked_only_for_what_it_has(env: Environment) -> None:
    path = "EntityDefinitions(LogicalName='contact')"
    assert env.refusal("GET", f"{path}?$select=Nothing")[0] == 400
    assert env.refusal("GET", f"{path}?$expand=Keys")[0] == 400
    assert env.refusal("GET", f"{path}?$filter=x eq 1")[0] == 400
