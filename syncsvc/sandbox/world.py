"""A whole world in one process: a wallet and two CRMs, seeded, served on loopback, and what is true in it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from syncsvc.sandbox.hubspot import HubSpotKnobs, HubSpotSimulator
from syncsvc.sandbox.salesforce import SalesforceKnobs, SalesforceSimulator
from syncsvc.sandbox.server import Authority, Server
from syncsvc.sandbox.wallet import WalletSimulator

BRAND = "brand-1"
STORECARDS = ("card-1", "card-gold", "card-basic")
SHARED = 0.08
"""The share of contacts whose email stands in both CRMs."""

_FIRST = ("Ada", "Ben", "Chi", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivo", "Juno", "Kit", "Lena", "Max")
_LAST = ("Abel", "Berg", "Cruz", "Diaz", "Eden", "Frost", "Gray", "Holm", "Ives", "Jansen", "Klein", "Lund")
_TIERS = ("Gold", "Silver", "Bronze")
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class Person:
    """A contact as a CRM truly holds it: what the wallet should make of it."""

    record_id: str
    email: str = field(repr=False)
    points: int
    stamped: datetime | None

    @property
    def key(self) -> str:
        """The email as the wallet compares it."""
        return self.email.strip().casefold()


@dataclass(frozen=True, slots=True)
class Balance:
    """The points a member should have been awarded by imports in all, and those that it was."""

    expected: int
    awarded: int


class World:
    """Three simulators being served; a context manager.

    Salesforce stands first in the organization file: where both CRMs hold an email, it owns the member.
    """

    def __init__(self, folder: Path, *, contacts: int, seed: int = 0) -> None:
        """Seed both CRMs with `contacts` contacts each, stamped days ago; serve nothing yet."""
        self.folder = folder
        self.random = random.Random(seed)
        self.wallet = WalletSimulator(brands={BRAND: STORECARDS}, seed=seed)
        self.hubspot = HubSpotSimulator(seed=seed, knobs=HubSpotKnobs(index_lag=0.0, index_jitter=0.0))
        self.salesforce = SalesforceSimulator(seed=seed, knobs=SalesforceKnobs(daily_requests=1_000_000))
        self._departed: dict[str, int] = {}
        self._define()
        self._seed(contacts)
        authority = Authority(folder)
        self.ca_file = authority.ca_file
        self._servers = (
            Server(self.wallet.app),
            Server(self.hubspot.app),
            Server(self.salesforce.app, authority=authority),
        )

    def __enter__(self) -> Self:
        """Serve."""
        for server in self._servers:
            server.start()
        self.salesforce.instance_url = self.salesforce_url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop serving."""
        for server in self._servers:
            server.stop()

    @property
    def wallet_url(self) -> str:
        """Where the wallet is served."""
        return self._servers[0].url

    @property
    def hubspot_url(self) -> str:
        """Where HubSpot is served."""
        return self._servers[1].url

    @property
    def salesforce_url(self) -> str:
        """Where Salesforce is served, over TLS."""
        return self._servers[2].url

    @property
    def environment(self) -> dict[str, str]:
        """The secrets, by the names that the organization file and `config.example.toml` call them."""
        return {
            "ACME_WALLET_TOKEN": "wallet-sandbox",
            "SF_ID": self.salesforce.client_id,
            "SF_SECRET": self.salesforce.client_secret,
            "HUBSPOT_TOKEN": "pat-sandbox",
        }

    def write_organization(
        self, *, every: str, settle_after: str, listen: str = "", log_level: str = "info"
    ) -> Path:
        """Write the organization file of this world and return its path."""
        path = self.folder / "acme.toml"
        path.write_text(
            _ORGANIZATION.format(
                organization_id=self.wallet.organization_id,
                state=self.folder / "acme.db",
                listen=listen,
                log_level=log_level,
                ca_file=self.ca_file,
                every=every,
                settle_after=settle_after,
                wallet=self.wallet_url,
                salesforce=self.salesforce_url,
                hubspot=self.hubspot_url,
            ),
            encoding="utf-8",
        )
        return path

    def salesforce_people(self) -> Iterator[Person]:
        """Yield every live Salesforce contact."""
        for it in self.salesforce.records("Contact"):
            stamped = it.get("Wallet_Last_Updated__c")
            yield Person(it["Id"], it["Email"], int(it["Loyalty_Points__c"] or 0), _time(stamped))

    def hubspot_people(self) -> Iterator[Person]:
        """Yield every live HubSpot contact."""
        for record_id, it in self.hubspot.contacts():
            points = int(float(it.get("loyalty_points") or 0))
            yield Person(record_id, str(it["email"]), points, _time(it.get("wallet_last_updated")))

    def people(self) -> list[Person]:
        """Return every live contact of both CRMs."""
        return [*self.salesforce_people(), *self.hubspot_people()]

    def edit(self, count: int) -> None:
        """Let `count` contacts of each CRM, or all where there are fewer, earn points and change."""
        for person in self._some(list(self.salesforce_people()), count):
            earned = {"Loyalty_Points__c": person.points + 50, "Tier__c": "Gold"}
            self.salesforce.update("Contact", person.record_id, earned)
        for person in self._some(list(self.hubspot_people()), count):
            earned = {"loyalty_points": str(person.points + 25), "firstname": "New"}
            self.hubspot.update(person.record_id, earned)

    def depart(self) -> str:
        """Delete a contact whose email only Salesforce holds, and return its record id; its member stays."""
        shared = {person.key for person in self.hubspot_people()}
        gone = next(person for person in self.salesforce_people() if person.key not in shared)
        self.salesforce.delete("Contact", gone.record_id)
        self._departed[gone.key] = gone.points
        return gone.record_id

    def balances(self) -> dict[str, Balance]:
        """Return how every member that should be, or is, stands: the contact that owns it decides."""
        expected = dict(self._departed)
        expected |= {person.key: person.points for person in self.hubspot_people()}
        expected |= {person.key: person.points for person in self.salesforce_people()}
        awarded = {it.email.casefold(): it.awarded for it in self.wallet.members(BRAND)}
        return {
            key: Balance(expected.get(key, 0), awarded.get(key, 0))
            for key in expected.keys() | awarded.keys()
        }

    def unstamped(self) -> list[Person]:
        """Return the live contacts that do not carry the wallet's time for their member, to the second."""
        logged = {it.email.casefold(): it.logged for it in self.wallet.members(BRAND)}
        return [person for person in self.people() if not _agrees(person.stamped, logged.get(person.key))]

    def mend(self) -> None:
        """Let nothing fail from now on."""
        for simulator in (self.wallet, self.hubspot, self.salesforce):
            simulator.faults.clear()

    def noise(self) -> tuple[int, int, int]:
        """Return how many imports the wallet was sent, and how many records HubSpot and Salesforce were."""
        imports = self.wallet.requests["POST", "/v2/import"]
        return imports, len(self.hubspot.writes), len(self.salesforce.writes)

    def _some(self, people: list[Person], count: int) -> list[Person]:
        return self.random.sample(people, min(count, len(people)))

    def _define(self) -> None:
        for name, kind in (
            ("Loyalty_Points__c", "double"),
            ("Tier__c", "picklist"),
            ("License_Plate__c", "string"),
            ("Member_Since__c", "date"),
            ("Wallet_Last_Updated__c", "datetime"),
            ("Wallet_Status__c", "string"),
        ):
            self.salesforce.define("Contact", name, kind)
        for name, kind, field_type in (
            ("loyalty_points", "number", "number"),
            ("hs_email_optout", "bool", "booleancheckbox"),
            ("wallet_last_updated", "datetime", "date"),
            ("wallet_status", "string", "text"),
        ):
            self.hubspot.define(name, kind, field_type)

    def _seed(self, contacts: int) -> None:
        shared = max(1, int(contacts * SHARED))
        now = datetime.now(UTC)
        joined = [(now - timedelta(days=self.random.randrange(30, 900))).date() for _ in range(contacts)]
        self.salesforce.create_many(
            "Contact",
            [
                {
                    **self._name("FirstName", "LastName"),
                    "Email": f"member{number}@example.com",
                    "HasOptedOutOfEmail": False,
                    "Loyalty_Points__c": self.random.randrange(0, 5000),
                    "Tier__c": self.random.choice(_TIERS),
                    "License_Plate__c": f"SB-{number:05d}",
                    "Member_Since__c": date.isoformat(),
                }
                for number, date in enumerate(joined)
            ],
            at=now - timedelta(days=3),
        )
        self.hubspot.create_many(
            [
                {
                    **self._name("firstname", "lastname"),
                    "email": f"member{number}@example.com",
                    "loyalty_points": str(self.random.randrange(0, 5000)),
                }
                for number in range(contacts - shared, 2 * contacts - shared)
            ],
            at=now - timedelta(days=2),
        )

    def _name(self, first: str, last: str) -> dict[str, Any]:
        return {first: self.random.choice(_FIRST), last: self.random.choice(_LAST)}


