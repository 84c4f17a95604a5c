"""What commands share: the configuration, the state beside a running service, and who runs them."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import click

from syncsvc.configfile import Installation, Survey, survey
from syncsvc.errors import ConfigurationError
from syncsvc.organization import ConnectorTypes
from syncsvc.plugins import InstalledSettings, InstalledTypes
from syncsvc.roster import Roster
from syncsvc.service import ServiceConfig
from syncsvc.settings import Secret, Settings, secrets_of
from syncsvc.state.database import Database
from syncsvc.state.store import Store, open_store
from syncsvc.stateurl import secrets_of_url
from syncsvc.watch import log

as_json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs instead of tables."
)


_NO_PATH = "name the configuration: -c FILE, -c DIRECTORY, or SYNCSVC_CONFIG"


class Context:
    """What commands share: the configuration, read when a command asks for it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    @cached_property
    def types(self) -> ConnectorTypes:
        """The installed connector types by name."""
        return InstalledTypes()

    @property
    def settings(self) -> Mapping[str, type[Settings]]:
        """The settings that each connector type takes, by its name."""
        return InstalledSettings(self.types)

    def installation(self, *, read_secrets: bool = True) -> Installation:
        """Return what is configured, with logging set up for it and its secrets kept out of every line.

        At a terminal the log is left to warnings, unless asked for more. Raises ConfigurationError with every
        problem.
        """
        found = self.survey(read_secrets=read_secrets)
        if found.broken:
            raise ConfigurationError([it for problems in found.broken.values() for it in problems])
        return found.usable

    def survey(self, *, read_secrets: bool = True) -> Survey:
        """Return what of it can be used, and what is wrong with the files that cannot; else like these."""
        if self._path is None:
            raise click.UsageError(_NO_PATH)
        found = survey(self._path, self.settings, read_secrets=read_secrets)
        installation = found.usable
        _log(installation.service, quietly=sys.stderr.isatty())
        for organization in installation.organizations if read_secrets else ():
            for secret in secrets_of(organization):
                log.redact_secret(secret.read())
        return found

    def roster(self) -> Roster:
        """Return what a service runs and looked after from now on, with logging set up for it.

        Broken files keep none but their own organization from running; raises ConfigurationError where
        none is good.
        """
        if self._path is None:
            raise click.UsageError(_NO_PATH)
        roster = Roster(self._path, self.settings)
        roster.begin()
        _log(roster.service, quietly=False)
        return roster


def _log(service: ServiceConfig, *, quietly: bool) -> None:
    level = "warning" if quietly and service.log_level == "info" else service.log_level
    log.configure(format=service.log_format, level=level)
    if isinstance(service.state, Secret) and service.state.problem() is None:
        url = service.state_url
        for secret in (url, *secrets_of_url(url)):
            log.redact_secret(secret)


class Stores:
    """The state of every organization by name, opened beside a service that may be running.

    A broken file keeps no other organization from being looked at, and is said; `broken` are such files.
    """

    def __init__(self, asked: Context | Installation) -> None:
        self.broken: Mapping[Path, Sequence[str]] = {}
        installation = asked if isinstance(asked, Installation) else self._usable(asked)
        self.url = installation.service.state_url
        self.organizations = installation.organizations
        self.database = Database.open_beside(self.url)

    def _usable(self, context: Context) -> Installation:
        found = context.survey(read_secrets=False)
        self.broken = found.broken
        for problem in (it for problems in found.broken.values() for it in problems):
            click.echo(f"left out, as its file is broken: {problem}", err=True)
        return found.usable

    def __enter__(self) -> dict[str, Store]:
        try:
            return {it.name: open_store(self.database, it) for it in self.organizations}
        except BaseException:
            self.database.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.database.close()


def user() -> str:
    """Return who runs this command, as the machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has a number only
        return f"uid {os.getuid()}"
