"""HubSpot's limits: the day's calls are shared, searches are shared, and both are left to others in part."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hubspot_maker import TOKEN, HubSpotMaker
from pydantic import ValidationError

from connectors.hubspot import HubSpot, HubSpotSettings
from syncsvc.errors import CredentialsError, SchemaError, TransientError
from syncsvc.remote.connector import SetsUp
from syncsvc.sandbox.faults import Kind
from syncsvc.settings import reserved_calls
from syncsvc.testing import Ground
from syncsvc.testing.reading import calm, read, swept

SEARCH = ("POST", "/contacts/search")
SCHEMA = ("GET", "/properties/contacts")


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground.open(tmp_path_factory.mktemp("ground"), served=True, tls=False) as ground:
        yield ground


@pytest.fixture
def crm(ground: Ground, tmp_path: Path) -> Iterator[HubSpotMaker]:
    maker = HubSpotMaker(ground, tmp_path)
    yield maker
    maker.close()


# --- the day's calls


@pytest.mark.parametrize(
    ("reserve", "kept"), [("5%", 50), (20, 20), ("20", 20), ("0%", 0), ("0.15%", 2), ("100%", 1000)]
)
def test_reserve_is_a_number_or_a_share(reserve: Any, kept: int) -> None:
    settings = HubSpotSettings.model_validate({"token": {"env": "T"}, "reserve": reserve})
    assert reserved_calls(settings.reserve, 1000) == kept


@pytest.mark.parametrize("reserve", ["", "5 %", "-1", -1, "101%", "half", True, 0.05])
def test_reserve_that_is_neither_is_refused(reserve: Any) -> None:
    with pytest.raises(ValidationError, match="reserve"):
        HubSpotSettings.model_validate({"token": {"env": "T"}, "reserve": reserve})


def test_every_answer_tells_what_is_left_of_the_day(crm: HubSpotMaker) -> None:
    crm.crm.knobs.foreign_daily = 1000
    assert crm.network.allowance is None
    crm.connect().check()
    allowance = crm.network.allowance
    assert allowance is not None
    assert (allowance.allowed, allowance.left) == (625_000, 623_999)
    cursor = swept(crm)  # the schema, the recycle bin, and one page
    read(crm, cursor)  # a search tells it too
    assert crm.network.allowance is not None
    assert crm.network.allowance.left == 623_995


def test_reserve_that_is_reached_ends_the_work_and_asks_for_nothing_more(crm: HubSpotMaker) -> None:
    crm.people(3)
    connector = crm.connect(reserve=600_000)
    cursor = read(crm, None, connector).cursor
    crm.crm.knobs.foreign_daily = 25_000
    read(crm, cursor, connector)  # its answer tells that no more than the reserve is left
    before = crm.network.requests
    for _ in range(14):
        with pytest.raises(TransientError, match=r"600000 are kept for its other apps \(reserve\)") as caught:
            read(crm, cursor, connector)
        assert 0 < (caught.value.retry_after or 0) <= 900
        crm.wait(timedelta(minutes=1))
    assert crm.network.requests == before


def test_day_that_begins_anew_is_noticed(crm: HubSpotMaker) -> None:
    connector = crm.connect(reserve="5%")
    crm.crm.knobs.foreign_daily = 600_000
    connector.check()
    with pytest.raises(TransientError):
        connector.check()
    crm.crm.knobs.foreign_daily = 0
    crm.wait(timedelta(minutes=16))
    assert connector.check() == []
    assert connector.check() == []


def test_answers_that_tell_nothing_of_the_day_keep_nothing_back(crm: HubSpotMaker) -> None:
    crm.strike(Kind.STATUS, "properties", status=200, body={"results": []}, times=None)
    connector = crm.connect(reserve="100%")
    connector.check()
    connector.check()
    assert crm.network.allowance is None


# --- searches


def test_searches_give_way_to_other_apps_and_come_back(crm: HubSpotMaker) -> None:
    made = crm.people(1800)
    cursor = swept(crm)
    crm.wait(timedelta(hours=1))
    crm.crm.touch_many(made, crm.clock.now())
    crm.crm.knobs.short_search_pages = True
    crm.crm.knobs.foreign_searches_per_second = 4  # one a second is left
    connector = crm.connect()
    before = crm.crm.requests[SEARCH]
    found = read(crm, cursor, connector)
    assert found.live == set(made)
    searches = crm.crm.requests[SEARCH] - before
    refused = searches - len(found.pages)
    assert 0 < refused <= searches / 3  # at an even pace of four a second, every other one would be
    crm.crm.knobs.foreign_searches_per_second = 0
    cursor = calm(crm, found.cursor)
    began = crm.clock.now()
    for _ in range(40):
        read(crm, cursor, connector)
    assert crm.clock.now() - began < timedelta(seconds=40 * 0.6)


# --- making what is missing


def without_fields(crm: HubSpotMaker) -> HubSpot:
    crm.crm.archive_property("wallet_status")
    connector = crm.connect()
    assert isinstance(connector, HubSpot)
    assert isinstance(connector, SetsUp)
    return connector


def test_missing_property_is_named_and_made_so_that_check_is_content(crm: HubSpotMaker) -> None:
    connector = without_fields(crm)
    (missing,) = connector.missing()
    assert missing.description == (
        "contact property wallet_status (label Wallet status, groupName contactinformation, type string, "
        "fieldType text)"
    )
    assert [problem.where for problem in connector.check()] == ["write_back.status"]
    assert "syncsvc setup" in connector.check()[0].remedy
    connector.create(missing)
    assert connector.missing() == []
    assert connector.check() == []


def test_name_that_is_taken_is_for_a_person(crm: HubSpotMaker) -> None:
    connector = without_fields(crm)
    (missing,) = connector.missing()
    crm.strike(
        Kind.STATUS, "properties", method="POST", status=409, body={"category": "OBJECT_ALREADY_EXISTS"}
    )
    with pytest.raises(SchemaError, match="wallet_status: the name is taken"):
        connector.create(missing)


def test_key_that_may_not_make_properties_names_the_scope(crm: HubSpotMaker) -> None:
    connector = without_fields(crm)
    (missing,) = connector.missing()
    crm.crm.scopes.discard("crm.schemas.contacts.write")
    with pytest.raises(CredentialsError, match=r"crm\.schemas\.contacts\.write") as caught:
        connector.create(missing)
    assert TOKEN not in str(caught.value)
