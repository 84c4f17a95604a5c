"""What the system tests share: commands run in this process or their own, and the service as a process."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from syncsvc.cli import main
from syncsvc.sandbox.world import World

DEADLINE = 40.0


@dataclass(frozen=True)
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


def command(*arguments: object, stdin: str = "") -> Answer:
    """Run a command in this process, which spares the start of another one."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    code: object = 0
    sys.stdin = io.StringIO(stdin)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.main([str(it) for it in arguments], prog_name="syncsvc")
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdin = before
    assert isinstance(code, int)
    return Answer(code, out.getvalue(), err.getvalue())


def said(answer: Answer, event: str) -> dict[str, Any]:
    """Return the one log line of a command with this event."""
    (line,) = [it for it in map(json.loads, answer.err.splitlines()) if it["event"] == event]
    assert isinstance(line, dict)
    return line


def until(what: str, done: Callable[[], Any], seconds: float = DEADLINE) -> Any:
    """Wait until something is true and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := done():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come within {seconds} s")


def settled(world: World) -> bool:
    """Whether the wallet holds what the CRMs say, and the CRMs what the wallet says."""
    return all(it.awarded == it.expected for it in world.balances().values()) and not world.unstamped()


class Gateway(ThreadingHTTPServer):
    """Stands before a server, and lets nobody hear of one import: of the one with this number.

    Where it is `carried_out`, the server has applied it when `struck` is set; else the server never sees it.
    """

    daemon_threads = True

    def __init__(self, target: str, *, number: int, carried_out: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.target = target.removeprefix("http://")
        self.number = number
        self.carried_out = carried_out
        self.imports = 0
        self.struck = threading.Event()
        self._closed = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def swallow(self) -> None:
        self.struck.set()
        self._closed.wait()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self.shutdown()
        self.server_close()


class _Forward(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gateway

    def do_GET(self) -> None:
        self._answer(*self._ask())

    def do_POST(self) -> None:
        self.server.imports += 1
        swallowed = self.server.imports == self.server.number
        if swallowed and not self.server.carried_out:
            self.server.swallow()
            return
        answer = self._ask()
        if swallowed:
            self.server.swallow()
        else:
            self._answer(*answer)

    def _ask(self) -> tuple[int, str, bytes]:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with contextlib.closing(http.client.HTTPConnection(self.server.target)) as connection:
            names = ("Authorization", "Content-Type", "Accept")
            headers = {name: self.headers[name] for name in names if name in self.headers}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.headers["Date"], answer.read()

    def _answer(self, status: int, date: str, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Date", date)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


class Service:
    """`syncsvc run`, or another command, as a process of its own; killed at the end where it still runs."""

    def __init__(self, config: Path, folder: Path, *, grace: float | None = None, name: str = "run") -> None:
        self._log = folder / "service.log"
        start = ["-m", "syncsvc"]
        if grace is not None:
            patch = f"import syncsvc.daemon as it; it.GRACE_SECONDS = {grace}"
            start = ["-c", f"{patch}; from syncsvc.cli import main; main()"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *start, "-c", str(config), name], stdout=log, stderr=log
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def text(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def events(self, name: str, **facts: object) -> list[dict[str, Any]]:
        """Return the log lines of an event that carry these facts."""
        lines = [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]
        return [
            line
            for line in lines
            if line["event"] == name and all(line.get(key) == value for key, value in facts.items())
        ]

    def wait_for(self, name: str, count: int = 1, **facts: object) -> list[dict[str, Any]]:
        def seen() -> list[dict[str, Any]] | None:
            assert self._process.poll() is None, self.text()
            found = self.events(name, **facts)
            return found if len(found) >= count else None

        found: list[dict[str, Any]] = until(f"{count} x {name} {facts}", seen)
        return found

    def get(self, path: str, *, since: str = "service_started") -> tuple[int, str]:
        """Ask the health endpoint, at the port that it has since an event."""
        port = self.wait_for(since)[0]["port"]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def ended(self) -> int:
        """Wait until it has ended by itself, and return the exit code."""
        return self._process.wait(timeout=DEADLINE)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait at most 30 s for the end, and return the exit code."""
        self._process.send_signal(how)
        return self._process.wait(timeout=30)


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
