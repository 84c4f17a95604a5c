"""What the Pipedrive simulator answers and refuses, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.pipedrive import PipedriveSimulator, Refusal

START = datetime(2026, 11, 2, 12, 0, 0, 400_000, tzinfo=UTC)
LIST, FIELDS = "/api/v2/persons", "/api/v2/personFields"
HASH = "d4de1c1518b4531717c676029a45911c340390a6"


class Company:
    """A company and someone who speaks to it."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.crm = PipedriveSimulator(clock=self.clock, seed=7)
        self.points = self.crm.define("Points", "double")
        self.line = self.crm.define("Line")
        self._loop = asyncio.Runner()
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.crm.app), base_url="https://acme.crm.test"
        )

    def ask(self, method: str, path: str, *, token: str = "pipedrive-sandbox", **more: Any) -> httpx.Response:  # noqa: S107 - a simulator's
        return self._loop.run(self._http.request(method, path, headers={"x-api-token": token}, **more))

    def get(self, path: str, **params: str) -> dict[str, Any]:
        answer = self.ask("GET", path, params=params)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert found["success"] is True
        return found

    def refusal(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        answer = self.ask(method, path, **more)
        assert answer.status_code >= 400
        assert answer.json()["success"] is False
        return answer.status_code, answer.json().get("code", "")

    def close(self) -> None:
        self._loop.run(self._http.aclose())
        self._loop.close()


@pytest.fixture
def company() -> Iterator[Company]:
    made = Company()
    yield made
    made.close()


def test_token_goes_in_its_own_header_and_is_refused_as_it_was_seen_to_be(company: Company) -> None:
    answer = company.ask("GET", LIST, token="wrong")
    assert answer.status_code == 401
    assert answer.json()["error"] == "unauthorized access"


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "501"},
        {"limit": "0"},
        {"limit": "ten"},
        {"updated_since": "2026-11-02T12:00:00.000Z"},
        {"updated_since": "2026-11-02"},
        {"sort_by": "name"},
        {"custom_fields": ",".join([HASH] * 16)},
        {"custom_fields": ""},
        {"cursor": "x"},
        {"cursor": "e30"},
        {"start": "0"},
        {"api_token": "pipedrive-sandbox"},
    ],
    ids=str,
)
def test_list_refuses_what_it_does_not_know(company: Company, params: dict[str, str]) -> None:
    assert company.refusal("GET", LIST, params=params) == (400, "ERR_SCHEMA_VALIDATION_FAILED")


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {"nickname": "x"},
        {"name": ""},
        {"name": 7},
        {"custom_fields": []},
        {"custom_fields": {HASH: "x"}},
        {"custom_fields": {"points": "12"}},
        {"custom_fields": {"points": True}},
        {"custom_fields": {"line": 12}},
        {"custom_fields": {"line": "x" * 256}},
        {HASH: "a key of its own, as in v1"},
        {"emails": [{"value": 7}]},
        {"is_deleted": True},
    ],
    ids=str,
)
def test_update_refuses_what_a_person_cannot_be_given(company: Company, body: Any) -> None:
    (made,) = company.crm.create_many([{"name": "Ada", "custom_fields": {company.line: "as it was"}}])
    if isinstance(body, dict) and isinstance(body.get("custom_fields"), dict):
        keys = {"points": company.points, "line": company.line}
        body = {"custom_fields": {keys.get(name, name): it for name, it in body["custom_fields"].items()}}
    assert company.refusal("PATCH", f"{LIST}/{made}", json=body) == (400, "ERR_SCHEMA_VALIDATION_FAILED")
    assert company.crm.person(made)["custom_fields"] == {company.line: "as it was"}


