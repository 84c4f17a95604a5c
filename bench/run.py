"""The benchmark: the service beside its floor, in one run, as ratios.

    python bench/run.py                          100,000 contacts three times, then 25,000 and 400,000 once
    python bench/run.py --contacts 20000 --repeats 1 --series ""      a quick look

Every measurement is a process of its own, the servers another one that is not counted. What is judged is
processor time (user and system), never wall time: `work` is that of the pull or cycle itself, `CPU` that of
the whole process, the interpreter's start and the imports included. Medians of the repeats.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from processes import Facts, Service, Standin, organization, process_of

CHANGES = 1000
CYCLES = 3  # of a kind, in a process that runs on
GOAL_PULL = 2  # times the processor time of the floor that holds the same
GOAL_TABLE = 2.5  # times that of the floor of one table
GOAL_WHOLE = 3  # times the first pull, both as processes that do nothing else
GOAL_IDLE = 0.010  # seconds
GOAL_LOG = 5e-6  # seconds for a member of the log that has not moved
GOAL_PEAK = 150_000_000  # bytes
GOAL_FLAT = 1.15  # times the memory, or the cost of the same changes, from the smallest size to the largest
GOAL_SHARE = 1.5  # times what a contact costs in the first delivery of all
AGE = 4.0  # seconds until a log entry is clearly older than the next request, so that points may be sent


class Round:
    """Everything that is measured once, with one number of contacts."""

    def __init__(self, standin: Standin, folder: Path, *, contacts: int) -> None:
        """Use an empty `folder` for the states."""
        self._standin = standin
        self._folder = folder
        self._contacts = contacts
        self.facts: dict[str, Facts] = {}

    def run(self, *, floor_first: bool) -> None:
        """Measure; the floor goes first or last, so that neither always has the warm machine."""
        if floor_first:
            self._floor()
        self._service()
        if not floor_first:
            self._floor()

    def run_whole(self) -> None:
        """Measure everything that a first cycle does, in one process, with a server to which all is new."""
        everything = {"read": self._contacts, "rows_landed": self._contacts, "written_back": self._contacts}
        self._cycle("whole job", self._organization("whole", log_every="24h"), **everything)

    def _floor(self) -> None:
        for name, options in (("floor", ()), ("floor, again", ()), ("floor, members", ("--members",))):
            state = self._folder / f"{'members' if options else 'floor'}.db"
            self._measure(name, ["floor.py", str(self._standin.port), str(state), *options])
            self._require(name, read=self._contacts)

    def _service(self) -> None:
        often = self._organization("often", log_every="1ms")
        seldom = self._organization("seldom", log_every="24h")
        everything = {"read": self._contacts, "changed": self._contacts}
        self._cycle("first pull", seldom, "--pull", **everything)
        self._cycle("first delivery", seldom, rows_landed=self._contacts, written_back=self._contacts)
        self._cycle("idle", seldom, read=0, rows_sent=0, written_back=0)
        self._cycle("idle, log due", often, read=0, rows_sent=0, written_back=0)
        with Service(seldom) as service:
            for name, count in (("idle, running", 0), ("one change", 1), ("changes", CHANGES)):
                self._changed(service, name, count)
        self._cycle("sweep", seldom, "--sweep", changed=0, rows_sent=0, written_back=0)

    def _changed(self, service: Service, name: str, count: int) -> None:
        found = []
        for _ in range(1 + CYCLES):
            if count:
                time.sleep(AGE)
                self._standin.change(count)
            self._ask(name, service.cycle)
            self._require(name, outcome="ok", read=count, rows_landed=count, written_back=count)
            found.append(self.facts[name])
        self.facts[name] = _median(found[1:])  # the first makes the statements

    def _cycle(self, name: str, organization: Path, *options: str, **counts: int) -> None:
        self._measure(name, ["ours.py", str(organization), *options])
        self._require(name, outcome="ok", **counts)

    def _require(self, name: str, **expected: int | str) -> None:
        """Stop where something else was done than what is measured."""
        found = self.facts[name].get("report", self.facts[name])
        wrong = {key: found[key] for key, value in expected.items() if found[key] != value}
        if wrong:
            raise SystemExit(f"{name}: expected {expected}, found {wrong}: {found}")

    def _organization(self, name: str, *, log_every: str) -> Path:
        state = f"sqlite:///{self._folder / 'state.db'}"
        path = self._folder / f"{name}.toml"
        return organization(path, state=state, log_every=log_every, port=self._standin.port)

    def _measure(self, name: str, command: Sequence[str]) -> None:
        self._ask(name, lambda: process_of(name, command, self._folder / "log"))

    def _ask(self, name: str, measured: Callable[[], Facts]) -> None:
        before = self._standin.requests()
        facts = measured()
        after = self._standin.requests()
        requests = {kind: times - before.get(kind, 0) for kind, times in after.items()}
        asked = {kind: times for kind, times in requests.items() if times}
        self.facts[name] = facts | {"requests": asked}


def measure(contacts: int, repeats: int) -> dict[str, Facts]:
    """Return the facts of every measurement, their numbers the medians of the repeats."""
    rounds = []
    for number in range(repeats):
        with Standin(contacts) as standin, tempfile.TemporaryDirectory(prefix="bench-") as folder:
            one = Round(standin, Path(folder), contacts=contacts)
            one.run(floor_first=number % 2 == 0)
        rounds.append(one.facts | whole_job(contacts))
        print(f"# {contacts:,} contacts, round {number + 1} of {repeats}", file=sys.stderr)
    return {name: _median([facts[name] for facts in rounds]) for name in rounds[0]}


def whole_job(contacts: int) -> dict[str, Facts]:
    """Return the facts of a first cycle that does everything, beside a stand-in of its own."""
    with Standin(contacts) as standin, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        one = Round(standin, Path(folder), contacts=contacts)
        one.run_whole()
        return one.facts


def _median(found: Sequence[Facts]) -> Facts:
    numbers = [key for key, value in found[0].items() if isinstance(value, float | int)]
    return found[0] | {key: statistics.median([facts[key] for facts in found]) for key in numbers}


def own_cost(facts: Mapping[str, Facts]) -> float:
    """Return what the changed contacts but one cost by themselves, in seconds.

    Taken off is what a cycle with one change costs, and the wallet's log, which is read twice around a
    delivery of points and comes only whole.
    """
    many, one = facts["changes"], facts["one change"]
    return float(many["work"] - many["log"] - (one["work"] - one["log"]))


def show(contacts: int, facts: Mapping[str, Facts]) -> None:
    """Print what every measurement of one size came to."""
    floor = facts["floor"]
    print(f"\n{contacts:,} contacts")
    print(
        f"{'':16}{'CPU s':>7}{'of floor':>9}{'work s':>8}{'of floor':>9}{'log s':>7}{'wall s':>8}"
        f"{'peak MB':>8}{'rows':>11}{'grown MB':>9}  requests"
    )
    for name, it in facts.items():
        asked = ", ".join(f"{times} {kind}" for kind, times in it["requests"].items())
        print(
            f"{name:16}{it['cpu']:7.2f}{it['cpu'] / floor['cpu']:9.2f}{it['work']:8.3f}"
            f"{it['work'] / floor['work']:9.2f}{it.get('log', 0):7.2f}{it['wall']:8.2f}"
            f"{it['peak'] / 1e6:8.1f}{it.get('rows', 0):11,.0f}{it.get('grown', 0) / 1e6:9.1f}  {asked}"
        )


def judge(facts: Mapping[int, Mapping[str, Facts]], contacts: int) -> bool:
    """Print each goal with what was measured; returns whether all were met."""
    main, sizes = facts[contacts], sorted(facts)
    idle, again, changes = main["idle"], main["idle, running"], main["changes"]
    entry = main["idle, log due"]["log"] / contacts
    least, most = sizes[0], sizes[-1]
    pull, table, same = (main[it]["work"] for it in ("first pull", "floor", "floor, members"))
    whole = main["whole job"]["cpu"] / main["first pull"]["cpu"]
    works = main["whole job"]["work"] / main["first pull"]["work"]
    each = own_cost(main) / (CHANGES - 1)
    first = (main["first pull"]["work"] + main["first delivery"]["work"]) / contacts
    cost = {size: own_cost(facts[size]) for size in sizes}
    peaks = {size: max(it["peak"] for it in facts[size].values() if "report" in it) for size in sizes}
    held = ", ".join(f"{peak / 1e6:.0f} MB with {size:,}" for size, peak in peaks.items())
    print()
    met = [
        _say(
            pull <= GOAL_PULL * same,
            f"first pull: {pull / same:.2f} times the processor time of the floor with members, which holds "
            f"the same, goal {GOAL_PULL}",
        ),
        _say(
            pull <= GOAL_TABLE * table,
            f"first pull: {pull / table:.2f} times that of the floor of one table, goal {GOAL_TABLE}",
        ),
        _say(
            whole <= GOAL_WHOLE,
            f"whole job: {whole:.2f} times the first pull, as processes (without their start {works:.2f} "
            f"times), goal {GOAL_WHOLE}",
        ),
        _say(
            idle["requests"] == {"search": 1},
            f"idle cycle: asks {idle['requests']}, goal one of the connector",
        ),
        _say(
            again["work"] <= GOAL_IDLE,
            f"idle cycle: {again['work'] * 1e3:.1f} ms in a process that runs on, goal {GOAL_IDLE * 1e3:.0f}",
        ),
        _say(
            not idle["committed"] and not idle["rows"],
            f"idle cycle: writes {idle['rows']:.0f} rows, goal nothing",
        ),
        _say(
            each <= GOAL_SHARE * first,
            f"{CHANGES:,} changes: {each * 1e6:.0f} us each, where a contact of the first delivery costs "
            f"{first * 1e6:.0f} us, goal {GOAL_SHARE} times that",
        ),
        _say(
            cost[most] <= GOAL_FLAT * cost[least],
            f"{CHANGES:,} changes: {cost[least]:.3f} s among {least:,}, {cost[most]:.3f} s among {most:,}, "
            f"goal {GOAL_FLAT} times",
        ),
        _say(
            changes["log_reads"] == 2,
            f"{CHANGES:,} changes: the log is read {changes['log_reads']:.0f} times, goal twice",
        ),
        _say(
            entry <= GOAL_LOG,
            f"the log: {entry * 1e6:.1f} us a member that has not moved, goal {GOAL_LOG * 1e6:.0f} us",
        ),
        _say(max(peaks.values()) <= GOAL_PEAK, f"peak memory: {held}, goal {GOAL_PEAK / 1e6:.0f} MB"),
        _say(
            peaks[most] <= GOAL_FLAT * peaks[least],
            f"peak memory: grows {peaks[most] / peaks[least]:.2f} times from {least:,} to {most:,}, "
            f"goal {GOAL_FLAT}",
        ),
    ]
    return all(met)


def _say(met: bool, sentence: str) -> bool:  # noqa: FBT001 - what it says is said of this
    print(f"{'PASS' if met else 'OVER'}  {sentence}")
    return met


def main() -> None:
    """Measure, print, and exit with 1 where a goal was not met."""
    parser = argparse.ArgumentParser(description="The service beside its floor.")
    parser.add_argument("--contacts", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--series", default="25000,400000", help="more sizes, measured once each")
    options = parser.parse_args()
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} cores, "
        f"{platform.system()} {platform.machine()}, {time.strftime('%Y-%m-%d', time.gmtime())}"
    )
    series = {int(size): 1 for size in options.series.split(",") if size}
    facts: dict[int, dict[str, Facts]] = {}
    for contacts, repeats in {**series, options.contacts: options.repeats}.items():
        facts[contacts] = measure(contacts, repeats)
        show(contacts, facts[contacts])
    sys.exit(0 if judge(facts, options.contacts) else 1)


if __name__ == "__main__":
    main()
