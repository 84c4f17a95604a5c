"""Alerts: one message to an organization's webhook for what has changed, none while it stays so."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import asdict, replace

import orjson

from syncsvc.errors import LostAnswerError, NotSentError, StateError
from syncsvc.organization import Organization
from syncsvc.remote.transport import Network
from syncsvc.rules.alerting import Situation, Told, Waiting, news
from syncsvc.settings import Secret, is_loopback
from syncsvc.watch.log import logger, redact_secret
from syncsvc.watch.report import CycleReport, Outcome

log = logger()

_TIMEOUT_SECONDS = 10.0


class Alerts:
    """What the people of one organization are told; used by one process at a time."""

    def __init__(self) -> None:
        """Know of nothing yet: what was told stands in the state."""
        self._lock = threading.Lock()
        self._failing = False
        self._told_last = Told()
        self._unsaved = False
        self._known = False  # what the state says was told

    def look(self, organization: Organization, report: CycleReport, *, delivering: bool) -> None:
        """Tell what has changed since people were told last; nothing where no webhook is configured.

        What could not be delivered is told by the next look. A message whose answer is lost counts as told.
        Where the state cannot be used, which is told too, what was told is kept until it can.
        """
        webhook = organization.config.alerts.webhook
        if webhook is None or report.outcome is Outcome.STOPPED:
            return
        with self._lock:
            memory, network = organization.store.alerted, organization.network
            situation = _situation(organization, report, delivering=delivering)
            try:
                found = Told(**memory.read())
            except StateError:
                network = network.unleased()  # nor can anybody else tell people anything
                if not self._known:
                    situation = replace(situation, waiting=None)  # they may have been told
            else:
                if not self._unsaved:
                    self._told_last = found
                elif not self._known:
                    last = self._told_last
                    self._told_last = replace(found, delivering=last.delivering, degraded=last.degraded)
                self._known = True
            lines, told = news(self._told_last, situation)
            if lines and not self._told(organization.config.name, network, webhook, lines):
                return
            self._told_last, self._unsaved = told, True
            with contextlib.suppress(StateError):
                memory.save(asdict(told))
                self._unsaved = False

    def _told(self, name: str, network: Network, webhook: Secret, lines: list[str]) -> bool:
        text = "\n".join([f"syncsvc, {name}:", *(f"• {line}" for line in lines)])
        try:
            _post(network, _address(webhook), text)
        except LostAnswerError:
            log.warning("alert_unanswered", lines=len(lines))
        except _NotToldError as error:
            if not self._failing:
                log.error("alert_failed", reason=str(error), remedy="it is tried again after each cycle")
            self._failing = True
            return False
        else:
            log.info("alert_sent", lines=len(lines))
        self._failing = False
        return True


class _NotToldError(Exception):
    """Why a message did not reach the webhook; never its address, which is the secret."""


def _address(webhook: Secret) -> str:
    if webhook.problem() is not None:
        raise _NotToldError("alerts.webhook cannot be read")
    url = webhook.read()
    redact_secret(url)
    if not may_be_told(url):
        raise _NotToldError("alerts.webhook is no https:// URL")
    return url


def may_be_told(url: str) -> bool:
    """Return whether a webhook's address keeps what it says, and itself, from being read on the way."""
    return url.startswith("https://") or (url.startswith("http://") and is_loopback(url))


def _post(network: Network, url: str, text: str) -> None:
    client = network.client(url, timeout=_TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json"}
    try:
        answer = client.relay("POST", url, headers=headers, content=orjson.dumps({"text": text}))
    except NotSentError:
        raise _NotToldError("it cannot be reached") from None  # the error names the path
    finally:
        client.close()
    if not 200 <= answer.status < 300:  # noqa: PLR2004 - success
        raise _NotToldError(f"it answered {answer.status}")


def _situation(organization: Organization, report: CycleReport, *, delivering: bool) -> Situation:
    # Where something only waits, that is told by itself.
    degraded = None if report.outcome is Outcome.TRANSIENT else bool(report.errors)
    if not report.stages:  # it failed before it could count anything
        return Situation(delivering, degraded, None, report.errors)
    holds: dict[int, str] = {}
    with contextlib.suppress(StateError):
        holds = {it.id: it.detail for it in organization.store.holds.open() if it.released_by is None}
    waiting = Waiting(report.in_doubt, report.held, holds, report.quarantined, report.points_paid_twice)
    return Situation(delivering, degraded, waiting, report.errors)
