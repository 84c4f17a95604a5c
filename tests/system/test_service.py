from __future__ import annotations

import json
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from operator import lt
from pathlib import Path

import pytest
from town import DEADLINE, Gateway, Service, command, settled, until

from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.world import World
from syncsvc.timetable import AT_ONCE, first_run

IMPORT = ("POST", "/v2/import")


@pytest.fixture
def config(world: World) -> Path:
    return world.write_organization(every="200ms", settle_after="1s", listen="127.0.0.1:0")


@pytest.fixture
def mute() -> Iterator[str]:
    """A server that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_the_service_delivers_watches_and_stops_and_commands_work_beside_it(
    world: World, config: Path, tmp_path: Path
) -> None:
    with Service(config, tmp_path) as service:
        until("the first delivery", lambda: settled(world))
        world.edit(2)
        until("the edits", lambda: settled(world))
        service.wait_for("cycle_finished", 2, outcome="ok", rows_sent=0)

        assert service.get("/healthz")[0] == 200
        ready, facts = service.get("/readyz")
        assert (ready, json.loads(facts)["acme"]["outcome"]) == (200, "ok")
        metrics = service.get("/metrics")[1]
        assert 'syncsvc_cycles_total{organization="acme",outcome="ok"}' in metrics
        assert 'syncsvc_contacts_read_total{connector="crm",organization="acme"}' in metrics

        second = command("-c", config, "once")
        assert (second.code, f"in use by process {service.pid}" in second.err) == (75, True)
        assert command("-c", config, "run").code == 75

        person = next(world.hubspot_people())
        assert command("-c", config, "status").code == 0
        assert "is up to date: " in command("-c", config, "explain", person.email).out
        assert command("-c", config, "release").out == "acme: nothing is held\n"
        (plan,) = command("-c", config, "plan", "--json").json()
        assert plan["totals"]["points"] == 0

        assert service.stop() == 0
        assert service.events("service_stopped")
        assert not service.events("cycle_failed")
    assert settled(world)


def test_a_hold_is_released_beside_the_running_service(world: World, config: Path, tmp_path: Path) -> None:
    text = config.read_text(encoding="utf-8").replace("[brakes]", "[brakes]\nmax_points_per_cycle = 1000")
    config.write_text(text, encoding="utf-8")
    with Service(config, tmp_path) as service:
        service.wait_for("brake_tripped")
        (hold,) = command("-c", config, "release", "--json").json()["acme"]
        assert world.wallet.ledger == []  # profiles flow, points do not
        assert command("-c", config, "release", hold["id"], "--yes").code == 0
        until("the delivery", lambda: settled(world))
        assert service.stop() == 0


def test_sweep_beside_the_running_service_lets_its_next_cycle_read_everything(
    world: World, config: Path, tmp_path: Path
) -> None:
    def swept() -> list[str]:
        status = command("-c", config, "status", "--json").json()["acme"]["status"]
        return [it["swept_at"] for it in status["connectors"]]

    with Service(config, tmp_path) as service:
        until("the delivery", lambda: settled(world))
        first = swept()
        asked = command("-c", config, "sweep", "--json")
        assert asked.code == 0
        assert asked.json() == {"asked": ["acme"], "of": [f"process {service.pid}"]}
        until("the sweep", lambda: all(map(lt, first, swept())))
        assert "acme: its next cycle reads every contact again" in command("-c", config, "sweep").out
        assert service.stop() == 0


def test_sigterm_amid_a_delivery_waits_for_its_answer_and_exits_0(
    world: World, config: Path, tmp_path: Path
) -> None:
    slow = world.wallet.faults.add(Fault(Kind.DELAY, *IMPORT, seconds=1.5))
    with Service(config, tmp_path) as service:
        until("the import", lambda: slow.struck)
        assert service.stop() == 0
        assert service.events("cycle_finished")[-1]["outcome"] == "stopped"
    assert len(world.wallet.imports) == 1
    answer = command("-c", config, "once", "--json")
    assert (answer.code, answer.json()[0]["in_doubt"]) == (0, 0)
    assert settled(world)
    assert len(world.wallet.imports) == 1


def test_a_delivery_longer_than_the_grace_is_left_in_doubt_and_settled_later(
    world: World, config: Path, tmp_path: Path
) -> None:
    # The wallet applies the import though nobody waits for it any more: within `settle_after`, as promised.
    config.write_text(
        config.read_text("utf-8").replace('settle_after = "1s"', 'settle_after = "8s"'), "utf-8"
    )
    slow = world.wallet.faults.add(Fault(Kind.DELAY, *IMPORT, seconds=3))
    with Service(config, tmp_path, grace=0.3) as service:
        until("the import", lambda: slow.struck)
        assert service.stop() == 0
        assert service.events("service_stopped_hard")
    with Service(config, tmp_path) as service:
        service.wait_for("batches_were_abandoned")
        until("the settlement", lambda: settled(world) and service.events("cycle_finished", in_doubt=0))
        assert service.stop() == 0


@pytest.mark.parametrize("carried_out", [True, False])
def test_kill_9_amid_the_first_delivery_loses_no_point_and_pays_none_twice(
    world: World, config: Path, tmp_path: Path, *, carried_out: bool
) -> None:
    with Gateway(world.wallet_url, number=3, carried_out=carried_out) as gateway:
        text = config.read_text(encoding="utf-8").replace(world.wallet_url, gateway.url)
        config.write_text(text.replace("[wallet]", "[wallet]\nbatch_size = 8"), encoding="utf-8")
        with Service(config, tmp_path) as service:
            assert gateway.struck.wait(DEADLINE)
            assert service.stop(signal.SIGKILL) == -signal.SIGKILL
        assert len(world.wallet.imports) == (3 if carried_out else 2)
        with Service(config, tmp_path) as service:
            until("the delivery", lambda: settled(world) and service.events("cycle_finished", in_doubt=0))
            assert service.events("batches_were_abandoned", rows=8)
            assert service.stop() == 0
    paid = Counter[str]()
    for award in world.wallet.ledger:
        paid[award.email] += award.points
    assert paid == {key: it.expected for key, it in world.balances().items() if it.expected}
    assert max(Counter(award.email for award in world.wallet.ledger).values()) == 1


def test_an_organization_that_fails_or_hangs_delays_no_other(
    world: World, config: Path, tmp_path: Path, mute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BAD_TOKEN", "pat-na1-revoked-0000-0000")
    folder = tmp_path / "organizations"
    folder.mkdir()
    whole = config.read_text(encoding="utf-8")
    service_table = whole[whole.index("[service]") : whole.index("[schedule]")]
    (folder / "service.toml").write_text(service_table, encoding="utf-8")
    good = whole.replace(service_table, "")
    identity = world.wallet.organization_id
    hangs = good.replace(identity, "hangs").replace(world.hubspot_url, mute)
    hangs = hangs.replace(world.salesforce_url, mute.replace("http:", "https:"))
    refused = good.replace(identity, "refused").replace("HUBSPOT_TOKEN", "BAD_TOKEN")
    for name, text in (("good", good), ("hangs", hangs), ("refused", refused)):
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    with Service(folder, tmp_path, grace=0.5) as service:
        service.wait_for("cycle_finished", 10, organization="good", outcome="ok")
        until("the delivery", lambda: settled(world))
        assert not service.events("cycle_finished", organization="hangs")
        assert service.wait_for("connector_unreadable", organization="refused")[0]["connector"] == "marketing"
        ready, facts = service.get("/readyz")
        organizations = json.loads(facts)
        assert (ready, organizations["good"]["ready"], organizations["hangs"]["ready"]) == (503, True, False)
        cycles = service.events("cycle_finished", organization="good")
        assert max(it["duration"] for it in cycles[2:]) < 5
        assert service.stop() == 0


def test_first_cycles_begin_at_once_where_there_are_few_and_spread_where_there_are_many() -> None:
    now, minute = datetime(2026, 11, 1, tzinfo=UTC), timedelta(minutes=1)
    assert first_run("a", timedelta(days=1), now=now, count=AT_ONCE) == now
    names = [f"organization-{number}" for number in range(100)]
    for every in (timedelta(days=1), timedelta(seconds=30)):
        begin = [first_run(name, every, now=now, count=len(names)) - now for name in names]
        assert begin == [first_run(name, every, now=now, count=len(names)) - now for name in names]
        assert timedelta() <= min(begin)
        assert max(begin) < min(every, minute)
        tenths = Counter(it // (min(every, minute) / 10) for it in begin)
        assert max(tenths.values()) < 25


def test_ctrl_c_ends_once_at_a_safe_point(world: World, config: Path, tmp_path: Path) -> None:
    slow = world.wallet.faults.add(Fault(Kind.DELAY, *IMPORT, seconds=1))
    with Service(config, tmp_path, name="once") as service:
        until("the import", lambda: slow.struck)
        assert service.stop(signal.SIGINT) == 75
        assert service.events("cycle_finished")[-1]["outcome"] == "stopped"
    assert command("-c", config, "status").code == 0, "nothing is in doubt"


def test_an_address_in_use_is_a_problem_of_the_configuration(world: World, config: Path, mute: str) -> None:
    taken = mute.removeprefix("http://")
    text = config.read_text(encoding="utf-8").replace('listen = "127.0.0.1:0"', f'listen = "{taken}"')
    config.write_text(text, encoding="utf-8")
    answer = command("-c", config, "run")
    assert (answer.code, "service.listen" in answer.err) == (78, True)
    assert not sum(world.wallet.requests.values())
