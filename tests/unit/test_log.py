from __future__ import annotations

import io
import logging
import sys
import threading
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from syncsvc.errors import ConfigurationError
from syncsvc.watch import log, redaction
from syncsvc.watch.redaction import MARK


@pytest.fixture(autouse=True)
def no_secrets_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_secrets", redaction._Secrets())


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Lines:
    """What has been written to a stream since it was configured."""

    def __init__(self, *, level: str = "info") -> None:
        self.stream = io.StringIO()
        log.configure(format="json", level=level, stream=self.stream)

    def all(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.stream.getvalue().splitlines()]

    def one(self) -> dict[str, Any]:
        (line,) = self.all()
        return line


def test_an_event_is_one_json_line_with_its_facts() -> None:
    lines = Lines()
    log.logger().info("batch_settled", batch="b-1", rows=2000)
    line = lines.one()
    stamp = datetime.fromisoformat(line.pop("timestamp"))
    assert stamp.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - stamp) < timedelta(minutes=1)
    assert line == {"level": "info", "event": "batch_settled", "batch": "b-1", "rows": 2000}


def test_a_librarys_record_joins_in_the_same_shape() -> None:
    lines = Lines()
    with log.bound(organization="acme"):
        logging.getLogger("some.vendor").warning("cannot reach %s", "https://x.test/a?b=c")
    line = lines.one()
    line.pop("timestamp")
    assert line == {
        "level": "warning",
        "event": "cannot reach https://x.test/a?[redacted]",
        "logger": "some.vendor",
        "organization": "acme",
    }


def test_bound_facts_hold_inside_and_the_former_ones_return() -> None:
    lines = Lines()
    with log.bound(organization="acme", cycle="c-1"):
        with log.bound(connector="crm", cycle="c-2"):
            log.logger().info("inner")
        log.logger().info("outer")
    log.logger().info("outside")
    inner, outer, outside = lines.all()
    assert (inner["organization"], inner["connector"], inner["cycle"]) == ("acme", "crm", "c-2")
    assert outer["cycle"] == "c-1"
    assert "connector" not in outer
    assert "organization" not in outside


def test_bound_facts_of_one_thread_do_not_reach_another() -> None:
    lines = Lines()
    with log.bound(organization="acme"):
        thread = threading.Thread(target=lambda: log.logger().info("elsewhere"))
        thread.start()
        thread.join()
    assert "organization" not in lines.one()


def test_bound_facts_are_redacted_like_others() -> None:
    lines = Lines()
    with log.bound(owner_email="ann@example.co"):
        log.logger().info("seen", note="for bo@example.co")
    assert (lines.one()["owner_email"], lines.one()["note"]) == (MARK, f"for {MARK}")


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical"])
def test_nothing_below_the_level_is_heard(level: str) -> None:
    levels = ["debug", "info", "warning", "error", "critical"]
    lines = Lines(level=level)
    library = logging.getLogger("some.vendor")
    for name in levels:
        getattr(log.logger(), name)("ours")
        getattr(library, name)("theirs")
    heard = levels[levels.index(level) :]
    assert [(line["level"], line["event"]) for line in lines.all()] == [
        (name, event) for name in heard for event in ("ours", "theirs")
    ]


def test_an_unknown_level_is_a_problem_of_the_configuration() -> None:
    with pytest.raises(ConfigurationError, match=r"service\.log_level.*loud.*debug, info"):
        log.configure(format="json", level="loud")


@pytest.mark.parametrize(
    "library", ["httpx", "httpcore.connection", "apscheduler.scheduler", "urllib3", "alembic"]
)
def test_a_chatty_library_is_heard_from_warning_on_only(library: str) -> None:
    lines = Lines(level="debug")
    logging.getLogger(library).info("HTTP Request: GET https://x.test")
    logging.getLogger(library).warning("trouble")
    assert lines.one()["event"] == "trouble"


def test_a_driver_that_warns_of_what_it_raises_is_heard_from_error_on_only() -> None:
    lines = Lines(level="debug")
    logging.getLogger("psycopg").warning("error ignored terminating a pipeline")
    logging.getLogger("psycopg").error("no way back")
    assert lines.one()["event"] == "no way back"


def test_a_chatty_library_is_no_louder_than_the_level() -> None:
    lines = Lines(level="error")
    logging.getLogger("httpx").warning("trouble")
    assert lines.all() == []


