"""The Salesforce connector: polls one object by SystemModstamp, and writes facts back in collections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from connectors import salesforce_schema
from connectors.salesforce_api import Session
from connectors.salesforce_auth import Auth, Password
from connectors.salesforce_deleted import Deletions
from connectors.salesforce_jobs import Jobs
from connectors.salesforce_polls import Polls
from connectors.salesforce_records import Records
from connectors.salesforce_sweep import Position, Sweep
from connectors.salesforce_writes import Writes
from syncsvc.errors import CredentialsError, LostAnswerError, OperatorError
from syncsvc.model import Page, Problem, WriteBack, WriteOutcome
from syncsvc.remote.connector import Needs
from syncsvc.remote.transport import Network
from syncsvc.settings import Duration, Reserve, Settings, Url

SOAP_LOGIN_UNTIL = 64
"""The last API version that has a SOAP login (Salesforce help 005132110, 2026-04)."""


def _https(url: str) -> str:
    if not url.startswith("https://"):
        raise ValueError("use https: Salesforce is spoken to over TLS alone, to a loopback address too")
    return url


class SalesforceSettings(Settings):
    """The keys of a Salesforce connector."""

    url: Annotated[Url, AfterValidator(_https)] = Field(
        examples=["https://acme.my.salesforce.com"], description="the org's My Domain"
    )
    object: str = Field(
        default="Contact", pattern=r"^[A-Za-z]\w*$", description="Contact, Lead, Account, ..."
    )
    api_version: str = Field(default="67.0", pattern=r"^\d{2,3}\.0$", description="version of the REST API")
    auth: Auth = Field(description="how to log in, told apart by `flow`")
    overlap: Annotated[Duration, Field(gt=timedelta(0))] = Field(
        default=timedelta(minutes=10), description="how late a record may become visible"
    )
    deletions_every: Duration = Field(
        default=timedelta(hours=1),
        description='how often, beside polls, the log of deletions is asked; "0s": never, sweeps tell them',
    )
    reserve: Reserve = Field(
        default="5%",
        description="calls of 24 hours that are left to the org's other apps: a number or a share",
    )
    timeout: Annotated[Duration, Field(gt=timedelta(0))] = Field(
        default=timedelta(seconds=60), description="for the whole of each call"
    )
    bulk_above: int = Field(
        default=50_000,
        ge=0,
        description="records that a sweep reads by queries; one bulk query brings all that are left",
    )
    page_size: int = Field(default=2000, ge=1, le=2000, description="rows of one query")

    @model_validator(mode="after")
    def _soap_login_has_ended(self) -> Self:
        if isinstance(self.auth, Password) and float(self.api_version) > SOAP_LOGIN_UNTIL:
            raise ValueError(f'auth flow "password" needs an api_version of at most {SOAP_LOGIN_UNTIL}.0')
        return self


class Salesforce:
    """One object of one Salesforce org, as the engine sees a CRM."""

    Settings = SalesforceSettings

    def __init__(self, settings: SalesforceSettings, needs: Needs, network: Network) -> None:
        """Be ready to work; makes no request yet."""
        self._object = settings.object
        self._needs = needs
        self._session = Session(
            settings.url,
            auth=settings.auth,
            version=settings.api_version,
            timeout=settings.timeout.total_seconds(),
            reserve=settings.reserve,
            network=network,
        )
        self._records = Records(
            self._session,
            settings.object,
            needs=needs,
            page_size=settings.page_size,
        )
        self._polls = Polls(
            self._session,
            self._records,
            Deletions(self._session, self._records),
            overlap=settings.overlap,
            every=settings.deletions_every,
        )
        self._sweep = Sweep(
            self._records,
            Jobs(self._session, network),
            overlap=settings.overlap,
            every=settings.deletions_every,
            bulk_above=settings.bulk_above,
            describe=self._described,
        )
        self._writes = Writes(
            self._session, settings.object, fields=needs.write.values(), records=self._records
        )

    def close(self) -> None:
        """Give back connections; the connector is not used again."""
        self._session.close()

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield pages of changed contacts; see `Connector.changes`.

        A person account is read as an Account and never as a Contact, which it is too: it can be written
        through the account alone. Beside persons, other accounts are left out. A lead that was converted is
        gone: it can neither be seen nor edited any more, and lives on as a contact.

        Raises SchemaError where a field is missing or the fields make the query too long.
        """
        if cursor is None:
            persons = self._has_person_accounts()
            pages = self._sweep.pages(Position(persons=persons))
            first = next(pages)
            yield replace(first, contacts=[*self._polls.ended(persons=persons), *first.contacts])
            yield from pages
        elif position := Position.parse(cursor):
            yield from self._sweep.pages(position)
        else:
            yield from self._polls.polled(cursor)

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order; see `Connector.write_back`.

        A record that was merged away passes its values on to the one it was merged into, unless that one is
        written in the same call. Raises SchemaError where a field cannot be written on any record.
        """
        return self._writes.write(values)

    def check(self) -> list[Problem]:
        """Return what keeps this connector from working; see `Connector.check`.

        Also tells of mapped formula fields: polls do not see them change.
        """
        try:
            return salesforce_schema.problems(self._object, self._needs, cache(self._described))
        except CredentialsError:
            raise
        except OperatorError as error:
            return [
                Problem("object", str(error), "name an object the user may see, and a current api_version")
            ]

    def _described(self, name: str) -> dict[str, Any]:
        """Return an object's description, without fields where a related object may not be seen."""
        try:
            return self._describe(name)
        except OperatorError as error:
            if name == self._object or isinstance(error, CredentialsError):
                raise
            return {"fields": []}

    def _describe(self, name: str) -> dict[str, Any]:
        body = self._session.call("GET", f"sobjects/{name}/describe").body
        if not isinstance(body, dict) or "fields" not in body:
            raise LostAnswerError(f"GET sobjects/{name}/describe: the answer is not a description")
        return body

    def _has_person_accounts(self) -> bool:
        # The field exists only where the feature is on.
        return self._object in {"Account", "Contact"} and salesforce_schema.has(
            "IsPersonAccount", self._describe(self._object)
        )
