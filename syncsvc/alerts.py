"""Alerts: one message to an organization's webhook for what has changed, none while it stays so."""

from __future__ import annotations

import threading
from dataclasses import asdict

import orjson

from syncsvc.errors import LostAnswerError, NotSentError
from syncsvc.organization import Organization
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

    def look(self, organization: Organization, report: CycleReport, *, delivering: bool) -> None:
        """Tell what has changed since people were told last; nothing where no webhook is configured.

        What could not be delivered is told by the next look. A message whose answer is lost counts as told.
        """
        webhook = organization.config.alerts.webhook
        if webhook is None or report.outcome is Outcome.STOPPED:
            return
        with self._lock:
            memory = organization.store.alerted
            lines, told = news(Told(**memory.read()), _situation(organization, report, delivering=delivering))
            if lines and not self._told(organization, webhook, lines):
                return
            memory.save(asdict(told))

    def _told(self, organization: Organization, webhook: Secret, lines: list[str]) -> bool:
        text = "\n".join([f"syncsvc, {organization.config.name}:", *(f"• {line}" for line in lines)])
        try:
            _post(organization, _address(webhook), text)
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
    if not url.startswith("https://") and not is_loopback(url):
        raise _NotToldError("alerts.webhook is no https:// URL")
    return url


def _post(organization: Organization, url: str, text: str) -> None:
    client = organization.network.client(url, timeout=_TIMEOUT_SECONDS)
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
    holds = {it.id: it.detail for it in organization.store.holds.open() if it.released_by is None}
    waiting = Waiting(report.in_doubt, report.held, holds, report.quarantined, report.points_paid_twice)
    return Situation(delivering, degraded, waiting, report.errors)
