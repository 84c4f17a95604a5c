"""What is particular to Dynamics 365, beside the suite that every connector passes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from dynamics_maker import DynamicsMaker

from connectors.dynamics import RENEWAL
from syncsvc.errors import CredentialsError, CursorError, OperatorError, SchemaError, TransientError
from syncsvc.model import Contact, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Needs
from syncsvc.remote.links import LinkCursor
from syncsvc.sandbox.dynamics import DynamicsKnobs
from syncsvc.sandbox.faults import Kind
from syncsvc.testing import Ground
from syncsvc.testing.reading import calm, read, swept
from syncsvc.testing.writing import AT, write, written

MINUTE = timedelta(minutes=1)
TABLE = "/api/data/v9.2/contacts$"
BATCH = ("POST", "$batch")
TOKEN = ("POST", "token")
PAGE = Path(__file__).parents[2] / "docs" / "connectors" / "dynamics.md"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=False) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[DynamicsMaker]:
    maker = DynamicsMaker(ground, tmp_path)
    yield maker
    maker.close()


def page(link: str = "", **more: Any) -> dict[str, Any]:
    return {"@odata.context": "x", "value": [], **({"@odata.nextLink": link} if link else {}), **more}


def reading(crm: DynamicsMaker, *names: str) -> Needs:
    return Needs(crm.needs().read | set(names), crm.written)


# Links.


@pytest.mark.parametrize("status", [400, 410])
def test_expired_delta_link_asks_for_a_sweep(crm: DynamicsMaker, status: int) -> None:
    crm.people(1)
    cursor = calm(crm, swept(crm))
    crm.crm.knobs.expired_status = status
    crm.wait(timedelta(days=8))
    with pytest.raises(CursorError, match="0x80044352"):
        read(crm, cursor)


def test_link_of_an_idle_table_is_renewed_before_it_expires(crm: DynamicsMaker) -> None:
    crm.people(3)
    connector = crm.connect()
    cursor = calm(crm, swept(crm))
    requests, moves, polls = crm.crm.requests["GET", "contacts"], 0, 4 * 20
    for _ in range(polls):
        crm.wait(timedelta(hours=6))
        following = read(crm, cursor, connector).cursor
        moves += following != cursor
        cursor = following
    assert crm.crm.requests["GET", "contacts"] - requests == polls
    assert moves < 20 * 3, "the cursor is written about twice a day"
    (made,) = crm.people(1)
    assert read(crm, cursor).live == {made}


@pytest.mark.parametrize("answer", ["empty", "none"])
def test_answer_without_anything_is_that_nothing_changed(crm: DynamicsMaker, answer: str) -> None:
    crm.crm.knobs.idle_answer = answer
    made = crm.people(3)
    cursor = calm(crm, swept(crm))
    for _ in range(6):
        crm.wait(timedelta(hours=24))
        assert read(crm, cursor).cursor == cursor
    crm.edit(made[:1], {"note": "edited"})
    found = read(crm, cursor)
    assert found.value(made[0], "note") == "edited"
    crm.delete(made[1])
    crm.wait(MINUTE)
    assert read(crm, found.cursor).latest[made[1]].gone
    assert read(crm, calm(crm, found.cursor)).live == set()


def test_sweep_answered_with_nothing_is_not_complete(crm: DynamicsMaker) -> None:
    crm.people(3)
    crm.strike(Kind.STATUS, TABLE, status=200, body={}, times=None)
    with pytest.raises(TransientError, match="form"):
        read(crm, None)


def test_read_by_time_answered_with_nothing_is_not_over(crm: DynamicsMaker) -> None:
    made = crm.people(3)
    cursor = swept(crm)
    crm.strike(Kind.STATUS, TABLE, status=200, body={})
    with pytest.raises(TransientError, match="form"):
        read(crm, cursor)
    assert read(crm, cursor).live == set(made)


def test_cursor_made_for_other_columns_asks_for_a_sweep(crm: DynamicsMaker) -> None:
    cursor = swept(crm)
    with pytest.raises(CursorError, match="other columns"):
        read(crm, cursor, crm.connect(reading(crm, "jobtitle")))
    assert read(crm, cursor).cursor


@pytest.mark.parametrize("sweeping", [True, False], ids=["sweep", "poll"])
def test_column_that_vanished_is_named(crm: DynamicsMaker, *, sweeping: bool) -> None:
    crm.people(1)
    cursor = swept(crm)
    crm.crm.drop_column("acme_note")
    with pytest.raises(SchemaError, match="acme_note") as caught:
        read(crm, None if sweeping else cursor)
    assert caught.value.fields == ("acme_note",)


@pytest.mark.parametrize("sweeping", [True, False], ids=["sweep", "poll"])
def test_table_that_is_not_tracked_is_said_with_its_remedy(crm: DynamicsMaker, *, sweeping: bool) -> None:
    cursor = swept(crm)
    crm.crm.knobs.tracking = False
    crm.wait(MINUTE)
    if not sweeping:
        cursor = LinkCursor.parse(cursor).model_copy(update={"base": LinkCursor.parse(cursor).last}).encode()
    with pytest.raises(OperatorError, match="turn on Track changes"):
        read(crm, None if sweeping else cursor)
    assert [it.where for it in crm.connect().check()] == ["table contact"]


def test_token_goes_nowhere_but_to_the_configured_address(crm: DynamicsMaker) -> None:
    (made,) = crm.people(1)
    link = "https://elsewhere.test/api/data/v9.2/contacts?$select=lastname,merged,_masterid_value,statecode"
    crm.strike(Kind.STATUS, TABLE, status=200, body=page(link))
    found = crm.connect(Needs(frozenset({"lastname"}), {})).changes(None)
    assert next(found).contacts == []
    with pytest.raises(TransientError, match="without a delta link"):
        next(found)  # the link's path was asked here; an untracked query ends without one
    assert made


def test_link_to_something_else_is_not_followed(crm: DynamicsMaker) -> None:
    crm.strike(Kind.STATUS, TABLE, status=200, body=page("https://x.test/api/data/v9.1/contacts?x=1"))
    with pytest.raises(OperatorError, match="api_version"):
        read(crm, None)
    cursor = LinkCursor.parse(swept(crm))
    stolen = cursor.model_copy(update={"last": cursor.last.model_copy(update={"link": "/x"})})  # type: ignore[union-attr]
    with pytest.raises(CursorError, match="environment"):
        read(crm, stolen.encode())


def test_read_that_does_not_move_on_ends(crm: DynamicsMaker) -> None:
    crm.people(crm.page + 1)
    found = crm.connect().changes(None)
    link = LinkCursor.parse(next(found).cursor).sweep
    assert link is not None
    crm.strike(Kind.STATUS, TABLE, status=200, body=page(f"https://x.test{link.link}"), times=None)
    with pytest.raises(TransientError, match="does not move on"):
        next(found)


def test_changes_while_a_sweep_reads_are_found_though_its_link_counts_past_them(crm: DynamicsMaker) -> None:
    made = sorted(crm.people(2 * crm.page + 1))
    pages = crm.connect().changes(None)
    next(pages)
    crm.wait(MINUTE)
    crm.edit(made[:1], {"note": "meanwhile"})
    crm.wait(MINUTE)
    cursor = [it.cursor for it in pages][-1]
    crm.wait(MINUTE)
    assert read(crm, cursor).value(made[0], "note") == "meanwhile"


def test_idle_poll_after_a_restart_is_a_login_and_a_request(crm: DynamicsMaker) -> None:
    crm.people(1)
    cursor = calm(crm, swept(crm))
    before = crm.network.requests
    assert read(crm, cursor).cursor == cursor
    assert crm.network.requests - before == 2


# Contacts that end, and values.


def test_deleted_contact_is_told_as_gone_and_nothing_else(crm: DynamicsMaker) -> None:
    (made,) = crm.people(1)
    cursor = calm(crm, swept(crm))
    crm.delete(made)
    assert read(crm, cursor).latest[made] == Contact(made, {}, gone=True)


def test_merged_contact_is_told_as_gone_with_its_master_by_polls_and_sweeps(crm: DynamicsMaker) -> None:
    winner, loser = crm.people(2)
    cursor = calm(crm, swept(crm))
    crm.merge(winner, loser)
    for found in (read(crm, cursor), read(crm, None)):
        merged = found.latest[loser]
        assert (merged.gone, merged.merged_into) == (True, winner)
        assert not found.latest[winner].gone


def test_deactivated_contact_is_gone_and_comes_back(crm: DynamicsMaker) -> None:
    first, second = crm.people(2)
    cursor = calm(crm, swept(crm))
    crm.crm.deactivate(first)
    found = read(crm, cursor)
    assert (found.latest[first].gone, found.latest[first].merged_into) == (True, None)
    assert read(crm, None).live == {second}
    crm.crm.activate(first)
    crm.wait(MINUTE)
    assert first in read(crm, found.cursor).live
    assert read(crm, None).live == {first, second}


def test_deactivated_contact_is_live_where_that_is_set(crm: DynamicsMaker) -> None:
    winner, loser, other = crm.people(3)
    crm.crm.deactivate(other)
    crm.merge(winner, loser)
    assert read(crm, None, crm.connect(inactive="live")).live == {winner, other}


def test_contact_deleted_and_restored_between_polls_is_live(crm: DynamicsMaker) -> None:
    (made,) = crm.people(1)
    cursor = calm(crm, swept(crm))
    crm.delete(made)
    crm.restore(made)
    assert crm.crm.knobs.ghosts, "it is told as a row, and then as deleted"
    assert read(crm, cursor).live == {made}


def test_values_keep_their_types(crm: DynamicsMaker) -> None:
    names = ("donotemail", "creditlimit", "birthdate", "statecode", "_parentcustomerid_value", "jobtitle")
    company = "11111111-2222-4333-8444-555555555555"
    (made,) = crm.crm.create_many([{"lastname": "Zebra", "creditlimit": 12.5, "birthdate": "1990-02-03"}])
    row = crm.crm.contact(made)
    assert row["donotemail"] is None
    crm.crm.update(made, {"donotemail": True})
    crm.crm._table._rows[made].values["_parentcustomerid_value"] = company  # type: ignore[index]
    fields = read(crm, None, crm.connect(reading(crm, *names))).latest[made].fields
    assert [fields[name] for name in names] == [True, 12.5, "1990-02-03", 0, company, None]


# What check says.


def test_check_tells_of_columns_that_cannot_serve(crm: DynamicsMaker) -> None:
    crm.crm.define("acme_day", "DateTime", date_only=True)
    crm.crm.define("acme_sum", "Integer", source=2)
    read_by = {"acme_sum", "parentcustomerid", "_parentcustomerid_value", "emailadress1"}
    needs = Needs(frozenset(read_by), {"last_updated": "acme_day", "status": "fullname"})
    told = {it.where: f"{it.message} {it.remedy}" for it in crm.connect(needs).check()}
    assert set(told) == {
        "column acme_sum",
        "column parentcustomerid",
        "column emailadress1",
        "write_back.last_updated",
        "write_back.status",
    }
    assert "rollup" in told["column acme_sum"]
    assert "did you mean emailaddress1?" in told["column emailadress1"]
    assert "did you mean _parentcustomerid_value?" in told["column parentcustomerid"]
    assert "date and time" in told["write_back.last_updated"]
    assert "cannot be written" in told["write_back.status"]


def test_check_tells_how_a_missing_column_is_made(crm: DynamicsMaker) -> None:
    needs = Needs(frozenset(), {"last_updated": "acme_at", "status": "lastname_x"})
    at, status = (it.remedy for it in crm.connect(needs).check())
    assert "create it in Power Apps: date and time" in at
    assert "single line of text, 255 characters" in status


def test_check_tells_of_a_status_column_that_is_too_short_for_a_reason(crm: DynamicsMaker) -> None:
    crm.crm.define("acme_short", length=100)
    (problem,) = crm.connect(Needs(frozenset(), {"status": "acme_short"})).check()
    assert (problem.where, "255 characters" in problem.remedy) == ("write_back.status", True)


# Logging in.


@pytest.mark.parametrize(
    ("secret", "client", "tenant", "told"),
    [
        ("wrong", None, None, "invalid_client AADSTS7000215.*a secret of the app"),
        (None, "other", None, "unauthorized_client AADSTS700016.*client_id and tenant"),
        (None, None, "other.example", "invalid_request AADSTS90002.*tenant"),
    ],
)
def test_refused_login_is_told_with_entras_number_and_a_remedy(
    crm: DynamicsMaker, secret: str | None, client: str | None, tenant: str | None, told: str
) -> None:
    auth = crm.settings()["auth"] | ({"tenant": tenant} if tenant else {})
    for name, content in (("secret", secret), ("client", client)):
        if content:
            (crm.folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(CredentialsError, match=told):
        crm.connect(auth=auth).check()
    assert crm.crm.requests[TOKEN] == 1


def test_secret_that_cannot_be_read_is_named(crm: DynamicsMaker) -> None:
    (crm.folder / "secret").unlink()
    with pytest.raises(CredentialsError, match=r"auth\.client_secret: file .* cannot be read"):
        crm.connect().check()
    assert crm.network.requests == 0


def test_token_is_replaced_before_its_end_without_a_refused_call(crm: DynamicsMaker) -> None:
    connector, cursor = crm.connect(), calm(crm, swept(crm))
    before = crm.crm.requests.copy()
    for _ in range(12):
        crm.wait(10 * MINUTE)
        assert read(crm, cursor, connector).cursor == cursor
    assert crm.crm.requests - before == {TOKEN: 2, ("GET", "contacts"): 12}


def test_app_that_is_no_user_of_the_environment_is_told_so(crm: DynamicsMaker) -> None:
    crm.crm.knobs.member = False
    with pytest.raises(CredentialsError, match=r"0x80072560.*security role"):
        read(crm, None)


# Writing.


def test_write_to_a_deleted_contact_does_not_create_it_anew(crm: DynamicsMaker) -> None:
    (made,) = crm.people(1)
    crm.delete(made)
    assert write(crm, [written(crm, made)]) == [WriteOutcome(made, Written.GONE)]
    assert crm.crm.contacts() == []


def test_refusal_is_told_by_its_code_and_meaning_alone(crm: DynamicsMaker) -> None:
    refused, long, other = crm.people(3)
    crm.refuse(refused)
    outcomes = write(crm, [written(crm, refused), written(crm, long, status="x" * 300), written(crm, other)])
    assert [it.detail for it in outcomes] == [
        "0x80040265, a plug-in of the environment refuses it",
        "0x80044331, a value is too long",
        "",
    ]


def test_right_to_write_one_contact_is_its_own_matter(crm: DynamicsMaker) -> None:
    mine, theirs = crm.people(2)
    crm.crm.knobs.forbidden.add(theirs)
    outcomes = write(crm, [written(crm, mine), written(crm, theirs)])
    assert [it.result for it in outcomes] == [Written.WRITTEN, Written.REFUSED]
    assert outcomes[1].detail == "0x80040220"
    crm.crm.knobs.forbidden.add(mine)
    with pytest.raises(CredentialsError, match="organization-level"):
        write(crm, [written(crm, mine), written(crm, theirs)])


def test_merged_contact_whose_master_is_written_too_is_written_once(crm: DynamicsMaker) -> None:
    winner, loser = crm.people(2)
    crm.merge(winner, loser)
    later = written(crm, winner, at=AT + MINUTE)
    outcomes = write(crm, [written(crm, loser), later])
    assert outcomes == [WriteOutcome(winner, Written.MERGED), WriteOutcome(winner, Written.WRITTEN)]
    assert crm.holds(winner)["last_updated"] == AT + MINUTE
    assert crm.crm.requests[BATCH] == 1


def test_chain_of_merges_is_written_at_its_end(crm: DynamicsMaker) -> None:
    first, second, third = crm.people(3)
    crm.merge(second, first)
    crm.merge(third, second)
    assert write(crm, [written(crm, first)]) == [WriteOutcome(third, Written.MERGED)]
    assert crm.holds(third)["last_updated"] == AT


def test_merged_contact_that_takes_no_writes_is_an_outcome_and_its_merge_is_told(crm: DynamicsMaker) -> None:
    winner, loser, other = crm.people(3)
    cursor = calm(crm, swept(crm))
    crm.merge(winner, loser)
    crm.crm.knobs.merged_writable = False
    outcomes = write(crm, [written(crm, loser), written(crm, other)])
    assert [it.result for it in outcomes] == [Written.REFUSED, Written.WRITTEN]
    assert read(crm, cursor).latest[loser].merged_into == winner


def test_batch_that_ends_early_leaves_the_rest_for_later(crm: DynamicsMaker) -> None:
    made = crm.people(3)
    ok = b"Content-Type: application/http\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n\r\n"
    body = b"--r\r\n" + ok + b"--r--\r\n"
    kind = {"Content-Type": "multipart/mixed; boundary=r"}
    crm.strike(Kind.STATUS, "batch", status=200, body=body, headers=kind)
    outcomes = write(crm, [written(crm, one) for one in made])
    assert [it.result for it in outcomes] == [Written.WRITTEN, Written.RETRY, Written.RETRY]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/mixed; boundary=r", b"--r--\r\n"),
        ("multipart/mixed; boundary=r", b"--r\r\nContent-Type: application/http\r\n\r\nnothing\r\n--r--\r\n"),
        ("multipart/mixed", b"--r--"),
        ("application/json", json.dumps({"value": []}).encode()),
    ],
)
def test_batch_answered_with_something_else_is_tried_again(
    crm: DynamicsMaker, kind: str, body: bytes
) -> None:
    (made,) = crm.people(1)
    fault = crm.strike(Kind.STATUS, "batch", status=200, body=body, headers={"Content-Type": kind})
    assert write(crm, [written(crm, made)])[0].result is Written.WRITTEN
    assert fault.struck == 1


def test_limit_inside_a_batch_is_tried_again_later(crm: DynamicsMaker) -> None:
    (made,) = crm.people(1)
    error = json.dumps({"error": {"code": "0x80072326", "message": "zebra"}}).encode()
    part = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\n\r\n" + error
    body = b"--r\r\nContent-Type: application/http\r\n\r\n" + part + b"\r\n--r--\r\n"
    kind = {"Content-Type": "multipart/mixed; boundary=r"}
    crm.strike(Kind.STATUS, "batch", status=200, body=body, headers=kind)
    assert write(crm, [written(crm, made)]) == [WriteOutcome(made, Written.RETRY, "0x80072326")]


def test_only_what_is_given_is_sent(crm: DynamicsMaker) -> None:
    (made,) = crm.people(1)
    write(crm, [WriteBack(made, {"acme_walletstatus": 'a "quote" é 😀\r\n--batch_x'})])
    assert [it.values for it in crm.crm.writes] == [{"acme_walletstatus": 'a "quote" é 😀\r\n--batch_x'}]


def test_size_of_batches_and_pages_is_set(crm: DynamicsMaker) -> None:
    made = crm.people(5)
    connector = crm.connect(batch_size=2, page_size=2)
    assert len(list(connector.changes(None))) == 3
    list(connector.write_back([written(crm, one) for one in made]))
    assert crm.crm.requests[BATCH] == 3


# What the page says.


def test_every_fact_of_the_page_has_its_source_and_every_open_question_its_knob() -> None:
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
    assert set(knobs) <= {it.name for it in fields(DynamicsKnobs)}


def test_links_are_renewed_well_before_they_expire() -> None:
    assert timedelta(hours=1) < RENEWAL < timedelta(days=DynamicsKnobs().expire_days / 3)
