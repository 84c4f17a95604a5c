"""Set up: fields that are written back and are missing are made in the CRM, after a person agreed.

Where a CRM lets none be made, what is to be made by hand is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from syncsvc.config import OrganizationConfig
from syncsvc.errors import OperatorError
from syncsvc.organization import ConnectorTypes
from syncsvc.remote.connector import Connector, Missing, Needs, SetsUp
from syncsvc.remote.transport import Network
from syncsvc.rules.mapping import Mapper

COMPLETE = "every field that is written back exists"

Agree = Callable[[str, Missing], bool]
"""Asked before a field is made: the connector's name, and the field; returns whether it may be."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What became of one connector, or of one field it lacks; `done` says whether nothing is left to do."""

    connector: str
    done: bool
    message: str


def set_up(
    config: OrganizationConfig, *, types: ConnectorTypes, network: Network, agree: Agree
) -> list[Setup]:
    """Return what was made, and what is left to a person, connector by connector in their order.

    Raises what the CRMs raise when they are asked; a refusal to make a field is told and ends nothing.
    """
    steps: list[Setup] = []
    for name, settings in config.connectors.items():
        mapper = Mapper(settings, config.wallet)
        needs = Needs(mapper.needs, settings.write_back.model_dump(exclude_none=True))
        connector = types[settings.type](settings.settings, needs, network)
        try:
            if isinstance(connector, SetsUp):
                steps += _fields(name, connector, agree)
            else:
                steps += _by_hand(name, connector, needs)
        finally:
            connector.close()
    return steps


def _by_hand(name: str, connector: Connector, needs: Needs) -> list[Setup]:
    """Return what keeps facts from being written back, by a connector that makes no fields itself."""
    facts = [(f"write_back.{fact}", field) for fact, field in needs.write.items()]
    found = [
        Setup(name, done=False, message=f"by hand: {it.where} {it.message}: {it.remedy}")
        for it in connector.check()
        if any(it.where == fact or it.where.endswith(f".{field}") for fact, field in facts)
    ]
    return found or [Setup(name, done=True, message=COMPLETE)]


def _fields(name: str, connector: SetsUp, agree: Agree) -> list[Setup]:
    missing = connector.missing()
    if not missing:
        return [Setup(name, done=True, message=COMPLETE)]
    return [_field(name, connector, field, agree) for field in missing]


def _field(name: str, connector: SetsUp, field: Missing, agree: Agree) -> Setup:
    if not agree(name, field):
        return Setup(name, done=False, message=f"not made: {field.description}")
    try:
        connector.create(field)
    except OperatorError as error:
        return Setup(name, done=False, message=f"not made: {field.description}: {error}")
    return Setup(name, done=True, message=f"made: {field.description}")
