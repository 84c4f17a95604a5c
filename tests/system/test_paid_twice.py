"""Points that may be awarded twice, as an operator learns of them, looks into them, and is done with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from quicklab import QuickLab
from town import command, said

from syncsvc.sandbox.faults import Kind

ORGANIZATION = """
organization_id = "01JCacme"
name = "acme"
first_run = "import"
[service]
state = "sqlite:///{state}"
[wallet]
token = {{ file = "token" }}
brand_id = "brand-1"
storecard = "card-1"
[connectors.crm]
type = "csv"
path = "contacts.csv"
key = "email"
member = {{ email = "{{email}}", name = "{{name}}", points = "{{points}}" }}
"""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """An organization two of whose awards landed late, after they had been sent anew."""
    folder = tmp_path / "lab"
    folder.mkdir()
    with QuickLab(folder) as lab:
        lab.crm.put("a", points=10)
        lab.crm.put("b", points=20)
        lab.cycle()
        lab.crm.put("a", points=50)
        lab.crm.put("b", points=27)
        lab.wallet.knobs.apply_seconds = 400
        lab.fault(Kind.RESET_AFTER)
        lab.cycle()
        lab.wallet.knobs.apply_seconds = 0
        lab.cycle(301)
        lab.cycle(400)
        assert [line["points"] for line in lab.said("rows_landed_late")] == [47]
        assert (lab.awarded("a@example.org"), lab.awarded("b@example.org")) == (90, 34)
    path = tmp_path / "acme.toml"
    path.write_text(ORGANIZATION.format(state=folder / "lab.db"), encoding="utf-8")
    return path


def test_points_that_may_be_awarded_twice_are_shown_until_somebody_has_looked_into_them(config: Path) -> None:
    status = command("-c", config, "status")
    assert status.code == 1
    assert "47 points may be awarded twice (2 rows landed late) → syncsvc doubt" in status.out
    listed = command("-c", config, "doubt")
    assert (listed.code, "acme: 47 points may be awarded twice" in listed.out) == (1, True)
    assert (
        "landed late 2:0: 40 points for crm a, sent anew since; its entry moved at 2026-11-02" in listed.out
    )
    assert "then: syncsvc doubt 2:0 twice; else: once" in listed.out
    assert "example.org" not in listed.out
    told = command("-c", config, "doubt", "--json").json()["acme"]
    assert [(it["id"], it["paid_twice"], it["points"]) for it in told] == [
        ("2:0", True, 40),
        ("2:1", True, 7),
    ]
    books = command("-c", config, "books").out
    assert "47 points may be awarded twice: " in books

    refused = command("-c", config, "doubt", "2:0", "landed", "--yes")
    assert (refused.code, "2:0 is settled already: refuted (unmoved)" in refused.err) == (1, True)
    asked = command("-c", config, "doubt", "2:0", "twice", stdin="n\n")
    assert (asked.code, "acme: 2:0 (crm a): 40 points were awarded twice. Record it" in asked.err) == (
        1,
        True,
    )
    nowhere = command("-c", config, "doubt", "1:0", "twice", "--yes")
    assert (nowhere.code, "1:0 has no points that may be awarded twice" in nowhere.err) == (1, True)

    twice = command("-c", config, "doubt", "2:0", "twice", "--by", "Ann", "--yes")
    assert (twice.code, twice.out) == (0, "acme: Ann found that 40 points were awarded twice\n")
    assert said(twice, "paid_twice_looked_into")["points"] == 40
    assert "7 points may be awarded twice (1 row landed late)" in command("-c", config, "status").out
    once = command("-c", config, "doubt", "2", "once", "--by", "Bob", "--yes", "--json").json()
    assert once == {"organization": "acme", "settled": ["2:1"], "points": 7, "choice": "once", "by": "Bob"}
    again = command("-c", config, "doubt", "2:1", "twice", "--yes")
    assert (again.code, "or somebody has looked into them" in again.err) == (1, True)

    quiet = command("-c", config, "status")
    assert (quiet.code, "twice" in quiet.out) == (0, False)
    assert command("-c", config, "doubt").out == "✓ acme: nothing is in doubt, nothing is held\n"
    books = command("-c", config, "books").out
    assert "may be awarded twice" not in books
    assert "40 points were awarded twice, as people found → syncsvc doubt --history" in books
    assert command("-c", config, "books", "--verify").code == 0
    history = command("-c", config, "doubt", "--history").out
    assert "Ann settled 2:0 (crm a, 40 points, landed late, log " in history
    explained = command("-c", config, "explain", "b@example.org").out
    assert "decided: by Bob, choice once, points 7, batch 2" in explained
