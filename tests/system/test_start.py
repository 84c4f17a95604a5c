"""A service that is started while the server of its state is away waits for it, and says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from passage import Passage
from postgres import Postgres
from town import Service, settled, until

from syncsvc.sandbox.world import World


@pytest.fixture
def road(tmp_path: Path) -> Path:
    """Return where the service looks for the server's socket; nothing is there yet."""
    return tmp_path / "road"


@pytest.fixture
def url(postgres: Postgres, road: Path) -> str:
    return postgres.database().replace(str(postgres.folder), str(road))


@pytest.fixture
def config(world: World, url: str) -> Path:
    path = world.write_organization(every="300ms", settle_after="8s", listen="127.0.0.1:0")
    text = path.read_text(encoding="utf-8")
    before = f"sqlite:///{world.folder / 'acme.db'}"
    assert before in text
    path.write_text(text.replace(before, url), encoding="utf-8")
    return path


def test_a_service_waits_for_the_server_of_its_state(
    world: World, config: Path, postgres: Postgres, road: Path, tmp_path: Path
) -> None:
    with Service(config, tmp_path) as service:
        (awaited,) = service.wait_for("state_awaited")
        assert "check that the server runs" in awaited["reason"]
        assert service.get("/healthz", since="state_awaited")[0] == 200
        status, body = service.get("/readyz", since="state_awaited")
        assert (status, json.loads(body)["acme"]["state"]) == (503, "awaited")
        told = service.get("/", since="state_awaited")
        assert (told[0], "the state cannot be read now" in told[1]) == (503, True)
        waits = 'syncsvc_state_awaited{organization="acme"} 1.0'
        assert waits in service.get("/metrics", since="state_awaited")[1]
        road.symlink_to(postgres.folder)
        service.wait_for("service_started")
        assert waits not in service.get("/metrics")[1]
        until("it is ready", lambda: service.get("/readyz")[0] == 200)
        until("all points have arrived", lambda: settled(world))
        assert len(service.events("state_awaited")) == 1
        assert service.events("state_reached")[0]["waited"] > 0
        assert service.stop() == 0


@pytest.mark.parametrize("back", [True, False])
def test_a_server_that_falls_silent_as_the_service_is_started_is_told_and_keeps_it_from_no_stop(
    world: World, config: Path, postgres: Postgres, road: Path, tmp_path: Path, *, back: bool
) -> None:
    with Passage(postgres.folder, silent_upon=b"server_version_num") as passage:
        text = config.read_text(encoding="utf-8")
        there = f"127.0.0.1&port={passage.port}"
        config.write_text(text.replace(str(road), there), encoding="utf-8")
        with Service(config, tmp_path) as service:
            (awaited,) = service.wait_for("state_awaited")
            assert "slow or silent" in awaited["reason"]
            assert service.get("/readyz", since="state_awaited")[0] == 503
            if back:
                passage.flow()
                service.wait_for("service_started")
                until("all points have arrived", lambda: settled(world))
            assert service.stop() == 0
            assert bool(service.events("service_stopped_hard")) is not back


def test_a_service_that_waits_can_be_stopped(config: Path, tmp_path: Path) -> None:
    with Service(config, tmp_path) as service:
        service.wait_for("state_awaited")
        assert service.stop() == 0
        assert service.events("service_stopped")


def test_a_service_does_not_wait_for_what_only_a_person_mends(
    config: Path, postgres: Postgres, road: Path, tmp_path: Path
) -> None:
    road.symlink_to(postgres.folder)
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("tests@/d", "tests@/no_such_d"), encoding="utf-8")
    with Service(config, tmp_path) as service:
        assert service.ended() == 75
        assert "createdb" in service.text()
        assert not service.events("state_awaited")
