"""A damaged state file: what can be read of it is saved, and what is missing is never taken for nothing."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from quicklab import QuickLab

from syncsvc.errors import StateError
from syncsvc.state.database import Database
from syncsvc.state.salvage import Salvaged, salvage

PAGE = 4096


@pytest.fixture
def state(quick: QuickLab, tmp_path: Path) -> Path:
    """A copy of a state in which sixty members have points, with nothing in a write-ahead log."""
    for number in range(60):
        quick.crm.put(f"m{number}", points=number + 1)
    quick.calm()
    quick.crm.put("m7", points=500)
    quick.calm()
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(quick.folder / "lab.db")) as connection:
        connection.execute("VACUUM INTO ?", (str(path),))
    shutil.copy(quick.folder / "lab.db.gate", path.with_name("state.db.gate"))
    return path


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Return every row of every table that is of the service, in order."""
    with closing(sqlite3.connect(path)) as connection:
        listed = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}").fetchall(), key=repr)
            for (name,) in listed
            if not name.startswith("sqlite_stat")
        }


def damage(path: Path, name: str) -> None:
    """Overwrite the first page of a table or an index."""
    with closing(sqlite3.connect(path)) as connection:
        asked = "SELECT rootpage FROM sqlite_schema WHERE name = ?"
        (root,) = connection.execute(asked, (name,)).fetchone()
    with path.open("r+b") as raw:
        raw.seek((root - 1) * PAGE)
        raw.write(random.Random(root).randbytes(PAGE))


def saved(path: Path) -> tuple[Salvaged, Path]:
    before, new = path.read_bytes(), path.with_name("new.db")
    found = salvage(f"sqlite:///{path}", new)
    assert path.read_bytes() == before
    assert new.stat().st_mode & 0o777 == 0o600
    assert not list(path.parent.glob("salvage-*"))
    Database.open_beside(f"sqlite:///{new}").close()
    return found, new


def header(path: Path) -> None:
    with path.open("r+b") as raw:
        raw.write(bytes(100))


@pytest.mark.parametrize(
    "harm",
    [
        lambda _: None,
        header,
        lambda it: damage(it, "ix_member_due"),
        lambda it: damage(it, "uq_member_email"),
    ],
    ids=["nothing", "the header", "an index", "a unique index"],
)
def test_a_state_whose_rows_can_all_be_read_is_saved_whole(state: Path, harm: Callable[[Path], None]) -> None:
    before = contents(state)
    harm(state)
    found, new = saved(state)
    assert (found.whole, found.damaged) == (True, [])
    assert contents(new) == before
    with pytest.raises(StateError, match=r"its \.gate is not beside it"):
        Database.open(f"sqlite:///{new}")
    new.replace(state)
    Database.open(f"sqlite:///{state}").close()


@pytest.mark.parametrize("table", ["member", "ledger", "batch_row"])
def test_rows_that_cannot_be_read_are_missing_by_name_and_the_rest_is_saved(state: Path, table: str) -> None:
    before = contents(state)
    damage(state, table)
    found, new = saved(state)
    assert (found.whole, found.damaged) == (False, [table])
    after = contents(new)
    assert after[table] == []
    assert {name: rows for name, rows in after.items() if name not in {table, "sqlite_sequence"}} == {
        name: rows for name, rows in before.items() if name not in {table, "sqlite_sequence"}
    }
    assert after["sqlite_sequence"] == before["sqlite_sequence"]  # no number is given twice


def test_what_stands_around_a_damaged_page_is_saved(state: Path) -> None:
    with closing(sqlite3.connect(state)) as connection, connection:
        wide = [(f"n{number:04}", b"x" * 400) for number in range(200)]
        connection.executemany("INSERT INTO meta (name, value) VALUES (?, ?)", wide)
    with state.open("r+b") as raw:
        content = raw.read()
        page = next(
            at for at in range(0, len(content), PAGE) if content[at : at + PAGE].count(b"x" * 400) > 3
        )
        raw.seek(page)
        raw.write(b"\x55" * PAGE)
    found, new = saved(state)
    assert found.damaged == ["meta"]
    assert 180 < len(contents(new)["meta"]) < 200


def test_what_cannot_be_saved_is_refused_with_what_to_do(state: Path) -> None:
    url, new = f"sqlite:///{state}", state.with_name("new.db")
    new.touch()
    with pytest.raises(StateError, match="exists already"):
        salvage(url, new)
    new.unlink()
    with Database.open(url), pytest.raises(StateError, match="in use by process"):
        salvage(url, new)
    with closing(sqlite3.connect(state)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(StateError, match=r"is of form 0001, .*: salvage it with the version that wrote it"):
        salvage(url, new)
    with state.open("r+b") as raw:
        raw.write(random.Random(1).randbytes(PAGE))
    with pytest.raises(StateError, match=r"nothing can be saved: begin anew, as docs/operations\.md says"):
        salvage(url, new)
    assert not new.exists()
    with pytest.raises(StateError, match="there is no file"):
        salvage(f"sqlite:///{new}", new.with_name("other.db"))
    with pytest.raises(StateError, match="is no file"):
        salvage("postgresql+psycopg://host/name", new)
