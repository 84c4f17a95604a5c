"""Reads the configuration: one organization file, or a directory of them with `service.toml`.

Every problem of every file is found at once and told as "file:line: key: problem; remedy". A message names
keys and never repeats a value, so that a secret written in the wrong place is not spread further.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from syncsvc.config import ConnectorConfig, OrganizationConfig, Points
from syncsvc.errors import ConfigurationError
from syncsvc.form import problems_of
from syncsvc.maps import FieldRule, MemberMap
from syncsvc.rules.mapping import MappingError, compile_rule, compile_where
from syncsvc.service import ServiceConfig
from syncsvc.settings import Secret, Settings, problem_of_state
from syncsvc.tomllines import Place, lines_of

SERVICE_FILE = "service.toml"
TWINS = (
    ("name", "give each organization its own"),
    ("organization_id", "one organization is one file, so put both in one"),
)
"""The keys that no two files may give the same value, each with the remedy."""

Model = TypeVar("Model", bound=BaseModel)
Types = Mapping[str, type[Settings]]

_COMMON = frozenset(ConnectorConfig.model_fields) - {"settings"}
_SYNTAX_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True, slots=True)
class Installation:
    """All that is configured: the service, its organizations in the order of their files, and where from.

    `files` tells the file of each organization by its name.
    """

    service: ServiceConfig
    organizations: tuple[OrganizationConfig, ...]
    path: Path
    files: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class Survey:
    """What can be used of a path, and the problems of each file that cannot; together they are all of it."""

    usable: Installation
    broken: Mapping[Path, Sequence[str]]


def survey(path: Path, types: Types, *, read_secrets: bool = True) -> Survey:
    """Return what the files of a path configure, broken ones told apart from the others.

    With `read_secrets` every secret must be readable now. Raises ConfigurationError with all problems where
    no file is left to use, or where the service's own is broken, without which the others mean nothing.
    """
    if not path.is_dir():
        return Survey(load(path, types, read_secrets=read_secrets), {})
    service, loaded, broken = _read_directory(path, types, read_secrets=read_secrets)
    if service is None or not loaded or broken.keys() & {path, path / SERVICE_FILE}:
        raise ConfigurationError([it for problems in broken.values() for it in problems])
    return Survey(_installation(service, loaded, path), broken)


def load(path: Path, types: Types, *, read_secrets: bool = True) -> Installation:
    """Return what the file or directory configures; `types` are the connector types with their settings.

    A file of a directory, by itself, shares what `service.toml` beside it says, unless it says so itself.

    With `read_secrets` every secret must be readable now. Raises ConfigurationError with all problems.
    """
    if path.is_dir():
        return _load_directory(path, types, read_secrets=read_secrets)
    document = _Document(path)
    shared = _with_service(document)
    service = shared.service(alone=shared is not document, read_secrets=read_secrets)
    organization = document.organization(types, read_secrets=read_secrets)
    if service is None or organization is None or shared.problems:
        raise ConfigurationError(list(dict.fromkeys([*shared.report(), *document.report()])))
    return Installation(service, (organization,), path, {organization.name: path})


def load_organization(path: Path, types: Types, *, read_secrets: bool = True) -> OrganizationConfig:
    """Return the organization of one file of a directory; raises ConfigurationError with all its problems."""
    document = _Document(path)
    document.refuse_service()
    organization = document.organization(types, read_secrets=read_secrets)
    if organization is None or document.problems:
        raise ConfigurationError(document.report())
    return organization


def service_file(path: Path) -> Path:
    """Return the file that holds `[service]` for a file or a directory; it may not be there."""
    return path / SERVICE_FILE if path.is_dir() else _with_service(_Document(path)).path


def load_service(path: Path) -> ServiceConfig:
    """Return the settings of the service itself; raises ConfigurationError with all their problems."""
    file = path / SERVICE_FILE if path.is_dir() else path
    if file != path and not file.exists():
        return ServiceConfig()
    document = _with_service(_Document(file))
    service = document.service(alone=document.path != path, read_secrets=True)
    if service is None or document.problems:
        raise ConfigurationError(document.report())
    return service


def _with_service(document: _Document) -> _Document:
    """Return the document with `[service]`: one of a directory leaves it to the `service.toml` beside it."""
    beside = document.path.parent / SERVICE_FILE
    if "service" in document.data or not beside.is_file():
        return document
    return _Document(beside)


def _load_directory(path: Path, types: Types, *, read_secrets: bool) -> Installation:
    service, loaded, broken = _read_directory(path, types, read_secrets=read_secrets)
    if service is None or broken:
        raise ConfigurationError([it for problems in broken.values() for it in problems])
    return _installation(service, loaded, path)


def _installation(
    service: ServiceConfig, loaded: Mapping[Path, OrganizationConfig], path: Path
) -> Installation:
    by_name = {organization.name: file for file, organization in loaded.items()}
    return Installation(service, tuple(loaded.values()), path, by_name)


def _read_directory(
    path: Path, types: Types, *, read_secrets: bool
) -> tuple[ServiceConfig | None, dict[Path, OrganizationConfig], dict[Path, Sequence[str]]]:
    """Return the service's settings, the organizations of good files, and what is wrong with the others."""
    files = sorted(file for file in path.glob("*.toml") if not file.name.startswith("."))
    documents = [_Document(file) for file in files]
    service: ServiceConfig | None = ServiceConfig()
    loaded: dict[Path, OrganizationConfig] = {}
    for document in documents:
        if document.path.name == SERVICE_FILE:
            service = document.service(alone=True, read_secrets=read_secrets)
            continue
        document.refuse_service()
        organization = document.organization(types, read_secrets=read_secrets)
        if organization is not None:
            loaded[document.path] = organization
    _refuse_twins([document for document in documents if document.path.name != SERVICE_FILE])
    broken: dict[Path, Sequence[str]] = {it.path: it.report() for it in documents if it.problems}
    if not {file.name for file in files} - {SERVICE_FILE}:
        broken[path] = (f"{path}: no organization is configured; put a file NAME.toml there",)
    return service, {file: it for file, it in loaded.items() if file not in broken}, broken


