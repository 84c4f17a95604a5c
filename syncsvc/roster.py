"""The roster: the organizations that the files call for, as each file was last good.

Files are told apart by their stamps and read once they rest. A broken file changes nothing but what is said
of it, and neither does the loss of all of them. Of a secret nothing is remembered but a keyed digest.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from syncsvc.config import OrganizationConfig
from syncsvc.configfile import SERVICE_FILE, TWINS, Types, load, load_organization, load_service, service_file
from syncsvc.errors import ConfigurationError
from syncsvc.service import ServiceConfig
from syncsvc.settings import Secret, secrets_of
from syncsvc.watch.log import redact_secret

_AGAIN = 5
"""Of so many looks, one reads the broken files again: a secret may be there now, or a twin be gone."""

_KEY = secrets.token_bytes(16)

_Stamp = tuple[int, int, int, int] | None


@dataclass(frozen=True, slots=True)
class Broken:
    """A file that cannot be used as it is; `organization` is the one it is about, which goes on if `kept`."""

    organization: str
    problems: tuple[str, ...]
    kept: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What a look found.

    `renewed` are organizations whose secrets have changed. `broken` are files whose problems are news, and
    `mended` those that have none any more. `service` says that the settings of the whole service are others.
    """

    renewed: frozenset[str] = frozenset()
    broken: Mapping[Path, Broken] = field(default_factory=dict)
    mended: Mapping[Path, Broken] = field(default_factory=dict)
    service: bool = False


