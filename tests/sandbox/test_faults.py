"""The fault plan strikes exactly the requests it names, and each fault does what it says on a real wire."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.faults import Fault, FaultPlan, FaultyApp, Kind
from syncsvc.sandbox.server import Server

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


class Shop:
    """An application that counts what it carried out, behind a fault plan."""

    def __init__(self) -> None:
        self.plan = FaultPlan(seed=7)
        self.carried_out: list[str] = []
        self.bought = threading.Event()
        routes = [Route("/long", self._long), Route("/{rest:path}", self._buy, methods=["GET", "POST"])]
        self.app = FaultyApp(Starlette(routes=routes), self.plan, clock=ManualClock(NOW))

    async def _buy(self, request: Request) -> Response:
        await request.body()
        self.carried_out.append(request.url.path)
        self.bought.set()
        return JSONResponse({"bought": "x" * 100})

    async def _long(self, request: Request) -> Response:
        self.carried_out.append(request.url.path)

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b"x" * 1000

        return StreamingResponse(pieces())


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def client(shop: Shop) -> Iterator[httpx.Client]:
    with Server(shop.app) as server, httpx.Client(base_url=server.url, timeout=5, trust_env=False) as client:
        yield client


def picks(plan: FaultPlan, requests: list[tuple[str, str]]) -> list[Kind | None]:
    struck = [plan.pick(*request) for request in requests]
    return [None if fault is None else fault.kind for fault in struck]


# Which requests a fault strikes.


def test_without_faults_nothing_is_struck() -> None:
    assert FaultPlan().pick("GET", "/") is None


def test_a_fault_strikes_by_method_and_by_a_pattern_of_the_path() -> None:
    plan = FaultPlan()
    plan.add(Fault(Kind.HTML, "POST", r"^/v2/import$", times=None))
    asked = [("POST", "/v2/import"), ("GET", "/v2/import"), ("POST", "/v2/imports"), ("POST", "/v2/import")]
    assert picks(plan, asked) == [Kind.HTML, None, None, Kind.HTML]


def test_a_fault_without_method_and_path_strikes_everything_once() -> None:
    plan = FaultPlan()
    fault = plan.add(Fault(Kind.HTML))
    assert picks(plan, [("GET", "/a"), ("POST", "/b")]) == [Kind.HTML, None]
    assert fault.struck == 1


def test_a_fault_lets_some_pass_and_strikes_some() -> None:
    plan = FaultPlan()
    fault = plan.add(Fault(Kind.HTML, path="/a", skip=2, times=3))
    asked = [("GET", "/a"), ("GET", "/b")] * 8
    assert picks(plan, asked)[::2] == [None, None, Kind.HTML, Kind.HTML, Kind.HTML, None, None, None]
    assert fault.struck == 3


def test_the_first_fault_that_fits_strikes_and_the_next_takes_over() -> None:
    plan = FaultPlan()
    plan.add(Fault(Kind.HTML))
    plan.add(Fault(Kind.DELAY))
    assert picks(plan, [("GET", "/")] * 3) == [Kind.HTML, Kind.DELAY, None]


def test_chance_is_decided_by_the_seed() -> None:
    def struck(seed: int, chance: float) -> list[bool]:
        plan = FaultPlan(seed=seed)
        plan.add(Fault(Kind.HTML, times=None, chance=chance))
        return [plan.pick("GET", "/") is not None for _ in range(200)]

    assert struck(1, 0.3) == struck(1, 0.3) != struck(2, 0.3)
    assert 30 < sum(struck(1, 0.3)) < 90
    assert not any(struck(1, 0.0))
    assert all(struck(1, 1.0))


def test_a_cleared_plan_lets_everything_pass() -> None:
    plan = FaultPlan()
    plan.add(Fault(Kind.HTML, times=None))
    plan.clear()
    assert plan.pick("GET", "/") is None


def test_many_threads_are_struck_no_more_often_than_planned() -> None:
    plan = FaultPlan()
    fault = plan.add(Fault(Kind.HTML, skip=50, times=100))
    seen: list[Fault | None] = []
    threads = [
        threading.Thread(target=lambda: seen.extend([plan.pick("GET", "/") for _ in range(200)]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert fault.struck == sum(it is not None for it in seen) == 100


# What each does on the wire.


def test_a_status_is_answered_and_nothing_is_carried_out(shop: Shop, client: httpx.Client) -> None:
    shop.plan.add(Fault(Kind.STATUS, status=429, body={"message": "slow"}, headers={"Retry-After": "7"}))
    answer = client.post("/buy", json={})
    assert (answer.status_code, answer.json()) == (429, {"message": "slow"})
    assert answer.headers["retry-after"] == "7"
    assert shop.carried_out == []
    assert client.post("/buy", json={}).status_code == 200


def test_a_fault_can_answer_another_kind_of_content(shop: Shop, client: httpx.Client) -> None:
    shop.plan.add(Fault(Kind.STATUS, status=200, body=b"--r--", headers={"Content-Type": "multipart/mixed"}))
    assert client.post("/buy", json={}).headers.get_list("content-type") == ["multipart/mixed"]


@pytest.mark.parametrize(("body", "sent"), [(None, b""), (b"raw", b"raw"), ([1], b"[1]"), ("t", b'"t"')])
def test_a_status_may_bring_any_body(shop: Shop, client: httpx.Client, body: Any, sent: bytes) -> None:
    shop.plan.add(Fault(Kind.STATUS, body=body))
    answer = client.get("/")
    assert (answer.status_code, answer.content) == (503, sent)


@pytest.mark.parametrize(("kind", "carried_out"), [(Kind.HTML, []), (Kind.HTML_AFTER, ["/buy"])])
def test_a_gateways_page_looks_the_same_whether_or_not_the_request_was_carried_out(
    shop: Shop, client: httpx.Client, kind: Kind, carried_out: list[str]
) -> None:
    shop.plan.add(Fault(kind, status=502))
    answer = client.post("/buy", json={})
    assert (answer.status_code, answer.headers["content-type"]) == (502, "text/html")
    assert b"<html>" in answer.content
    assert shop.carried_out == carried_out


@pytest.mark.parametrize(("kind", "carried_out"), [(Kind.RESET_BEFORE, []), (Kind.RESET_AFTER, ["/buy"])])
def test_a_reset_looks_the_same_whether_or_not_the_request_was_carried_out(
    shop: Shop, client: httpx.Client, kind: Kind, carried_out: list[str]
) -> None:
    shop.plan.add(Fault(kind))
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        client.post("/buy", json={})
    assert shop.carried_out == carried_out
    assert client.post("/buy", json={}).status_code == 200


@pytest.mark.parametrize("path", ["/buy", "/long"])
def test_a_cut_body_brings_the_head_and_less_than_it_promised(
    shop: Shop, client: httpx.Client, path: str
) -> None:
    shop.plan.add(Fault(Kind.CUT_BODY))
    with client.stream("GET", path) as answer:
        assert answer.status_code == 200
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            answer.read()
    assert shop.carried_out == [path]
    assert client.get(path).status_code == 200


def test_a_delay_waits_and_then_goes_on_as_usual(shop: Shop, client: httpx.Client) -> None:
    shop.plan.add(Fault(Kind.DELAY, seconds=0.2))
    begun = time.monotonic()
    assert client.post("/buy", json={}).status_code == 200
    assert time.monotonic() - begun >= 0.2
    assert shop.carried_out == ["/buy"]


def test_a_client_that_gives_up_during_a_delay_has_still_bought(shop: Shop, client: httpx.Client) -> None:
    shop.plan.add(Fault(Kind.DELAY, seconds=0.3))
    with pytest.raises(httpx.ReadTimeout):
        client.post("/buy", json={}, timeout=0.1)
    assert shop.bought.wait(5)
    assert shop.carried_out == ["/buy"]


@pytest.mark.parametrize("kind", [None, Kind.STATUS, Kind.HTML, Kind.HTML_AFTER, Kind.DELAY])
def test_every_answer_is_dated_by_the_simulators_clock(
    shop: Shop, client: httpx.Client, kind: Kind | None
) -> None:
    if kind is not None:
        shop.plan.add(Fault(kind))
    answer = client.get("/buy")
    assert [parsedate_to_datetime(told) for told in answer.headers.get_list("date")] == [NOW]
