"""The start of the service: where the server of its state is away, it is waited for."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from typing import Any

from syncsvc.daemon import Daemon
from syncsvc.errors import StateUnreadyError
from syncsvc.organization import ConnectorTypes
from syncsvc.remote.transport import USER_AGENT
from syncsvc.roster import Roster
from syncsvc.watch.health import HealthServer
from syncsvc.watch.log import logger
from syncsvc.watch.metrics import Metrics

log = logger()

_BETWEEN_SECONDS = 2.0


def start(roster: Roster, *, types: ConnectorTypes, stop: threading.Event) -> Daemon | None:
    """Return the service, opened; None where it was asked to stop before its state could be used.

    Meanwhile /healthz says that the process lives, /readyz that nothing is delivered, and /metrics that the
    state is awaited; each reason is told once. Raises StateError where waiting does not help, and
    ConfigurationError where no organization can be opened, or the address to listen on.
    """
    began, told, port = time.monotonic(), "", None
    with ExitStack() as waiting:
        while not stop.is_set():
            try:
                daemon = Daemon(roster, types=types, stop=stop)
            except StateUnreadyError as error:
                if not told:
                    port = _answer(roster, waiting)
                if str(error) != told:
                    told = str(error)
                    log.error("state_awaited", reason=told, port=port)
                stop.wait(_BETWEEN_SECONDS)
            else:
                if told:
                    log.info("state_reached", waited=round(time.monotonic() - began, 1))
                return daemon
    log.info("service_stopped")
    return None


def _answer(roster: Roster, waiting: ExitStack) -> int | None:
    """Answer probes until `waiting` ends; returns the port."""

    def ready() -> tuple[bool, dict[str, Any]]:
        return False, {}

    metrics = Metrics(version=USER_AGENT.partition("/")[2])
    for name in roster.organizations:
        metrics.awaited(name)
    health = HealthServer(roster.service.listen, metrics, ready)
    health.start()
    waiting.callback(health.stop)
    return health.port
