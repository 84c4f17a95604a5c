"""The shell completes commands, options and choices, set up by the line that the README gives for it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from syncsvc.cli import main

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
SET_UP = dict(re.findall(r"_SYNCSVC_COMPLETE=(\w+)_source syncsvc(.*)$", README, re.MULTILINE))


def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **environment: str) -> str:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        main.main([], prog_name="syncsvc")
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_of_the_readme_sets_completion_up(
    shell: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell in SET_UP
    script = ask(capsys, monkeypatch, _SYNCSVC_COMPLETE=f"{shell}_source")
    assert f"_SYNCSVC_COMPLETE={shell}_complete" in script
    assert "syncsvc" in script


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("syncsvc expl", ["explain"]),
        ("syncsvc sta", ["state", "status"]),
        ("syncsvc books --ver", ["--verify"]),
        ("syncsvc books --by ", ["member", "cycle", "batch", "day"]),
        ("syncsvc doubt 7:0 sk", ["skip"]),
    ],
)
def test_what_is_begun_is_completed(
    words: str, offered: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = str(len(words.split(" ")) - 1)
    out = ask(capsys, monkeypatch, _SYNCSVC_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=place)
    assert [line.partition(",")[2] for line in out.splitlines()] == offered
