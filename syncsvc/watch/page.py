"""The status page: what an operator looks at, as HTML that needs nothing else.

No script, no image, no font, no request but for itself: it works through an SSH tunnel and under a content
security policy that allows its own style alone. It shows names of organizations and connectors, record ids,
reasons and counts; never a person.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from syncsvc.watch.redaction import redacted
from syncsvc.watch.report import CycleReport, Outcome, Turn

SECURITY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'none'"
"""The content security policy it is served under."""

SHOWN = 60
"""How many cycles the chart of an organization shows, the last ones."""

MOST_IN_FULL = 12
"""Up to so many organizations are shown in full on the first page; more are listed there by name."""

MOST_ELSEWHERE = 200
"""Up to so many organizations that other replicas run are listed; of the others each has its own page."""

ORGANIZATIONS = "/organizations/"
"""What the path of an organization's own page begins with."""

_REFRESH_SECONDS = 15
_BAR, _GAP, _HEIGHT, _LEAST = 10, 4, 64, 6


class Condition(StrEnum):
    """How an organization is: the worse sorts later."""

    GOOD = "good"  # it delivers, and nothing waits
    WAIT = "wait"  # it delivers, and something waits for a person
    BAD = "bad"  # it does not deliver


@dataclass(frozen=True, slots=True)
class Tenure:
    """The replica that runs an organization, since when, and until when unless its lease is renewed."""

    replica: str
    since: datetime
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What the page shows of one organization.

    `ready` and `facts` are those of /readyz. `pauses` are what people stopped, with the command that lets it
    go on; `holds` what brakes hold, by their numbers; `refusals` the newest contacts, rows and write-backs in
    quarantine, as `Reports.refusals` returns them. `tenure` is of where several services share a state.
    """

    name: str
    ready: bool
    facts: Mapping[str, Any]
    turns: Sequence[Turn] = ()
    pauses: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[int, str] = field(default_factory=dict)
    refusals: Sequence[Mapping[str, Any]] = ()
    tenure: Tenure | None = None

    @property
    def last(self) -> CycleReport | None:
        """Its last cycle."""
        return self.turns[-1].report if self.turns else None

    @property
    def condition(self) -> Condition:
        """How it is."""
        if not self.ready:
            return Condition.BAD
        last = self.last
        waits = last is not None and (
            last.in_doubt or last.held or last.quarantined or last.points_paid_twice or last.errors
        )
        return Condition.WAIT if waits or self.holds or self.pauses else Condition.GOOD


def overview(
    cards: Sequence[Card],
    *,
    version: str,
    now: datetime,
    elsewhere: Mapping[str, Tenure | None] | None = None,
) -> bytes:
    """Return the first page: every organization in full, or, where they are many, a list of them.

    Those that need somebody come first; last, as a list, those that are run `elsewhere`, or by nobody yet.
    """
    worst_first = sorted(cards, key=lambda it: (-list(Condition).index(it.condition), it.name))
    needy = sum(it.condition is not Condition.GOOD for it in cards)
    here = " here" if elsewhere else ""
    told = f"{len(cards):,} organization{'' if len(cards) == 1 else 's'}{here}, "
    told += f"{needy:,} need{'s' if needy == 1 else ''} a look" if needy else "all well"
    listed = len(cards) > MOST_IN_FULL
    return _page(worst_first, told, version=version, now=now, listed=listed, elsewhere=elsewhere)


def detail(card: Card, *, version: str, now: datetime) -> bytes:
    """Return the page of one organization."""
    return _page([card], card.name, version=version, now=now, alone=True)


def referral(name: str, tenure: Tenure | None, *, version: str, now: datetime) -> bytes:
    """Return the page of an organization that is not run here: by whom it is."""
    return _page([], name, version=version, now=now, alone=True, elsewhere={name: tenure})


def path_of(organization: str) -> str:
    """Return the path of an organization's own page."""
    return ORGANIZATIONS + quote(organization, safe="")


