"""The demo: the real service, through the real connectors, against the simulated world, things going wrong.

Its verdict is computed from the simulators' own truth, never from the service's state.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.handover import hand_over
from syncsvc.sandbox.world import BRAND, World

_EVERY = "500ms"
_SETTLE_AFTER = "3s"
_EDITS = 10
_QUIET_CYCLES = 2
_SETTLING_CYCLES = 5
"""Longer than the connectors' overlap: so long they may look again for what became visible late."""

_POLL_SECONDS = 0.05
_POLL_SHARE = 5
_STOP_SECONDS = 30
_WIDE = 140


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the verdict."""

    claim: str
    holds: bool
    facts: str


class StoryError(Exception):
    """The story cannot come to its end; the message says why."""


class Service:
    """The service as a process of its own, its log lines in a file."""

    def __init__(self, config: Path, environment: dict[str, str]) -> None:
        """Prepare; nothing runs yet."""
        self._command = [sys.executable, "-m", "syncsvc", "-c", str(config), "run"]
        self._environment = {**os.environ, **environment}
        self._path = config.with_suffix(".log")
        self._read = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.cycles: list[dict[str, Any]] = []
        self.complaints: list[str] = []

    def start(self) -> None:
        """Start the process."""
        with self._path.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this program itself
                self._command, env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop the process by a signal and return its exit code; one that does not stop in time is killed."""
        if self._process is None:
            return 0
        process, self._process = self._process, None
        process.send_signal(how)
        try:
            return process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def watch(self) -> None:
        """Read what the log has to say since the last time; raises StoryError where the process has ended."""
        with self._path.open("rb") as log:
            log.seek(self._read)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self._note(line)
        if self._process is not None and self._process.poll() is not None:
            raise StoryError(f"the service ended by itself, with exit code {self._process.returncode}")

    def _note(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            self.complaints.append(line)
            return
        if entry.get("event") == "cycle_finished":
            self.cycles.append(entry)
        elif entry.get("level") in {"warning", "error", "critical"}:
            reasons = (entry.get(name) for name in ("reason", "detail", "exception"))
            reason = next((reason for reason in reasons if reason), "")
            self.complaints.append(f"{entry['event']}: {str(reason)[:500]}")


class Teller:
    """Shows what happens as it happens: on a terminal as it goes, otherwise as JSON lines.

    Tables for people stand on standard error then, so that standard output is JSON alone.
    """

    def __init__(self) -> None:
        """Write to standard output."""
        self._console = Console(highlight=False)
        self._began = time.monotonic()
        self.live = self._console.is_terminal

    def say(self, event: str, sentence: str, **facts: Any) -> None:
        """Tell one thing that has happened."""
        at = time.monotonic() - self._began
        if self.live:
            self._console.print(f"[dim]{at:5.1f}s[/] {escape(sentence)}", soft_wrap=True)
        else:
            sys.stdout.write(json.dumps({"event": event, "at": round(at, 1), "message": sentence, **facts}))
            sys.stdout.write("\n")
            sys.stdout.flush()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show that something is awaited; the value is a function that shows how far it is."""
        if not self.live:
            yield lambda _: None
            return
        status: Status
        with self._console.status(what) as status:
            yield lambda far: status.update(f"{what} {far}")

    def show(self, table: Table) -> None:
        """Show a table."""
        console = self._console if self.live else Console(stderr=True, highlight=False, width=_WIDE)
        console.print(table)


class Demo:
    """One run of the demo."""

    def __init__(self, *, contacts: int, seconds: int | None, faults: bool, keep: bool) -> None:
        """Prepare; `seconds` bounds the whole story, and is chosen by its size where it is None."""
        self._contacts = contacts
        self._seconds = seconds or (60 + contacts // 25) * (3 if faults else 1)
        self._faults = faults
        self._keep = keep
        self._teller = Teller()

    def run(self) -> bool:
        """Play the story and return whether everything that was promised held."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # the service's process must end with us
        with contextlib.ExitStack() as stack:
            if self._keep:
                folder = Path(tempfile.mkdtemp(prefix="syncsvc-demo-"))
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="syncsvc-demo-")))
            world = stack.enter_context(World(folder, contacts=self._contacts))
            config = world.write_organization(every=_EVERY, settle_after=_SETTLE_AFTER)
            service = Service(config, world.environment)
            stack.callback(service.stop)
            story = Story(world, service, self._teller, seconds=self._seconds, faults=self._faults)
            findings = story.play()
            code = service.stop()
            findings.append(Finding("the service stops cleanly", code == 0, f"exit code {code}"))
            passed = all(finding.holds for finding in findings)
            self._show(world, findings, passed=passed)
            if self._keep:
                self._hand_over(world)
            return passed

    def _show(self, world: World, findings: list[Finding], *, passed: bool) -> None:
        table = Table(title="what each side now holds", title_justify="left")
        for heading in ("", "contacts or members", "points", "with the wallet's time"):
            table.add_column(heading, justify="right" if heading else "left")
        members = list(world.wallet.members(BRAND))
        people = {"Salesforce": list(world.salesforce_people()), "HubSpot": list(world.hubspot_people())}
        sides: list[tuple[str, int, int, int]] = [
            (side, len(held), sum(it.points for it in held), sum(it.stamped is not None for it in held))
            for side, held in people.items()
        ]
        logged = sum(member.logged is not None for member in members)
        sides.append(("wallet", len(members), world.wallet.total_awarded(), logged))
        for side, records, points, stamped in sides:
            table.add_row(side, f"{records:,}", f"{points:,}", f"{stamped:,}")
        emails = [it.key for held in people.values() for it in held]
        distinct = set(emails)
        shared = len(emails) - len(distinct)
        left = sum(it.email.casefold() not in distinct for it in members)
        table.caption = (
            f"{shared:,} have the email of another one: one member, its owner's points; {left:,} of the "
            "wallet's has no contact any more"
        )
        verdict = Table(title="verdict, from the simulators' own truth", title_justify="left")
        for heading in ("", "claim", "seen"):
            verdict.add_column(heading)
        for finding in findings:
            verdict.add_row("[green]✓[/]" if finding.holds else "[red]✗[/]", finding.claim, finding.facts)
        if not self._teller.live:
            for side, records, points, stamped in sides:
                facts = {"side": side, "records": records, "points": points, "stamped": stamped}
                self._teller.say("holds", f"{side} holds {records:,} records and {points:,} points", **facts)
            for it in findings:
                self._teller.say("verdict", f"{it.claim}: {it.facts}", claim=it.claim, holds=it.holds)
        self._teller.show(table)
        self._teller.show(verdict)
        sentence = "everything held" if passed else "something did NOT hold"
        self._teller.say("demo_finished", sentence, passed=passed)

    def _hand_over(self, world: World) -> None:
        done = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: threading.Thread(target=done.set, daemon=True).start())
        sentence = hand_over(world, every=_EVERY, settle_after=_SETTLE_AFTER)
        self._teller.say("kept", sentence, folder=str(world.folder))
        done.wait()


