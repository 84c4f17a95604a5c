"""The demo: the real daemon, through the real connectors, against the simulated world, with things going wrong.

Its verdict is computed from the simulators' own truth, never from the service's state.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table

from syncsvc.errors import StateError
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.world import BRAND, Person, World

_EVERY = "500ms"
_SETTLE_AFTER = "3s"
_EDITS = 10
_QUIET_CYCLES = 2
_POLL_SECONDS = 0.05
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the verdict."""

    claim: str
    holds: bool
    facts: str


class TooSlowError(Exception):
    """Something that was awaited has not happened in time."""


class Daemon:
    """The service as a process of its own, its log lines in a file."""

    def __init__(self, config: Path, environment: dict[str, str]) -> None:
        """Prepare; nothing runs yet."""
        self._command = [sys.executable, "-m", "syncsvc", "-c", str(config), "run"]
        self._environment = {**os.environ, **environment}
        self.log = config.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this program itself
                self._command, env=self._environment, stdout=log, stderr=log
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Stop the process by a signal and return its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(how)
        code = self._process.wait(timeout=30)
        self._process = None
        return code

    def require_alive(self) -> None:
        """Raise StateError, with its last words, where the process has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            words = self.log.read_text(encoding="utf-8").strip().splitlines()[-3:]
            raise StateError("the service ended by itself:\n" + "\n".join(words))

    def complaints(self) -> list[str]:
        """Return the last few things the service warned of."""
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("level") in {"warning", "error", "critical"}:
                    found.append(f"{entry.get('event')}: {entry.get('reason') or entry.get('detail') or ''}")
        return found[-3:]

    def cycles(self) -> list[dict[str, Any]]:
        """Return the facts of every cycle that has finished, oldest first."""
        found = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("event") == "cycle_finished":
                    found.append(entry)
        return found


class Teller:
    """Shows what happens as it happens: on a terminal as it goes, otherwise as JSON lines."""

    def __init__(self) -> None:
        """Write to stdout."""
        self._console = Console(highlight=False)
        self._began = time.monotonic()
        self._status: Status | None = None

    @property
    def live(self) -> bool:
        """Whether a person is watching a terminal."""
        return self._console.is_terminal

    def say(self, event: str, sentence: str, **facts: Any) -> None:
        """Tell one thing that has happened."""
        at = time.monotonic() - self._began
        if self.live:
            self._console.print(f"[dim]{at:5.1f}s[/] {sentence}")
        else:
            self.line({"event": event, "at": round(at, 1), "message": sentence, **facts})

    def line(self, facts: dict[str, Any]) -> None:
        """Write one JSON line."""
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show that something is awaited; the value is a function that shows how far it is."""
        if not self.live:
            yield lambda _: None
            return
        with self._console.status(what) as status:
            yield lambda far: status.update(f"{what} {far}")

    def show(self, table: Table) -> None:
        """Show a table, on a terminal or wherever tables are read."""
        self._console.print(table)