def test_person_is_told_in_the_form_of_v2(company: Company) -> None:
    emails = [{"value": "ada@example.org", "primary": True, "label": "work"}]
    (made,) = company.crm.create_many([{"name": "Ada King", "emails": emails}])
    answer = company.ask("PATCH", f"{LIST}/{made}", json={"custom_fields": {company.points: 12}})
    assert answer.json()["data"] == company.get(f"{LIST}/{made}")["data"]
    assert company.get(f"{LIST}/{made}")["data"] == {
        "id": 1,
        "name": "Ada King",
        "first_name": "Ada",
        "last_name": "King",
        "emails": emails,
        "phones": [],
        "owner_id": 1,
        "org_id": None,
        "picture_id": None,
        "visible_to": 7,
        "label_ids": [],
        "add_time": "2026-11-02T12:00:00Z",
        "update_time": "2026-11-02T12:00:00Z",
        "is_deleted": False,
        "custom_fields": {company.points: 12},
    }


def test_pages_follow_each_other_by_a_cursor_until_there_is_none(company: Company) -> None:
    company.crm.create_many([{"name": f"N{n}"} for n in range(5)])
    first = company.get(LIST, limit="3")
    cursor = first["additional_data"]["next_cursor"]
    second = company.get(LIST, limit="3", cursor=cursor)
    assert [it["id"] for it in (*first["data"], *second["data"])] == [1, 2, 3, 4, 5]
    assert second["additional_data"] == {"next_cursor": None}
    assert [it["field_code"] for it in company.get(FIELDS)["data"]] == [
        "name",
        "email",
        company.points,
        company.line,
    ]


def test_deleted_person_is_there_for_thirty_days_and_takes_no_edit(company: Company) -> None:
    (made,) = company.crm.create_many([{"name": "Ada"}])
    company.clock.advance(timedelta(minutes=1))
    company.crm.delete(made)
    assert company.get(LIST)["data"] == []
    told = company.get(f"{LIST}/{made}")["data"]
    assert (told["is_deleted"], told["update_time"]) == (True, "2026-11-02T12:01:00Z")
    assert company.refusal("PATCH", f"{LIST}/{made}", json={})[0] == 400
    company.crm.knobs.lists_deleted = True
    assert [it["id"] for it in company.get(LIST, updated_since="2026-11-02T12:01:00Z")["data"]] == [1]
    company.clock.advance(timedelta(days=30))
    assert company.refusal("GET", f"{LIST}/{made}")[0] == 404
    with pytest.raises(KeyError):
        company.crm.restore(made)


def test_change_is_seen_late_with_the_time_that_it_was_made(company: Company) -> None:
    (made,) = company.crm.create_many([{"name": "Ada"}])
    company.clock.advance(timedelta(minutes=1))
    company.crm.knobs.commit_delay = 60.0
    company.crm.update(made, {"name": "Ada King"})
    company.crm.knobs.commit_delay = 0.0
    assert company.get(f"{LIST}/{made}")["data"]["name"] == "Ada"
    company.clock.advance(timedelta(minutes=1))
    told = company.get(LIST)["data"][0]
    assert (told["name"], told["update_time"]) == ("Ada King", "2026-11-02T12:01:00Z")


def test_limits_are_told_and_kept(company: Company) -> None:
    (made,) = company.crm.create_many([{"name": "Ada"}])
    answer = company.ask("GET", f"{LIST}/{made}")
    assert answer.headers["x-ratelimit-remaining"] == "19"
    assert answer.headers["x-daily-ratelimit-token-remaining"] == "29999"
    for _ in range(19):
        company.get(LIST)
    refused = company.ask("GET", LIST)
    assert refused.status_code == 429
    assert (refused.headers["x-ratelimit-remaining"], refused.headers["x-ratelimit-reset"]) == ("0", "2")
    company.clock.advance(timedelta(seconds=2))
    company.crm.knobs.daily = 195
    assert company.refusal("PATCH", f"{LIST}/{made}", json={})[0] == 429
    assert company.get(f"{LIST}/{made}")["data"]
    company.clock.advance(timedelta(days=1))
    assert company.get(LIST)["data"]


def test_methods_refuse_what_the_api_refuses(company: Company) -> None:
    with pytest.raises(Refusal, match="ERR_SCHEMA_VALIDATION_FAILED"):
        company.crm.create_many([{"name": "Ada", "custom_fields": {company.points: "12"}}])
    (made,) = company.crm.create_many([{"name": "Ada"}])
    company.crm.delete(made)
    with pytest.raises(KeyError):
        company.crm.update(made, {"name": "Ada King"})
