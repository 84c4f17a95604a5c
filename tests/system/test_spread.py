"""Services that share one PostgreSQL: who runs what, as they show it, and the share of one that comes."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from postgres import Postgres
from structlog.testing import capture_logs
from test_reload import TYPES, House
from town import command

from connectors.csv import Csv
from syncsvc.configfile import load
from syncsvc.daemon import Daemon
from syncsvc.once import run_once
from syncsvc.overview import Overview
from syncsvc.rules.sharing import Orphans
from syncsvc.state.database import Database
from syncsvc.state.mark import bar, begin_history
from syncsvc.state.replicas import process_name
from syncsvc.state.store import register
from syncsvc.tidings import no_progress

NAMES = ("acme", "bank", "cafe")


@pytest.fixture
def house(tmp_path: Path, postgres: Postgres) -> House:
    house = House(tmp_path)
    service = f'[service]\nstate = "{postgres.database()}"\nlisten = ""\n'
    (house.path / "service.toml").write_text(service, encoding="utf-8")
    for name in NAMES:
        house.write(name)
    return house


@pytest.fixture
def start(house: House) -> Iterator[Callable[[], Daemon]]:
    with ExitStack() as running:
        yield lambda: running.enter_context(house.open())


def looked(daemon: Daemon) -> None:
    """Let a third of a lease pass, at whose end it looks, and a second more."""
    daemon._spread_at = -math.inf
    daemon.look()
    daemon.look()


def awaited(daemon: Daemon) -> dict[str, float | None]:
    """Return what /metrics says of each organization that cannot be taken, or could not."""
    found = daemon._metrics.registry.get_sample_value
    return {name: found("syncsvc_state_awaited", {"organization": name}) for name in NAMES}


def page(daemon: Daemon, path: str = "/") -> str:
    shown = Overview(lambda: list(daemon._runners.values()), dict, None, daemon.elsewhere).render(path)
    assert shown is not None
    return shown.decode()


def test_a_replica_that_comes_has_its_share_two_looks_later(start: Callable[[], Daemon]) -> None:
    first, second = start(), start()
    assert (len(first._runners), len(second._runners)) == (3, 0)
    looked(first)
    looked(second)
    assert (len(first._runners), len(second._runners)) == (2, 1)
    third = start()
    assert not third._runners
    for daemon in (first, second, third):
        looked(daemon)
    assert [len(it._runners) for it in (first, second, third)] == [1, 1, 1]
    assert {name for it in (first, second, third) for name in it._runners} == set(NAMES)


def test_an_organization_that_nobody_may_run_makes_its_replica_unready_until_somebody_may(
    start: Callable[[], Daemon], house: House
) -> None:
    first, second = start(), start()
    with first._database.writing() as connection:
        bar(connection, "was copied elsewhere, and")
    with capture_logs() as told:
        looked(second)
        looked(second)
    assert not second._runners
    assert sorted((it["event"], it["organization"]) for it in told) == [
        ("organization_not_added", name) for name in NAMES
    ]
    assert second.ready() == (
        False,
        {name: {"ready": False, "outcome": None, "state": "refused"} for name in NAMES},
    )
    assert awaited(second) == dict.fromkeys(NAMES, 1.0)
    (house.path / "cafe.toml").unlink()
    looked(second)
    assert set(second.ready()[1]) == {"acme", "bank"}
    house.write("cafe")
    with first._database.writing() as connection:
        begin_history(connection)
    looked(second)
    assert len(second._runners) == 2
    assert all("state" not in it for it in second.ready()[1].values())
    assert awaited(second) == dict.fromkeys(NAMES, 0.0)


def test_what_nobody_else_could_take_for_a_time_is_shared_again_once_they_can(
    start: Callable[[], Daemon],
) -> None:
    first, second = start(), start()
    first._orphans = Orphans(0)  # has no patience
    looked(first)
    assert len(first._runners) == 2  # one is let go, which the other does not look for yet
    looked(first)
    assert len(first._runners) == 3
    looked(first)
    looked(second)
    assert (len(first._runners), len(second._runners)) == (2, 1)


def test_an_organization_whose_lease_is_lost_while_it_is_opened_ends_nothing_and_is_taken_again(
    house: House, start: Callable[[], Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = start()

    class Slow(Csv):
        """Takes so long that the session is over: another process may hold the lease by then."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            with daemon._database.writing() as connection:
                connection.exec_driver_sql("UPDATE replica SET expires_at = 0")
            daemon._leases.beat()  # type: ignore[attr-defined]

    house.write("dock")
    with monkeypatch.context() as patched:
        patched.setitem(TYPES, "csv", Slow)
        looked(daemon)
        assert "dock" not in daemon._runners
    looked(daemon)
    looked(daemon)
    assert set(daemon._runners) == {*NAMES, "dock"}