def test_a_warning_becomes_a_line_even_after_a_hook_was_lost() -> None:
    with warnings.catch_warnings():
        Lines()
    lines = Lines()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", UserWarning, stacklevel=1)
    assert "UserWarning: old thing" in lines.one()["event"]
    assert lines.one()["logger"] == "py.warnings"


def fail_with(secret: str) -> None:
    local = f"local {secret}"
    try:
        {}[local]
    except KeyError as error:
        raise RuntimeError(f"no answer for ann@example.co with {secret}") from error


def test_an_exception_is_told_whole_without_locals_and_secrets() -> None:
    lines = Lines()
    log.redact_secret("open-sesame-1")
    try:
        fail_with("open-sesame-1")
    except RuntimeError:
        log.logger().exception("cycle_failed")
        logging.getLogger("library").exception("it failed")
    for line in lines.all():
        outer, cause = line["exception"]
        assert (outer["exc_type"], outer["exc_value"]) == (
            "RuntimeError",
            f"no answer for {MARK} with {MARK}",
        )
        assert (cause["exc_type"], cause["is_cause"]) == ("KeyError", True)
        assert outer["frames"][-1]["name"] == "fail_with"
        assert outer["frames"][-1]["lineno"] > 0
        assert "sesame" not in str(line)
        assert all(frame.get("locals") is None for frame in outer["frames"])


def test_a_console_shows_the_same_without_secrets() -> None:
    stream = io.StringIO()
    log.configure(format="console", level="info", stream=stream)
    log.redact_secret("open-sesame-1")
    try:
        fail_with("open-sesame-1")
    except RuntimeError:
        log.logger().exception("cycle_failed", token="abc", rows=5)
    text = stream.getvalue()
    assert "cycle_failed" in text
    assert "rows=5" in text
    assert f"token={MARK}" in text
    assert f"RuntimeError: no answer for {MARK} with {MARK}" in text
    assert "sesame" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("form", "stream", "start"),
    [
        ("auto", io.StringIO, "{"),
        ("auto", Terminal, "\x1b"),
        ("json", Terminal, "{"),
        ("console", io.StringIO, "2"),
    ],
)
def test_auto_is_console_on_a_terminal_only(form: log.Format, stream: type[io.StringIO], start: str) -> None:
    opened = stream()
    log.configure(format=form, level="info", stream=opened)
    log.logger().info("started")
    assert opened.getvalue().startswith(start)


def test_a_text_from_outside_cannot_forge_a_line_or_steer_the_terminal() -> None:
    stream = io.StringIO()
    log.configure(format="console", level="info", stream=stream)
    logging.getLogger("library").warning("x\n2026-01-01 [info] all_is_well \x1b[2J\r")
    log.logger().error("failed", detail="\x1b[2J", inner=["\x1b[2J"], exc_info=ValueError("c\x1b[2J"))
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().splitlines()[0].count("all_is_well") == 1
    assert len(stream.getvalue().splitlines()) == 3


def test_the_last_configuration_holds_also_for_loggers_kept_from_before() -> None:
    first = Lines()
    kept = log.logger()
    kept.info("before")
    second = Lines(level="warning")
    kept.info("quiet")
    kept.warning("ours")
    logging.getLogger("library").warning("theirs")
    assert first.one()["event"] == "before"
    assert [line["event"] for line in second.all()] == ["ours", "theirs"]


def test_without_a_stream_lines_go_to_the_standard_error_of_the_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log.configure(format="json", level="info")
    later = io.StringIO()
    monkeypatch.setattr(sys, "stderr", later)
    log.logger().info("started")
    assert orjson.loads(later.getvalue())["event"] == "started"


class _Ascii(io.StringIO):
    def write(self, text: str) -> int:
        text.encode("ascii")
        return super().write(text)


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, f"No space left for {len(text)} characters")


def test_a_stream_that_breaks_or_is_closed_breaks_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (closed, _Full()):
        log.configure(format="auto", level="info", stream=stream)
        log.logger().info("lost")
        logging.getLogger("library").warning("lost too")
    assert capsys.readouterr() == ("", "")


def test_a_process_without_standard_error_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    log.configure(format="auto", level="info")
    log.logger().info("lost")


