"""The metrics of the service, in a registry of their own: fed by cycle reports, scraped at /metrics.

Labels are the names of organizations and connectors and the words of the design, never a record or a person.
A count that a report does not attribute to a connector or lane carries the empty label, which Prometheus
reads as none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from syncsvc.watch.report import CycleReport, Outcome

# A third of all series: when each was made, which nobody asks.
disable_created_metrics()  # type: ignore[no-untyped-call]

_PREFIX = "syncsvc"
_DURATION_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)


class Metrics:
    """All metrics of one process."""

    def __init__(self, *, version: str = "", now: Callable[[], float] = time.time) -> None:
        """Hold every metric, without a series yet; `now` tells seconds since the epoch."""
        self.registry = CollectorRegistry()
        self._now = now
        ProcessCollector(registry=self.registry)
        Info("build", "The version that runs.", namespace=_PREFIX, registry=self.registry).info(
            {"version": version}
        )
        self._cycles = self._counter("cycles", "Cycles that ended, by outcome.", "outcome")
        self._duration = Histogram(
            "cycle_duration_seconds",
            "Time a cycle took.",
            ("organization",),
            namespace=_PREFIX,
            buckets=_DURATION_BUCKETS,
            registry=self.registry,
        )
        self._stages = self._counter("stage_seconds", "Time spent in each stage of the cycles.", "stage")
        self._errors = self._counter("cycle_errors", "Errors that cycles reported.")
        self._read = self._counter("contacts_read", "Contacts read from the CRM.", "connector")
        self._changed = self._counter("contacts_changed", "Contacts read that differed.", "connector")
        self._echoes = self._counter("echoes", "Contacts read whose only news was our own write-back.")
        self._excluded = self._counter("contacts_excluded", "Contacts read that do not match `where`.")
        self._gone = self._counter("contacts_gone", "Contacts that were found deleted.")
        self._requests = self._counter("connector_requests", "Requests made to the CRM.", "connector")
        self._sent = self._counter("rows_sent", "Member rows sent to the wallet.", "lane")
        self._landed = self._counter("rows_landed", "Member rows proven to be applied.")
        self._doubted = self._counter("rows_doubted", "Member rows that fell in doubt.")
        self._points_sent = self._counter("points_sent", "Points in the rows that were sent.")
        self._awarded = self._counter("points_awarded", "Points proven to have reached the wallet.")
        self._batches = self._counter("batches", "Batches that were settled, by outcome.", "outcome")
        self._write_backs = self._counter("write_backs", "Values written to the CRM, by result.", "result")
        self._in_doubt = self._gauge("rows_in_doubt", "Rows in doubt now.")
        self._held = self._gauge("rows_held", "Rows held now, until a person releases them.")
        self._paid_twice = self._gauge(
            "points_paid_twice",
            "Points that may have been awarded twice, until a person has looked into them.",
        )
        self._quarantined = self._gauge("contacts_quarantined", "Contacts in quarantine now.")
        self._last_cycle = self._gauge("last_cycle_timestamp_seconds", "When the last cycle ended.")
        self._last_success = self._gauge("last_success_timestamp_seconds", "When the last ok cycle ended.")
        self._last_proven = self._gauge(
            "last_proven_timestamp_seconds", "When a cycle last read everything and delivered what was due."
        )
        self._paused = self._gauge(
            "paused", "Whether a person paused it; without a connector, the whole organization.", "connector"
        )
        self._stuck = self._gauge("cycle_stuck", "Whether the running cycle makes no progress.")
        self._broken = self._gauge(
            "configuration_broken", "Whether a file cannot be used as it is; the last good one runs, if any."
        )
        self._awaited = self._gauge(
            "state_awaited", "Whether it does not run, as the server of the state cannot be used, or refuses."
        )
        self._braked = self._gauge("brakes_tripped", "Brakes that hold something until a person releases it.")
        self._calls_allowed = self._gauge(
            "connector_calls_allowed", "Calls that the CRM allows in a day.", "connector"
        )
        self._calls_left = self._gauge("connector_calls_left", "Calls of the day that are left.", "connector")
        self._cursor = self._gauge(
            "cursor_timestamp_seconds", "Changes in the CRM are read up to this time.", "connector"
        )

    def observe(self, report: CycleReport) -> None:
        """Every count of a cycle that has ended is in the metrics; to be called once per report."""
        name = report.organization
        for outcome in Outcome:  # a counter that begins at zero has a rate from its first step on
            self._cycles.labels(name, outcome.value)
        self._cycles.labels(name, str(report.outcome)).inc()
        self._duration.labels(name).observe(report.duration)
        for stage, seconds in report.stages.items():
            self._stages.labels(name, stage).inc(seconds)
        for counter, count in (
            (self._errors, len(report.errors)),
            (self._echoes, report.echoes),
            (self._excluded, report.excluded),
            (self._gone, report.gone),
            (self._landed, report.rows_landed),
            (self._doubted, report.rows_in_doubt),
            (self._points_sent, report.points_sent),
            (self._awarded, report.points_landed),
        ):
            counter.labels(name).inc(count)
        connectors = report.connectors
        _spread(self._read, name, report.read, {key: part.read for key, part in connectors.items()})
        _spread(self._changed, name, report.changed, {key: part.changed for key, part in connectors.items()})
        _spread(self._sent, name, report.rows_sent, report.lanes)
        for outcome_of_batch, count in report.batches.items():
            self._batches.labels(name, outcome_of_batch).inc(count)
        self._write_backs.labels(name, "written").inc(report.written_back)
        self._write_backs.labels(name, "failed").inc(report.write_back_failed)
        for key, part in connectors.items():
            self._requests.labels(name, key).inc(part.requests)
            if part.calls_left is not None:
                self._calls_left.labels(name, key).set(part.calls_left)
            if part.calls_allowed is not None:
                self._calls_allowed.labels(name, key).set(part.calls_allowed)
            if part.read_until is not None:
                self._cursor.labels(name, key).set(part.read_until.timestamp())
        self._in_doubt.labels(name).set(report.in_doubt)
        self._held.labels(name).set(report.held)
        self._paid_twice.labels(name).set(report.points_paid_twice)
        self._braked.labels(name).set(len(report.braked))
        self._quarantined.labels(name).set(report.quarantined)
        self._paused.labels(name, "").set(report.outcome == Outcome.PAUSED)
        for key in {*connectors, *report.paused}:
            self._paused.labels(name, key).set(key in report.paused)
        self._observe_times(name, report)

    def _observe_times(self, name: str, report: CycleReport) -> None:
        now = self._now()
        self._last_cycle.labels(name).set(now)
        if report.proven:
            self._last_proven.labels(name).set(now)
        if report.outcome == Outcome.OK:
            self._last_success.labels(name).set(now)

    def stuck(self, organization: str, *, stuck: bool) -> None:
        """Whether the running cycle of an organization makes no progress is in the metrics."""
        self._stuck.labels(organization).set(stuck)

    def broken(self, organization: str, *, broken: bool) -> None:
        """Whether a file of an organization cannot be used as it is now is in the metrics."""
        self._broken.labels(organization).set(broken)

    def awaited(self, organization: str, *, awaited: bool = True) -> None:
        """Whether nothing of an organization runs, as the state cannot be used, is in the metrics."""
        self._awaited.labels(organization).set(awaited)

    def forget(self, organization: str) -> None:
        """No series of this organization is left: its configuration was taken away."""
        for metric in vars(self).values():
            if isinstance(metric, Counter | Gauge | Histogram):
                metric.remove_by_labels({"organization": organization})

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition and its content type: OpenMetrics where `accept` names it, else text."""
        openmetrics = "application/openmetrics-text"  # alone: the library fails on odd versions beside it
        encode, content_type = choose_encoder(openmetrics if openmetrics in accept else "")
        return encode(self.registry), content_type

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, ("organization", *labels), namespace=_PREFIX, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, ("organization", *labels), namespace=_PREFIX, registry=self.registry)


def _spread(counter: Counter, organization: str, total: int, parts: Mapping[str, int]) -> None:
    for part, count in parts.items():
        counter.labels(organization, part).inc(count)
    rest = total - sum(parts.values())
    if rest > 0:
        counter.labels(organization, "").inc(rest)
