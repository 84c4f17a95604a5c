"""The engine with a real CRM's connector: HubSpot, simulated, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from enginelab import IMPORT, NOON, Lab

from connectors.hubspot import HubSpot, HubSpotSettings
from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.hubspot import HubSpotSimulator
from syncsvc.sandbox.server import Server
from syncsvc.settings import Secret
from syncsvc.watch.report import Outcome

CONTACTS = 230
A = "m0@example.org"


class Hub:
    """An account with contacts that were there days ago, and a lab that reads it."""

    def __init__(self, crm: HubSpotSimulator, lab: Lab) -> None:
        self.crm = crm
        self.lab = lab
        seeded = (
            {"email": f"m{n}@example.org", "firstname": "Ada", "loyalty_points": n} for n in range(CONTACTS)
        )
        self.ids = crm.create_many(seeded, at=NOON - timedelta(days=2))

    def whole(self) -> None:
        assert self.lab.wallet.total_awarded() == sum(range(CONTACTS))
        self.lab.balanced()


@pytest.fixture
def hub(open_lab: Callable[..., Lab], tmp_path: Path) -> Iterator[Hub]:
    clock = ManualClock(NOON)
    crm = HubSpotSimulator(clock=clock, seed=1)
    crm.define("loyalty_points", "number", "number")
    crm.define("wallet_last_updated", "datetime", "date")
    crm.define("wallet_status", "string", "text")
    token = tmp_path / "hubspot-token"
    token.write_text("pat-sandbox", encoding="utf-8")
    with Server(crm.app) as server:
        settings = HubSpotSettings(token=Secret(file=token), base_url=server.url)
        table = {
            "type": "hubspot",
            "member": {"email": "{email}", "name": "{firstname}", "points": "{loyalty_points}"},
            "write_back": {"last_updated": "wallet_last_updated", "status": "wallet_status"},
            "settings": settings,
        }
        yield Hub(crm, open_lab(clock=clock, types={"hubspot": HubSpot}, connectors={"hub": table}))


def test_an_account_is_imported_written_back_and_then_left_in_peace(hub: Hub) -> None:
    report = hub.lab.cycle()
    assert (report.outcome, report.written_back) == (Outcome.OK, CONTACTS)
    hub.whole()
    assert hub.crm.contact(hub.ids[0])["wallet_status"] == "imported"
    for _ in range(12):
        hub.lab.cycle(after=120)
    imports, writes = hub.lab.asks(IMPORT), len(hub.crm.writes)
    report = hub.lab.cycle()
    assert (hub.lab.asks(IMPORT), len(hub.crm.writes)) == (imports, writes)
    assert (report.read, report.connectors["hub"].requests) == (0, 1)
    assert imports == 2


def test_edits_merges_and_deletes_arrive_once(hub: Hub) -> None:
    hub.lab.cycle()
    hub.lab.cycle()
    hub.crm.update(hub.ids[0], {"loyalty_points": 50, "firstname": "Eve"})
    merged = hub.crm.merge(hub.ids[10], hub.ids[20])
    hub.crm.archive(hub.ids[30])
    for _ in range(8):
        hub.lab.cycle(after=120)
    hub.lab.cycle(full=True)
    assert (hub.lab.awarded(A), hub.lab.profile(A)["name"]) == (50, "Eve")
    assert hub.lab.wallet.total_awarded() == sum(range(CONTACTS)) + 50
    gone = {row[0] for row in hub.lab.rows("SELECT record_id FROM contact WHERE state = 3")}
    assert gone == {hub.ids[10], hub.ids[20], hub.ids[30]} - {merged}


@pytest.mark.parametrize("kind", [Kind.STATUS, Kind.RESET_AFTER, Kind.CUT_BODY])
def test_an_account_that_fails_at_every_third_request_is_read_whole(hub: Hub, kind: Kind) -> None:
    for skip in range(2, 40, 3):
        hub.crm.faults.add(Fault(kind, skip=skip, status=503))
    for _ in range(8):
        hub.lab.cycle()
    hub.whole()
    assert {it.get("wallet_status") for _, it in hub.crm.contacts()} == {"imported"}


def test_calls_that_are_left_are_known_to_an_operator_and_cost_no_write_when_idle(hub: Hub) -> None:
    hub.lab.cycle()
    for _ in range(12):
        hub.lab.cycle(after=120)
    (status,) = hub.lab.store.reports.status().connectors
    assert (status.calls_allowed, status.calls_left) == (625_000, 625_000 - 8)
    before = hub.lab.contents()
    assert hub.lab.cycle().connectors["hub"].calls_left == 625_000 - sum(hub.crm.requests.values())
    assert hub.lab.contents() == before
    hub.crm.knobs.foreign_daily = 600_000  # above 95 %: the rest is left to the other apps
    assert hub.lab.cycle().outcome is Outcome.OK
    report = hub.lab.cycle()
    assert (report.outcome, report.connectors["hub"].requests) == (Outcome.TRANSIENT, 0)
    assert "(reserve)" in report.errors[0]
    (status,) = hub.lab.store.reports.status().connectors
    assert (status.calls_left or 0) < 25_000


def test_write_backs_that_come_home_are_counted_as_echoes(hub: Hub) -> None:
    hub.lab.cycle()
    assert sum(hub.lab.cycle(after=120).echoes for _ in range(8)) == CONTACTS
    assert hub.lab.asks(IMPORT) == 2


def test_points_of_merged_contacts_follow_them_to_their_new_record(hub: Hub) -> None:
    hub.lab.cycle()
    hub.lab.cycle()
    merged = hub.crm.merge(hub.ids[10], hub.ids[20])  # m10 with 10 points, and m20 with 20
    hub.crm.update(merged, {"loyalty_points": 30})
    for _ in range(8):
        hub.lab.cycle(after=120)
    # What both were awarded counts for the one that lives on: its 30 points are no news.
    assert hub.lab.wallet.total_awarded() == sum(range(CONTACTS))
    hub.crm.update(merged, {"loyalty_points": 37})
    for _ in range(8):
        hub.lab.cycle(after=120)
    assert hub.lab.wallet.total_awarded() == sum(range(CONTACTS)) + 7
    assert hub.crm.contact(merged)["wallet_status"] == "imported"


@pytest.mark.parametrize("swept", [False, True], ids=["polled", "swept"])
def test_too_many_that_were_archived_are_held_as_members_that_leave(hub: Hub, *, swept: bool) -> None:
    hub.lab.restart(policy={"on_gone": "expire"})
    hub.lab.cycle()
    for record_id in hub.ids[:20]:
        hub.crm.archive(record_id)
    if swept:
        hub.lab.cycle(after=650, full=True)
    else:
        hub.lab.cycle(after=2100)
        hub.lab.cycle(after=2100)
    # The bin vouches for them: the sweep misses nobody, and its own brake has nothing to hold.
    held = [it.brake for it in hub.lab.store.holds.open()]
    gone = hub.lab.value("SELECT count(*) FROM contact WHERE state = 3")
    assert (held, gone) == (["max_gone_share"], 20)
    assert "expires_at" not in hub.lab.profile(A)
    hub.crm.restore(hub.ids[0])
    hub.crm.update(hub.ids[0], {"firstname": "Eve"})
    hub.lab.release()
    hub.lab.cycle()
    today = f"{hub.lab.clock.now():%Y-%m-%d}"
    assert hub.lab.profile(A)["expires_at"] > today
    assert hub.lab.profile("m1@example.org")["expires_at"] == today
    hub.whole()


def test_idle_hours_write_nothing_but_that_deletions_were_looked_for(hub: Hub) -> None:
    hub.lab.cycle()
    for _ in range(4):
        hub.lab.cycle(after=1230)
    requests, cursors = [], set()
    for _ in range(9):  # three hours
        report = hub.lab.cycle(after=1230)
        requests.append(report.connectors["hub"].requests)
        cursors.add(hub.lab.value("SELECT cursor FROM connector"))
    assert sorted(requests) == [1] * 6 + [2] * 3
    assert len(cursors) in {3, 4}
    hub.lab.reopen()
    assert hub.lab.cycle().connectors["hub"].requests == 1
