from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncsvc.config import ConnectorConfig, WalletConfig
from syncsvc.maps import FieldRule
from syncsvc.model import Contact, FieldValue
from syncsvc.rules.mapping import (
    Excluded,
    Mapped,
    Mapper,
    MappingError,
    Refused,
    compile_rule,
    compile_where,
)

MEMBER: dict[str, Any] = {
    "email": "{Email}",
    "name": "{FirstName} {LastName}",
    "points": "{Points__c}",
    "storecard": {"field": "Tier__c", "values": {"Gold": "card-gold"}, "default": "card-basic"},
    "licenseplate": "{Plate__c}",
    "start_date": "{Since__c}",
}
RECORD: dict[str, FieldValue] = {
    "Email": " Ann@Example.org ",
    "FirstName": "Ann",
    "LastName": "van  Dam",
    "Points__c": 120.0,
    "Tier__c": "Gold",
    "Plate__c": "AB-12-CD",
    "Since__c": "2024-01-31",
}

field_values = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


def mapper(
    member: dict[str, Any] | None = None,
    *,
    where: str = "",
    brand_id: str | None = "b1",
    storecard: str | None = "c1",
) -> Mapper:
    wallet = WalletConfig(token={"env": "TOKEN"}, brand_id=brand_id, storecard=storecard)
    return Mapper(ConnectorConfig(type="any", member=member or MEMBER, where=where), wallet)


def contact(**changes: FieldValue) -> Contact:
    return Contact("003A", RECORD | changes)


def mapped(subject: Mapper, **changes: FieldValue) -> Mapped:
    result = subject.map(contact(**changes))
    assert isinstance(result, Mapped), result
    return result


def refused(subject: Mapper, **changes: FieldValue) -> Refused:
    result = subject.map(contact(**changes))
    assert isinstance(result, Refused), result
    return result


def with_rule(name: str, rule: object) -> Mapper:
    return mapper({"email": "{Email}", "name": "{LastName}", name: rule})


def test_a_contact_becomes_the_member_its_rules_say() -> None:
    assert mapper().map(contact()) == Mapped(
        email="Ann@Example.org",
        email_key="ann@example.org",
        brand_id="b1",
        points=120,
        profile={
            "external_reference": "003A",
            "name": "Ann van Dam",
            "storecard": "card-gold",
            "licenseplate": "AB-12-CD",
            "start_date": "2024-01-31",
        },
        mails=(),
    )


def test_the_needs_are_the_fields_of_rules_and_where() -> None:
    member = {
        "email": "{Email}",
        "name": "{Account.Name} {{x}} { Last Name }",
        "points": {"cel": "A + B.C"},
        "tag_id": {"value": "t"},
        "phone_number": {"field": "Phone", "default": "none"},
    }
    subject = mapper(member, where="!OptOut && Account.City != ''")
    assert subject.needs == {
        *("Email", "Account.Name", "Last Name", "A", "B.C", "Phone", "OptOut", "Account.City"),
    }


def test_empty_fields_leave_no_trace_in_a_template_and_unset_fields_are_left_out() -> None:
    result = mapped(mapper(), FirstName=None, Plate__c="  ", Since__c=None)
    assert result.profile["name"] == "van Dam"
    assert "licenseplate" not in result.profile
    assert "start_date" not in result.profile


def test_a_missing_field_is_an_empty_field() -> None:
    fields = {
        name: value for name, value in RECORD.items() if name not in {"FirstName", "Points__c", "Plate__c"}
    }
    result = mapper().map(Contact("003A", fields))
    assert isinstance(result, Mapped)
    assert (result.profile["name"], result.points) == ("van Dam", 0)


def test_numbers_and_flags_read_in_a_template_as_a_person_writes_them() -> None:
    subject = with_rule("phone_number", "100% {{{N}}} {F} {B}")
    assert mapped(subject, N=120.0, F=0.5, B=True).profile["phone_number"] == "100% {120} 0.5 true"


@pytest.mark.parametrize(("value", "points"), [(120.0, 120), ("120", 120), ("120.0", 120), (0, 0), (None, 0)])
def test_points_are_whole_and_empty_is_none_earned(value: FieldValue, points: int) -> None:
    assert mapped(mapper(), Points__c=value).points == points


@pytest.mark.parametrize("value", [-1.0, 0.5, "many", True, 2_147_483_648])
def test_points_that_are_no_whole_total_refuse_the_contact(value: FieldValue) -> None:
    result = refused(mapper(), Points__c=value)
    assert result.field == "points"
    assert "points (from Points__c) is" in result.reason
    assert str(value) not in result.reason


def test_a_template_of_one_field_hands_its_value_on_as_it_came() -> None:
    assert "is a flag" in refused(mapper(), Points__c=True).reason


def test_a_connector_without_points_gives_none() -> None:
    assert mapped(mapper({"email": "{Email}", "name": "{LastName}"})).points is None


@pytest.mark.parametrize("value", [None, "", "ann", "ann@localhost", "a@b@c.org", "a b@c.org", "a\x00@c.org"])
def test_an_implausible_email_refuses_the_contact(value: FieldValue) -> None:
    result = refused(mapper(), Email=value)
    assert result.field == "email"
    assert "(from Email)" in result.reason


