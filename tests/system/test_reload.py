"""What a service makes of changes in its files: in this process, cycles left out, and once as it is."""

from __future__ import annotations

import functools
import json
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from town import Service, settled, until

from connectors.csv import Csv
from syncsvc.daemon import Daemon
from syncsvc.errors import ConfigurationError
from syncsvc.roster import Roster
from syncsvc.sandbox.world import World
from syncsvc.state.database import Database

TYPES = {"csv": Csv}


@functools.cache
def _new_state() -> bytes:
    """Return the file of a state that holds nothing: making its tables anew takes longer than many a test."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "new.db"
        Database.open(f"sqlite:///{path}").close()
        return path.read_bytes()


class House:
    """A directory of organizations that nobody answers, and the service that is kept of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "organizations"
        self.path.mkdir()
        self.token = folder / "token"
        self.token.write_text("some-wallet-token", encoding="utf-8")
        (self.path / "service.toml").write_text(
            f'[service]\nstate = "sqlite:///{folder}/state.db"\nlisten = ""\n', encoding="utf-8"
        )
        (folder / "state.db").write_bytes(_new_state())
        self.lines: list[dict[str, Any]] = []

    def write(self, name: str, *, identity: str = "", head: str = "", every: str = "60s") -> Path:
        text = f"""
organization_id = "{identity or "01JC" + name}"
{head}
first_run = "import"
schedule = {{ every = "{every}" }}
[wallet]
base_url = "http://127.0.0.1:1"
token = {{ file = "{self.token}" }}
brand_id = "b1"
storecard = "c1"
[connectors.shop]
type = "csv"
path = "{self.path}/none.csv"
key = "id"
member = {{ email = "{{email}}", name = "{{name}}" }}
"""
        path = self.path / f"{name}.toml"
        path.write_text(text, encoding="utf-8")
        return path

    @contextmanager
    def open(self) -> Iterator[Daemon]:
        roster = Roster(self.path, {name: it.Settings for name, it in TYPES.items()})
        roster.begin()
        daemon = Daemon(roster, types=TYPES, stop=threading.Event())
        try:
            yield daemon
        finally:
            for runner in daemon._runners.values():
                runner.close()
            daemon._database.close()

    def look(self, daemon: Daemon) -> list[tuple[str, str]]:
        """Let the daemon look until it takes in what has changed; returns the events, and of whom."""
        with capture_logs() as lines:
            daemon.look()
            daemon.look()
        self.lines = [dict(line) for line in lines]
        return [(it["event"], it.get("organization", "")) for it in lines]


@pytest.fixture
def house(tmp_path: Path) -> House:
    house = House(tmp_path)
    for name in ("acme", "zoo"):
        house.write(name)
    return house


def gauge(daemon: Daemon, name: str, organization: str) -> float | None:
    return daemon._metrics.registry.get_sample_value(f"syncsvc_{name}", {"organization": organization})


def jobs(daemon: Daemon) -> dict[str, float]:
    daemon._scheduler.start(paused=True)
    found = {job.id: job.trigger.interval.total_seconds() for job in daemon._scheduler.get_jobs()}
    daemon._scheduler.shutdown()
    return found


def test_organizations_come_change_and_go_with_their_files(house: House) -> None:
    with house.open() as daemon:
        assert house.look(daemon) == []
        house.write("bank")
        house.write("acme", every="7s")
        assert sorted(house.look(daemon)) == [
            ("organization_added", "bank"),
            ("organization_changed", "acme"),
        ]
        assert house.lines[0]["event"] != "organization_changed" or not house.lines[0]["secrets"]
        (house.path / "bank.toml").unlink()
        assert house.look(daemon) == [("organization_removed", "bank")]
        assert daemon.ready()[1].keys() == {"acme", "zoo"}
        assert jobs(daemon) == {"acme": 7.0, "zoo": 60.0}


def test_a_broken_file_is_told_once_and_counts_neither_against_its_organization_nor_others(
    house: House,
) -> None:
    with house.open() as daemon:
        facts = daemon.ready()
        path = house.write("acme", every="often")
        assert house.look(daemon) == [("configuration_broken", "acme")]
        (line,) = house.lines
        assert (line["file"], line["log_level"]) == (str(path), "error")
        assert line["remedy"] == "mend the file; until then it runs as it did"
        assert line["problems"][0].startswith(f"{path}:")
        assert "schedule.every" in line["problems"][0]
        assert house.look(daemon) == []
        assert gauge(daemon, "configuration_broken", "acme") == 1
        assert gauge(daemon, "configuration_broken", "zoo") is None
        ready, now = daemon.ready()
        assert now["acme"].pop("configuration") == "broken"
        assert (ready, now) == facts
        house.write("acme")
        assert house.look(daemon) == [("configuration_mended", "acme")]
        assert gauge(daemon, "configuration_broken", "acme") == 0


