"""The value types of the configuration: secrets, durations, and the base that refuses unknown keys.

A connector's settings are made of these, so that every file reads alike and every problem is found at once.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StrictStr,
    WithJsonSchema,
    model_validator,
)

from syncsvc.errors import ConfigurationError
from syncsvc.stateurl import state_problem

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class Settings(BaseModel):
    """A table of the configuration: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _parse_duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError('write a duration as text, such as "90s", "5m" or "24h"')
    parts = _DURATION_PART.findall(value)
    try:
        return sum((float(number) * _UNITS[unit] for number, unit in parts), timedelta())
    except OverflowError:
        raise ValueError("write a shorter duration: this one is longer than any calendar") from None


def _write_duration(value: timedelta) -> str:
    milliseconds = f"{value.microseconds / 1000:g}ms" if value.microseconds else ""
    return f"{value.days * 86400 + value.seconds}s{milliseconds}"


Duration = Annotated[
    timedelta,
    BeforeValidator(_parse_duration),
    PlainSerializer(_write_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$", "examples": ["90s", "5m", "24h"]}),
]
"""A duration written as text: "90s", "5m", "24h", "1h30m"."""


_RESERVE = re.compile(r"(\d{1,9})|(\d{1,2}(?:\.\d+)?|100)%")


def _check_reserve(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _RESERVE.fullmatch(value):
        raise ValueError('write a number of calls, such as 20000, or a share of the day\'s, such as "5%"')
    return value


Reserve = Annotated[
    str,
    BeforeValidator(_check_reserve),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": f"^(?:{_RESERVE.pattern})$"},
            ],
            "examples": ["5%", 20_000],
        }
    ),
]
"""How many of a day's calls are left to others: a number, or a share of what is allowed such as "5%"."""


def reserved_calls(reserve: Reserve, allowed: int) -> int:
    """Return the calls that a reserve keeps of those that a day allows."""
    return math.ceil(float(reserve[:-1]) * allowed / 100) if reserve.endswith("%") else int(reserve)


_VARIABLE = re.compile("[A-Z_][A-Z0-9_]*")


class Secret(Settings):
    """A reference to a secret: `{ env = "NAME" }` or `{ file = "path" }`, never the secret itself."""

    env: str | None = Field(default=None, min_length=1, description="name of the environment variable")
    file: Path | None = Field(
        default=None, description="path of a file; its content is stripped and re-read on change"
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_literals(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError('a secret is never written here: use { env = "NAME" } or { file = "path" }')  # noqa: TRY004
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError('give exactly one of { env = "NAME" } and { file = "path" }')
        return self

    def problem(self) -> str | None:
        """Say why the secret cannot be read now, or None."""
        try:
            value = self.read()
        except OSError as error:
            return f"file {self.file} cannot be read: {error.strerror or error}"
        except UnicodeDecodeError:
            return f"file {self.file} is not text in UTF-8"
        except KeyError:
            return f"{self._variable} is not set"
        return None if value else f"{self._variable if self.env else f'file {self.file}'} is empty"

    @property
    def _variable(self) -> str:
        # What is not spelt as a variable's name may be the secret itself, put into the wrong place.
        spelt = self.env is not None and _VARIABLE.fullmatch(self.env)
        return f"environment variable {self.env}" if spelt else "the environment variable that `env` names"

    def read(self) -> str:
        """Return the secret as it is now.

        Raises KeyError where the environment variable is not set, OSError where the file cannot be read, and
        UnicodeDecodeError where it is not text.
        """
        if self.env is not None:
            return os.environ[self.env].strip()
        assert self.file is not None  # noqa: S101 - exactly one is set, validated above
        return self.file.read_text(encoding="utf-8").strip()


def _check_state(value: Any) -> Any:
    if isinstance(value, str) and (problem := state_problem(value, secret=False)):
        raise ValueError(problem)
    return value


def url_of_state(state: str | Secret) -> str:
    """Return the URL of a state as it is now.

    Raises ConfigurationError where its secret cannot be read, or holds no URL of a state.
    """
    if isinstance(state, str):
        return state
    if problem := problem_of_state(state):
        raise ConfigurationError([f"service.state: {problem}"])
    return state.read()


def problem_of_state(state: Secret) -> str | None:
    """Say why a secret tells no state now, or None."""
    if problem := state.problem():
        return f"{problem}; set it, or name another"
    problem = state_problem(state.read(), secret=True)
    return f"what {state.env or state.file} holds {problem}" if problem else None


State = Annotated[StrictStr | Secret, BeforeValidator(_check_state)]
"""Where the state is: a URL, or a secret that holds one."""


def secrets_of(value: object) -> Iterator[Secret]:
    """Yield every secret that a piece of configuration refers to, however deep."""
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name))
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from secrets_of(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from secrets_of(inner)


def is_loopback(url: str) -> bool:
    """Whether a URL points at this machine itself."""
    return (urlsplit(url).hostname or "") in LOOPBACK


def _check_url(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("write a URL as text")  # noqa: TRY004
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not value.isprintable() or " " in value:
        raise ValueError("write a whole URL, such as https://host")
    if parts.port == 0:  # one above 65535 is refused by this very look at it
        raise ValueError("write a port from 1 to 65535, or none")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("leave user, password, query and fragment out of the URL")
    if parts.scheme == "http" and not is_loopback(value):
        raise ValueError("use https: http is allowed to a loopback address only")
    return value.rstrip("/")


Url = Annotated[str, BeforeValidator(_check_url)]
"""An https URL (http to loopback only), without a trailing slash."""


def _plain(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("is not a plain value; write text, a number, true or false")  # noqa: TRY004 - pydantic collects ValueError only
    return value


Plain = Annotated[str | int | float | bool, BeforeValidator(_plain)]
"""A plain value written in the file."""
Text = Annotated[StrictStr, Field(min_length=1)]


def _share(value: Any) -> float:
    found = re.fullmatch(r"(\d{1,3}(?:\.\d+)?) ?%", value) if isinstance(value, str) else None
    if found is None or float(found[1]) > 100:  # noqa: PLR2004 - a share is at most the whole
        raise ValueError('is not a share; write it as text, such as "30%"')
    return float(found[1]) / 100


def _email(value: str) -> str:
    if not re.fullmatch(r"[^\s@]+@[^\s@]+\.[^\s@]+", value):
        raise ValueError('is not an email; write one of your own, such as "sync-witness@acme.example"')
    return value


def _path(value: str) -> str:
    if not value.startswith("/") or "?" in value or "#" in value or any(map(str.isspace, value)):
        raise ValueError('is not a path; write it from the root, such as "/v2/import"')
    return value


Email = Annotated[StrictStr, AfterValidator(_email)]
UrlPath = Annotated[StrictStr, AfterValidator(_path)]
Share = Annotated[
    float,
    BeforeValidator(_share),
    WithJsonSchema({"type": "string", "pattern": r"^\d{1,3}(\.\d+)? ?%$", "examples": ["30%"]}),
]
"""A share of the whole, written "30%", held as 0.3."""
