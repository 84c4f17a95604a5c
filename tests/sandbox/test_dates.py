"""Every simulator dates its answers by its own clock, those of its faults included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.hubspot import HubSpotSimulator
from syncsvc.sandbox.salesforce import SalesforceSimulator
from syncsvc.sandbox.server import Server
from syncsvc.sandbox.wallet import WalletSimulator

START = datetime(2031, 5, 6, 7, 8, 9, 700_000, tzinfo=UTC)

Simulator = HubSpotSimulator | SalesforceSimulator | WalletSimulator


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture(
    params=[
        lambda clock: HubSpotSimulator(clock=clock),
        lambda clock: SalesforceSimulator(clock=clock),
        lambda clock: WalletSimulator(brands=["brand-1"], clock=clock),
    ],
    ids=["hubspot", "salesforce", "wallet"],
)
def simulator(request: pytest.FixtureRequest, clock: ManualClock) -> Simulator:
    made: Callable[[ManualClock], Simulator] = request.param
    return made(clock)


@pytest.fixture
def http(simulator: Simulator) -> Iterator[httpx.Client]:
    with Server(simulator.app) as server, httpx.Client(base_url=server.url) as client:
        yield client


def dates(http: httpx.Client) -> list[str]:
    return http.get("/anything").headers.get_list("date")


def test_an_answer_tells_the_simulators_time_as_it_goes(http: httpx.Client, clock: ManualClock) -> None:
    assert dates(http) == ["Tue, 06 May 2031 07:08:09 GMT"]
    clock.advance(timedelta(seconds=1))
    assert dates(http) == ["Tue, 06 May 2031 07:08:10 GMT"]


@pytest.mark.parametrize("kind", [Kind.DELAY, Kind.STATUS, Kind.HTML, Kind.HTML_AFTER])
def test_a_faults_answer_tells_the_simulators_time(
    simulator: Simulator, http: httpx.Client, kind: Kind
) -> None:
    fault = simulator.faults.add(Fault(kind))
    assert dates(http) == ["Tue, 06 May 2031 07:08:09 GMT"]
    assert fault.struck == 1


def test_a_fault_may_tell_another_time(simulator: Simulator, http: httpx.Client) -> None:
    told = "Wed, 07 May 2031 00:00:00 GMT"
    simulator.faults.add(Fault(Kind.STATUS, headers={"Date": told}))
    assert dates(http) == [told]
