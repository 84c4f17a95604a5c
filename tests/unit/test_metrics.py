from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from syncsvc.watch.metrics import Metrics
from syncsvc.watch.redaction import redacted
from syncsvc.watch.report import ConnectorReport, CycleReport, Outcome

NOW = 1_800_000_000.0
READ_UNTIL = datetime(2026, 11, 22, 10, tzinfo=UTC)


def report(**changes: Any) -> CycleReport:
    facts: dict[str, Any] = {"organization": "acme", "cycle": "c-1", "outcome": Outcome.OK, "duration": 2.0}
    return CycleReport(**(facts | changes))


def full_report() -> CycleReport:
    """Every count differs, so that none can stand for another."""
    return report(
        outcome=Outcome.DEGRADED,
        duration=4.5678,
        stages={"pull": 1.23456, "deliver": 2.0},
        read=100,
        changed=40,
        echoes=50,
        excluded=7,
        quarantined=3,
        gone=2,
        rows_sent=30,
        rows_landed=20,
        rows_in_doubt=6,
        points_sent=900,
        points_landed=800,
        in_doubt=8,
        held=5,
        points_paid_twice=40,
        written_back=18,
        write_back_failed=1,
        paused=("sales",),
        braked=("max_share", "max_gone_share:crm"),
        proven=True,
        errors=("crm: contact 003A: row locked", "crm: no answer"),
        connectors={
            "crm": ConnectorReport(
                read=60,
                changed=25,
                requests=11,
                read_until=READ_UNTIL,
                calls_left=90,
                calls_allowed=99,
            ),
            "marketing": ConnectorReport(read=30, changed=15, requests=12),
        },
        lanes={"profile": 21, "points": 9},
        batches={"landed": 4, "in_doubt": 1},
    )


def value_of(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"syncsvc_{name}", {"organization": "acme", **labels})


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("cycles_total", {"outcome": "degraded"}, 1),
        ("cycles_total", {"outcome": "ok"}, 0),
        ("cycle_duration_seconds_sum", {}, 4.5678),
        ("cycle_duration_seconds_count", {}, 1),
        ("stage_seconds_total", {"stage": "pull"}, 1.23456),
        ("cycle_errors_total", {}, 2),
        ("points_paid_twice", {}, 40),
        ("paused", {"connector": "sales"}, 1),
        ("paused", {"connector": "crm"}, 0),
        ("paused", {"connector": ""}, 0),
        ("contacts_read_total", {"connector": "crm"}, 60),
        ("contacts_read_total", {"connector": "marketing"}, 30),
        ("contacts_read_total", {"connector": ""}, 10),
        ("contacts_changed_total", {"connector": "crm"}, 25),
        ("contacts_changed_total", {"connector": ""}, None),
        ("echoes_total", {}, 50),
        ("contacts_excluded_total", {}, 7),
        ("contacts_gone_total", {}, 2),
        ("connector_requests_total", {"connector": "marketing"}, 12),
        ("rows_sent_total", {"lane": "profile"}, 21),
        ("rows_sent_total", {"lane": "points"}, 9),
        ("rows_landed_total", {}, 20),
        ("rows_doubted_total", {}, 6),
        ("points_sent_total", {}, 900),
        ("points_awarded_total", {}, 800),
        ("batches_total", {"outcome": "landed"}, 4),
        ("write_backs_total", {"result": "written"}, 18),
        ("write_backs_total", {"result": "failed"}, 1),
        ("rows_in_doubt", {}, 8),
        ("rows_held", {}, 5),
        ("contacts_quarantined", {}, 3),
        ("brakes_tripped", {}, 2),
        ("connector_calls_left", {"connector": "crm"}, 90),
        ("connector_calls_allowed", {"connector": "crm"}, 99),
        ("connector_calls_allowed", {"connector": "marketing"}, None),
        ("last_cycle_timestamp_seconds", {}, NOW),
        ("last_proven_timestamp_seconds", {}, NOW),
        ("last_success_timestamp_seconds", {}, None),
        ("cursor_timestamp_seconds", {"connector": "crm"}, READ_UNTIL.timestamp()),
        ("cursor_timestamp_seconds", {"connector": "marketing"}, None),
    ],
)
def test_a_count_of_the_report_reaches_its_metric(
    name: str, labels: dict[str, str], expected: float | None
) -> None:
    metrics = Metrics(now=lambda: NOW)
    metrics.observe(full_report())
    assert value_of(metrics, name, **labels) == expected


