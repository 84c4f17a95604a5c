"""Structured logs: one line per event, one shape for our events and those of libraries, no secret in any.

    our event ────────▸ context (organization, connector, cycle) ─▸ redaction ─▸ JSON or console ─▸ one stream
    library's record ─▸ the same, with the library's name as `logger`

Logging never raises, whatever the values and the stream.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.processors import ExceptionRenderer, TimeStamper, add_log_level
from structlog.stdlib import ProcessorFormatter
from structlog.tracebacks import ExceptionDictTransformer
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from syncsvc.errors import ConfigurationError
from syncsvc.watch.redaction import error_text, redact_secret, redacted

__all__ = ["QUIET", "Format", "bound", "configure", "logger", "redact_secret"]

Format = Literal["auto", "json", "console"]

QUIET = (
    "alembic",
    "apscheduler",
    "asyncio",
    "httpcore",
    "httpx",
    "requests",
    "simple_salesforce",
    "sqlalchemy",
    "urllib3",
    "uvicorn",
    "zeep",
)
"""Libraries that are heard from WARNING on only, whatever their loggers are set to.

Below it they log whole URLs, rows of the state, or every call.
"""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_MAX_FRAMES = 20
# Set by structlog and its formatter for the processors that follow; none of them is rendered as it is.
_INTERNAL = ("exc_info", "_record", "_from_structlog")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROL_BUT_LINES = {code: escape for code, escape in _CONTROL.items() if chr(code) not in "\n\t"}


def configure(*, format: Format, level: str, stream: TextIO | None = None) -> None:  # noqa: A002 - the setting's name
    """Make every event from now on, ours and the libraries', one redacted line on `stream`.

    `level` is the least that is heard: debug, info, warning, error or critical. `auto` is console where the
    stream is a terminal, else JSON. Without a stream, lines go to what is standard error when they are
    written. May be called again; the last call holds. Raises ConfigurationError for an unknown level.
    """
    number = _LEVELS.get(level.lower())
    if number is None:
        levels = ", ".join(_LEVELS)
        raise ConfigurationError([f'service.log_level: "{level}" is not a level; write one of {levels}'])
    output = _Output(stream)
    terminal = output.is_terminal()
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        add_log_level,
        TimeStamper(fmt="iso", utc=True),
        _redact,
    ]
    render: Processor
    if format == "console" or (format == "auto" and terminal):
        chain += [_Exceptions(ExceptionRenderer(_as_text)), _escape_controls]
        render = ConsoleRenderer(colors=terminal, exception_formatter=plain_traceback)
    else:
        as_dicts = ExceptionDictTransformer(show_locals=False, max_frames=_MAX_FRAMES, use_rich=False)
        chain += [_Exceptions(ExceptionRenderer(as_dicts))]
        render = _render_json
    structlog.configure(
        processors=[*chain, render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        context_class=dict,
        logger_factory=lambda *_: output,
        cache_logger_on_first_use=False,
    )
    bridge = _Bridge(output)
    bridge.setFormatter(
        ProcessorFormatter(
            foreign_pre_chain=[_as_foreign, *chain],
            processors=[ProcessorFormatter.remove_processors_meta, render],
        )
    )
    _join_libraries(bridge, number)


def logger() -> FilteringBoundLogger:
    """Return a logger that follows the configuration of the moment, also when it is kept.

    Events are constant snake_case, facts are keyword arguments. A line without `logger` is our own.
    """
    lazy: FilteringBoundLogger = structlog.get_logger()
    return lazy


@contextlib.contextmanager
def bound(**facts: object) -> Iterator[None]:
    """Let every event inside, also the libraries', carry these facts; the former ones are back afterwards.

    Holds for this thread and for asyncio tasks begun in it; a new thread begins without facts.
    """
    with structlog.contextvars.bound_contextvars(**facts):
        yield


def _join_libraries(bridge: _Bridge, level: int) -> None:
    root = logging.getLogger()
    for handler in [old for old in root.handlers if isinstance(old, _Bridge)]:
        root.removeHandler(handler)
    root.addHandler(bridge)
    root.setLevel(level)
    for library in QUIET:
        logging.getLogger(library).setLevel(max(level, logging.WARNING))
    logging.getLogger("psycopg").setLevel(max(level, logging.ERROR))  # it warns of what it raises besides
    logging.captureWarnings(capture=False)  # else a repeated call does nothing, even where its hook was lost
    logging.captureWarnings(capture=True)


def _as_foreign(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    """Name the library whose event it is; what its sentence quotes may be of a person."""
    event_dict["logger"] = event_dict["_record"].name
    event_dict["event"] = error_text("", str(event_dict.get("event")))
    return event_dict


def _redact(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    facts: EventDict = {
        "timestamp": event_dict.pop("timestamp"),
        "level": event_dict.pop("level"),
        "event": str(redacted(event_dict.pop("event", ""))),
    }
    internal = {key: event_dict.pop(key) for key in _INTERNAL if key in event_dict}
    facts.update(redacted(event_dict))
    facts.update(internal)
    return facts


class _Exceptions:
    """Puts the redacted form of `exc_info` under `exception`; local variables are never in it."""

    def __init__(self, render: ExceptionRenderer) -> None:
        self._render = render

    def __call__(self, wrapped: Any, method: str, event_dict: EventDict) -> EventDict:
        error = event_dict.get("exc_info")
        if not error:
            event_dict.pop("exc_info", None)
            return event_dict
        try:
            event_dict = self._render(wrapped, method, event_dict)
        except Exception:  # noqa: BLE001 - an error's own methods may raise anything, and logging must not
            event_dict["exception"] = f"<{type(error).__name__}, unreadable>"
        if "exception" in event_dict:
            # A frame's keys, such as `name`, are not about a person.
            event_dict["exception"] = redacted(_without_quotations(event_dict["exception"]), by_key=False)
        return event_dict


def _without_quotations(shown: Any) -> Any:
    """Return what the JSON form shows of an exception, without the values that its texts quote."""
    if not isinstance(shown, list):
        return shown
    for one in (it for it in shown if isinstance(it, dict)):
        one["exc_value"] = error_text(str(one.get("exc_type")), str(one.get("exc_value")))
        one["exc_notes"] = [error_text("", str(note)) for note in one.get("exc_notes") or ()]
        one["exceptions"] = [_without_quotations(inner) for inner in one.get("exceptions") or ()]
    return shown


def _as_text(exc_info: Any) -> str:
    """Return an exception as Python shows it, without the values that its texts quote."""
    parts = traceback.format_exception(*exc_info)
    return "".join(map(_part_without_quotations, parts)).rstrip("\n")


def _part_without_quotations(part: str) -> str:
    told = part.strip(" |+-\n")
    if told.startswith(("File ", "Traceback ")):
        return part
    kind = told.partition(":")[0].rpartition(".")[2]
    return error_text(kind, part.rstrip("\n")) + "\n"


def _escape_controls(_logger: object, _method: str, event_dict: EventDict) -> EventDict:
    # A text from outside must not pass for a line of ours, nor steer the terminal; what is nested is repr'd.
    error = event_dict.pop("exception", None)
    for key, value in event_dict.items():
        if isinstance(value, str):
            event_dict[key] = value.translate(_CONTROL)
    if error is not None:
        event_dict["exception"] = str(error).translate(_CONTROL_BUT_LINES)
    return event_dict


def _render_json(_logger: object, _method: str, event_dict: EventDict) -> str:
    try:
        return orjson.dumps(event_dict).decode()
    except TypeError:  # a lone surrogate, which UTF-8 cannot hold and an escape can
        return json.dumps(event_dict)


class _Output:
    """The one stream. A line that it will not take is lost: nobody is left to be told."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def is_terminal(self) -> bool:
        try:
            return bool((self._stream or sys.stderr).isatty())
        except (AttributeError, ValueError):  # no standard error at all, or one that is closed
            return False

    def write(self, line: str) -> None:
        with self._lock, contextlib.suppress(AttributeError, OSError, ValueError):
            stream = self._stream or sys.stderr
            try:
                stream.write(f"{line}\n")
            except UnicodeEncodeError:
                escaped = (letter if letter.isascii() else json.dumps(letter)[1:-1] for letter in line)
                stream.write(f"{''.join(escaped)}\n")
            stream.flush()

    debug = info = warning = error = critical = write  # the names that structlog calls


class _Bridge(logging.Handler):
    """Brings the records of the standard library's loggers to the same output."""

    def __init__(self, output: _Output) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelname in {"DEBUG", "INFO"} and str(record.name).partition(".")[0] in QUIET:
            return
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - arguments that do not fit their message, or worse
            unreadable = {"msg": "log_record_unreadable", "args": (), "exc_info": None, "exc_text": None}
            line = self.format(logging.makeLogRecord(record.__dict__ | unreadable))
        self._output.write(line)
