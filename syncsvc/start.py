"""The start of the service: where the server of its state is away, it is waited for."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import NoReturn, Self

from syncsvc.daemon import Daemon
from syncsvc.errors import StateUnreadyError
from syncsvc.organization import ConnectorTypes
from syncsvc.overview import Overview
from syncsvc.remote.transport import USER_AGENT
from syncsvc.roster import Roster
from syncsvc.watch.health import HealthServer
from syncsvc.watch.log import logger
from syncsvc.watch.metrics import Metrics

log = logger()

_BETWEEN_SECONDS = 2.0
_LOOK_SECONDS, _LATE_SECONDS = 0.2, 5.0
_GRACE_SECONDS = 5.0  # of an opening that is under way when the service is asked to stop
_LATE = (
    "the state is not open yet: its server or its disk is slow or silent, it is brought to a new form, or "
    "there are many organizations; it is waited for"
)


def start(roster: Roster, *, types: ConnectorTypes, stop: threading.Event) -> Daemon | None:
    """Return the service, opened; None where it was asked to stop before its state could be used.

    Meanwhile /healthz says that the process lives, /readyz that nothing is delivered, and /metrics that the
    state is awaited; each reason is told once. Raises StateError where waiting does not help, and
    ConfigurationError where no organization can be opened, or the address to listen on.
    """
    state = roster.service.state_url  # once: a secret that is being replaced may be half of one
    with _Waiting(roster) as waiting:
        while not stop.is_set():
            opening = _Opening(roster, types, stop, state)
            while not opening.ended.wait(_LOOK_SECONDS):
                if stop.is_set() and not opening.ended.wait(_GRACE_SECONDS):
                    log.warning("service_stopped_hard", waited=_GRACE_SECONDS)
                    return None
                if time.monotonic() - opening.began > _LATE_SECONDS:
                    waiting.tell(_LATE)
            try:
                service = opening.result()
            except StateUnreadyError as error:
                waiting.tell(str(error))
                stop.wait(_BETWEEN_SECONDS)
            else:
                waiting.over()
                return service
    log.info("service_stopped")
    return None


class _Opening:
    """One try to open the service, in a thread: a silent server keeps whoever waits for it."""

    def __init__(self, roster: Roster, types: ConnectorTypes, stop: threading.Event, state: str) -> None:
        self.began = time.monotonic()
        self.ended = threading.Event()
        self._service: Daemon | None = None
        self._error: BaseException | None = None

        def open_it() -> None:
            try:
                self._service = Daemon(roster, types=types, stop=stop, state=state)
            except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
                self._error = error
            finally:
                self.ended.set()

        threading.Thread(target=open_it, name="opening", daemon=True).start()

    def result(self) -> Daemon:
        if self._error is not None:
            raise self._error
        assert self._service is not None  # noqa: S101 - it has ended
        return self._service


class _Waiting:
    """What is told and answered while the state is waited for."""

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self._answering = ExitStack()
        self._began = time.monotonic()
        self._port: int | None = None
        self._told: set[str] = set()
        self._reason = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answering.close()

    def tell(self, reason: str) -> None:
        """Tell a reason, once, and answer probes from now on."""
        self._reason = reason
        if not self._told:
            self._port = self._answer()
        if reason not in self._told:
            self._told.add(reason)
            log.error("state_awaited", reason=reason, port=self._port)

    def over(self) -> None:
        if self._told:
            log.info("state_reached", waited=round(time.monotonic() - self._began, 1))

    def _unknown(self) -> NoReturn:
        raise StateUnreadyError(self._reason)

    def _answer(self) -> int | None:
        organizations, service = list(self._roster.organizations), self._roster.service
        metrics = Metrics(version=USER_AGENT.partition("/")[2])
        for name in organizations:
            metrics.awaited(name)
        facts = {"ready": False, "outcome": None, "state": "awaited"}
        health = HealthServer(
            service.listen,
            metrics,
            lambda: (False, dict.fromkeys(organizations, facts)),
            page=Overview(self._unknown, dict, service.page_token),
        )
        health.start()
        self._answering.callback(health.stop)
        return health.port
