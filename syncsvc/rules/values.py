"""Reads what CRMs and the wallet write as numbers, dates, times, flags, texts and emails.

Every reader takes a value as it came and returns it in our form, or raises UnreadableError with a phrase that
follows the field's name ("is not a whole number") and never repeats the value.
"""

from __future__ import annotations

import math
import re
import unicodedata
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import NamedTuple

from syncsvc.model import FieldValue

MAX_POINTS = 2_147_483_647  # no limit is published; a signed 32-bit column is the least that must be expected
MAX_TEXT = 255  # no limit is published; the customary length of a text column
MAX_EMAIL = 254  # RFC 5321 with its erratum 1690

_SURE = 9  # digits that no total above MAX_POINTS has
_DAY_MS = 86_400_000
_MS_FROM = 100_000_000_000  # as seconds that is the year 5138, as milliseconds 1973
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_WHOLE = re.compile(r"([+-]?)([0-9]{1,30})(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?[0-9]{1,16}(?:\.([0-9]{1,9}))?")
_INSTANT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[T ][0-9]{2}:[0-9]{2}(?P<seconds>:[0-9]{2}(?:\.(?P<fraction>[0-9]{1,9}))?)?"
    r" ?(?P<zone>Z|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_USUAL = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_USUAL_EMAIL = re.compile(r"[a-z0-9._+-]{1,64}@(?:[a-z0-9-]{1,60}\.){1,3}[a-z]{2,}")
_TRUE = frozenset({"true", "1", "yes"})
_FALSE = frozenset({"false", "0", "no", ""})


class UnreadableError(ValueError):
    """A value that is not what its field needs; the message is a phrase without the value."""


class Instant(NamedTuple):
    """A time, and how finely its writer told it: the truth lies in `[at, at + resolution)`."""

    at: datetime
    resolution: timedelta


def tell_the_same(one: str | None, other: str | None, *, zone: tzinfo) -> bool:
    """Return whether two different texts can tell one and the same time, each as exactly as it does."""
    if one is None or other is None or one == other:
        return False
    try:
        first, second = read_instant(one, zone=zone), read_instant(other, zone=zone)
    except UnreadableError:
        return False
    return first.at < second.at + second.resolution and second.at < first.at + first.resolution


def read_text(value: FieldValue) -> str:
    """Return the value as trimmed text, runs of white space as one space; nothing is "".

    Whole floats lose their ".0" (Salesforce sends every number as a double), flags are "true" and "false".
    """
    return " ".join(value.split()) if type(value) is str else clean(write_text(value))


