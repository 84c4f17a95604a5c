"""A whole organization in one process: a CRM held in memory, the simulated wallet, a real state.

Time stands still until a test moves it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from grounds import GROUNDS
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from syncsvc.config import OrganizationConfig
from syncsvc.cycle import Cycle
from syncsvc.organization import ConnectorTypes, Organization, open_organization
from syncsvc.remote.transport import Network
from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.wallet import WalletKnobs, WalletSimulator
from syncsvc.state.audit import Difference
from syncsvc.state.database import Database
from syncsvc.state.store import open_store
from syncsvc.testing.memory import MemoryCrm
from syncsvc.watch.report import CycleReport

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
BRAND = "brand-1"
IMPORT = ("POST", "/v2/import")
LOG = ("GET", "/import/log")
MEMBER_MAP = {"email": "{email}", "name": "{name}", "points": "{points}"}
WRITE_BACK = {"last_updated": "wallet_time", "status": "wallet_status"}
SETTLED = 301
"""Seconds after which an unmoved entry is proof, under the default `settle_after` of five minutes."""


A_BATCH = """SELECT b.lane, b.outcome, b.row_count, b.points, r.points, r.outcome
    FROM batch b JOIN batch_row r ON r.batch_id = b.id ORDER BY b.id, r.position"""


class Crash(BaseException):
    """The process dies here: nothing that follows is carried out."""


class Timeline(Network):
    """Tells the time of the test's clock, and waits by moving it."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self.clock = clock

    def now(self) -> datetime:
        return self.clock.now()

    def sleep(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))


class Socket:
    """What is served on the one port of a test run: the wallet of the test that runs."""

    serving: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.serving(scope, receive, send)


