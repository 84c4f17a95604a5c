"""The protocol between the engine and a CRM: connectors return, the engine remembers.

A connector holds no state between calls, touches no store, schedules nothing, and logs nothing about a
single contact.

Where a CRM tells how many calls of the day are left, its connector keeps that in `network.allowance`, for
`status` and the metrics, and leaves a reserve to the account's other applications by raising TransientError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol, runtime_checkable

from syncsvc.model import Page, Problem, WriteBack, WriteOutcome
from syncsvc.remote.transport import Network
from syncsvc.settings import Settings


@dataclass(frozen=True)
class Needs:
    """What the engine wants from every contact.

    `read` are the CRM fields that the mapping and `where` use; `write` are the CRM fields that are
    written back, by wallet fact: `last_updated` (a time) and, where configured, `status` (text). A connector
    reads both with each contact, but treats only `read` as content.
    """

    read: frozenset[str]
    write: Mapping[str, str]

    @cached_property
    def fields(self) -> list[str]:
        """Every field to ask the CRM for, sorted."""
        return sorted(self.read | set(self.write.values()))


@dataclass(frozen=True, slots=True)
class Missing:
    """A field that is to be written back and that the CRM lacks; `description` says what it would be."""

    fact: str
    name: str
    description: str


@runtime_checkable
class SetsUp(Protocol):
    """What a connector may bring besides: making the fields that it writes back."""

    def missing(self) -> list[Missing]:
        """Return the fields that are written back and do not exist."""

    def create(self, missing: Missing) -> None:
        """Make one of them; raises OperatorError where the CRM refuses it."""


class Connector(Protocol):
    """One configured CRM account."""

    def check(self) -> list[Problem]:
        """Return every problem that would keep this connector from working, each with its remedy.

        Asks the CRM for its schema: every field in `Needs` exists, those written are writable and of a
        fitting type. Raises TransientError or CredentialsError when the CRM cannot be asked.
        """

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield pages of changed contacts; each page's cursor is safe once that page is stored.

        None asks for a sweep: every live contact, and the iterator ends normally only when it was
        complete. The cursor of any page continues what that page was part of, so an interrupted sweep
        goes on as a sweep, and the last cursor of a sweep starts polling from before the sweep began.
        The pages may be taken by different threads, one at a time, and not to the end; other connectors work
        meanwhile.
        A contact may come more than once. A poll of an unchanged CRM is one request, and its cursor
        equals the one given; where the CRM lets cursors expire, it is renewed every day or so, and where it
        has to be asked apart what was deleted, that is done once an hour or so and kept in the cursor.
        Raises CursorError where the cursor is of no use any more.

        What keeps these promises for CRMs that stamp changes with times is `syncsvc.remote.window`, for
        those that hand out links or tokens `syncsvc.remote.links`.

        Where a CRM cannot tell what changed, a poll that finds any change brings everything: its pages are
        `whole`. The engine then sweeps, and polls on from the sweep's last cursor.
        """

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order; the values have distinct record ids.

        Runs beside other connectors: what they share needs a lock.
        Splits to the API's batch size; outcomes of a batch are yielded as soon as it is answered.
        Writing the same value twice leaves the record the same.
        """

    def close(self) -> None:
        """Give back connections; the connector is not used again."""


class ConnectorType(Protocol):
    """What an entry point of the group `syncsvc.connectors` names: usually the connector's class."""

    Settings: ClassVar[type[Settings]]
    """The connector's own keys under `[connectors.NAME]`, beside those every connector has."""

    def __call__(self, settings: Any, needs: Needs, network: Network) -> Connector:
        """Return a connector that is ready to work; makes no request yet."""
