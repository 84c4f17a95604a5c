"""The order of a cycle, and silence when nothing has changed."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from enginelab import IMPORT, LOG, Lab
from grounds import GROUNDS
from quicklab import QuickLab
from sqlalchemy import Engine, event

from syncsvc.testing.memory import MemoryCrm
from syncsvc.watch.report import Outcome


def test_a_first_cycle_delivers_confirms_and_writes_back(lab: Lab) -> None:
    lab.crm.put("a", points=120)
    lab.crm.put("b", points=0)
    report = lab.cycle()
    assert report.outcome is Outcome.OK
    assert (lab.awarded("a@example.org"), lab.awarded("b@example.org")) == (120, 0)
    assert lab.crm.records["a"]["wallet_time"] == "2026-11-02T12:01:00Z"
    assert lab.crm.records["a"]["wallet_status"] == lab.crm.records["b"]["wallet_status"] == "imported"
    assert (report.points_sent, report.points_landed, report.written_back) == (120, 120, 2)
    assert dict(report.lanes) == {"points": 1, "profile": 1}
    lab.balanced()


def test_a_cycle_goes_in_its_order(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    report = lab.cycle()
    assert list(report.stages) == ["settle", "pull", "brakes", "plan", "deliver", "confirm", "write_back"]
    seen = [
        (it.record_id, lab.wallet.member("brand-1", "a@example.org") is not None) for it in lab.crm.writes
    ]
    assert seen == [("a", True)]


def test_a_cycle_without_news_sends_asks_and_writes_nothing(lab: Lab) -> None:
    for number in range(5):
        lab.crm.put(f"r{number}", points=number)
    lab.cycle()
    lab.cycle()  # our own write-backs come home once
    before = lab.contents(), lab.ground.written()
    requests, writes, asked = dict(lab.wallet.requests), len(lab.crm.writes), lab.crm.asked
    report = lab.cycle(after=1)
    assert (lab.contents(), lab.ground.written()) == before
    assert dict(lab.wallet.requests) == requests
    assert (len(lab.crm.writes), lab.crm.asked) == (writes, asked + 1)
    assert report.connectors["crm"].requests == 1
    assert report.outcome is Outcome.OK


def test_an_overlap_that_is_read_again_writes_nothing(lab: Lab) -> None:
    lab.crm.overlap = 50
    for number in range(5):
        lab.crm.put(f"r{number}", points=number)
    lab.cycle()
    lab.cycle()
    before = lab.contents()
    report = lab.cycle(after=1)
    assert (report.read, report.changed, report.echoes) == (5, 0, 0)
    assert lab.contents() == before


def test_a_write_back_that_comes_home_is_an_echo_and_costs_no_import(lab: Lab) -> None:
    lab.crm.overlap = 50
    for record in ("a", "b", "c"):
        lab.crm.put(record, points=1)
    assert (lab.cycle().written_back, lab.asks(IMPORT)) == (3, 1)
    lab.crm.put("b", name="Eve")  # changed by a person too: news, and no echo
    report = lab.cycle()
    assert (report.read, report.changed, report.echoes, lab.asks(IMPORT)) == (3, 1, 2, 2)
    assert report.written_back == 1
    assert (lab.cycle().echoes, lab.cycle().echoes, lab.asks(IMPORT)) == (1, 0, 2)


def test_the_log_is_read_again_after_log_every_and_not_before(lab: Lab) -> None:
    lab.crm.put("a", points=3)
    lab.cycle()
    reads = lab.asks(LOG)
    lab.cycle(after=298)
    assert lab.asks(LOG) == reads
    lab.cycle(after=3)
    assert lab.asks(LOG) == reads + 1


def test_a_contact_edited_there_and_back_between_cycles_sends_nothing(lab: Lab) -> None:
    lab.crm.put("a", points=10, name="Ada")
    lab.cycle()
    lab.cycle()
    imports = lab.asks(IMPORT)
    lab.crm.put("a", points=90, name="Eve")
    lab.crm.put("a", points=10, name="Ada")
    lab.cycle()
    assert lab.asks(IMPORT) == imports


def test_an_edit_of_a_field_that_is_not_mapped_sends_nothing(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    imports = lab.asks(IMPORT)
    lab.crm.put("a", shoe_size=44)
    lab.cycle()
    assert lab.asks(IMPORT) == imports


def test_a_change_that_commits_late_is_found_in_the_overlap(lab: Lab) -> None:
    lab.crm.overlap = 5
    lab.crm.put("a", points=1)
    lab.crm.put("b", points=1)
    lab.cycle()
    lab.crm.put("c", points=1)
    lab.cycle()
    lab.crm.commit_late("late", behind=1, points=7)
    lab.cycle()
    assert lab.awarded("late@example.org") == 7


def test_the_time_of_a_movement_by_others_is_written_back(lab: Lab) -> None:
    lab.crm.put("a", points=1)
    lab.cycle()
    lab.wait(30)
    lab.wallet.award("brand-1", "A@Example.org", 500)
    lab.cycle(after=600)
    assert lab.crm.records["a"]["wallet_time"] == "2026-11-02T12:01:30Z"
    assert lab.awarded("a@example.org") == 1


def test_two_connectors_are_each_asked_once(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab(connectors={"crm": {}, "shop": {}})
    shop: MemoryCrm = lab.crms["shop"]
    lab.crm.put("a", points=1)
    shop.put("z", points=2)
    lab.cycle()
    lab.cycle()
    asked = lab.crm.asked, shop.asked
    lab.cycle()
    assert (lab.crm.asked, shop.asked) == (asked[0] + 1, asked[1] + 1)


FEW = {"brand", "connector", "organization", "hold", "json_each", "pairs", "decision", "noticed"}
"""What may be looked at as a whole, as it does not grow with contacts or with time."""


@pytest.mark.parametrize("log_every", ["10m", "1ms"])
@pytest.mark.parametrize("change", [False, True])
def test_no_cycle_looks_at_whatever_there_is_of_members_contacts_or_history(
    open_quick: Callable[..., QuickLab], monkeypatch: pytest.MonkeyPatch, log_every: str, *, change: bool
) -> None:
    monkeypatch.setattr(GROUNDS, "server", None)  # the planner of a file tells what it would look at
    lab = open_quick(schedule={"log_every": log_every})
    for number in range(5):
        lab.crm.put(f"r{number}", points=number)
    lab.calm()
    if change:
        lab.crm.put("r1", points=50)
    asked: dict[str, Any] = {}

    def note(_c: object, _u: object, statement: str, parameters: Any, _x: object, many: bool) -> None:  # noqa: FBT001 - as it is called
        asked.setdefault(statement, parameters[0] if many or isinstance(parameters, list) else parameters)

    event.listen(Engine, "before_cursor_execute", note)
    lab.cycle()
    event.remove(Engine, "before_cursor_execute", note)
    scanned = {}
    with closing(sqlite3.connect(lab.folder / "lab.db")) as connection:
        for statement, parameters in asked.items():
            if not statement.startswith(("SELECT", "WITH", "UPDATE", "INSERT", "DELETE")):
                continue
            for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters):
                scan = re.match(r"SCAN (\w+)", row[-1])
                if scan and scan[1] not in FEW and "LIMIT" not in statement:
                    scanned[row[-1]] = statement
    assert scanned == {}


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
def test_ids_of_any_length_are_known_again(quick: QuickLab, page_size: int) -> None:
    quick.crm.page_size = page_size
    ids = ["9", "10", "99", "100", "0", "000", "00000000-0000", "é", "z"]
    for record_id in ids:
        quick.crm.put(record_id, email=f"m{ids.index(record_id)}@example.org", points=7)
    assert quick.cycle().changed == len(ids)
    for record_id in ids[:3]:
        quick.crm.put(record_id, points=8)
    quick.crm.put("11", points=1)
    report = quick.cycle(full=True)
    assert (report.changed, report.rows_landed, report.points_landed) == (4, 4, 4)
    quick.silent()
