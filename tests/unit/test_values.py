from __future__ import annotations

import contextlib
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from syncsvc.model import FieldValue
from syncsvc.rules.values import (
    MAX_POINTS,
    UnreadableError,
    check_text,
    read_date,
    read_email,
    read_flag,
    read_instant,
    read_points,
    read_text,
)

SECOND = timedelta(seconds=1)
NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
EAST = timezone(timedelta(hours=2))

field_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@pytest.mark.parametrize(
    ("value", "points"),
    [
        (120, 120),
        (120.0, 120),
        (-0.0, 0),
        ("120", 120),
        (" 120 ", 120),
        ("120.0", 120),
        ("120.", 120),
        ("+7", 7),
        ("000000000000007", 7),
        (None, 0),
        ("", 0),
        ("  ", 0),
        (MAX_POINTS, MAX_POINTS),
        (str(MAX_POINTS), MAX_POINTS),
    ],
)
def test_a_whole_number_of_points_is_read_in_every_form(value: FieldValue, points: int) -> None:
    read = read_points(value)
    assert read == points
    assert type(read) is int


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (-1, "negative"),
        (-1.0, "negative"),
        ("-1", "negative"),
        (0.5, "whole"),
        ("0.5", "whole"),
        ("1,200", "whole"),
        ("1.200,0", "whole"),
        ("1e3", "whole"),
        ("1_000", "whole"),
        ("\u0661\u0662", "whole"),
        ("\u00b2", "whole"),
        (float("nan"), "whole"),
        (float("inf"), "whole"),
        ("many", "whole"),
        (True, "flag"),
        (MAX_POINTS + 1, "above"),
        (str(MAX_POINTS + 1), "above"),
        (1e300, "above"),
        ("9" * 30, "above"),
        ("9" * 5000, "whole"),
    ],
)
def test_what_is_no_total_of_points_is_refused(value: FieldValue, problem: str) -> None:
    with pytest.raises(UnreadableError, match=problem):
        read_points(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2024-01-31", "2024-01-31"),
        (" 2024-01-31 ", "2024-01-31"),
        ("2024-01-31T23:59:59.000+0000", "2024-01-31"),
        ("2024-01-31T23:59:59-11:00", "2024-01-31"),
        ("2024-01-31T00:30:00+14:00", "2024-01-31"),
        ("2024-01-31 08:00:00", "2024-01-31"),
        ("1706659200000", "2024-01-31"),
        (1706659200000, "2024-01-31"),
        (1706659200000.0, "2024-01-31"),
        ("-86400000", "1969-12-31"),
        ("0", "1970-01-01"),
        (None, ""),
        (" ", ""),
    ],
)
def test_a_date_is_read_as_written_and_never_shifted(value: FieldValue, expected: str) -> None:
    assert read_date(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "31-01-2024",
        "2024-02-30",
        "2024-1-5",
        "20240131",
        "2024-W05-3",
        "2024-01-31T25:00:00",
        "2024-01-31Tnoon",
        "1706659200",
        1706663265865,
        "9" * 17,
        "9" * 5000,
        "soon",
        True,
        0.5,
        "\u0662\u0660\u0662\u0664-01-31",
    ],
)
def test_what_is_no_plain_date_is_refused(value: FieldValue) -> None:
    with pytest.raises(UnreadableError):
        read_date(value)


def test_a_date_with_a_format_is_read_by_that_format_alone() -> None:
    assert read_date("31/01/2024", pattern="%d/%m/%Y") == "2024-01-31"
    assert read_date("", pattern="%d/%m/%Y") == ""
    with pytest.raises(UnreadableError, match="%d/%m/%Y"):
        read_date("2024-01-31", pattern="%d/%m/%Y")


@given(day=st.dates())
@example(day=date(1, 1, 1))
def test_every_day_of_the_calendar_survives_both_of_its_forms(day: date) -> None:
    assert read_date(day.isoformat()) == day.isoformat()
    milliseconds = (day - date(1970, 1, 1)).days * 86_400_000
    assert read_date(str(milliseconds)) == day.isoformat()


@pytest.mark.parametrize(
    ("value", "resolution"),
    [
        ("2026-03-01T12:00:00Z", SECOND),
        ("2026-03-01T12:00:00+0000", SECOND),
        ("2026-03-01T12:00:00+00:00", SECOND),
        ("2026-03-01T14:00:00+02:00", SECOND),
        ("2026-03-01T14:00:00+02", SECOND),
        ("2026-03-01 14:00:00 +0200", SECOND),
        ("2026-03-01 12:00:00", SECOND),
        (" 2026-03-01 12:00:00 ", SECOND),
        ("2026-03-01T12:00", timedelta(minutes=1)),
        ("2026-03-01T12:00:00.000000Z", SECOND),
        ("2026-03-01T12:00:00.000+0000", SECOND),
        (1772366400, SECOND),
        (1772366400.0, SECOND),
        ("1772366400", SECOND),
        ("1772366400.000", SECOND),
        (1772366400000, SECOND),
        ("1772366400000", SECOND),
    ],
)
def test_one_instant_is_read_from_every_form(value: object, resolution: timedelta) -> None:
    instant = read_instant(value)
    assert instant.at == NOON
    assert instant.at.tzinfo is UTC
    assert instant.resolution == resolution


