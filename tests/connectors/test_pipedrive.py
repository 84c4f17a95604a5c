"""What is particular to Pipedrive, beside the suite that every connector passes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pipedrive_maker import PipedriveMaker

from connectors.pipedrive import DAILY_SECONDS, IN_A_ROW, MOST_KEYS, Pipedrive
from syncsvc.errors import CredentialsError, OperatorError, SchemaError, TransientError
from syncsvc.model import FieldValue, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Needs
from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.pipedrive import PipedriveKnobs
from syncsvc.testing import Ground
from syncsvc.testing.reading import calm, read, read_in_steps, swept
from syncsvc.testing.writing import write, written

MINUTE = timedelta(minutes=1)
PERSONS, FIELDS, EDITS = ("GET", "persons"), ("GET", "personFields"), ("PATCH", "persons/{id}")
PAGE = Path(__file__).parents[2] / "docs" / "connectors" / "pipedrive.md"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=False) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[PipedriveMaker]:
    maker = PipedriveMaker(ground, tmp_path)
    yield maker
    maker.close()


def connect(crm: PipedriveMaker, named: dict[str, str], *more: str, **written: str) -> Pipedrive:
    """Return a connector that reads custom fields by names of its own, and others by Pipedrive's."""
    connector = crm.connect(Needs(frozenset({*named, *more}), written), fields=crm.keys | named)
    assert isinstance(connector, Pipedrive)
    return connector


def values(connector: Pipedrive) -> dict[str, FieldValue]:
    (page,) = connector.changes(None)
    (contact,) = page.contacts
    return dict(contact.fields)


# Fields.


def test_email_and_phone_are_the_primary_ones(crm: PipedriveMaker) -> None:
    emails = [{"value": "old@example.org"}, {"value": "new@example.org", "primary": True}]
    crm.crm.create_many([{"name": "Ada King", "emails": emails, "phones": [{"value": "+44 20"}]}])
    assert values(connect(crm, {}, "email", "phone", "first_name", "last_name")) == {
        "email": "new@example.org",
        "phone": "+44 20",
        "first_name": "Ada",
        "last_name": "King",
    }


def test_custom_fields_are_read_by_names_of_ones_own_in_every_type(crm: PipedriveMaker) -> None:
    kinds: dict[str, tuple[str, Any]] = {
        "points": ("double", 12.5),
        "since": ("date", "2024-02-29"),
        "tier": ("enum", 33),
        "tags": ("set", [33, 34]),
        "spent": ("monetary", {"value": 500, "currency": "EUR"}),
        "home": ("address", {"value": "5 Fifth Avenue", "locality": "New York"}),
    }
    keys = {name: crm.crm.define(name, kind) for name, (kind, _) in kinds.items()}
    custom = {keys[name]: value for name, (_, value) in kinds.items()}
    crm.crm.create_many([{"name": "Ada", "custom_fields": custom}])
    named = keys | {"currency": f"{keys['spent']}.currency", "town": f"{keys['home']}.locality"}
    assert values(connect(crm, named, keys["since"], "id", "org_id")) == {
        "points": 12.5,
        "since": "2024-02-29",
        "tier": 33,
        "tags": "33,34",
        "spent": 500,
        "currency": "EUR",
        "home": "5 Fifth Avenue",
        "town": "New York",
        keys["since"]: "2024-02-29",  # a key needs no name
        "id": 1,
        "org_id": None,
    }


def test_more_custom_fields_than_one_question_takes_are_read(crm: PipedriveMaker) -> None:
    keys = {f"n{n}": crm.crm.define(f"n{n}", "double") for n in range(MOST_KEYS + 1)}
    crm.crm.create_many([{"name": "Ada", "custom_fields": dict.fromkeys(keys.values(), 7)}])
    assert values(connect(crm, keys)) == dict.fromkeys(keys, 7)


def test_field_of_contact_sync_is_read_where_the_company_has_it(crm: PipedriveMaker) -> None:
    crm.people(1)
    with pytest.raises(SchemaError, match="birthday: turn on contact sync") as caught:
        values(connect(crm, {}, "birthday"))
    assert caught.value.fields == ("birthday",)
    crm.crm.knobs.contact_sync = True
    assert values(connect(crm, {}, "birthday")) == {"birthday": None}


