"""Redaction: what a log line or a health answer may show of a value.

Three nets, each for what slips through the others: by the key a value stands under, by the shape of a text,
and by the very secrets that were registered. They cover nested values and keys. An object that is no plain
value is shown by the name of its type alone, since a repr may hold anything.
"""

from __future__ import annotations

import builtins
import json
import re
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from pathlib import PurePath
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

from syncsvc import errors

MARK = "[redacted]"
"""What stands where something was removed."""

_MAX_SCANNED = 1 << 20
_MAX_TEXT = 8192
_MAX_DEPTH = 8
_MAX_VALUES = 5000
_MIN_INT, _MAX_INT = -(1 << 63), 1 << 64  # JSON numbers beyond 64 bits are refused by orjson
_SHORTEST_FORM = 4  # a shorter secret would tear holes into every line, and tell itself by them
_SHORTEST_LINE = 16

# A key is judged by its letters and digits alone: First_Name is firstname.
_PRIVATE_PARTS = re.compile(
    "token|secret|passw|passphrase|authorization|credential|cookie|apikey|privatekey|sessionid|email|phone"
    "|mobile|birth|licen[sc]eplate|firstname|lastname|fullname|surname|username|displayname"
)
_PRIVATE_KEYS = frozenset({"name", "mail", "auth", "session", "assertion", "signature", "body", "payload"})


def _without_user(url: re.Match[str]) -> str:
    _, at, rest = url[0].rpartition("@")
    return f"://{MARK}@{rest}" if at else url[0]


