"""Samples: what the tests of a connector's table say that made-up records map to, and where they do not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from syncsvc.maps import MappingTest
from syncsvc.model import Contact, FieldValue
from syncsvc.rules.mapping import MAILS, Excluded, Mapped, Mapper, Refused
from syncsvc.rules.values import write_text

_OF_PEOPLE = frozenset({"email", "name", "phone_number", "birthday", "licenseplate"})


def failed_tests(mapper: Mapper, tests: Sequence[MappingTest], *, show_values: bool = False) -> Iterator[str]:
    """Yield each difference between what a test says and what its record maps to, tests numbered from 0.

    What would tell who a person is, emails and names and the like, is only told to be different, unless
    `show_values`: a sample that was copied from a real record must not end in somebody's log.
    """
    for number, test in enumerate(tests):
        for difference in _differences(test, mapper.map(Contact(test.record_id, test.record)), show_values):
            yield f"tests.{number}: {difference}"


def _differences(
    test: MappingTest,
    result: Mapped | Refused | Excluded,
    show_values: bool,  # noqa: FBT001 - passed on as it came
) -> Iterator[str]:
    match result:
        case Excluded():
            if not test.excluded:
                yield f"expected {_expected(test)}; the record is excluded by `where`"
        case Refused(field, reason):
            if test.refused != field:
                yield f"expected {_expected(test)}; the record is refused: {reason}"
        case Mapped():
            if test.member is None:
                yield f"expected {_expected(test)}; the record maps to a member"
                return
            found = _found(result)
            for name, value in test.member.items():
                expected, given = write_text(value), write_text(found.get(name))
                if expected != given:
                    yield f"{name}: {_unlike(name, expected, given, show_values=show_values)}"


def _expected(test: MappingTest) -> str:
    if test.excluded:
        return "it to be excluded"
    return "a member" if test.refused is None else f"a refusal of {test.refused}"


def _found(mapped: Mapped) -> dict[str, FieldValue]:
    return {
        "email": mapped.email,
        "brand_id": mapped.brand_id,
        "points": mapped.points,
        **{name: name in mapped.mails for name in MAILS},
        **mapped.profile,
    }


def _unlike(name: str, expected: str, given: str, *, show_values: bool) -> str:
    if name in _OF_PEOPLE and not show_values and expected and given:
        return "the map gives another value than the test (`--show-values` shows both)"
    return f"expected {_shown(name, expected, show_values)}, the map gives {_shown(name, given, show_values)}"


def _shown(name: str, value: str, show_values: bool) -> str:  # noqa: FBT001 - passed on as it came
    if not value:
        return "nothing"
    return f'"{value}"' if show_values or name not in _OF_PEOPLE else "a value"
