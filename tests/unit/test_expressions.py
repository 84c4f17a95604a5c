from __future__ import annotations

import pytest

from syncsvc.model import FieldValue
from syncsvc.rules.expressions import MAX_LENGTH, Expression, ExpressionError

SECRET = "ann@example.org"


def evaluate(source: str, **fields: FieldValue) -> FieldValue:
    return Expression(source).evaluate(fields)


def test_the_fields_are_found_by_compiling() -> None:
    expression = Expression(
        "Email != '' && !(OptOut) && [1, 2].exists(i, i == size(Tier__c)) && 'Other' != ''"
    )
    assert expression.fields == {"Email", "OptOut", "Tier__c"}
    assert expression.result == "BOOL"


def test_a_relationship_name_is_one_field() -> None:
    expression = Expression(
        "Account.Name.startsWith('Ac') && Account.Owner.City == 'Breda' && Account != 'x'"
    )
    assert expression.fields == {"Account.Name", "Account.Owner.City", "Account"}
    record = {"Account.Name": "Acme", "Account.Owner.City": "Breda", "Account": "001"}
    assert expression.evaluate(record) is True
    assert expression.evaluate(record | {"Account.Name": "Other"}) is False


@pytest.mark.parametrize("record", [{}, {"Email": None}, {"Email": ""}])
def test_an_empty_field_is_the_empty_text(record: dict[str, FieldValue]) -> None:
    assert Expression("Email != ''").evaluate(record) is False


def test_a_number_that_may_be_empty_can_be_asked_first() -> None:
    expression = Expression("Points != '' && Points > 100")
    assert expression.evaluate({"Points": None}) is False
    assert expression.evaluate({"Points": 120.0}) is True
    assert expression.evaluate({"Points": 90}) is False


def test_flags_stay_flags() -> None:
    assert evaluate("!OptOut", OptOut=False) is True
    assert evaluate("!OptOut", OptOut=True) is False


@pytest.mark.parametrize(
    ("source", "result"),
    [
        ("a + '!'", "x!"),
        ("a == 'x' ? 10 : 0", 10),
        ("1.5", 1.5),
        ("null", None),
        ("timestamp('2026-01-31T12:00:00Z')", "2026-01-31T12:00:00+00:00"),
    ],
)
def test_plain_results_are_given_as_they_are(source: str, result: FieldValue) -> None:
    assert evaluate(source, a="x") == result


@pytest.mark.parametrize("source", ["[a]", "{'k': a}", "bytes(a)", "duration('3s')"])
def test_a_result_that_is_no_plain_value_is_an_error(source: str) -> None:
    with pytest.raises(ExpressionError, match="text, number or flag"):
        evaluate(source, a="x")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("a +", "line 1, column 4: Syntax error"),
        ("1 + 'a'", "line 1, column 3: found no matching overload"),
        ("upper(a)", r"upper\(\) is no function"),
        ("a.lowerAscii() == 'x'", r"lowerAscii\(\) is no function"),
        ("has(a.b)", "not needed"),
        ("'has(' == type", "type is the name of a type"),
        ("  list != ''", "column 3: list is the name of a type"),
        ("a == '" + "x" * MAX_LENGTH + "'", "longer than 1000"),
        ("", "Syntax error"),
    ],
)
def test_an_expression_that_cannot_work_is_refused_when_compiled(source: str, problem: str) -> None:
    with pytest.raises(ExpressionError, match=problem):
        Expression(source)


def test_names_of_types_are_free_as_conversions_parts_and_text() -> None:
    assert evaluate("string(a) == 'type' && b.type != '' && int(c) == 7", a="type", **{"b.type": "x"}, c="7")


def test_types_that_do_not_fit_are_an_error_that_names_the_types() -> None:
    with pytest.raises(ExpressionError, match=r"No matching overloads found : !_"):
        evaluate("!OptOut", OptOut=None)
    with pytest.raises(ExpressionError, match=r"_>_\(string, int64\)"):
        evaluate("Points > 100", Points="120")


@pytest.mark.parametrize(
    "source",
    [
        "{'k': 1}[a] == 1",
        "a.matches(a + '(')",
        "int(a) == 1",
        "timestamp(a) == timestamp(a)",
        "a ? 1 : 2",
        "dyn({'k': 1})[a] == 1",
        "[1][a] == 1",
        "duration(a) == duration(a)",
        "timestamp('2026-01-01T00:00:00Z').getHours(a) == 1",
    ],
)
def test_an_error_never_repeats_what_the_record_holds(source: str) -> None:
    with pytest.raises(ExpressionError, match="cannot be evaluated") as caught:
        evaluate(source, a=SECRET)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("value", ["Ann \ud83d", 2**70])
def test_a_value_the_language_cannot_take_is_an_error(value: FieldValue) -> None:
    with pytest.raises(ExpressionError, match="cannot be evaluated"):
        evaluate("a == 'x'", a=value)


def test_an_endless_expression_ends() -> None:
    digits = "[0,1,2,3,4,5,6,7,8,9]"
    nested = "1"
    for name in "abcdefg":
        nested = f"{digits}.map({name}, {nested})"
    with pytest.raises(ExpressionError, match="too many steps"):
        evaluate(f"size({nested}) == 1")