class Demo:
    """One run of the demo."""

    def __init__(self, *, contacts: int, seconds: int, faults: bool, keep: bool) -> None:
        """Prepare; `seconds` bounds each wait."""
        self._contacts = contacts
        self._seconds = seconds
        self._faults = faults
        self._keep = keep
        self._teller = Teller()

    def run(self) -> bool:
        """Play the story and return whether everything that was promised held."""
        with contextlib.ExitStack() as stack:
            if self._keep:
                folder = Path(tempfile.mkdtemp(prefix="syncsvc-demo-"))
            else:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="syncsvc-demo-")))
            world = stack.enter_context(World(folder, contacts=self._contacts))
            config = world.write_organization(every=_EVERY, settle_after=_SETTLE_AFTER)
            daemon = Daemon(config, world.environment)
            stack.callback(daemon.stop)
            story = Story(world, daemon, self._teller, seconds=self._seconds, faults=self._faults)
            findings = self._play(story, daemon)
            daemon.stop()
            passed = all(finding.holds for finding in findings)
            self._show(world, findings, passed=passed)
            if self._keep:
                self._hand_over(world, config)
            return passed

    def _play(self, story: Story, daemon: Daemon) -> list[Finding]:
        try:
            story.play()
        except TooSlowError as error:
            words = daemon.complaints()
            sentence = f"{error} took longer than {self._seconds} s; give it more time with --seconds"
            self._teller.say("too_slow", "\n  ".join([sentence, *words]))
            return [Finding("the story came to its end", holds=False, facts=str(error)), *story.verdict()]
        return [*story.verdict(), story.silence()]

    def _show(self, world: World, findings: list[Finding], *, passed: bool) -> None:
        table = Table(title="what each side now holds", title_justify="left")
        for heading in ("", "contacts or members", "points", "with the wallet's time"):
            table.add_column(heading, justify="left" if not heading else "right")
        for name, people in (("Salesforce", world.salesforce_people()), ("HubSpot", world.hubspot_people())):
            held = list(people)
            stamped = sum(person.stamped is not None for person in held)
            table.add_row(name, f"{len(held):,}", f"{sum(p.points for p in held):,}", f"{stamped:,}")
        members = list(world.wallet.members(BRAND))
        table.add_row("wallet", f"{len(members):,}", f"{world.wallet.total_awarded():,}", "")
        verdict = Table(title="verdict, from the simulators' own truth", title_justify="left")
        for heading in ("", "claim", "seen"):
            verdict.add_column(heading)
        for finding in findings:
            verdict.add_row("[green]✓[/]" if finding.holds else "[red]✗[/]", finding.claim, finding.facts)
        if self._teller.live:
            self._teller.show(table)
            self._teller.show(verdict)
        for finding in findings if not self._teller.live else ():
            facts = {"claim": finding.claim, "holds": finding.holds, "seen": finding.facts}
            self._teller.line({"event": "verdict", **facts})
        sentence = "everything held" if passed else "something did NOT hold"
        self._teller.say("demo_finished", sentence, passed=passed)

    def _hand_over(self, world: World, config: Path) -> None:
        secrets = "".join(
            f"export {name}={shlex.quote(value)}\n" for name, value in world.environment.items()
        )
        environment = world.folder / "env.sh"
        environment.write_text(secrets, encoding="utf-8")
        record = next(world.hubspot_people()).record_id
        self._teller.say(
            "kept",
            f"the simulators go on until Ctrl-C; files are in {world.folder}. In another terminal:\n"
            f"  . {environment}\n"
            f"  syncsvc -c {config} status\n"
            f"  curl -X PATCH {world.hubspot_url}/crm/v3/objects/contacts/{record} "
            f"-H 'Authorization: Bearer pat-sandbox' -H 'Content-Type: application/json' "
            '-d \'{"properties": {"loyalty_points": "9999"}}\'\n'
            f"  syncsvc -c {config} once\n"
            f"  syncsvc -c {config} explain member{self._contacts}@example.com\n"
            f"or point an organization file of your own at wallet {world.wallet_url}, HubSpot {world.hubspot_url} "
            f"and Salesforce {world.salesforce_url} (ca_file {world.ca_file}).",
        )
        done = threading.Event()
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, lambda *_: done.set())
        done.wait()


