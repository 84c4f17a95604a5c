"""A lab for many thousands of cycles: no sockets to the wallet, and a state whose commits wait for no disk.

The wallet's own application answers as it would over HTTP, its fault plan included; the state is the real
one, and a process that dies here loses what it would lose, as the machine under it does not fall.
"""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import orjson
from enginelab import IMPORT, Lab, Timeline
from grounds import GROUNDS

from syncsvc.errors import LostAnswerError
from syncsvc.organization import Organization
from syncsvc.remote.answer import Answer
from syncsvc.state.database import Database


class Wire:
    """Calls the simulator's application without a socket; a broken connection is a lost answer."""

    def __init__(self, network: WiredTimeline) -> None:
        self._network = network

    def send(self, method: str, path: str, **options: Any) -> Answer:
        with self.stream(method, path, **options) as (head, body):
            return Answer(head.status, head.headers, b"".join(iter(lambda: body.read(-1), b"")))

    @contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **_: Any,
    ) -> Iterator[tuple[Answer, Content]]:
        call = Call(content or b"")
        if (method, path) == IMPORT:
            self._network.lab.sent = orjson.loads(content or b"")["users"]
        query = "&".join(f"{name}={value}" for name, value in (params or {}).items())
        sent = {"content-type": "application/json", "accept": "application/json", **(headers or {})}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        }
        self._network.loop.run(self._network.lab.serve(scope, call.receive, call.send))
        if call.status is None:
            raise LostAnswerError(f"{method} {path}: no answer")
        told = call.headers | {"date": f"{self._network.now():%a, %d %b %Y %H:%M:%S} GMT"}
        yield Answer(call.status, told, b""), Content(call)

    def close(self) -> None:
        pass


class Content:
    """The body of an answer; one that broke off is told at its end."""

    def __init__(self, call: Call) -> None:
        self._chunks = iter(call.chunks)
        self._broken = call.broken

    def read(self, size: int) -> bytes:
        del size
        chunk = next((it for it in self._chunks if it), b"")
        if not chunk and self._broken:
            raise LostAnswerError("the answer broke off")
        return chunk


class Call:
    """One request as the server's own request cycle would hold it, so that faults can break it."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._asked = False
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.chunks: list[bytes] = []
        self.broken = False
        self.transport = self
        self.disconnected = False
        self.response_complete = False

    def abort(self) -> None:
        self.broken = True

    async def receive(self) -> dict[str, Any]:
        if self._asked:
            await asyncio.Event().wait()  # the client stays; whoever listens for its going is cancelled
        self._asked = True
        return {"type": "http.request", "body": self._content, "more_body": False}

    async def send(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.chunks.append(message.get("body", b""))


class WiredTimeline(Timeline):
    """A network whose connections to the wallet are `Wire`s; those made of it belong to the same lab."""

    lab: QuickLab
    loop: asyncio.Runner

    def client(self, base_url: str, *, timeout: float) -> Any:
        del base_url, timeout
        return Wire(self)


_SERVES = {"_lock", "_gate", "_routes", "app", "faults", "knobs", "clock"}
"""What of a wallet serves it, and is the same at every moment."""


@dataclass(frozen=True)
class Moment:
    """All there is at one moment, no fault being planned; many stories can go on from it."""

    now: datetime
    state: Any
    wallet: Mapping[str, Any]
    knobs: Mapping[str, Any]
    crms: Mapping[str, Any]


class QuickLab(Lab):
    """A `Lab` without sockets; a context manager. `begin_anew` gives a new organization in the same state.

    `sent` are the rows of the last import.
    """

    sent: Sequence[Mapping[str, Any]] = ()

    def __init__(self, folder: Path, *, network: type[WiredTimeline] | None = None, **tables: Any) -> None:
        self._hastened: Database | None = None
        self._loop = asyncio.Runner()
        super().__init__(folder, "http://127.0.0.1:1", network=network or WiredTimeline, **tables)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.close()
        GROUNDS.end(self.folder)

    def _open(self) -> Organization:
        if self._hastened is not self.database:
            self._hastened = self.database
            self.ground.hasten(self.database)
        assert isinstance(self.network, WiredTimeline)
        self.network.lab, self.network.loop = self, self._loop  # those made of it have them too
        return super()._open()

    def keep(self) -> Moment:
        """Return what the state, the wallet and the CRMs are now."""
        wallet = {name: it for name, it in vars(self.wallet).items() if name not in _SERVES}
        kept = wallet, asdict(self.wallet.knobs), self.crms
        return Moment(self.clock.now(), self.ground.kept(), *copy.deepcopy(kept))

    def go_back(self, to: Moment) -> None:
        """Let everything be as it was, and open the organization again."""
        self.organization.close()
        self.ground.put_back(to.state)
        wallet, knobs, self.crms = copy.deepcopy((to.wallet, to.knobs, to.crms))
        vars(self.wallet).update(wallet)
        for name, knob in knobs.items():
            setattr(self.wallet.knobs, name, knob)
        self.wallet.faults.clear()
        self.clock._now = to.now
        self.organization = self._open()

    def noise(self) -> tuple[int, int]:
        """Return how many requests the wallet got, and how many values the CRMs were written."""
        return sum(self.wallet.requests.values()), sum(len(crm.writes) for crm in self.crms.values())

    def silent(self) -> None:
        """Assert that one more cycle asks the wallet nothing and writes nothing to a CRM."""
        before = self.noise()
        report = self.cycle()
        assert (self.noise(), report.rows_sent, report.written_back) == (before, 0, 0)

    def truth(self) -> dict[str, int]:
        """Return the points that imports brought to each member, from the wallet's own ledger."""
        paid: dict[str, int] = defaultdict(int)
        for award in self.wallet.ledger:
            if award.via == "import":
                paid[award.email] += award.points
        return dict(paid)

    def quarantine(self) -> dict[str, tuple[str, str, str]]:
        ids = ",".join(str(it.id) for it in self.organization.connectors.values())
        listed = self.rows(
            f"SELECT record_id, side, field, reason FROM quarantine WHERE connector_id IN ({ids})"
        )
        return {row[0]: (row[1], row[2], row[3]) for row in listed}

    @property
    def scope(self) -> int:
        """The id of the organization in the state file, which holds those before it too."""
        found: int = self.store.reports._scope.organization_id
        return found
