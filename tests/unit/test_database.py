"""The state database: private, of one process, losing nothing, and plain about why it cannot be used."""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import ClauseElement, Connection, select, text, update
from sqlalchemy import exc as sa_exc
from sqlalchemy.dialects import sqlite as sqlite_dialect

from syncsvc.errors import StateError
from syncsvc.state.database import Database, among, from_ms, to_ms
from syncsvc.state.tables import BRAND, MEMBER, META, ORGANIZATION

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{path}") as opened:
        yield opened


def run(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True, check=False, timeout=60
    )


def put(database: Database, name: str, value: bytes = b"x") -> None:
    with database.writing() as connection:
        connection.execute(META.insert().values(name=name, value=value))


def names(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(connection.scalars(select(META.c.name)))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Private, durable, and of one process.


def test_every_file_of_the_state_is_for_its_user_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        with Database.open(f"sqlite:///{path}") as database:
            put(database, "a")
            files = {it.name: mode(it) for it in path.parent.iterdir()}
    finally:
        os.umask(before)
    assert files == dict.fromkeys(
        ("state.db", "state.db-wal", "state.db-shm", "state.db.lock", "state.db.gate"), 0o600
    )


def test_a_file_that_others_could_read_is_made_private(path: Path) -> None:
    path.touch(0o666)
    path.chmod(0o666)
    with Database.open(f"sqlite:///{path}"):
        assert mode(path) == 0o600


def test_what_is_committed_survives_a_power_cut(database: Database) -> None:
    for taking in (database.writing, database.reading):
        with taking() as connection:
            asked = {
                pragma: connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
                for pragma in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
        assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 10000}


def test_rows_that_refer_to_nothing_are_refused_as_a_mistake_of_ours(database: Database) -> None:
    with pytest.raises(sa_exc.IntegrityError), database.writing() as connection:
        connection.execute(BRAND.insert().values(organization_id=77, brand_id="b"))


def _put_and_fail(database: Database, name: str) -> None:
    with database.writing() as connection:
        connection.execute(META.insert().values(name=name, value=b""))
        raise BrokenPipeError


def test_a_block_that_fails_leaves_nothing_behind(database: Database) -> None:
    with pytest.raises(BrokenPipeError):
        _put_and_fail(database, "a")
    put(database, "b")
    assert "a" not in names(database)
    assert "b" in names(database)


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_state(database: Database) -> None:
    for taking in (database.writing, database.reading):
        with pytest.raises(BrokenPipeError), taking():
            raise BrokenPipeError


def test_what_was_written_is_there_after_opening_again(path: Path) -> None:
    with Database.open(f"sqlite:///{path}") as database:
        put(database, "a")
    with Database.open(f"sqlite:///{path}") as database:
        assert "a" in names(database)


def test_the_name_of_the_file_may_hold_any_character(tmp_path: Path) -> None:
    path = tmp_path / "st#te é.db"
    with Database.open(f"sqlite:///{path}") as database:
        put(database, "a")
    assert path.exists()


_OPENS = """
import sys
from syncsvc.errors import StateError
from syncsvc.state.database import Database
try:
    Database.open(f"sqlite:///{sys.argv[1]}").close()
    print("opened")
except StateError as error:
    print(error)
"""


def test_a_second_process_is_refused_and_told_who_holds_the_state(path: Path, database: Database) -> None:
    told = run(_OPENS, path).stdout
    assert f"in use by process {os.getpid()}:" in told
    assert str(path) in told
    database.close()
    assert run(_OPENS, path).stdout == "opened\n"


def test_the_state_is_free_again_when_its_process_was_killed(path: Path) -> None:
    killed = "import os, sys; from syncsvc.state.database import Database\n"
    killed += "kept = Database.open(f'sqlite:///{sys.argv[1]}'); os.kill(os.getpid(), 9)"
    assert run(killed, path).returncode == -9
    Database.open(f"sqlite:///{path}").close()


def test_a_second_opening_in_the_same_process_is_refused_too(path: Path, database: Database) -> None:
    put(database, "a")
    with pytest.raises(StateError, match=f"process {os.getpid()}"):
        Database.open(f"sqlite:///{path}")
    put(database, "b")


# Writers.


def test_as_many_read_at_once_as_want_to_and_no_more_connections_are_kept_than_are_of_use(
    database: Database,
) -> None:
    with contextlib.ExitStack() as reading:
        for _ in range(60):  # every organization has a thread of its own
            connection = reading.enter_context(database.reading())
            assert connection.scalar(select(META.c.name).limit(1)) is None
    assert len(database._storage._readers) == 16


def test_no_update_is_lost_between_threads(database: Database) -> None:
    with database.writing() as connection:
        connection.execute(META.insert().values(name="n", value=b"0"))

    def add() -> None:
        for _ in range(200):
            with database.writing() as connection:
                known = connection.execute(select(META.c.value).where(META.c.name == "n")).scalar_one()
                value = str(int(known) + 1).encode()
                connection.execute(update(META).where(META.c.name == "n").values(value=value))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as connection:
        assert connection.scalar(select(META.c.value).where(META.c.name == "n")) == b"800"


_ADDS = """
import sys
from sqlalchemy import select, update
from syncsvc.state.database import Database
from syncsvc.state.tables import META
with Database.open_beside(f"sqlite:///{sys.argv[1]}") as database:
    for _ in range(100):
        with database.writing() as connection:
            known = connection.execute(select(META.c.value).where(META.c.name == "n")).scalar_one()
            value = str(int(known) + 1).encode()
            connection.execute(update(META).where(META.c.name == "n").values(value=value))
"""


def test_no_update_is_lost_between_processes(path: Path, database: Database) -> None:
    put(database, "n", b"0")
    beside = subprocess.Popen([sys.executable, "-c", _ADDS, str(path)])
    for _ in range(100):
        with database.writing() as connection:
            known = connection.execute(select(META.c.value).where(META.c.name == "n")).scalar_one()
            value = str(int(known) + 1).encode()
            connection.execute(update(META).where(META.c.name == "n").values(value=value))
    assert beside.wait(60) == 0
    with database.reading() as connection:
        assert connection.scalar(select(META.c.value).where(META.c.name == "n")) == b"200"


def test_a_write_transaction_has_the_lock_from_its_first_statement(path: Path, database: Database) -> None:
    with (
        database.writing() as connection,
        contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other,
    ):
        assert connection.connection.driver_connection.in_transaction
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")


def test_a_reader_sees_one_moment_and_keeps_no_writer_waiting(database: Database) -> None:
    put(database, "a")
    with database.reading() as connection:
        before = set(connection.scalars(select(META.c.name)))
        put(database, "b")
        assert set(connection.scalars(select(META.c.name))) == before
    assert "b" in names(database)


_WAITS = """
import fcntl, sys, time
gate = open(sys.argv[1] + ".gate", "r+")
fcntl.flock(gate, fcntl.LOCK_EX)
print("in", flush=True)
sys.stdin.read()
"""


def test_writers_of_two_processes_pass_one_gate(path: Path, database: Database) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _WAITS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin
    assert holder.stdout
    with holder, Database.open_beside(f"sqlite:///{path}") as beside:
        assert holder.stdout.readline() == "in\n"
        written = {name: threading.Event() for name in ("a", "b")}

        def write(it: Database, name: str) -> None:
            put(it, name)
            written[name].set()

        threads = [threading.Thread(target=write, args=args) for args in ((database, "a"), (beside, "b"))]
        for thread in threads:
            thread.start()
        assert not written["a"].wait(0.2)
        assert not written["b"].is_set()
        assert names(database) == names(beside)  # readers pass no gate
        holder.stdin.close()
        for thread in threads:
            thread.join()
        assert written["a"].is_set()
        assert written["b"].is_set()


def test_closing_waits_for_a_write_under_way_in_another_thread(path: Path) -> None:
    database = Database.open(f"sqlite:///{path}")
    begun, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def write() -> None:
        with database.writing() as connection:
            begun.set()
            assert go_on.wait(10)
            connection.execute(META.insert().values(name="a", value=b"x"))

    def close() -> None:
        database.close()
        closed.set()

    threads = [threading.Thread(target=write), threading.Thread(target=close)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    assert not closed.wait(0.2)
    go_on.set()
    for thread in threads:
        thread.join()
    with Database.open(f"sqlite:///{path}") as again:
        assert "a" in names(again)


def test_a_closed_database_says_so(path: Path) -> None:
    database = Database.open(f"sqlite:///{path}")
    database.close()
    database.close()
    with pytest.raises(StateError, match="closed"):
        put(database, "a")


# Beside a process that runs cycles, and on a copy.


def test_beside_a_running_process_one_reads_and_decides(path: Path, database: Database) -> None:
    put(database, "a")
    with Database.open_beside(f"sqlite:///{path}") as beside:
        assert "a" in names(beside)
        put(beside, "b")
    assert "b" in names(database)


def test_without_a_state_there_is_nothing_to_be_beside(path: Path) -> None:
    with pytest.raises(StateError, match="run a cycle first"):
        Database.open_beside(f"sqlite:///{path}")
    assert not path.exists()


def test_a_state_that_was_never_migrated_is_not_migrated_from_beside(path: Path) -> None:
    path.touch()
    with pytest.raises(StateError, match="run one cycle to migrate it"):
        Database.open_beside(f"sqlite:///{path}")


@pytest.mark.parametrize("running", [True, False])
def test_a_scratch_copy_holds_what_the_original_holds_and_leaves_it_untouched(
    path: Path, *, running: bool
) -> None:
    original = Database.open(f"sqlite:///{path}")
    put(original, "a")
    if not running:
        original.close()
    before = {it.name: it.read_bytes() for it in path.parent.iterdir() if not it.name.endswith("-shm")}
    with Database.scratch(f"sqlite:///{path}") as scratch:
        folder = scratch._storage.path.parent
        assert mode(folder) == 0o700
        assert mode(scratch._storage.path) == 0o600
        assert "a" in names(scratch)
        put(scratch, "b")
    assert not folder.exists()
    after = {it.name: it.read_bytes() for it in path.parent.iterdir() if not it.name.endswith("-shm")}
    after = {name: content for name, content in after.items() if name in before or content}
    assert after == before
    original.close()
    with Database.open(f"sqlite:///{path}") as again:
        assert "b" not in names(again)


def test_a_scratch_copy_of_a_state_that_crashed_holds_what_was_committed(path: Path) -> None:
    crashed = "import os, sys; from syncsvc.state.database import Database\n"
    crashed += "from syncsvc.state.tables import META\n"
    crashed += "kept = Database.open(f'sqlite:///{sys.argv[1]}')\n"
    crashed += "with kept.writing() as it: it.execute(META.insert().values(name='a', value=b''))\n"
    crashed += "os.kill(os.getpid(), 9)"
    assert run(crashed, path).returncode == -9
    main = path.read_bytes()
    with Database.scratch(f"sqlite:///{path}") as scratch:
        assert "a" in names(scratch)
    assert path.read_bytes() == main


def test_a_scratch_copy_of_nothing_is_empty_and_makes_no_original(path: Path) -> None:
    with Database.scratch(f"sqlite:///{path}") as scratch:
        assert names(scratch) == set()
    assert list(path.parent.iterdir()) == []


def test_a_scratch_copy_of_what_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StateError, match="not a database"), Database.scratch(f"sqlite:///{path}"):
        raise AssertionError("a copy was given")


# A plain word when it cannot be used.


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql+psycopg://127.0.0.1:1/d", "check that the server runs"),
        ("mysql://h/d", "write sqlite:///FILE"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:////nowhere/at/all/state.db", "No such file or directory"),
    ],
)
def test_a_url_that_cannot_be_a_state_is_refused_with_advice(url: str, words: str) -> None:
    for opening in (Database.open, Database.open_beside):
        if "nowhere" in url and opening == Database.open_beside:
            words = "run a cycle first"
        with pytest.raises(StateError, match=words):
            opening(url)


