"""Several real connectors, their CRMs and the wallet in one process and one virtual time, without a socket.

The CRMs are the makers of the conformance suite: what passes the suite can live here.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import orjson
from enginelab import BRAND, LOG, Crash
from quicklab import Call, Content, QuickLab, WiredTimeline
from starlette.types import ASGIApp

from syncsvc.errors import LostAnswerError
from syncsvc.remote.transport import Answer
from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Kind
from syncsvc.testing import Feature, Ground, Maker

LENGTH = timedelta(hours=2)
PEOPLE = 12
"""Contacts of each CRM in the morning."""
LATENCY = timedelta(seconds=0.06)
LATE = timedelta(minutes=4)
"""How late a change may become visible: within the overlap that every connector reads again."""
WALLET = "127.0.0.1:1"
TELLING = {Feature.TOMBSTONES, Feature.LOOKS}  # else sweeps alone find who was deleted
STALLS = {"day", "total", "burst-long", "moving-long", "429-told"}
"""Limits after which a connector rightly waits for longer than the day has left."""
STRIKES: Sequence[Mapping[str, Any]] = (
    {"kind": Kind.RESET_BEFORE},
    {"kind": Kind.RESET_AFTER},
    {"kind": Kind.HTML, "status": 502},
    {"kind": Kind.HTML_AFTER, "status": 502},
    {"kind": Kind.CUT_BODY},
    {"kind": Kind.STATUS, "status": 500},
    {"kind": Kind.STATUS, "status": 503},
)


class Line:
    """A client of one service in this process, with the answers and the trouble that HTTP would bring."""

    def __init__(self, network: DayTimeline, base_url: str) -> None:
        self._network = network
        self._base_url = base_url

    def send(self, method: str, path: str, **options: Any) -> Answer:
        with self.stream(method, path, **options) as (head, body):
            return Answer(head.status, head.headers, b"".join(iter(lambda: body.read(-1), b"")))

    def relay(self, method: str, url: str, *, headers: Mapping[str, str], content: bytes | None) -> Answer:
        return Line(self._network, "").send(method, url, headers=headers, content=content)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        deadline: float | None = None,
    ) -> Iterator[tuple[Answer, Content]]:
        del deadline
        self._network.count()
        url = urlsplit(f"{self._base_url}{path}")
        self._network.calls[url.netloc] += 1
        body = orjson.dumps(json) if json is not None else content or b""
        call = Call(body)
        sent = {"host": url.netloc, "accept": "application/json"}
        sent |= {"content-type": "application/json"} if body else {}
        sent |= {name.lower(): value for name, value in (headers or {}).items()}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": url.scheme,
            "server": (url.hostname, url.port),
            "path": url.path,
            "raw_path": url.path.encode(),
            "query_string": (urlencode(params) if params else url.query).encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        }
        with self._network.turn:
            self._network.loop.run(self._network.apps[url.netloc](scope, call.receive, call.send))
        if call.status is None:
            raise LostAnswerError(f"{method} {url.path}: no answer")
        told = {"date": f"{self._network.now():%a, %d %b %Y %H:%M:%S} GMT"} | call.headers
        yield Answer(call.status, told, b""), Content(call)

    def close(self) -> None:
        pass


class DayTimeline(WiredTimeline):
    """A network of `Line`s, on which every request takes a moment; `apps` are what is served, by address."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.apps: dict[str, ASGIApp] = {}
        self.calls: Counter[str] = Counter()
        self.loop = asyncio.Runner()
        # Connectors are asked at once, and this loop answers one after the other.
        self.turn = threading.Lock()

    def client(self, base_url: str, *, timeout: float) -> Any:
        del timeout
        return Line(self, base_url)

    def monotonic(self) -> float:
        return self.clock.now().timestamp()

    def count(self) -> None:
        super().count()
        self.clock.advance(LATENCY)


@dataclass
class Desk:
    """One CRM of the day: its contacts as they were last edited, and those that can be brought back."""

    maker: Maker
    address: str
    live: dict[str, dict[str, str | None]] = field(default_factory=dict)
    bin: dict[str, dict[str, str | None]] = field(default_factory=dict)
    settled: dict[str, datetime] = field(default_factory=dict)
    """From when on a contact's last change is surely visible: until then it is only edited."""
    emails: set[str] = field(default_factory=set)
    """All that its contacts ever had: a CRM that keeps them for other contacts takes none for a new one."""
    touched: set[str] = field(default_factory=set)
    changes: int = 0
    """How many contacts changed between two cycles, over all of them."""
    busy: int = 0
    """Before how many cycles any did."""