class Roster:
    """The organization files of one path, looked at again and again by one thread.

    `organizations` are all that should run now, by name, and `broken` all files that cannot be used as they
    are; while `version` stays the same, so do both.
    """

    def __init__(self, path: Path, types: Types) -> None:
        """Read nothing yet; `types` are the connector types with their settings."""
        self._path = path
        self._types = types
        self._alone = not path.is_dir()
        self._service_file = path
        self._good: dict[Path, OrganizationConfig] = {}
        self._former: dict[Path, OrganizationConfig | None] = {}
        self._problems: dict[Path, tuple[str, ...]] = {}  # of organization files
        self._others: dict[Path, tuple[str, ...]] = {}  # of the directory, the service's file, and secrets
        self._told: dict[Path, Broken] = {}
        self._stamps = _Stamps()
        self._secrets = _Stamps()
        self._refused: set[Path] = set()  # until they change
        self._users: dict[Path, list[tuple[str, Secret]]] = {}  # of each secret's file
        self._digests: dict[Path, bytes] = {}
        self._secret_files: list[str] = []
        self._looks = 0
        self._glanced: dict[str, _Stamp] | None = None
        self._same = 0  # how many glances were like the one before
        self.version = 0
        self.service = ServiceConfig()

    def begin(self) -> None:
        """Read every file; what is good should run, though other files may be broken.

        Raises ConfigurationError with every problem where nothing can run: no organization is good, or the
        service's own settings are not.
        """
        self._service_file = service_file(self._path)
        self._stamps.changed(self._files())
        try:
            installation = load(self._path, self._types)
        except ConfigurationError:
            if self._alone:
                raise
            self.service = load_service(self._path)
            self._read(self._listed())
            if not self._good:
                raise
        else:
            self.service = installation.service
            self._good = {installation.files[it.name]: it for it in installation.organizations}
        self._renewed(anew=True)

    @property
    def organizations(self) -> dict[str, OrganizationConfig]:
        """All that should run, by name, in the order of their files."""
        return {config.name: config for _, config in sorted(self._good.items())}

    @property
    def broken(self) -> dict[Path, Broken]:
        """What is wrong, by file."""
        return {path: self._broken(path, told) for path, told in {**self._problems, **self._others}.items()}

    def look(self) -> Changes:
        """Take in what has changed since the last look, and return what there is to say of it.

        Where nothing has changed for three looks, a glance at the files is all that it takes.
        """
        self._looks += 1
        if self._rests() and not (self._problems and self._looks % _AGAIN == 0):
            return Changes()
        self.version += 1
        self._others.pop(self._path, None)
        try:
            changed = self._stamps.changed(self._files(), rested=True)
            listed = self._listed()
        except OSError as error:
            told = f"{self._path}: cannot be read: {error.strerror or error}; put it back"
            self._others[self._path] = (told,)
            return self.news()
        service = self._service_changed(changed)
        self._refused -= changed
        again = self._problems.keys() - self._refused if self._looks % _AGAIN == 0 else ()
        due = [it for it in listed if it in changed or it in again]
        before = dict(self._good)
        for path in self._stamps.gone().difference(listed):
            self._problems.pop(path, None)
            self._good.pop(path, None)
        self._read(due)
        if not (listed and self._good):
            self._good = before
            told = f"{self._path}: no organization is configured; put a file NAME.toml there"
            self._others[self._path] = (told,)
        return self.news(self._renewed(anew=self._good != before), service=service)

    def refuse(
        self, name: str, problems: Iterable[str], *, instead: OrganizationConfig | None = None
    ) -> None:
        """Take the file of an organization that cannot be opened for broken.

        What it said before goes on, or what is given `instead`.
        """
        path = next(it for it, config in self._good.items() if config.name == name)
        self._problems[path] = tuple(f"{path}: {problem}" for problem in problems)
        self._refused.add(path)
        self.version += 1
        former = instead or self._former.pop(path, None)
        if former is None:
            del self._good[path]
        else:
            self._good[path] = former

    def news(self, renewed: frozenset[str] = frozenset(), *, service: bool = False) -> Changes:
        """Return what is to be said that was not said yet."""
        now, told = self.broken, self._told
        self._told = now
        return Changes(
            renewed,
            {path: it for path, it in now.items() if told.get(path) != it},
            {path: it for path, it in told.items() if path not in now},
            service,
        )

    def _broken(self, path: Path, problems: tuple[str, ...]) -> Broken:
        if path in self._problems:
            kept = self._good.get(path)
            return Broken(kept.name if kept else path.stem, problems, kept=kept is not None)
        users = self._users.get(path)
        return Broken(users[0][0] if users else "", problems, kept=True)

    def _listed(self) -> list[Path]:
        if self._alone:
            return [self._path]
        with os.scandir(self._path) as entries:
            names = [it.name for it in entries if it.name.endswith(".toml") and not it.name.startswith(".")]
        return [self._path / name for name in sorted(names) if name != SERVICE_FILE]

    def _rests(self) -> bool:
        """Whether the files look as they did in the last two looks, or longer."""
        try:
            glance = self._glance()
        except OSError:
            glance = None
        self._same = self._same + 1 if glance is not None and glance == self._glanced else 0
        self._glanced = glance
        return self._same > 1

    def _glance(self) -> dict[str, _Stamp]:
        """Return the stamps of all files by name: plain text, as thousands of paths take a while."""
        stamps = {} if self._alone else _stamps_in(self._path)
        if self._alone:
            stamps |= {str(it): _stamp(it) for it in (self._path, self._service_file)}
        for file in self._secret_files:
            stamps[file] = _stamp(file)
        return stamps

    def _files(self) -> set[Path]:
        return {*self._listed(), self._service_file, *self._good, *self._problems}

    def _read(self, files: Iterable[Path]) -> None:
        """Take in what these files say where it is good, else note what is wrong with them."""
        fresh: dict[Path, OrganizationConfig] = {}
        for path in files:
            self._problems.pop(path, None)
            try:
                fresh[path] = self._load(path)
            except ConfigurationError as error:
                self._problems[path] = error.problems
        while twins := _twins({**self._good, **fresh}, fresh):
            for path, problem in twins.items():
                del fresh[path]
                self._problems[path] = (problem,)
        for path, config in fresh.items():
            self._former[path] = self._good.get(path)
            self._good[path] = config

    def _load(self, path: Path) -> OrganizationConfig:
        if self._alone:
            return load(path, self._types).organizations[0]
        return load_organization(path, self._types)

    def _service_changed(self, changed: Collection[Path]) -> bool:
        path = self._service_file
        if path not in changed:
            return False
        self._others.pop(path, None)
        try:
            return load_service(self._path) != self.service
        except ConfigurationError as error:
            if path != self._path:  # else it is told with the organization's own problems
                self._others[path] = error.problems
            return False

    def _renewed(self, *, anew: bool) -> frozenset[str]:
        """Keep every secret out of every line from now on; return the organizations whose have changed.

        With `anew`, the organizations are others than in the call before.
        """
        if anew:
            self._list_secrets()
        renewed: set[str] = set()
        for file in self._secrets.changed(self._users):
            secret = self._users[file][0][1]
            problem = secret.problem()
            if problem is not None:
                self._others[file] = (f"{file}: {problem}; put it back, it is used from then on",)
                continue
            self._others.pop(file, None)
            value = secret.read()
            redact_secret(value)
            digest = hashlib.blake2b(value.encode(), key=_KEY, digest_size=16).digest()
            if self._digests.setdefault(file, digest) != digest:
                self._digests[file] = digest
                renewed |= {name for name, _ in self._users[file]}
        return frozenset(renewed)

    def _list_secrets(self) -> None:
        before, self._users = self._users, defaultdict(list)
        for config in self._good.values():
            for secret in secrets_of(config):
                if secret.file is not None:
                    self._users[secret.file].append((config.name, secret))
                elif secret.problem() is None:
                    redact_secret(secret.read())
        self._secret_files = [str(file) for file in self._users]
        for file in before.keys() - self._users.keys():
            self._others.pop(file, None)
            self._digests.pop(file, None)


