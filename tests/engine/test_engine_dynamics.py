"""The engine with a CRM that hands out links instead of times: Dynamics 365, simulated, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from enginelab import IMPORT, NOON, Lab

from connectors.dynamics import Dynamics, DynamicsSettings
from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.dynamics import DynamicsKnobs, DynamicsSimulator
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.server import Server
from syncsvc.watch.report import Outcome

CONTACTS = 60
DAY = 24 * 60 * 60


class Environment:
    """An environment whose contacts were there days ago, and a lab that reads it."""

    def __init__(self, crm: DynamicsSimulator, lab: Lab) -> None:
        self.crm = crm
        self.lab = lab
        self.ids = crm.create_many(
            {"emailaddress1": f"m{n}@example.org", "firstname": "Ada", "acme_points": n}
            for n in range(CONTACTS)
        )
        lab.clock.advance(timedelta(days=2))

    def settled(self) -> None:
        for _ in range(10):
            self.lab.cycle(after=120)

    def whole(self) -> None:
        assert self.lab.wallet.total_awarded() == sum(range(CONTACTS))
        self.lab.balanced()


@pytest.fixture
def env(open_lab: Callable[..., Lab], tmp_path: Path) -> Iterator[Environment]:
    clock = ManualClock(NOON)
    knobs = DynamicsKnobs(by_version=False, ghosts=True)
    crm = DynamicsSimulator(clock=clock, seed=1, knobs=knobs)
    crm.define("acme_points", "Integer")
    crm.define("acme_at", "DateTime")
    crm.define("acme_status", length=255)
    (tmp_path / "id").write_text("11111111-2222-3333-4444-555555555555", encoding="utf-8")
    (tmp_path / "secret").write_text("sandbox-secret", encoding="utf-8")
    with Server(crm.app) as server:
        auth = {"tenant": "sandbox.example", "authority": server.url}
        auth |= {f"client_{name}": {"file": tmp_path / name} for name in ("id", "secret")}
        settings = DynamicsSettings.model_validate({"url": server.url, "auth": auth, "page_size": 25})
        table = {
            "type": "dynamics",
            "member": {"email": "{emailaddress1}", "name": "{firstname}", "points": "{acme_points}"},
            "write_back": {"last_updated": "acme_at", "status": "acme_status"},
            "settings": settings,
        }
        types = {"dynamics": Dynamics}
        yield Environment(crm, open_lab(clock=clock, types=types, connectors={"crm": table}))


def test_contacts_are_imported_written_back_and_then_left_in_peace(env: Environment) -> None:
    report = env.lab.cycle()
    assert (report.outcome, report.written_back) == (Outcome.OK, CONTACTS)
    env.whole()
    assert env.crm.contact(env.ids[0])["acme_status"] == "imported"
    assert sum(env.lab.cycle(after=120).echoes for _ in range(12)) == CONTACTS
    imports, writes, state = env.lab.asks(IMPORT), len(env.crm.writes), env.lab.contents()
    report = env.lab.cycle()
    assert (env.lab.asks(IMPORT), len(env.crm.writes), env.lab.contents()) == (imports, writes, state)
    assert (report.read, report.connectors["crm"].requests) == (0, 1)


def test_points_of_what_is_edited_merged_deactivated_and_deleted_arrive_once(env: Environment) -> None:
    env.lab.cycle()
    env.settled()
    env.crm.update(env.ids[0], {"acme_points": 50, "firstname": "Eve"})
    env.crm.merge(env.ids[10], env.ids[20])
    env.crm.deactivate(env.ids[30])
    env.crm.delete(env.ids[40])
    env.settled()
    email = "m0@example.org"
    assert (env.lab.awarded(email), env.lab.profile(email)["name"]) == (50, "Eve")
    gone = {row[0] for row in env.lab.rows("SELECT record_id FROM contact WHERE state = 3")}
    assert gone == {env.ids[20], env.ids[30], env.ids[40]}
    env.crm.activate(env.ids[30])
    env.crm.restore(env.ids[40])
    env.settled()
    env.lab.cycle(full=True)
    assert env.lab.wallet.total_awarded() == sum(range(CONTACTS)) + 50
    gone = {row[0] for row in env.lab.rows("SELECT record_id FROM contact WHERE state = 3")}
    assert gone == {env.ids[20]}


@pytest.mark.parametrize("kind", [Kind.RESET_AFTER, Kind.CUT_BODY])
def test_environment_that_fails_at_every_third_request_is_read_whole(env: Environment, kind: Kind) -> None:
    for skip in range(2, 30, 3):
        env.crm.faults.add(Fault(kind, skip=skip))
    for _ in range(8):
        env.lab.cycle()
    env.whole()
    assert {it["acme_status"] for it in env.crm.contacts()} == {"imported"}


def test_service_that_was_off_for_longer_than_links_live_sweeps_and_awards_what_is_new(
    env: Environment,
) -> None:
    env.lab.cycle()
    env.settled()
    env.crm.update(env.ids[0], {"acme_points": 50})
    env.crm.delete(env.ids[40])
    sweeps = env.lab.rows("SELECT sweep FROM connector")
    for _ in range(3):
        env.lab.cycle(after=5 * DAY)
    assert env.lab.rows("SELECT sweep FROM connector") > sweeps
    assert env.lab.wallet.total_awarded() == sum(range(CONTACTS)) + 50
    assert env.lab.rows("SELECT record_id FROM contact WHERE state = 3") == [(env.ids[40],)]