def write_text(value: FieldValue) -> str:
    """Return the value as text, as it stands."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def clean(text: str) -> str:
    """Return the text trimmed, with runs of white space as one space."""
    return " ".join(text.split())


def check_text(text: str) -> str:
    """Return the text, which the wallet can take; raises UnreadableError where it is too long or not text."""
    if len(text) > MAX_TEXT:
        raise UnreadableError(f"is longer than {MAX_TEXT} characters")
    if not text.isprintable():
        for character in text:
            category = unicodedata.category(character)
            if category == "Cs":
                raise UnreadableError("holds half a character, as a cut emoji leaves it")
            if category == "Cc":
                raise UnreadableError("holds a control character")
    return text


def read_email(value: FieldValue) -> str:
    """Return the value as text that can be an email address; raises UnreadableError where it cannot."""
    if type(value) is str and len(value) <= MAX_EMAIL and _USUAL_EMAIL.fullmatch(value) is not None:
        return value  # what nearly all of them are
    text = read_text(value)
    if not text:
        raise UnreadableError("is empty")
    if len(text) > MAX_EMAIL:
        raise UnreadableError(f"is longer than {MAX_EMAIL} characters")
    local, at, domain = text.partition("@")
    if not local or not at or "@" in domain:
        raise UnreadableError("is not an email address: it needs exactly one @ with a name before it")
    if "." not in domain or ".." in domain or domain[0] == "." or domain[-1] == ".":
        raise UnreadableError("is not an email address: what follows the @ is no domain with a dot")
    if " " in text or not text.isprintable():
        raise UnreadableError("is not an email address: it holds white space or a control character")
    return text


def read_points(value: FieldValue) -> int:
    """Return a total of points, 0 to MAX_POINTS; an empty one is 0: nothing has been earned.

    Takes whole numbers as int, float and text ("120", "120.0"). Raises UnreadableError for fractions,
    negative totals, flags, and anything else.
    """
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= _SURE:
        return int(value)  # what nearly all of them are
    if value is None or value == "":
        return 0
    if isinstance(value, bool):
        raise UnreadableError("is a flag, not a number of points")
    if isinstance(value, str):
        number = _whole(value)
    elif isinstance(value, float):
        if not math.isfinite(value) or not value.is_integer():
            raise UnreadableError("is not a whole number of points")
        number = int(value)
    else:
        number = value
    if number < 0:
        raise UnreadableError("is negative; a total of earned points never is")
    if number > MAX_POINTS:
        raise UnreadableError(f"is above {MAX_POINTS} points")
    return number


def _whole(text: str) -> int:
    text = text.strip()
    if not text:
        return 0
    found = _WHOLE.fullmatch(text)
    if found is None:
        raise UnreadableError("is not a whole number of points")
    return int(found[1] + found[2])


def read_flag(value: FieldValue) -> bool:
    """Return a yes or no, from a flag or true/1/yes/false/0/no; an empty value is no.

    Raises UnreadableError for anything else.
    """
    if isinstance(value, bool):
        return value
    text = read_text(value).lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise UnreadableError("is neither true nor false")


def read_date(value: FieldValue, *, pattern: str | None = None) -> str:
    """Return a plain date as YYYY-MM-DD, "" where there is nothing.

    Takes YYYY-MM-DD, a time in ISO form (its date as written, never shifted to another zone), and
    milliseconds since 1970 at midnight UTC (HubSpot's form of a date); with `pattern` only text in that
    strptime format. Raises UnreadableError for anything else.
    """
    if isinstance(value, bool):
        raise UnreadableError("is a flag, not a date")
    text = value.strip() if isinstance(value, str) else write_text(value)
    if not text:
        return ""
    if pattern is not None:
        return _patterned(text, pattern)
    digits = text.removeprefix("-")
    try:
        if _INSTANT.fullmatch(text):
            datetime.fromisoformat(text.replace(" ", "T", 1).replace(" ", ""))
            return text[:10]
        if digits.isascii() and digits.isdigit():
            return _midnight(int(text))
    except (ValueError, OverflowError) as error:
        raise UnreadableError(
            str(error) if isinstance(error, UnreadableError) else "is no day of the calendar"
        ) from None
    raise UnreadableError("is not a date; YYYY-MM-DD is understood, for others give a format")


def _midnight(milliseconds: int) -> str:
    days, rest = divmod(milliseconds, _DAY_MS)
    if rest:
        raise UnreadableError("is not a date: as milliseconds it is not at midnight UTC; give a format")
    return (date(1970, 1, 1) + timedelta(days=days)).isoformat()


def _patterned(text: str, pattern: str) -> str:
    try:
        return datetime.strptime(text, pattern).date().isoformat()  # noqa: DTZ007 - only its date is used
    except ValueError:
        raise UnreadableError(f"is not a date of the format {pattern}") from None


def read_instant(value: object, *, zone: tzinfo = UTC) -> Instant:
    """Return the time a log entry tells, with its resolution; `zone` is that of texts that carry none.

    Takes ISO times (Z, +0000, +00:00 or no zone; T or a space), dates alone, and seconds or milliseconds
    since 1970 as int, float or text. The resolution errs to the coarse side: a fraction of zeros
    says nothing, for servers print ".000000Z" over columns of whole seconds. An hour that the zone has
    twice is read as its first. Raises UnreadableError for anything else.
    """
    try:
        return _instant(value, zone)
    except (ValueError, OverflowError) as error:
        raise UnreadableError(
            str(error) if isinstance(error, UnreadableError) else "is no time of the calendar"
        ) from None


@lru_cache(maxsize=1024)  # members of one import have one time
def instant_or_none(text: str, *, zone: tzinfo) -> Instant | None:
    """Return the time that a text of the log tells, or None where it tells none; as `read_instant`."""
    try:
        return read_instant(text, zone=zone)
    except UnreadableError:
        return None


def _instant(value: object, zone: tzinfo) -> Instant:
    if type(value) is str and _USUAL.fullmatch(value) is not None:
        return Instant(datetime.fromisoformat(value), _SECOND)  # what nearly all of them are
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _epoch(value, whole=isinstance(value, int) or value.is_integer())
    text = value.strip() if isinstance(value, str) else ""
    written = _INSTANT.fullmatch(text)
    if written is not None:
        return _written(written, zone)
    number = _NUMBER.fullmatch(text)
    if number is None:
        raise UnreadableError("is not a time in a form that is understood")
    if (number[1] or "").strip("0"):
        return _epoch(float(text), whole=False)
    return _epoch(int(text.partition(".")[0]), whole=True)


def _epoch(value: float, *, whole: bool) -> Instant:
    if not math.isfinite(value):
        raise UnreadableError("is not a time in a form that is understood")
    if abs(value) >= _MS_FROM:
        resolution = _SECOND if value % 1000 == 0 else timedelta(milliseconds=1)
        return Instant(_EPOCH + timedelta(milliseconds=value), resolution)
    return Instant(_EPOCH + timedelta(seconds=value), _SECOND if whole else timedelta(milliseconds=1))


def _written(found: re.Match[str], zone: tzinfo) -> Instant:
    text = found[0].replace(" ", "T", 1) if found[0][10:11] == " " else found[0]
    at = datetime.fromisoformat(text.replace(" ", ""))
    if at.tzinfo is None:
        at = at.replace(tzinfo=zone)
    return Instant(at.astimezone(UTC), _resolution(found))


def _resolution(found: re.Match[str]) -> timedelta:
    if len(found[0]) == len("YYYY-MM-DD"):
        return timedelta(days=1)
    if found["seconds"] is None:
        return timedelta(minutes=1)
    fraction = found["fraction"]
    if fraction is None or not fraction.strip("0"):
        return _SECOND
    return timedelta(microseconds=10 ** max(0, 6 - len(fraction)))