def test_counters_add_up_over_cycles_and_gauges_hold_the_last_word() -> None:
    metrics = Metrics()
    metrics.observe(report(rows_landed=5, in_doubt=5))
    metrics.observe(report(rows_landed=2, in_doubt=1))
    assert value_of(metrics, "rows_landed_total") == 7
    assert value_of(metrics, "rows_in_doubt") == 1


def test_the_last_success_stays_where_it_was_when_a_cycle_is_not_ok() -> None:
    times = iter([100.0, 200.0])
    metrics = Metrics(now=lambda: next(times))
    metrics.observe(report())
    metrics.observe(report(outcome=Outcome.TRANSIENT))
    assert value_of(metrics, "last_success_timestamp_seconds") == 100
    assert value_of(metrics, "last_cycle_timestamp_seconds") == 200


def test_a_cursor_keeps_its_time_while_its_connector_cannot_be_read() -> None:
    metrics = Metrics()
    metrics.observe(report(connectors={"crm": ConnectorReport(read_until=READ_UNTIL)}))
    metrics.observe(report(connectors={"crm": ConnectorReport()}))
    assert value_of(metrics, "cursor_timestamp_seconds", connector="crm") == READ_UNTIL.timestamp()


def test_organizations_do_not_mix_and_a_forgotten_one_leaves_no_series() -> None:
    metrics = Metrics()
    metrics.observe(full_report())
    metrics.observe(report(organization="other", held=4))
    metrics.forget("acme")
    text = metrics.render()[0].decode()
    assert "acme" not in text
    assert 'syncsvc_rows_held{organization="other"} 4.0' in text


def test_two_sets_of_metrics_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.observe(report())
    assert value_of(second, "cycles_total", outcome="ok") is None


def test_the_plain_exposition_can_be_read_and_every_name_is_ours_or_the_process() -> None:
    metrics = Metrics(version="1.2.3")
    metrics.observe(full_report())
    body, content_type = metrics.render("*/*")
    names = {family.name for family in parse_text(body.decode())}
    assert content_type.startswith("text/plain; version=0.0.4")
    assert "syncsvc_build_info" in names
    assert {name for name in names if not name.startswith(("syncsvc_", "process_"))} == set()
    assert all(family.documentation for family in metrics.registry.collect())


@pytest.mark.parametrize("version", ["", "; version=1.0.0", "; version=x"])
def test_openmetrics_is_given_where_it_is_asked_for(version: str) -> None:
    metrics = Metrics()
    metrics.observe(full_report())
    body, content_type = metrics.render(f"application/openmetrics-text{version},text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text")
    assert "syncsvc_cycles" in {family.name for family in parse_openmetrics(body.decode())}


def test_the_facts_of_a_report_hold_every_field_with_seconds_rounded() -> None:
    facts = full_report().facts()
    assert set(facts) == {part.name for part in fields(CycleReport)}
    assert facts["duration"] == 4.568
    assert facts["stages"] == {"pull": 1.235, "deliver": 2.0}
    assert facts["outcome"] == "degraded"
    assert facts["connectors"]["crm"]["read"] == 60


def test_no_fact_of_a_report_falls_to_redaction() -> None:
    shown = redacted(full_report().facts())
    assert shown["errors"] == ["crm: contact 003A: row locked", "crm: no answer"]
    assert "[redacted]" not in str(shown)


def test_read_only_mappings_are_taken_too() -> None:
    given = report(lanes=MappingProxyType({"points": 1}), rows_sent=1)
    assert given.facts()["lanes"] == {"points": 1}
