"""Traces: a span for the cycle, its stages and calls; ids and counts, no person; none without the extra."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from enginelab import IMPORT, Lab
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from syncsvc import traces
from syncsvc.cycle import Cycle
from syncsvc.runner import attempt
from syncsvc.sandbox.faults import Kind
from syncsvc.watch.report import CycleReport


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(traces, "_tracer", provider.get_tracer("syncsvc"))
    yield exporter
    provider.shutdown()


def run(lab: Lab) -> CycleReport:
    lab.wait(60)
    return attempt(lab.organization, Cycle(lab.organization))


def path(span: ReadableSpan, spans: dict[int, ReadableSpan]) -> str:
    above = f"{path(spans[span.parent.span_id], spans)} > " if span.parent else ""
    where = (span.attributes or {}).get("url.path", "")
    return f"{above}{span.name} {where}".rstrip()


def paths(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    spans = {it.context.span_id: it for it in exporter.get_finished_spans() if it.context}
    return {path(it, spans): it for it in spans.values()}


def test_a_cycle_is_a_span_over_its_stages_and_they_over_their_calls(
    lab: Lab, exported: InMemorySpanExporter
) -> None:
    lab.crm.put("a", points=10, name="Zebrawood")
    report = run(lab)
    found = paths(exported)
    assert set(found) == {
        "cycle",
        *(f"cycle > {stage}" for stage in report.stages),
        "cycle > brakes > GET /import/log",
        "cycle > deliver > POST /v2/import",
        "cycle > confirm > GET /import/log",
    }
    assert dict(found["cycle"].attributes or {}) == {
        "organization": "acme",
        "cycle": report.cycle,
        "outcome": "ok",
        "rows_sent": 1,
        "read": 1,
    }
    assert (found["cycle > pull"].attributes or {})["connector"] == "crm"
    sent = found["cycle > deliver > POST /v2/import"].attributes or {}
    assert (sent["http.response.status_code"], sent["http.request.method"]) == (200, "POST")
    told = " ".join(it.to_json() for it in exported.get_finished_spans())
    assert "Zebrawood" not in told
    assert "@" not in told


def test_what_fails_is_marked_by_its_class_alone(lab: Lab, exported: InMemorySpanExporter) -> None:
    lab.crm.put("a", points=0)
    lab.fault(Kind.RESET_AFTER)
    run(lab)
    found = paths(exported)
    call = found["cycle > deliver > POST /v2/import"]
    assert not call.status.is_ok
    assert (call.attributes or {})["error.type"] == "RemoteProtocolError"
    assert not found["cycle > deliver"].status.is_ok
    assert found["cycle > pull"].status.is_ok
    assert all(not it.events and not it.status.description for it in found.values())
    exported.clear()
    lab.fault(Kind.STATUS, IMPORT, status=503)
    run(lab)
    assert (paths(exported)["cycle > deliver > POST /v2/import"].attributes or {})["error.type"] == "503"


def test_without_the_extra_nothing_is_imported_and_spans_are_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    there = runpy.run_path(str(Path(traces.__file__)))
    assert there["_api"] is None
    with there["span"]("cycle", organization="acme") as made:
        made.note(read=1)
        made.answered(503)
    with there["exporting"]("1.0") as missing:
        assert missing.endswith(" is not installed")


def test_a_span_is_made_once_a_provider_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "_tracer", trace.get_tracer("syncsvc"))
    with traces.span("cycle") as one, traces.span("pull") as other:
        assert one is other  # the one that holds nothing
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # as set_tracer_provider would, for good
    with traces.span("cycle"):
        pass
    assert [it.name for it in exporter.get_finished_spans()] == ["cycle"]


def test_where_no_collector_is_named_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(traces, "import_module", pytest.fail)
    with traces.exporting("1.0") as missing:
        assert missing is None
