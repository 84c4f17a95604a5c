"""The connector types that are installed, found by entry point and loaded when they are first needed.

A connector brings its CRM's client library along; a service that speaks to one CRM does not load the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

from syncsvc.errors import ConfigurationError
from syncsvc.remote.connector import ConnectorType
from syncsvc.settings import Settings

GROUP = "syncsvc.connectors"


class InstalledTypes(Mapping[str, ConnectorType]):
    """Every installed connector type by the name that the configuration calls it."""

    def __init__(self) -> None:
        """Look at the installed distributions; load nothing yet."""
        self._points = {point.name: point for point in entry_points(group=GROUP)}
        self._loaded: dict[str, ConnectorType] = {}

    def __getitem__(self, name: str) -> ConnectorType:
        """Return a type, loaded now where it was not.

        Raises KeyError where it is not installed, ConfigurationError where it cannot be loaded.
        """
        if name not in self._loaded:
            point = self._points[name]
            try:
                self._loaded[name] = point.load()
            except (ImportError, AttributeError) as error:
                owner = point.dist.name if point.dist else "unknown"
                problem = f"connector type {name}: {point.value} cannot be loaded ({type(error).__name__})"
                raise ConfigurationError([f"{problem}; reinstall or remove the package {owner}"]) from error
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        """Yield the names, loading nothing."""
        return iter(self._points)

    def __len__(self) -> int:
        """Return how many types are installed."""
        return len(self._points)


class InstalledSettings(Mapping[str, type[Settings]]):
    """The settings of each connector type, for reading the configuration."""

    def __init__(self, types: Mapping[str, ConnectorType]) -> None:
        """Ask `types` when a name comes up."""
        self._types = types

    def __getitem__(self, name: str) -> type[Settings]:
        """Return the settings of a type; raises KeyError where it is not installed."""
        return self._types[name].Settings

    def __iter__(self) -> Iterator[str]:
        """Yield the names, loading nothing."""
        return iter(self._types)

    def __len__(self) -> int:
        """Return how many types are installed."""
        return len(self._types)