def _refuse_twins(documents: Sequence[_Document]) -> None:
    for key, remedy in TWINS:
        first: dict[str, Path] = {}
        for document in documents:
            value = document.data.get(key, document.path.stem if key == "name" else None)
            if isinstance(value, str) and first.setdefault(value, document.path) != document.path:
                document.add((key,), f"is that of {first[value]} too; {remedy}")


class _Document:
    """One file: its data, where each key stands, and the problems found so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data: dict[str, Any] = {}
        self._lines: dict[Place, int] = {}
        self._own: dict[str, Mapping[str, Any] | Settings] = {}
        self._problems: list[tuple[int, str]] = []
        try:
            text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
            self.data = tomllib.loads(text)
            self._lines = lines_of(text)
        except OSError as error:
            self._problem(0, f"cannot be read: {error.strerror or error}; correct path or permissions")
        except UnicodeDecodeError:
            self._problem(0, "is not text in UTF-8; save it as such")
        except tomllib.TOMLDecodeError as error:
            found = _SYNTAX_LINE.search(str(error))
            line = int(found[1] or len(text.rstrip().splitlines())) if found else 0
            self._problem(line, f"{_SYNTAX_LINE.sub('', str(error))}; correct the TOML syntax")
        self.readable = not self._problems

    def add(self, place: Place, problem: str) -> None:
        """Note a problem of the key at `place`."""
        line = next((self._lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self._lines), 0)
        self._problem(line, f"{'.'.join(map(str, place))}: {problem}" if place else problem)

    def _problem(self, line: int, text: str) -> None:
        self._problems.append((line, f"{self.path}:{line}: {text}" if line else f"{self.path}: {text}"))

    @property
    def problems(self) -> bool:
        """Whether anything was found."""
        return bool(self._problems)

    def report(self) -> list[str]:
        """Return the problems in the order of their lines, each once."""
        return list(dict.fromkeys(text for _, text in sorted(self._problems, key=lambda item: item[0])))

    def refuse_service(self) -> None:
        """Note that `[service]` does not belong here."""
        if "service" in self.data:
            self.add(("service",), f"belongs in {SERVICE_FILE} of the same directory; move it there")

    def service(self, *, read_secrets: bool, alone: bool = False) -> ServiceConfig | None:
        """Return the `[service]` table, its defaults where there is none; `alone` refuses all else."""
        if not self.readable:
            return None
        for key in self.data.keys() - {"service"} if alone else ():
            self.add((key,), f"is not known in {SERVICE_FILE}, which holds [service] only; move it")
        ca_file = _table(self.data, "service").get("ca_file")
        if isinstance(ca_file, str) and ca_file and not Path(ca_file).is_file():
            self.add(("service", "ca_file"), "names no file; correct the path")
        service = self._validated(ServiceConfig, self.data.get("service", {}), ("service",))
        if service is not None and read_secrets:
            if service.page_token is not None and (unreadable := service.page_token.problem()):
                self.add(("service", "page_token"), f"{unreadable}; set it, or name another")
            if isinstance(service.state, Secret) and (problem := problem_of_state(service.state)):
                self.add(("service", "state"), problem)
        return service

    def organization(self, types: Types, *, read_secrets: bool) -> OrganizationConfig | None:
        """Return the organization, None where a problem was found."""
        if not self.readable:
            return None
        data = {"name": self.path.stem} | {key: value for key, value in self.data.items() if key != "service"}
        connectors = data.get("connectors")
        if isinstance(connectors, dict):
            if not connectors:
                self.add(("connectors",), "is empty; add a table [connectors.NAME]")
            tables = connectors.items()
            data["connectors"] = {key: self._connector(key, table, types) for key, table in tables}
        organization = self._validated(OrganizationConfig, data, ())
        for place, problem in _checks(data):
            self.add(place, problem)
        if read_secrets:
            for place, secret in _all_secrets(data, self._own):
                if unreadable := secret.problem():
                    self.add(place, f"{unreadable}; set it, or name another")
        return None if self.problems else organization

    def _connector(self, name: str, table: Any, types: Types) -> Any:
        kind = table.get("type") if isinstance(table, dict) else None
        if not isinstance(kind, str):
            return table
        place = ("connectors", name)
        common = {key: value for key, value in table.items() if key in _COMMON}
        own = {key: value for key, value in table.items() if key not in _COMMON}
        if kind not in types:
            known = ", ".join(sorted(types)) or "none"
            self.add((*place, "type"), f"is no type of connector that is installed; known here: {known}")
            return common
        settings = self._validated(types[kind], own, place, beside=_COMMON)
        self._own[name] = own if settings is None else settings
        return common if settings is None else common | {"settings": settings}

    def _validated(
        self, model: type[Model], data: Any, place: Place, *, beside: frozenset[str] = frozenset()
    ) -> Model | None:
        try:
            return model.model_validate(data)
        except ValidationError as error:
            for inner, problem in problems_of(error, model, data, beside=beside):
                self.add((*place, *inner), problem)
            return None


def _checks(data: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    """Yield what no single table can tell, from the data as it was written."""
    wallet = _table(data, "wallet")
    for name, connector in _table(data, "connectors").items():
        if isinstance(connector, dict):
            for place, problem in _connector_checks(connector, wallet):
                yield ("connectors", name, *place), problem


def _connector_checks(connector: Mapping[str, Any], wallet: Mapping[str, Any]) -> Iterator[tuple[Place, str]]:
    member = _table(connector, "member")
    if member and "name" not in member:
        yield ("member", "name"), "is missing; the wallet takes no member without a name"
    if member and "points" not in member and wallet.get("points") == Points.SET:
        yield (
            ("member", "points"),
            'is missing; wallet.points = "set" would empty balances without it',
        )
    for field in ("brand_id", "storecard"):
        if member and field not in member and field not in wallet:
            yield ("member", field), f"comes from nowhere; set wallet.{field}, or map it here"
    uses: dict[Place, frozenset[str]] = {}
    for place, written in _rules(connector):
        try:
            uses[place] = _fields(place, written)
        except MappingError as error:
            yield place, str(error)
        except ValidationError:
            continue  # told with the other problems of form
    for fact, field in _table(connector, "write_back").items():
        for place in (place for place, fields in uses.items() if field in fields):
            yield place, f"reads {field}, which write_back.{fact} writes; keep the two apart"


def _rules(connector: Mapping[str, Any]) -> Iterator[tuple[Place, Any]]:
    for field, written in _table(connector, "member").items():
        if field in MemberMap.model_fields:
            yield ("member", field), written
    if isinstance(where := connector.get("where"), str):
        yield ("where",), where


def _fields(place: Place, written: Any) -> frozenset[str]:
    if place == ("where",):
        where = compile_where(written)
        return where.fields if where is not None else frozenset()
    return compile_rule(str(place[-1]), FieldRule.model_validate(written)).fields


def _table(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = data.get(key)
    return table if isinstance(table, dict) else {}


def _all_secrets(
    data: Mapping[str, Any], own: Mapping[str, Mapping[str, Any] | Settings]
) -> Iterator[tuple[Place, Secret]]:
    for table, key in (("wallet", "token"), ("wallet", "log_token"), ("alerts", "webhook")):
        yield from _secrets(_table(data, table).get(key), (table, key))
    for name, settings in own.items():
        for key, value in dict(settings).items():
            yield from _secrets(value, ("connectors", name, key))


def _secrets(value: Any, place: Place) -> Iterator[tuple[Place, Secret]]:
    if isinstance(value, Secret):
        yield place, value
    elif isinstance(value, BaseModel):
        for key, inner in value:
            yield from _secrets(inner, (*place, key))
    elif isinstance(value, dict):
        if value.keys() in ({"env"}, {"file"}) and all(
            isinstance(item, str) and item for item in value.values()
        ):
            yield place, Secret(**value)
        for key, inner in value.items():
            yield from _secrets(inner, (*place, key))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from _secrets(inner, (*place, number))
