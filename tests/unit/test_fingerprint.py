"""Fingerprints: equal members give equal bytes, any difference gives others, and nobody can guess them."""

from __future__ import annotations

import inspect

from hypothesis import given
from hypothesis import strategies as st

from syncsvc.rules.fingerprint import SIZE, VERSION, Fingerprinter

KEY = bytes(range(32))
OURS = Fingerprinter(KEY)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
profiles = st.dictionaries(texts, texts, max_size=4)
members = st.tuples(texts, texts, profiles)


def test_a_fingerprint_is_sixteen_bytes_and_tells_its_version() -> None:
    for made in (OURS.member("b", "a@b.example", {"name": "Ann"}), OURS.absence("gone")):
        assert len(made) == SIZE == 16
        assert made[0] == VERSION


def test_the_bytes_of_a_version_stay_the_same_for_life() -> None:
    # Stored in every state database: where these change, VERSION must be raised.
    assert VERSION == 1
    assert (
        OURS.member("b1", "ann@example.org", {"name": "Ann", "storecard": "c1"}).hex()
        == "0166b12ce0c06bac661142e3fc4ed7b1"
    )
    assert OURS.absence("refused", "email", "is not an address").hex() == "01e4747aa1a7d15414675e739d43de79"


def test_points_cannot_take_part_in_a_fingerprint() -> None:
    assert list(inspect.signature(OURS.member).parameters) == ["brand_id", "email_key", "profile"]


@given(members)
def test_the_order_of_fields_does_not_matter(member: tuple[str, str, dict[str, str]]) -> None:
    brand, email, profile = member
    turned = dict(reversed(profile.items()))
    assert OURS.member(brand, email, turned) == OURS.member(brand, email, profile)


@given(members, members)
def test_members_have_one_fingerprint_exactly_when_they_are_equal(
    one: tuple[str, str, dict[str, str]], other: tuple[str, str, dict[str, str]]
) -> None:
    assert (OURS.member(*one) == OURS.member(*other)) is (one == other)


@given(members, st.lists(texts, max_size=4))
def test_an_absence_is_never_taken_for_a_member(
    member: tuple[str, str, dict[str, str]], words: list[str]
) -> None:
    assert OURS.member(*member) != OURS.absence(*words)


@given(st.lists(texts, max_size=3), st.lists(texts, max_size=3))
def test_absences_for_other_reasons_differ(one: list[str], other: list[str]) -> None:
    assert (OURS.absence(*one) == OURS.absence(*other)) is (one == other)


def test_values_do_not_run_into_each_other() -> None:
    assert OURS.member("ab", "c", {}) != OURS.member("a", "bc", {})
    assert OURS.member("a", "b", {"name": "x", "tag_id": "y"}) != OURS.member("a", "b", {"name": "xtag_idy"})


def test_another_key_gives_other_bytes() -> None:
    theirs = Fingerprinter(bytes(32))
    assert theirs.member("b", "a@b.example", {}) != OURS.member("b", "a@b.example", {})
    assert theirs.absence("gone") != OURS.absence("gone")