@pytest.mark.parametrize("sweeping", [True, False], ids=["sweep", "poll"])
@pytest.mark.parametrize("omits", [True, False], ids=["omits", "tells"])
@pytest.mark.parametrize("unknown", ["refused", "ignored", "null"])
def test_field_that_was_deleted_is_an_error_and_never_empty(
    crm: PipedriveMaker, unknown: str, *, omits: bool, sweeping: bool
) -> None:
    crm.crm.knobs.unknown_keys, crm.crm.knobs.omits_empty = unknown, omits
    cursor = swept(crm)
    crm.people(3, note="full")
    crm.crm.drop(crm.keys["note"])
    with pytest.raises(SchemaError, match="no field note") as caught:
        read(crm, None if sweeping else cursor)
    assert caught.value.fields == ("note",)


def test_field_that_nobody_has_filled_is_asked_about_once_per_read(crm: PipedriveMaker) -> None:
    cursor = swept(crm)
    crm.people(2 * crm.page + 1)
    before = crm.crm.requests[FIELDS]
    assert len(read(crm, cursor).live) == 2 * crm.page + 1
    assert crm.crm.requests[FIELDS] - before == 1


def test_fields_are_known_though_a_company_has_more_than_a_page_of_them(crm: PipedriveMaker) -> None:
    keys = [crm.crm.define(f"n{n}", "double") for n in range(600)]
    crm.crm.create_many([{"name": "Ada", "custom_fields": {keys[-1]: 7}}])
    assert values(connect(crm, {"last": keys[-1]})) == {"last": 7}


def test_check_says_which_field_was_meant_by_what_people_call_it(crm: PipedriveMaker) -> None:
    key, other = crm.crm.define("Loyalty points", "double"), crm.crm.define("Date", "date")
    text = crm.crm.define("Wallet at")
    named = {"wallet_at": other, "status": f"{key}.value"}
    connector = connect(
        crm, named, "loyality_points", key[:-1] + "x", "emial", last_updated="wallet_at", status="status"
    )
    told = {it.where: it.remedy for it in connector.check()}
    assert told.pop("field loyality_points") == (
        f'did you mean Loyalty points? write "loyality_points" = "{key}" under `fields`'
    )
    assert told.pop(f"field {key[:-1]}x").startswith("copy its API key from")
    assert told.pop("field emial") == "did you mean email?"
    assert told.pop("write_back.last_updated") == (
        f'did you mean Wallet at? write "wallet_at" = "{text}" under `fields`'
    )
    assert "create a person field of type Text, copy" in told.pop("write_back.status")
    assert told == {}


# Deleted and merged persons.


def test_deletion_is_told_by_polls_where_lists_tell_it(crm: PipedriveMaker) -> None:
    crm.crm.knobs.lists_deleted = True
    kept, deleted = crm.people(2)
    cursor = calm(crm, swept(crm))
    crm.delete(deleted)
    found = read(crm, cursor)
    assert found.latest[deleted].gone
    again = read(crm, None)
    assert again.live == {kept}
    assert again.latest[deleted].gone
    crm.wait(timedelta(days=31))
    assert set(read(crm, None).latest) == {kept}


def test_person_that_was_merged_away_is_gone_with_the_next_sweep(crm: PipedriveMaker) -> None:
    winner, loser = crm.put([{"name": "Ada"}, {"name": "Ada K", "email": "ada@example.org", "note": "full"}])
    cursor = calm(crm, swept(crm))
    crm.crm.merge(winner, loser)
    found = read(crm, cursor)
    assert (found.value(winner, "email"), found.value(winner, "note")) == ("ada@example.org", "full")
    assert loser not in found.latest
    assert read(crm, None).live == {winner}
    assert [it.result for it in write(crm, [written(crm, loser)])] == [Written.GONE]


@pytest.mark.parametrize("shown", [True, False], ids=["shown", "hidden"])
@pytest.mark.parametrize("status", [400, 404, 410])
def test_write_to_a_deleted_person_is_gone_however_it_is_told(
    crm: PipedriveMaker, status: int, *, shown: bool
) -> None:
    crm.crm.knobs.deleted_status, crm.crm.knobs.shows_deleted = status, shown
    deleted, kept = crm.people(2)
    crm.delete(deleted)
    outcomes = write(crm, [written(crm, deleted), written(crm, kept)])
    assert [it.result for it in outcomes] == [Written.GONE, Written.WRITTEN]


