"""Commands beside a service look at every organization whose file can be used, and say which cannot."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

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