def _page(
    cards: Sequence[Card],
    told: str,
    *,
    version: str,
    now: datetime,
    listed: bool = False,
    alone: bool = False,
    elsewhere: Mapping[str, Tenure | None] | None = None,
) -> bytes:
    facts: dict[str, Any] = {
        "refresh": _REFRESH_SECONDS,
        "style": _style(),
        "version": version,
        "now": _moment(now),
    }
    shown = [_shown(card, now) for card in cards]
    others = [(name, path_of(name), *_told_of(it)) for name, it in sorted((elsewhere or {}).items())]
    facts |= {"others": others[:MOST_ELSEWHERE], "more": max(0, len(others) - MOST_ELSEWHERE)}
    return _template().render(facts, told=told, cards=shown, listed=listed, alone=alone).encode()


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("syncsvc.watch", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html")


@cache
def _style() -> Markup:
    return Markup(files("syncsvc.watch").joinpath("page.css").read_text(encoding="utf-8"))  # noqa: S704 - our own


def _shown(card: Card, now: datetime) -> dict[str, Any]:
    """Return what the template shows of an organization, as texts and numbers."""
    last, seconds = card.last, card.facts.get("last_proven_seconds")
    return {
        "name": card.name,
        "path": path_of(card.name),
        "condition": str(card.condition),
        "told": _CONDITIONS[card.condition],
        "proven": "no good cycle yet" if seconds is None else f"last good cycle {_ago(seconds)}",
        "sentences": list(_sentences(card)),
        "last": last is not None,
        "counts": ("", "", "") if last is None else (last.in_doubt, last.held, last.quarantined),
        "numbers": [] if last is None else _numbers(card.turns, last),
        "chart": _chart(card.turns),
        "connectors": [] if last is None else list(_connectors(card.turns, last, now)),
        "waiting": list(_waiting(card)),
        "refusals": [
            {
                "connector": it["connector"],
                "record": it["record"],
                "side": it["side"],
                "reason": redacted(f"{it['field']}: {it['reason']}"),
                "since": _ago((now - it["since"]).total_seconds()),
            }
            for it in card.refusals
        ],
    }


_CONDITIONS = {
    Condition.GOOD: "delivers",
    Condition.WAIT: "delivers, something waits",
    Condition.BAD: "does not deliver",
}


def _told_of(tenure: Tenure | None) -> tuple[str, str, str]:
    if tenure is None:
        return "nobody yet", "", ""
    return tenure.replica, _moment(tenure.since), _moment(tenure.until)


def _sentences(card: Card) -> Iterator[str]:
    if card.tenure is not None:
        replica, since, until = _told_of(card.tenure)
        yield f"Run by {replica} since {since}; its lease lasts until {until} unless it is renewed."
    if "stuck_seconds" in card.facts:
        yield f"Its cycle has made no progress: the last was {_ago(card.facts['stuck_seconds'])}."
    if card.facts.get("configuration") == "broken":
        yield "Its file is broken, see the log; until it is mended the last good one counts."
    if card.last is None:
        yield "No cycle has ended since the service started."
    else:
        yield from (redacted(error) for error in card.last.errors)


def _numbers(turns: Sequence[Turn], last: CycleReport) -> list[tuple[str, int, bool]]:
    """Return the name of each number, the number, and whether one above zero asks for somebody."""
    reports = [turn.report for turn in turns]
    return [
        ("rows landed", sum(it.rows_landed for it in reports), False),
        ("points landed", sum(it.points_landed for it in reports), False),
        ("written back", sum(it.written_back for it in reports), False),
        ("in doubt", last.in_doubt, True),
        ("held", last.held, True),
        ("quarantined", last.quarantined, True),
    ]


def _chart(turns: Sequence[Turn]) -> dict[str, Any]:
    most = max((turn.report.rows_landed for turn in turns), default=0)
    busiest = f"the busiest landed {most:,} rows" if most else "none had anything to send"
    return {
        "width": SHOWN * (_BAR + _GAP),
        "height": _HEIGHT,
        "caption": f"the last {min(len(turns), SHOWN)} cycles, oldest first; {busiest}",
        "bars": [_bar(number, turn, most) for number, turn in enumerate(turns[-SHOWN:])],
    }


def _bar(number: int, turn: Turn, most: int) -> dict[str, Any]:
    report = turn.report
    # By logarithm: a first load of a million must not flatten the edits of every day.
    share = math.log1p(report.rows_landed) / math.log1p(most) if most else 0.0
    idle = report.outcome is Outcome.OK and not report.rows_landed
    return {
        "kind": "idle" if idle else str(report.outcome),
        "x": number * (_BAR + _GAP),
        "width": _BAR,
        "height": _LEAST + round((_HEIGHT - _LEAST) * share),
        "told": f"{_moment(turn.at)}: {report.outcome}, {report.rows_landed:,} rows landed "
        f"in {report.duration:.1f} s",
    }


def _connectors(turns: Sequence[Turn], last: CycleReport, now: datetime) -> Iterator[dict[str, str]]:
    for name, it in last.connectors.items():
        reports = (turn.report.connectors.get(name) for turn in reversed(turns))
        until = next((found.read_until for found in reports if found and found.read_until), None)
        told = it.calls_left is not None and it.calls_allowed is not None
        yield {
            "name": name,
            "cursor": "not read to its end yet" if until is None else f"{_span(now - until)} behind",
            "calls": f"{it.calls_left:,} of {it.calls_allowed:,}" if told else "it does not tell",
        }


def _waiting(card: Card) -> Iterator[tuple[str, str]]:
    yield from ((redacted(pause), command) for pause, command in card.pauses.items())
    yield from ((redacted(hold), "syncsvc release") for hold in card.holds.values())
    if card.last is not None and (card.last.in_doubt or card.last.held):
        yield f"{card.last.in_doubt:,} rows in doubt, {card.last.held:,} held", "syncsvc doubt"
    if card.last is not None and card.last.points_paid_twice:
        yield f"{card.last.points_paid_twice:,} points may be awarded twice", "syncsvc doubt"


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _ago(seconds: float) -> str:
    return f"{_span(timedelta(seconds=seconds))} ago"


def _span(span: timedelta) -> str:
    seconds = max(0, round(span.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:,} {unit}"
    return f"{seconds} s"