def test_a_directory_is_no_database(tmp_path: Path) -> None:
    for opening in (Database.open, Database.open_beside):
        with pytest.raises(StateError, match="name a file in it"):
            opening(f"sqlite:///{tmp_path}")


def test_a_file_of_something_else_is_left_as_it_is(path: Path) -> None:
    content = b"SQLite format 4\0" + b"x" * 5000
    for opening in (Database.open, Database.open_beside):
        path.write_bytes(content)
        with pytest.raises(StateError, match=r"not a database; .*syncsvc state salvage"):
            opening(f"sqlite:///{path}")
        assert path.read_bytes() == content
    path.unlink()
    Database.open(f"sqlite:///{path}").close()  # the failures above held no lock


def test_a_database_that_was_damaged_says_so(path: Path) -> None:
    with Database.open(f"sqlite:///{path}") as database:
        for number in range(200):
            put(database, f"n{number}", b"x" * 500)
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = random.Random(1).randbytes(len(content) - 4096 * 3)
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"malformed|not a database"):
        _use(path)


def _use(path: Path) -> None:
    with Database.open(f"sqlite:///{path}") as database, database.reading() as connection:
        for row in connection.execute(select(META)):
            assert row.name


def test_a_later_version_is_refused(path: Path) -> None:
    Database.open(f"sqlite:///{path}").close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    for opening, words in ((Database.open, "later version"), (Database.open_beside, "9999")):
        with pytest.raises(StateError, match=words):
            opening(f"sqlite:///{path}")


