"""What the webhook of an organization is told by the cycles of its runner."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from enginelab import Lab
from structlog.testing import capture_logs

from syncsvc.errors import OperatorError
from syncsvc.organization import open_organization
from syncsvc.runner import Runner
from syncsvc.sandbox.faults import Kind
from syncsvc.watch.metrics import Metrics

Open = Callable[..., Lab]


class Receiver(ThreadingHTTPServer):
    """Takes messages, and answers with `status`; None closes the connection without an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.status: int | None = 200
        self.texts: list[str] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/services/T000/s3cret-path"


class _Taking(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/json"
        assert set(body) == {"text"}
        self.server.texts.append(body["text"])
        self.server.paths.append(self.path)
        if self.server.status is None:
            return
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Watched:
    """A runner over a lab whose webhook is the receiver, and what it logged."""

    def __init__(self, lab: Lab, receiver: Receiver, **tables: Any) -> None:
        self.lab, self.receiver = lab, receiver
        (lab.folder / "hook").write_text(receiver.url + "\n", encoding="utf-8")
        lab.tables |= {"alerts": {"webhook": {"file": str(lab.folder / "hook")}}, **tables}
        lab.organization.close()
        self.now, self.lines = 0.0, list[dict[str, Any]]()
        self.restart()

    def restart(self) -> None:
        lab = self.lab

        def opened(config: Any) -> Any:
            types = {**lab.types, **lab.crms}
            lab.organization = open_organization(config, lab.database, types=types, network=lab.network)
            return lab.organization

        for name, connector in lab._config().connectors.items():
            if connector.type == name:
                lab.crms.setdefault(name, lab.crm)
        self.runner = Runner(
            lab._config(),
            open_as=opened,
            stopping=lambda: False,
            watchers=Metrics(),
            turns=threading.Condition(),
            monotonic=lambda: self.now,
        )

    def cycle(self, after: float = 60) -> list[str]:
        """Run a cycle; returns the lines of each message that it sent, without the first."""
        self.lab.wait(after)
        self.now += after
        count = len(self.receiver.texts)
        with capture_logs() as lines:
            self.runner.run()
        self.lines = [dict(line) for line in lines]
        return [text.partition("\n")[2] for text in self.receiver.texts[count:]]

    def said(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def watched(lab: Lab, receiver: Receiver) -> Watched:
    return Watched(lab, receiver)


def test_a_lost_answer_is_one_message_when_it_is_in_doubt_and_one_when_it_is_settled(
    watched: Watched,
) -> None:
    lab = watched.lab
    assert watched.cycle() == []
    lab.crm.put("a", points=10)
    lab.fault(Kind.RESET_BEFORE)
    (told,) = watched.cycle()
    assert told == "• 1 rows are in doubt: the import log settles them, or a person does"
    assert watched.receiver.texts[-1].startswith("syncsvc, acme:\n• ")
    assert watched.receiver.paths[-1] == "/services/T000/s3cret-path"
    assert [line["lines"] for line in watched.said("alert_sent")] == [1]
    assert watched.cycle() == []
    assert watched.cycle(301) == ["• nothing is in doubt any more"]
    assert watched.cycle(301) == []


def test_a_bad_contact_and_its_mending_are_told_without_the_person(watched: Watched) -> None:
    watched.lab.crm.put("a", email="jane@example.org", points="many")
    (told,) = watched.cycle()
    assert told == "• 1 are in quarantine, 0 were → syncsvc status"
    watched.lab.crm.put("a", email="jane@example.org", points=3)
    assert watched.cycle() == ["• nothing is in quarantine any more"]


def test_a_connector_that_needs_a_person_is_told_with_the_reason(watched: Watched) -> None:
    watched.lab.crm.fail(OperatorError("the field points does not exist: make it"))
    (told,) = watched.cycle()
    assert told.startswith("• degraded: ")
    assert "the field points does not exist: make it → syncsvc status" in told
    assert watched.cycle() == ["• recovered"]


def test_a_brake_is_told_with_the_command_that_releases_it(lab: Lab, receiver: Receiver) -> None:
    watched = Watched(lab, receiver, brakes={"max_points_per_cycle": 100})
    lab.crm.put("a", points=500)
    (told,) = watched.cycle()
    assert "a brake tripped: " in told
    assert "→ syncsvc release" in told
    assert watched.cycle() == []


def test_a_wallet_that_stays_away_is_told_after_a_while_and_when_it_is_back(watched: Watched) -> None:
    watched.cycle()
    watched.lab.crm.put("a", points=10)
    fault = watched.lab.fault(Kind.STATUS, status=503, times=None)
    log = watched.lab.fault(Kind.STATUS, ("GET", "/import/log"), status=503, times=None)
    told = [line for _ in range(8) for line in watched.cycle()]
    assert [("does not deliver" in it) for it in told] == [True]
    fault.times = log.times = 0
    back = [line for _ in range(8) for line in watched.cycle(301)]
    assert [it for it in back if "delivers again" in it] == ["• delivers again"]


def test_a_state_that_cannot_be_used_keeps_nobody_from_being_told(watched: Watched) -> None:
    watched.cycle()
    watched.lab.crm.put("a", points=10)
    faults = [
        watched.lab.fault(Kind.STATUS, request, status=503, times=None)
        for request in (("POST", "/v2/import"), ("GET", "/import/log"))
    ]
    watched.lab.ground.change("ALTER TABLE meta RENAME TO away")  # where it stands what people were told
    network = watched.lab.organization.network
    left, network.left = network.left, lambda: 0.0  # the lease is over as well
    told = [line for _ in range(8) for line in watched.cycle()]
    assert [("does not deliver" in it) for it in told] == [True]
    assert watched.said("alert_failed") == []
    watched.lab.ground.change("ALTER TABLE away RENAME TO meta")
    network.left = left
    assert watched.cycle() == []
    for fault in faults:
        fault.times = 0
    watched.lab.organization.close()
    watched.restart()
    assert watched.cycle() == ["• delivers again"]  # the state knows by now what was told


def test_a_restart_is_no_news(watched: Watched) -> None:
    watched.lab.crm.put("a", points="many")
    assert len(watched.cycle()) == 1
    watched.lab.organization.close()
    watched.restart()
    assert watched.cycle() == []


def test_what_the_webhook_did_not_take_is_told_by_the_next_cycle_once(watched: Watched) -> None:
    watched.lab.crm.put("a", points="many")
    watched.receiver.status = 503
    assert len(watched.cycle()) == 1
    assert [it["reason"] for it in watched.said("alert_failed")] == ["it answered 503"]
    assert len(watched.cycle()) == 1
    assert watched.said("alert_failed") == []  # that it fails is told once
    watched.receiver.status = 200
    assert len(watched.cycle()) == 1
    assert watched.cycle() == []


def test_a_message_whose_answer_is_lost_is_not_repeated(watched: Watched) -> None:
    watched.lab.crm.put("a", points="many")
    watched.receiver.status = None
    assert len(watched.cycle()) == 1
    assert len(watched.said("alert_unanswered")) == 1
    watched.receiver.status = 200
    assert watched.cycle() == []


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://example.org/hook", "alerts.webhook is no https:// URL"),
        ("http://127.0.0.1:9/s3cret-path", "it cannot be reached"),
        ("", "alerts.webhook cannot be read"),
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_it(
    watched: Watched, address: str, reason: str
) -> None:
    (watched.lab.folder / "hook").write_text(address, encoding="utf-8")
    watched.lab.crm.put("a", points="many")
    assert watched.cycle() == []
    assert [it["reason"] for it in watched.said("alert_failed")] == [reason]
    assert "s3cret" not in str(watched.lines)


def test_a_stuck_cycle_is_told_while_it_is_stuck(watched: Watched) -> None:
    free, began = threading.Event(), threading.Event()

    def hang() -> None:
        watched.lab.crm.before = lambda: None
        began.set()
        assert free.wait(60)

    watched.lab.crm.before = hang
    thread = threading.Thread(target=watched.cycle)
    thread.start()
    assert began.wait(60)
    watched.runner.watch()
    watched.now += 3600
    watched.runner.watch()
    for other in threading.enumerate():
        if other.name == "alert":
            other.join(60)
    assert ["makes no progress" in text for text in watched.receiver.texts] == [True]
    free.set()
    thread.join(60)
    assert "delivers again" in watched.receiver.texts[-1]
