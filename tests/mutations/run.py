"""Breaks one law at a time in a copy of the tree, and sees the suite fail; exits 1 where it does not.

`make mutations`; a word as argument runs the mutations whose names hold it. The tests are run once on an
unbroken copy first: a test that fails there proves nothing, and what it would kill is not counted.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from laws import MUTATIONS, ROOT, Mutation

_PARTS = ("syncsvc", "connectors", "tests", "pyproject.toml", "config.example.toml")
_RED = re.compile(r"^(?:FAILED|ERROR) (\S+)", re.MULTILINE)


@contextmanager
def copied() -> Iterator[Path]:
    """Give a copy of the tree."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        copy = Path(folder)
        for part in _PARTS:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, copy / part)
        yield copy


def run(copy: Path, tests: Iterable[str], *options: str) -> tuple[int, Sequence[str], str]:
    """Run tests in a copy; returns pytest's exit code, the tests that failed, and the end of what it said."""
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-rfE", *options, *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, _RED.findall(ran.stdout), f"{ran.stdout[-400:]}{ran.stderr[-400:]}"


def baseline(tests: Sequence[str]) -> Sequence[str]:
    """Return the tests that fail where nothing is broken; raises RuntimeError where they cannot be run."""
    with copied() as copy:
        code, red, said = run(copy, tests)
    if code not in {0, 1} or (code == 1 and not red):
        raise RuntimeError(f"the tests cannot be run: {said}")
    return red


def judge(mutation: Mutation, red: Sequence[str]) -> tuple[str, str]:
    """Return what became of a mutation, and by which test or why."""
    if not mutation.applies():
        return "NO LONGER APPLIES", ""
    lost = [test for test in red if test.startswith(mutation.tests)]
    if lost:
        return "BASELINE IS RED", lost[0]
    with copied() as copy:
        mutation.apply(copy)
        code, failed, said = run(copy, mutation.tests, "-x")
    if code == 1 and failed:
        return "killed", f"by {failed[0]}"
    return ("SURVIVED", "") if code == 0 else ("BROKEN", said)


def main(word: str) -> int:
    chosen = [it for it in MUTATIONS if word in it.name]
    red = baseline(sorted({test for it in chosen for test in it.tests}))
    for test in red:
        print(f"fails though nothing is broken: {test}", flush=True)  # noqa: T201 - the table is what it is for
    bad = 0
    for mutation in chosen:
        verdict, why = judge(mutation, red)
        bad += verdict != "killed"
        print(f"{verdict:<18} {mutation.name}  {why}", flush=True)  # noqa: T201
    print(f"{len(chosen) - bad} of {len(chosen)} mutations killed")  # noqa: T201
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:])))
