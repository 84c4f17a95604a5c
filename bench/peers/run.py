"""The service beside what somebody would pick instead, on the same server, in one run, as ratios.

    python bench/peers/install.py          once: each peer in an environment of its own
    python bench/peers/run.py              100,000 contacts, medians of five rounds
    python bench/peers/run.py --contacts 10000 --rounds 1     a quick look

(A) the first read of everything, (B) a run after which nothing had changed, (C) a run after 1,000 contacts
had got a point. What a peer holds afterwards is checked: every contact, and every point. Processor time is
that of the whole process, the interpreter's start included, since a peer is a process for each run; ours is
shown that way too, and beside it the cycle alone, which is what a daemon pays.

Peers store contacts in one table and send nothing. (D) is what none of them does: delivery, log, write-back.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from install import HERE, PEERS, python_of
from processes import Facts, Standin
from run import AGE, CHANGES, Round, whole_job

_WORK = {"A": "first read", "B": "nothing changed", "C": f"{CHANGES:,} changed", "D": "A, and the delivery"}
# They ask for what was modified at or after the newest stamp that they know: all contacts may not share it.
_APART = ("tap_hubspot",)
_OURS = {"A": "first pull", "B": "idle", "C": "changes, once"}
_FLOOR = {"A": "floor", "B": "floor, idle", "C": "floor, changes"}


class Peers(Round):
    """One round: the floor, the service, and every peer, each with a state of its own."""

    def once_more(self) -> None:
        """Measure the service and the floor as peers are: a process for each run."""
        state = str(self._folder / "floor.db")
        floor = ["floor.py", str(self._standin.port), state, "--changes"]
        changed = min(CHANGES, self._contacts)
        self._measure("floor, so far", floor)
        self._measure("floor, idle", floor)
        self._require("floor, idle", read=0)
        time.sleep(AGE)
        self._standin.change(changed)
        self._measure("floor, changes", floor)
        self._require("floor, changes", read=changed)
        done = {"read": changed, "rows_landed": changed, "written_back": changed}
        self._cycle("changes, once", self._organization("seldom", log_every="24h"), **done)

    def peer(self, name: str) -> dict[str, Facts]:
        """Return what each kind of work cost a peer."""
        folder = self._folder / name
        folder.mkdir()
        earned = sum(contact % 500 for contact in range(1, self._contacts + 1))
        told = {}
        for work, more in (("A", 0), ("B", 0), ("C", min(CHANGES, self._contacts))):
            if more:
                self._standin.change(CHANGES)
            told[work] = self._timed(name, folder)
            held, points = told[work]["held"], told[work]["points"] - earned - more
            if held != self._contacts or points:
                raise SystemExit(f"{name}: holds {held} contacts and {points} points too many after {work}")
        return told

    def _timed(self, name: str, folder: Path) -> Facts:
        before, began = self._standin.requests(), time.perf_counter()
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [python_of(name), HERE / f"{name}.py", str(self._standin.port), str(folder)],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "RUNTIME__DLTHUB_TELEMETRY": "false", "DLT_DATA_DIR": str(folder)},
            )
            assert process.stdout is not None
            told = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{name}: {(folder / 'log').read_text(encoding='utf-8')[-2000:]}")
        asked = sum(self._standin.requests().values()) - sum(before.values())
        facts: Facts = orjson.loads(told.splitlines()[-1])
        return facts | {
            "cpu": usage.ru_utime + usage.ru_stime,
            "wall": time.perf_counter() - began,
            "peak": usage.ru_maxrss * 1024,
            "requests": asked,
        }


def one_round(contacts: int, peers: Sequence[str]) -> dict[str, dict[str, Facts]]:
    """Return the facts of each program by the kind of work."""
    found: dict[str, dict[str, Facts]] = {}
    with Standin(contacts) as standin, tempfile.TemporaryDirectory(prefix="peers-") as folder:
        ours = Peers(standin, Path(folder), contacts=contacts)
        ours.run(floor_first=True)
        ours.once_more()
        facts = {name: it | {"requests": sum(it["requests"].values())} for name, it in ours.facts.items()}
        found["floor"] = {work: facts[name] for work, name in _FLOOR.items()}
        found["syncsvc"] = {work: facts[name] for work, name in _OURS.items()}
        whole = whole_job(contacts)["whole job"]
        found["syncsvc"]["D"] = whole | {"requests": sum(whole["requests"].values())}
    for name in peers:
        options = ["--apart"] if name in _APART else []
        with (
            Standin(contacts, *options) as standin,
            tempfile.TemporaryDirectory(prefix="peers-") as folder,
        ):
            found[name] = Peers(standin, Path(folder), contacts=contacts).peer(name)
    return found


def median(rounds: Sequence[Facts], key: str) -> float:
    """Return the median of one figure over the rounds."""
    return statistics.median([it[key] for it in rounds])


def show(rounds: Sequence[dict[str, dict[str, Facts]]]) -> None:
    """Print each kind of work, every program's figures beside the service's."""
    for work, title in _WORK.items():
        names = [name for name in rounds[0] if work in rounds[0][name]]
        ours = median([it["syncsvc"][work] for it in rounds], "cpu")
        print(f"\n({work}) {title}\n")
        print("| program | CPU s | times ours | work s | wall s | peak MB | requests |")
        print("|---|--:|--:|--:|--:|--:|--:|")
        for name in names:
            mine = [it[name][work] for it in rounds]
            value: dict[str, Any] = {key: median(mine, key) for key in ("cpu", "wall", "peak", "requests")}
            alone = f"{median(mine, 'work'):.2f}" if "work" in mine[0] else ""
            print(
                f"| {name} | {value['cpu']:.2f} | {value['cpu'] / ours:.2f} | {alone} | {value['wall']:.1f} "
                f"| {value['peak'] / 1e6:.0f} | {value['requests']:,.0f} |"
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The service beside its peers.")
    parser.add_argument("--contacts", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default=",".join(it for it in PEERS if python_of(it).exists()))
    options = parser.parse_args()
    peers = [it for it in options.peers.split(",") if it]
    rounds = []
    for number in range(options.rounds):
        rounds.append(one_round(options.contacts, peers))
        print(f"# round {number + 1} of {options.rounds}", file=sys.stderr)
    show(rounds)


if __name__ == "__main__":
    main()
