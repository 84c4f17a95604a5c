"""The status page as text: what it shows, in what order, and that it shows nothing that could act."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from syncsvc.watch.page import (
    MOST_ELSEWHERE,
    MOST_IN_FULL,
    SHOWN,
    Card,
    Condition,
    Tenure,
    detail,
    overview,
    path_of,
    referral,
)
from syncsvc.watch.report import ConnectorReport, CycleReport, Outcome, Turn

NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)


class Elements(HTMLParser):
    """The text of a page, and the attributes of its elements by tag; an element left open is an error."""

    VOID = frozenset({"meta"})

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(page.decode())
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(it for it in self.texts if it)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]


def turn(minutes_ago: float = 1, **facts: Any) -> Turn:
    given: dict[str, Any] = {"organization": "acme", "cycle": "c", "outcome": Outcome.OK, **facts}
    return Turn(NOW - timedelta(minutes=minutes_ago), CycleReport(**given))


def card(name: str = "acme", *, ready: bool = True, **more: Any) -> Card:
    facts = more.pop("facts", {"ready": ready, "last_proven_seconds": 12.0})
    return Card(name=name, ready=ready, facts=facts, **more)


def shown(*cards: Card, elsewhere: Mapping[str, Tenure | None] | None = None) -> Elements:
    return Elements(overview(cards, version="1.0", now=NOW, elsewhere=elsewhere))


def test_an_organization_that_delivers_says_so_and_asks_for_nobody() -> None:
    page = shown(card(turns=[turn(rows_landed=7, points_landed=1234, written_back=7)]))
    assert "1 organization, all well" in page.text
    assert "acme delivers last good cycle 12 s ago" in page.text
    assert "7 rows landed 1,234 points landed 7 written back" in page.text
    assert "Waits for a person" not in page.text


def test_what_needs_somebody_comes_first_and_names_the_command() -> None:
    waits = card("waits", turns=[turn(in_doubt=3, held=1)], holds={4: "too many points"})
    page = shown(
        card("a", turns=[turn()]), waits, card("down", ready=False, turns=[turn(errors=("wallet: 401",))])
    )
    assert "3 organizations, 2 need a look" in page.text
    assert page.text.index("down") < page.text.index("waits") < page.text.rindex("a delivers")
    assert "too many points → syncsvc release" in page.text
    paused = shown(card(turns=[turn()], pauses={"crm was paused by ann": "syncsvc resume -o a crm"}))
    assert "crm was paused by ann → syncsvc resume -o a crm" in paused.text
    assert "3 rows in doubt, 1 held → syncsvc doubt" in page.text
    assert "wallet: 401" in page.text
    assert "points may be awarded twice" not in page.text
    twice = shown(card(turns=[turn(points_paid_twice=1225)]))
    assert "1,225 points may be awarded twice → syncsvc doubt" in twice.text


@pytest.mark.parametrize(
    ("it", "condition"),
    [
        (card(turns=[turn()]), Condition.GOOD),
        (card(turns=[turn(quarantined=1)]), Condition.WAIT),
        (card(turns=[turn(held=1)]), Condition.WAIT),
        (card(turns=[turn(points_paid_twice=1)]), Condition.WAIT),
        (card(turns=[turn(errors=("crm: 403",))]), Condition.WAIT),
        (card(turns=[turn()], holds={1: "x"}), Condition.WAIT),
        (card(turns=[turn()], pauses={"crm was paused": "syncsvc resume crm"}), Condition.WAIT),
        (card(turns=[turn(in_doubt=1)], ready=False), Condition.BAD),
        (card(ready=False), Condition.BAD),
    ],
)
def test_an_organization_is_good_waits_or_is_bad(it: Card, condition: Condition) -> None:
    assert it.condition is condition


def test_the_chart_has_one_bar_a_cycle_by_outcome_and_the_busiest_is_the_highest() -> None:
    turns = [turn(5, rows_landed=100), turn(4), turn(3, rows_landed=10), turn(2, outcome=Outcome.TRANSIENT)]
    bars = shown(card(turns=turns)).all("rect")
    assert [it["class"] for it in bars] == ["ok", "idle", "ok", "transient"]
    heights = [int(it["height"] or 0) for it in bars]
    assert heights[0] > heights[2] > heights[1] == heights[3]
    assert len(shown(card(turns=[turn()] * (SHOWN + 5))).all("rect")) == SHOWN


def test_a_connector_tells_how_far_it_has_read_also_where_the_last_cycle_did_not_read_to_the_end() -> None:
    read = ConnectorReport(read_until=NOW - timedelta(minutes=3), calls_left=90, calls_allowed=1000)
    page = shown(
        card(
            turns=[
                turn(connectors={"crm": read, "new": ConnectorReport()}),
                turn(connectors={"crm": ConnectorReport(), "new": ConnectorReport()}),
            ]
        )
    )
    assert "crm 3 min behind it does not tell" in page.text
    assert "new not read to its end yet" in page.text


def test_refusals_are_shown_by_record_id_with_their_reason() -> None:
    refusal = {"connector": "crm", "record": "003A", "side": "mapping", "field": "points"}
    refusal |= {"reason": "is no whole number", "since": NOW - timedelta(hours=3)}
    page = shown(card(turns=[turn(quarantined=1)], refusals=[refusal]))
    assert "crm 003A mapping points: is no whole number 3 h ago" in page.text


def test_stuck_cycles_broken_files_and_a_start_without_a_cycle_are_said() -> None:
    stuck = card(
        ready=False, facts={"stuck_seconds": 700.0, "last_proven_seconds": None, "configuration": "broken"}
    )
    text = shown(stuck).text
    assert "no progress: the last was 11 min ago" in text
    assert "Its file is broken" in text
    assert "No cycle has ended" in text
    assert "no good cycle yet" in text


def test_many_organizations_are_a_list_that_leads_to_each() -> None:
    page = shown(*(card(f"org {number}", turns=[turn()]) for number in range(MOST_IN_FULL + 1)))
    assert len(page.all("article")) == 1
    assert "/organizations/org%203" in {it["href"] for it in page.all("a")}
    own = Elements(detail(card("org 3", turns=[turn()]), version="1.0", now=NOW))
    assert (len(own.all("svg")), "/" in {it["href"] for it in own.all("a")}) == (1, True)


def test_nothing_on_the_page_can_act_and_nothing_is_fetched() -> None:
    bad = "<script>alert(1)</script>\"'"
    refusal = {"connector": bad, "record": bad, "side": bad, "field": bad, "reason": bad, "since": NOW}
    page = shown(
        card(
            bad,
            turns=[turn(errors=(bad,), connectors={bad: ConnectorReport()}, quarantined=1)],
            holds={1: bad},
            refusals=[refusal],
        ),
        elsewhere={bad: Tenure(bad, NOW, NOW)},
    )
    tags = {tag for tag, _ in page.found}
    assert tags.isdisjoint({"script", "img", "link", "iframe", "form", "object", "embed"})
    outward = [
        it for tag, attributes in page.found for name, it in attributes.items() if name in {"src", "href"}
    ]
    assert all(it is not None and it.startswith("/") for it in outward)
    assert path_of(bad) in outward
    assert page.text.count("alert(1)") >= 9


def test_an_email_or_a_secret_in_a_reason_is_not_shown() -> None:
    page = shown(card(turns=[turn(errors=("user jane@example.org: Bearer abcdefghijklmnop",))]))
    assert "jane@example.org" not in page.text
    assert "abcdefghijklmnop" not in page.text


def test_what_other_replicas_run_is_listed_and_told_on_a_page_of_its_own() -> None:
    tenure = Tenure("syncsvc 7 on web-2", NOW - timedelta(hours=1), NOW + timedelta(seconds=30))
    elsewhere = {f"org {number:03}": tenure for number in range(MOST_ELSEWHERE)}
    here = card(turns=[turn()], tenure=tenure)
    page = Elements(overview([here], version="1.0", now=NOW, elsewhere={**elsewhere, "zoo": None}))
    assert "1 organization here, all well" in page.text
    told = "syncsvc 7 on web-2 since 2026-11-02 11:00:00 UTC; its lease lasts until 2026-11-02 12:00:30 UTC"
    assert f"Run by {told} unless it is renewed." in page.text
    assert page.text.count("syncsvc 7 on web-2 2026-11-02 11:00:00 UTC") == MOST_ELSEWHERE
    assert "and 1 more: /organizations/NAME" in page.text
    assert "/organizations/org%20003" in {it["href"] for it in page.all("a")}
    free = Elements(referral("zoo", None, version="1.0", now=NOW))
    assert "zoo nobody yet" in free.text
