"""A state file that knows less than was sent is refused; backups are whole, and put back on purpose only."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select

from syncsvc.config import OrganizationConfig
from syncsvc.errors import ConfigurationError, StateError
from syncsvc.state.backups import backing_up, put_in_place
from syncsvc.state.condition import condition, refusal
from syncsvc.state.database import Database
from syncsvc.state.mark import TAKE_ON
from syncsvc.state.restoration import put_back
from syncsvc.state.store import register
from syncsvc.state.tables import BATCH, BRAND

NOW = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def new_state(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the file of a state that holds nothing: making its tables takes longer than these tests."""
    path = tmp_path_factory.mktemp("new") / "new.db"
    Database.open(f"sqlite:///{path}").close()
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, new_state: bytes) -> Path:
    path = tmp_path / "state.db"
    for it in (path, tmp_path / "other.db"):
        it.write_bytes(new_state)
    return path


def config() -> OrganizationConfig:
    wallet = {"token": {"env": "TOKEN"}, "brand_id": "b", "storecard": "s"}
    crm = {"type": "csv", "member": {"email": "{email}", "name": "{name}"}}
    tables = {"name": "acme", "organization_id": "01JC", "first_run": "import", "wallet": wallet}
    return OrganizationConfig.model_validate(tables | {"connectors": {"crm": crm}})


def claim(database: Database) -> None:
    """Claim a batch of no rows, as a delivery does."""
    organization = register(database, config())
    with database.writing() as connection:
        brand = connection.scalar(select(BRAND.c.id))
        if brand is None:
            made = insert(BRAND).values(organization_id=organization, brand_id="b").returning(BRAND.c.id)
            brand = connection.execute(made).scalar_one()
        row = {"brand": brand, "cycle": "c", "digest": bytes(16), "claimed_at": 0, "outcome": 3}
        batch = connection.execute(insert(BATCH).values(row).returning(BATCH.c.id)).scalar_one()
    database.reached(batch)


def begin(path: Path) -> None:
    """Begin a state that has sent nothing yet."""
    with Database.open(f"sqlite:///{path}") as database:
        register(database, config())
        database.reached(0)


def work(path: Path, batches: int = 1) -> None:
    with Database.open(f"sqlite:///{path}") as database:
        for _ in range(batches):
            claim(database)


def batches(path: Path) -> int:
    with Database.open(f"sqlite:///{path}") as database, database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(BATCH)) or 0


def take_on(path: Path) -> None:
    with Database.open_older(f"sqlite:///{path}") as database:
        register(database, config())
        put_back(database, [config()], by="ann")


def yesterday(path: Path) -> None:
    shutil.copy(path.with_name("yesterday.db"), path)


def lost(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def another(path: Path) -> None:
    other = path.with_name("other.db")
    work(other, 5)
    other.replace(path)


def garbled(path: Path) -> None:
    path.with_name("state.db.gate").write_text("garbled")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (yesterday, "state.db is older than what was sent: it knows 2 batches of 3, and would award again"),
        (lost, "state.db is gone, which has sent 3 batches: a new one would award again what it does not"),
        (emptied, "state.db knows nothing, in the place of a state that has sent 3 batches, and would award"),
        (another, "state.db is not the state that was here, which has sent 3 batches, and would award"),
        (garbled, "state.db.gate is damaged, which says how far the state had come"),
    ],
)
def test_a_state_that_may_know_less_than_was_sent_runs_no_cycle(
    path: Path, harm: Callable[[Path], None], told: str
) -> None:
    work(path, 2)
    shutil.copy(path, path.with_name("yesterday.db"))
    work(path)
    harm(path)
    for _ in range(2):
        (problem,) = condition(f"sqlite:///{path}").problems
        assert re.search(told, problem.message)
        assert problem.remedy == TAKE_ON
        with pytest.raises(StateError, match=told) as refused:
            Database.open(f"sqlite:///{path}")
        assert "`syncsvc state restore` takes it on" in str(refused.value)
        if not path.exists():
            with pytest.raises(StateError, match=told):
                Database.open_beside(f"sqlite:///{path}")
        else:
            assert re.search(told, refusal(f"sqlite:///{path}") or "")
    take_on(path)
    work(path)
    assert refusal(f"sqlite:///{path}") is None
    assert condition(f"sqlite:///{path}").problems == ()


def test_a_state_whose_write_ahead_log_was_lost_runs_no_cycle(path: Path) -> None:
    work(path, 2)
    with Database.open(f"sqlite:///{path}") as database:
        claim(database)
        crashed = path.with_name("crashed.db")  # what a death leaves behind, but for the log
        shutil.copy(path, crashed)
        shutil.copy(path.with_name("state.db.gate"), crashed.with_name("crashed.db.gate"))
    with pytest.raises(StateError, match="it knows 2 batches of 3"):
        Database.open(f"sqlite:///{crashed}")


def test_a_state_that_was_taken_on_is_the_newest_and_the_one_before_is_not(path: Path) -> None:
    work(path, 2)
    shutil.copy(path, path.with_name("yesterday.db"))
    work(path)
    shutil.copy(path, path.with_name("newest.db"))
    yesterday(path)
    take_on(path)
    work(path, 3)
    path.with_name("newest.db").replace(path)
    with pytest.raises(StateError, match="is not the state that was here, which has sent 5 batches"):
        Database.open(f"sqlite:///{path}")


