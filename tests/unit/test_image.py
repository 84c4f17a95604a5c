"""The container: its steps in a clean tree, what its wheel holds, what its health check asks, its volume."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

from syncsvc.configfile import SERVICE_FILE
from syncsvc.errors import StateError
from syncsvc.probe import LISTEN, STATE, probe
from syncsvc.probe import SERVICE_FILE as PROBED
from syncsvc.service import ServiceConfig
from syncsvc.state.database import Database
from syncsvc.watch.health import HealthServer
from syncsvc.watch.metrics import Metrics

ROOT = Path(__file__).parents[2]
DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
COMPOSE = (ROOT / "compose.yaml").read_text(encoding="utf-8")
HEALTH = ["python", "-m", "syncsvc.probe"]
ANYBODY = 12345


def steps(name: str) -> list[str]:
    return [line.partition(" ")[2] for line in DOCKERFILE.splitlines() if line.startswith(f"{name} ")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Copy what the Dockerfile copies, and nothing else, build what it builds, and return what is in it."""
    source = tmp_path_factory.mktemp("src")
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    for step in steps("COPY"):
        if "--from" in step:
            continue
        *names, target = step.split()
        for name in names:
            assert name in allowed, f".dockerignore leaves {name} out"
            if (ROOT / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / name, source / target, ignore=ignored)
            else:
                shutil.copy(ROOT / name, source / target)
    built = next(WheelBuilder(str(source)).build(directory=str(source / "dist"), versions=["standard"]))
    with zipfile.ZipFile(built) as opened:
        return set(opened.namelist())