def test_an_organization_that_is_broken_from_the_start_is_not_ready_until_it_is_mended(house: House) -> None:
    house.write("acme", every="often")
    with house.open() as daemon:
        with capture_logs() as lines:
            daemon._tell(daemon._roster.news())
        assert lines[0]["remedy"] == "mend the file; until then it does not run"
        assert daemon.ready()[1]["acme"] == {"ready": False, "outcome": None, "configuration": "broken"}
        house.write("acme")
        assert house.look(daemon) == [("organization_added", "acme"), ("configuration_mended", "acme")]


def test_a_file_that_gives_an_organization_another_name_leaves_it_as_it_was(house: House) -> None:
    with house.open() as daemon:
        path = house.write("acme", head='name = "other"')
        assert house.look(daemon) == [("configuration_broken", "acme")]
        told = house.lines[0]["problems"][0]
        assert told.startswith(f"{path}: other: the state knows organization 01JCacme under the name acme")
        assert daemon.ready()[1].keys() == {"acme", "zoo"}
        house.write("acme")
        assert house.look(daemon) == [("configuration_mended", "acme")]


def test_an_organization_that_the_state_knows_as_another_is_refused_at_its_next_cycle(house: House) -> None:
    with house.open() as daemon:
        path = house.write("acme", identity="01JCanother")
        assert house.look(daemon) == [("organization_changed", "acme")]
        daemon._runners["acme"].run()
        assert house.look(daemon) == [("configuration_broken", "acme")]
        assert house.lines[0]["problems"][0].startswith(
            f"{path}: acme: the state knows organization 01JCacme"
        )
        assert house.look(daemon) == []


def test_changed_secrets_let_an_organization_log_in_anew(house: House) -> None:
    with house.open() as daemon:
        house.token.write_text("another-wallet-token", encoding="utf-8")
        assert sorted(house.look(daemon)) == [
            ("organization_changed", "acme"),
            ("organization_changed", "zoo"),
        ]
        assert all(it["secrets"] for it in house.lines)


def test_an_organization_that_is_taken_away_leaves_no_metrics(house: House) -> None:
    with house.open() as daemon:
        daemon._runners["zoo"].run()
        assert b'organization="zoo"' in daemon._metrics.render()[0]
        (house.path / "zoo.toml").unlink()
        assert house.look(daemon) == [("organization_removed", "zoo")]
        assert b'organization="zoo"' not in daemon._metrics.render()[0]


def test_nothing_starts_where_the_state_refuses_every_organization(house: House) -> None:
    with house.open():
        pass
    for name in ("acme", "zoo"):
        house.write(name, identity="01JCsome" + name)
    with pytest.raises(ConfigurationError) as error, house.open():
        pass
    assert len(error.value.problems) == 2


def test_a_running_service_takes_in_a_changed_a_broken_and_a_removed_file(
    world: World, tmp_path: Path
) -> None:
    config = world.write_organization(every="200ms", settle_after="1s", listen="127.0.0.1:0")
    whole = config.read_text(encoding="utf-8")
    folder = tmp_path / "organizations"
    folder.mkdir()
    table = whole[whole.index("[service]") : whole.index("[schedule]")]
    (folder / "service.toml").write_text(table, encoding="utf-8")
    good, file = whole.replace(table, ""), folder / "acme.toml"
    file.write_text(good, encoding="utf-8")
    with Service(folder, tmp_path) as service:
        until("the delivery", lambda: settled(world))
        file.write_text(good.replace("first_run", "frist_run"), encoding="utf-8")
        (folder / "idle.toml").write_text(
            good.replace(world.wallet.organization_id, "idle").replace("200ms", "1h"), encoding="utf-8"
        )
        (told,) = service.wait_for("configuration_broken")
        assert "frist_run: is not known; did you mean first_run?" in " ".join(told["problems"])
        service.wait_for("cycle_finished", organization="idle")
        world.edit(2)
        until("the edits", lambda: settled(world))
        metrics = service.get("/metrics")[1]
        assert 'syncsvc_configuration_broken{organization="acme"} 1.0' in metrics
        (folder / "idle.toml").rename(file.with_suffix(".taken"))
        file.write_text(good.replace("200ms", "300ms"), encoding="utf-8")
        service.wait_for("configuration_mended")
        service.wait_for("organization_removed", organization="idle")
        service.wait_for("organization_changed", organization="acme")
        until("it is gone", lambda: json.loads(service.get("/readyz")[1]).keys() == {"ready", "acme"})
        assert service.stop() == 0
        assert len(service.events("configuration_broken")) == 1