# Cursors.


def test_cursor_that_is_refused_inside_a_window_begins_the_window_again(crm: PipedriveMaker) -> None:
    made = crm.people(crm.page + 1)
    cursor = calm(crm, swept(crm))
    crm.edit(made, {"note": "edited"})
    middle = next(iter(crm.connect().changes(cursor))).cursor
    crm.crm.forget_cursors()
    before = crm.crm.requests[PERSONS]
    found = read(crm, middle)
    assert {one for one in found.live if found.value(one, "note") == "edited"} == set(made)
    assert crm.crm.requests[PERSONS] - before == 3
    assert read(crm, found.cursor).cursor


def test_list_that_does_not_move_on_ends_the_read(crm: PipedriveMaker) -> None:
    crm.people(1)
    body = {"success": True, "data": [], "additional_data": {"next_cursor": "again"}}
    crm.strike(Kind.STATUS, "persons$", status=200, body=body, times=None)
    with pytest.raises(TransientError, match="does not move on"):
        read(crm, None)


@pytest.mark.parametrize(
    "body",
    [
        {"success": True},
        {"success": False, "data": []},
        {"success": True, "data": [{}]},
        {"success": True, "data": {"id": 1}},
        {"success": True, "data": {}},
        {"success": True, "data": "none"},
        {"success": True, "data": [{"id": 1, "custom_fields": ["x"]}]},
        {"success": True, "data": [], "additional_data": ["x"]},
    ],
    ids=str,
)
def test_answer_without_a_list_is_not_an_empty_one(crm: PipedriveMaker, body: dict[str, Any]) -> None:
    crm.people(1)
    crm.strike(Kind.STATUS, "persons$", status=200, body=body, times=None)
    with pytest.raises(TransientError):
        read(crm, None)


@pytest.mark.parametrize(
    "knobs",
    [{"empty_is_null": True}, {"tells_end": False}, {"omits_empty": False}, {"restore_moves": False}],
    ids=str,
)
def test_company_that_answers_in_another_way_is_read_the_same(
    crm: PipedriveMaker, knobs: dict[str, bool]
) -> None:
    for name, value in knobs.items():
        setattr(crm.crm.knobs, name, value)
    assert read_in_steps(crm, None).live == set()
    made = crm.people(3 if "tells_end" not in knobs else crm.page + 1)
    assert read_in_steps(crm, None).live == set(made)
    cursor = calm(crm, swept(crm))
    crm.edit(made[:1], {"note": "edited"})
    assert read(crm, cursor).value(made[0], "note") == "edited"
    crm.delete(made[1])
    assert read(crm, None).live == {*made} - {made[1]}
    crm.restore(made[1])
    assert read(crm, None).live == set(made)


# Writing.


def test_refusal_is_told_by_its_code_and_nothing_else(crm: PipedriveMaker) -> None:
    (made,) = crm.people(1)
    crm.crm.knobs.refused[made] = 400, "ERR_SOMETHING"
    assert write(crm, [written(crm, made)]) == [WriteOutcome(made, Written.REFUSED, "400 ERR_SOMETHING")]


def test_persons_that_others_own_keep_none_from_being_written(crm: PipedriveMaker) -> None:
    made = crm.people(IN_A_ROW + 4)
    own = {made[1], made[-1]}
    crm.crm.knobs.refused |= dict.fromkeys({*made} - own, (403, "ERR_FORBIDDEN"))
    outcomes = write(crm, [written(crm, one) for one in made])
    assert [it.record_id for it in outcomes] == made
    assert {it.record_id for it in outcomes if it.result is Written.WRITTEN} == own
    assert {it.detail for it in outcomes if it.result is Written.REFUSED} == {"403"}


@pytest.mark.parametrize(("status", "error"), [(403, CredentialsError), (500, TransientError)])
def test_trouble_of_everybody_is_not_met_person_by_person(
    crm: PipedriveMaker, status: int, error: type[Exception]
) -> None:
    made = crm.people(2 * IN_A_ROW)
    crm.crm.knobs.refused |= dict.fromkeys(made, (status, ""))
    with pytest.raises(error):
        write(crm, [written(crm, one) for one in made])
    assert crm.crm.requests[EDITS] <= IN_A_ROW * 4


