"""The state on a PostgreSQL server: organizations write at once, and every trouble is told."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from passage import Passage
from postgres import LOCKED, Postgres
from sqlalchemy import create_engine, select, text
from sqlmodel import SQLModel

from syncsvc.errors import StateError
from syncsvc.probe import probe
from syncsvc.state import migrations, server
from syncsvc.state.condition import Condition, condition
from syncsvc.state.database import Database, among
from syncsvc.state.numbers import new_ids
from syncsvc.state.postgres import AT_ONCE, connect
from syncsvc.state.tables import MEMBER, META, ORGANIZATION, QUARANTINE

Ask = Callable[[str], list[Any]]


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    with Database.open(url) as opened:
        yield opened


@pytest.fixture
def ask(url: str) -> Iterator[Ask]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        yield lambda said: connection.execute(said.encode()).fetchall()


def put(database: Database, name: str, value: bytes = b"x") -> None:
    with database.writing() as connection:
        connection.execute(META.insert().values(name=name, value=value))


def names(database: Database) -> set[str]:
    with database.reading() as connection:
        return set(connection.scalars(select(META.c.name)))


def cut(ask: Ask) -> int:
    """Let the server end every other connection to the database; returns how many there were."""
    ended = ask(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    return len(ended)


# The tables.


def test_the_migrated_tables_are_those_the_code_works_with(postgres: Postgres) -> None:
    url = postgres.empty()
    assert not Database.exists(url)
    Database.open(url).close()
    assert Database.exists(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


def test_texts_are_in_the_order_of_their_bytes_and_numbers_have_64_bits(ask: Ask) -> None:
    columns = (
        "FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'"
    )
    assert ask(f"SELECT DISTINCT collation_name {columns} AND data_type LIKE 'char%'") == [("C",)]
    assert ask(f"SELECT table_name, column_name {columns} AND data_type = 'integer'") == []
    assert ask("SELECT sequencename FROM pg_sequences WHERE data_type <> 'bigint'::regtype") == []


def test_two_that_begin_at_once_make_the_tables_once(postgres: Postgres) -> None:
    url = postgres.empty()
    outcomes: list[str] = []

    def begin() -> None:
        Database.open(url).close()
        outcomes.append("opened")

    threads = [threading.Thread(target=begin) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["opened"] * 3
    Database.open_beside(url).close()


# Who writes when.


_DIES = """
import os, sys
from syncsvc.state.database import Database
kept = Database.open(sys.argv[1])
os.kill(os.getpid(), 9)
"""


def test_a_process_that_was_killed_holds_nothing(url: str) -> None:
    killed = subprocess.run([sys.executable, "-c", _DIES, url], check=False, timeout=60)
    assert killed.returncode == -9
    Database.open(url).close()


def test_organizations_write_at_once_and_each_one_in_turn(database: Database) -> None:
    first, second, beside = database.of(1), database.of(2), database.of(1)
    waiting, done = threading.Event(), threading.Event()

    def write() -> None:
        waiting.set()
        put(beside, "third")
        done.set()

    thread = threading.Thread(target=write)
    with first.writing() as connection:
        connection.execute(META.insert().values(name="first", value=b"x"))
        put(second, "second")
        put(database, "of none")
        assert names(database) == {"second", "of none"}
        thread.start()
        assert waiting.wait(10)
        assert not done.wait(0.2)
    thread.join(10)
    assert names(database) == {"first", "second", "third", "of none"}


def test_a_reader_sees_one_moment(database: Database) -> None:
    put(database, "a")
    with database.reading() as connection:
        before = set(connection.scalars(select(META.c.name)))
        put(database, "b")
        assert set(connection.scalars(select(META.c.name))) == before
    assert names(database) == {"a", "b"}


def test_numbers_of_organizations_that_store_at_once_are_all_different(database: Database) -> None:
    with database.of(1).writing() as one, database.of(2).writing() as other:
        drawn = [new_ids(it, MEMBER, 3) for it in (one, other, one)]
    together = [number for numbers in drawn for number in numbers]
    assert len(set(together)) == 9
    assert all(list(numbers) == sorted(numbers) for numbers in drawn)


def test_more_threads_than_places_wait_and_all_get_their_turn(database: Database, ask: Ask) -> None:
    def read_while_writing(number: int) -> None:
        with database.of(number).writing() as connection:
            connection.execute(META.insert().values(name=f"n{number}", value=b"x"))
            names(database)

    threads = [threading.Thread(target=read_while_writing, args=(number,)) for number in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(names(database)) == 60
    (most,) = ask("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'syncsvc %'")[0]
    assert most <= 3 * AT_ONCE + 1


def test_an_error_of_the_caller_is_not_taken_for_one_of_the_server(database: Database) -> None:
    put(database, "a")
    with pytest.raises(Exception, match="duplicate key") as caught:
        put(database, "a")
    assert not isinstance(caught.value, StateError)
    put(database, "b")


def test_exactly_the_named_texts_and_numbers_are_found(database: Database) -> None:
    stored = ["a", "A", "", "é", "e\u0301", "a'b", 'a"b', "a\\b", "{a,b}", "%s", "\U0001f600", "\n", "null"]
    with database.writing() as connection:
        rows = [
            {"id": 2**40 + number, "name": name, "organization_id": name, "points": "add"}
            for number, name in enumerate(stored)
        ]
        connection.execute(ORGANIZATION.insert(), rows)
        for name in stored:
            found = connection.scalars(
                select(ORGANIZATION.c.name).where(among(ORGANIZATION.c.name, [name, "x"]))
            )
            assert list(found) == [name]
        asked = [2**40 + 3, 5, -(2**63), 2**63 - 1]
        listed = connection.scalars(select(ORGANIZATION.c.id).where(among(ORGANIZATION.c.id, asked)))
        assert list(listed) == [2**40 + 3]
        in_order = connection.scalars(select(ORGANIZATION.c.name).order_by(ORGANIZATION.c.name))
        assert list(in_order) == sorted(stored)


def test_a_text_with_a_nul_is_kept_without_it(database: Database) -> None:
    row = {"name": "a\0b", "organization_id": "c", "points": "add"}
    with database.writing() as connection:
        connection.execute(ORGANIZATION.insert(), row)
        assert connection.scalar(select(ORGANIZATION.c.name)) == "a\ufffdb"


@pytest.mark.parametrize(
    "places",
    [
        "@/{}?host=/nowhere:1&host={}:5432",
        "@/{}?host=/nowhere,{}&port=1,5432",
        "@127.0.0.1:1,{2}:5432/{0}?connect_timeout=5",
    ],
)
def test_of_several_hosts_the_one_that_answers_is_taken(postgres: Postgres, places: str) -> None:
    name = postgres.database().partition("@/")[2].partition("?")[0]
    folder = str(postgres.folder)
    written = places.format(name, folder, folder.replace("/", "%2F"))
    with Database.open(f"postgresql+psycopg://tests{written}&target_session_attrs=read-write") as opened:
        put(opened, "a")
        assert names(opened) == {"a"}


# Troubles.


def refused(url: str) -> str:
    with pytest.raises(StateError) as caught:
        Database.open(url)
    told = str(caught.value)
    found = condition(url)
    assert [it.message for it in found.problems] == [told]
    return told


def test_a_server_that_is_away_is_told_and_taken_up_again(database: Database, ask: Ask) -> None:
    put(database, "a")
    assert cut(ask) >= 1  # the one that wrote
    put(database, "b")
    assert names(database) == {"a", "b"}


def test_a_connection_that_is_lost_in_a_transaction_leaves_nothing_of_it(
    database: Database, ask: Ask
) -> None:
    def write() -> None:
        with database.writing() as connection:
            connection.execute(META.insert().values(name="a", value=b"x"))
            cut(ask)
            connection.execute(META.insert().values(name="b", value=b"x"))

    with pytest.raises(StateError, match="a service goes on once it is back"):
        write()
    assert names(database) == set()
    put(database, "a")


def test_a_reader_that_is_cut_off_is_told(database: Database, ask: Ask) -> None:
    def read() -> None:
        with database.reading() as connection:
            connection.scalars(select(META.c.name)).all()
            cut(ask)
            connection.scalars(select(META.c.name)).all()

    with pytest.raises(StateError, match="a service goes on once it is back"):
        read()
    assert names(database) == set()


def test_tables_that_somebody_dropped_are_named_and_none_is_made_anew(url: str, ask: Ask) -> None:
    with Database.open(url) as database:
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("DROP TABLE ledger, quarantine")
        told = r'"quarantine" does not exist.*changed its tables: put a backup'
        with pytest.raises(StateError, match=told), database.reading() as connection:
            connection.execute(select(QUARANTINE)).all()
    told = r"has no ledger, quarantine: somebody has changed its tables: put a backup back"
    assert re.search(told, condition(url).problems[0].message)
    for opened in (Database.open, Database.open_beside):
        with pytest.raises(StateError, match=told):
            opened(url)
    assert ask("SELECT to_regclass('ledger')") == [(None,)]


@pytest.mark.parametrize(
    "statement", ["CREATE TABLE member (id int)", "CREATE TABLE alembic_version (version_num text)"]
)
def test_a_database_of_something_else_is_refused_and_left_alone(postgres: Postgres, statement: str) -> None:
    url = postgres.empty()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement.encode())
    told = r"has (member|alembic_version), and is no state: name a database of its own, or a schema"
    assert re.search(told, condition(url).problems[0].message)
    with pytest.raises(StateError, match=told):
        Database.open(url)


def test_a_server_that_does_not_run_is_told(tmp_path: Any) -> None:
    told = refused(f"postgresql+psycopg://me@/db?host={tmp_path}")
    assert told.startswith(f"the state in PostgreSQL database db on {tmp_path} cannot be used: connection")
    assert "No such file" in told
    assert "check that the server runs" in told


def test_a_database_that_does_not_exist_is_told(postgres: Postgres) -> None:
    told = refused(postgres.url("nowhere"))
    assert 'database "nowhere" does not exist; make it: createdb' in told


def test_a_wrong_password_is_told_and_shown_nowhere(postgres: Postgres) -> None:
    url = postgres.database()
    postgres.run(f"CREATE ROLE {LOCKED} LOGIN PASSWORD 'right'")
    wrong = url.replace("tests@", f"{LOCKED}:marked-word@")
    told = refused(wrong)
    assert "password authentication failed" in told
    assert "correct user and password" in told
    with pytest.raises(StateError) as caught:
        Database.open_beside(wrong)
    assert "marked-word" not in "".join(traceback.format_exception(caught.value))
    assert "no password supplied; give one" in refused(url.replace("tests@", f"{LOCKED}@"))
    odd = "p@/:#?%&=+ \u00e4"
    postgres.run(f"ALTER ROLE {LOCKED} PASSWORD '{odd}'")
    for encoded in (quote(odd, safe=""), quote(odd, safe=":&=+ ")):
        assert not Database.exists(postgres.empty().replace("tests@", f"{LOCKED}:{encoded}@"))
    postgres.run(f"DROP ROLE {LOCKED}")


def test_an_older_version_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "OLDEST", 1000)
    assert "syncsvc is tested on 1000 and newer; upgrade the server" in refused(url)


def test_a_database_that_cannot_hold_every_script_is_refused(postgres: Postgres) -> None:
    url = postgres.empty("ENCODING 'LATIN1' LOCALE 'C'")
    assert "encoding LATIN1" in refused(url)


def test_a_server_that_may_only_be_read_is_told(url: str, ask: Ask, database: Database) -> None:
    put(database, "a")
    database.close()
    (name,) = ask("SELECT current_database()")[0]
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    assert "may only be read: point state at the primary" in refused(url)
    with Database.open_beside(url) as beside:
        assert names(beside) == {"a"}
        with pytest.raises(StateError, match="read-only transaction; point state at the primary"):
            put(beside, "b")


def test_what_was_connected_while_nothing_could_be_written_is_not_used_again(
    postgres: Postgres, ask: Ask, database: Database
) -> None:
    name = ask("SELECT current_database()")[0][0]
    postgres.run(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # as where a disk is full
    cut(ask)
    with database.reading(), database.reading():
        pass  # two connections are kept
    with pytest.raises(StateError, match="read-only transaction"):
        put(database, "a")
    postgres.run(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    with database.reading():
        put(database, "b")
    assert names(database) == {"b"}


def test_a_server_without_a_free_connection_is_told(postgres: Postgres) -> None:
    url = postgres.database().replace("tests@", "few@")
    postgres.run("CREATE ROLE few LOGIN CONNECTION LIMIT 1")
    with psycopg.connect(url.replace("+psycopg", "")):
        told = refused(url)
    assert "too many connections" in told
    assert "raise max_connections" in told
    postgres.run("DROP ROLE few")


def test_a_statement_that_takes_too_long_is_ended_and_told(url: str) -> None:
    slow = f"{url}&options=-c%20statement_timeout%3D7min"
    with Database.open(slow) as database:
        with database.reading() as connection:
            assert connection.scalar(text("SHOW statement_timeout")) == "7min"
        sleeps = text("SET LOCAL statement_timeout = 20; SELECT pg_sleep(5)")
        with (
            pytest.raises(StateError, match="statement timeout; the server took too long"),
            database.reading() as connection,
        ):
            connection.execute(sleeps)


def test_a_later_version_is_refused(url: str, ask: Ask) -> None:
    ask("UPDATE alembic_version SET version_num = '9999' RETURNING 1")
    assert "later version" in refused(url)
    with pytest.raises(StateError, match="9999"):
        Database.open_beside(url)


def test_tables_that_a_process_of_an_older_version_works_with_are_not_migrated(postgres: Postgres) -> None:
    url = postgres.empty()
    engine = connect(url)
    command.upgrade(migrations.configuration(engine), "0015")
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO replica VALUES ('r1', 'syncsvc 7 on old', 0, 1e18)")
    told = refused(url)
    assert "is of form 0015, with which syncsvc 7 on old still works; stop every process" in told
    assert migrations.form(engine) == "0015"
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE replica SET expires_at = 1")  # it was killed, a lease ago
    engine.dispose()
    with Database.open(url) as database:
        assert database.leases.spread().replicas == 1


def test_a_closed_database_says_so_and_waits_for_a_write_under_way(url: str) -> None:
    database = Database.open(url)
    with ExitStack() as writing:
        writing.enter_context(database.writing())
        thread = threading.Thread(target=database.close)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
    thread.join(10)
    with pytest.raises(StateError, match="closed"):
        put(database, "a")


def test_what_check_says_of_a_state_that_is_well(postgres: Postgres, url: str) -> None:
    assert condition(url) == Condition()
    (said,) = condition(postgres.empty()).facts
    assert "yet: the first cycle makes it, to which every contact is new" in said
    with Database.open(url) as database:
        database.leases.serve()
        (said,) = condition(url).facts
    assert "is in use by syncsvc" in said
    assert said.endswith("which runs cycles on it")


def test_a_scratch_copy_holds_what_the_original_holds(url: str, database: Database) -> None:
    put(database, "a")
    with Database.scratch(url) as scratch:
        assert names(scratch) == {"a"}
        put(scratch, "b")
    assert names(database) == {"a"}
    assert database.scrub()


def test_a_health_check_without_an_address_asks_the_server_who_runs_cycles(url: str, tmp_path: Path) -> None:
    file = tmp_path / "acme.toml"
    file.write_text(f'[service]\nlisten = ""\nstate = "{url}"\n', encoding="utf-8")
    well, told = probe(file)
    assert (well, "no service of this machine is heard of on PostgreSQL database" in told) == (False, True)
    (tmp_path / "state").write_text(url, encoding="utf-8")
    file.write_text(f'[service]\nlisten = ""\nstate = {{ file = "{tmp_path}/state" }}\n', encoding="utf-8")
    with Database.open(url) as database:
        database.leases.serve()
        well, told = probe(file)
        assert (well, told.startswith("syncsvc ")) == (True, True)
        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as beside:
            beside.execute("UPDATE replica SET name = 'syncsvc 1 on another-machine'")
        well, told = probe(file)
    assert (well, "no service of this machine" in told) == (False, True)
    assert "another-machine" in told
    (tmp_path / "state").write_text(f"postgresql://me@/db?host={tmp_path}", encoding="utf-8")
    well, told = probe(file)
    assert (well, "cannot be used" in told) == (False, True)


def test_a_list_that_is_read_while_the_state_is_closed_gives_its_connection_back(url: str) -> None:
    database = Database.open(url)
    with database.reading() as connection:
        driver: Any = connection.connection.driver_connection
        database.close()
        assert not driver.closed
    assert driver.closed


def test_a_dead_connection_is_noticed_by_the_system_within_a_minute(url: str, postgres: Postgres) -> None:
    with Passage(postgres.folder) as passage:
        over_tcp = url.partition("?")[0].replace("@/", f"@127.0.0.1:{passage.port}/")
        with Database.open(over_tcp) as database, database.reading() as connection:
            driver: Any = connection.connection.driver_connection
            with socket.socket(fileno=os.dup(driver.fileno())) as end:
                assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                options = (
                    socket.TCP_USER_TIMEOUT,
                    socket.TCP_KEEPIDLE,
                    socket.TCP_KEEPINTVL,
                    socket.TCP_KEEPCNT,
                )
                told = [end.getsockopt(socket.IPPROTO_TCP, it) for it in options]
    assert told == [60_000, 30, 10, 3]


def test_writers_of_one_organization_take_no_place_of_others_while_they_wait(database: Database) -> None:
    inside, go = threading.Event(), threading.Event()

    def hold() -> None:
        with database.of(1).writing():
            inside.set()
            go.wait(10)

    def write(organization: int) -> None:
        with database.of(organization).writing():
            pass

    holding = threading.Thread(target=hold)
    holding.start()
    assert inside.wait(10)
    waiting = [threading.Thread(target=write, args=(1,)) for _ in range(AT_ONCE)]
    other = threading.Thread(target=write, args=(2,))
    for thread in (*waiting, other):
        thread.start()
    other.join(5)
    waits = other.is_alive()
    go.set()
    for thread in (holding, *waiting, other):
        thread.join()
    assert not waits