def test_a_member_without_a_name_is_refused_and_a_default_helps() -> None:
    result = refused(mapper(), FirstName=None, LastName="")
    assert (result.field, "(from FirstName, LastName)" in result.reason) == ("name", True)
    kind = {**MEMBER, "name": {"template": "{FirstName} {LastName}", "default": "Member"}}
    assert mapped(mapper(kind), FirstName=None, LastName="").profile["name"] == "Member"


@pytest.mark.parametrize("field", ["FirstName", "Plate__c"])
def test_text_the_wallet_cannot_take_refuses_the_contact(field: str) -> None:
    for value in ("x" * 256, "cut \ud83d", "nul \x00"):
        result = refused(mapper(), **{field: value})
        assert field in result.reason
        assert value not in result.reason


def test_storecard_and_brand_come_from_the_map_then_from_the_wallet_and_else_refuse() -> None:
    member = {"email": "{Email}", "name": "{LastName}", "storecard": "{Card}", "brand_id": "{Brand}"}
    own = mapped(mapper(member), Card="c2", Brand="b2")
    assert (own.profile["storecard"], own.brand_id) == ("c2", "b2")
    default = mapped(mapper(member), Card="", Brand=None)
    assert (default.profile["storecard"], default.brand_id) == ("c1", "b1")
    assert refused(mapper(member, storecard=None), Card="", Brand="b2").field == "storecard"
    assert refused(mapper(member, brand_id=None), Card="c2", Brand="").field == "brand_id"


def test_the_external_reference_is_the_record_id_unless_mapped() -> None:
    subject = with_rule("external_reference", "{Ref}")
    assert mapped(subject, Ref="R-1").profile["external_reference"] == "R-1"
    assert mapped(subject, Ref=None).profile["external_reference"] == "003A"


def test_values_translate_and_what_they_do_not_list_takes_the_default_or_refuses() -> None:
    rule = {"field": "Tier", "values": {"Gold": "g", "1": "one", "true": "yes"}}
    strict, lenient = with_rule("tag_id", rule), with_rule("tag_id", {**rule, "default": "d"})
    for value, expected in (("Gold", "g"), (" Gold ", "g"), (1.0, "one"), (1, "one"), (True, "yes")):
        assert mapped(strict, Tier=value).profile["tag_id"] == expected
    assert "tag_id" not in mapped(strict, Tier=None).profile
    assert mapped(lenient, Tier=None).profile["tag_id"] == "d"
    assert mapped(lenient, Tier="Bronze").profile["tag_id"] == "d"
    result = refused(strict, Tier="Bronze")
    assert (result.field, "Bronze" in result.reason) == ("tag_id", False)


def test_values_can_translate_the_empty_value() -> None:
    subject = with_rule("tag_id", {"field": "Tier", "values": {"": "none"}})
    assert mapped(subject, Tier=None).profile["tag_id"] == "none"


@pytest.mark.parametrize("default", ["0", 0])
def test_a_default_stands_in_for_nothing_only(default: FieldValue) -> None:
    subject = with_rule("tag_id", {"field": "Tag", "default": default})
    assert mapped(subject, Tag=" ").profile["tag_id"] == "0"
    assert mapped(subject, Tag="t").profile["tag_id"] == "t"
    points = with_rule("points", {"field": "P", "default": 50})
    assert mapped(points, P=None).points == 50
    assert mapped(points, P=0).points == 0


def test_a_constant_needs_no_field() -> None:
    subject = with_rule("location_id", {"value": 7})
    assert mapped(subject).profile["location_id"] == "7"
    assert subject.needs == {"Email", "LastName"}


def test_dates_are_plain_and_read_by_their_format() -> None:
    subject = with_rule("birthday", {"field": "Born", "format": "%d/%m/%Y", "default": "1900-01-01"})
    assert mapped(subject, Born="31/12/1980").profile["birthday"] == "1980-12-31"
    assert mapped(subject, Born="").profile["birthday"] == "1900-01-01"
    assert refused(subject, Born="1980-12-31").field == "birthday"
    late = mapped(mapper(), Since__c="2024-01-31T23:59:59.000-1100")
    assert late.profile["start_date"] == "2024-01-31"
    assert refused(mapper(), Since__c="31-01-2024").field == "start_date"


def test_an_expression_gives_text_number_or_time() -> None:
    assert mapped(with_rule("points", {"cel": "Points__c > 100.0 ? 10 : 0"})).points == 10
    assert mapped(with_rule("tag_id", {"cel": "Tier__c == 'Gold' ? 'g' : ''"}), Tier__c="x").profile == {
        "external_reference": "003A",
        "name": "van Dam",
        "storecard": "c1",
    }
    rule = {"cel": "timestamp(Since__c + 'T23:30:00-05:00')"}
    assert mapped(with_rule("start_date", rule)).profile["start_date"] == "2024-02-01"
    result = refused(with_rule("tag_id", {"cel": "Email + 1"}))
    assert (result.field, "overload" in result.reason, "Ann" in result.reason) == ("tag_id", True, False)


