"""SOQL: a text is understood as a query of the org, or refused; strictly.

The subset: SELECT of fields (through parents too) or COUNT(), FROM one object, WHERE with = != <> < <= > >=
IN, NOT IN, LIKE, AND, OR, NOT and parentheses, ORDER BY, LIMIT. The rest is refused in Salesforce's words,
as are AND beside OR without parentheses, quoted or zoneless datetimes, and literals of another type (SOQL and
SOSL Reference, 2026).
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from functools import reduce
from typing import Any, NamedTuple, Protocol

from syncsvc.sandbox.salesforce_refusals import (
    ApiError,
    unknown_column,
    unknown_relationship,
    unsupported_object,
)
from syncsvc.sandbox.salesforce_tables import IDS, NUMBERS, TEXT, Field, Table, Value, long_id, stamp
from syncsvc.sandbox.soql_query import Condition, Order, Path, Query, Span


class Schema(Protocol):
    """What one user may see of an org."""

    def table(self, name: str) -> Table | None:
        """Return the object of that name in any case, or None."""

    def field(self, table: Table, name: str) -> Field | None:
        """Return the field of that name in any case, or None where it is absent or hidden."""


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


_TOKEN = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*')
    | (?P<dateTime>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?(?:Z|[+-]\d\d:\d\d))(?!\w)
    | (?P<date>\d{4}-\d\d-\d\d)(?![\w:.-])
    | (?P<number>[+-]?\d+(?:\.\d+)?)(?![\w:.-])
    | (?P<name>[A-Za-z]\w*(?:\.[A-Za-z]\w*)*)
    | (?P<symbol><=|>=|!=|<>|[=<>(),])""",
    re.VERBOSE,
)
_RESERVED = frozenset(
    {"AND", "FROM", "IN", "LIKE", "LIMIT", "NOT", "NULL", "OR", "ORDER", "SELECT", "TRUE", "FALSE", "WHERE"}
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def parse(text: str, schema: Schema) -> Query:
    """Return the query; raises ApiError (400) with Salesforce's code and words."""
    return _Parser(text, schema).query()


class _Parser:
    def __init__(self, text: str, schema: Schema) -> None:
        self._text = text
        self._schema = schema
        self._tokens: list[_Token] = []
        self._next = 0
        at = 0
        while at < len(text):
            if text[at].isspace():
                at += 1
                continue
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise self._refusal(at, f"unexpected token: '{text[at]}'")
            self._tokens.append(_Token(match.lastgroup, match.group(), at))
            at = match.end()
        self._tokens.append(_Token("end", "<EOF>", len(text)))

    def query(self) -> Query:
        self._expect("SELECT")
        names = self._selected()
        self._expect("FROM")
        table = self._table = self._object()
        columns = [self._path(token) for token in names]
        if repeated := [a for a, b in zip(names, columns, strict=True) if columns.count(b) > 1]:
            told = f"duplicate field selected: {repeated[-1].text}"
            raise self._refusal(repeated[-1].at, told, "INVALID_FIELD")
        where = self._condition() if self._accept("WHERE") else Condition(lambda _: True)
        order: list[Order] = []
        if self._accept("ORDER"):
            self._expect("BY")
            order.append(self._order())
            while self._accept(","):
                order.append(self._order())
        limit = self._limit() if self._accept("LIMIT") else None
        self._take("end")
        return Query(table, tuple(columns), where, tuple(order), limit)

    def _refusal(self, at: int, message: str, code: str = "MALFORMED_QUERY") -> ApiError:
        begin = max(0, at - 40)
        row, column = self._text.count("\n", 0, at) + 1, at - self._text.rfind("\n", 0, at)
        excerpt = self._text[begin : at + 40].replace("\n", " ")
        place = f"\n{excerpt}\n{' ' * (at - begin)}^\nERROR at Row:{row}:Column:{column}\n"
        return ApiError(400, code, place + message)

    def _accept(self, word: str) -> bool:
        token = self._tokens[self._next]
        found = token.kind in {"name", "symbol"} and token.text.upper() == word
        self._next += found
        return found

    def _expect(self, word: str) -> None:
        if not self._accept(word):
            raise self._unexpected()

    def _unexpected(self) -> ApiError:
        token = self._tokens[self._next]
        return self._refusal(token.at, f"unexpected token: {token.text}")

    def _take(self, kind: str) -> _Token:
        token = self._tokens[self._next]
        if token.kind != kind or (kind == "name" and token.text.upper() in _RESERVED):
            raise self._unexpected()
        self._next += 1
        return token

    def _selected(self) -> list[_Token]:
        names = [self._take("name")]
        if names[0].text.upper() == "COUNT" and self._accept("("):
            self._expect(")")
            return []
        while self._accept(","):
            names.append(self._take("name"))
        return names

    def _object(self) -> Table:
        token = self._take("name")
        table = self._schema.table(token.text)
        if table is None:
            raise self._refusal(token.at, unsupported_object(token.text), "INVALID_TYPE")
        return table

    def _path(self, token: _Token) -> Path:
        table, hops = self._table, []
        *parents, last = token.text.split(".")
        for parent in parents:
            via = self._schema.field(table, f"{parent}Id")
            above = self._schema.table(via.parent) if via and via.parent else None
            if via is None or above is None:
                raise self._refusal(token.at, unknown_relationship(parent), "INVALID_FIELD")
            hops.append((via, above))
            table = above
        field = self._schema.field(table, last)
        if field is None:
            raise self._refusal(token.at, unknown_column(last, table.name), "INVALID_FIELD")
        return Path(tuple(hops), field)

    def _order(self) -> Order:
        token = self._take("name")
        path = self._path(token)
        if not path.field.filterable:
            told = f"field '{path.field.name}' can not be sorted in a query call"
            raise self._refusal(token.at, told)
        descending = not self._accept("ASC") and self._accept("DESC")
        first = True
        if self._accept("NULLS"):
            first = self._accept("FIRST")
            if not first:
                self._expect("LAST")
        return Order(path, descending, first)

    def _limit(self) -> int:
        token = self._take("number")
        if not token.text.isdigit():
            raise self._refusal(token.at, f"unexpected token: {token.text}")
        return int(token.text)

    def _condition(self) -> Condition:
        if self._accept("NOT"):
            inner = self._simple().test
            return Condition(lambda row: not inner(row))
        parts = [self._simple()]
        word = "AND" if self._tokens[self._next].text.upper() == "AND" else "OR"
        while self._accept(word):
            parts.append(self._simple())
        if len(parts) == 1:
            return parts[0]
        tests, spans = [part.test for part in parts], [part.span for part in parts]
        if word == "AND":
            return Condition(lambda row: all(test(row) for test in tests), reduce(Span.both, spans))
        return Condition(lambda row: any(test(row) for test in tests), reduce(Span.either, spans))

    def _simple(self) -> Condition:
        if self._accept("("):
            inner = self._condition()
            self._expect(")")
            return inner
        token = self._take("name")
        path = self._path(token)
        if not path.field.filterable:
            told = f"field '{path.field.name}' can not be filtered in a query call"
            raise self._refusal(token.at, told, "INVALID_FIELD")
        return self._comparison(path)

    def _comparison(self, path: Path) -> Condition:
        read = path.folded if path.field.type in TEXT else path.read
        token = self._tokens[self._next]
        if self._accept("LIKE"):
            return self._like(path, token)
        negated = self._accept("NOT")
        if negated or self._tokens[self._next].text.upper() == "IN":
            self._expect("IN")
            wanted = self._list(path.field)
            if negated:
                return Condition(lambda row: read(row) not in wanted)
            return Condition(lambda row: read(row) in wanted, path.span("=", wanted))
        name = self._take("symbol").text.replace("<>", "!=")
        value = self._literal(path.field)
        if name == "=":
            return Condition(lambda row: read(row) == value, path.span("=", [value]))
        if name == "!=":
            return Condition(lambda row: read(row) != value)
        if name not in _COMPARE or value is None or path.field.type == "boolean":
            raise self._refusal(token.at, f"invalid operator: {name}", "INVALID_QUERY_FILTER_OPERATOR")
        compare = _COMPARE[name]
        return Condition(
            lambda row: (held := read(row)) is not None and compare(held, value), path.span(name, [value])
        )

    def _like(self, path: Path, operation: _Token) -> Condition:
        token = self._take("text")
        if path.field.type not in TEXT:
            told = f"invalid operator on {path.field.type} field"
            raise self._refusal(operation.at, told, "INVALID_QUERY_FILTER_OPERATOR")
        wild = {("%", False): ".*", ("_", False): "."}
        pieces = [wild.get(piece) or re.escape(piece[0].casefold()) for piece in self._characters(token)]
        like, read = re.compile("".join(pieces), re.DOTALL), path.folded
        return Condition(lambda row: like.fullmatch(read(row) or "") is not None)

    def _list(self, field: Field) -> frozenset[Value]:
        self._expect("(")
        values = [self._literal(field)]
        while self._accept(","):
            values.append(self._literal(field))
        self._expect(")")
        return frozenset(values)

    def _literal(self, field: Field) -> Value:
        token = self._tokens[self._next]
        word = token.text.upper() if token.kind == "name" else ""
        kind = {"TRUE": "boolean", "FALSE": "boolean", "NULL": "null"}.get(word, token.kind)
        if kind not in {"text", "dateTime", "date", "number", "boolean", "null"}:
            raise self._unexpected()
        self._next += 1
        if kind == "null":
            return None
        wanted = _literal_kind(field)
        if kind != wanted:
            told = field.type if wanted in {"text", "number"} else wanted
            quotes = "should be" if wanted == "text" else "should not be"
            raise self._refusal(
                token.at,
                f"value of filter criterion for field '{field.name}' must be of type {told} and"
                f" {quotes} enclosed in quotes",
                "INVALID_FIELD",
            )
        return self._value(token, field, word)

    def _value(self, token: _Token, field: Field, word: str) -> Value:
        if word:
            return word == "TRUE"
        if token.kind == "number":
            return float(token.text)
        if token.kind == "text":
            text = "".join(char for char, _ in self._characters(token))
            if field.type in TEXT or not text:
                return text.casefold() or None
            full = long_id(text)
            if full is None:
                raise self._refusal(token.at, f"invalid ID field: {text}", "INVALID_QUERY_FILTER_OPERATOR")
            return full
        try:
            moment = datetime.fromisoformat(token.text)
            return stamp(moment) if token.kind == "dateTime" else date.fromisoformat(token.text).isoformat()
        except (ValueError, OverflowError):
            raise self._refusal(token.at, f"Invalid {token.kind.lower()}: {token.text}") from None

    def _characters(self, token: _Token) -> Iterable[tuple[str, bool]]:
        for part in re.findall(r"\\.|[^\\]", token.text[1:-1], re.DOTALL):
            if len(part) == 1 or part[1] in "%_":
                yield part[-1], len(part) > 1
            elif part[1] in _ESCAPES:
                yield _ESCAPES[part[1]], True
            else:
                raise self._refusal(token.at, "Invalid string literal: illegal character sequence")


def _literal_kind(field: Field) -> str:
    if field.type in TEXT or field.type in IDS:
        return "text"
    return "number" if field.type in NUMBERS else field.type.replace("datetime", "dateTime")