def test_value_too_long_for_a_line_is_refused_for_that_person(crm: PipedriveMaker) -> None:
    made = crm.people(2)
    key = crm.written["status"]
    outcomes = write(crm, [WriteBack(made[0], {key: "x" * 256}), WriteBack(made[1], {key: "x" * 255})])
    assert [it.result for it in outcomes] == [Written.REFUSED, Written.WRITTEN]


# Limits.


def test_headers_that_tell_nonsense_tell_nothing(crm: PipedriveMaker) -> None:
    (made,) = crm.people(1)
    body = {"success": True, "data": [crm.crm.person(made) | {"update_time": "yesterday"}]}
    names = ("x-ratelimit-remaining", "x-daily-ratelimit-token-limit", "x-daily-ratelimit-token-remaining")
    for told in ("9" * 5000, "-1", "none"):
        crm.strike(Kind.STATUS, "persons$", status=200, body=body, headers=dict.fromkeys(names, told))
        assert read(crm, None).live == {made}


def test_burst_window_that_is_used_up_is_waited_for_and_never_refused(crm: PipedriveMaker) -> None:
    made = crm.people(3 * crm.crm.knobs.burst)
    outcomes = write(crm, [written(crm, one) for one in made])
    assert {it.result for it in outcomes} == {Written.WRITTEN}
    assert crm.crm.requests[EDITS] == len(made), "no request was one too many"
    assert sum(crm.network.waits) > 0


def test_day_that_is_used_up_ends_the_read_until_it_is_looked_at_again(crm: PipedriveMaker) -> None:
    (made,) = crm.people(1)
    crm.crm.knobs.elsewhere = crm.crm.knobs.daily
    with pytest.raises(TransientError, match="of today are used up") as caught:
        read(crm, None)
    assert caught.value.retry_after == DAILY_SECONDS
    before = sum(crm.crm.requests.values())
    with pytest.raises(TransientError, match="kept for its other apps"):
        read(crm, None)
    assert sum(crm.crm.requests.values()) == before
    crm.wait(timedelta(hours=12))
    crm.crm.knobs.elsewhere = 0
    assert read(crm, None).live == {made}


def test_reserve_is_left_to_the_companys_other_apps(crm: PipedriveMaker) -> None:
    crm.people(1)
    crm.crm.knobs.elsewhere = 28_480
    read(crm, None)
    assert crm.network.allowance is not None
    assert (crm.network.allowance.allowed, crm.network.allowance.left) == (3000, 150)
    with pytest.raises(TransientError, match=r"150 of the 3000 .* last 150 are kept for its other apps"):
        read(crm, None)
    assert read(crm, None, crm.connect(reserve=0)).live


def test_company_that_tells_no_daily_budget_is_read(crm: PipedriveMaker) -> None:
    crm.crm.knobs.tells_daily = False
    crm.people(1)
    assert read(crm, None).live
    assert crm.network.allowance is None


def test_account_that_is_not_paid_for_is_said(crm: PipedriveMaker) -> None:
    crm.strike(Kind.STATUS, status=402, body={"success": False}, times=None)
    with pytest.raises(OperatorError, match="payment"):
        crm.connect().check()


# The page.


def test_every_fact_on_the_page_has_a_source_and_every_open_question_a_knob() -> None:
    text = PAGE.read_text(encoding="utf-8")
    facts, questions = text.split("## Facts, and where they are from")[1].split("### What no source settles")
    rows = re.findall(r"^\| .+ \| (.+) \|$", facts, re.MULTILINE)
    assert len(rows) > 15
    known = set(re.findall(r"^\[(\w+)\]: https://", text, re.MULTILINE))
    for source in rows[1:]:
        named = set(re.findall(r"\]\[(\w+)\]", source))
        assert named <= known, source
        assert named or "public" in source, source
    knobs = re.findall(r"^\| .+\? \| `(\w+)` \|", questions, re.MULTILINE)
    assert len(knobs) >= 8
    assert set(knobs) <= {it.name for it in fields(PipedriveKnobs)}
