"""`docs/log-events.md` is what the code logs: the calls in the source against the tables of the page."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TypeGuard

import pytest

from syncsvc.watch.report import CycleReport

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "log-events.md"
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
OF_LIBRARIES = {"log_record_unreadable"}  # made by the bridge from a library's record, not by a call
REPORTED = {"report.facts()": {part.name for part in fields(CycleReport)}}
"""What may be splatted into an event, beside a dict that is written out in the same function."""


@dataclass
class Event:
    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    places: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """The line of the page that this event needs."""
        shown = " ".join(f"`{it}`" for it in sorted(self.fields))
        return f"| `{name}` | {' '.join(sorted(self.levels))} | {shown} | WHAT IT MEANS | WHAT TO DO |"


class UncheckableError(Exception):
    pass


def is_logger(node: ast.AST) -> bool:
    """Whether an expression is a logger of ours: the module's `log`, or `logger()`."""
    if isinstance(node, ast.Name):
        return node.id in {"log", "_log"}
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "logger"


def events_of(source: str, where: str) -> Iterator[tuple[str, str, set[str], str]]:
    """Yield name, level, fields and place of every event that a module can log."""
    tree = ast.parse(source)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for scope in ast.walk(tree):
        if is_tell(scope) and id(scope) not in called:
            raise UncheckableError(f"{where}:{scope.lineno}: call log.{scope.attr}(...) right there")
        if isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _events_in(scope, where)


def is_tell(node: ast.AST) -> TypeGuard[ast.Attribute]:
    """Whether an expression is the method of a logger of ours that tells an event."""
    return isinstance(node, ast.Attribute) and is_logger(node.value) and node.attr in LEVELS


def _events_in(
    scope: ast.FunctionDef | ast.AsyncFunctionDef, where: str
) -> Iterator[tuple[str, str, set[str], str]]:
    written = _dicts_in(scope)
    for node in ast.walk(scope):
        if not (isinstance(node, ast.Call) and is_tell(node.func)):
            continue
        place = f"{where}:{node.lineno}"
        if not (len(node.args) == 1 and isinstance(node.args[0], ast.Constant)):
            raise UncheckableError(f"{place}: the event must be one constant word")
        found: set[str] = set()
        for keyword in node.keywords:
            names = {keyword.arg} if keyword.arg else written.get(ast.unparse(keyword.value))
            if names is None:
                raise UncheckableError(
                    f"{place}: write the fields out, or in a dict of constant keys beside it"
                )
            found |= names
        if node.func.attr == "exception" or "exc_info" in found:
            found = found - {"exc_info"} | {"exception"}
        yield (
            str(node.args[0].value),
            {"exception": "error"}.get(node.func.attr, node.func.attr),
            found,
            place,
        )


def _dicts_in(scope: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, set[str]]:
    """Return the keys of the dicts that a function writes out, by the name it gives them."""
    known = dict(REPORTED)
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            names = {str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)}
            if len(names) == len(node.value.keys):
                known |= {target.id: names for target in node.targets if isinstance(target, ast.Name)}
    return known


def in_code() -> dict[str, Event]:
    found: dict[str, Event] = defaultdict(Event)
    for path in sorted([*ROOT.glob("syncsvc/**/*.py"), *ROOT.glob("connectors/**/*.py")]):
        where, source = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        if "logger()" not in source:
            continue
        for name, level, names, place in events_of(source, where):
            found[name].levels.add(level)
            found[name].fields |= names
            if place not in found[name].places:
                found[name].places.append(place)
    return dict(found)


def on_page(text: str) -> dict[str, tuple[set[str], set[str], str, str]]:
    """Return levels, fields, meaning and advice by event, as the tables of the page say."""
    rows = re.findall(r"^\| `(\w+)` \| ([\w ]+?) \|((?: ?`\w+`)*) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    assert len(rows) == text.count("\n| `"), "a line of a table is not in the form of the others"
    return {
        name: (set(levels.split()), set(re.findall(r"`(\w+)`", names)), means, do)
        for name, levels, names, means, do in rows
    }


def differences(
    code: Mapping[str, Event], page: Mapping[str, tuple[set[str], set[str], str, str]]
) -> list[str]:
    said = []
    for name, event in code.items():
        row = event.row(name)
        if name not in page:
            said.append(f"add to docs/log-events.md, with what it means ({', '.join(event.places)}):\n{row}")
        elif page[name][:2] != (event.levels, event.fields):
            said.append(f"docs/log-events.md must say of `{name}` ({', '.join(event.places)}):\n{row}")
    gone = page.keys() - code.keys() - OF_LIBRARIES
    return said + [f"take the line of `{name}` out of docs/log-events.md: nothing logs it" for name in gone]


def test_the_page_lists_every_event_with_its_level_and_fields_and_no_other() -> None:
    code = in_code()
    assert len(code) > 30
    found = differences(code, on_page(PAGE.read_text(encoding="utf-8")))
    assert not found, "\n" + "\n".join(found)


def test_every_event_says_what_it_means_and_what_to_do_and_leads_to_pages_that_exist() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, (_, _, means, do) in on_page(text).items():
        assert len(means) > 10, name
        assert do, name
        assert "WHAT" not in means + do, name
    for target, anchor in re.findall(r"\]\(([\w./-]+)(?:#([\w-]+))?\)", text):
        page = (PAGE.parent / target).read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
        assert not anchor or anchor in anchors, f"{target}#{anchor}"


A_MODULE = """
log = logger()
def tell(error):
    facts = {"rows": 1, "points": 2}
    log.warning("rows_left", **facts, remedy="none")
    try:
        logger().error("page_failed", exc_info=True)
    except ValueError:
        log.exception("cycle_failed")
"""


def test_calls_are_found_with_their_fields() -> None:
    found = {name: (level, names) for name, level, names, _ in events_of(A_MODULE, "a.py")}
    assert found == {
        "rows_left": ("warning", {"rows", "points", "remedy"}),
        "page_failed": ("error", {"exception"}),
        "cycle_failed": ("error", {"exception"}),
    }


@pytest.mark.parametrize(
    "line",
    ['log.info(f"made_{x}")', "log.info(name)", 'log.info("made", **x)', "tell = log.info", "x(log.error)"],
)
def test_a_call_that_cannot_be_checked_is_refused(line: str) -> None:
    with pytest.raises(UncheckableError, match=r"a\.py:2"):
        list(events_of(f"def tell(x):\n    {line}\n", "a.py"))


def test_a_difference_says_the_line_to_write() -> None:
    event = Event({"warning", "debug"}, {"rows", "batch"}, ["a.py:3"])
    row = "| `rows_left` | debug warning | `batch` `rows` | WHAT IT MEANS | WHAT TO DO |"
    assert differences({"rows_left": event}, {})[0].endswith(row)
    page = on_page(f"\n{row}\n")
    assert differences({"rows_left": event}, page) == []
    event.fields.add("points")
    assert "`batch` `points` `rows`" in differences({"rows_left": event}, page)[0]
    assert differences({}, page) == [
        "take the line of `rows_left` out of docs/log-events.md: nothing logs it"
    ]


def test_only_the_log_module_names_the_logging_library() -> None:
    for path in [*ROOT.glob("syncsvc/**/*.py"), *ROOT.glob("connectors/**/*.py")]:
        source = path.read_text(encoding="utf-8")
        if path.name == "log.py" and path.parent.name == "watch":
            continue
        assert "import structlog" not in source, path
        assert not re.search(r"logging\.(debug|info|warning|error|exception|critical|log)\(", source), path
