"""`books`, and what a plan says of points, as an operator uses them, over real HTTP."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from town import Service, command

from syncsvc.sandbox.world import World


def by_hand(world: World, statement: str) -> None:
    """Change the state as no command would."""
    with closing(sqlite3.connect(world.folder / "acme.db")) as connection:
        assert connection.execute(statement).rowcount == 1
        connection.commit()


def test_the_books_are_told_and_verified_to_the_point(world: World, config: Path) -> None:
    assert command("-c", config, "books").code == 75, "there is no state yet"
    assert command("-c", config, "once").code == 0
    points = sum(it.expected for it in world.balances().values())
    books = command("-c", config, "books", "--json").json()["acme"]
    assert (books["earned"], books["credited"], books["owed"], books["members"]) == (points, points, 0, 39)
    assert sum(it["points"] for it in books["rests_on"]) == points
    told = command("-c", config, "books")
    assert (told.code, f"{points:,}" in told.out, "credited as" in told.out) == (0, True, True)
    for by in ("member", "cycle", "batch", "day"):
        listed = command("-c", config, "books", "--by", by, "--json")
        assert listed.code == 0, listed.err
        column = "landed" if by == "batch" else "credited"
        assert sum(it[column] for it in listed.json()["acme"]) == points
        shown = command("-c", config, "books", "--by", by, "--limit", 1)
        assert (shown.code, by in shown.out) == (0, True)
    assert (
        "and more: --limit 0 shows all" in command("-c", config, "books", "--by", "member", "--limit", 3).out
    )
    emails = {person.key for person in world.people()}
    assert not any(email in command("-c", config, "books", "--by", "member").out for email in emails)
    shown = command("-c", config, "books", "--by", "member", "--show-values", "--json")
    assert {it["email"].casefold() for it in shown.json()["acme"]} == emails

    verified = command("-c", config, "books", "--verify")
    assert (verified.code, verified.out) == (0, "✓ acme: the books balance, to the point\n")
    assert command("-c", config, "books", "--verify", "--json").json() == {"acme": []}
    assert command("-c", config, "books", "--verify", "--by", "day").code == 2

    by_hand(world, "UPDATE member SET credited = credited + 1 WHERE id = 7")
    broken = command("-c", config, "books", "--verify")
    assert broken.code == 1
    assert "acme: member 7 (" in broken.out
    assert "but its ledger rows add up to" in broken.out
    (difference,) = command("-c", config, "books", "--verify", "--json").json()["acme"]
    assert difference["where"].startswith("member 7 (")
    assert difference["remedy"]
    by_hand(world, "UPDATE member SET credited = credited - 1 WHERE id = 7")
    by_hand(world, "DELETE FROM ledger WHERE id = (SELECT max(id) FROM ledger)")
    assert command("-c", config, "books", "--verify").code == 1


@pytest.mark.parametrize("first_run", ["adopt_points", "adopt"])
def test_a_plan_of_an_adoption_says_that_no_point_would_be_awarded(
    world: World, config: Path, first_run: str
) -> None:
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('first_run = "import"', f'first_run = "{first_run}"'), encoding="utf-8")
    points = sum(it.expected for it in world.balances().values())
    told = command("-c", config, "plan")
    assert f'0 points would be awarded, as first_run = "{first_run}" says' in told.out
    (plan,) = command("-c", config, "plan", "--json").json()
    assert (plan["totals"]["points"], plan["adopted"], plan["forgotten"]) == (0, points, None)
    assert command("-c", config, "once").code == 0
    assert world.wallet.total_awarded() == 0
    books = command("-c", config, "books", "--json").json()["acme"]
    assert [(it["entry"], it["grade"], it["points"]) for it in books["rests_on"]] == [
        ("adopted", "policy", points)
    ]
    assert command("-c", config, "books", "--verify").code == 0
    assert command("-c", config, "plan", "--json").json()[0]["adopted"] == 0


def test_a_plan_that_can_not_be_remembered_is_made_all_the_same(config: Path) -> None:
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("/acme.db", "/nowhere/acme.db"), encoding="utf-8")
    told = command("-c", config, "plan")
    assert told.code == 0
    assert "nobody can say what changed: the state in " in told.out
    assert command("-c", config, "plan", "--json").json()[0]["totals"]["new"] == 39


def test_plans_books_and_doubts_are_told_beside_a_running_service(config: Path, tmp_path: Path) -> None:
    with Service(config, tmp_path) as service:
        service.wait_for("cycle_finished", 2, outcome="ok")
        (plan,) = command("-c", config, "plan", "--json").json()
        assert (plan["totals"]["points"], plan["forgotten"]) == (0, None)
        assert command("-c", config, "books", "--verify").code == 0
        assert command("-c", config, "doubt").code == 0
        assert command("-c", config, "once", "--plan", plan["digest"]).code == 75, (
            "the service runs the cycles"
        )
        assert service.stop() == 0
