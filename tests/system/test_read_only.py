"""On a read-only root: a command writes into the folder of its state, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from syncsvc.sandbox.world import World

_WATCHED = """
import os, sys
allowed = [os.path.realpath(it) for it in sys.argv[1].split(":")]
written = set()

def watch(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else False
        if isinstance(path, (str, bytes)) and writes:
            written.add(os.path.realpath(os.fsdecode(path)))
    elif event in {"os.mkdir", "os.rename", "os.chmod", "os.truncate"}:
        if isinstance(arguments[0], (str, bytes, os.PathLike)):
            written.add(os.path.realpath(os.fsdecode(arguments[0])))
    elif event == "sqlite3.connect" and not str(arguments[0]).startswith("file:"):
        written.add(os.path.realpath(arguments[0]))

sys.addaudithook(watch)
from syncsvc.cli import main
for name in sys.argv[3:]:
    try:
        main.main(["-c", sys.argv[2], name], prog_name="syncsvc")
    except SystemExit as end:
        print(name, end.code)
inside = {it for it in written if any(it == at or it.startswith(at + os.sep) for at in allowed)}
print("inside", len(inside) > 0)
print("outside", sorted(written - inside - {os.devnull}))
"""


def test_commands_write_into_the_folder_of_the_state_alone(
    world: World, config: Path, tmp_path: Path
) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    text = config.read_text(encoding="utf-8").replace("/acme.db", "/volume/acme.db")
    config.write_text(text, encoding="utf-8")
    watched = subprocess.run(
        [sys.executable, "-c", _WATCHED, str(volume), str(config), "plan", "once"],
        env={**world.environment, "TMPDIR": str(volume), "PYTHONDONTWRITEBYTECODE": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    lines = watched.stdout.splitlines()
    assert [line for line in lines if line in {"plan 0", "once 0"}] == ["plan 0", "once 0"]
    assert lines[-2:] == ["inside True", "outside []"]
