"""A service that is started while the server of its state is away waits for it, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest
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
        assert service.get("/readyz", since="state_awaited") == (503, '{"ready":false}')
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
