"""The tests of a connector's table: what a made-up record must map to, and what is told where it does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from syncsvc.cli import main
from syncsvc.config import ConnectorConfig, WalletConfig
from syncsvc.maps import MappingTest
from syncsvc.rules.mapping import Mapper
from syncsvc.rules.samples import failed_tests

MEMBER: dict[str, Any] = {
    "email": "{Email}",
    "name": "{FirstName} {LastName}",
    "points": "{Points__c}",
    "storecard": {"field": "Tier__c", "values": {"Gold": "card-gold"}, "default": "card-basic"},
    "licenseplate": "{Plate__c}",
}
RECORD: dict[str, Any] = {
    "Email": " Ann@Example.org ",
    "FirstName": "Ann",
    "LastName": "van  Dam",
    "Points__c": 120.0,
    "Tier__c": "Gold",
    "Plate__c": "AB-12-CD",
}


def failures(*tests: dict[str, Any], where: str = "", show_values: bool = False) -> list[str]:
    wallet = WalletConfig(token={"env": "TOKEN"}, brand_id="b1", storecard="c1")
    mapper = Mapper(ConnectorConfig(type="any", member=MEMBER, where=where), wallet)
    parsed = [MappingTest.model_validate(test) for test in tests]
    return list(failed_tests(mapper, parsed, show_values=show_values))


def test_a_sample_that_maps_as_it_says_is_silent() -> None:
    record = RECORD | {"Out": False}
    expected = {"email": "Ann@Example.org", "points": 120, "tag_id": "", "welcome_email": False}
    tests = [
        {"record": record, "member": expected | {"external_reference": "sample"}},
        {"record": record, "record_id": "003B", "member": {"external_reference": "003B"}},
        {"record": record | {"Points__c": -1}, "refused": "points"},
        {"record": record | {"Out": True}, "excluded": True},
        {"record": {}, "refused": "where"},
    ]
    assert failures(*tests, where="!Out") == []


def test_a_sample_that_maps_otherwise_is_told_field_by_field_without_who_it_is() -> None:
    record = RECORD | {"Out": False}
    told = failures(
        {
            "record": record,
            "member": {
                "name": "Else",
                "points": 12,
                "tag_id": "t",
                "licenseplate": "",
            },
        },
        {"record": record, "refused": "points"},
        {"record": record | {"Points__c": -1}, "refused": "email"},
        {"record": record | {"Points__c": -1}, "member": {}},
        {"record": record | {"Out": True}, "member": {}},
        {"record": record, "excluded": True},
        where="!Out",
    )
    assert [line.partition(" (from")[0] for line in told] == [
        "tests.0: name: the map gives another value than the test (`--show-values` shows both)",
        'tests.0: points: expected "12", the map gives "120"',
        'tests.0: tag_id: expected "t", the map gives nothing',
        "tests.0: licenseplate: expected nothing, the map gives a value",
        "tests.1: expected a refusal of points; the record maps to a member",
        "tests.2: expected a refusal of email; the record is refused: points",
        "tests.3: expected a member; the record is refused: points",
        "tests.4: expected a member; the record is excluded by `where`",
        "tests.5: expected it to be excluded; the record maps to a member",
    ]
    for personal in ("Ann", "Else", "AB-12"):
        assert personal not in "".join(told)


def test_with_the_values_shown_a_difference_is_told_whole() -> None:
    told = failures({"record": RECORD, "member": {"name": "Ann Dam", "email": "a@b.co"}}, show_values=True)
    assert told == [
        'tests.0: name: expected "Ann Dam", the map gives "Ann van Dam"',
        'tests.0: email: expected "a@b.co", the map gives "Ann@Example.org"',
    ]


ORGANIZATION = """
organization_id = "01JC"
first_run = "import"
[wallet]
token = { env = "NOWHERE" }
brand_id = "brand-1"
storecard = "card-1"
[connectors.members]
type = "csv"
path = "members.csv"
key = "No"
[connectors.members.member]
email = "{Mail}"
name = "{Name}"
points = "{Points}"
[[connectors.members.tests]]
record = { Mail = "zoe@marked.example", Name = "Zoe Zebrawood", Points = "12" }
member = { points = 13, name = "Zoe" }
"""


@pytest.mark.parametrize("shown", [False, True])
def test_check_runs_the_samples_without_asking_anybody(tmp_path: Path, *, shown: bool) -> None:
    path = tmp_path / "acme.toml"
    path.write_text(ORGANIZATION, encoding="utf-8")
    more = ["--show-values"] if shown else []
    answer = CliRunner().invoke(main, ["-c", str(path), "check", "--offline", "--json", *more])
    assert answer.exit_code == 1
    told = [it["message"] for it in json.loads(answer.stdout)["acme"]]
    assert told[0] == 'tests.0: points: expected "13", the map gives "12"'
    assert ("Zebrawood" in told[1]) is shown