def test_the_wheel_holds_every_file_of_the_packages(wheel: set[str]) -> None:
    listed = {
        str(path.relative_to(ROOT))
        for package in ("syncsvc", "connectors")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert listed - wheel == set()
    assert {"syncsvc/watch/page.html", "syncsvc/watch/page.css", "syncsvc/state/migrations/env.py"} <= wheel


def test_the_image_runs_as_a_user_of_group_0_on_a_volume_that_is_open_to_it() -> None:
    assert steps("USER") == ["10001:0"]
    assert any("install -d -o syncsvc -g root -m 0770 /var/lib/syncsvc" in step for step in steps("RUN"))
    assert steps("VOLUME") == steps("WORKDIR")[-1:] == ["/var/lib/syncsvc"]
    assert (steps("ENTRYPOINT"), steps("CMD")) == (['["syncsvc"]'], ['["run"]'])
    assert "PYTHONDONTWRITEBYTECODE=1" in "".join(steps("ENV"))


def test_compose_is_one_hardened_service_with_secrets_as_files() -> None:
    (service,) = re.findall(r"^services:\n((?:  .*\n)+)", COMPOSE, re.MULTILINE)
    assert re.findall(r"^  (\w+):$", service, re.MULTILINE) == ["syncsvc"]
    for line in (
        "read_only: true",
        "stop_grace_period: 30s",
        "cap_drop: [ALL]",
        f"test: {json.dumps(['CMD', *HEALTH])}",
        "state:/var/lib/syncsvc",
        "./organizations:/etc/syncsvc:ro",
    ):
        assert line in service, line
    used = set(re.findall(r"^      - (\w+)$", service, re.MULTILINE))
    assert used == set(re.findall(r"file: \./secrets/(\w+)$", COMPOSE, re.MULTILINE))


REPLICAS = (ROOT / "docs" / "replicas" / "compose.yaml").read_text(encoding="utf-8")
KUBERNETES = (ROOT / "docs" / "replicas" / "kubernetes.yaml").read_text(encoding="utf-8")


def test_three_replicas_share_one_server_whose_password_is_in_a_secret() -> None:
    for line in ("replicas: 3", "read_only: true", "stop_grace_period: 30s", "cap_drop: [ALL]", "postgres:"):
        assert line in REPLICAS, line
    assert f"test: {json.dumps(['CMD', *HEALTH])}" in REPLICAS
    assert "/run/secrets/syncsvc_state" in REPLICAS
    used = set(re.findall(r"^      - (\w+)$", REPLICAS, re.MULTILINE))
    assert used == set(re.findall(r"file: \./secrets/(\w+)$", REPLICAS, re.MULTILINE))


def test_the_manifest_has_three_replicas_that_are_probed_hardened_and_given_time_to_end() -> None:
    for line in (
        "replicas: 3",
        "terminationGracePeriodSeconds: 30",
        "readOnlyRootFilesystem: true",
        "runAsNonRoot: true",
        "path: /readyz",
        "path: /healthz",
        "value: /etc/syncsvc",
    ):
        assert line in KUBERNETES, line
    kinds = re.findall(r"^kind: (\w+)$", KUBERNETES, re.MULTILINE)
    assert kinds == ["Secret", "ConfigMap", "Deployment", "PodDisruptionBudget"]
    named = set(re.findall(r"(?:secretName|configMap: \{ name): (syncsvc[\w-]*)", KUBERNETES))
    assert named == {"syncsvc-secrets", "syncsvc-organizations"}
    (written,) = re.findall(r"  service\.toml: \|\n((?:    .*\n|\n)+)", KUBERNETES)
    service = tomllib.loads(textwrap.dedent(written))["service"]
    assert ServiceConfig.model_validate(service).listen == "0.0.0.0:9464"


# Its health check.


@contextlib.contextmanager
def serving(*, ready: bool) -> Iterator[HealthServer]:
    facts: dict[str, Any] = {"organizations": {"acme": {"outcome": "ok" if ready else "degraded"}}}
    server = HealthServer("127.0.0.1:0", Metrics(version="1"), lambda: (ready, facts))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - the second is asked for at the first
def test_the_health_check_asks_readyz_where_listen_says(
    tmp_path: Path, *, ready: bool, folder: bool, host: str
) -> None:
    with serving(ready=ready) as server:
        text = f'[service]\nlisten = "{host}:{server.port}"\n'
        (tmp_path / SERVICE_FILE).write_text(text, encoding="utf-8")
        well, told = probe(tmp_path if folder else tmp_path / SERVICE_FILE)
    assert (well, "acme" in told) == (ready, True)


def test_a_file_of_a_directory_is_asked_for_by_the_service_beside_it(tmp_path: Path) -> None:
    (tmp_path / "acme.toml").write_text("", encoding="utf-8")
    with serving(ready=True) as server:
        text = f'[service]\nlisten = "127.0.0.1:{server.port}"\n'
        (tmp_path / SERVICE_FILE).write_text(text, encoding="utf-8")
        assert probe(tmp_path / "acme.toml")[0] is True


def test_a_service_that_does_not_answer_is_not_well(tmp_path: Path) -> None:
    with serving(ready=True) as server:
        text = f'[service]\nlisten = "127.0.0.1:{server.port}"\n'
    (tmp_path / "acme.toml").write_text(text, encoding="utf-8")
    well, told = probe(tmp_path / "acme.toml")
    assert (well, "/readyz does not answer: " in told) == (False, True)


def test_with_listen_off_a_service_is_well_that_holds_its_state(tmp_path: Path) -> None:
    state = f"sqlite:///{tmp_path}/state.db"
    (tmp_path / "acme.toml").write_text(f'[service]\nlisten = ""\nstate = "{state}"\n', encoding="utf-8")
    assert probe(tmp_path / "acme.toml")[0] is False
    with Database.open(state):
        assert probe(tmp_path / "acme.toml")[0] is True
    assert probe(tmp_path / "acme.toml")[0] is False


def test_the_health_check_knows_the_defaults_of_the_configuration(tmp_path: Path) -> None:
    assert (ServiceConfig().listen, ServiceConfig().state, SERVICE_FILE) == (LISTEN, STATE, PROBED)
    well, told = probe(tmp_path / "none.toml")
    assert (well, "check --offline" in told) == (False, True)


def test_the_health_check_is_the_image_s_own_and_costs_no_more_than_its_question(tmp_path: Path) -> None:
    (check,) = steps("HEALTHCHECK")
    assert json.loads(check.partition("CMD ")[2]) == HEALTH
    (tmp_path / "acme.toml").write_text('[service]\nlisten = ""\nstate = "sqlite:///x"\n', encoding="utf-8")
    code = "import runpy, sys\ntry: runpy.run_module('syncsvc.probe', run_name='__main__')\n"
    code += (
        "except SystemExit as end: print(end.code, {'click', 'pydantic', 'sqlalchemy'} & set(sys.modules))"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SYNCSVC_CONFIG": str(tmp_path / "acme.toml")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout == "no process runs cycles on x\nTrue set()\n"


# Its volume.


def test_a_volume_of_another_user_is_told_with_what_to_do_on_the_host() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, root = Path(name), os.geteuid() == 0
        folder.chmod(0o555)
        if root:
            os.seteuid(ANYBODY)
        try:
            with pytest.raises(StateError) as caught:
                Database.open(f"sqlite:///{folder}/state.db")
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)
    me = ANYBODY if root else os.getuid()
    assert f"chown {me} {folder}; where it is the volume of a container, do so on the host" in str(
        caught.value
    )
    assert "as --user" in str(caught.value)