def test_a_full_disk_is_told_and_what_was_committed_stays(database: Database) -> None:
    put(database, "a")
    with database.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    with database.writing() as connection:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StateError, match=r"full; the disk or the quota of .* is full: make room"):
        put(database, "b", b"x" * 200_000)
    assert "a" in names(database)
    assert "b" not in names(database)
    with database.writing() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 100000")
    put(database, "c", b"x" * 200_000)


_TOO_LARGE = """
import resource, signal, sys
from syncsvc.errors import StateError
from syncsvc.state.database import Database
from syncsvc.state.tables import META
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Database.open(f"sqlite:///{sys.argv[1]}") as database:
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    try:
        with database.writing() as connection:
            connection.execute(META.insert().values(name="a", value=b"x" * 900_000))
    except StateError as error:
        print(error)
"""


def test_a_file_that_may_grow_no_further_is_told(path: Path) -> None:
    assert resource.RLIMIT_FSIZE
    told = run(_TOO_LARGE, path).stdout
    assert str(path) in told
    assert f"see whether the disk of {path.parent}, a quota or a limit on the size" in told


@contextlib.contextmanager
def _as_nobody(folder: Path) -> Iterator[None]:
    """Let file permissions count even where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    for it in (folder, *folder.iterdir()):
        os.chown(it, NOBODY, NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_not_be_written_is_told_with_the_user() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o555)
        with _as_nobody(folder):
            told = (
                f"Permission denied; this user (uid {os.geteuid()}) may not write the folder {folder}: give "
            )
            with pytest.raises(StateError, match=re.escape(told)):
                Database.open(f"sqlite:///{folder}/state.db")
        folder.chmod(0o755)
        assert list(folder.iterdir()) == []


def test_a_file_that_may_not_be_read_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "state.db"
        Database.open(f"sqlite:///{path}").close()
        path.chmod(0)
        with _as_nobody(folder), pytest.raises(StateError, match=r"unable to open|denied"):
            Database.open_beside(f"sqlite:///{path}")


# Queries.

INTS = random.Random(7).sample(range(1, 10**12), 2000)


def plan(database: Database, statement: str) -> str:
    with database.reading() as connection:
        return " ".join(row[-1] for row in connection.execute(text("EXPLAIN QUERY PLAN " + statement)))


def literal(condition: ClauseElement) -> str:
    compiled = condition.compile(dialect=sqlite_dialect.dialect(), compile_kwargs={"literal_binds": True})
    return str(compiled).replace(":", "\\:")


def test_many_values_are_looked_up_in_the_index(database: Database) -> None:
    strings = [f"member-{number}@example.org" for number in range(2000)]
    by_email = select(MEMBER.c.id).where(MEMBER.c.brand == 1, among(MEMBER.c.email_key, strings))
    by_id = update(MEMBER).where(among(MEMBER.c.id, INTS)).values(due=1)
    told = plan(database, literal(by_email))
    assert "uq_member_email (brand=? AND email_key=?)" in told
    assert "SCAN member" not in told
    told = plan(database, literal(by_id))
    assert "SEARCH member USING INTEGER PRIMARY KEY (rowid=?)" in told


def test_one_statement_text_serves_any_number_of_values() -> None:
    texts = {str(among(MEMBER.c.id, range(count))) for count in (0, 1, 2000)}
    assert len(texts) == 1


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=20),
    st.data(),
)
def test_exactly_the_named_texts_are_found(values: list[str], data: st.DataObject) -> None:
    stored = list(dict.fromkeys(values))
    asked = data.draw(st.lists(st.sampled_from(stored))) if stored else ["x"]
    with _organizations(stored) as connection:
        found = connection.scalars(select(ORGANIZATION.c.name).where(among(ORGANIZATION.c.name, asked)))
        assert set(found) == set(asked) & set(stored)


@given(st.sets(st.integers(-(2**63), 2**63 - 1), max_size=20), st.data())
def test_exactly_the_named_numbers_are_found(values: set[int], data: st.DataObject) -> None:
    asked = data.draw(st.lists(st.sampled_from(sorted(values)))) if values else [1]
    rows = {number: f"n{number}" for number in values}
    with _organizations(rows) as connection:
        found = connection.scalars(select(ORGANIZATION.c.id).where(among(ORGANIZATION.c.id, asked)))
        assert set(found) == set(asked) & values


_shared: list[Database] = []


@pytest.fixture(scope="module", autouse=True)
def _one_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with Database.open(f"sqlite:///{tmp_path_factory.mktemp('shared')}/state.db") as database:
        _shared.append(database)
        yield
        _shared.clear()


@contextlib.contextmanager
def _organizations(rows: list[str] | dict[int, str]) -> Iterator[Connection]:
    """Give a connection that sees these organizations alone, until the end of the block."""
    given_ids = rows if isinstance(rows, dict) else dict(enumerate(rows))
    with _shared[0].writing() as connection:
        connection.execute(ORGANIZATION.delete())
        if given_ids:
            connection.execute(
                ORGANIZATION.insert(),
                [
                    {"id": number, "name": name, "organization_id": name, "points": "add"}
                    for number, name in given_ids.items()
                ],
            )
        yield connection


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - the bounds are naive by contract
def test_a_time_is_kept_to_the_millisecond(at: datetime) -> None:
    kept = from_ms(to_ms(at))
    assert timedelta() <= at - kept < timedelta(milliseconds=1)
    assert to_ms(kept) == to_ms(at)
    assert kept.tzinfo is UTC
