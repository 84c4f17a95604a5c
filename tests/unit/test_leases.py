"""Leases on a server: one holder of an organization at a time, and who is not it any more writes nothing."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from passage import Passage
from postgres import Postgres
from sqlalchemy import func, select

from syncsvc.errors import HeldError, LeaseLostError, StateError
from syncsvc.state import leases
from syncsvc.state.database import Database
from syncsvc.state.leases import SharedLeases
from syncsvc.state.tables import META, ORGANIZATION

Ask = Callable[[str], list[Any]]
ACME, OTHER = 1, 2
LEASE = timedelta(minutes=1)  # none of these tests waits for it: sessions are ended by hand


@pytest.fixture
def url(postgres: Postgres) -> str:
    url = postgres.database()
    with Database.open(url) as database, database.writing() as connection:
        for number in (ACME, OTHER):
            row = {"id": number, "name": f"o{number}", "organization_id": f"01JC{number}", "points": "add"}
            connection.execute(ORGANIZATION.insert().values(row))
    return url


@pytest.fixture
def ask(url: str) -> Iterator[Ask]:
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:

        def ask(said: str) -> list[Any]:
            found = connection.execute(said.encode())
            return found.fetchall() if found.description else []

        yield ask


@pytest.fixture
def opened(url: str) -> Iterator[Callable[[], Database]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(Database.open(url, LEASE))


def test_nobody_claims_an_organization_of_tables_that_a_later_version_has_changed(
    opened: Callable[[], Database], ask: Ask
) -> None:
    frozen = opened()
    ask("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StateError, match="later version of syncsvc"):
        frozen.leases.hold(ACME)


def mine(database: Database) -> SharedLeases:
    assert isinstance(database.leases, SharedLeases)
    return database.leases


def end_sessions(ask: Ask) -> None:
    """Let time pass, as the server tells it, until every session is over."""
    ask("UPDATE replica SET expires_at = 0")


def put(database: Database, name: str) -> None:
    with database.writing() as connection:
        connection.execute(META.insert().values(name=name, value=b"x"))


def stored(database: Database) -> int:
    with database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(META)) or 0


def test_an_organization_is_held_by_one_and_the_other_is_told_by_whom(
    opened: Callable[[], Database],
) -> None:
    first, second = opened(), opened()
    lease = first.leases.hold(ACME)
    assert lease.shared
    assert 40 < lease.left() <= 50  # less than the minute, by what is spare
    with pytest.raises(
        HeldError, match=r"are run by syncsvc \d+ on .* gone, its lease ends .* within \d\d s"
    ):
        second.leases.hold(ACME)
    assert second.leases.hold(OTHER).fence == 1


def test_who_holds_it_shares_it_and_it_is_free_when_the_last_gives_it_back(
    opened: Callable[[], Database],
) -> None:
    first, second = opened(), opened()
    lease = first.leases.hold(ACME)
    assert first.leases.hold(ACME) is lease
    lease.close()
    assert not lease.lost
    with pytest.raises(HeldError):
        second.leases.hold(ACME)
    lease.close()
    lease.close()
    assert lease.lost
    assert second.leases.hold(ACME).fence == 2


def test_who_ends_gives_everything_back_at_once(opened: Callable[[], Database], ask: Ask) -> None:
    first, second = opened(), opened()
    first.leases.hold(ACME)
    first.leases.hold(OTHER)
    first.close()
    assert second.leases.hold(ACME).fence == second.leases.hold(OTHER).fence == 2
    assert len(ask("SELECT id FROM replica")) == 1


def test_a_session_that_is_renewed_lasts_and_one_that_is_over_never_comes_back(
    opened: Callable[[], Database], ask: Ask
) -> None:
    database = opened()
    lease = database.leases.hold(ACME)
    ask("UPDATE replica SET expires_at = expires_at - 30000")
    mine(database).beat()
    ((left,),) = ask(
        "SELECT expires_at - (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM replica"
    )
    assert 55_000 < left <= 60_000
    assert not lease.lost
    end_sessions(ask)
    mine(database).beat()
    assert lease.lost
    assert lease.left() == 0
    assert database.leases.alive()  # by another session, which holds nothing yet
    with pytest.raises(LeaseLostError):
        put(database.of(ACME, lease), "a")
    again = database.leases.hold(ACME)
    assert again.fence == lease.fence + 1
    put(database.of(ACME, again), "b")


def test_who_was_cut_off_stores_nothing_once_another_has_taken_over(
    opened: Callable[[], Database], ask: Ask
) -> None:
    first, second = opened(), opened()
    lease = first.leases.hold(ACME)
    put(first.of(ACME, lease), "a")
    end_sessions(ask)  # the first does not know
    put(first.of(ACME, lease), "b")  # nobody has taken over yet
    taken = second.leases.hold(ACME)
    assert taken.fence == lease.fence + 1
    with pytest.raises(LeaseLostError):
        put(first.of(ACME, lease), "c")
    put(second.of(ACME, taken), "d")
    put(first.of(OTHER), "e")  # a person's decision needs no lease
    assert stored(second) == 4


def test_nobody_takes_over_while_a_write_of_the_holder_is_under_way(
    opened: Callable[[], Database], ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = opened(), opened()
    lease = first.leases.hold(ACME)
    fences: list[int] = []
    with first.of(ACME, lease).writing() as connection:
        connection.execute(META.insert().values(name="a", value=b"x"))
        end_sessions(ask)
        monkeypatch.setattr(leases, "_CLAIM_WAITS", 0.05)
        with pytest.raises(HeldError, match="a write of this organization is under way"):
            second.leases.hold(ACME)
        monkeypatch.setattr(leases, "_CLAIM_WAITS", 20.0)
        thread = threading.Thread(target=lambda: fences.append(second.leases.hold(ACME).fence))
        thread.start()
        connection.execute(META.insert().values(name="b", value=b"x"))
        assert not fences
    thread.join()
    assert fences == [2]
    assert stored(second) == 2
    with pytest.raises(LeaseLostError):
        put(first.of(ACME, lease), "c")


def test_who_stops_within_a_write_is_ended_by_the_server_before_its_lease_is(url: str, ask: Ask) -> None:
    with Database.open(url, timedelta(milliseconds=400)) as stops, Database.open(url, LEASE) as other:
        lease = stops.leases.hold(ACME)

        def stop_and_go_on() -> None:
            with stops.of(ACME, lease).writing() as connection:
                end_sessions(ask)
                other.leases.hold(ACME)  # waits until the server has ended it
                connection.execute(META.insert().values(name="a", value=b"x"))

        with pytest.raises(StateError, match="another one must not wait for it"):
            stop_and_go_on()
        assert stored(other) == 0


def test_who_stops_within_a_message_is_ended_by_the_one_who_takes_over(
    url: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_CLAIM_WAITS", 0.05)
    short = timedelta(milliseconds=400)
    with Database.open(url, short) as stops, Database.open(url, short) as other:
        lease = stops.leases.hold(ACME)
        fences: list[int] = []

        def stop() -> None:
            with stops.of(ACME, lease).writing() as connection:
                driver: Any = connection.connection.driver_connection
                driver.pgconn.enter_pipeline_mode()
                driver.pgconn.send_query_params(b"SELECT 1", None)
                driver.pgconn.send_flush_request()
                driver.pgconn.flush()  # and no end of it: no timeout of the server begins
                end_sessions(ask)
                fences.extend(taken(other))
                driver.close()
                connection.execute(META.insert().values(name="a", value=b"x"))

        with pytest.raises(StateError):
            stop()
        assert fences == [2]
        assert stored(other) == 0


def taken(database: Database) -> list[int]:
    """Return the fence of an organization that is claimed again and again, nothing where it is never free."""
    for _ in range(100):
        with contextlib.suppress(HeldError):
            return [database.leases.hold(ACME).fence]
    return []


def test_leases_are_spread_over_those_who_serve(opened: Callable[[], Database], ask: Ask) -> None:
    first, second, once = opened(), opened(), opened()
    first.leases.serve()
    second.leases.serve()
    once.leases.hold(OTHER)
    first.leases.hold(ACME)
    spread = first.leases.spread()
    assert spread.replicas == 2
    assert set(spread.others) == {OTHER}
    assert set(second.leases.spread().others) == {ACME, OTHER}
    end_sessions(ask)
    assert first.leases.spread().others == {}
    assert ask("SELECT id FROM replica WHERE expires_at = 0") == []  # and were buried


def test_a_server_that_is_silent_is_given_up_and_asked_anew_within_the_lease(
    url: str, postgres: Postgres
) -> None:
    short = timedelta(seconds=3)
    with Passage(postgres.folder) as passage:
        over_tcp = url.partition("?")[0].replace("@/", f"@127.0.0.1:{passage.port}/")
        with Database.open(over_tcp, short) as database:
            database.leases.hold(ACME)
            mine(database)._closed.set()  # nobody else renews it
            passage.stall()
            with pytest.raises(StateError, match="no answer within"):
                mine(database).beat()
            passage.flow()
            mine(database).beat()
            assert database.leases.alive()


def test_a_server_that_falls_silent_keeps_nobody_who_looks_or_claims(
    url: str, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_CLAIM_WAITS", 0.05)
    short = timedelta(seconds=3)
    with Passage(postgres.folder) as passage:
        over_tcp = url.partition("?")[0].replace("@/", f"@127.0.0.1:{passage.port}/")
        with Database.open(over_tcp, short) as database:
            database.leases.serve()
            mine(database)._closed.set()
            for ask_it in (database.leases.spread, lambda: database.leases.hold(ACME)):
                assert database.leases.spread().others == {}
                passage.stall()
                with pytest.raises(StateError, match="no answer within"):
                    ask_it()
                passage.flow()
            assert database.leases.hold(ACME).fence == 1


def test_a_connection_that_is_cut_while_leases_are_looked_at_leaves_no_error_in_the_log(
    url: str, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    with Database.open(url, LEASE) as database:
        database.leases.serve()
        database.leases.spread()
        ask(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND datname = current_database()"
        )
        with pytest.raises(StateError):
            database.leases.spread()
        assert database.leases.spread().replicas == 1
    assert caplog.records == []


def test_replicas_agree_on_the_time_of_the_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fast(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(hours=1)

    with monkeypatch.context() as patch:
        patch.setattr(leases, "datetime", Fast)
        with Database.open(url, LEASE) as database:
            lease = database.leases.hold(ACME)
            assert abs(lease.now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_file_is_held_by_the_one_process_that_has_it_and_nothing_is_written(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path}/state.db") as database:
        database.leases.serve()
        lease = database.leases.hold(ACME)
        assert not lease.shared
        assert lease.left() > 1e9
        assert database.leases.spread().replicas == 1
        with database.reading() as connection:
            assert connection.scalar(select(func.count()).select_from(META)) == 0