def test_letters_that_the_stream_does_not_know_are_escaped() -> None:
    stream = _Ascii()
    log.configure(format="json", level="info", stream=stream)
    log.logger().info("seen", place="Köln")
    assert orjson.loads(stream.getvalue())["place"] == "Köln"


class _BrokenError(Exception):
    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no notes")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize(
    "facts",
    [
        {"value": object()},
        {"value": "\ud800"},
        {"value": 1 << 80},
        {"value": float("nan")},
        {"value": {"\ud800": {1, 2}}},
        {"timestamp": object(), "level": b"x", "logger": None},
        {"exc_info": "odd"},
        {"exc_info": (1, 2, 3)},
        {"exc_info": (None, None, None)},
        {"exc_info": True},
        {"exc_info": False},
        {"exc_info": _BrokenError("x")},
        {"exception": {"name": "ann@example.co"}},
        {"stack_info": True, "_record": 1, "_from_structlog": 2},
    ],
)
def test_odd_facts_never_raise_and_never_lose_the_event(form: log.Format, facts: dict[str, Any]) -> None:
    stream = io.StringIO()
    log.configure(format=form, level="info", stream=stream)
    log.logger().info("seen", **facts)
    assert stream.getvalue().count("seen") == 1
    assert "ann@" not in stream.getvalue()


@pytest.mark.parametrize("event", [None, 5, {"a": 1}, "", "ann@example.co"])
def test_an_odd_event_never_raises(event: Any) -> None:
    lines = Lines()
    log.logger().info(event)
    assert isinstance(lines.one()["event"], str)
    assert "ann@" not in lines.one()["event"]


def test_a_record_that_cannot_be_formatted_is_told_without_its_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = Lines()
    (bridge,) = [handler for handler in logging.getLogger().handlers if isinstance(handler, log._Bridge)]
    ill_fitting = {"name": "library", "levelname": "WARNING", "msg": "%d of %d", "args": ("ann@example.co",)}
    bridge.handle(logging.makeLogRecord(ill_fitting))
    line = lines.one()
    assert (line["event"], line["logger"], line["level"]) == ("log_record_unreadable", "library", "warning")
    assert "ann@" not in lines.stream.getvalue()
    assert capsys.readouterr() == ("", "")


class _Piecemeal(io.StringIO):
    def write(self, text: str) -> int:
        return sum(super(_Piecemeal, self).write(letter) for letter in text)


def test_lines_of_many_threads_do_not_mix() -> None:
    stream = _Piecemeal()
    log.configure(format="json", level="info", stream=stream)
    together = threading.Barrier(4)

    def write() -> None:
        together.wait()
        for _ in range(25):
            log.logger().info("ours")
            logging.getLogger("library").warning("theirs")

    threads = [threading.Thread(target=write) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    events = [orjson.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert sorted(events) == ["ours"] * 100 + ["theirs"] * 100


def read_badly(form: log.Format) -> str:
    stream = io.StringIO()
    log.configure(format=form, level="info", stream=stream)
    try:
        try:
            float("Zebrawood 'Ann'")
        except ValueError as error:
            error.add_note('it was "Zebrawood"')
            raise KeyError("Zebrawood") from error
    except KeyError:
        log.logger().exception("cycle_failed", error=ValueError("not 'Zebrawood'"))
    group = ExceptionGroup("two", [ValueError("'Zebrawood'"), TypeError("'int' object is not callable")])
    logging.getLogger("library").error("failed", exc_info=group)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_an_exception_quotes_is_not_told_unless_it_is_about_code(form: log.Format) -> None:
    text = read_badly(form)
    told = [line for line in text.splitlines() if not line.startswith("    ")]  # but for lines of this file
    assert "Zebrawood" not in "".join(told)
    for said in ("could not convert string to float: [redacted]", "KeyError", "'int' object is not callable"):
        assert said in text


def test_a_chatty_library_that_somebody_turned_up_is_heard_from_warning_on_only() -> None:
    lines = Lines(level="debug")
    for library in log.QUIET:
        turned_up = logging.getLogger(f"{library}.inner")
        turned_up.setLevel(logging.DEBUG)
        turned_up.debug("rows")
        turned_up.info("urls")
        turned_up.setLevel(logging.NOTSET)
    assert lines.all() == []
