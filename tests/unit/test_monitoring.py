"""The dashboard and the alert rules name metrics that exist, and every alert has its page in the runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from test_metrics import full_report, report

from syncsvc.watch.metrics import Metrics

DOCS = Path(__file__).parents[2] / "docs"
MONITORING = DOCS / "monitoring"
OPERATIONS = (DOCS / "operations.md").read_text(encoding="utf-8")
PROMTOOL = shutil.which("promtool")
LABELS = {"le", "job", "instance"}  # of histograms, and of whoever scrapes


@pytest.fixture(scope="module")
def registry() -> CollectorRegistry:
    metrics = Metrics(version="1.0")
    metrics.observe(full_report())
    metrics.observe(report())
    metrics.stuck("acme", stuck=False)
    metrics.broken("acme", broken=False)
    metrics.awaited("acme")
    return metrics.registry


def samples(registry: CollectorRegistry) -> dict[str, set[str]]:
    """Return the label names of every sample that is scraped, by its name."""
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def rules() -> list[dict[str, str]]:
    """Return the alert rules, from the plain YAML that the file keeps to; any other line is refused."""
    lines = [line for line in (MONITORING / "alerts.yml").read_text().splitlines() if line[:1] != "#"]
    assert lines[:3] == ["groups:", "  - name: syncsvc", "    rules:"]
    found: list[dict[str, str]] = []
    folded = ""
    for line in lines[3:]:
        indent, text = len(line) - len(line.lstrip()), line.strip()
        key, _, value = text.removeprefix("- ").partition(": ")
        if folded and indent == 10 and found[-1][folded] != "-":
            found[-1][folded] += f" {text}"
            continue
        folded = ""
        if indent == 6 and text.startswith("- alert: "):
            found.append({"alert": value})
        elif indent == 8 and text in {"labels:", "annotations:"}:
            continue
        elif indent == 8 and key == "expr" and value == ">-":
            found[-1]["expr"], folded = "", "expr"
        elif (indent == 8 and key in {"expr", "for"}) or (indent == 10 and key == "severity"):
            found[-1][key] = value
        elif indent == 10 and key in {"summary", "description", "runbook"}:
            found[-1][key] = json.loads(value)
        else:
            raise AssertionError(f"alerts.yml: {line!r} is not in the form of the others")
    return found


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    assert isinstance(dashboard["panels"], list)
    return dashboard["panels"]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], target["expr"]
    for variable in json.loads((MONITORING / "dashboard.json").read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]


def test_every_metric_and_label_that_is_named_exists(registry: CollectorRegistry) -> None:
    known = samples(registry)
    seen = 0
    for where, expr in expressions():
        for name, matchers in re.findall(r"\b((?:syncsvc|process)_\w+)(?:\{([^}]*)\})?", expr):
            assert name in known, f"{where}: {name} is no metric of ours"
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
                assert label in known[name] | LABELS, f"{where}: {name} has no label {label}"
            seen += 1
        for grouped in re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", expr):
            assert set(re.split(r",\s*", grouped)) <= set().union(*known.values()) | LABELS, where
        for used in re.findall(r"\{\{ ?\$?(?:labels\.)?(\w+) ?\}\}", expr):
            assert used in set().union(*known.values())
    assert seen > 40


def test_every_metric_of_ours_is_on_the_dashboard(registry: CollectorRegistry) -> None:
    shown = " ".join(expr for _, expr in expressions())
    for family in registry.collect():
        if family.name.startswith("syncsvc_"):
            assert family.name in shown, f"{family.name} is on no panel of docs/monitoring/dashboard.json"


def test_metrics_are_named_as_prometheus_names_them(registry: CollectorRegistry) -> None:
    for family in registry.collect():
        names = {sample.name for sample in family.samples}
        assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", family.name)
        assert family.documentation.endswith("."), family.name
        if family.type == "counter":
            assert all(name.endswith("_total") for name in names if not name.endswith("_created"))
        elif family.type == "gauge":
            assert not family.name.endswith(("_total", "_count", "_sum")), family.name
        assert not re.search(r"_(ms|milliseconds|minutes|hours|percent|kb|mb)(_|$)", family.name)


def test_every_alert_is_whole_and_has_its_entry_in_the_runbook() -> None:
    alerts = rules()
    assert len(alerts) >= 10
    for rule in alerts:
        assert rule.keys() == {"alert", "expr", "for", "severity", "summary", "description", "runbook"}
        assert rule["severity"] in {"critical", "warning"}
        assert re.fullmatch(r"\d+[mh]", rule["for"])
        assert rule["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    entries = re.findall(r"^### (Syncsvc\w+)$", OPERATIONS, re.MULTILINE)
    assert entries == [rule["alert"] for rule in alerts], (
        "one entry each in docs/operations.md, in their order"
    )
    for entry in entries:
        text = OPERATIONS.partition(f"### {entry}\n")[2].partition("\n#")[0]
        assert len(text.split()) > 15, f"{entry}: say what it means and what to do"
        assert "syncsvc" in text, f"{entry}: name the command"


def test_the_links_inside_the_runbook_lead_somewhere() -> None:
    titles = re.findall(r"^#+ (.+)$", OPERATIONS, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([\w-]+)\)", OPERATIONS)) <= anchors


def test_the_panels_of_the_dashboard_are_whole_and_stand_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


@pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: .ci/run takes it from Debian's package prometheus"
)
def test_promtool_agrees_with_rules_and_metrics() -> None:
    assert PROMTOOL is not None
    exposition = Metrics(version="1.0")
    exposition.observe(full_report())
    for arguments, text in (
        (["check", "rules", "alerts.yml"], b""),
        (["test", "rules", "alerts.test.yml"], b""),
        (["check", "metrics"], exposition.render()[0]),
    ):
        ran = subprocess.run(
            [PROMTOOL, *arguments], input=text, capture_output=True, cwd=MONITORING, check=False
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
