"""What a contact means when it is read: never an exception, whatever it holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncsvc.config import ConnectorConfig, WalletConfig
from syncsvc.model import Contact, FieldValue
from syncsvc.rules.fingerprint import Fingerprinter
from syncsvc.rules.intake import ContactState, Intake, Reader
from syncsvc.rules.mapping import Mapper
from syncsvc.settings import Secret

MEMBER = {"email": "{Email}", "name": "{Name}", "points": "{Points}", "birthday": "{Born}"}
WRITE_BACK = {"last_updated": "Wallet_At", "status": "Wallet_Status"}
RECORD: dict[str, FieldValue] = {"Email": "Ann@Example.org", "Name": "Ann", "Points": 120.0, "Born": None}
AT_MS = int(datetime(2026, 11, 22, 8, 0, tzinfo=UTC).timestamp()) * 1000


def reader(*, write_back: dict[str, str] | None = None, where: str = "", key: bytes = bytes(16)) -> Reader:
    wallet = WalletConfig(token=Secret(env="TOKEN"), brand_id="b1", storecard="c1")
    mapper = Mapper(ConnectorConfig.model_validate({"type": "any", "member": MEMBER, "where": where}), wallet)
    return Reader(mapper, Fingerprinter(key), WRITE_BACK if write_back is None else write_back)


def read(subject: Reader | None = None, **changes: FieldValue) -> Intake:
    return (subject or reader()).read(Contact("003A", RECORD | changes))


def test_a_mapped_contact_is_active_with_its_points_and_profile() -> None:
    intake = read()
    assert (intake.state, intake.points, intake.reason) == (ContactState.ACTIVE, 120, "")
    assert intake.mapped is not None
    assert (intake.mapped.email_key, intake.record_id) == ("ann@example.org", "003A")


def test_points_change_and_the_fingerprint_stays() -> None:
    assert read(Points=121.0).fingerprint == read().fingerprint
    assert read(Points=121.0).points == 121


def test_any_other_mapped_field_changes_the_fingerprint() -> None:
    changed = [read(Name="Anna"), read(Email="b@example.org"), read(Born="1990-02-03")]
    prints = {intake.fingerprint for intake in (read(), *changed)}
    assert len(prints) == 4


def test_a_field_that_is_not_mapped_and_our_own_write_back_leave_the_fingerprint_alone() -> None:
    echoed = read(Unmapped="x", Wallet_At="2026-11-22T08:00:00Z", Wallet_Status="imported")
    assert echoed.fingerprint == read().fingerprint


def test_the_spelling_of_an_email_is_no_change() -> None:
    assert read(Email=" ANN@example.ORG ").fingerprint == read().fingerprint


def test_a_contact_that_does_not_match_is_excluded_and_keeps_what_was_written_back() -> None:
    intake = read(reader(where="Name == 'Bob'"), Wallet_Status="imported")
    assert (intake.state, intake.mapped, intake.points) == (ContactState.EXCLUDED, None, None)
    assert intake.written_status == "imported"


def test_a_refused_contact_names_its_field_and_a_reason_without_the_value() -> None:
    intake = read(Email="MARKED")
    assert (intake.state, intake.field, intake.mapped) == (ContactState.QUARANTINED, "email", None)
    assert intake.reason
    assert "MARKED" not in intake.reason


def test_another_reason_of_refusal_is_a_change_and_the_same_is_none() -> None:
    assert read(Email="x").fingerprint == read(Email="x", Name="other").fingerprint
    assert read(Email="x").fingerprint != read(Email="").fingerprint
    assert read(Email="x").fingerprint != read(Points="x").fingerprint


def test_a_contact_that_is_gone_needs_no_fields() -> None:
    intake = reader().read(Contact("003A", {}, gone=True, merged_into="003B"))
    assert (intake.state, intake.merged_into, intake.written_at) == (ContactState.GONE, "003B", None)
    assert intake.fingerprint == reader().read(Contact("003C", {}, gone=True)).fingerprint


def test_a_survivor_brings_the_ids_it_absorbed() -> None:
    intake = reader().read(Contact("003A", RECORD, merged_from=("003B", "003C")))
    assert intake.merged_from == ("003B", "003C")


def test_the_four_states_have_four_fingerprints() -> None:
    gone = reader().read(Contact("003A", RECORD, gone=True))
    made = {gone.fingerprint, read().fingerprint, read(Email="x").fingerprint}
    assert len(made | {read(reader(where="false")).fingerprint}) == 4


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-22T08:00:00Z", AT_MS),
        ("2026-11-22T08:00:00.999Z", AT_MS),
        ("2026-11-22T09:00:00.000+0100", AT_MS),
        (AT_MS, AT_MS),
        (float(AT_MS), AT_MS),
        (str(AT_MS), AT_MS),
        (AT_MS + 999, AT_MS),
        (None, None),
        ("", None),
        ("something else", None),
        (True, None),
        (float("nan"), None),
        (10**40, None),
        ("9999-12-31T23:59:59-23:59", None),
    ],
)
def test_what_the_crm_holds_as_written_time_is_read_to_the_second(value: Any, expected: int | None) -> None:
    assert read(Wallet_At=value).written_at == expected


def test_a_time_before_1970_is_rounded_down_like_any_other() -> None:
    assert read(Wallet_At="1969-12-31T23:59:59.500Z").written_at == -1000


def test_without_write_back_nothing_is_read_of_it() -> None:
    intake = read(reader(write_back={}), Wallet_At="2026-11-22T08:00:00Z", Wallet_Status="x")
    assert (intake.written_at, intake.written_status) == (None, None)


values = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.fixed_dictionaries(dict.fromkeys([*RECORD, "Wallet_At", "Wallet_Status"], values)))
def test_nothing_a_contact_holds_makes_reading_fail(fields: dict[str, FieldValue]) -> None:
    intake = reader().read(Contact("003A", fields))
    assert len(intake.fingerprint) == 16
    assert (intake.mapped is not None) is (intake.state is ContactState.ACTIVE)
    assert bool(intake.reason) is (intake.state is ContactState.QUARANTINED)


@given(st.sets(st.sampled_from(list(RECORD))))
def test_a_contact_may_lack_any_field(missing: set[str]) -> None:
    fields = {name: value for name, value in RECORD.items() if name not in missing}
    state = reader().read(Contact("003A", fields)).state
    assert state is (ContactState.QUARANTINED if missing & {"Email", "Name"} else ContactState.ACTIVE)
