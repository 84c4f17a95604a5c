"""Rows, their fields, and the SOQL over them: parsed strictly, answered from sorted indexes.

The subset: SELECT of fields (through parents too) or COUNT(), FROM one object, WHERE with = != <> < <= > >=
IN, NOT IN, LIKE, AND, OR, NOT and parentheses, ORDER BY, LIMIT. The rest is refused in Salesforce's words,
as are AND beside OR without parentheses, quoted or zoneless datetimes, and literals of another type (SOQL and
SOSL Reference, 2026). Rows without an ORDER BY, and ties within one, come in no order to rely on.
"""

from __future__ import annotations

import operator
import re
from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import reduce
from typing import Any, NamedTuple, Protocol

Value = str | int | float | bool | None
Row = Mapping[str, Any]

TEXT = frozenset({"string", "email", "phone", "textarea", "picklist", "url"})
IDS = frozenset({"id", "reference"})
NUMBERS = frozenset({"double", "currency", "percent", "int"})

_TOP = "~"  # sorts after every id and every time
_STAMP_WIDTH = len("2026-01-01T00:00:00.000+0000")
_ID_WIDTH = 18


class ApiError(Exception):
    """A request that Salesforce answers with an error instead of carrying it out."""

    def __init__(
        self, status: int, code: str, message: str, *, fields: tuple[str, ...] | None = None
    ) -> None:
        """Hold the HTTP status, and what the error's body says."""
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields


def stamp(moment: datetime) -> str:
    """Return a time as Salesforce writes it: UTC, whole seconds; the order of texts is that of times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def long_id(text: str) -> str | None:
    """Return the 18-character form of a 15- or 18-character id, or None where it is neither.

    The last three characters say which of the others are capitals.
    """
    if not re.fullmatch(r"[A-Za-z0-9]{15}(?:[A-Z0-5]{3})?", text):
        return None
    suffix = ""
    for begin in (0, 5, 10):
        bits = sum(1 << place for place in range(5) if text[begin + place].isupper())
        suffix += "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"[bits]
    return text[:15] + suffix if text[15:] in {"", suffix} else None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object; values are as JSON shows them, times as `stamp` writes them."""

    name: str
    type: str = "string"
    length: int = 0
    updateable: bool = True
    calculated: bool = False
    required: bool = False
    parent: str = ""  # the object that a reference names, reached by this field's name less its "Id"

    @property
    def filterable(self) -> bool:
        """Whether a query may filter and sort by it; long text cannot be."""
        return self.type != "textarea"

    @property
    def empty(self) -> Value:
        """What it holds when nothing was ever set."""
        return False if self.type == "boolean" else None


class Table:
    """The committed rows of one object, sorted by id, and by SystemModstamp and id."""

    def __init__(self, name: str, prefix: str, fields: Iterable[Field]) -> None:
        """Begin empty; ids of this object begin with `prefix`."""
        self.name = name
        self.prefix = prefix
        self.fields = {field.name.lower(): field for field in fields}
        self.rows: dict[str, Row] = {}
        self.ids: list[str] = []
        self.keys: list[str] = []

    def put(self, row: Row) -> None:
        """Add a row, or replace the one with its id."""
        old = self.rows.get(row["Id"])
        if old is None:
            insort(self.ids, row["Id"])
        else:
            del self.keys[bisect_left(self.keys, _key(old))]
        insort(self.keys, _key(row))
        self.rows[row["Id"]] = row

    def extend(self, rows: Iterable[Row]) -> None:
        """Add many new rows at once."""
        new = {row["Id"]: row for row in rows}
        self.rows.update(new)
        self.ids.extend(new)
        self.ids.sort()
        self.keys.extend(map(_key, new.values()))
        self.keys.sort()

    def remove(self, row_id: str) -> Row:
        """Take a row away and return it."""
        row = self.rows.pop(row_id)
        del self.ids[bisect_left(self.ids, row_id)]
        del self.keys[bisect_left(self.keys, _key(row))]
        return row


def _key(row: Row) -> str:
    return str(row["SystemModstamp"] + row["Id"])


class Schema(Protocol):
    """What one user may see of an org."""

    def table(self, name: str) -> Table | None:
        """Return the object of that name in any case, or None."""

    def field(self, table: Table, name: str) -> Field | None:
        """Return the field of that name in any case, or None where it is absent or hidden."""