@pytest.mark.parametrize(
    ("value", "microseconds", "resolution"),
    [
        ("2026-03-01T12:00:00.5Z", 500_000, timedelta(milliseconds=100)),
        ("2026-03-01T12:00:00.120Z", 120_000, timedelta(milliseconds=1)),
        ("2026-03-01T12:00:00.123456Z", 123_456, timedelta(microseconds=1)),
        ("2026-03-01T12:00:00.123456789Z", 123_456, timedelta(microseconds=1)),
        (1772366400123, 123_000, timedelta(milliseconds=1)),
        ("1772366400123", 123_000, timedelta(milliseconds=1)),
        (1772366400.25, 250_000, timedelta(milliseconds=1)),
        ("1772366400.25", 250_000, timedelta(milliseconds=1)),
    ],
)
def test_a_fraction_that_is_told_makes_the_resolution_finer(
    value: object, microseconds: int, resolution: timedelta
) -> None:
    instant = read_instant(value)
    assert instant.at == NOON.replace(microsecond=microseconds)
    assert instant.resolution == resolution


def test_a_time_without_zone_is_of_the_given_zone_and_one_with_a_zone_is_not() -> None:
    assert read_instant("2026-03-01 14:00:00", zone=EAST).at == NOON
    assert read_instant("2026-03-01T12:00:00Z", zone=EAST).at == NOON
    assert read_instant(1772366400, zone=EAST).at == NOON


def test_a_date_alone_is_its_midnight_in_the_zone_known_to_a_day() -> None:
    instant = read_instant("2026-03-01", zone=EAST)
    assert instant.at == datetime(2026, 2, 28, 22, tzinfo=UTC)
    assert instant.resolution == timedelta(days=1)


def test_an_hour_that_comes_twice_is_read_as_its_first() -> None:
    instant = read_instant("2026-10-25 02:30:00", zone=ZoneInfo("Europe/Amsterdam"))
    assert instant.at == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "yesterday",
        True,
        [],
        "2026-02-30 12:00:00",
        "2026-03-01T25:00:00Z",
        "2026-03-01T12:00:00+99:00",
        "2026-3-1",
        "1e9",
        float("nan"),
        float("inf"),
        10**17,
        "9" * 16,
        "0001-01-01T00:00:00+14:00",
        10**400,
    ],
)
def test_what_is_no_instant_is_refused(value: object) -> None:
    with pytest.raises(UnreadableError):
        read_instant(value)


@given(at=st.datetimes(min_value=datetime(1974, 1, 1), max_value=datetime(2100, 1, 1)))  # noqa: DTZ001 - the strategy adds the zone itself
def test_the_written_time_lies_within_the_resolution(at: datetime) -> None:
    at = at.replace(tzinfo=UTC)
    for text in (at.isoformat(), at.isoformat(sep=" "), at.isoformat(timespec="milliseconds")):
        instant = read_instant(text)
        assert instant.at <= at < instant.at + instant.resolution
    milliseconds = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    instant = read_instant(milliseconds)
    assert instant.at <= at < instant.at + instant.resolution


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (True, True),
        ("true", True),
        ("Yes", True),
        (1, True),
        (1.0, True),
        ("1", True),
        (False, False),
        ("False", False),
        ("no", False),
        (0, False),
        ("0", False),
        ("", False),
        (None, False),
    ],
)
def test_a_flag_is_read_in_every_form(value: FieldValue, *, flag: bool) -> None:
    assert read_flag(value) is flag


@pytest.mark.parametrize("value", ["maybe", 2, "on", -1.5])
def test_what_is_no_flag_is_refused(value: FieldValue) -> None:
    with pytest.raises(UnreadableError, match="neither true nor false"):
        read_flag(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (" Ann \t van\n\u00a0 Dam ", "Ann van Dam"),
        (120.0, "120"),
        (0.5, "0.5"),
        (7, "7"),
        (True, "true"),
        (False, "false"),
        (None, ""),
    ],
)
def test_text_is_trimmed_and_numbers_lose_an_empty_fraction(value: FieldValue, text: str) -> None:
    assert read_text(value) == text


def test_text_the_wallet_cannot_take_is_refused() -> None:
    assert check_text("x" * 255) == "x" * 255
    assert check_text("\U0001f600 \u200d \u0645") == "\U0001f600 \u200d \u0645"
    with pytest.raises(UnreadableError, match="longer than 255"):
        check_text("x" * 256)
    with pytest.raises(UnreadableError, match="control character"):
        check_text("a\x00b")
    with pytest.raises(UnreadableError, match="half a character"):
        check_text("Ann \ud83d")


@pytest.mark.parametrize(
    "email",
    ["a@b.co", "o'neil+x@sub.example.org", "j\u00f6rg@m\u00fcller.example", "a" * 242 + "@example.org"],
)
def test_a_plausible_email_is_taken_as_it_is(email: str) -> None:
    assert read_email(email) == email


@pytest.mark.parametrize(
    "email",
    [
        "",
        "a",
        "@b.co",
        "a@",
        "a@b",
        "a@@b.co",
        "a@b@c.co",
        "a b@c.co",
        "a@b..co",
        "a@.co",
        "a@co.",
        "a\x00@b.co",
        "a\u200b@b.co",
        "a\ud83d@b.co",
        "a\u00a0@b.co",
        "a" * 243 + "@example.org",
    ],
)
def test_an_implausible_email_is_refused(email: str) -> None:
    with pytest.raises(UnreadableError):
        read_email(email)


@given(value=field_values)
def test_any_value_is_read_or_refused_without_another_error(value: FieldValue) -> None:
    with contextlib.suppress(UnreadableError):
        assert 0 <= read_points(value) <= MAX_POINTS
    with contextlib.suppress(UnreadableError):
        assert check_text(read_text(value)).encode() is not None
    for read in (read_date, read_flag, read_instant):
        with contextlib.suppress(UnreadableError):
            read(value)


@given(value=st.text(min_size=13))
def test_a_refusal_never_repeats_the_value(value: str) -> None:
    for read in (read_points, read_date, read_flag, read_instant, read_email, check_text):
        try:
            read(value)
        except UnreadableError as error:
            message = str(error)
        else:
            message = ""
        assert value not in message
