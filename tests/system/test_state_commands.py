"""The commands over the whole state, as a person says them: backup, restore, salvage."""

from __future__ import annotations

import re
from pathlib import Path

from town import command, settled

from syncsvc.sandbox.world import World


def test_a_backup_is_put_back_and_nobody_is_paid_twice(world: World, config: Path, tmp_path: Path) -> None:
    while not settled(world):
        assert command("-c", config, "once").code == 0
    backup = tmp_path / "backups" / "monday.db"
    backup.parent.mkdir()
    made = command("-c", config, "state", "backup", backup)
    assert (made.code, backup.exists()) == (0, True)
    assert "acme: its books balance, to the point" in made.out
    again = command("-c", config, "state", "backup", backup)
    assert (again.code, "exists already: name a file that does not" in again.err) == (75, True)

    world.edit(10)
    while not settled(world):
        assert command("-c", config, "once").code == 0
    awarded = world.wallet.total_awarded()
    assert command("-c", config, "state", "restore", backup, stdin="n\n").code == 1
    asked = command("-c", config, "state", "restore", backup, "--by", "Ann", stdin="y\n")
    assert asked.code == 0
    (former,) = world.folder.glob("acme.db.2*Z")
    assert former.name in asked.out
    assert "Ann" in asked.out

    told = command("-c", config, "once")
    assert world.wallet.total_awarded() == awarded, told.out
    doubts = command("-c", config, "doubt", "--json").json()
    assert doubts
    assert command("-c", config, "books", "--verify").code == 0


def test_a_backup_by_another_configuration_says_whose_books_were_not_verified(
    config: Path, tmp_path: Path
) -> None:
    assert command("-c", config, "once").code == 0
    other = config.with_name("other.toml")
    text = config.read_text(encoding="utf-8")
    other.write_text(
        re.sub(r'organization_id = "\w+"', 'organization_id = "01OTHER"', text), encoding="utf-8"
    )
    made = command("-c", other, "state", "backup", tmp_path / "a.db")
    assert "acme: its books were not verified, as it is not configured" in made.out
    told = command("-c", other, "state", "backup", tmp_path / "b.db", "--json").json()
    assert told["not_verified"] == ["acme"]


def test_what_was_salvaged_goes_on(world: World, config: Path, tmp_path: Path) -> None:
    while not settled(world):
        assert command("-c", config, "once").code == 0
    awarded, state = world.wallet.total_awarded(), world.folder / "acme.db"
    saved = tmp_path / "saved.db"
    told = command("-c", config, "state", "salvage", saved)
    assert (told.code, "every row was read, and the books balance, to the point" in told.out) == (0, True)
    for file in world.folder.glob("acme.db-*"):
        file.unlink()
    saved.replace(state)
    assert command("-c", config, "once").code == 0
    assert world.wallet.total_awarded() == awarded
    world.edit(5)
    while not settled(world):
        assert command("-c", config, "once").code == 0
    assert world.wallet.total_awarded() > awarded
