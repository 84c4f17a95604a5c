"""Fields that are not there: named before anything runs, and never taken for empty ones."""

from __future__ import annotations

import pytest

from syncsvc.errors import OperatorError, SchemaError
from syncsvc.remote.connector import Needs, SetsUp
from syncsvc.testing.maker import Feature, Maker, needing
from syncsvc.testing.reading import read, swept
from syncsvc.testing.writing import written

ABSENT = "Zebra_Stripes"


class SchemaTests:
    """Tests of `check`, and of what a field that does not exist does to reading and writing."""

    def test_check_of_a_fitting_account_finds_nothing(self, crm: Maker) -> None:
        crm.people(1)
        assert crm.connect().check() == []

    @needing(Feature.SCHEMA)
    def test_check_names_every_field_that_is_missing_with_its_remedy(self, crm: Maker) -> None:
        crm.people(1)
        needs = Needs(crm.needs().read | {ABSENT}, {"last_updated": "Giraffe_At"})
        problems = crm.connect(needs).check()
        for name in (ABSENT, "Giraffe_At") if Feature.PREPARED in crm.features else (ABSENT,):
            told = [it for it in problems if name in f"{it.where} {it.message}"]
            assert told, f"nothing is said of {name}"
            assert all(it.remedy for it in told)

    @needing(Feature.SCHEMA)
    @pytest.mark.parametrize("sweeping", [True, False], ids=["sweep", "poll"])
    def test_field_that_does_not_exist_is_an_error_and_never_empty(
        self, crm: Maker, *, sweeping: bool
    ) -> None:
        cursor = swept(crm)
        crm.people(3)
        connector = crm.connect(Needs(crm.needs().read | {ABSENT}, crm.written))
        with pytest.raises(SchemaError, match=ABSENT) as caught:
            read(crm, None if sweeping else cursor, connector)
        assert caught.value.fields == (ABSENT,)

    @needing(Feature.SCHEMA, Feature.PREPARED)
    def test_writing_a_field_that_does_not_exist_is_an_error_for_all(self, crm: Maker) -> None:
        made = crm.people(3)
        values = [written(crm, one) for one in made]
        needs = Needs(crm.needs().read, {"status": ABSENT})
        renamed = [type(it)(it.record_id, {ABSENT: "imported"}) for it in values]
        with pytest.raises(OperatorError):
            list(crm.connect(needs).write_back(renamed))
        assert all(crm.holds(one)["status"] is None for one in made)

    @needing(Feature.SCHEMA)
    def test_connector_that_sets_up_has_nothing_to_make_in_a_fitting_account(self, crm: Maker) -> None:
        connector = crm.connect()
        assert not isinstance(connector, SetsUp) or connector.missing() == []
