"""The reference of the configuration: every key with its type, default, meaning and an example, as Markdown.

It is made from the very models that read the files, so it says what is true of this version, and of the
connectors that are installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from syncsvc.config import (
    AlertsConfig,
    BrakesConfig,
    ConnectorConfig,
    OrganizationConfig,
    PolicyConfig,
    ScheduleConfig,
    WalletConfig,
)
from syncsvc.configfile import Types
from syncsvc.maps import FieldRule, MappingTest, MemberMap, WriteBackMap
from syncsvc.service import ServiceConfig
from syncsvc.settings import Email, Reserve, Secret, Share, Url, UrlPath

_HEAD = """\
# The configuration

One TOML file is one organization; a directory of them, with a `service.toml` for the `[service]` table, is an
installation (`-c PATH`, or `SYNCSVC_CONFIG`). Unknown keys are refused, and `syncsvc check --offline` names
every problem at once, by file and line. [`config.example.toml`](../config.example.toml) is a file to begin
with, `syncsvc schema` prints the JSON Schema for editors, and `syncsvc schema --markdown` this page, with the
connectors that are installed beside those below.

- A **secret** is never written into the file: `{ env = "NAME" }` names an environment variable,
  `{ file = "path" }` a file, which is read again when it changes; that of `state` is read at the start only.