def test_once_reports_each_organization_where_another_process_takes_one_over_while_it_is_opened(
    house: House,
) -> None:
    installation = load(house.path, {"csv": Csv.Settings})
    url = installation.service.state_url
    with ExitStack() as elsewhere:
        other = elsewhere.enter_context(Database.open(url))
        numbers = iter([register(other, installation.organizations[0])])

        class Slow(Csv):
            """Takes so long that another process has taken the first organization over."""

            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                for number in numbers:
                    with other.writing() as connection:
                        connection.exec_driver_sql("UPDATE replica SET expires_at = 0")
                    other.leases.hold(number)

        reports = run_once(installation, types={"csv": Slow}, progress=no_progress, stop=threading.Event())
    assert [it.organization for it in reports] == list(NAMES)
    assert reports[0].errors[0].startswith("no cycle was run: another process runs the cycles")


def test_a_look_that_fails_unexpectedly_ends_no_cycle_and_is_told_once(
    start: Callable[[], Daemon],
) -> None:
    daemon = start()
    database = daemon._database
    with database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE replica ALTER expires_at TYPE text")
    with capture_logs() as lines:
        for _ in range(2):
            daemon._spread_at = -math.inf
            daemon._look_on()
        with database.writing() as connection:
            connection.exec_driver_sql(
                "ALTER TABLE replica ALTER expires_at TYPE bigint USING expires_at::bigint"
            )
        daemon._spread_at = -math.inf
        daemon._look_on()
    assert [it["event"] for it in lines] == ["look_failed", "look_recovered"]
    assert set(daemon._runners) == set(NAMES)


def test_what_came_while_looks_failed_is_taken_once_they_work(
    house: House, start: Callable[[], Daemon]
) -> None:
    daemon = start()
    with daemon._database.writing() as connection:
        connection.exec_driver_sql("ALTER TABLE organization ALTER name TYPE bytea USING name::bytea")
    house.write("dock")
    with capture_logs() as lines:
        daemon._look_on()
        daemon._look_on()
    assert [it["event"] for it in lines] == ["look_failed"]
    with daemon._database.writing() as connection:
        mended = "ALTER TABLE organization ALTER name TYPE text USING convert_from(name, 'UTF8')"
        connection.exec_driver_sql(mended)
    daemon._look_on()
    assert "dock" in daemon._runners


def test_an_organization_that_another_ran_leaves_every_page_with_its_file(
    house: House, start: Callable[[], Daemon]
) -> None:
    first, second = start(), start()
    (house.path / "acme.toml").unlink()
    looked(first)
    looked(second)
    assert "acme" not in page(first)
    assert "acme" not in page(second)


def test_the_page_of_each_replica_tells_who_runs_what(start: Callable[[], Daemon]) -> None:
    first, second = start(), start()
    looked(first)
    assert "nobody yet" in page(first)
    looked(second)
    looked(first)
    here, elsewhere = (next(iter(it._runners)) for it in (first, second))
    assert f"Run by {process_name()} since 20" in page(first, f"/organizations/{here}")
    assert "unless it is renewed" in page(first)
    assert "2 organizations here, " in page(first)
    assert page(first).count(f"<td>{process_name()}</td>") == 1
    assert process_name() in page(first, f"/organizations/{elsewhere}")
    assert page(second).count(f"<td>{process_name()}</td>") == 2


def test_sweep_beside_replicas_asks_for_the_next_cycle_of_each_organization(
    house: House, start: Callable[[], Daemon]
) -> None:
    daemon = start()
    asked = command("-c", house.path, "sweep", "--json")
    assert (asked.code, asked.json()) == (0, {"asked": [*NAMES], "of": [process_name()]})
    for runner in daemon._runners.values():
        (connector,) = runner.store.connectors.values()
        progress = runner.store.intake.progress(connector)
        assert progress.sweep_asked == progress.sweep + 1


def test_status_tells_who_has_the_lease_of_each_organization(
    house: House, start: Callable[[], Daemon]
) -> None:
    daemon = start()
    told = command("-c", house.path, "status", "--json").json()["acme"]["status"]["lease"]["holder"]
    assert told["name"] == process_name()
    assert told["since"] < told["until"]
    for runner in daemon._runners.values():
        runner.lease.close()
    shown = command("-c", house.path, "status").out
    assert shown.count("nobody has the lease of its cycles") == len(NAMES)
    assert command("-c", house.path, "status", "--json").json()["acme"]["status"]["lease"] == {"holder": None}