class Story:
    """What happens in the demo, in order."""

    def __init__(self, world: World, daemon: Daemon, teller: Teller, *, seconds: int, faults: bool) -> None:
        """Prepare; `seconds` bounds the whole story."""
        self._world = world
        self._daemon = daemon
        self._teller = teller
        self._until = time.monotonic() + seconds
        self._faults = faults

    def play(self) -> None:
        """Let everything happen; raises TooSlowError."""
        world, say = self._world, self._teller.say
        people = len(list(world.salesforce_people())), len(list(world.hubspot_people()))
        say(
            "world_started",
            f"three simulators are up: Salesforce {people[0]:,} contacts, HubSpot {people[1]:,}",
        )
        if self._faults:
            self._let_things_fail()
            say("faults_on", "every service now fails at random")
        self._daemon.start()
        self._settled("first delivery")
        imports = world.wallet.imports
        say(
            "first_delivery",
            f"first delivery: {len(list(world.wallet.members(BRAND))):,} members and "
            f"{world.wallet.total_awarded():,} points in {len(imports)} imports, written back to both CRMs",
        )
        self._edit(_EDITS)
        self._settled("live edits")
        say("live_edits", f"{_EDITS} contacts edited in each CRM: delivered and written back")
        gone = next(world.salesforce_people())
        world.salesforce.delete("Contact", gone.record_id)
        say(
            "contact_deleted",
            f"contact {gone.record_id} deleted in Salesforce: its member stays (policy.on_gone)",
        )
        self._lose_answers()
        self._restart()
        self._settled("everything")
        self._wait("silence", lambda: _asks_once(self._daemon.cycles()[-_QUIET_CYCLES:]))

    def _edit(self, count: int) -> None:
        world = self._world
        for person in self._some(list(world.salesforce_people()), count):
            world.salesforce.update(
                "Contact", person.record_id, {"Loyalty_Points__c": person.points + 50, "Tier__c": "Gold"}
            )
        for person in self._some(list(world.hubspot_people()), count):
            world.hubspot.update(
                person.record_id, {"loyalty_points": str(person.points + 25), "firstname": "New"}
            )

    def _lose_answers(self) -> None:
        """Lose one answer after the wallet has applied the import, and one before."""
        for kind, what in (
            (Kind.RESET_AFTER, "after the wallet applied the import"),
            (Kind.RESET_BEFORE, "before the wallet saw it"),
        ):
            fault = self._world.wallet.faults.add(Fault(kind, "POST", "/v2/import"))
            before = self._world.wallet.total_awarded()
            self._edit(3)
            self._wait(f"an answer lost {what}", lambda fault=fault: fault.struck > 0)  # type: ignore[misc]
            self._teller.say(
                "answer_lost", f"an answer was lost {what}: its points are in doubt, not sent again"
            )
            self._settled("the doubt")
            awarded = self._world.wallet.total_awarded() - before
            self._teller.say("doubt_settled", f"the import log settled it: {awarded} points arrived, once")

    def _restart(self) -> None:
        self._edit(3)
        self._daemon.stop(signal.SIGKILL)
        self._edit(3)
        self._daemon.start()
        self._teller.say(
            "restarted", "the service was killed (kill -9) with edits under way, and started again"
        )

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

    def _some(self, people: list[Person], count: int) -> list[Person]:
        return self._world.random.sample(people, min(count, len(people)))

    def _settled(self, what: str) -> None:
        """Wait until the wallet holds what the CRMs say and the CRMs hold what the wallet says."""

        def far() -> str:
            late = len(self._wrong_members()) + len(self._unstamped())
            return f"({late:,} to go)"

        self._wait(what, lambda: not self._wrong_members() and not self._unstamped(), far)

    def _wait(self, what: str, done: Callable[[], bool], far: Callable[[], str] = str) -> None:
        with self._teller.waiting(f"waiting for {what}") as show:
            while not done():
                self._daemon.require_alive()
                if time.monotonic() > self._until:
                    raise TooSlowError(what)
                show(far())
                time.sleep(_POLL_SECONDS)

    def _expected(self) -> dict[str, int]:
        """Return the points each member should have been awarded: those of the contact that owns it."""
        expected = {person.email.casefold(): person.points for person in self._world.hubspot_people()}
        expected |= {person.email.casefold(): person.points for person in self._world.salesforce_people()}
        return expected

    def _wrong_members(self) -> list[str]:
        awarded = {it.email.casefold(): it.awarded for it in self._world.wallet.members(BRAND)}
        return [email for email, points in self._expected().items() if awarded.get(email) != points]

    def _unstamped(self) -> list[Person]:
        logged = {it.email.casefold(): it.logged for it in self._world.wallet.members(BRAND)}
        everyone = [*self._world.salesforce_people(), *self._world.hubspot_people()]
        return [person for person in everyone if not _agrees(person, logged.get(person.email.casefold()))]

    def verdict(self) -> list[Finding]:
        """Return what is true of points and times, as the simulators know it."""
        world = self._world
        expected = self._expected()
        wrong = self._wrong_members()
        unstamped = self._unstamped()
        everyone = len(list(world.salesforce_people())) + len(list(world.hubspot_people()))
        return [
            Finding(
                "every point arrived exactly once",
                not wrong,
                f"{sum(expected.values()):,} points for {len(expected):,} members, {len(wrong):,} differ",
            ),
            Finding(
                "the wallet's time stands on every contact",
                not unstamped,
                f"{everyone - len(unstamped):,} of {everyone:,}",
            ),
        ]

    def silence(self) -> Finding:
        """Watch cycles with nothing to do: no import, no write-back, one request per CRM."""
        world = self._world

        def noise() -> tuple[int, int, int]:
            imports = world.wallet.requests["POST", "/v2/import"]
            return imports, len(world.hubspot.writes), len(world.salesforce.writes)

        before, cycles = noise(), len(self._daemon.cycles())
        with contextlib.suppress(TooSlowError):
            self._wait("silence", lambda: _asks_once(self._daemon.cycles()[cycles:]))
        after, seen = noise(), self._daemon.cycles()[cycles:]
        last = {name: part["requests"] for name, part in seen[-1]["connectors"].items()} if seen else {}
        quiet = before == after and _asks_once(seen)
        made = ", ".join(f"{name} {count}" for name, count in last.items())
        return Finding(
            "a cycle without changes is silent",
            quiet or (self._faults and before == after),
            f"{len(seen)} cycles, {sum(after) - sum(before)} imports or writes; requests in the last: {made}",
        )


def _asks_once(cycles: list[dict[str, Any]]) -> bool:
    """Whether the last two cycles asked every CRM once; echoes of write-backs take a moment to pass."""
    last = cycles[-_QUIET_CYCLES:]
    asked = [part["requests"] for cycle in last for part in cycle["connectors"].values()]
    return len(last) == _QUIET_CYCLES and all(count == 1 for count in asked)


def _agrees(person: Person, logged: Any) -> bool:
    if logged is None:
        return person.stamped is None
    return person.stamped is not None and abs(person.stamped - logged) <= _SECOND
