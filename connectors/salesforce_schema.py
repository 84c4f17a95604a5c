"""What the description of a Salesforce object says about the fields that are mapped and written."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from syncsvc.model import STATUS_LENGTH, Problem
from syncsvc.remote.connector import Needs

_TEXT_TYPES = {"picklist", "string", "textarea"}
_MADE = {True: "Date/Time", False: "Text(255)"}
_COMPOUND_TYPES = {"address", "location"}

Description = Mapping[str, Any]
"""The answer of `sobjects/NAME/describe`; a field that the user may not read is not in it."""


def problems(name: str, needs: Needs, describe: Callable[[str], Description]) -> list[Problem]:
    """Return what keeps the object `name` from giving and taking what is needed, each with its remedy.

    Also tells of mapped formula fields: polls do not see them change. Relationships such as Account.Name are
    followed by describing the object they lead to.
    """
    described = describe(name)
    found = [_reading(name, path, describe) for path in sorted(needs.read)]
    found += [_writing(name, field, fact, described) for fact, field in sorted(needs.write.items())]
    flags = ["queryable"] + ["updateable"] * bool(needs.write)
    found += [
        Problem(name, f"is not {flag} for the user", "give the user read and edit access to the object")
        for flag in flags
        if not described[flag]
    ]
    stamp = _find("SystemModstamp", described)
    if stamp is None or not (stamp["filterable"] and stamp["sortable"]):
        found.append(Problem(f"{name}.SystemModstamp", "cannot be polled by", "choose another object"))
    return [problem for problem in found if problem is not None]


def has(field: str, described: Description) -> bool:
    """Whether the object has the field, and the user may read it."""
    return _find(field, described) is not None


def kind(name: str, path: str, describe: Callable[[str], Description]) -> str | None:
    """Return the type of the field that a path leads to from the object, None where it cannot be known."""
    field = _reached(name, path, describe)
    return str(field["type"]) if isinstance(field, Mapping) else None


def _find(field: str, described: Description) -> Mapping[str, Any] | None:
    return next((each for each in described["fields"] if each["name"] == field), None)


def _reading(name: str, path: str, describe: Callable[[str], Description]) -> Problem | None:
    where, field = f"{name}.{path}", _reached(name, path, describe)
    if field is None or isinstance(field, Problem):
        return field
    if field["type"] in _COMPOUND_TYPES:
        return Problem(where, "is a compound field", "map its parts, such as MailingCity")
    # A roll-up summary is calculated too, but has no formula, and its changes move the record's stamp.
    if field["calculated"] and field.get("calculatedFormula", "unknown") is not None:
        return Problem(
            where,
            "is a formula: polls do not see it change, as the record itself does not",
            "map the fields it is made of, or accept that only sweeps bring its changes",
        )
    return None


def _reached(
    name: str, path: str, describe: Callable[[str], Description]
) -> Mapping[str, Any] | Problem | None:
    """Return the field that a path leads to, or what is wrong with the path.

    None where it leads through a polymorphic relationship: where to differs from row to row.
    """
    where, described = f"{name}.{path}", describe(name)
    *links, last = path.split(".")
    for link in links:
        by = next((each for each in described["fields"] if each.get("relationshipName") == link), None)
        if by is None:
            return _missing(where, link, described)
        if len(by["referenceTo"]) != 1:
            return None
        described = describe(by["referenceTo"][0])
    return _find(last, described) or _missing(where, last, described)


def _missing(where: str, field: str, described: Description) -> Problem:
    known = {each["name"].casefold(): each["name"] for each in described["fields"]}
    close = difflib.get_close_matches(field.casefold(), known, n=1)
    hint = f": did you mean {known[close[0]]}?" if close else ""
    return Problem(
        where,
        f"does not exist, or the user may not read it{hint}",
        "correct the name, or give the user read access to the field (field-level security)",
    )


def _writing(name: str, field: str, fact: str, described: Description) -> Problem | None:
    where, found = f"{name}.{field}", _find(field, described)
    if found is None:
        absent = _missing(where, field, described)
        made = f"create a custom field of type {_MADE[fact == 'last_updated']}, its API name {field}"
        return replace(absent, remedy=f"{absent.remedy}; or {made}, and give the user edit access to it")
    if not found["updateable"]:
        remedy = "give the user edit access to the field (field-level security)"
        return Problem(where, "may not be edited by the user", remedy)
    fitting = {"datetime"} if fact == "last_updated" else _TEXT_TYPES
    if found["type"] not in fitting:
        wanted = " or ".join(sorted(fitting))
        return Problem(where, f"is of type {found['type']}", f"write {fact} to a field of type {wanted}")
    length = found.get("length") or STATUS_LENGTH
    if fact != "last_updated" and length < STATUS_LENGTH:
        told = f"takes {length} characters at most, and a status with its reason can be longer"
        return Problem(where, told, f"write {fact} to a text field of {STATUS_LENGTH} characters")
    if found.get("restrictedPicklist"):
        told = "is a picklist that takes no other values than its own"
        return Problem(where, told, f"write {fact} to a text field, or let the picklist take any value")
    return None
