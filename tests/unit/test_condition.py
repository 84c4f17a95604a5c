"""The condition of the state file: told without touching it, and what is wrong with how to mend it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from syncsvc.errors import StateError
from syncsvc.state import condition as condition_module
from syncsvc.state import migrations
from syncsvc.state.condition import Condition, condition
from syncsvc.state.database import Database

NOBODY = 65534


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:  # which nobody else but its user may look into
        yield Path(folder) / "state.db"


def made(path: Path) -> Path:
    Database.open(f"sqlite:///{path}").close()
    return path


def told(path: Path) -> str:
    """Return the one problem with its remedy."""
    (problem,) = condition(f"sqlite:///{path}").problems
    return f"{problem.message} → {problem.remedy}"


def contents(folder: Path) -> dict[str, bytes]:
    return {it.name: it.read_bytes() for it in folder.iterdir()}


@contextlib.contextmanager
def nobody(*given: Path) -> Iterator[None]:
    """Let permissions count even where the tests run as root; `given` become that user's."""
    if os.geteuid() != 0:
        yield
        return
    for it in given:
        os.chown(it, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_state_that_is_not_there_yet_is_no_problem_and_is_not_made(path: Path) -> None:
    fact = migrations.none_yet(path)
    assert "to which every contact is new; first_run says whether their points are awarded" in fact
    assert condition(f"sqlite:///{path}") == Condition(facts=(fact,))
    assert contents(path.parent) == {}


def test_a_good_state_has_nothing_to_be_said_of_and_stays_as_it_is(path: Path) -> None:
    before = made(path).read_bytes()
    assert condition(f"sqlite:///{path}") == Condition()
    assert path.read_bytes() == before


def test_a_service_that_runs_is_a_fact_and_goes_on(path: Path) -> None:
    with Database.open(f"sqlite:///{path}") as database:
        found = condition(f"sqlite:///{path}")
        with database.writing():
            assert condition(f"sqlite:///{path}") == found
    assert found.problems == ()
    assert found.facts == (f"{path} is in use by process {os.getpid()}, which runs cycles on it",)
    assert condition(f"sqlite:///{path}") == Condition()


@pytest.mark.parametrize(
    ("url", "said"),
    [("mysql://db/x", "write sqlite:///FILE"), ("sqlite://", "a restart must find it again")],
)
def test_a_state_that_is_no_file_is_a_problem(url: str, said: str) -> None:
    (problem,) = condition(url).problems
    assert said in problem.message


def test_a_folder_that_is_not_there_is_told(path: Path) -> None:
    assert f"the folder {path} does not exist → make it" in told(path / "state.db")


def test_a_state_that_is_a_folder_is_told(path: Path) -> None:
    assert f"{path.parent} is a folder → name a file in it" in told(path.parent)


def test_a_folder_of_another_user_is_told_with_both(path: Path) -> None:
    path.parent.chmod(0o555)
    with nobody():
        said = told(path)
        user = os.geteuid()
    path.parent.chmod(0o755)
    assert f"this user (uid {user}) may not write the folder {path.parent}" in said
    assert (
        f"run as its owner (uid {os.getuid()}), or give it to this user: chown {user} {path.parent}" in said
    )


@pytest.mark.parametrize("suffix", ["", ".gate"])
def test_a_file_of_another_user_is_told(path: Path, suffix: str) -> None:
    it = made(path).with_name(path.name + suffix)
    it.chmod(0)
    with nobody(path.parent, *(other for other in path.parent.iterdir() if other != it)):
        said = told(path)
        user = os.geteuid()
    assert (
        f"this user (uid {user}) may not read and write {it} → run as its owner (uid {os.getuid()})" in said
    )


def test_a_file_that_its_own_user_may_not_write_is_told_with_the_right_to_give(path: Path) -> None:
    made(path).chmod(0o400)
    with nobody(path.parent, *path.parent.iterdir()):
        said = told(path)
        with pytest.raises(StateError) as raised:
            Database.open(f"sqlite:///{path}")
    assert said.endswith(f"may not read and write {path} → give its owner the right to: chmod u+rw {path}")
    assert said.replace(" → ", ": ") in str(raised.value)


def test_a_state_that_another_user_s_command_cannot_use_is_told_by_every_command(path: Path) -> None:
    made(path)
    path.parent.chmod(0o755)
    with nobody():
        user = os.geteuid()
        for opening in (Database.open, Database.open_beside):
            with pytest.raises(StateError, match=r"cannot be used: .*: (run as|give) its owner") as raised:
                opening(f"sqlite:///{path}")
            assert f"chown {user} {path.parent}" in str(raised.value) or user == os.getuid()


def test_a_read_only_file_system_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    read_only = next((it for it in ("/proc", "/sys") if os.statvfs(it).f_flag & os.ST_RDONLY), None)
    if read_only is None:  # nothing here is mounted so: let the kernel's answers be such a mount's
        flags = os.statvfs("/proc")
        fields = [*flags[:8], flags.f_flag | os.ST_RDONLY, flags.f_namemax]
        monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(fields))
        monkeypatch.setattr(os, "access", lambda *_, **__: False)
        read_only = "/proc"
    for path in (
        Path(read_only) / "state.db",
        *sorted(it for it in Path(read_only).iterdir() if it.is_file())[:1],
    ):
        said = told(path)
        assert f"the folder {read_only} is on a file system that is read-only → mount a volume there" in said
        assert "chmod" not in said  # no mode of a file helps


def test_a_disk_that_is_full_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(path)
    monkeypatch.setattr(condition_module, "ROOM", 1 << 62)
    assert f"the disk of {path.parent} is full but for " in told(path)


def test_a_state_of_a_later_version_is_told_with_both_forms(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(made(path))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    said = told(path)
    assert "was written by a later version of syncsvc (form 9999, this one knows " in said
    assert "run that version or a newer one" in said


def test_a_state_of_a_former_version_is_a_fact_and_is_not_migrated(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(made(path))) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    found = condition(f"sqlite:///{path}")
    assert found.problems == ()
    assert found.facts[0].startswith(f"{path} is of form 0001: the next cycle brings it to ")
    assert condition(f"sqlite:///{path}") == found


def test_an_empty_file_is_a_state_that_is_not_there_yet(path: Path) -> None:
    path.touch()
    assert condition(f"sqlite:///{path}") == Condition(facts=(f"{path} is empty: the first cycle fills it",))


def test_the_database_of_something_else_is_told(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE t (n)")
    assert f"{path} is the database of something else → name another file" in told(path)


def test_a_file_that_is_no_database_is_told(path: Path) -> None:
    path.write_text("organization_id = 7\n" * 100, encoding="utf-8")
    assert f"{path} is no database, or a damaged one" in told(path)


def test_a_state_that_is_damaged_inside_is_told(path: Path) -> None:
    raw = bytearray(made(path).read_bytes())
    size = int.from_bytes(raw[16:18], "big")
    raw[5 * size : 6 * size] = b"\x55" * size
    path.write_bytes(raw)
    said = told(path)
    assert f"{path} is no database, or a damaged one" in said
    assert "save what can be read (syncsvc state salvage), as docs/operations.md says" in said


def test_a_very_large_state_is_looked_through_in_part(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(path)
    monkeypatch.setattr(condition_module, "_STEPS", 1)
    assert condition(f"sqlite:///{path}", seconds=60) == Condition()
    assert condition(f"sqlite:///{path}", seconds=-1) == Condition(
        facts=(f"{path} is too large to be looked through whole: so far nothing is damaged",)
    )
