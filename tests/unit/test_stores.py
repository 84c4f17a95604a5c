"""Commands beside a service look at every organization whose file can be used, and say which cannot."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from postgres import Postgres

from syncsvc.cli import main
from syncsvc.state.database import Database

ORGANIZATION = """
organization_id = "01JC"
first_run = "import"
[wallet]
token = { env = "TOKEN" }
brand_id = "b"
storecard = "s"
[connectors.shop]
type = "csv"
path = "customers.csv"
key = "id"
[connectors.shop.member]
email = "{email}"
name = "{name}"
"""


def test_a_broken_file_keeps_no_other_organization_from_being_looked_at(tmp_path: Path) -> None:
    Database.open(f"sqlite:///{tmp_path}/state.db").close()
    (tmp_path / "service.toml").write_text(f'[service]\nstate = "sqlite:///{tmp_path}/state.db"\n')
    (tmp_path / "acme.toml").write_text(ORGANIZATION)
    bad = tmp_path / "zoo.toml"
    bad.write_text(f"{ORGANIZATION}\ny = [\n")
    for command in (["status"], ["pause", "-o", "acme"], ["doubt"]):
        answer = CliRunner().invoke(main, ["-c", str(tmp_path), *command])
        assert "acme" in answer.stdout
        assert answer.stderr.startswith(
            f"left out, as its file is broken: {bad}:16: Invalid value; correct the"
        )
    assert CliRunner().invoke(main, ["-c", str(tmp_path), "status"]).exit_code == 1
    assert CliRunner().invoke(main, ["-c", str(tmp_path), "once"]).exit_code == 78
    assert CliRunner().invoke(main, ["-c", str(bad), "status"]).exit_code == 78


@pytest.fixture
def standby(postgres: Postgres, tmp_path: Path) -> Path:
    """Return a configuration whose state knows its organization, on a server that may only be read by now."""
    url = postgres.database()
    config = tmp_path / "acme.toml"
    config.write_text(f'{ORGANIZATION}[service]\nstate = "{url}"\n', encoding="utf-8")
    assert CliRunner().invoke(main, ["-c", str(config), "status"]).exit_code == 0
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        (name,) = connection.execute("SELECT current_database()").fetchone() or ("",)
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on".encode())
    return config


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["status"], 0),
        (["books"], 0),
        (["books", "--verify"], 0),
        (["doubt"], 0),
        (["quarantine"], 0),
        (["explain", "ann@example.org"], 1),  # whom nobody knows
    ],
)
def test_what_only_reads_works_on_a_server_that_may_only_be_read(
    standby: Path, command: list[str], code: int
) -> None:
    answer = CliRunner().invoke(main, ["-c", str(standby), *command])
    assert answer.stderr == ""
    assert answer.exit_code == code


def test_what_a_server_that_may_only_be_read_cannot_take_says_where_it_can(standby: Path) -> None:
    text = standby.read_text(encoding="utf-8").replace("[connectors.shop", "[connectors.store")
    standby.write_text(text, encoding="utf-8")
    answer = CliRunner().invoke(main, ["-c", str(standby), "status"])
    assert answer.exit_code == 75
    assert "read-only transaction; point state at the primary" in answer.stderr
