"""Breaks one law at a time in a copy of the tree, and sees the suite fail; exits 1 where it does not.

`make mutations`; a word as argument runs the mutations whose names hold it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from laws import MUTATIONS, ROOT, Mutation

_PARTS = ("syncsvc", "connectors", "tests", "pyproject.toml", "config.example.toml")


def judge(mutation: Mutation) -> str:
    """Return what became of a mutation: "killed", or what is wrong."""
    if not mutation.applies():
        return "NO LONGER APPLIES"
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for part in _PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / part)
        mutation.apply(copy)
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-n", "0", *mutation.tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy)},
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode == 1:
        return "killed"
    return "SURVIVED" if ran.returncode == 0 else f"BROKEN: {ran.stdout[-400:]}{ran.stderr[-400:]}"


def main(word: str) -> int:
    chosen = [it for it in MUTATIONS if word in it.name]
    bad = 0
    for mutation in chosen:
        verdict = judge(mutation)
        bad += verdict != "killed"
        print(f"{verdict:<18} {mutation.name}", flush=True)  # noqa: T201 - the table is what it is for
    print(f"{len(chosen) - bad} of {len(chosen)} mutations killed")  # noqa: T201
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
