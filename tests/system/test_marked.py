"""Whatever happens, at any level, through any library: no line tells a secret or who somebody is."""

from __future__ import annotations

import io
import itertools
import logging
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_privacy import SECRETS, let_things_fail, marks, spoil
from town import settled

from syncsvc.cli.context import Context
from syncsvc.once import run_once
from syncsvc.remote.transport import Network
from syncsvc.rules.intake import Reader
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.world import World
from syncsvc.state.intake import IntakeStore
from syncsvc.state.settlements import Settlements
from syncsvc.tidings import no_progress
from syncsvc.watch import log
from syncsvc.watch.metrics import Metrics
from syncsvc.watch.report import CycleReport

MARKED_NAME = "Zebrawood"
POINTS = "98765.4321"  # no whole number: it is refused
LIBRARIES = (
    "alembic.runtime.migration",
    "apscheduler.scheduler",
    "asyncio",
    "httpcore.connection",
    "httpcore.http11",
    "httpx",
    "requests",
    "simple_salesforce.api",
    "sqlalchemy.engine",
    "sqlalchemy.orm",
    "sqlalchemy.pool",
    "urllib3.connectionpool",
)


@pytest.fixture(autouse=True)
def _libraries_as_before() -> Iterator[None]:
    before = {name: logging.getLogger(name).level for name in LIBRARIES}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def mark(world: World) -> None:
    """Give everybody a name that stands nowhere else."""
    for person in world.salesforce_people():
        world.salesforce.update("Contact", person.record_id, {"FirstName": "Zoe", "LastName": "Zebrawood"})
    for person in world.hubspot_people():
        world.hubspot.update(person.record_id, {"firstname": "Zoe", "lastname": "Zebrawood"})
    spoil(world)
    world.hubspot.update(next(world.hubspot_people()).record_id, {"loyalty_points": POINTS})


def turn_up_libraries() -> None:
    """Let every library say all it can, as if somebody had turned it up beside us."""
    for name in LIBRARIES:
        logging.getLogger(name).setLevel(logging.DEBUG)


def refuse_write_backs(world: World) -> None:
    """Let the CRMs refuse what is written to them, quoting it."""
    said = "bad value Zebrawood for zoe@marked.example"
    error = [{"message": said, "errorCode": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "fields": ["LastName"]}]
    world.salesforce.faults.add(Fault(Kind.STATUS, "PATCH", status=400, body=error))
    body = {"status": "error", "message": said, "category": "VALIDATION_ERROR", "errors": [{"message": said}]}
    world.hubspot.faults.add(Fault(Kind.STATUS, "POST", status=400, body=body))


def quoting(*arguments: Any, **_: Any) -> Any:
    """Fail as Python does, with the values in the text, in a note and in what it was caused by."""
    shown = [getattr(it, "fields", it) for it in arguments]
    name, secret = MARKED_NAME, SECRETS["SF_SECRET"]  # a traceback shows the line, not what it holds
    warnings.warn(f"odd value '{name}' of {secret}", RuntimeWarning, stacklevel=1)
    try:
        {}[name]
    except KeyError as cause:
        error = ValueError(f"could not convert string to float: '{name}' in {shown!r:.4000}")
        error.add_note(f"the value was '{name}'")
        raise error from cause


def test_a_rich_run_at_debug_tells_no_secret_and_no_person(
    world: World,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    mark(world)
    let_things_fail(world)
    context = Context(config)
    installation = context.installation()
    log.redact_secret(SECRETS["SF_SECRET"])
    monkeypatch.setattr(Network, "sleep", lambda *_: None)  # what passes is asked again at once
    stream, metrics, reports = io.StringIO(), Metrics(), list[CycleReport]()
    forms = itertools.cycle(("json", "console"))

    def cycle() -> None:
        log.configure(format=next(forms), level="debug", stream=stream)
        turn_up_libraries()
        stop = threading.Event()
        reports.extend(run_once(installation, types=context.types, progress=no_progress, stop=stop))

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for _ in range(2):
            world.edit(2)
            cycle()
        refuse_write_backs(world)
        world.edit(2)
        cycle()
        for owner, name in ((Reader, "read"), (IntakeStore, "store_page"), (Settlements, "settle")):
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, quoting)
                world.edit(1)
                cycle()
        for faults in (world.wallet.faults, world.salesforce.faults, world.hubspot.faults):
            faults.clear()
        for _ in range(2):
            cycle()
    for report in reports:
        metrics.observe(report)
    text = stream.getvalue()
    assert settled(world) or reports[-1].quarantined, "it all ran to its end"
    for seen in (
        "cycle_failed",
        "connector_unreadable",
        "contact_quarantined",
        "RuntimeWarning",
        "ValueError",
    ):
        assert seen in text, seen
    told = {
        "log": text,
        "metrics": metrics.render()[0].decode(),
        "reports": repr(reports),
        "configuration": repr(installation),
        "standard output and error": "".join(capfd.readouterr()),
    }
    for where, said in told.items():
        assert [it for it in marks(world) | {"zebrawood", POINTS} if it in said] == [], where
