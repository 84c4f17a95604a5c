"""An organization ready to work: its state, its wallet, and its connectors, opened from its configuration."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from syncsvc.config import OrganizationConfig
from syncsvc.remote.clocks import Clocks
from syncsvc.remote.connector import Connector, ConnectorType, Needs
from syncsvc.remote.transport import Network
from syncsvc.remote.wallet import WalletClient
from syncsvc.rules.intake import Reader
from syncsvc.rules.mapping import Mapper
from syncsvc.state.database import Database
from syncsvc.state.lease import Lease
from syncsvc.state.store import Store, open_store, register
from syncsvc.watch.states import States

_BETWEEN_COLLECTIONS = 50_000
"""Objects made between two searches for cycles: a page alone makes a thousand, and holds no cycle."""

ConnectorTypes = Mapping[str, ConnectorType]
"""The connector types that are installed, by the name the configuration calls them."""


@dataclass(frozen=True, slots=True)
class OpenConnector:
    """One connector at work: `mapping` is the digest of everything that decides what its contacts become."""

    name: str
    id: int
    connector: Connector
    reader: Reader
    needs: Needs
    mapping: str
    network: Network


@dataclass(frozen=True, slots=True)
class Organization:
    """One organization at work; a context manager that gives its connections back."""

    config: OrganizationConfig
    store: Store
    lease: Lease
    wallet: WalletClient
    network: Network
    connectors: dict[str, OpenConnector] = field(default_factory=dict)
    states: States = field(default_factory=States)

    @property
    def clocks(self) -> Iterator[Clocks]:
        """What its servers told of their clocks."""
        yield self.network.clocks
        yield from (it.network.clocks for it in self.connectors.values())

    def close(self) -> None:
        """Give back every connection, and the lease."""
        for it in self.connectors.values():
            it.connector.close()
        self.wallet.close()
        self.lease.close()

    def __enter__(self) -> Self:
        """Return the organization."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


def open_organization(
    config: OrganizationConfig, database: Database, *, types: ConnectorTypes, network: Network
) -> Organization:
    """Return a configured organization ready to work, with its lease; makes no request yet.

    No request begins once the lease may be over. Raises ConfigurationError where a connector cannot be
    opened, or the state knows the organization as another, StateError where the state cannot be used, and
    HeldError where another process runs its cycles; the state then is as it was.
    """
    gc.set_threshold(_BETWEEN_COLLECTIONS)
    lease = database.leases.hold(register(database, config))
    if lease.shared:
        network = network.leased(left=lease.left, clock=lease.now)
    wallet = WalletClient(config.organization_id, config.wallet, network)
    opened: list[tuple[str, Connector, Mapper, Needs, Network]] = []
    try:
        for name, settings in config.connectors.items():
            mapper = Mapper(settings, config.wallet)
            needs = Needs(mapper.needs, settings.write_back.model_dump(exclude_none=True))
            branch = network.branch()
            connector = types[settings.type](settings.settings, needs, branch)
            opened.append((name, connector, mapper, needs, branch))
        store = open_store(database, config, lease)
    except BaseException:
        for _, connector, *_ in opened:
            connector.close()
        wallet.close()
        lease.close()
        raise
    organization = Organization(config, store, lease, wallet, network)
    for name, connector, mapper, needs, branch in opened:
        organization.connectors[name] = OpenConnector(
            name=name,
            id=store.connectors.get(name, 0),
            connector=connector,
            reader=Reader(mapper, store.fingerprinter, needs.write),
            needs=needs,
            mapping=f"{mapper.digest}:{','.join(needs.fields)}",
            network=branch,
        )
    return organization