_CREDENTIAL = r"(?:token|secret|passw\w{0,16}|passphrase|assertion|signature|authorization|api_?key)"
_QUOTED = r"(?:\\.|(?!\2)[^\\])*"  # up to the quotation mark that is group 2
_LOCAL = r"[^\s\"<>(),:;@\[\]\\]"  # a character of an email address before its @
_LOCAL_START = rf"(?<!{_LOCAL})([`'{{|]{{0,2}})"  # only where a run begins, which keeps the search linear
# A text is searched for the pattern only where it holds the needle, which is much faster to look for. Every
# pattern is linear in the length of its text.
_SHAPES: tuple[tuple[str, str, str | Callable[[re.Match[str]], str]], ...] = (
    ("-----BEGIN", r"(?s:-----BEGIN [^-]*PRIVATE KEY-----.*?(?:-----END[^-]*-----|\Z))", MARK),
    ("[parameters: ", r"\[parameters: [^\n]*", f"[parameters: {MARK}]"),  # SQLAlchemy: the row's values
    ("DETAIL:", r"DETAIL:[^\n]*", f"DETAIL: {MARK}"),  # PostgreSQL: the row's values
    ("://", r"://[^\s?#\"<>]+", _without_user),
    ("?", r"\?(?=[^\s?\"<>=]*=)[^\s\"<>]+", f"?{MARK}"),
    ("=", rf"(?i:({_CREDENTIAL}=)(?:([\"']){_QUOTED}|[^\s&\"',;]+))", rf"\g<1>{MARK}"),
    (":", rf"(?i:({_CREDENTIAL}\\?[\"']\s*:\s*b?\\?([\"'])){_QUOTED})", rf"\g<1>{MARK}"),
    (" ", r"(?i:\b(bearer|basic(?=\s+[a-z0-9+/=]{16}))\s+[^\s\"',]{6,})", rf"\g<1> {MARK}"),
    ("00D", r"\b00D\w{9,15}(?:!|%21)[\w.%-]+", MARK),  # a Salesforce session id
    ("-", r"(?i:\bpat-[a-z0-9]{2,8}-[\w-]{8,})", MARK),  # a HubSpot token
    ("eyJ", r"(?<![\w-])eyJ[\w-]{8,}(?:\.[\w-]+)+", MARK),  # a JSON Web Token
    ("@", rf"{_LOCAL_START}{_LOCAL}+@[\w.-]+", rf"\g<1>{MARK}"),
    ("%", rf"{_LOCAL_START}{_LOCAL}+%(?:25)*40[\w.-]+", rf"\g<1>{MARK}"),
    ("+", r"\+[1-9]\d{7,14}(?!\d)", MARK),  # a phone number
)
_QUOTATION = re.compile(r"(?s:(?<!\w)([\"'])(?:\\.|(?!\1(?!\w)).)*(?:\1|\Z))")
# Raised by Python about code and files, not about what a person typed.
_ABOUT_CODE = (AttributeError, ImportError, MemoryError, NameError, NotImplementedError, OSError, TypeError)
_TELLING = frozenset(
    name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, _ABOUT_CODE)
) | {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
_RULES = tuple((needle, re.compile(pattern), replacement) for needle, pattern, replacement in _SHAPES)


class _Secrets:
    """The exact strings that nothing may show."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: frozenset[str] = frozenset()
        self.shortest = sys.maxsize
        self.pattern = re.compile(r"(?!)")

    def add(self, value: str) -> None:
        texts = [value, *(line for line in value.splitlines() if len(line) >= _SHORTEST_LINE)]
        forms = {
            form
            for text in texts
            for form in (
                text,
                quote(text, safe=""),
                quote_plus(text),
                json.dumps(text)[1:-1],
                repr(text)[1:-1],
            )
        }
        with self._lock:
            self._forms |= {form for form in forms if len(form) >= _SHORTEST_FORM}
            longest_first = sorted(self._forms, key=lambda form: (-len(form), form))
            if longest_first:
                self.pattern = re.compile("|".join(map(re.escape, longest_first)))
                self.shortest = len(longest_first[-1])


_secrets = _Secrets()


def redact_secret(value: str) -> None:
    """Remove this very string, also URL-encoded or escaped, from everything that is shown from now on.

    So is each long line of a text of several lines (a private key). A string of fewer than four characters
    is left alone.
    """
    _secrets.add(value.strip())


def redacted(value: object, *, by_key: bool = True) -> Any:
    """Return the value as it may be shown: plain JSON types, without secrets and personal data.

    Without `by_key`, keys do not condemn their values. Texts are cut at 8,192 characters; what lies below the
    eighth level, or past the five-thousandth value, is only counted. Times become ISO text in UTC, durations
    seconds. Never raises.
    """
    return _Showing(by_key=by_key).show(value, 0)


def error_text(kind: str, text: str) -> str:
    """Return what an exception says, by the name of its class, without the values that it quotes.

    Python quotes what it could not read (`could not convert string to float: 'Ann'`), and that may be of a
    person. What our own errors quote is no such thing, and what concerns code and files is needed.
    """
    return text if kind in _TELLING else _QUOTATION.sub(MARK, text)


class _Showing:
    """Shows one value, within a budget for all that it holds."""

    def __init__(self, *, by_key: bool) -> None:
        self._by_key = by_key
        self._left = _MAX_VALUES

    def show(self, value: object, depth: int) -> Any:
        self._left -= 1
        try:
            if isinstance(value, Enum):
                value = value.value
            if isinstance(value, str):
                return _scrub(str.__str__(value))
            if isinstance(value, Mapping | list | tuple | AbstractSet) and not hasattr(value, "_fields"):
                return self._show_collection(value, depth)
            return _show_single(value)
        except Exception:  # noqa: BLE001 - a value's own methods may raise anything, and this must not
            return f"<{type(value).__name__}, unreadable>"

    def _show_collection(self, value: Collection[object], depth: int) -> Any:
        if depth >= _MAX_DEPTH or self._left <= 0:
            return f"<{type(value).__name__} of {len(value)}>"
        if isinstance(value, Mapping):
            return self._show_mapping(value, depth + 1)
        items: list[Any] = []
        for item in value:
            if self._left <= 0:
                items.append(f"<{len(value) - len(items)} more>")
                break
            items.append(self.show(item, depth + 1))
        return items

    def _show_mapping(self, value: Mapping[Any, object], depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for key, item in value.items():
            if self._left <= 0:
                shown["..."] = f"<{len(value) - len(shown)} more>"
                break
            name = _scrub(key) if type(key) is str else str(self.show(key, _MAX_DEPTH))
            if self._by_key and _is_private(name) and item is not None and not isinstance(item, bool):
                shown[name] = MARK
            else:
                shown[name] = self.show(item, depth)
        return shown


def _show_single(value: object) -> Any:
    shown: Any = f"<{type(value).__module__}.{type(value).__qualname__}>"
    match value:
        case None | bool():
            shown = value
        case int():
            shown = int(value) if _MIN_INT <= value < _MAX_INT else _cut(hex(value))
        case float():
            shown = float(value)
        case date() | time() | timedelta():
            shown = _show_time(value)
        case UUID() | PurePath() | Decimal():
            shown = _scrub(str(value))
        case BaseException():
            kind = type(value).__name__
            shown = f"{kind}: {_scrub(error_text(kind, str(value)))}"
        case type():
            shown = f"<{value.__module__}.{value.__qualname__}>"
        case bytes() | bytearray():
            shown = f"<{len(value)} bytes>"
    return shown


def _show_time(value: date | time | timedelta) -> str | float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime) and value.tzinfo:
        value = value.astimezone(UTC)
    return value.isoformat()


def _scrub(text: str) -> str:
    if len(text) > _MAX_SCANNED:
        text = text[:_MAX_SCANNED]
    if len(text) >= _secrets.shortest:
        text = _secrets.pattern.sub(MARK, text)
    if not (text.isidentifier() or text.isalnum()):  # no shape fits a bare word
        for needle, pattern, replacement in _RULES:
            if needle in text:
                text = pattern.sub(replacement, text)
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}... <cut>"


@lru_cache(maxsize=4096)
def _is_private(key: str) -> bool:
    bare = "".join(filter(str.isalnum, key)).lower()
    return bare in _PRIVATE_KEYS or _PRIVATE_PARTS.search(bare) is not None