class Families:
    """Which records and emails belong together: their points may stand on any of their members."""

    def __init__(self) -> None:
        self._parent: dict[object, object] = {}

    def root(self, thing: object) -> object:
        while (above := self._parent.setdefault(thing, thing)) != thing:
            thing = above
        return thing

    def join(self, one: object, other: object) -> None:
        self._parent[self.root(one)] = self.root(other)


class Day:
    """One random day of an organization in `makers`' CRMs; the first that is seen with an email owns it.

    Points only grow, so every member is to have been awarded what its contact says in the end. On an even
    `seed` polls alone have to bring everything, so nothing happens that only a sweep can tell.
    """

    def __init__(self, lab: QuickLab, seed: int, makers: Sequence[type[Maker]]) -> None:
        assert isinstance(lab.network, DayTimeline)
        self.random = random.Random(seed)
        self.polled = seed % 2 == 0
        self.lab = lab
        self.network = lab.network
        self.families = Families()
        self.high: dict[tuple[str, str], int] = defaultdict(int)
        self.emails: set[str] = set()
        self.lost: set[tuple[str, str]] = set()
        self.cycles = 0
        self.desks: list[Desk] = []
        self.network.apps.clear()
        self.network.calls.clear()
        for number, made in enumerate(makers):
            folder = lab.folder / f"day{seed}-{made.type}"
            folder.mkdir()
            address = f"127.0.0.1:{1001 + number}"
            ground = Ground(f"http{'s' * made.tls}://{address}", clock=lab.clock)
            self.desks.append(Desk(made(ground, folder), address))
            self.network.apps[address] = ground.stage
        self._open(seed)
        for desk in self.desks:
            for _ in range(PEOPLE):
                self.arrive(desk)

    def _open(self, seed: int) -> None:
        tables, types = {}, {}
        for desk in self.desks:
            maker = desk.maker
            types[maker.type] = maker.connector_type()
            names = {name: f"{{{it}}}" for name, it in maker.names.items()}
            tables[f"{maker.type}-crm"] = {
                "type": maker.type,
                "member": {"email": names["email"], "name": names["name"], "points": names["note"]},
                "write_back": dict(maker.written),
                "settings": types[maker.type].Settings.model_validate(maker.settings()),
            }
        self.lab.types = types
        self.lab.tables["connectors"] = tables
        self.lab.tables["brakes"] = {"max_share": "100%", "max_gone_share": "100%"}
        self.lab.tables["policy"] = {"on_email_change": "move"}
        self.lab.begin_anew(f"day{seed}")
        self.network.apps[WALLET] = self.lab.serve

    # What people do.

    def arrive(self, desk: Desk) -> None:
        """Add a contact; now and then one whose email another CRM has too."""
        shared = sorted(self.emails - desk.emails)
        if shared and not self.polled and self.random.random() < 0.15:
            email = self.random.choice(shared)
        else:
            email = f"p{len(self.emails)}@example.org"
        values = {"email": email, "name": self._name(), "note": str(self.random.randrange(60))}
        (record_id,) = desk.maker.put([values])
        desk.live[record_id] = dict(values)
        self._changed(desk, record_id)

    def edit(self, desk: Desk, record_id: str, *, late: bool = False) -> None:
        values = {"name": self._name()}
        if self.random.random() < 0.7:
            values["note"] = str(int(desk.live[record_id]["note"] or 0) + self.random.randrange(1, 40))
        context = desk.maker.delayed(LATE) if late else nullcontext()
        with context:
            desk.maker.edit([record_id], values)
        desk.live[record_id].update(values)
        self._changed(desk, record_id, late=late)

    def rename(self, desk: Desk, record_id: str) -> None:
        """Give a contact an email that nobody had before."""
        values = {"email": f"p{len(self.emails)}@example.org"}
        desk.maker.edit([record_id], values)
        desk.live[record_id].update(values)
        self._changed(desk, record_id)

    def delete(self, desk: Desk, record_id: str) -> None:
        desk.maker.delete(record_id)
        desk.bin[record_id] = desk.live.pop(record_id)
        self.lost.add((desk.address, record_id))

    def purge(self, desk: Desk, record_id: str) -> None:
        desk.maker.purge(record_id)
        del desk.live[record_id]
        self.lost.add((desk.address, record_id))

    def vanish(self, desk: Desk, record_id: str) -> None:
        desk.maker.vanish(record_id)
        del desk.live[record_id]
        self.lost.add((desk.address, record_id))

    def restore(self, desk: Desk) -> None:
        record_id = self.random.choice(sorted(desk.bin))
        desk.maker.restore(record_id)
        desk.live[record_id] = desk.bin.pop(record_id)
        self.edit(desk, record_id)

    def merge(self, desk: Desk, winner: str, loser: str) -> None:
        """Merge two contacts; the one that lives on has the points of both, and earns some more."""
        points = sum(int(desk.live[it]["note"] or 0) for it in (winner, loser)) + 1
        left = desk.maker.merge(winner, loser)
        values = desk.live[winner] | {"note": str(points)}
        desk.maker.edit([left], {"note": str(points)})
        for record_id in (winner, loser):
            self.families.join((desk.address, record_id), (desk.address, left))
            desk.live.pop(record_id)
            desk.settled.pop(record_id, None)
        desk.live[left] = values
        self._changed(desk, left)

    def _name(self) -> str:
        return self.random.choice(["Ada", "Ben", "Chi", "Dora", "Zoë", "李"])

    def _changed(self, desk: Desk, record_id: str, *, late: bool = False) -> None:
        key = (desk.address, record_id)
        email = str(desk.live[record_id]["email"])
        self.emails.add(email)
        desk.emails.add(email)
        self.families.join(key, email)
        self.high[key] = max(self.high[key], int(desk.live[record_id]["note"] or 0))
        desk.touched.add(record_id)
        if late:
            desk.settled[record_id] = self.lab.clock.now() + 2 * LATE

    def _quiet(self, desk: Desk) -> list[str]:
        now = self.lab.clock.now()
        return sorted(it for it in desk.live if desk.settled.get(it, now) <= now)

    def act(self) -> None:
        """Let something happen in one of the CRMs."""
        desk = self.random.choice(self.desks)
        has = desk.maker.features
        quiet = self._quiet(desk)
        self.random.shuffle(quiet)
        kind = self.random.choices(
            ("edit", "late", "arrive", "rename", "delete", "purge", "vanish", "restore", "merge"),
            (26, 30, 10, 8, 6, 3, 3, 6, 6),
        )[0]
        if kind == "edit" and quiet:
            self.edit(desk, quiet[0])
        elif kind == "late" and quiet and Feature.LATE in has:
            self.edit(desk, quiet[0], late=True)
        elif kind == "arrive":
            self.arrive(desk)
        elif kind == "rename" and quiet:
            self.rename(desk, quiet[0])
        elif kind == "delete" and len(quiet) > 4 and (has & TELLING or not self.polled):
            self.delete(desk, quiet[0])
        elif kind == "purge" and len(quiet) > 4 and Feature.LOOKS in has:
            self.purge(desk, quiet[0])
        elif kind == "vanish" and len(quiet) > 4 and Feature.VANISH in has and not self.polled:
            self.vanish(desk, quiet[0])
        elif kind == "restore" and desk.bin and (Feature.TOMBSTONES in has or not self.polled):
            self.restore(desk)
        elif kind == "merge" and len(quiet) > 4 and Feature.MERGE in has:
            self.merge(desk, quiet[0], quiet[1])

    # What goes wrong.

    def trouble(self) -> None:
        """Put faults before some requests to come."""
        if self.random.random() < 0.3:
            self.lab.fault(**self.random.choice(STRIKES), skip=self.random.randrange(2))
        if self.random.random() < 0.1:
            self.lab.fault(Kind.CUT_BODY, LOG, skip=self.random.randrange(3))
        for desk in self.desks:
            if Feature.WIRE not in desk.maker.features:
                continue
            chance = self.random.random()
            if chance < 0.15:
                desk.maker.strike(
                    **self.random.choice(STRIKES), path=desk.maker.calls, skip=self.random.randrange(3)
                )
            elif chance < 0.2:
                desk.maker.faults.add(desk.maker.unauthorized())
            elif chance < 0.25:
                short = sorted(set(desk.maker.limits) - STALLS)
                desk.maker.faults.add(desk.maker.limits[self.random.choice(short)])
        if self.random.random() < 0.05:
            self.lab.crash_import(self.random.choice(["before", "after"]))

    # The day.

    def live(self) -> None:
        """Live the day to its end, asserting that no family ever gets more than it earned."""
        until = self.lab.clock.now() + LENGTH
        while self.lab.clock.now() < until:
            for _ in range(self.random.randrange(6)):
                self.act()
            self.trouble()
            swept = not self.polled and self.random.random() < 0.04
            self._cycle(self.random.choice([30, 120, 300, 300, 600]), full=swept)
            self.never_more()

    def _cycle(self, after: float, *, full: bool = False) -> None:
        self.cycles += 1
        for desk in self.desks:
            desk.changes += len(desk.touched)
            desk.busy += bool(desk.touched)
            desk.touched.clear()
        try:
            self.lab.cycle(after=after, full=full)
        except Crash:
            self.lab.reopen()

    def _families(self) -> Iterator[tuple[list[tuple[str, str]], int]]:
        """Yield the records of each family and what its members were awarded."""
        records, paid = defaultdict(list), Counter[object]()
        for key in self.high:
            records[self.families.root(key)].append(key)
        for email, points in self.lab.truth().items():
            paid[self.families.root(email)] += points
        assert set(paid) <= set(records)
        for root, members in records.items():
            yield members, paid[root]

    def never_more(self) -> None:
        for records, paid in self._families():
            assert paid <= sum(self.high[it] for it in records), records

    def evening(self) -> None:
        """Let all trouble end and everything become visible and settled.

        The first sweep tells what vanished, the second what then became a member's owner looks like.
        """
        self.lab.wallet.faults.clear()
        for desk in self.desks:
            if Feature.WIRE in desk.maker.features:
                desk.maker.faults.clear()
        self.lab.reopen()
        for _ in range(3):
            self._cycle(900)
        for _ in range(2):
            self._cycle(900, full=not self.polled)
        for _ in range(3):
            self._cycle(900)

    def in_order(self) -> None:
        """Assert that every contact and its member agree, by what the CRMs and the wallet hold."""
        assert self.lab.reports[-1].errors == ()
        assert self.lab.store.holds.open() == []
        living = {
            record_id: (str(values["email"]), values["name"])
            for desk in self.desks
            for record_id, values in desk.live.items()
        }
        for email in {email for email, _ in living.values()}:
            profile = self.lab.profile(email)  # its reference names the contact that owns the member
            assert living[profile["external_reference"]] == (email, profile["name"])
        ours = ",".join(str(it.id) for it in self.lab.organization.connectors.values())
        listed = f"SELECT record_id FROM contact WHERE state <> 3 AND connector_id IN ({ours})"
        known = {it for (it,) in self.lab.rows(listed)}
        assert known <= {it for desk in self.desks for it in desk.live}, "who is gone is known to be"
        logged = {it.email: it.logged for it in self.lab.wallet.members(BRAND)}
        for desk in self.desks:
            for record_id, values in desk.live.items():
                held = desk.maker.holds(record_id)
                assert {name: held[name] for name in values} == values
                stamp, at = held["last_updated"], logged[str(values["email"])]
                assert isinstance(stamp, datetime)
                assert at is not None
                assert abs(stamp - at) < timedelta(seconds=1), (desk.address, record_id)
        for records, paid in self._families():
            living = [it for it in records if it[1] in self._desk(it[0]).live]
            if len(living) == 1 and not self.lost & set(records):
                assert paid == int(self._desk(living[0][0]).live[living[0][1]]["note"] or 0), records
        assert self.lab.differences() == []

    def silent(self) -> None:
        """Assert that one more cycle imports nothing and reads each CRM with one request.

        Just before, whoever looks for deletions now and then has looked.
        """
        self._cycle(3660)  # connectors are asked at once: when in the hour each was varies by some requests
        before = self.network.calls.copy()
        report = self.lab.cycle()
        calls = self.network.calls - before
        assert (report.rows_sent, report.written_back) == (0, 0)
        assert {it.address: calls[it.address] for it in self.desks} == {
            it.address: int(Feature.WIRE in it.maker.features) for it in self.desks
        }

    def spent(self) -> dict[str, tuple[int, int, int]]:
        """Return for each CRM the calls, the fewest that could do, and the contacts that changed.

        The fewest are a poll for each cycle, and a write for each that brought changes.
        """
        wired = [it for it in self.desks if Feature.WIRE in it.maker.features]
        return {
            it.maker.type: (self.network.calls[it.address], self.cycles + it.busy, it.changes) for it in wired
        }

    def _desk(self, address: str) -> Desk:
        return next(it for it in self.desks if it.address == address)

    def close(self) -> None:
        for desk in self.desks:
            desk.maker.close()


@contextmanager
def open_lab(folder: Path) -> Iterator[QuickLab]:
    """Give a lab for many days."""
    with QuickLab(folder, network=DayTimeline) as lab:
        yield lab