- A **duration** is text: `"90s"`, `"5m"`, `"1h30m"`, `"24h"`. A **share** is text too: `"5%"`.
- A **rule** says where a wallet field comes from: text with `{Field}` in it, or a table (below).
- A relative **path** starts where the service is started.
"""
_SERVICE = "What the process shares, read at its start only. In a directory it stands in `service.toml`."
_WALLET = "How the wallet is reached, and what an award means there: see [guarantees](guarantees.md)."
_CONNECTOR = """\
One table for each CRM account. NAME is the key of its state, logs and metrics; the order in the file is the
order of ownership. Each type has keys of its own, further below."""
_RULE = """\
Text is a template. A table has exactly one of `field`, `template`, `cel` and `value`, and may have the others
with it."""
_SAMPLES = """\
A made-up record, and exactly one of what it must become: `member`, `refused` or `excluded`. `syncsvc check`
runs them, `check --offline` too, and says what differs, of emails and names with `--show-values` only."""
_TABLES: Sequence[tuple[str, str, type[BaseModel]]] = (
    ("The organization", "The keys above the first table of an organization's file.", OrganizationConfig),
    ("`[service]`", _SERVICE, ServiceConfig),
    ("`[schedule]`", "How often things are done.", ScheduleConfig),
    ("`[wallet]`", _WALLET, WalletConfig),
    ("`[policy]`", "What happens when a contact goes or changes its email.", PolicyConfig),
    (
        "`[brakes]`",
        "Limits that hold a delivery before its first request, until `syncsvc release`.",
        BrakesConfig,
    ),
    (
        "`[alerts]`",
        "One message for each change, and none while it stays so. No person is named.",
        AlertsConfig,
    ),
    ("`[connectors.NAME]`", _CONNECTOR, ConnectorConfig),
    ("`[connectors.NAME.member]`", "Wallet field = rule. What comes out empty is not sent.", MemberMap),
    ("A rule", _RULE, FieldRule),
    ("`[connectors.NAME.write_back]`", "Fields that neither the map nor `where` may use.", WriteBackMap),
    ("`[[connectors.NAME.tests]]`", _SAMPLES, MappingTest),
)
_ALIASES: Sequence[tuple[Any, str]] = (
    (Url, "URL"),
    (UrlPath, "URL path"),
    (Email, "email"),
    (Reserve, "calls, or share"),
    (Share, "share"),
)
_WORDS: Mapping[Any, str] = {
    timedelta: "duration",
    bool: "true or false",
    str: "text",
    float: "number",
    Path: "path",
    Secret: "secret",
    FieldRule: "rule",
}
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Key:
    """A key as the page tells of it; `example` is a line of TOML, or nothing."""

    name: str
    type: str
    default: str
    meaning: str
    example: str


def reference(types: Types) -> str:
    """Return the page, with the keys of these connector types."""
    parts = [_HEAD]
    for title, meaning, model in _TABLES:
        parts.append(_section("##", title, meaning, model))
    for name, settings in sorted(types.items()):
        parts.append(_section("##", f'`type = "{name}"`', _first_line(settings), settings))
        for key, variant in _variants(settings):
            flow = variant.model_fields.get("flow")
            told = f' with `flow = "{get_args(flow.annotation)[0]}"`' if flow is not None else ""
            parts.append(_section("###", f"`{key}`{told}", _first_line(variant), variant))
    return "\n".join(parts)


def keys(model: type[BaseModel]) -> Iterator[Key]:
    """Yield the keys of a table, in their order."""
    for name, info in model.model_fields.items():
        if model is ConnectorConfig and name == "settings":
            continue  # its keys stand beside these, not in a table
        yield Key(name, _type(info), _default(name, info), info.description or "", _example(name, info))


def _section(level: str, title: str, meaning: str, model: type[BaseModel]) -> str:
    lines = [f"{level} {title}", "", meaning, "", "| key | type | default | meaning | example |"]
    lines.append("|---|---|---|---|---|")
    for key in keys(model):
        example = f"`{key.example}`" if key.example else ""
        cells = (f"`{key.name}`", key.type, key.default, key.meaning, example)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").partition("\n")[0]


def _variants(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield the tables inside a connector's table, each as many times as it has forms."""
    for name, info in model.model_fields.items():
        for part in _parts(info.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part is not Secret:
                yield name, part


def _parts(annotation: Any) -> list[Any]:
    """Return what an annotation may be, None aside."""
    if get_origin(annotation) is Annotated:
        return _parts(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        return [part for it in get_args(annotation) if it is not type(None) for part in _parts(it)]
    return [annotation]


def _metadata(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        inner, *own = get_args(annotation)
        return [*_metadata(inner), *own]
    if get_origin(annotation) in {Union, UnionType}:
        return [found for it in get_args(annotation) for found in _metadata(it)]
    return []


def _type(info: FieldInfo) -> str:
    metadata = [*info.metadata, *_metadata(info.annotation)]
    for alias, word in _ALIASES:
        if all(any(it == its for it in metadata) for its in alias.__metadata__):
            return word
    return ", or ".join(dict.fromkeys(_word(part, metadata) for part in _parts(info.annotation)))


def _word(part: Any, metadata: Sequence[Any]) -> str:
    if part is int:
        least = next((f" from {it.ge}" for it in metadata if isinstance(it, Ge)), "")
        most = next((f" to {it.le}" for it in metadata if isinstance(it, Le)), "")
        return f"whole number{least}{most}"
    if get_origin(part) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(part))
    if isinstance(part, type) and issubclass(part, StrEnum):
        return ", ".join(f"`{choice.value}`" for choice in part)
    if get_origin(part) is tuple:
        return "tables"
    return _WORDS.get(part, "table")


def _default(name: str, info: FieldInfo) -> str:
    if name == "name" and info.annotation is not None and info.is_required():
        return "the file's name"
    if info.is_required():
        return "**needed**"
    value = info.get_default(call_default_factory=False)
    if value is None or isinstance(value, BaseModel) or value == ():
        return ""
    return f"`{_toml(value, info)}`"


def _example(name: str, info: FieldInfo) -> str:
    parts = _parts(info.annotation)
    if info.examples:
        return f"{name} = {_toml(info.examples[0], info)}"
    if parts == [Secret]:
        return f'{name} = {{ env = "{name.upper()}" }}'
    default = None if info.is_required() else info.get_default(call_default_factory=False)
    if get_origin(parts[0]) is Literal and info.is_required():
        default = get_args(parts[0])[0]
    plain = isinstance(default, str | int | float | timedelta)
    return f"{name} = {_toml(default, info)}" if plain else ""


def _toml(value: Any, info: FieldInfo) -> str:
    """Return a value as TOML writes it."""
    if isinstance(value, Mapping):
        inner = (f"{key} = {_toml(it, info)}" for key, it in value.items())
        return "{ " + ", ".join(inner) + " }"
    if isinstance(value, timedelta):
        return f'"{_duration(value)}"'
    if isinstance(value, float) and _type(info) == "share":
        return f'"{value * 100:g}%"'
    if isinstance(value, bool) or not isinstance(value, int | float):
        return json.dumps(value if isinstance(value, bool) else str(value), ensure_ascii=False)
    return str(value)


def _duration(value: timedelta) -> str:
    for unit, seconds, least in (("h", 3600, 1), ("m", 60, 5)):
        if not value % timedelta(seconds=seconds) and value // timedelta(seconds=seconds) >= least:
            return f"{value // timedelta(seconds=seconds)}{unit}"
    return f"{value / _SECOND:g}s"
