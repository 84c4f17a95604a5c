"""`doubt` as an operator uses it, over real HTTP."""

from __future__ import annotations

from pathlib import Path

from town import command, said, until

from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.world import World


def test_points_in_doubt_are_listed_with_their_evidence_and_settled_by_hand(
    world: World, config: Path
) -> None:
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('settle_after = "1s"', 'settle_after = "1h"'), encoding="utf-8")
    world.wallet.faults.add(Fault(Kind.RESET_BEFORE, "POST", "/v2/import"))
    assert command("-c", config, "once").code == 75
    listed = command("-c", config, "doubt", "--json")
    assert listed.code == 1
    cases = {it["id"]: it for it in listed.json()["acme"]}
    assert len(cases) == 39
    assert {(it["finding"], it["held"], it["on_doubt"]) for it in cases.values()} == {
        ("unmoved", False, "hold")
    }
    told = command("-c", config, "doubt")
    assert (told.code, "acme: 39 rows in doubt, 0 held" in told.out) == (1, True)
    assert f"in doubt 1:0: {cases['1:0']['points']:,} points for {cases['1:0']['connector']} " in told.out
    assert "log: nothing before, nothing now (unmoved)" in told.out
    assert "its log entry has not moved: at 20" in told.out
    assert not any(it.email in told.out for it in world.people())

    for wrong in (
        ["1"],
        ["one", "landed"],
        ["1", "perhaps"],
        ["1", "landed", "--history"],
        ["--only", "mute"],
    ):
        assert command("-c", config, "doubt", *wrong).code == 2
    nowhere = command("-c", config, "doubt", "77", "landed", "--yes")
    assert (nowhere.code, "77 is no case in doubt or held" in nowhere.err) == (1, True)
    asked = command("-c", config, "doubt", "1:0", "landed", stdin="n\n")
    assert (asked.code, "points count as credited. Mind: the log entries of 1 have" in asked.err) == (1, True)
    asked = command("-c", config, "doubt", "1", "refuted", stdin="n\n")
    assert "and 19 more: " in asked.err
    assert "owed again and sent by the next cycle. Settle it so?" in asked.err
    assert "held 0 → syncsvc doubt" in command("-c", config, "status").out
    assert len(command("-c", config, "doubt", "--json").json()["acme"]) == 39

    landed = command("-c", config, "doubt", "1:0", "landed", "--by", "Ann", "--yes")
    assert (landed.code, "acme: 1 row settled by Ann as landed" in landed.out) == (0, True)
    facts = {
        "organization": "acme",
        "batch": 1,
        "rows": 1,
        "points": cases["1:0"]["points"],
        "choice": "landed",
    }
    assert said(landed, "doubt_settled_by_hand").items() >= facts.items()
    again = command("-c", config, "doubt", "1:0", "skip", "--by", "Bob", "--yes")
    assert (again.code, "1:0 is settled already: landed (person); nothing was changed" in again.err) == (
        1,
        True,
    )
    skipped = command("-c", config, "doubt", "1:1", "skip", "--by", "Ann", "--yes", "--json").json()
    assert (skipped["settled"], skipped["choice"], skipped["by"]) == (["1:1"], "skip", "Ann")
    refuted = command("-c", config, "doubt", "1", "refuted", "--yes")
    assert (refuted.code, "37 rows settled by " in refuted.out) == (0, True)
    assert command("-c", config, "doubt").out == "✓ acme: nothing is in doubt, nothing is held\n"

    assert command("-c", config, "once").code == 0
    expected = sum(it.expected for it in world.balances().values())
    assert world.wallet.total_awarded() == expected - cases["1:0"]["points"] - cases["1:1"]["points"]
    books = command("-c", config, "books", "--json").json()["acme"]
    by_person = {it["entry"]: it["points"] for it in books["rests_on"] if it["grade"] == "person"}
    assert by_person == {"awarded": cases["1:0"]["points"], "skipped": cases["1:1"]["points"]}
    assert (books["credited"], books["owed"]) == (expected, 0)
    assert command("-c", config, "books", "--verify").code == 0

    history = command("-c", config, "doubt", "--history", "--json")
    assert [(it["row"], it["choice"], it["by"]) for it in history.json()["acme"]][-2:] == [
        (1, "skip", "Ann"),
        (0, "landed", "Ann"),
    ]
    assert "Ann settled 1:0" in command("-c", config, "doubt", "--history").out
    owned = [person for person in world.people() if person.record_id == cases["1:0"]["record"]]
    explained = command("-c", config, "explain", owned[0].email)
    assert "decided: by Ann, choice landed" in explained.out


def test_of_a_batch_only_the_rows_are_settled_whose_entries_are_so(world: World, config: Path) -> None:
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace('settle_after = "1s"', 'settle_after = "1h"'), encoding="utf-8")
    world.wallet.faults.add(Fault(Kind.RESET_BEFORE, "POST", "/v2/import"))
    assert command("-c", config, "once").code == 75
    assert command("-c", config, "doubt", "--only", "unmoved").code == 2
    none = command("-c", config, "doubt", "1", "landed", "--only", "in_window", "--yes")
    assert (
        none.code,
        "no row that is in doubt or held there has an entry that is in_window" in none.err,
    ) == (
        1,
        True,
    )
    refuted = command("-c", config, "doubt", "1", "refuted", "--only", "unmoved", "--yes")
    assert (refuted.code, "39 rows settled by " in refuted.out) == (0, True)


def test_the_witness_is_shown_by_check_by_the_books_and_beside_a_doubt(world: World, config: Path) -> None:
    text = config.read_text(encoding="utf-8")
    text = text.replace("[wallet]\n", '[wallet]\nwitness = "sync-witness@acme.example"\n')
    config.write_text(text.replace('settle_after = "1s"', 'settle_after = "1h"'), encoding="utf-8")
    checked = command("-c", config, "check")
    assert (checked.code, "it has not ridden in a batch yet" in checked.out) == (0, True)
    world.wallet.faults.add(Fault(Kind.RESET_BEFORE, "POST", "/v2/import"))
    assert command("-c", config, "once").code == 75
    told = command("-c", config, "doubt").out
    assert "witness: nothing before, nothing now (unmoved): what moved is not proven to be ours" in told
    assert command("-c", config, "doubt", "--json").json()["acme"][0]["witness"]["finding"] == "unmoved"
    config.write_text(text, encoding="utf-8")

    def proven() -> bool:
        # The cycle that refutes the batch may leave what is owed again, and the witness, to a later one.
        command("-c", config, "once")
        checked = command("-c", config, "check")
        return checked.code == 0 and "1 landed, 1 were refuted" in checked.out

    until("a proof", proven)
    checked = command("-c", config, "check")
    books = command("-c", config, "books").out
    assert "beside these books: the witness of brand-1 has 1 points of its own" in books
    assert "sync-witness" not in checked.out + books + told