def _time(value: object) -> datetime | None:
    return datetime.fromisoformat(str(value)) if value else None


def _agrees(stamped: datetime | None, logged: datetime | None) -> bool:
    if stamped is None or logged is None:
        return stamped is logged
    return abs(stamped - logged) <= _SECOND


_ORGANIZATION = """\
# Written by `syncsvc demo`: two CRMs and a wallet, all simulated on this machine.
organization_id = "{organization_id}"
first_run = "import"

[service]
state = "sqlite:///{state}"
listen = "{listen}"
log_level = "{log_level}"
log_format = "json"
ca_file = "{ca_file}"

[schedule]
every = "{every}"
log_every = "2s"

[wallet]
base_url = "{wallet}"
token = {{ env = "ACME_WALLET_TOKEN" }}
brand_id = "brand-1"
storecard = "card-1"
settle_after = "{settle_after}"

[brakes]
max_share = "100%"

[connectors.crm]
type = "salesforce"
url = "{salesforce}"
overlap = "2s"
where = "Email != '' && !HasOptedOutOfEmail"

[connectors.crm.auth]
flow = "client_credentials"
client_id = {{ env = "SF_ID" }}
client_secret = {{ env = "SF_SECRET" }}

[connectors.crm.member]
email = "{{Email}}"
name = "{{FirstName}} {{LastName}}"
points = "{{Loyalty_Points__c}}"
storecard = {{ field = "Tier__c", values = {{ Gold = "card-gold" }}, default = "card-basic" }}
licenseplate = "{{License_Plate__c}}"
start_date = "{{Member_Since__c}}"

[connectors.crm.write_back]
last_updated = "Wallet_Last_Updated__c"
status = "Wallet_Status__c"

[connectors.marketing]
type = "hubspot"
token = {{ env = "HUBSPOT_TOKEN" }}
base_url = "{hubspot}"
overlap = "2s"

[connectors.marketing.member]
email = "{{email}}"
name = "{{firstname}} {{lastname}}"
points = "{{loyalty_points}}"

[connectors.marketing.write_back]
last_updated = "wallet_last_updated"
"""