def test_mail_flags_are_named_when_they_are_on() -> None:
    member = {
        "email": "{Email}",
        "name": "{LastName}",
        "welcome_email": {"value": True},
        "update_mail": "{Mail}",
    }
    assert mapped(mapper(member), Mail="true").mails == ("welcome_email", "update_mail")
    result = mapped(mapper(member), Mail=None)
    assert result.mails == ("welcome_email",)
    assert not {"welcome_email", "update_mail"} & result.profile.keys()
    assert refused(mapper(member), Mail="perhaps").field == "update_mail"


def test_where_decides_before_anything_else_is_read() -> None:
    subject = mapper(where="Email != '' && !OptOut")
    assert isinstance(subject.map(contact(OptOut=False)), Mapped)
    assert subject.map(contact(OptOut=True, Points__c="bad")) == Excluded()
    assert subject.map(contact(Email=None, OptOut=False)) == Excluded()


def test_where_that_has_no_answer_refuses_the_contact() -> None:
    result = refused(mapper(where="!OptOut"), OptOut=None)
    assert result.field == "where"
    assert "where (from OptOut) cannot be evaluated: No matching overloads" in result.reason
    assert "neither true nor false" in refused(mapper(where="OptOut"), OptOut="yes").reason


@pytest.mark.parametrize("where", ["", "  "])
def test_an_empty_where_takes_every_contact(where: str) -> None:
    assert compile_where(where) is None


@pytest.mark.parametrize(
    ("name", "rule", "problem"),
    [
        ("name", "{First {Last}", "brace"),
        ("name", "First}", "brace"),
        ("name", "{ }", "without a field"),
        ("name", {"cel": "a +"}, "Syntax error"),
        ("name", {"field": "F", "format": "%Y"}, "only dates"),
        ("points", {"field": "F", "format": "%Y"}, "only dates"),
        ("birthday", {"field": "F", "format": "%Y-%m"}, "day, month and year"),
        ("birthday", {"field": "F", "format": "%Q"}, "day, month and year"),
        ("birthday", {"field": "F", "default": "never"}, "default is not a date"),
        ("points", {"value": "many"}, "value is not a whole number"),
        ("points", {"field": "F", "values": {"Gold": -1}}, r"values\.Gold is negative"),
        ("email", {"field": "F", "default": "nobody"}, "default is not an email"),
        ("update_mail", {"value": "perhaps"}, "neither true nor false"),
        ("tag_id", {"value": "x" * 256}, "longer than 255"),
    ],
)
def test_a_rule_that_cannot_work_is_refused_when_compiled(name: str, rule: object, problem: str) -> None:
    with pytest.raises(MappingError, match=problem):
        compile_rule(name, FieldRule.model_validate(rule))


def test_where_of_another_type_is_refused_when_compiled() -> None:
    with pytest.raises(MappingError, match="true or false is needed"):
        compile_where("'yes'")


def test_the_digest_changes_with_everything_that_can_change_a_result() -> None:
    changed = [
        mapper(),
        mapper(where="Email != ''"),
        mapper(brand_id="b2"),
        mapper(storecard="c2"),
        mapper({**MEMBER, "tag_id": "{Tag}"}),
        mapper({**MEMBER, "name": "{LastName} {FirstName}"}),
        mapper({**MEMBER, "name": {"field": "{FirstName} {LastName}"}}),
        mapper({**MEMBER, "storecard": {**MEMBER["storecard"], "default": "other"}}),
        mapper({**MEMBER, "storecard": {**MEMBER["storecard"], "values": {"Gold": "other"}}}),
        mapper({**MEMBER, "start_date": {"field": "Since__c", "format": "%d-%m-%Y"}}),
    ]
    assert len({subject.digest for subject in changed}) == len(changed)


def test_the_digest_stays_where_no_result_can_change() -> None:
    reordered = dict(reversed(MEMBER.items()))
    explicit = {**reordered, "email": {"template": "{Email}"}}
    assert mapper(explicit).digest == mapper().digest
    assert len(mapper().digest) == 32


def test_the_same_digest_is_given_by_every_process() -> None:
    assert mapper().digest == "2b02a7ffe174238ae5f74b62aab3de4e"


@given(values=st.lists(field_values, min_size=7, max_size=7), where=st.sampled_from(["", "Email != ''"]))
def test_any_contact_is_mapped_refused_or_excluded(values: list[FieldValue], where: str) -> None:
    result = mapper(where=where).map(Contact("003A", dict(zip(RECORD, values, strict=True))))
    match result:
        case Mapped():
            assert result.email_key == result.email.casefold()
            assert result.profile.keys() >= {"name", "storecard", "external_reference"}
            assert all(text and text == text.strip() for text in result.profile.values())
            " ".join(result.profile.values()).encode()
        case Refused():
            assert result.field in {"where", *MEMBER}
            assert not any(
                len(value) > 20 and value in result.reason for value in values if isinstance(value, str)
            )
        case Excluded():
            assert where
