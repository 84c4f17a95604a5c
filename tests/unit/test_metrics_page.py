"""`docs/metrics.md` is what `/metrics` shows: every family by its name, type, labels and help."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import Counter, Gauge, Histogram

from syncsvc.watch.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def shown() -> list[str]:
    """Return the rows of the page, as the code has it."""
    rows = []
    labels = {
        it.describe()[0].name: it._labelnames
        for it in vars(Metrics()).values()
        if isinstance(it, Counter | Gauge | Histogram)
    }
    for family in Metrics().registry.collect():
        if family.name.startswith("syncsvc_") and family.type != "info":
            name = family.name + ("_total" if family.type == "counter" else "")
            named = " ".join(f"`{label}`" for label in labels[family.name])
            rows.append(f"| `{name}` | {family.type} | {named} | {family.documentation} |")
    return rows


def test_every_metric_stands_on_the_page_as_it_is_shown() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if line.startswith("| `syncsvc_")]
    assert listed == shown(), "\n".join(["docs/metrics.md must have:", *shown()])
