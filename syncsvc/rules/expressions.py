"""Expressions of the configuration in CEL, the Common Expression Language, compiled once and bounded.

The fields of a record are its variables, by the CRM's own names; `Account.Name` is one field, one variable.
An empty field is '' in an expression, whatever its type, so that `Email != ''` means what it says; a number
that may be empty is asked first: `Points != '' && Points > 100`. Every value is as the CRM sends it:
HubSpot's are all text (`hs_optout != 'true'`), Salesforce's flags are flags (`!HasOptedOutOfEmail`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime

from cel_expr_python import cel

from syncsvc.model import FieldValue

MAX_LENGTH = 1000

_UNDECLARED = re.compile(r"undeclared reference to '([^']+)'")
_PROBLEM = re.compile(r"ERROR: <input>:(\d+):(\d+): (.+)")
_QUOTED = re.compile(r"'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\"")
_HAS = re.compile(r"(?<![.\w])has\s*\(")
# A field of such a name would silently be read as the type, so that `type == 'x'` were never true.
_TYPE_NAME = re.compile(r"(?<![.\w])(bool|bytes|double|int|list|map|null_type|string|type|uint)\b(?!\s*\()")
_OVERLOAD = re.compile(r"No matching overloads found : .+")  # functions and types only


class ExpressionError(ValueError):
    """An expression that cannot be compiled, or has no value for a record; never holds a field's value."""


class Expression:
    """A compiled expression; `fields` are the CRM fields that it reads."""

    def __init__(self, source: str) -> None:
        """Compile `source`; raises ExpressionError with the place and what is wrong there."""
        if len(source) > MAX_LENGTH:
            raise ExpressionError(f"is longer than {MAX_LENGTH} characters; shorten it")
        self._expression, names = _compile(source)
        self.fields: frozenset[str] = frozenset(names)
        self._names = tuple(sorted(names))
        self.result: str = self._expression.return_type().name()

    def evaluate(self, fields: Mapping[str, FieldValue]) -> FieldValue:
        """Return the value for one record; a time comes as ISO text, null as None.

        Raises ExpressionError where the expression has no value, or one that is no plain value.
        """
        data = {name: "" if (value := fields.get(name)) is None else value for name in self._names}
        try:
            result = self._expression.eval(data=data)
            value = result.value()
        except (RuntimeError, UnicodeError, TypeError, ValueError) as error:
            budget = "budget exceeded" in str(error)
            problem = "it takes too many steps" if budget else "a field holds what CEL cannot take"
            raise ExpressionError(f"cannot be evaluated: {problem}") from None
        if result.type() == cel.Type.ERROR:
            raise ExpressionError(f"cannot be evaluated: {_without_values(str(value))}")
        if isinstance(value, datetime):
            return value.isoformat()
        if value is None or isinstance(value, str | int | float):
            return value
        raise ExpressionError(f"gives a value of type {result.type().name()}; text, number or flag is needed")


def _compile(source: str) -> tuple[cel.Expression, set[str]]:
    unquoted = _QUOTED.sub(lambda found: "'" * len(found[0]), source)
    if reserved := _TYPE_NAME.search(unquoted):
        raise ExpressionError(f"column {reserved.start() + 1}: {reserved[1]} is the name of a type in CEL")
    if _HAS.search(unquoted):
        raise ExpressionError("has() is not needed: every field is there; compare it with ''")
    names: set[str] = set()
    while True:
        try:
            env = cel.NewEnv(variables=dict.fromkeys(names, cel.Type.DYN))
            return env.compile(source), names
        except RuntimeError as error:
            found = set(_UNDECLARED.findall(str(error)))
            if found <= names:
                raise ExpressionError(_problems(str(error))) from None
            names |= found


def _problems(message: str) -> str:
    found = [
        f"line {line}, column {column}: {_UNDECLARED.sub(_unknown_function, problem)}"
        for line, column, problem in _PROBLEM.findall(message.removesuffix(" [INVALID_ARGUMENT]"))
    ]
    return "; ".join(found).replace(" (in container '')", "") or "is not valid CEL"


def _unknown_function(found: re.Match[str]) -> str:
    return f"{found[1]}() is no function of CEL"


def _without_values(message: str) -> str:
    overload = _OVERLOAD.search(message)
    if overload:
        return overload[0]
    # After a colon, quote or equals sign CEL's messages repeat what was in the record.
    return re.split(r"[:='\"]", message.partition(": ")[2])[0].strip()