def test_a_mark_is_behind_its_state_and_never_ahead(path: Path) -> None:
    gate = path.with_name("state.db.gate")
    Database.open(f"sqlite:///{path}").close()
    assert gate.read_bytes() == b""  # nothing was sent: any state may stand here
    work(path, 2)
    before = gate.read_bytes()
    work(path)
    gate.write_bytes(before)  # as after a death between the two
    assert batches(path) == 3
    assert gate.read_bytes().endswith(b" 00000000000000000003\n")


@pytest.mark.parametrize("looked_at", [False, True])
def test_a_state_without_its_mark_may_be_a_copy_and_runs_no_cycle(path: Path, *, looked_at: bool) -> None:
    url, copy = f"sqlite:///{path}", path.with_name("copy.db")
    work(path, 2)
    with backing_up(url, copy):
        pass
    work(path)
    if looked_at:
        Database.open_beside(f"sqlite:///{copy}").close()
    told = r"copy.db has sent 2 batches, and its .gate is not beside it, which says whether it is the newest"
    for _ in range(2):
        (problem,) = condition(f"sqlite:///{copy}").problems
        assert (re.search(told, problem.message) is not None, problem.remedy) == (True, TAKE_ON)
        assert re.search(told, refusal(f"sqlite:///{copy}") or "")
        with pytest.raises(StateError, match=told):
            Database.open(f"sqlite:///{copy}")
    take_on(copy)
    assert batches(copy) == 2


def test_a_state_that_is_moved_with_its_mark_goes_on(path: Path) -> None:
    work(path, 2)
    there = path.with_name("moved.db")
    path.replace(there)
    path.with_name("state.db.gate").replace(there.with_name("moved.db.gate"))
    work(there)
    assert batches(there) == 3


def test_a_state_begun_anew_where_one_had_sent_nothing_goes_on(path: Path) -> None:
    begin(path)
    for file in path.parent.glob("state.db*"):
        if file.suffix != ".gate":
            file.unlink()
    work(path)
    work(path)
    assert batches(path) == 2


def test_another_state_in_the_place_of_one_that_has_sent_nothing_runs_no_cycle(path: Path) -> None:
    begin(path)
    another(path)
    with pytest.raises(StateError, match=r"state\.db is not the state that was here and would award again"):
        Database.open(f"sqlite:///{path}")


def test_marks_cost_nothing_where_nothing_is_sent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work(path)
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    with Database.open(f"sqlite:///{path}") as database:
        register(database, config())
        assert synced == []
        claim(database)
        assert len(synced) == 1


def test_a_backup_holds_what_is_committed_while_the_service_runs(path: Path) -> None:
    url, target = f"sqlite:///{path}", path.with_name("backup.db")
    with Database.open(url) as database:
        claim(database)
        with backing_up(url, target):
            assert not target.exists()
        claim(database)
    with closing(sqlite3.connect(target)) as copied:
        assert copied.execute("SELECT count(*) FROM batch").fetchone() == (1,)
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(StateError, match="exists already"), backing_up(url, target):
        pass
    missing = f"sqlite:///{path.with_name('none.db')}"
    with pytest.raises(StateError, match="there is no state yet"), backing_up(missing, target.with_name("b")):
        pass
    assert not list(path.parent.glob("backup-*"))


def test_a_backup_takes_the_place_of_the_state_which_is_kept_aside(path: Path) -> None:
    url, backup = f"sqlite:///{path}", path.with_name("backup.db")
    work(path, 2)
    with backing_up(url, backup):
        pass
    with Database.open(url) as database:
        claim(database)
        with pytest.raises(StateError, match="in use by process"):
            put_in_place(url, backup, [config()], now=NOW)
    former = put_in_place(url, backup, [config()], now=NOW)
    assert former == path.with_name("state.db.20261126T093000Z")
    with closing(sqlite3.connect(former)) as kept:
        assert kept.execute("SELECT count(*) FROM batch").fetchone() == (3,)
    with pytest.raises(StateError, match="it knows 2 batches of 3"):
        Database.open(url)
    take_on(path)
    assert batches(path) == 2


def test_a_backup_of_others_is_not_put_in_place(path: Path) -> None:
    url, backup = f"sqlite:///{path}", path.with_name("backup.db")
    work(path)
    with backing_up(url, backup):
        pass
    before = path.read_bytes()
    named = config().model_copy(update={"name": "shop"})
    other = config().model_copy(update={"name": "other", "organization_id": "01JD"})
    with pytest.raises(ConfigurationError, match="knows organization 01JC under the name acme"):
        put_in_place(url, backup, [named], now=NOW)
    with pytest.raises(StateError, match=r"backup\.db is the state of others \(acme\)"):
        put_in_place(url, backup, [other], now=NOW)
    assert path.read_bytes() == before
    assert put_in_place(url, backup, [other, config()], now=NOW) is not None


def test_what_is_no_whole_state_is_not_put_in_place(path: Path) -> None:
    url, backup = f"sqlite:///{path}", path.with_name("backup.db")
    work(path)
    before = path.read_bytes()
    with pytest.raises(StateError, match="there is no file"):
        put_in_place(url, backup, [config()], now=NOW)
    backup.write_bytes(before[: len(before) // 2])
    with pytest.raises(StateError, match=r"backup\.db is no whole state of syncsvc"):
        put_in_place(url, backup, [config()], now=NOW)
    backup.write_bytes(before)
    with closing(sqlite3.connect(backup)) as newer, newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StateError, match="later version"):
        put_in_place(url, backup, [config()], now=NOW)
    with pytest.raises(StateError, match="is no file"):
        put_in_place("postgresql+psycopg://host/name", backup, [], now=NOW)
    assert path.read_bytes() == before
    assert not list(path.parent.glob("restore-*"))