class _Span(NamedTuple):
    """Bounds, both included, outside of which no row can meet a condition."""

    low_key: str = ""
    high_key: str = _TOP
    low_id: str = ""
    high_id: str = _TOP

    def both(self, other: _Span) -> _Span:
        low_key, high_key = max(self.low_key, other.low_key), min(self.high_key, other.high_key)
        low_id, high_id = max(self.low_id, other.low_id), min(self.high_id, other.high_id)
        second = low_key[:_STAMP_WIDTH]
        if len(second) == _STAMP_WIDTH and high_key.startswith(second):
            low_key, high_key = max(low_key, second + low_id), min(high_key, second + high_id)
        return _Span(low_key, high_key, low_id, high_id)

    def either(self, other: _Span) -> _Span:
        return _Span(
            min(self.low_key, other.low_key),
            max(self.high_key, other.high_key),
            min(self.low_id, other.low_id),
            max(self.high_id, other.high_id),
        )


_ANYWHERE = _Span()


@dataclass(frozen=True, slots=True)
class _Condition:
    test: Callable[[Row], bool]
    span: _Span = _ANYWHERE


@dataclass(frozen=True, slots=True)
class _Path:
    """A field, and the references to follow to its row."""

    hops: tuple[tuple[Field, Table], ...]
    field: Field

    def read(self, row: Row | None) -> Any:
        for via, table in self.hops:
            row = table.rows.get(row.get(via.name) or "") if row else None
        return None if row is None else row.get(self.field.name, self.field.empty)


class _Order(NamedTuple):
    path: _Path
    descending: bool
    nulls_first: bool

    def key(self, row: Row) -> tuple[bool, Any]:
        value = self.path.read(row)
        if isinstance(value, str) and self.path.field.type in TEXT:
            value = value.casefold()
        return ((value is not None) == self.nulls_first) != self.descending, 0 if value is None else value


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was understood; `columns` is empty for COUNT()."""

    table: Table
    columns: tuple[_Path, ...]
    where: _Condition
    order: tuple[_Order, ...]
    limit: int | None

    def run(self, *, deleted: bool) -> list[Row]:
        """Return the rows that match, in order; those deleted too where asked for."""
        keys, span = self.table.keys, self.where.span
        by_key = keys[bisect_left(keys, span.low_key) : bisect_right(keys, span.high_key + _TOP)]
        ids = self.table.ids
        by_id = ids[bisect_left(ids, span.low_id) : bisect_right(ids, span.high_id)]
        sorted_by = ["." if order.path.hops else order.path.field.name for order in self.order]
        one_way = len({order.descending for order in self.order}) == 1
        source = min(by_key, by_id, key=len)
        natural = {"Id": by_id, "SystemModstamp Id": by_key}.get(" ".join(sorted_by))
        in_order = natural is not None and one_way and len(natural) <= 10 * len(source)
        if natural is not None and in_order:
            source = natural[::-1] if self.order[0].descending else natural
        found: list[Row] = []
        enough = self.limit if in_order else None
        for key in source:
            if enough is not None and len(found) >= enough:
                break
            row = self.table.rows[key[-_ID_WIDTH:]]
            if (deleted or not row.get("IsDeleted")) and self.where.test(row):
                found.append(row)
        if not in_order:
            found.sort(key=lambda row: row["Id"][::-1])
            for order in reversed(self.order):
                found.sort(key=order.key, reverse=order.descending)
        return found[: self.limit]

    def render(self, row: Row, base: str) -> dict[str, Any]:
        """Return a row as JSON shows it, its fields in the order selected; `base` is the version's path."""
        shown = _head(self.table, row, base)
        for path in self.columns:
            place, parent = shown, row
            for via, table in path.hops:
                name, above = via.name.removesuffix("Id"), table.rows.get(parent.get(via.name) or "")
                if above is None:
                    place[name] = None
                    break
                place, parent = place.setdefault(name, _head(table, above, base)), above
            else:
                place[path.field.name] = parent.get(path.field.name, path.field.empty)
        return shown


