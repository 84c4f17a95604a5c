"""Salesforce's limits: the calls of 24 hours are shared, and left to the org's other apps in part."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from salesforce_maker import SalesforceMaker

from syncsvc.errors import TransientError
from syncsvc.sandbox.faults import Kind
from syncsvc.testing import Ground
from syncsvc.testing.reading import read, swept


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=True) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[SalesforceMaker]:
    maker = SalesforceMaker(ground, tmp_path)
    yield maker
    maker.close()


def test_every_answer_tells_what_is_left_of_the_day(crm: SalesforceMaker) -> None:
    crm.org.knobs.foreign_requests = 1000
    assert crm.network.allowance is None
    crm.connect().check()
    allowance = crm.network.allowance
    assert allowance is not None
    assert (allowance.allowed, allowance.left) == (100_000, 98_999)
    crm.org.knobs.app_usage = "per-app-api-usage=17/250(appName=x)"
    read(crm, swept(crm))  # a description, a look for deletions, and two queries
    assert crm.network.allowance is not None
    assert crm.network.allowance.left == 98_995


def test_reserve_that_is_reached_ends_the_work_and_asks_for_nothing_more(crm: SalesforceMaker) -> None:
    crm.people(3)
    connector = crm.connect(reserve=90_000)
    cursor = read(crm, None, connector).cursor
    crm.org.knobs.foreign_requests = 10_000
    read(crm, cursor, connector)  # its answer tells that no more than the reserve is left
    before = crm.network.requests
    for _ in range(14):
        with pytest.raises(TransientError, match=r"90000 are kept for its other apps \(reserve\)") as caught:
            read(crm, cursor, connector)
        assert 0 < (caught.value.retry_after or 0) <= 900
        crm.wait(timedelta(minutes=1))
    assert crm.network.requests == before


def test_calls_that_leave_the_24_hours_are_noticed(crm: SalesforceMaker) -> None:
    crm.org.knobs.daily_requests = 40
    connector = crm.connect(reserve="50%")
    for _ in range(20):
        connector.check()
    with pytest.raises(TransientError, match="reserve"):
        connector.check()
    crm.wait(timedelta(hours=23))
    connector.check()  # one looks, and learns that nothing has changed
    with pytest.raises(TransientError, match="reserve"):
        connector.check()
    crm.wait(timedelta(hours=1))
    for _ in range(3):
        assert connector.check() == []


@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_day_that_is_used_up_is_not_asked_of_again_for_a_while(crm: SalesforceMaker, *, told: bool) -> None:
    crm.org.knobs.usage_on_refusals = told
    connector = crm.connect(reserve=0)
    connector.check()
    crm.org.knobs.foreign_requests = 100_000
    with pytest.raises(TransientError, match="daily API limit is used up") as caught:
        connector.check()
    assert caught.value.retry_after == 900
    before = crm.network.requests
    for _ in range(14):
        with pytest.raises(TransientError, match=r"used up|reserve"):
            connector.check()
        crm.wait(timedelta(minutes=1))
    assert crm.network.requests == before
    crm.org.knobs.foreign_requests = 0
    crm.wait(timedelta(minutes=1))
    assert connector.check() == []


def test_too_many_calls_at_once_are_waited_out_and_are_no_end_of_the_day(crm: SalesforceMaker) -> None:
    connector = crm.connect()
    connector.check()
    crm.org.knobs.running_elsewhere = 25
    with pytest.raises(TransientError, match="too many calls at once") as caught:
        connector.check()
    assert caught.value.retry_after is None
    assert 1 < sum(crm.network.waits) < 30
    crm.org.knobs.running_elsewhere = 0
    assert connector.check() == []


def test_answers_that_tell_nothing_of_the_day_keep_nothing_back(crm: SalesforceMaker) -> None:
    described = {"queryable": True, "updateable": True, "fields": []}
    crm.strike(Kind.STATUS, "describe", status=200, body=described, times=None)
    connector = crm.connect(reserve="100%")
    connector.check()
    connector.check()
    assert crm.network.allowance is None
