"""What other Salesforce integrations lost contacts by, where no other test shows it; see docs/connectors."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from salesforce_maker import SalesforceMaker

from connectors.salesforce import SalesforceSettings
from syncsvc.errors import TransientError
from syncsvc.model import Written
from syncsvc.remote.connector import Needs
from syncsvc.remote.window import PollCursor
from syncsvc.sandbox.faults import Kind
from syncsvc.testing import Ground
from syncsvc.testing.reading import Read, calm, read, swept
from syncsvc.testing.writing import write, written

QUERY_ALL = ("GET", "/services/data/v{version}/queryAll")
DESCRIBE = ("GET", "/services/data/v{version}/sobjects/{sobject}/describe")
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "connectors" / "salesforce.md"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=True) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[SalesforceMaker]:
    maker = SalesforceMaker(ground, tmp_path)
    yield maker
    maker.close()


@pytest.mark.parametrize("sweeping", [True, False], ids=["sweep", "poll"])
def test_query_that_takes_too_long_ends_the_read_and_not_as_complete(
    crm: SalesforceMaker, *, sweeping: bool
) -> None:
    made = crm.people(3)
    cursor = calm(crm, swept(crm))
    crm.edit(made, {"note": "edited"})
    body = [{"errorCode": "QUERY_TIMEOUT", "message": "Your query request was running for too long."}]
    crm.strike(Kind.STATUS, "query", status=400, body=body, skip=1, times=None)
    pages = crm.connect(page_size=2).changes(None if sweeping else cursor)
    first = Read(crm, (next(pages),))
    with pytest.raises(TransientError, match="QUERY_TIMEOUT"):
        next(pages)
    crm.faults.clear()
    assert (first + read(crm, first.cursor)).live == set(made)


def test_login_that_hangs_ends_in_time(crm: SalesforceMaker) -> None:
    crm.strike(Kind.DELAY, "oauth2/token", seconds=60, times=None)
    with pytest.raises(TransientError):
        crm.connect(timeout="150ms").check()


def test_whole_chunk_of_deleted_records_is_looked_up_in_one_query(crm: SalesforceMaker) -> None:
    made = crm.people(200)
    for one in made:
        crm.delete(one)
    outcomes = write(crm, [written(crm, one) for one in made])
    assert {one.result for one in outcomes} == {Written.GONE}
    assert crm.org.requests[QUERY_ALL] == 1


def test_id_that_is_none_gets_into_no_query(crm: SalesforceMaker) -> None:
    (made,) = crm.people(1)
    outcomes = write(crm, [written(crm, one) for one in ("' OR Name != '", made)])
    assert [one.result for one in outcomes] == [Written.GONE, Written.WRITTEN]
    assert crm.org.requests[QUERY_ALL] == 0


def test_change_that_moves_the_system_stamp_alone_is_read(crm: SalesforceMaker) -> None:
    made = crm.people(2)
    cursor = calm(crm, swept(crm))
    crm.org.system_bump("Contact", made[1])
    assert read(crm, cursor).live == {made[1]}


def test_formula_is_told_by_check_and_its_changes_come_with_the_sweep(crm: SalesforceMaker) -> None:
    crm.org.define("Contact", "Note__c", "string", calculated=True)
    (made,) = crm.people(1)
    cursor = calm(crm, swept(crm))
    crm.org.recalculate("Contact", made, {"Note__c": "calculated"})
    assert read(crm, cursor).live == set()
    assert read(crm, None).value(made, "note") == "calculated"
    (problem,) = crm.connect().check()
    assert (problem.where, "is a formula" in problem.message) == ("Contact.Note__c", True)
    assert "only sweeps" in problem.remedy


def test_roll_up_summary_is_no_formula_since_it_moves_the_record(crm: SalesforceMaker) -> None:
    crm.org.define("Contact", "Note__c", "double", calculated=True, rolled_up=True)
    assert crm.connect().check() == []


def test_field_to_write_that_is_missing_is_described_as_it_must_be_made(crm: SalesforceMaker) -> None:
    needs = Needs(frozenset(), {"last_updated": "Wallet_When__c", "status": "Wallet_Word__c"})
    remedies = {problem.where: problem.remedy for problem in crm.connect(needs).check()}
    assert "type Date/Time, its API name Wallet_When__c" in remedies["Contact.Wallet_When__c"]
    assert "type Text(255), its API name Wallet_Word__c" in remedies["Contact.Wallet_Word__c"]


def test_field_that_is_too_short_for_a_status_is_refused_beforehand(crm: SalesforceMaker) -> None:
    crm.org.define("Contact", "Wallet_Status__c", length=80)
    (problem,) = crm.connect().check()
    assert problem.where == "Contact.Wallet_Status__c"
    assert "takes 80 characters at most" in problem.message


def test_status_is_not_to_be_written_to_a_picklist_that_takes_its_own_values_alone(
    crm: SalesforceMaker,
) -> None:
    crm.org.define("Contact", "Wallet_Status__c", "picklist", values=("imported",))
    (problem,) = crm.connect().check()
    assert (problem.where, "takes no other values" in problem.message) == ("Contact.Wallet_Status__c", True)
    first, second = crm.people(2)
    outcomes = write(crm, [written(crm, first), written(crm, second, status="held")])
    assert [one.result for one in outcomes] == [Written.WRITTEN, Written.REFUSED]
    assert outcomes[1].detail == "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST (Wallet_Status__c)"


def test_change_of_a_related_record_comes_with_the_sweep(crm: SalesforceMaker) -> None:
    account = crm.org.create("Account", {"Name": "Acme"})
    made = crm.org.create("Contact", {"LastName": "A", "AccountId": account})
    connector = crm.connect(Needs(frozenset({"Account.Name"}), {}))
    assert connector.check() == []
    cursor = calm(crm, read(crm, None, connector).cursor)
    crm.org.update("Account", account, {"Name": "Other"})
    assert read(crm, cursor, connector).live == set()
    assert read(crm, None, connector).latest[made].fields == {"Account.Name": "Other"}


def test_related_object_that_may_not_be_seen_is_named_with_every_other_problem(crm: SalesforceMaker) -> None:
    body = [{"errorCode": "NOT_FOUND", "message": "The requested resource does not exist"}]
    crm.strike(Kind.STATUS, "sobjects/Account/describe", status=404, body=body, times=None)
    needs = Needs(frozenset({"Account.Name", "Nope__c"}), crm.written)
    assert {problem.where for problem in crm.connect(needs).check()} == {
        "Contact.Account.Name",
        "Contact.Nope__c",
    }


def test_field_that_was_removed_meanwhile_is_noticed_by_the_next_read(crm: SalesforceMaker) -> None:
    crm.people(1)
    connector = crm.connect()
    assert connector.check() == []
    crm.org.knobs.hidden.add("Contact.Note__c")
    (problem,) = connector.check()
    assert problem.where == "Contact.Note__c"
    crm.org.knobs.hidden.clear()
    assert connector.check() == []
    assert crm.org.requests[DESCRIBE] == 3, "no description is kept"


def test_bulk_job_of_people_that_moves_every_stamp_is_read_once_and_not_for_ever(
    crm: SalesforceMaker,
) -> None:
    made = crm.people(1000)
    cursor = calm(crm, swept(crm))
    crm.edit(made, {"note": "edited"})
    before = crm.network.requests
    calm(crm, cursor)
    assert crm.network.requests - before < 50


def test_end_of_a_quiet_poll_is_told_by_the_servers_clock(crm: SalesforceMaker) -> None:
    crm.people(1)
    cursor = swept(crm)
    crm.network.skew = timedelta(days=-3)
    for _ in range(3):
        crm.wait(timedelta(minutes=7))
        cursor = read(crm, cursor).cursor
    assert PollCursor.parse(cursor).since <= crm.clock.now()
    (made,) = crm.people(1)
    assert made in read(crm, cursor).live


def test_every_test_that_the_page_names_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    places = [*ROOT.glob("tests/*/test_*.py"), *ROOT.glob("syncsvc/testing/*.py")]
    known = set(re.findall(r"def (test_\w+)\(", "".join(one.read_text(encoding="utf-8") for one in places)))
    assert named <= known, sorted(named - known)
    numbers = [int(number) for number in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)]
    assert numbers == list(range(1, 32))


def test_settings_that_the_page_shows_are_those_there_are() -> None:
    shown = re.search(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    table = tomllib.loads(shown[1])["connectors"]["crm"]
    assert table.pop("type") == "salesforce"
    settings = SalesforceSettings.model_validate(table)
    kept = {name: value for name, value in settings if name not in {"url", "auth"}}
    assert kept == {name: SalesforceSettings.model_fields[name].default for name in kept}, "the defaults"
