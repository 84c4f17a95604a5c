"""The processes of a benchmark: the stand-in server, and the service beside it, each by itself.

What one of them tells, it prints as JSON; a `cpu` is user and system time, the interpreter's start included.
"""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson

HERE = Path(__file__).parent

_ORGANIZATION = """\
organization_id = "01BENCH"
name = "bench"
first_run = "import"

[service]
state = "{state}"

[schedule]
log_every = "{log_every}"

[wallet]
base_url = "http://127.0.0.1:{port}"
token = {{ env = "BENCH_TOKEN" }}
brand_id = "brand-1"
storecard = "card-1"

[brakes]
max_share = "100%"

[connectors.marketing]
type = "hubspot"
token = {{ env = "BENCH_TOKEN" }}
base_url = "http://127.0.0.1:{port}"

[connectors.marketing.member]
email = "{{email}}"
name = "{{firstname}} {{lastname}}"
points = "{{loyalty_points}}"

[connectors.marketing.write_back]
last_updated = "wallet_last_updated"
"""

Facts = dict[str, Any]


class Standin:
    """The stand-in server as a process of its own: what it costs is not counted."""

    def __init__(self, contacts: int, *options: str) -> None:
        """Prepare; nothing runs yet."""
        self._command = [sys.executable, str(HERE / "standin.py"), str(contacts), *options]

    def __enter__(self) -> Self:
        """Start, and wait until it serves."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self.port = int(orjson.loads(self._process.stdout.readline())["port"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._process.terminate()
        self._process.communicate()

    def change(self, count: int) -> None:
        """Give contacts 1 to `count` one more point."""
        self._ask("POST", f"/standin/changed?count={count}")

    def requests(self) -> dict[str, int]:
        """Return the requests served so far, by what they ask for."""
        found: dict[str, int] = {}
        for path, times in self._ask("GET", "/standin/totals")["requests"].items():
            if "/standin/" not in path:
                found[_kind(path)] = found.get(_kind(path), 0) + times
        return found

    def _ask(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            connection.request(method, path)
            return orjson.loads(connection.getresponse().read())
        finally:
            connection.close()


def _kind(path: str) -> str:
    kinds = {
        "search": "search",
        "batch/update": "write",
        "/v2/import": "import",
        "/import/log": "log",
        "properties": "schema",
    }
    return next((kind for part, kind in kinds.items() if part in path), "list")


class Service:
    """The service as one process that runs a cycle whenever it is asked to."""

    def __init__(self, organization: Path) -> None:
        """Prepare; nothing runs yet."""
        self._organization = organization
        self._log = organization.with_suffix(".log")

    def __enter__(self) -> Self:
        """Start."""
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "ours.py"), str(self._organization), "--warm"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "BENCH_TOKEN": "token"},
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.communicate()

    def cycle(self) -> Facts:
        """Return what one more cycle came to and cost; its `cpu` is its `work`."""
        assert self._process.stdin is not None  # noqa: S101 - they are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        told = self._process.stdout.readline()
        if not told:
            raise SystemExit(f"the service has ended: {self._log.read_text(encoding='utf-8')}")
        facts = orjson.loads(told)
        return {**facts, "cpu": facts["work"]}


def organization(path: Path, *, state: str, log_every: str, port: int) -> Path:
    """Write the file of an organization whose servers are the stand-in at this port."""
    path.write_text(_ORGANIZATION.format(state=state, log_every=log_every, port=port), encoding="utf-8")
    return path


def cycle_of(path: Path, options: Sequence[str]) -> Facts:
    """Return what one cycle of an organization came to and cost."""
    facts = process_of("cycle", ["ours.py", str(path), *options], path.with_suffix(".log"))
    if facts["report"]["outcome"] != "ok":
        raise SystemExit(f"the cycle did not end well: {facts['report']}")
    return facts


def process_of(name: str, command: Sequence[str], log: Path) -> Facts:
    """Return what a script of this folder told, and the processor time of its process."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, str(HERE / command[0]), *command[1:]],
            stdout=subprocess.PIPE,
            stderr=stream,
            env={**os.environ, "BENCH_TOKEN": "token"},
        )
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        told = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{name}: {log.read_text(encoding='utf-8')}")
    return {**orjson.loads(told), "cpu": usage.ru_utime + usage.ru_stime}
