"""The wallet simulator refuses what the documents refuse, and its ledger is true."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson
import pytest

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.server import Server
from syncsvc.sandbox.wallet import WalletKnobs, WalletSimulator
from syncsvc.sandbox.wallet_knobs import (
    BadRows,
    Duplicates,
    EmptyField,
    ErrorInside,
    ImportedMembers,
    LogBrand,
    LogTime,
    PageVersion,
    PointsMode,
)

START = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)
SEED = 20261122
HEADERS = {"Authorization": "Bearer wallet-sandbox", "Accept": "application/json"}
ADA = ("brand-1", "ada@example.com")


class Asking:
    """Asks a simulator in this process; no socket, so that hundreds of requests cost little."""

    def __init__(self, **knobs: Any) -> None:
        self.clock = ManualClock(START)
        self.knobs = WalletKnobs(**knobs)
        self.wallet = WalletSimulator(
            brands={"brand-1": ["card-basic", "card-gold"], "brand-2": ["card-2"]},
            clock=self.clock,
            seed=SEED,
            knobs=self.knobs,
        )

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        more = {"headers": HEADERS} | more

        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.wallet.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path, **more)

        return asyncio.run(go())

    def post(self, *users: Any, **more: Any) -> httpx.Response:
        organization = more.pop("organization_id", self.wallet.organization_id)
        return self.ask(
            "POST", "/v2/import", json={"organization_id": organization, "users": list(users)} | more
        )

    def log(self, brand: str = "brand-1") -> dict[str, Any]:
        answer = self.ask("GET", "/import/log", params={"brand_id": brand})
        assert answer.status_code == 200
        body = answer.json()
        assert body["success"] is True
        return {entry["email"]: entry["last_updated"] for entry in body["data"]}

    def pass_seconds(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))


def user(**more: Any) -> dict[str, Any]:
    row = {
        "email": ADA[1],
        "brand_id": "brand-1",
        "name": "Ada Example",
        "points": 5,
        "storecard": "card-basic",
    } | more
    return {name: value for name, value in row.items() if value is not ...}


def people(count: int, points: int = 1) -> list[dict[str, Any]]:
    return [user(email=f"person{number}@example.com", points=points) for number in range(count)]


# What an import does.


def test_import_awards_points_and_answers_with_an_id_and_a_count() -> None:
    it = Asking()
    answer = it.post(user(), user(email="bo@example.com", points=7))
    assert answer.status_code == 200
    assert set(answer.json()) == {"import_id", "imported_members"}
    assert answer.json()["imported_members"] == 2
    assert it.wallet.awarded(*ADA) == 5
    assert it.wallet.total_awarded() == 12
    [record] = it.wallet.imports
    assert (record.import_id, record.rows, record.points) == (answer.json()["import_id"], 2, 12)
    assert [(entry.email, entry.points, entry.via) for entry in it.wallet.ledger] == [
        ("ada@example.com", 5, "import"),
        ("bo@example.com", 7, "import"),
    ]
    assert {entry.import_id for entry in it.wallet.ledger} == {record.import_id}


def test_the_same_import_sent_twice_awards_twice() -> None:
    it = Asking()
    first, second = it.post(user()).json(), it.post(user()).json()
    assert first["import_id"] != second["import_id"]
    assert it.wallet.awarded(*ADA) == 10


def test_set_mode_makes_a_repeated_import_harmless_and_overwrites_foreign_points() -> None:
    it = Asking(points=PointsMode.SET)
    it.post(user(points=40))
    it.wallet.award(*ADA, 9)
    it.post(user(points=40))
    member = it.wallet.member(*ADA)
    assert member is not None
    assert (member.points, member.awarded) == (40, 31)
    assert [entry.points for entry in it.wallet.ledger] == [40, 9, -9]


def test_emails_match_whatever_their_case_and_padding() -> None:
    it = Asking()
    it.post(user())
    it.post(user(email="  ADA@Example.com "))
    assert it.wallet.awarded("brand-1", " Ada@example.COM") == 10
    assert [member.email for member in it.wallet.members("brand-1")] == ["ada@example.com"]


def test_the_same_email_in_two_brands_is_two_members() -> None:
    it = Asking()
    answer = it.post(user(), user(brand_id="brand-2", storecard="card-2", points=3))
    assert answer.status_code == 200
    assert it.wallet.awarded(*ADA) == 5
    assert it.wallet.awarded("brand-2", ADA[1]) == 3


def test_profile_keeps_fields_that_a_later_import_leaves_out() -> None:
    it = Asking()
    it.post(user(phone_number="+31 20", external_reference="c-1"))
    it.post(user(name="Ada Other", points=0))
    member = it.wallet.member(*ADA)
    assert member is not None
    assert member.profile == {
        "name": "Ada Other",
        "storecard": "card-basic",
        "phone_number": "+31 20",
        "external_reference": "c-1",
    }
    assert member.imports == 2


def test_profile_of_an_existing_member_can_be_left_as_it_was() -> None:
    it = Asking(overwrite_profile=False)
    it.post(user())
    it.post(user(name="Ada Other"))
    member = it.wallet.member(*ADA)
    assert member is not None
    assert member.profile["name"] == "Ada Example"
    assert member.points == 10


def test_every_flag_sends_a_mail_also_to_those_who_have_one() -> None:
    it = Asking()
    it.post(user(welcome_email=True))
    it.post(user(welcome_email=1, update_mail=True))
    it.post(user(welcome_email=0))
    member = it.wallet.member(*ADA)
    assert member is not None
    assert member.mails == ("welcome", "welcome", "update")


def test_a_member_that_is_handed_out_is_a_copy() -> None:
    it = Asking()
    it.post(user())
    member = it.wallet.member(*ADA)
    assert member is not None
    member.points = 0
    member.profile.clear()
    again = it.wallet.member(*ADA)
    assert again is not None
    assert again.points == 5
    assert again.profile["name"] == "Ada Example"


def test_no_repr_shows_a_person() -> None:
    it = Asking()
    it.post(user())
    assert "ada" not in repr(it.wallet.member(*ADA)).lower()
    assert "ada" not in repr(it.wallet.ledger).lower()
    assert "wallet-sandbox" not in repr(it.knobs)


# What an import refuses.

REFUSED = {
    "email missing": (user(email=...), "email"),
    "email blank": (user(email=" "), "email"),
    "email of no form": (user(email="ada"), "email"),
    "email no text": (user(email=7), "email"),
    "name missing": (user(name=...), "name"),
    "name null": (user(name=None), "name"),
    "brand missing": (user(brand_id=...), "brand_id"),
    "brand unknown": (user(brand_id="brand-9"), "brand_id"),
    "storecard missing": (user(storecard=...), "storecard"),
    "storecard unknown": (user(storecard="card-9"), "storecard"),
    "storecard of another brand": (user(storecard="card-2"), "storecard"),
    "points missing": (user(points=...), "points"),
    "points fractional": (user(points=1.5), "points"),
    "points whole but a float": (user(points=5.0), "points"),
    "points true": (user(points=True), "points"),
    "points worded": (user(points="five"), "points"),
    "points negative": (user(points=-1), "points"),
    "phone a number": (user(phone_number=31), "phone_number"),
    "phone null": (user(phone_number=None), "phone_number"),
    "plate empty": (user(licenseplate=""), "licenseplate"),
    "flag worded": (user(update_mail="yes"), "update_mail"),
    "flag two": (user(welcome_email=2), "welcome_email"),
    "flag of the newer page": (user(welcome_mail=1), "welcome_mail"),
    "birthday, not on the older page": (user(birthday="1990-01-01"), "birthday"),
    "field unknown": (user(status="vip"), "status"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_import_refuses_a_row_by_its_number_and_field_and_applies_nothing(case: str) -> None:
    row, name = REFUSED[case]
    it = Asking()
    answer = it.post(user(email="bo@example.com"), row)
    assert answer.status_code == 422
    body = answer.json()
    assert set(body) == {"message", "errors"}
    assert list(body["errors"]) == [f"users.1.{name}"]
    assert body["message"] == body["errors"][f"users.1.{name}"][0]
    assert it.wallet.total_awarded() == 0
    assert list(it.wallet.members("brand-1")) == []


def test_a_row_that_is_no_object_is_named() -> None:
    answer = Asking().post(user(), "ada@example.com")
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["users.1"]


NEWER = {
    "storecard may be missing": (user(storecard=...), None),
    "birthday": (user(birthday="1990-02-28"), None),
    "welcome_mail": (user(welcome_mail=1), None),
    "points in digits": (user(points="5"), "points"),
    "flag true": (user(update_mail=True), "update_mail"),
    "welcome_email": (user(welcome_email=1), "welcome_email"),
    "birthday in words": (user(birthday="28 February 1990"), "birthday"),
    "birthday that never was": (user(birthday="1990-02-30"), "birthday"),
    "start with a time": (user(start_date="2026-01-01T00:00:00Z"), "start_date"),
    "end without dashes": (user(expires_at="20260101"), "expires_at"),
}


@pytest.mark.parametrize("case", NEWER)
def test_newer_page_has_other_rules(case: str) -> None:
    row, refused = NEWER[case]
    answer = Asking(page=PageVersion.NEW).post(row)
    if refused is None:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 422
        assert list(answer.json()["errors"]) == [f"users.0.{refused}"]


def test_newer_page_gives_the_organizations_first_storecard_to_a_row_without() -> None:
    it = Asking(page="new")
    it.post(user(storecard=...))
    member = it.wallet.member(*ADA)
    assert member is not None
    assert member.profile["storecard"] == "card-basic"


def test_older_page_takes_points_in_digits_and_dates_of_any_form() -> None:
    it = Asking()
    assert it.post(user(points="5", start_date="1 January 2026")).status_code == 200
    assert it.wallet.awarded(*ADA) == 5


def test_import_takes_two_thousand_rows_and_refuses_one_more() -> None:
    it = Asking()
    answer = it.post(*people(2001))
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["users"]
    assert it.wallet.total_awarded() == 0
    answer = it.post(*people(2000))
    assert answer.status_code == 200
    assert answer.json()["imported_members"] == 2000
    assert it.wallet.total_awarded() == 2000


@pytest.mark.parametrize("users", [None, [], {}, "all"])
def test_import_refuses_users_that_are_no_filled_list(users: Any) -> None:
    answer = Asking().post(users=users)
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["users"]


def test_import_needs_its_organization() -> None:
    it = Asking()
    missing = it.ask("POST", "/v2/import", json={"users": [user()]})
    assert missing.status_code == 422
    assert list(missing.json()["errors"]) == ["organization_id"]
    assert it.post(user(), organization_id="01JCOTHER").status_code == 403
    it.knobs.foreign_organization_status = 404
    assert it.post(user(), organization_id="01JCOTHER").status_code == 404
    assert it.wallet.imports == []


def test_several_errors_are_counted_in_the_message() -> None:
    body = Asking().post(user(name=..., points=1.5), user(name=...)).json()
    assert set(body["errors"]) == {"users.0.name", "users.0.points", "users.1.name"}
    assert body["message"].endswith(". (and 2 more errors)")


def test_errors_can_be_kept_secret() -> None:
    answer = Asking(errors_named=False).post(user(name=...))
    assert answer.status_code == 422
    assert set(answer.json()) == {"message"}


def test_good_rows_can_be_applied_though_the_answer_is_422() -> None:
    it = Asking(bad_rows=BadRows.APPLY_GOOD)
    answer = it.post(user(), user(email="bo@example.com", points=-1))
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["users.1.points"]
    assert it.wallet.awarded(*ADA) == 5
    assert it.wallet.member("brand-1", "bo@example.com") is None


def test_bad_rows_can_be_dropped_with_nothing_but_a_short_count() -> None:
    it = Asking(bad_rows=BadRows.DROP)
    answer = it.post(user(), user(email="bo@example.com", points=-1))
    assert answer.status_code == 200
    assert answer.json()["imported_members"] == 1


def test_a_member_named_twice_in_one_request_is_refused() -> None:
    it = Asking()
    answer = it.post(user(), user(email="bo@example.com"), user(email="ADA@example.com"))
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["users.0.email", "users.2.email"]
    assert it.wallet.total_awarded() == 0


def test_neither_row_of_a_member_named_twice_is_good() -> None:
    it = Asking(bad_rows=BadRows.APPLY_GOOD)
    assert it.post(user(), user(), user(email="bo@example.com")).status_code == 422
    assert it.wallet.awarded(*ADA) == 0
    assert it.wallet.awarded("brand-1", "bo@example.com") == 5


@pytest.mark.parametrize(("mode", "points", "count"), [("apply_each", 12, 2), ("last_wins", 7, 1)])
def test_a_member_named_twice_can_be_taken(mode: str, points: int, count: int) -> None:
    it = Asking(duplicates=Duplicates(mode))
    answer = it.post(user(), user(points=7))
    assert answer.json()["imported_members"] == count
    assert it.wallet.awarded(*ADA) == points


@pytest.mark.parametrize(("mode", "kept"), [(EmptyField.CLEAR, False), (EmptyField.IGNORE, True)])
@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_field_can_clear_or_mean_nothing(mode: EmptyField, empty: str | None, *, kept: bool) -> None:
    it = Asking(empty_fields=mode)
    it.post(user(phone_number="+31 20"))
    assert it.post(user(phone_number=empty)).status_code == 200
    member = it.wallet.member(*ADA)
    assert member is not None
    assert ("phone_number" in member.profile) is kept


LIMITS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "zero points": ({"zero_points_refused": True}, {"points": 0}),
    "many points": ({"max_points": 4}, {"points": 5}),
    "long texts": ({"max_text": 20}, {"name": "a" * 21}),
    "unknown tags": ({"tags": frozenset({"t-1"})}, {"tag_id": "t-2"}),
    "unknown locations": ({"locations": frozenset({"l-1"})}, {"location_id": "l-2"}),
}


@pytest.mark.parametrize("case", LIMITS)
def test_undocumented_limits_hold_once_they_are_set(case: str) -> None:
    knobs, fields = LIMITS[case]
    assert Asking().post(user(**fields)).status_code == 200
    assert Asking(**knobs).post(user(**fields)).status_code == 422


def test_lenient_readings_are_knobs() -> None:
    it = Asking(unknown_fields_refused=False, negative_points_refused=False)
    assert it.post(user(status="vip", points=-2), source="crm").status_code == 200
    assert it.wallet.total_awarded() == -2
    it.knobs.unknown_fields_refused = True
    answer = it.post(user(), source="crm")
    assert list(answer.json()["errors"]) == ["source"]


# Answers that tell less than what happened.


def test_count_can_be_of_new_members_only() -> None:
    it = Asking(imported_members=ImportedMembers.NEW_MEMBERS)
    it.post(user())
    assert it.post(user(), user(email="bo@example.com")).json()["imported_members"] == 1


@pytest.mark.parametrize(("mode", "points"), [(ErrorInside.APPLIED, 5), (ErrorInside.NOT_APPLIED, 0)])
def test_an_answer_of_success_can_carry_an_error_whatever_happened(mode: ErrorInside, points: int) -> None:
    it = Asking(error_inside=mode)
    answer = it.post(user())
    assert answer.status_code == 200
    assert set(answer.json()) == {"import_id", "imported_members", "error"}
    assert it.wallet.total_awarded() == points


def test_the_server_can_die_in_the_middle_of_an_import() -> None:
    it = Asking(dies_after_rows=3)
    assert it.post(*people(10)).status_code == 500
    assert it.wallet.total_awarded() == 3
    assert sorted(it.log()) == ["person0@example.com", "person1@example.com", "person2@example.com"]


def test_an_import_can_be_applied_after_its_answer() -> None:
    it = Asking(apply_seconds=30)
    assert it.post(user()).json()["imported_members"] == 1
    it.pass_seconds(29)
    assert it.log() == {}
    assert it.wallet.total_awarded() == 0
    it.pass_seconds(61)
    assert it.log() == {ADA[1]: "2026-11-22T08:00:30Z"}
    assert it.wallet.total_awarded() == 5


def test_what_happens_while_an_import_waits_comes_first() -> None:
    it = Asking(apply_seconds=30)
    it.post(user())
    it.pass_seconds(10)
    it.wallet.award(*ADA, 2)
    it.pass_seconds(60)
    it.wallet.award(*ADA, 2)
    assert it.wallet.total_awarded() == 5
    assert [(entry.via, entry.at) for entry in it.wallet.ledger] == [
        ("foreign", START + timedelta(seconds=10)),
        ("import", START + timedelta(seconds=30)),
        ("foreign", START + timedelta(seconds=70)),
    ]


# The import log.


def test_log_shows_when_each_member_of_the_brand_was_last_updated() -> None:
    it = Asking()
    it.post(user(), user(email="bo@example.com"), user(brand_id="brand-2", storecard="card-2"))
    it.pass_seconds(90)
    it.post(user(points=0))
    assert it.log() == {ADA[1]: "2026-11-22T08:01:30Z", "bo@example.com": "2026-11-22T08:00:00Z"}
    assert it.log("brand-2") == {ADA[1]: "2026-11-22T08:00:00Z"}
    assert it.wallet.log_time(*ADA) == "2026-11-22T08:01:30Z"


def test_rows_without_points_need_not_move_the_log() -> None:
    it = Asking(zero_moves_log=False)
    it.post(user())
    it.pass_seconds(90)
    it.post(user(points=0), user(email="bo@example.com", points=0))
    assert it.log() == {ADA[1]: "2026-11-22T08:00:00Z"}


def test_other_writers_move_points_and_the_log() -> None:
    it = Asking()
    it.wallet.award(*ADA, 3)
    it.wallet.award(*ADA, -1)
    it.pass_seconds(1)
    it.wallet.touch(*ADA)
    member = it.wallet.member(*ADA)
    assert member is not None
    assert (member.points, member.awarded, member.imports) == (2, 0, 0)
    assert it.wallet.total_awarded() == 0
    assert [entry.via for entry in it.wallet.ledger] == ["foreign", "foreign"]
    assert it.log() == {ADA[1]: "2026-11-22T08:00:01Z"}
    it.knobs.foreign_moves_log = False
    it.pass_seconds(1)
    it.wallet.award(*ADA, 3)
    assert it.log() == {ADA[1]: "2026-11-22T08:00:01Z"}


def test_log_can_lag_behind_what_was_applied() -> None:
    it = Asking(log_lag_seconds=20)
    it.post(user())
    it.pass_seconds(19)
    assert it.wallet.total_awarded() == 5
    assert it.log() == {}
    it.pass_seconds(1)
    assert it.log() == {ADA[1]: "2026-11-22T08:00:00Z"}


EAST = timezone(timedelta(hours=17))
TIMES = {
    LogTime.ISO_Z: "2026-11-22T08:00:00Z",
    LogTime.ISO_MICROS: "2026-11-22T08:00:00.123456Z",
    LogTime.ISO_OFFSET: "2026-11-23T01:00:00+17:00",
    LogTime.NAIVE: "2026-11-23 01:00:00",
    LogTime.DATE_ONLY: "2026-11-23",
    LogTime.EPOCH_S: 1795334400,
    LogTime.EPOCH_MS: 1795334400123,
    LogTime.EPOCH_S_TEXT: "1795334400",
}


@pytest.mark.parametrize("form", LogTime)
def test_log_writes_times_in_any_form(form: LogTime) -> None:
    it = Asking(log_time=form, zone=EAST)
    it.post(user())
    assert it.log() == {ADA[1]: TIMES[form]}
    assert it.wallet.log_time(*ADA) == TIMES[form]


def test_log_keeps_the_first_spelling_or_lowers_it() -> None:
    it = Asking()
    it.post(user(email="Ada@Example.com"))
    assert list(it.log()) == ["Ada@Example.com"]
    it.knobs.log_emails_lowered = True
    assert list(it.log()) == [ADA[1]]


def test_log_has_no_order_and_keeps_every_member_over_many_chunks() -> None:
    it = Asking()
    it.post(*people(1201))
    sent = [row["email"] for row in people(1201)]
    first, second = list(it.log()), list(it.log())
    assert first != second
    assert sorted(first) == sorted(second) == sorted(sent)
    it.knobs.log_shuffled = False
    assert list(it.log()) == sent


@pytest.mark.parametrize("place", LogBrand)
def test_log_looks_for_the_brand_where_it_is_told(place: LogBrand) -> None:
    it = Asking(log_brand=place)
    in_query = it.ask("GET", "/import/log", params={"brand_id": "brand-1"}).status_code
    in_body = it.ask("GET", "/import/log", json={"brand_id": "brand-1"}).status_code
    assert in_query == (422 if place == LogBrand.BODY else 200)
    assert in_body == (422 if place == LogBrand.QUERY else 200)


def test_log_takes_the_body_where_query_and_body_differ() -> None:
    it = Asking()
    it.post(user())
    answer = it.ask("GET", "/import/log", params={"brand_id": "brand-2"}, json={"brand_id": "brand-1"})
    assert [entry["email"] for entry in answer.json()["data"]] == [ADA[1]]


def test_log_refuses_an_unknown_brand() -> None:
    answer = Asking().ask("GET", "/import/log", params={"brand_id": "brand-9"})
    assert answer.status_code == 422
    assert list(answer.json()["errors"]) == ["brand_id"]


# Tokens, headers, routes.


@pytest.mark.parametrize("authorization", [None, "Bearer other", "Basic wallet-sandbox", "wallet-sandbox"])
def test_a_request_without_a_known_token_is_unauthenticated(authorization: str | None) -> None:
    it = Asking()
    headers = {"Accept": "application/json"} | ({"Authorization": authorization} if authorization else {})
    for method, path in (("POST", "/v2/import"), ("GET", "/import/log"), ("GET", "/brands")):
        answer = it.ask(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.json() == {"message": "Unauthenticated"}


def test_a_token_can_be_revoked() -> None:
    it = Asking()
    assert it.post(user()).status_code == 200
    del it.knobs.abilities["wallet-sandbox"]
    assert it.post(user()).status_code == 401
    assert it.wallet.awarded(*ADA) == 5


@pytest.mark.parametrize("accept", ["*/*", "text/html", "text/html, application/json"])
def test_unauthenticated_becomes_a_redirect_for_who_does_not_ask_for_json(accept: str) -> None:
    it = Asking()
    answer = it.ask("POST", "/v2/import", headers={"Accept": accept})
    assert answer.status_code == 302
    assert answer.headers["location"] == "/login"
    assert answer.headers["content-type"].startswith("text/html")
    it.knobs.redirected = frozenset()
    assert it.ask("POST", "/v2/import", headers={"Accept": accept}).status_code == 401


def test_other_refusals_can_be_redirects_too() -> None:
    it = Asking(redirected=frozenset({401, 422}))
    headers = HEADERS | {"Accept": "*/*"}
    assert it.ask("POST", "/v2/import", json={}, headers=headers).status_code == 302
    assert it.ask("POST", "/v2/import", json={}).status_code == 422


def test_each_endpoint_needs_its_ability() -> None:
    it = Asking()
    calls = {
        "import": ("POST", "/v2/import", {"json": {}}),
        "brand.import": ("GET", "/import/log", {"params": {"brand_id": "brand-1"}}),
        "brands.get": ("GET", "/brands", {}),
        "members.get": ("GET", "/members/list", {"params": {"brand_id": "brand-1"}}),
    }
    for ability, (method, path, more) in calls.items():
        assert it.ask(method, path, **more).status_code != 403
        it.knobs.abilities["wallet-sandbox"].remove(ability)
        answer = it.ask(method, path, **more)
        assert answer.status_code == 403
        assert set(answer.json()) == {"message"}


def test_a_log_token_takes_the_log_from_the_other_token() -> None:
    it = Asking()
    it.wallet = WalletSimulator(brands=["brand-1"], log_token="wallet-log", clock=it.clock)
    params = {"brand_id": "brand-1"}
    log_headers = HEADERS | {"Authorization": "Bearer wallet-log"}
    assert it.ask("GET", "/import/log", params=params).status_code == 403
    assert it.ask("GET", "/import/log", params=params, headers=log_headers).status_code == 200
    assert it.ask("POST", "/v2/import", headers=log_headers, json={}).status_code == 403
    assert it.post(user(storecard="card-1")).status_code == 200


def test_rate_is_limited_by_the_minute_and_says_how_long_to_wait() -> None:
    it = Asking(rate_per_minute=2)
    assert [it.post(user()).status_code for _ in range(2)] == [200, 200]
    it.pass_seconds(15.5)
    answer = it.post(user())
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "45"
    it.knobs.retry_after = False
    assert "retry-after" not in it.post(user()).headers
    assert it.wallet.awarded(*ADA) == 10
    it.pass_seconds(44.5)
    assert it.post(user()).status_code == 200


def test_a_body_that_is_not_json_is_refused() -> None:
    it = Asking()
    json_type = HEADERS | {"Content-Type": "application/json"}
    assert it.ask("POST", "/v2/import", content=b'{"users":', headers=json_type).status_code == 400
    it.knobs.malformed_status = 422
    assert it.ask("POST", "/v2/import", content=b'{"users":', headers=json_type).status_code == 422
    assert it.ask("POST", "/v2/import", content=b"[1]", headers=json_type).status_code == 422
    whole = orjson.dumps({"organization_id": it.wallet.organization_id, "users": [user()]})
    form_type = HEADERS | {"Content-Type": "text/plain"}
    assert it.ask("POST", "/v2/import", content=whole, headers=form_type).status_code == 422
    assert it.ask("POST", "/v2/import", content=whole, headers=json_type).status_code == 200


def test_a_body_can_be_too_large() -> None:
    it = Asking(max_body=2000)
    assert it.post(*people(100)).status_code == 413
    assert it.post(*people(5)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/import", 405),
        ("PUT", "/v2/import", 405),
        ("POST", "/import/log", 405),
        ("POST", "/members/list", 405),
        ("GET", "/v1/import", 404),
        ("GET", "/v2/import/log", 404),
        ("GET", "/import/log/", 404),
        ("GET", "/storecards", 404),
    ],
)
def test_what_is_not_documented_is_not_there(method: str, path: str, status: int) -> None:
    answer = Asking().ask(method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"message"}


def test_brands_name_their_organization() -> None:
    it = Asking()
    body = it.ask("GET", "/brands").json()
    assert body["message"] == "Request successful"
    assert [brand["identifier"] for brand in body["data"]] == ["brand-1", "brand-2"]
    assert {brand["organization"]["identifier"] for brand in body["data"]} == {it.wallet.organization_id}


def test_member_list_pages_with_links_that_must_not_be_followed() -> None:
    it = Asking()
    it.post(*people(5))
    params = {"brand_id": "brand-1", "page": "2", "per_page": "2"}
    data = it.ask("GET", "/members/list", params=params).json()["data"]
    assert [member["email"] for member in data["members"]] == ["person2@example.com", "person3@example.com"]
    assert (data["total"], data["last_page"], data["per_page"]) == (5, 3, 2)
    assert data["next_page_url"].startswith("http://")
    assert "page=3" in data["next_page_url"]
    assert "brand" not in data["next_page_url"]
    last = it.ask("GET", "/members/list", params=params | {"page": "3"}).json()["data"]
    assert (len(last["members"]), last["next_page_url"]) == (1, None)
    whole = it.ask("GET", "/members/list", json={"brand_id": "brand-1"}).json()["data"]
    assert len(whole["members"]) == 5
    for wrong in ({"page": "0"}, {"per_page": "many"}, {"brand_id": ""}):
        assert it.ask("GET", "/members/list", params=params | wrong).status_code == 422


def test_requests_are_counted_by_method_and_path() -> None:
    it = Asking()
    it.post(user())
    it.post(user())
    it.log()
    assert it.wallet.requests == {("POST", "/v2/import"): 2, ("GET", "/import/log"): 1}


def test_the_seed_decides_identifiers_and_order() -> None:
    one, other = Asking(), Asking()
    assert one.post(*people(50)).json() == other.post(*people(50)).json()
    assert list(one.log()) == list(other.log())


# Over a real connection.


@pytest.fixture
def served() -> Iterator[tuple[WalletSimulator, ManualClock, Callable[[], httpx.Response]]]:
    clock = ManualClock(START)
    wallet = WalletSimulator(brands=["brand-1"], clock=clock, seed=SEED)
    body = {"organization_id": wallet.organization_id, "users": [user(storecard="card-1")]}
    with Server(wallet.app) as server, httpx.Client(base_url=server.url, headers=HEADERS) as client:
        yield wallet, clock, lambda: client.post("/v2/import", json=body)


Served = tuple[WalletSimulator, ManualClock, Callable[[], httpx.Response]]


def test_date_header_tells_the_simulators_time(served: Served) -> None:
    wallet, clock, post = served
    assert parsedate_to_datetime(post().headers["date"]) == START.replace(microsecond=0)
    clock.advance(timedelta(days=3))
    wallet.faults.add(Fault(Kind.HTML_AFTER))
    answer = post()
    assert answer.headers["content-type"] == "text/html"
    assert len(answer.headers.get_list("date")) == 1
    assert post().headers.get_list("date") == ["Wed, 25 Nov 2026 08:00:00 GMT"]


@pytest.mark.parametrize(("kind", "points"), [(Kind.RESET_BEFORE, 0), (Kind.RESET_AFTER, 5)])
def test_a_lost_answer_leaves_the_truth_in_the_ledger(served: Served, kind: Kind, points: int) -> None:
    wallet, _, post = served
    wallet.faults.add(Fault(kind, path="^/v2/import$"))
    with pytest.raises(httpx.RemoteProtocolError):
        post()
    assert wallet.total_awarded() == points
    assert wallet.requests["POST", "/v2/import"] == (1 if points else 0)


def test_no_till_gets_between_the_reading_and_the_setting_of_points(served: Served) -> None:
    wallet, _, post = served
    wallet.knobs.points = PointsMode.SET
    done = threading.Event()

    def till() -> None:
        while not done.is_set():
            wallet.award(*ADA, 1)

    tills = [threading.Thread(target=till) for _ in range(2)]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads meet in the middle of a line, not once in a blue moon
    try:
        for thread in tills:
            thread.start()
        for _ in range(20):
            assert post().status_code == 200
    finally:
        done.set()
        for thread in tills:
            thread.join()
        sys.setswitchinterval(usual)
    balances = list(itertools.accumulate(entry.points for entry in wallet.ledger))
    set_to = [
        balance for balance, entry in zip(balances, wallet.ledger, strict=True) if entry.via == "import"
    ]
    assert set(set_to) == {5}
    member = wallet.member(*ADA)
    assert member is not None
    assert (member.points, member.awarded) == (balances[-1], wallet.total_awarded())