class Story:
    """What happens in the demo, in order."""

    def __init__(self, world: World, service: Service, teller: Teller, *, seconds: int, faults: bool) -> None:
        """Prepare; `seconds` bounds the whole story."""
        self._world = world
        self._service = service
        self._teller = teller
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._faults = faults

    def play(self) -> list[Finding]:
        """Let everything happen and return the verdict."""
        try:
            self._play()
            quiet = self._silence()
        except StoryError as error:
            self._teller.say("story_ended_early", "\n  ".join([str(error), *self._service.complaints[-3:]]))
            return [Finding("the story came to its end", holds=False, facts=str(error)), *self._verdict()]
        return [*self._verdict(), quiet]

    def _play(self) -> None:
        world, say = self._world, self._teller.say
        people = len(list(world.salesforce_people())), len(list(world.hubspot_people()))
        say("world_started", f"three simulators: Salesforce {people[0]:,} contacts, HubSpot {people[1]:,}")
        if self._faults:
            self._let_things_fail()
            say("faults_on", "every service now fails at random")
        self._service.start()
        self._settled("first delivery")
        members = len(list(world.wallet.members(BRAND)))
        say(
            "first_delivery",
            f"first delivery: {members:,} members and {world.wallet.total_awarded():,} points in "
            f"{len(world.wallet.imports)} imports, written back to both CRMs",
        )
        world.edit(_EDITS)
        self._settled("live edits")
        say("live_edits", f"{_EDITS} contacts edited in each CRM: delivered and written back")
        gone = world.depart()
        say("contact_deleted", f"contact {gone} deleted in Salesforce: its member stays (policy.on_gone)")
        self._lose_answers()
        self._restart()
        self._settled("everything")
        say("settled", "everything that was under way has arrived")

    def _lose_answers(self) -> None:
        """Lose one answer after the wallet has applied the import, and one before."""
        for kind, what in (
            (Kind.RESET_AFTER, "after the wallet applied the import"),
            (Kind.RESET_BEFORE, "before the wallet saw it"),
        ):
            fault = self._world.wallet.faults.add(Fault(kind, "POST", "/v2/import"))
            before = self._world.wallet.total_awarded()
            self._world.edit(3)
            self._wait(f"an answer lost {what}", lambda fault=fault: fault.struck > 0)  # type: ignore[misc]
            self._teller.say(
                "answer_lost", f"an answer was lost {what}: its points are in doubt, not sent again"
            )
            self._settled("the doubt")
            awarded = self._world.wallet.total_awarded() - before
            self._teller.say("doubt_settled", f"the import log settled it: {awarded} points arrived, once")

    def _restart(self) -> None:
        self._world.edit(3)
        self._service.stop(signal.SIGKILL)
        self._world.edit(3)
        self._service.start()
        self._teller.say("restarted", "the service was killed (kill -9) amid edits, and started again")

    def _let_things_fail(self) -> None:
        for plan in (self._world.hubspot.faults, self._world.salesforce.faults):
            plan.add(Fault(Kind.STATUS, chance=0.05, times=None, status=503))
            plan.add(Fault(Kind.RESET_AFTER, chance=0.05, times=None))
            plan.add(Fault(Kind.CUT_BODY, chance=0.03, times=None))
        wallet = self._world.wallet.faults
        wallet.add(Fault(Kind.RESET_BEFORE, "POST", "/v2/import", chance=0.1, times=None))
        wallet.add(Fault(Kind.RESET_AFTER, "POST", "/v2/import", chance=0.1, times=None))
        wallet.add(Fault(Kind.HTML_AFTER, "POST", "/v2/import", chance=0.1, times=None, status=502))
        wallet.add(Fault(Kind.CUT_BODY, "GET", "/import/log", chance=0.1, times=None))

    def _settled(self, what: str) -> None:
        """Wait until the wallet holds what the CRMs say and the CRMs hold what the wallet says."""

        def to_go() -> int:
            balances = self._world.balances().values()
            if any(it.awarded > it.expected for it in balances):
                raise StoryError(f"{what}: a member was awarded more than it earned")
            return sum(it.awarded != it.expected for it in balances) + len(self._world.unstamped())

        self._wait(what, lambda: to_go() == 0, lambda: f"({to_go():,} to go)")

    def _wait(self, what: str, done: Callable[[], bool], far: Callable[[], str] = str) -> None:
        """Wait until something is done; raises StoryError where that takes too long or the service ends."""
        with self._teller.waiting(f"waiting for {what}") as show:
            while True:
                asked = time.monotonic()
                self._service.watch()
                if done():
                    return
                if asked > self._until:
                    raise StoryError(f"{what}: not done {self._seconds} s after the start (--seconds)")
                show(far() if self._teller.live else "")
                # Looking is work too, and the simulators share this process with it.
                time.sleep(max(_POLL_SECONDS, _POLL_SHARE * (time.monotonic() - asked)))

    def _verdict(self) -> list[Finding]:
        """Return what is true of points and times, as the simulators know it."""
        balances = self._world.balances().values()
        wrong = sum(it.expected != it.awarded for it in balances)
        everyone, unstamped = len(self._world.people()), len(self._world.unstamped())
        return [
            Finding(
                "every point arrived exactly once",
                wrong == 0,
                f"{sum(it.expected for it in balances):,} points earned by {len(balances):,} members, "
                f"{sum(it.awarded for it in balances):,} awarded, {wrong:,} members differ",
            ),
            Finding(
                "the wallet's time stands on every contact",
                unstamped == 0,
                f"{everyone - unstamped:,} of {everyone:,}",
            ),
        ]

    def _silence(self) -> Finding:
        """Watch cycles with nothing to do: no import, no write-back, one request per CRM."""
        if self._faults:
            self._world.mend()
            self._teller.say("faults_off", "the failures end, to see whether silence follows")
        cycles = self._service.cycles
        self._wait("silence", lambda: _asked_once(cycles[-_SETTLING_CYCLES:], _SETTLING_CYCLES))
        before, seen = self._world.noise(), len(cycles)
        self._wait("a cycle without changes", lambda: len(cycles) >= seen + _QUIET_CYCLES)
        noise = sum(self._world.noise()) - sum(before)
        made = ", ".join(f"{name} {it['requests']}" for name, it in cycles[-1]["connectors"].items())
        return Finding(
            "a cycle without changes is silent",
            noise == 0 and _asked_once(cycles[seen:], _QUIET_CYCLES),
            f"{len(cycles) - seen} cycles, {noise} imports or writes; requests in the last: {made}",
        )


def _asked_once(cycles: list[dict[str, Any]], least: int) -> bool:
    """Whether these are at least so many cycles, and all of them asked every CRM once."""
    asked = [part["requests"] for cycle in cycles for part in cycle["connectors"].values()]
    return len(cycles) >= least and all(count == 1 for count in asked)
