"""The engine with a real CRM's connector: two objects of one Salesforce org, simulated, over HTTPS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from enginelab import IMPORT, NOON, Lab, Timeline

from connectors.salesforce import Salesforce, SalesforceSettings
from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.salesforce import SalesforceSimulator
from syncsvc.sandbox.server import Authority, Server
from syncsvc.watch.report import Outcome

ADA = "ada@example.org"
NEVER = "2099-12-31"


class Sales:
    """An org with leads and contacts, read by two connectors of one lab."""

    def __init__(self, org: SalesforceSimulator, lab: Lab) -> None:
        self.org = org
        self.lab = lab

    def in_bulk(self) -> SalesforceSettings:
        settings: SalesforceSettings = self.lab.tables["connectors"]["contact"]["settings"]
        return settings.model_copy(update={"bulk_above": 0})

    def person(self, sobject: str, points: int, **fields: Any) -> str:
        made = {"LastName": "L", "Email": ADA, "Points__c": points, **fields}
        return self.org.create(sobject, made, at=NOON - timedelta(days=2))


@pytest.fixture
def open_sales(open_lab: Callable[..., Lab], tmp_path: Path) -> Iterator[Callable[..., Sales]]:
    clock, authority = ManualClock(NOON), Authority(tmp_path)
    org = SalesforceSimulator(clock=clock, seed=1)
    for sobject in ("Lead", "Contact"):
        org.define(sobject, "Points__c", "double")
        org.define(sobject, "Wallet_At__c", "datetime")
    for name, content in (("id", org.client_id), ("secret", org.client_secret)):
        (tmp_path / name).write_text(content, encoding="utf-8")

    class Trusting(Timeline):
        def __init__(self, clock: ManualClock) -> None:
            super().__init__(clock)
            self._tls.load_verify_locations(cafile=str(authority.ca_file))

    with Server(org.app, authority=authority) as server:

        def table(sobject: str, more: dict[str, Any]) -> dict[str, Any]:
            auth = {
                "flow": "client_credentials",
                "client_id": {"file": str(tmp_path / "id")},
                "client_secret": {"file": str(tmp_path / "secret")},
            }
            keys = {"url": server.url, "auth": auth, "object": sobject, **more}
            email, suffix = ("PersonEmail", "pc") if sobject == "Account" else ("Email", "c")
            return {
                "type": "salesforce",
                "member": {"email": f"{{{email}}}", "name": "{LastName}", "points": f"{{Points__{suffix}}}"},
                "write_back": {"last_updated": f"Wallet_At__{suffix}"},
                "settings": SalesforceSettings.model_validate(keys),
            }

        def opened(*objects: str, keys: dict[str, Any] | None = None, **tables: Any) -> Sales:
            lab = open_lab(
                clock=clock,
                network=Trusting,
                types={"salesforce": Salesforce},
                connectors={name.lower(): table(name, keys or {}) for name in objects},
                **tables,
            )
            return Sales(org, lab)

        yield opened


@pytest.mark.parametrize("order", [("Lead", "Contact"), ("Contact", "Lead")])
def test_points_of_a_converted_lead_are_not_awarded_again_to_its_contact(
    open_sales: Callable[..., Sales], order: tuple[str, str]
) -> None:
    sales = open_sales(*order, policy={"on_gone": "expire"})
    lead = sales.person("Lead", 10, Company="Acme")
    sales.lab.cycle()
    assert sales.lab.awarded(ADA) == 10
    contact = sales.org.convert_lead(lead)
    sales.org.update("Contact", contact, {"Points__c": 10})
    for _ in range(4):
        assert sales.lab.cycle(after=120).outcome is Outcome.OK
    assert sales.lab.awarded(ADA) == 10
    assert sales.lab.profile(ADA).get("expires_at") in {None, NEVER}, "the contact carries the member on"
    sales.org.update("Contact", contact, {"Points__c": 25})
    for _ in range(4):
        sales.lab.cycle(after=120)
    assert sales.lab.awarded(ADA) == 25
    assert sales.org.record("Contact", contact)["Wallet_At__c"]
    assert sales.lab.rows("SELECT count(*) FROM contact WHERE state = 3") == [(1,)]


def test_lead_that_is_converted_where_no_contacts_are_read_leaves_its_member_as_it_was(
    open_sales: Callable[..., Sales],
) -> None:
    sales = open_sales("Lead")
    lead = sales.person("Lead", 10, Company="Acme")
    sales.lab.cycle()
    sales.org.convert_lead(lead)
    imports = sales.lab.asks(IMPORT)
    for _ in range(4):
        assert sales.lab.cycle(after=120).outcome is Outcome.OK
    assert sales.lab.asks(IMPORT) == imports
    assert sales.lab.awarded(ADA) == 10


def test_contacts_are_written_back_once_and_come_home_as_echoes(open_sales: Callable[..., Sales]) -> None:
    sales = open_sales("Contact")
    for number in range(5):
        sales.person("Contact", number, Email=f"m{number}@example.org")
    assert sales.lab.cycle().written_back == 5
    assert sum(sales.lab.cycle(after=120).echoes for _ in range(10)) == 5
    imports, writes = sales.lab.asks(IMPORT), len(sales.org.writes)
    report = sales.lab.cycle()
    assert (sales.lab.asks(IMPORT), len(sales.org.writes)) == (imports, writes)
    assert (report.read, report.connectors["contact"].requests) == (0, 1)
    assert sales.lab.wallet.total_awarded() == 10


def test_person_account_is_one_member_though_contacts_are_read_too(open_sales: Callable[..., Sales]) -> None:
    sales = open_sales("Account", "Contact")
    sales.org.enable_person_accounts()
    fields = {"LastName": "L", "PersonEmail": ADA, "Points__pc": 10}
    person = sales.org.create("Account", fields, at=NOON - timedelta(days=2))
    for _ in range(4):
        assert sales.lab.cycle(after=120).outcome is Outcome.OK
    assert sales.lab.awarded(ADA) == 10
    assert sales.org.record("Account", person)["Wallet_At__pc"]
    assert sales.lab.rows("SELECT record_id FROM contact") == [(person,)]


def test_slow_bulk_query_is_gone_on_with_by_a_later_cycle_and_not_made_again(
    open_sales: Callable[..., Sales],
) -> None:
    sales = open_sales("Contact", keys={"bulk_above": 0})
    for number in range(5):
        sales.person("Contact", number, Email=f"m{number}@example.org")
    sales.org.knobs.job_seconds = 900.0
    report = sales.lab.cycle()
    assert (report.outcome, report.read) == (Outcome.TRANSIENT, 0)
    assert "is still running" in report.errors[0]
    sales.lab.reopen()
    outcomes = [sales.lab.cycle().outcome for _ in range(3)]
    assert outcomes[-1] is Outcome.OK
    assert sales.lab.wallet.total_awarded() == 10
    assert len(sales.org.jobs) == 1


def test_points_are_the_same_whether_a_sweep_is_by_queries_or_in_bulk(
    open_sales: Callable[..., Sales],
) -> None:
    sales = open_sales("Contact")
    for number in range(5):
        sales.person("Contact", number, Email=f"m{number}@example.org")
    sales.lab.cycle()
    sales.lab.restart(
        connectors={"contact": {**sales.lab.tables["connectors"]["contact"], "settings": sales.in_bulk()}}
    )
    imports = sales.lab.asks(IMPORT)
    report = sales.lab.cycle(full=True)
    assert (report.outcome, report.changed) == (Outcome.OK, 0)
    assert (len(sales.org.jobs), sales.lab.asks(IMPORT)) == (1, imports)
