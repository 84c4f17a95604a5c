from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePosixPath
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncsvc.errors import TransientError
from syncsvc.model import Contact, Written
from syncsvc.watch import redaction
from syncsvc.watch.redaction import MARK, redact_secret, redacted

SESSION = "00D5g000004Abcd!AQ4AQFk.9_zYx8wVu7tSrQ"
HUBSPOT = "pat-na1-1f2e3d4c-aaaa-bbbb-cccc-123456789abc"


@pytest.fixture(autouse=True)
def _no_secret_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_secrets", redaction._Secrets())


@pytest.mark.parametrize(
    "key",
    [
        "token",
        "wallet_token",
        "client_secret",
        "Password",
        "X-Authorization",
        "email",
        "Email__c",
        "name",
        "First_Name",
        "lastname",
        "phone_number",
        "MobilePhone",
        "birthday",
        "licenseplate",
        "License_Plate__c",
        "username",
        "sessionId",
        "api_key",
        "body",
        "Set-Cookie",
    ],
)
def test_a_private_key_condemns_its_value_whatever_it_is(key: str) -> None:
    for value in ("plain", 4915112345678, ["a"], {"b": "c"}):
        assert redacted({"inner": [{key: value}]}) == {"inner": [{key: MARK}]}


@pytest.mark.parametrize(
    "key",
    ["organization", "connector", "cycle", "record_id", "rows_sent", "write_back_failed", "template", "path"],
)
def test_an_ordinary_key_leaves_its_value(key: str) -> None:
    assert redacted({key: "value"}) == {key: "value"}


def test_whether_a_private_value_is_there_may_be_told() -> None:
    assert redacted({"token": None, "welcome_email": True}) == {"token": None, "welcome_email": True}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted]"),
        ("sent BEARER abcdefgh ok", "sent BEARER [redacted] ok"),
        ("Basic dXNlcjpwYXNzd29yZA==", "Basic [redacted]"),
        (f"session {SESSION} expired", "session [redacted] expired"),
        (f"sid={SESSION.replace('!', '%21')}", "sid=[redacted]"),
        (f"key {HUBSPOT}.", "key [redacted]."),
        ("jwt eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJ4In0.c2ln end", "jwt [redacted] end"),
        ("user ann.o'neill+x@mail.example.co refused", "user [redacted] refused"),
        ("('ann@example.co', 'bo@example.co')", "('[redacted]', '[redacted]')"),
        ("to user=ann@example.co: refused", "to [redacted]: refused"),
        ("password='two words' x", "password=[redacted]' x"),
        ("""{'password': "it's", 'n': 1}""", """{'password': "[redacted]", 'n': 1}"""),
        ("ända@müller.example", "[redacted]"),
        ("/log/ann%40example.co/x", "[redacted]/x"),
        ("/log/ann%2540example.co", "[redacted]"),
        ("GET https://api.test/log?brand=1&q=x 200", "GET https://api.test/log?[redacted] 200"),
        ("url: /query?q=SELECT+Id+WHERE+Name='Ann' (x)", "url: /query?[redacted] (x)"),
        ("postgresql+psycopg://joe:s3cr3t@db/x", "postgresql+psycopg://[redacted]@db/x"),
        ("postgresql://joe:s3/cr3t@db/x", "postgresql://[redacted]@db/x"),
        ("grant_type=password&client_secret=abc&x=1", "grant_type=password&client_secret=[redacted]&x=1"),
        ('{"access_token": "two words", "n": 1}', '{"access_token": "[redacted]", "n": 1}'),
        (r'b"{\"password\": \"abc\"}"', r'b"{\"password\": \"[redacted]"'),
        ("Authorization': b'abc'", "Authorization': b'[redacted]'"),
        ("called +4915112345678 twice", "called [redacted] twice"),
        ("x\nDETAIL:  Key (e)=(Ann) exists.\ny", "x\nDETAIL: [redacted]\ny"),
        ("[SQL: INSERT]\n[parameters: ('Ann', 1)]\nend", "[SQL: INSERT]\n[parameters: [redacted]]\nend"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b", "a [redacted] b"),
    ],
)
def test_a_text_is_cleared_of_what_looks_private(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted({"a": [text]}) == {"a": [shown]}


@pytest.mark.parametrize(
    "text",
    [
        "batch_settled",
        "0035g00000AbCdEAAV",
        "crm: contact 0035g00000AbCdEAAV: UNABLE_TO_LOCK_ROW",
        "wallet.token: environment variable ACME_WALLET_TOKEN is not set",
        'give exactly one of { env = "NAME" } and { file = "path" }',
        "wallet.token is refused (401); use a bearer token with ability import",
        "2026-11-22T10:00:00.123456+00:00",
        "2026-11-22T10:00:00.000+0000 2026-11-22",
        "https://api.walletapp.co/v2/import",
        "is it there? a = b",
        "POST /v2/import: no answer (ReadTimeout)",
        "C:\\state\\syncsvc.db",
    ],
)
def test_what_an_operator_needs_stays_readable(text: str) -> None:
    assert redacted(text) == text


def test_an_address_used_as_a_key_is_removed() -> None:
    assert redacted({"ann@example.co": 3}) == {MARK: 3}


def test_a_registered_secret_is_removed_in_all_its_spellings() -> None:
    secret = 'p/ss "w\\rd" ü&1'
    redact_secret(f" {secret}\n")
    for spelling in (
        secret,
        "p%2Fss+%22w%5Crd%22+%C3%BC%261",
        "p%2Fss%20%22w%5Crd%22%20%C3%BC%261",
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
    ):
        assert redacted(f"<{spelling}>") == f"<{MARK}>"


def test_a_secret_that_begins_another_leaves_nothing_of_it() -> None:
    redact_secret("abcd")
    redact_secret("abcdefgh")
    assert redacted("x.abcdefgh.abcd.y") == f"x.{MARK}.{MARK}.y"


def test_a_secret_inside_a_bare_word_is_removed() -> None:
    redact_secret("sesame")
    assert redacted("opensesame") == f"open{MARK}"


def test_each_line_of_a_private_key_is_removed() -> None:
    redact_secret("-----BEGIN KEY-----\nMIIEowIBAAKCAQEA1\nq2w3e4r5t6y7u8i9o0\n-----END KEY-----")
    assert redacted("line q2w3e4r5t6y7u8i9o0!") == f"line {MARK}!"


@pytest.mark.parametrize("secret", ["", " ", "abc"])
def test_a_secret_too_short_to_be_one_tears_no_holes(secret: str) -> None:
    redact_secret(secret)
    assert redacted("abc abc") == "abc abc"


class _Colour(Enum):
    RED = "ann@example.co"


class _Broken:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class _BrokenMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError("no item")

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        return 1


class _BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class _Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (7, 7),
        (1 << 70, hex(1 << 70)),
        (1.5, 1.5),
        (datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), "2026-01-01T00:00:00+00:00"),
        (date(2026, 1, 1), "2026-01-01"),
        (timedelta(minutes=1.5), 90.0),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (PurePosixPath("/a/b"), "/a/b"),
        (Decimal("1.10"), "1.10"),
        (Written.GONE, "gone"),
        (_Colour.RED, MARK),
        (b"Ann", "<3 bytes>"),
        (TransientError("no answer for ann@example.co"), f"TransientError: no answer for {MARK}"),
        (Contact("003", {"City": "Ulm"}), "<syncsvc.model.Contact>"),
        (TransientError, "<syncsvc.errors.TransientError>"),
        (_BrokenMapping(), "<_BrokenMapping, unreadable>"),
        (_BrokenError(), "<_BrokenError, unreadable>"),
        (_Text("fine"), "fine"),
        ((1, {2}), [1, [2]]),
        ({1: "a", None: "b"}, {"1": "a", "None": "b"}),
    ],
)
def test_every_value_becomes_a_plain_one(value: object, shown: object) -> None:
    assert redacted(value) == shown


