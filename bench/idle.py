"""What many organizations cost one service while nothing changes: processor time, memory, threads.

    python bench/idle.py [--organizations 1000] [--minutes 3] [--every 60s] [--postgresql]

Starts the stand-in and `syncsvc run` as processes of their own, waits until every organization has had its
first cycle, and then watches the service for as long as it is told. Judged is the service's processor time,
user and system, by the share of one core that it took; the goal is below 20 %.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from server import Server, postgres

HERE = Path(__file__).parent
GOAL = 0.20
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_WARM = re.compile(r'^syncsvc_cycles_total\{organization="o\d+",outcome="ok"\} ([1-9]\d*)\.0', re.MULTILINE)
_CYCLES = re.compile(r'^syncsvc_cycles_total\{organization="o\d+",outcome="(\w+)"\} (\d+)\.0', re.MULTILINE)
ORGANIZATION = """\
organization_id = "01JC{number:06}"
first_run = "adopt"

[schedule]
every = "{every}"

[wallet]
base_url = "{url}"
token = {{ env = "BENCH_TOKEN" }}
brand_id = "brand-1"
storecard = "card-1"

[connectors.marketing]
type = "hubspot"
token = {{ env = "BENCH_TOKEN" }}
base_url = "{url}"

[connectors.marketing.member]
email = "{{email}}"
name = "{{firstname}} {{lastname}}"
points = "{{loyalty_points}}"
"""


def processor_seconds(pid: int) -> float:
    """Return user and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def megabytes(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 1e6


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def metrics(port: int) -> str:
    """Return what the service tells Prometheus."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        text: str = answer.read().decode()
        return text


def cycles(port: int) -> dict[str, int]:
    """Return how many cycles ended so far, by outcome."""
    found: dict[str, int] = {}
    for outcome, count in _CYCLES.findall(metrics(port)):
        found[outcome] = found.get(outcome, 0) + int(count)
    return {outcome: count for outcome, count in found.items() if count}


def started(log: Path) -> int:
    """Wait for the service's own word, and return its port."""
    while True:
        for line in log.read_text(encoding="utf-8").splitlines():
            facts = json.loads(line)
            if facts["event"] == "service_started":
                return int(facts["port"])
        time.sleep(0.2)


def measure(folder: Path, server: Server | None, *, organizations: int, minutes: float, every: str) -> bool:
    """Print what the service took; returns whether the goal is met. Its state is on the server, or a file."""
    state = f"sqlite:///{folder}/state.db" if server is None else server.url
    standin = subprocess.Popen(
        [sys.executable, HERE / "standin.py", "5", "--members", "5"], stdout=subprocess.PIPE, text=True
    )
    assert standin.stdout is not None  # noqa: S101 - it is a pipe
    url = f"http://127.0.0.1:{json.loads(standin.stdout.readline())['port']}"
    config, log = folder / "organizations", folder / "service.log"
    config.mkdir()
    (config / "service.toml").write_text(
        f'[service]\nstate = "{state}"\nlisten = "127.0.0.1:0"\n', encoding="utf-8"
    )
    for number in range(organizations):
        text = ORGANIZATION.format(number=number, url=url, every=every)
        (config / f"o{number}.toml").write_text(text, encoding="utf-8")
    environment = {**os.environ, "BENCH_TOKEN": "bench-token-0123456789"}
    begun = time.monotonic()
    with log.open("wb") as stream:
        service = subprocess.Popen(
            [sys.executable, "-m", "syncsvc", "-c", config, "run"], stderr=stream, env=environment
        )
    try:
        port = started(log)
        print(f"started in {time.monotonic() - begun:.1f} s, {processor_seconds(service.pid):.1f} s of CPU")
        while len(_WARM.findall(metrics(port))) < organizations:
            time.sleep(20)  # of many organizations a page of metrics takes seconds
        print(f"every organization had a cycle after {time.monotonic() - begun:.0f} s")
        before, spent, at = cycles(port), processor_seconds(service.pid), time.monotonic()
        share, used = 0.0, 0.0
        theirs, told = (0.0, {}) if server is None else (server.processor_seconds(), server.facts())
        for minute in range(max(1, round(minutes))):
            time.sleep(60)
            used, passed = processor_seconds(service.pid) - spent, time.monotonic() - at
            share = used / passed
            print(
                f"minute {minute + 1}: {share:.1%} of one core, {megabytes(service.pid):.0f} MB, "
                f"{threads(service.pid)} threads"
            )
        after = cycles(port)
        ended = {it: after[it] - before.get(it, 0) for it in after if after[it] != before.get(it, 0)}
        each = 1000 * used / max(1, sum(ended.values()))
        print(f"cycles meanwhile: {ended}; {each:.2f} ms of CPU each, all else included")
        if server is not None:
            of_a_cycle, now = 1 / max(1, sum(ended.values())), server.facts()
            print(
                f"of the server: {1000 * (server.processor_seconds() - theirs) * of_a_cycle:.2f} ms of CPU, "
                f"{(now['transactions'] - told['transactions']) * of_a_cycle:.1f} transactions a cycle, "
                f"{(now['wal'] - told['wal']) * of_a_cycle:.0f} bytes written ahead, "
                f"{now['connections']} connections"
            )
        print(f"{share:.1%} of one core, goal {GOAL:.0%}: {'PASS' if share < GOAL else 'OVER'}")
        return share < GOAL
    finally:
        service.send_signal(signal.SIGTERM)
        service.wait(40)
        standin.kill()
        standin.wait()


def main() -> None:
    """Measure as the command line says; exits 1 where the goal is missed."""
    parser = argparse.ArgumentParser(description="Processor time of a service while nothing changes.")
    parser.add_argument("--organizations", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--every", default="60s")
    parser.add_argument("--postgresql", action="store_true", help="the state on a server of its own")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="syncsvc-idle-") as folder, contextlib.ExitStack() as running:
        server = running.enter_context(postgres()) if options.postgresql else None
        met = measure(
            Path(folder),
            server,
            organizations=options.organizations,
            minutes=options.minutes,
            every=options.every,
        )
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
