"""What a search of the HubSpot simulator asks for: filters, order and place, read and checked.

Source: search guide 2026-03, and refusals recorded by public projects. What the index holds is matched here,
by the type of each property; string values are compared without regard to case, enumerations with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import orjson

from syncsvc.sandbox.hubspot_knobs import HubSpotKnobs
from syncsvc.sandbox.hubspot_properties import Definition, instant_ms, number
from syncsvc.sandbox.hubspot_refusals import Refusal, generic_problem, invalid, not_deserialized

Comparable = int | float | str
Test = Callable[["Hit"], bool]
Read = Callable[["Hit"], Comparable | None]

_INT_MAX = 2**31 - 1
_HIGHEST = 2**62
_BODY_KEYS = {"filterGroups", "filters", "sorts", "query", "properties", "limit", "after"}
_FILTER_KEYS = {"propertyName", "operator", "value", "values", "highValue"}
_SPANS = {"EQ", "GT", "GTE", "LT", "LTE", "BETWEEN"}
_QUERIED = ("firstname", "lastname", "email", "phone", "company", "hs_additional_emails")


class Hit(NamedTuple):
    """A contact as the search index knows it; times are milliseconds."""

    id: int
    updated: int
    created: int
    properties: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Hit({self.id}, updated={self.updated})"


@dataclass(frozen=True, slots=True)
class Span:
    """Whole numbers from `low` to `high`, both included."""

    low: int = -_HIGHEST
    high: int = _HIGHEST

    def holds(self, value: int) -> bool:
        """Return whether `value` lies in the span."""
        return self.low <= value <= self.high

    def narrowed(self, other: Span) -> Span:
        """Return what both spans hold."""
        return Span(max(self.low, other.low), min(self.high, other.high))


@dataclass(slots=True)
class Group:
    """Filters that must all hold; those on modification time and record id are spans, for quick answers."""

    stamps: Span = field(default_factory=Span)
    ids: Span = field(default_factory=Span)
    tests: list[Test] = field(default_factory=list)
    key: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Query:
    """One search: groups of which one must match, the text, the order, and the place of the page."""

    groups: tuple[Group, ...]
    text: str
    sort: Definition
    descending: bool
    limit: int
    after: int
    properties: tuple[str, ...]


def comparable(definition: Definition, hit: Hit) -> Comparable | None:
    """Return a hit's property in the form in which it is compared, None where it is empty."""
    match definition.name:
        case "hs_object_id":
            return hit.id
        case "lastmodifieddate":
            return hit.updated
        case "createdate":
            return hit.created
        case name:
            text = hit.properties.get(name, "")
            return _value(definition, text) if text else None


def text_matches(text: str, hit: Hit) -> bool:
    """Return whether every word of a `query` begins a word of the default searchable properties."""
    words = " ".join(hit.properties.get(name, "") for name in _QUERIED).lower().split()
    return all(any(word.startswith(part) for word in words) for part in text.lower().split())


def parse_query(
    body: Mapping[str, Any], known: Callable[[str], Definition | None], knobs: HubSpotKnobs
) -> Query:
    """Return the search that a request's JSON asks for; raises the Refusal that HubSpot answers otherwise."""
    if knobs.refuse_unknown_keys and not body.keys() <= _BODY_KEYS:
        raise invalid("Invalid input JSON: unrecognized field")
    raw_groups = _list(body.get("filterGroups"))
    if body.get("filters"):
        raw_groups = [*raw_groups, {"filters": body["filters"]}]
    filters = [_list(_object(group).get("filters")) for group in raw_groups]
    if (
        len(filters) > knobs.search_groups_max
        or any(len(group) > knobs.search_group_filters_max for group in filters)
        or sum(map(len, filters)) > knobs.search_filters_max
    ):
        raise Refusal(400, generic_problem())
    text = body.get("query") or ""
    if not isinstance(text, str) or len(text) > knobs.search_text_max:
        raise Refusal(400, generic_problem())
    limit = body.get("limit")
    limit = knobs.search_page_default if limit is None else _integer(limit)
    if not 1 <= limit <= knobs.search_page_max:
        raise invalid(f"limit must be between 1 and {knobs.search_page_max}")
    after = _integer(body.get("after") or 0)
    if after < 0 or after + limit > knobs.search_ceiling:
        raise Refusal(400, knobs.search_ceiling_body)
    sort, descending = _order(_list(body.get("sorts")), known)
    names = tuple(str(name) for name in _list(body.get("properties")))
    groups = tuple(_group(group, known, knobs) for group in filters)
    return Query(groups, text, sort, descending, limit, after, names)


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise not_deserialized("java.util.ArrayList", value)
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise not_deserialized("Filter", value)
    return value


def _integer(value: Any) -> int:
    # A list cursor is the id of a record, which is no 32-bit integer: it is refused here, not paged by.
    if isinstance(value, bool) or not re.fullmatch(r"-?\d{1,19}", str(value)) or abs(int(value)) > _INT_MAX:
        raise not_deserialized("java.lang.Integer", value)
    return int(value)


def _order(sorts: list[Any], known: Callable[[str], Definition | None]) -> tuple[Definition, bool]:
    """Only the first sort counts; without one it is the creation time, oldest first."""
    name, descending = "createdate", False
    if sorts and isinstance(sorts[0], str):
        name, descending = sorts[0].removeprefix("-"), sorts[0].startswith("-")
    elif sorts:
        first = _object(sorts[0])
        name, direction = str(first.get("propertyName")), first.get("direction", "ASCENDING")
        if direction not in {"ASCENDING", "DESCENDING"}:
            raise Refusal(400, generic_problem())
        descending = direction == "DESCENDING"
    return _property(name, known), descending