class Lab:
    """One organization, its CRMs and its wallet; `connectors` says what differs from one CRM called crm."""

    def __init__(
        self,
        folder: Path,
        url: str,
        *,
        clock: ManualClock | None = None,
        network: type[Timeline] | None = None,
        types: ConnectorTypes | None = None,
        **tables: Any,
    ) -> None:
        self.folder = folder
        self.url = url
        self.clock = clock or ManualClock(NOON)
        self.wallet = self._wallet()
        (folder / "token").write_text("wallet-sandbox", encoding="utf-8")
        self.tables = tables
        self.types = types or {}
        self.network = (network or Timeline)(self.clock)
        self.crms: dict[str, MemoryCrm] = {}
        self.on_import: Callable[[], object] = lambda: None
        self.lines: Sequence[Mapping[str, Any]] = []
        self.reports: list[CycleReport] = []
        self.ground = GROUNDS.of(folder)
        self.database = Database.open(self.state)
        self.organization = self._open()

    @property
    def state(self) -> str:
        return self.ground.state

    @property
    def crm(self) -> MemoryCrm:
        return self.crms["crm"]

    @property
    def store(self) -> Any:
        return self.organization.store

    def _wallet(self, name: str = "acme") -> WalletSimulator:
        return WalletSimulator(
            organization_id=f"01JC{name}",
            brands={BRAND: ("card-1", "card-2"), "brand-2": ("card-1",)},
            clock=self.clock,
            knobs=WalletKnobs(),
            seed=1,
        )

    def begin_anew(self, name: str) -> None:
        """Go on with another organization, its own wallet and CRMs, in the same state file."""
        self.tables["name"] = name
        self.crms, self.wallet = {}, self._wallet(name)
        self.reopen()

    def reopen(self) -> None:
        """Open the organization again, as after a death outside of any transaction."""
        self.organization.close()
        self.organization = self._open()

    def _config(self) -> OrganizationConfig:
        tables = dict(self.tables)
        wallet = {
            "base_url": self.url,
            "token": {"file": str(self.folder / "token")},
            "brand_id": BRAND,
            "storecard": "card-1",
            **tables.pop("wallet", {}),
        }
        connectors = tables.pop("connectors", {"crm": {}})
        made = {
            name: {"type": name, "member": MEMBER_MAP, "write_back": WRITE_BACK, **table}
            for name, table in connectors.items()
        }
        return OrganizationConfig.model_validate(
            {
                "organization_id": self.wallet.organization_id,
                "name": "acme",
                "first_run": "import",
                "wallet": wallet,
                "connectors": made,
                **tables,
            }
        )

    def _open(self) -> Organization:
        config = self._config()
        for name, connector in config.connectors.items():
            if connector.type == name:
                self.crms.setdefault(name, MemoryCrm())
        types = {**self.types, **self.crms}
        return open_organization(config, self.database, types=types, network=self.network)

    def restart(self, **tables: Any) -> None:
        """End the process, if it has not died already, and start it again, with these tables changed."""
        self.close()
        for name, table in tables.items():
            replaced = not isinstance(table, dict) or name == "connectors"
            self.tables[name] = table if replaced else {**self.tables.get(name, {}), **table}
        self.database = Database.open(self.state)
        self.organization = self._open()

    def look(self, **tables: Any) -> None:
        """Open the state beside the process, as `status` does, with these tables changed."""
        config, self.tables = self.tables, {**self.tables, **tables}
        with Database.open_beside(self.state) as database:
            open_store(database, self._config())
        self.tables = config

    def close(self) -> None:
        self.organization.close()
        self.database.close()

    def wait(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def cycle(self, after: float = 60, **options: Any) -> CycleReport:
        """Run one cycle, `after` seconds later; its log lines are `lines`, every report is in `reports`."""
        self.wait(after)
        with capture_logs() as lines:
            self.lines = lines
            report = Cycle(self.organization, **options).run()
        self.reports.append(report)
        return report

    def calm(self) -> None:
        """Run cycles until whatever time can settle is settled."""
        self.cycle()
        for _ in range(6):
            self.cycle(SETTLED)
        self.cycle()

    def said(self, event: str) -> list[Mapping[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def awarded(self, email: str, brand: str = BRAND) -> int:
        return self.wallet.awarded(brand, email)

    def profile(self, email: str) -> dict[str, Any]:
        member = self.wallet.member(BRAND, email)
        return {} if member is None else member.profile

    def asks(self, request: tuple[str, str]) -> int:
        return self.wallet.requests[request]

    def fault(self, kind: Kind, request: tuple[str, str] = IMPORT, **more: Any) -> Fault:
        return self.wallet.faults.add(Fault(kind, request[0], request[1], **more))

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the wallet, telling `on_import` of an import before it is carried out."""
        if scope["path"] == IMPORT[1]:
            self.on_import()
        await self.wallet.app(scope, receive, send)

    def crash_import(self, when: str) -> None:
        """Let the process die with its next import: before the request leaves, or after it was answered."""
        client = self.organization.wallet._client
        send = client.send

        def die(*arguments: Any, **options: Any) -> None:
            if when == "after":
                send(*arguments, **options)
            raise Crash

        client.send = die  # type: ignore[method-assign,assignment]

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """Return what a reader beside the process sees in the state now."""
        return self.ground.rows(statement)

    def value(self, statement: str) -> Any:
        return self.rows(statement)[0][0]

    def contents(self) -> str:
        """Return everything in the state, to be compared."""
        return self.ground.contents()

    def quarantine(self) -> dict[str, tuple[str, str, str]]:
        listed = self.rows("SELECT record_id, side, field, reason FROM quarantine")
        return {row[0]: (row[1], row[2], row[3]) for row in listed}

    def release(self) -> list[str]:
        """Release everything that is held; returns the brakes."""
        held = [it for it in self.store.holds.open() if it.released_by is None]
        for it in held:
            assert self.store.holds.release(it.id, by="ann", now=self.clock.now())
        return [it.brake for it in held]

    def differences(self) -> list[Difference]:
        """Return where the books of this organization do not balance."""
        return list(self.store.audit.differences())

    def balanced(self) -> None:
        """Assert that the state's books are the wallet's own ledger, nothing being unsettled."""
        listed = """SELECT b.brand_id, m.email_key, m.credited, m.unsettled
            FROM member m JOIN brand b ON b.id = m.brand WHERE b.organization_id = """
        listed += str(self.store.reports._scope.organization_id)
        for brand, email, credited, unsettled in self.rows(listed):
            assert (credited, unsettled) == (self.wallet.awarded(brand, email), 0), email