class _Stamps:
    """Tells files that have changed from those that have not, by what the file system says of them."""

    def __init__(self) -> None:
        self._seen: dict[Path, _Stamp] = {}
        self._told: dict[Path, _Stamp] = {}
        self._gone: set[Path] = set()

    def changed(self, paths: Iterable[Path], *, rested: bool = False) -> set[Path]:
        """Return those that are not as they were when they were last returned; a file that is gone is one.

        Only those that are `rested` where that is asked: as they were in the call before.
        """
        before, self._seen = self._seen, {path: _stamp(path) for path in paths}
        changed = {
            path
            for path, stamp in self._seen.items()
            if stamp != self._told.get(path) and (not rested or before.get(path) == stamp)
        }
        told = self._told
        self._told = {it: stamp if it in changed else told.get(it) for it, stamp in self._seen.items()}
        self._gone = {it for it, stamp in self._seen.items() if stamp is None and before.get(it) is None}
        return changed

    def gone(self) -> set[Path]:
        """Return those that the last two calls asked for in vain."""
        return self._gone


def _stamp(path: Path | str) -> _Stamp:
    try:
        return _stamp_of(os.stat(path))  # noqa: PTH116 - of text, it takes a third of the time
    except OSError:
        return None


def _stamp_of(found: os.stat_result) -> _Stamp:
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _stamps_in(folder: Path) -> dict[str, _Stamp]:
    with os.scandir(folder) as entries:
        return {it.name: _stamp(it.path) for it in entries if it.name.endswith(".toml")}


def _twins(
    wanted: Mapping[Path, OrganizationConfig], fresh: Mapping[Path, OrganizationConfig]
) -> dict[Path, str]:
    """Return the fresh files that claim what another file has too, each with what is wrong."""
    found = {}
    for key, remedy in TWINS:
        claims = defaultdict(list)
        for path, config in wanted.items():
            claims[getattr(config, key)].append(path)
        for paths in claims.values():
            for path in paths if len(paths) > 1 else ():
                other = next(it for it in paths if it != path)
                if path in fresh:
                    found[path] = f"{path}: {key}: is that of {other} too; {remedy}"
    return found