def _property(name: Any, known: Callable[[str], Definition | None]) -> Definition:
    definition = known(name) if isinstance(name, str) else None
    if definition is None:
        raise Refusal(400, generic_problem())
    return definition


def _group(filters: list[Any], known: Callable[[str], Definition | None], knobs: HubSpotKnobs) -> Group:
    group = Group()
    for raw in filters:
        one = _object(raw)
        if knobs.refuse_unknown_keys and not one.keys() <= _FILTER_KEYS:
            raise invalid("Invalid input JSON: unrecognized field")
        definition = _property(one.get("propertyName"), known)
        operator = one.get("operator")
        if operator in _SPANS and definition.name in {"lastmodifieddate", "hs_object_id"}:
            span = _span(definition, operator, one)
            if definition.name == "hs_object_id":
                group.ids = group.ids.narrowed(span)
            else:
                group.stamps = group.stamps.narrowed(span)
        else:
            group.tests.append(_test(definition, operator, one))
            group.key.append(orjson.dumps(one, option=orjson.OPT_SORT_KEYS))
    return group


def _span(definition: Definition, operator: str, one: Mapping[str, Any]) -> Span:
    value = int(_operand(definition, one.get("value")))
    match operator:
        case "EQ":
            return Span(value, value)
        case "GT":
            return Span(low=value + 1)
        case "GTE":
            return Span(low=value)
        case "LT":
            return Span(high=value - 1)
        case "LTE":
            return Span(high=value)
        case _:
            return Span(value, int(_operand(definition, one.get("highValue"))))


def _operand(definition: Definition, raw: Any) -> Comparable:
    if not isinstance(raw, str | int | float) or isinstance(raw, bool) or raw == "":
        raise Refusal(400, generic_problem())
    text = str(raw)
    if definition.type in {"datetime", "date"}:
        ms = instant_ms(text)
        if ms is None:
            raise Refusal(400, generic_problem())
        if ms < 1000:  # recorded: a search from the epoch itself ends in a 500
            raise Refusal(500, {"status": "error", "message": "internal error"})
        return ms
    value = _value(definition, text)
    if value is None:
        raise Refusal(400, generic_problem())
    return value


def _value(definition: Definition, text: str) -> Comparable | None:
    match definition.type:
        case "datetime":
            return instant_ms(text)
        case "date":
            return instant_ms(f"{text}T00:00:00Z")
        case "number":
            return number(text)
        case "enumeration":
            return text
        case _:
            return text.lower()


def _test(definition: Definition, operator: Any, one: Mapping[str, Any]) -> Test:
    def read(hit: Hit) -> Comparable | None:
        return comparable(definition, hit)

    match operator:
        case "HAS_PROPERTY":
            return lambda hit: read(hit) is not None
        case "NOT_HAS_PROPERTY":
            return lambda hit: read(hit) is None
        case "EQ" | "NEQ" | "IN" | "NOT_IN":
            return _among(definition, read, operator, one)
        case "GT" | "GTE" | "LT" | "LTE" | "BETWEEN":
            high = _operand(definition, one.get("highValue")) if operator == "BETWEEN" else None
            return _range(read, operator, _operand(definition, one.get("value")), high)
        case "CONTAINS_TOKEN" | "NOT_CONTAINS_TOKEN" if definition.type == "string":
            return _token(read, operator, str(_operand(definition, one.get("value"))))
        case _:
            raise Refusal(400, generic_problem())


def _among(definition: Definition, read: Read, operator: str, one: Mapping[str, Any]) -> Test:
    wanted: set[Comparable | None]
    if operator in {"EQ", "NEQ"}:
        wanted = {_operand(definition, one.get("value"))}
    else:
        raw = _list(one.get("values"))
        wanted = {_operand(definition, item) for item in raw}
        if not wanted:
            raise Refusal(400, generic_problem())
        if definition.type == "string":
            # Given in capitals, a string never matches: the guide asks for lower case and means it.
            wanted = {item for item in raw if item == str(item).lower()}
    if operator in {"NEQ", "NOT_IN"}:
        return lambda hit: read(hit) not in wanted | {None}
    if definition.name == "email":
        return lambda hit: any(address in wanted for address in _addresses(hit))
    return lambda hit: read(hit) in wanted


def _token(read: Read, operator: str, pattern: str) -> Test:
    def found(hit: Hit) -> bool:
        value = str(read(hit) or "")
        return any(fnmatchcase(token, pattern) for token in re.findall(r"\w+", value) + value.split())

    if operator == "CONTAINS_TOKEN":
        return found
    return lambda hit: read(hit) is not None and not found(hit)


def _range(read: Read, operator: str, value: Any, high: Any) -> Test:
    def holds(hit: Hit) -> bool:
        found: Any = read(hit)
        if found is None:
            return False
        match operator:
            case "GT":
                return bool(found > value)
            case "GTE":
                return bool(found >= value)
            case "LT":
                return bool(found < value)
            case "LTE":
                return bool(found <= value)
            case _:
                return bool(value <= found <= high)

    return holds


def _addresses(hit: Hit) -> list[str]:
    additional = hit.properties.get("hs_additional_emails", "")
    return [hit.properties.get("email", ""), *additional.split(";")]
