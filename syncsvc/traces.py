"""Traces: a span for every cycle, stage and remote call, where OpenTelemetry is installed (`syncsvc[otel]`).

Without it nothing is imported, and while nobody takes them each span is an empty one. Spans hold ids, counts,
hosts, paths and status codes; no body, no query, no header, and of an error its class alone, since a text may
quote anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

try:
    from opentelemetry import trace

    _api: Any = trace
except ImportError:
    _api = None

Fact = str | int | float | bool

_WHERE = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_REFUSED = 400
_tracer: Any = None if _api is None else _api.get_tracer("syncsvc")


class Span:
    """What is under way; `note` adds facts to it."""

    def __init__(self, inner: Any = None) -> None:
        """Wrap the span of the library, or none."""
        self._inner = inner

    def note(self, **facts: Fact) -> None:
        """Let the span carry these facts; a double underscore in a name stands for its dot."""
        if self._inner is not None:
            self._inner.set_attributes({name.replace("__", "."): fact for name, fact in facts.items()})

    def fail(self, kind: str) -> None:
        """Mark the span as failed, by the name of the error's class or a status."""
        if self._inner is not None and _api is not None:
            self._inner.set_attribute("error.type", kind)
            self._inner.set_status(_api.StatusCode.ERROR)

    def answered(self, status: int) -> None:
        """Let the span of a call carry the status of its answer; one from 400 on marks it as failed."""
        self.note(http__response__status_code=status)
        if status >= _REFUSED:
            self.fail(str(status))


_NOBODY = nullcontext(Span())


def _listening() -> bool:
    """Return whether anybody takes spans; to make one that nobody takes costs a tenth of a request."""
    if _tracer is None or not isinstance(_tracer, _api.ProxyTracer):
        return _tracer is not None
    return not isinstance(_api.get_tracer_provider(), _api.ProxyTracerProvider)


def span(name: str, **facts: Fact) -> AbstractContextManager[Span]:
    """Let everything inside be part of a span of this name; an error that leaves it marks it as failed."""
    return _taken(name, facts) if _listening() else _NOBODY


@contextmanager
def _taken(name: str, facts: dict[str, Fact]) -> Iterator[Span]:
    beginning = _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)
    with beginning as inner:
        made = Span(inner)
        made.note(**facts)
        try:
            yield made
        except BaseException as error:
            made.fail(type(error).__name__)
            raise


@contextmanager
def exporting(version: str) -> Iterator[str | None]:
    """Send spans to the collector that `OTEL_EXPORTER_OTLP_ENDPOINT` names, and the last ones at the end.

    Gives what keeps them from being sent, or None. Where no collector is named, nothing is loaded.
    """
    if not any(os.environ.get(name) for name in _WHERE):
        yield None
        return
    try:
        provider = _provider(version)
    except ImportError as error:
        yield f"{error.name or 'OpenTelemetry'} is not installed"
        return
    try:
        yield None
    finally:
        provider.shutdown()


def _provider(version: str) -> Any:
    """Return the library's provider, from now on the one of this process."""
    sdk, resources = import_module("opentelemetry.sdk.trace"), import_module("opentelemetry.sdk.resources")
    batches = import_module("opentelemetry.sdk.trace.export")
    exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    named = {"service.version": version}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        named["service.name"] = "syncsvc"
    provider = sdk.TracerProvider(resource=resources.Resource.create(named))
    provider.add_span_processor(batches.BatchSpanProcessor(exporter.OTLPSpanExporter()))
    import_module("opentelemetry.trace").set_tracer_provider(provider)
    return provider
