"""The value types of the configuration: secrets are never literals, durations and URLs say what they mean."""

from __future__ import annotations

import contextlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from syncsvc.settings import Duration, Secret, Settings, Url, is_loopback, secrets_of

durations: TypeAdapter[timedelta] = TypeAdapter(Duration)
urls: TypeAdapter[str] = TypeAdapter(Url)


class Inner(Settings):
    key: Secret | None = None


class Outer(Settings):
    token: Secret
    inner: Inner = Inner()
    table: dict[str, Inner] = Field(default_factory=dict)
    several: list[Inner] = Field(default_factory=list)


def test_a_secret_is_read_from_the_environment_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret(env="SOME_TOKEN")
    monkeypatch.setenv("SOME_TOKEN", " one \n")
    assert (secret.read(), secret.problem()) == ("one", None)
    monkeypatch.setenv("SOME_TOKEN", "two")
    assert secret.read() == "two"


def test_a_secret_file_is_read_anew_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one\n")
    secret = Secret(file=path)
    assert (secret.read(), secret.problem()) == ("one", None)
    path.write_text("two\r\n")
    assert secret.read() == "two"


def test_what_is_wrong_with_a_secret_is_said_without_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SOME_TOKEN", raising=False)
    missing = tmp_path / "missing"
    binary, empty = tmp_path / "binary", tmp_path / "empty"
    binary.write_bytes(b"MARKED\xff\xfe")
    empty.write_text(" \n")
    told = {
        "environment variable SOME_TOKEN is not set": Secret(env="SOME_TOKEN"),
        f"file {missing} cannot be read: No such file or directory": Secret(file=missing),
        f"file {tmp_path} cannot be read: Is a directory": Secret(file=tmp_path),
        f"file {binary} is not text in UTF-8": Secret(file=binary),
        f"file {empty} is empty": Secret(file=empty),
    }
    for problem, secret in told.items():
        assert secret.problem() == problem
    monkeypatch.setenv("SOME_TOKEN", "  ")
    assert Secret(env="SOME_TOKEN").problem() == "environment variable SOME_TOKEN is empty"
    with pytest.raises(KeyError):
        Secret(env="ANOTHER_TOKEN_NOT_SET").read()
    with pytest.raises(OSError, match="No such file"):
        Secret(file=missing).read()


@pytest.mark.parametrize(
    "value", ["MARKED", {}, {"env": "A", "file": "b"}, {"env": ""}, {"value": "MARKED"}, 5]
)
def test_a_secret_is_a_reference_and_nothing_else(value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        Secret.model_validate(value)
    assert "MARKED" not in str(caught.value)


def test_every_secret_is_found_however_deep() -> None:
    names = iter("abcdefgh")

    def inner() -> Inner:
        return Inner(key=Secret(env=next(names)))

    outer = Outer(token=Secret(env="token"), inner=inner(), table={"x": inner()}, several=[inner(), inner()])
    assert [secret.env for secret in secrets_of(outer)] == ["token", "a", "b", "c", "d"]
    assert [secret.env for secret in secrets_of({"k": [outer.token, "text", 5, None]})] == ["token"]


def test_unknown_keys_are_refused_and_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        Inner.model_validate({"kee": None})
    settings: Any = Inner()
    with pytest.raises(ValidationError, match="frozen"):
        settings.key = None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("5m", 300),
        ("24h", 86400),
        ("1h30m", 5400),
        ("7d", 604800),
        ("0s", 0),
        ("1.5m", 90),
        ("250ms", 0.25),
    ],
)
def test_a_duration_is_written_as_text(text: str, seconds: float) -> None:
    assert durations.validate_python(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "5",
        "5 m",
        "m",
        "-5m",
        "5M",
        "1e3s",
        "5m ",
        ".5s",
        5,
        5.0,
        None,
        True,
        ["5m"],
        "9" * 12 + "d",
        "9" * 400 + "s",
    ],
)
def test_anything_else_is_no_duration(value: Any) -> None:
    with pytest.raises(ValidationError):
        durations.validate_python(value)


@given(st.timedeltas(timedelta(), timedelta(days=100_000)))
def test_a_duration_that_is_written_reads_as_the_same(value: timedelta) -> None:
    written = durations.dump_python(value, mode="json")
    assert durations.validate_python(written) == value
    assert json.loads(durations.dump_json(value)) == written


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://api.example", "https://api.example"),
        ("https://api.example/", "https://api.example"),
        ("https://api.example:8443/base/", "https://api.example:8443/base"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost/", "http://localhost"),
        ("http://[::1]:1", "http://[::1]:1"),
    ],
)
def test_a_url_is_kept_without_its_trailing_slash(url: str, kept: str) -> None:
    assert urls.validate_python(url) == kept


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example",
        "//api.example",
        "ftp://api.example",
        "https://",
        "https:///path",
        "http://api.example",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://evil.example/127.0.0.1",
        "http://localhost@evil.example",
        "https://user@api.example",
        "https://user:secret@api.example",
        "https://api.example?key=1",
        "https://api.example#part",
        "https://api.example:99999",
        "https://api.example:port",
        "https://api.example:0",
        "https://api example",
        "https://api.example/a\nb",
        "https://[::1",
        5,
        None,
    ],
)
def test_anything_else_is_no_url(url: Any) -> None:
    with pytest.raises(ValidationError):
        urls.validate_python(url)


@given(st.text())
def test_no_text_makes_reading_a_setting_fail_otherwise(text: str) -> None:
    for adapter in (durations, urls):
        with contextlib.suppress(ValidationError):
            assert adapter.validate_python(text) is not None


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("https://localhost", True),
        ("https://LOCALHOST:1/x", True),
        ("https://127.0.0.1", True),
        ("https://[::1]/", True),
        ("https://127.0.0.1.example", False),
        ("https://example", False),
        ("", False),
    ],
)
def test_loopback_is_this_machine_and_no_other(url: str, *, here: bool) -> None:
    assert is_loopback(url) is here