def test_an_object_never_shows_its_repr() -> None:
    assert redacted([_Broken()])[0].endswith("._Broken>")


def test_a_value_that_holds_itself_ends() -> None:
    knot: list[object] = [1]
    knot.append(knot)
    assert str(redacted(knot)).count("1") == 8


def test_a_wide_value_is_counted_past_its_bound() -> None:
    shown = redacted({"ids": list(range(6000)), "more": 1})
    assert len(shown["ids"]) < 5001
    assert shown["ids"][-1] == f"<{6000 - len(shown['ids']) + 1} more>"
    assert shown["..."] == "<1 more>"


def test_a_long_text_is_cut() -> None:
    assert redacted("a" * 10_000) == "a" * 8192 + "... <cut>"


def test_of_an_endless_text_only_the_beginning_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_MAX_SCANNED", 10)
    assert redacted("a b " * 10) == "a b a b a "


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a.",
        "'",
        "%25",
        "%2540",
        "://",
        "?",
        "?a",
        "passw",
        "eyJ-",
        "00D",
        "pat-aa-",
        "bearer  ",
        "@",
        "a@",
        "-----BEGIN ",
        "-----END ",
        'token" ',
        "{'",
        "+1",
        ":",
        "[parameters: ",
        "DETAIL:",
    ],
)
def test_hostile_text_is_searched_in_linear_time(piece: str) -> None:
    hostile = piece * (500_000 // len(piece))
    redacted(f"{hostile} x@y ? = : %40 - 00D eyJ + ://")
    redacted(f"x@y ? = : %40 - 00D eyJ + :// {hostile}")


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=20,
)


@settings(max_examples=50)
@given(_anything)
def test_anything_becomes_json(value: object) -> None:
    shown = redacted(value)
    try:
        orjson.dumps(shown)
    except TypeError:
        json.dumps(shown)  # lone surrogates, which only escapes can hold


@settings(max_examples=50)
@given(st.text(max_size=20), st.emails(), st.text(max_size=20))
def test_no_address_survives_wherever_it_stands(before: str, email: str, after: str) -> None:
    assert email not in str(redacted(f"{before} {email} {after}"))
