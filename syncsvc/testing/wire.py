"""The wire: everything that can go wrong between the connector and its CRM."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from syncsvc.errors import CredentialsError, SyncError, TransientError
from syncsvc.model import Written
from syncsvc.remote.connector import Connector
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.testing.maker import Feature, Maker, needing
from syncsvc.testing.reading import read
from syncsvc.testing.writing import write, written
from syncsvc.watch.log import QUIET

MOST_REQUESTS = 40
"""A bound on the requests of one call that fails for ever: it must end, and not after hundreds."""

Work = Callable[[Maker, Connector, str, list[str]], Any]
WORKS: dict[str, Work] = {
    "check": lambda _, connector, __, ___: connector.check(),
    "sweep": lambda _, connector, __, ___: list(connector.changes(None)),
    "poll": lambda _, connector, cursor, __: list(connector.changes(cursor)),
    "write_back": lambda crm, connector, _, made: list(
        connector.write_back([written(crm, one) for one in made])
    ),
}
PASSING = {
    "500": Fault(Kind.STATUS, status=500),
    "502": Fault(Kind.HTML, status=502),
    "503": Fault(Kind.STATUS, status=503, body={"message": "zebra@example.org"}),
    "504": Fault(Kind.HTML, status=504),
    "html": Fault(Kind.HTML, status=200),
    "html-after": Fault(Kind.HTML_AFTER, status=502),
    "half": Fault(Kind.CUT_BODY),
    "reset": Fault(Kind.RESET_BEFORE),
    "reset-after": Fault(Kind.RESET_AFTER),
}

working = pytest.mark.parametrize("work", WORKS.values(), ids=WORKS)


def copied(fault: Fault, **more: Any) -> Fault:
    """Return a fault of one's own, since a plan counts in it."""
    return replace(fault, struck=0, **more)


def ready(crm: Maker) -> tuple[Connector, str, list[str]]:
    """Return a connector that has spoken to its CRM, a cursor, and contacts that have changed since."""
    connector = crm.connect()
    cursor = read(crm, None, connector).cursor
    made = crm.people(3, note="zebra")
    read(crm, cursor, connector)
    return connector, cursor, made


class WireTests:
    """Tests of connectors that speak HTTP."""

    @needing(Feature.WIRE)
    @working
    @pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
    def test_trouble_that_passes_is_waited_out(self, crm: Maker, work: Work, fault: Fault) -> None:
        connector, cursor, made = ready(crm)
        struck = crm.faults.add(copied(fault))
        work(crm, connector, cursor, made)
        assert struck.struck == 1
        assert read(crm, cursor).live == set(made)

    @needing(Feature.WIRE)
    @working
    @pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
    def test_trouble_that_lasts_ends_the_call_as_transient(
        self, crm: Maker, work: Work, fault: Fault
    ) -> None:
        connector, cursor, made = ready(crm)
        crm.faults.add(copied(fault, times=None))
        before = crm.network.requests
        with pytest.raises(TransientError):
            work(crm, connector, cursor, made)
        assert crm.network.requests - before <= MOST_REQUESTS

    @needing(Feature.WIRE)
    @working
    def test_every_call_has_a_timeout(self, crm: Maker, work: Work) -> None:
        _, cursor, made = ready(crm)
        crm.strike(Kind.DELAY, crm.calls, seconds=60, times=None)
        with pytest.raises(TransientError):
            work(crm, crm.connect(timeout="150ms"), cursor, made)

    @needing(Feature.WIRE)
    def test_write_back_whose_answer_was_lost_is_accounted_for(self, crm: Maker) -> None:
        made = crm.people(3)
        crm.connect().check()
        crm.strike(Kind.RESET_AFTER)
        outcomes = write(crm, [written(crm, one) for one in made])
        assert [one.result for one in outcomes] == [Written.WRITTEN] * 3

    @needing(Feature.WIRE)
    @working
    def test_token_past_its_time_is_renewed_once(self, crm: Maker, work: Work) -> None:
        connector, cursor, made = ready(crm)
        struck = crm.faults.add(crm.unauthorized())
        work(crm, connector, cursor, made)
        assert struck.struck == 1

    @needing(Feature.WIRE)
    @working
    def test_token_refused_for_ever_needs_a_person_after_few_requests(self, crm: Maker, work: Work) -> None:
        connector, cursor, made = ready(crm)
        crm.faults.add(copied(crm.unauthorized(), times=None))
        before = crm.network.requests
        with pytest.raises(CredentialsError):
            work(crm, connector, cursor, made)
        assert crm.network.requests - before <= 6

    @needing(Feature.WIRE)
    @working
    def test_missing_right_needs_a_person_after_few_requests(self, crm: Maker, work: Work) -> None:
        connector, cursor, made = ready(crm)
        crm.faults.add(crm.forbidden())
        before = crm.network.requests
        with pytest.raises(CredentialsError):
            work(crm, connector, cursor, made)
        assert crm.network.requests - before <= 3

    @needing(Feature.WIRE)
    def test_every_shape_of_slow_down_is_obeyed_or_ends_the_call(self, crm: Maker, limit: Fault) -> None:
        connector, cursor, made = ready(crm)
        fault, waits = crm.faults.add(copied(limit)), len(crm.network.waits)
        asked: float | None = None
        try:
            read(crm, cursor, connector)
        except TransientError as error:
            asked = error.retry_after
        assert fault.struck == 1
        told = float(limit.headers.get("Retry-After", 0.4))
        assert sum(crm.network.waits[waits:]) + (asked or 0) >= told, "waited out, or told when to come back"
        assert read(crm, cursor).live == set(made)

    @needing(Feature.WIRE)
    def test_slow_down_for_ever_ends_the_call_after_few_requests(self, crm: Maker, limit: Fault) -> None:
        connector, cursor, _ = ready(crm)
        crm.faults.add(copied(limit, times=None))
        before = crm.network.requests
        with pytest.raises(TransientError):
            read(crm, cursor, connector)
        assert crm.network.requests - before <= MOST_REQUESTS

    @needing(Feature.WIRE)
    @working
    @pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 409, 413, 414, 422, 429, 500])
    def test_no_error_tells_a_secret_or_a_persons_data(
        self, crm: Maker, caplog: pytest.LogCaptureFixture, work: Work, status: int
    ) -> None:
        caplog.set_level(logging.DEBUG)
        connector, cursor, made = ready(crm)
        told = " ".join(["zebra@example.org", *crm.secrets])
        body = {"message": told, "category": told, "errors": [{"message": told, "code": told}]}
        crm.strike(
            Kind.STATUS, status=status, body=body, headers={"Location": "https://x.test/zebra"}, times=None
        )
        said = ""
        try:
            said = repr(work(crm, connector, cursor, made))
        except SyncError as error:
            said = "".join(f"{one} {one!r}" for one in _chain(error))
        said += " ".join(record.getMessage() for record in caplog.records if _is_heard(record))
        for word in ("zebra", *crm.secrets):
            assert word not in said


def _is_heard(record: logging.LogRecord) -> bool:
    """Return whether the service lets a record through when its level is debug."""
    return record.levelno >= logging.WARNING or record.name.partition(".")[0] not in QUIET


def _chain(error: BaseException) -> list[BaseException]:
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None:
        chain.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return chain
