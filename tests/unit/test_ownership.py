"""Ownership: who a member passes to does not depend on the order of reading."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from syncsvc.rules.ownership import heir

CRM, MARKETING, REMOVED = 7, 3, 9
POSITIONS = {CRM: 0, MARKETING: 1}


def test_nobody_left_means_no_heir() -> None:
    assert heir([], POSITIONS) is None


def test_the_connector_that_stands_first_in_the_file_inherits_whatever_its_id() -> None:
    assert heir([(MARKETING, "001"), (CRM, "999")], POSITIONS) == (CRM, "999")


def test_within_a_connector_the_lowest_record_id_inherits() -> None:
    assert heir([(CRM, "003C"), (CRM, "003A"), (CRM, "003B")], POSITIONS) == (CRM, "003A")


def test_a_connector_that_left_the_configuration_inherits_last() -> None:
    assert heir([(REMOVED, "000"), (MARKETING, "999")], POSITIONS) == (MARKETING, "999")
    assert heir([(REMOVED, "000")], POSITIONS) == (REMOVED, "000")


def test_contacts_may_come_from_an_iterator() -> None:
    assert heir(iter([(MARKETING, "2"), (MARKETING, "1")]), POSITIONS) == (MARKETING, "1")


@given(
    contacts=st.lists(
        st.tuples(st.sampled_from([CRM, MARKETING]), st.text(max_size=3)), min_size=1, unique=True
    ),
    seed=st.integers(0, 1000),
)
def test_the_heir_does_not_depend_on_the_order_of_reading(contacts: list[tuple[int, str]], seed: int) -> None:
    shuffled = list(contacts)
    random.Random(seed).shuffle(shuffled)
    chosen = heir(contacts, POSITIONS)
    assert heir(shuffled, POSITIONS) == chosen
    assert chosen in contacts


@given(
    contacts=st.lists(
        st.tuples(st.sampled_from([CRM, MARKETING]), st.text(max_size=3)), min_size=2, unique=True
    )
)
def test_the_heir_stays_when_another_contact_goes(contacts: list[tuple[int, str]]) -> None:
    chosen = heir(contacts, POSITIONS)
    other = next(it for it in contacts if it != chosen)
    assert heir([it for it in contacts if it != other], POSITIONS) == chosen
