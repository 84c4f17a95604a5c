"""Person accounts are read once and written through the account; a converted lead lives on as a contact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from salesforce_maker import SalesforceMaker

from syncsvc.model import WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Connector, Needs
from syncsvc.testing import Ground
from syncsvc.testing.reading import Read, read, swept
from syncsvc.testing.writing import write, written

AT = datetime(2026, 11, 1, 23, 30, 5, tzinfo=UTC)
DESCRIBE = ("GET", "/services/data/v{version}/sobjects/{sobject}/describe")
PERSON = Needs(frozenset({"PersonEmail", "LastName", "Name", "Note__pc"}), {"last_updated": "Wallet_At__pc"})
LEAD = Needs(frozenset({"Email", "LastName"}), {"last_updated": "Wallet_At__c"})


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=True) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[SalesforceMaker]:
    maker = SalesforceMaker(ground, tmp_path)
    yield maker
    maker.close()


@pytest.fixture
def persons(crm: SalesforceMaker) -> SalesforceMaker:
    crm.org.enable_person_accounts()
    return crm


def accounts(crm: SalesforceMaker, **keys: Any) -> Connector:
    return crm.connect(PERSON, object="Account", **keys)


def person(crm: SalesforceMaker, name: str, **fields: Any) -> str:
    email = f"zebra-{name}@example.org"
    return crm.org.create("Account", {"LastName": name, "PersonEmail": email, **fields})


def ids(found: Read) -> list[str]:
    return [contact.record_id for page in found.pages for contact in page.contacts]


def fields(found: Read, record_id: str) -> Mapping[str, Any]:
    return found.latest[record_id].fields


# --- person accounts


def test_person_account_is_read_as_an_account_and_never_as_a_contact(persons: SalesforceMaker) -> None:
    one, company = person(persons, "Ada", Note__pc="ä"), persons.org.create("Account", {"Name": "Acme"})
    made = persons.people(2)
    found = read(persons, None, accounts(persons))
    assert ids(found) == [one]
    assert company not in found.latest
    assert fields(found, one) == {
        "PersonEmail": "zebra-Ada@example.org",
        "LastName": "Ada",
        "Name": "Ada",
        "Note__pc": "ä",
        "Wallet_At__pc": None,
    }
    assert ids(read(persons, None)) == made


def test_change_of_a_person_comes_once_though_it_moves_two_records(persons: SalesforceMaker) -> None:
    one = person(persons, "Ada")
    as_account, as_contact = accounts(persons), persons.connect()
    cursor, contacts = read(persons, None, as_account).cursor, read(persons, None, as_contact).cursor
    persons.wait(timedelta(minutes=1))
    persons.org.update("Account", one, {"PersonEmail": "yak@example.org"})
    account = persons.org.record("Account", one)
    contact = persons.org.record("Contact", account["PersonContactId"])
    assert (contact["Email"], contact["SystemModstamp"]) == ("yak@example.org", account["SystemModstamp"])
    assert fields(read(persons, cursor, as_account), one)["PersonEmail"] == "yak@example.org"
    assert ids(read(persons, contacts, as_contact)) == []


@pytest.mark.parametrize("sobject", ["Account", "Contact"])
def test_persons_are_told_apart_from_the_first_page_to_the_last(
    persons: SalesforceMaker, sobject: str
) -> None:
    everyone = [person(persons, str(n)) for n in range(5)]
    plain = persons.people(5)
    for n in range(5):
        persons.org.create("Account", {"Name": f"Company {n}"})
    connect = accounts if sobject == "Account" else SalesforceMaker.connect
    wanted = everyone if sobject == "Account" else plain
    before = persons.org.requests[DESCRIBE]
    first = read(persons, None, connect(persons, page_size=2))
    assert ids(first) == wanted
    persons.wait(timedelta(minutes=1))
    at = persons.clock.now()
    for n, one in enumerate(everyone):
        persons.org.update("Account", one, {"LastName": f"Other {n}"}, at=at)
    for one in plain:
        persons.org.update("Contact", one, {"LastName": "Other"}, at=at)
    cursor: str | None = first.cursor
    seen = []
    for _ in range(4):  # a new connector for every page
        pages = connect(persons, page_size=2).changes(cursor)
        page = next(pages)
        seen += [contact.record_id for contact in page.contacts]
        cursor = page.cursor
    assert list(dict.fromkeys(seen)) == wanted
    assert persons.org.requests[DESCRIBE] - before == 1, "the cursor remembers"


def test_poll_of_an_idle_org_with_persons_keeps_its_cursor(persons: SalesforceMaker) -> None:
    person(persons, "Ada")
    for connector in (accounts(persons), persons.connect()):
        cursor = read(persons, None, connector).cursor
        persons.wait(timedelta(hours=1))
        cursor = read(persons, cursor, connector).cursor
        assert read(persons, cursor, connector).cursor == cursor


def test_person_is_written_through_the_account(persons: SalesforceMaker) -> None:
    one = person(persons, "Ada")
    (outcome,) = accounts(persons).write_back([WriteBack(one, {"Wallet_At__pc": AT})])
    assert outcome == WriteOutcome(one, Written.WRITTEN)
    record = persons.org.record("Account", one)
    assert record["Wallet_At__pc"] == "2026-11-01T23:30:05.000+0000"
    assert persons.org.record("Contact", record["PersonContactId"])["Wallet_At__c"] == record["Wallet_At__pc"]
    (refused,) = write(persons, [written(persons, record["PersonContactId"])])
    assert (refused.result, refused.detail) == (Written.REFUSED, "INSUFFICIENT_ACCESS_OR_READONLY")


def test_person_that_was_merged_or_deleted_is_told_and_passes_its_value_on(persons: SalesforceMaker) -> None:
    winner, loser, deleted = (person(persons, name) for name in ("Ada", "Bob", "Eve"))
    connector = accounts(persons)
    cursor = read(persons, None, connector).cursor
    persons.wait(timedelta(minutes=1))
    persons.org.merge("Account", winner, loser)
    persons.org.delete("Account", deleted)
    found = read(persons, cursor, connector)
    assert (found.latest[loser].gone, found.latest[loser].merged_into) == (True, winner)
    assert (found.latest[deleted].gone, found.latest[deleted].merged_into) == (True, None)
    values = [WriteBack(it, {"Wallet_At__pc": AT}) for it in (loser, deleted)]
    assert [it.result for it in connector.write_back(values)] == [Written.MERGED, Written.GONE]
    assert ids(read(persons, None, connector)) == [winner]
    assert ids(read(persons, None)) == []


def test_check_knows_the_fields_of_persons(persons: SalesforceMaker) -> None:
    assert accounts(persons).check() == []
    (problem,) = persons.connect(Needs(frozenset({"PersonEmial"}), {}), object="Account").check()
    assert "did you mean PersonEmail?" in problem.message


def test_accounts_of_an_org_without_persons_are_all_read(crm: SalesforceMaker) -> None:
    company = crm.org.create("Account", {"Name": "Acme"})
    assert ids(read(crm, None, crm.connect(Needs(frozenset({"Name"}), {}), object="Account"))) == [company]


# --- leads


def lead(crm: SalesforceMaker, name: str) -> str:
    fields = {"LastName": name, "Company": "Acme", "Email": f"zebra-{name}@example.org"}
    return crm.org.create("Lead", fields)


@pytest.fixture
def leads(crm: SalesforceMaker) -> Connector:
    crm.org.define("Lead", "Wallet_At__c", "datetime")
    return crm.connect(LEAD, object="Lead")


def test_converted_lead_is_gone_and_its_contact_is_there(crm: SalesforceMaker, leads: Connector) -> None:
    kept, converted = lead(crm, "Ada"), lead(crm, "Bob")
    cursor, contacts = read(crm, None, leads).cursor, swept(crm)
    crm.wait(timedelta(minutes=1))
    contact = crm.org.convert_lead(converted)
    found = read(crm, cursor, leads)
    assert (found.latest[converted].gone, found.latest[converted].merged_into) == (True, None)
    assert ids(read(crm, None, leads)) == [kept]
    assert read(crm, contacts).value(contact, "email") == "zebra-Bob@example.org"


def test_write_to_a_lead_that_was_converted_meanwhile_is_an_outcome(
    crm: SalesforceMaker, leads: Connector
) -> None:
    first, converted, last = (lead(crm, name) for name in ("Ada", "Bob", "Eve"))
    crm.org.convert_lead(converted)
    outcomes = list(
        leads.write_back([WriteBack(it, {"Wallet_At__c": AT}) for it in (first, converted, last)])
    )
    assert [it.result for it in outcomes] == [Written.WRITTEN, Written.GONE, Written.WRITTEN]
    assert outcomes[1].detail == "CANNOT_UPDATE_CONVERTED_LEAD"


def test_merged_leads_become_one(crm: SalesforceMaker, leads: Connector) -> None:
    winner, loser = lead(crm, "Ada"), lead(crm, "Bob")
    cursor = read(crm, None, leads).cursor
    crm.wait(timedelta(minutes=1))
    crm.org.merge("Lead", winner, loser)
    assert read(crm, cursor, leads).latest[loser].merged_into == winner
