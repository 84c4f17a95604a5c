"""When people are told: once for each change, not again while it stays so."""

from __future__ import annotations

import pytest

from syncsvc.rules.alerting import Situation, Told, Waiting, news


def situation(
    *, delivering: bool = True, degraded: bool | None = False, errors: tuple[str, ...] = (), **waiting: object
) -> Situation:
    return Situation(delivering, degraded, Waiting(**waiting), errors)  # type: ignore[arg-type]


GOOD = situation()


def story(*situations: Situation) -> list[list[str]]:
    """Return what is told of each situation, one after the other."""
    told, said = Told(), []
    for it in situations:
        lines, told = news(told, it)
        said.append(lines)
    return said


def test_an_organization_that_is_well_is_no_news() -> None:
    assert story(GOOD, GOOD) == [[], []]


@pytest.mark.parametrize(
    ("bad", "begins", "ends"),
    [
        (
            situation(delivering=False, errors=("wallet: 401",)),
            "does not deliver: wallet: 401 → syncsvc check",
            "delivers again",
        ),
        (situation(degraded=True, errors=("crm: 403",)), "degraded: crm: 403 → syncsvc status", "recovered"),
        (
            situation(in_doubt=1200),
            "1,200 rows are in doubt: the import log settles them, or a person does",
            "nothing is in doubt any more",
        ),
        (
            situation(held=3),
            "3 rows are held for a person → syncsvc doubt",
            "nothing is held for a person any more",
        ),
        (
            situation(points_paid_twice=1225),
            "1,225 points may have been awarded twice → syncsvc doubt",
            "all points that may have been awarded twice were looked into",
        ),
    ],
)
def test_a_trouble_is_told_when_it_begins_and_when_it_ends_and_not_between(
    bad: Situation, begins: str, ends: str
) -> None:
    assert story(bad, bad, GOOD, GOOD, bad) == [[begins], [], [ends], [], [begins]]


def test_changes_of_one_moment_are_lines_of_one_message() -> None:
    (lines,) = story(situation(degraded=True, held=1, quarantined=2, holds={4: "too much"}))
    assert lines == [
        "degraded → syncsvc status",
        "a brake tripped: too much → syncsvc release",
        "1 rows are held for a person → syncsvc doubt",
        "2 are in quarantine, 0 were → syncsvc status",
    ]


def test_each_hold_of_a_brake_is_told_once_by_its_number() -> None:
    first, both = situation(holds={4: "too much"}), situation(holds={4: "too much", 5: "too many"})
    assert story(first, first, both, GOOD, first) == [
        ["a brake tripped: too much → syncsvc release"],
        [],
        ["a brake tripped: too many → syncsvc release"],
        [],
        [],
    ]


def test_more_held_rows_are_told_fewer_are_not() -> None:
    lines = story(situation(held=2), situation(held=5), situation(held=1), situation(held=2))
    assert [len(it) for it in lines] == [1, 1, 0, 1]


def test_a_quarantine_that_grows_is_told_each_time_it_has_doubled() -> None:
    counts = [1, 2, 3, 3, 4, 7, 8, 9, 8, 4, 7, 8, 0, 0, 1]
    told = story(*(situation(quarantined=it) for it in counts))
    assert [count for count, lines in zip(counts, told, strict=True) if lines] == [1, 2, 4, 8, 8, 0, 1]
    assert told[2] == []


def test_a_cycle_that_was_cut_short_says_nothing_of_what_is_degraded() -> None:
    bad, cut = situation(degraded=True), situation(degraded=None)
    assert story(bad, cut, bad, cut, GOOD) == [["degraded → syncsvc status"], [], [], [], ["recovered"]]
    assert story(cut, GOOD) == [[], []]


def test_a_cycle_that_failed_altogether_says_nothing_of_what_waits() -> None:
    waits, failed = (
        situation(in_doubt=1, held=1, quarantined=1),
        Situation(delivering=True, degraded=None, waiting=None),
    )
    assert [len(it) for it in story(waits, failed, waits)] == [3, 0, 0]