def _head(table: Table, row: Row, base: str) -> dict[str, Any]:
    return {"attributes": {"type": table.name, "url": f"{base}/sobjects/{table.name}/{row['Id']}"}}


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
        where = self._condition() if self._accept("WHERE") else _Condition(lambda _: True)
        order: list[_Order] = []
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

    def _path(self, token: _Token) -> _Path:
        table, hops = self._table, []
        *parents, last = token.text.split(".")
        for parent in parents:
            via = self._schema.field(table, f"{parent}Id")
            above = self._schema.table(via.parent) if via and via.parent else None
            if via is None or above is None:
                told = f"Didn't understand relationship '{parent}' in field path."
                raise self._refusal(token.at, f"{told} {_REFERENCE}", "INVALID_FIELD")
            hops.append((via, above))
            table = above
        field = self._schema.field(table, last)
        if field is None:
            told = f"No such column '{last}' on entity '{table.name}'. {_custom('field')}"
            raise self._refusal(token.at, told, "INVALID_FIELD")
        return _Path(tuple(hops), field)

    def _order(self) -> _Order:
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
        return _Order(path, descending, first)

    def _limit(self) -> int:
        token = self._take("number")
        if not token.text.isdigit():
            raise self._refusal(token.at, f"unexpected token: {token.text}")
        return int(token.text)

    def _condition(self) -> _Condition:
        if self._accept("NOT"):
            inner = self._simple().test
            return _Condition(lambda row: not inner(row))
        parts = [self._simple()]
        word = "AND" if self._tokens[self._next].text.upper() == "AND" else "OR"
        while self._accept(word):
            parts.append(self._simple())
        if len(parts) == 1:
            return parts[0]
        tests, spans = [part.test for part in parts], [part.span for part in parts]
        if word == "AND":
            return _Condition(lambda row: all(test(row) for test in tests), reduce(_Span.both, spans))
        return _Condition(lambda row: any(test(row) for test in tests), reduce(_Span.either, spans))

    def _simple(self) -> _Condition:
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

    def _comparison(self, path: _Path) -> _Condition:
        read = _folded(path) if path.field.type in TEXT else path.read
        token = self._tokens[self._next]
        if self._accept("LIKE"):
            return self._like(path, token)
        negated = self._accept("NOT")
        if negated or self._tokens[self._next].text.upper() == "IN":
            self._expect("IN")
            wanted = self._list(path.field)
            if negated:
                return _Condition(lambda row: read(row) not in wanted)
            return _Condition(lambda row: read(row) in wanted, _span(path, "=", wanted))
        name = self._take("symbol").text.replace("<>", "!=")
        value = self._literal(path.field)
        if name == "=":
            return _Condition(lambda row: read(row) == value, _span(path, "=", [value]))
        if name == "!=":
            return _Condition(lambda row: read(row) != value)
        if name not in _COMPARE or value is None or path.field.type == "boolean":
            raise self._refusal(token.at, f"invalid operator: {name}", "INVALID_QUERY_FILTER_OPERATOR")
        compare = _COMPARE[name]
        return _Condition(
            lambda row: (held := read(row)) is not None and compare(held, value), _span(path, name, [value])
        )

    def _like(self, path: _Path, operation: _Token) -> _Condition:
        token = self._take("text")
        if path.field.type not in TEXT:
            told = f"invalid operator on {path.field.type} field"
            raise self._refusal(operation.at, told, "INVALID_QUERY_FILTER_OPERATOR")
        wild = {("%", False): ".*", ("_", False): "."}
        pieces = [wild.get(piece) or re.escape(piece[0].casefold()) for piece in self._characters(token)]
        like, read = re.compile("".join(pieces), re.DOTALL), _folded(path)
        return _Condition(lambda row: like.fullmatch(read(row) or "") is not None)

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


def _folded(path: _Path) -> Callable[[Row], str | None]:
    def fold(row: Row) -> str | None:
        value = path.read(row)
        return value.casefold() if value else None

    return fold


def _span(path: _Path, name: str, values: Iterable[Value]) -> _Span:
    texts = [value for value in values if isinstance(value, str)]
    if path.hops or path.field.name not in {"Id", "SystemModstamp"} or not texts:
        return _ANYWHERE
    low, high = min(texts), max(texts)
    if path.field.name == "Id":
        return _Span(low_id="" if "<" in name else low, high_id=_TOP if ">" in name else high)
    after = low + _TOP
    low_key = {"=": low, ">=": low, ">": after}.get(name, "")
    return _Span(low_key=low_key, high_key={"=": high + _TOP, "<=": high + _TOP, "<": high}.get(name, _TOP))


_REFERENCE = "Please reference your WSDL or the describe call for the appropriate names."


def _custom(what: str) -> str:
    noun = "custom field name" if what == "field" else "entity name"
    return (
        f"If you are attempting to use a custom {what}, be sure to append the '__c' after the {noun}."
        f" {_REFERENCE}"
    )


def unsupported_object(name: str) -> str:
    """Return what Salesforce says about an object it does not have."""
    return f"sObject type '{name}' is not supported. {_custom('object')}"
