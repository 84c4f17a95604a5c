"""Maps a contact to the member it should be, by the rules of its connector, compiled once.

A contact becomes exactly one of three: `Mapped`, `Refused` with a reason a person can act on, or `Excluded`
by `where`. Nothing is guessed: what a field cannot take refuses the contact. Reasons name fields, no values.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Generic, TypeVar

from msgspec import Struct

from syncsvc.config import ConnectorConfig, WalletConfig
from syncsvc.maps import FieldRule
from syncsvc.model import Contact, FieldValue
from syncsvc.rules.expressions import Expression, ExpressionError
from syncsvc.rules.values import (
    MAX_TEXT,
    UnreadableError,
    check_text,
    clean,
    read_date,
    read_email,
    read_flag,
    read_points,
    read_text,
    write_text,
)

VERSION = 1  # raise it whenever the same rules give another result, so that every contact is mapped anew

DATES = frozenset({"birthday", "start_date", "expires_at"})
MAILS = ("welcome_email", "update_mail")
_NUMBERS = frozenset({"points", *MAILS})
_NEEDED = {
    "name": "is empty, and the wallet takes no member without a name",
    "storecard": "is empty, and wallet.storecard gives no default",
}
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[^{}]+|[{}]")
_A_DAY = date(2001, 2, 3)  # day, month and year differ, so that a format that swaps or drops one shows

Fields = Mapping[str, FieldValue]
Source = Callable[[Fields], FieldValue]
T = TypeVar("T")


class MappingError(ValueError):
    """A rule that cannot be compiled; the message is a phrase that follows the rule's key."""


class Mapped(Struct, frozen=True, gc=False):
    """A member as its contact says it should be.

    `email` is trimmed, `email_key` the same case-folded for comparison. `points` is the total earned, None
    where this connector gives none. `profile` holds every other wallet field that is set: always name,
    storecard and `external_reference`, which is the record id by default. `mails` are the mail flags that
    are on.
    """

    email: str
    email_key: str
    brand_id: str
    points: int | None
    profile: dict[str, str]
    mails: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A contact that cannot become a member: the wallet field (or `where`) concerned, and why."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Excluded:
    """A contact that `where` leaves out."""


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """A compiled rule: `read` gives the wallet's value for a record, `fields` are the CRM fields it uses.

    `read` raises UnreadableError or ExpressionError where a record's value cannot be used.
    """

    read: Callable[[Fields], T]
    fields: frozenset[str]


def compile_rule(name: str, rule: FieldRule) -> Rule[str] | Rule[int] | Rule[bool]:
    """Return the rule of the wallet field `name`, ready to use.

    Raises MappingError where a template or expression cannot be compiled, a format is no date's, or a value
    written in the rule is none that the wallet field takes.
    """
    if name == "points":
        return _bound(rule, read_points)
    if name in MAILS:
        return _bound(rule, read_flag)
    return _text_rule(name, rule)


def compile_where(source: str) -> Expression | None:
    """Return the compiled `where`, None for an empty one; raises MappingError."""
    if not source.strip():
        return None
    try:
        where = Expression(source)
    except ExpressionError as error:
        raise MappingError(str(error)) from error
    if where.result not in {"BOOL", "DYN"}:
        raise MappingError(f"gives a value of type {where.result}; true or false is needed")
    return where


def _source(rule: FieldRule) -> tuple[Source, frozenset[str]]:
    if rule.cel is not None:
        try:
            expression = Expression(rule.cel)
        except ExpressionError as error:
            raise MappingError(str(error)) from error
        return expression.evaluate, expression.fields
    if rule.field is not None:
        return _Field(rule.field), frozenset({rule.field})
    return _template(rule.template or "")


def _nothing(_: Fields) -> str:
    return ""


class _Field:
    """A source that is a field as it stands."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, record: Fields) -> FieldValue:
        return record.get(self.name)


def _template(text: str) -> tuple[Source, frozenset[str]]:
    parts: list[tuple[str, str]] = []  # each a text and the field that follows it
    rest = ""
    for found in _PART.finditer(text):
        part, name = found[0], found[1]
        if name is not None:
            if not name.strip():
                raise MappingError("has {} without a field in it; name the field, as in {Email}")
            parts.append((rest, name.strip()))
            rest = ""
        elif part in {"{", "}"}:
            raise MappingError(
                "has a brace without its partner; write {Field}, or {{ and }} for plain braces"
            )
        else:
            rest += part.replace("{{", "{").replace("}}", "}")
    names = frozenset(name for _, name in parts)
    if len(parts) == 1 and not parts[0][0] and not rest:
        # The value goes on as it came, so that numbers and flags are not read back from text.
        return _Field(parts[0][1]), names

    def render(record: Fields) -> str:
        text = ""
        for before, name in parts:
            value = record.get(name)
            text += before + (value if type(value) is str else write_text(value))
        return text + rest

    return render, names


def _text_rule(name: str, rule: FieldRule) -> Rule[str]:
    if name in DATES:
        if rule.format is not None:
            _check_format(rule.format)
        return _bound(rule, partial(read_date, pattern=rule.format), fixed=read_date)
    return _bound(rule, read_email if name == "email" else _read_text)


def _bound(
    rule: FieldRule, read: Callable[[FieldValue], T], *, fixed: Callable[[FieldValue], T] | None = None
) -> Rule[T]:
    if rule.format is not None and fixed is None:
        raise MappingError("has a format, which only dates have; remove it")

    def written(key: str, value: FieldValue) -> T:
        try:
            return (fixed or read)(value)
        except UnreadableError as error:
            raise MappingError(f"{key} {error}; correct it") from error

    if rule.value is not None:
        constant = written("value", rule.value)
        return Rule(lambda _: constant, frozenset())
    source, fields = _source(rule)
    default = None if rule.default is None else written("default", rule.default)
    if rule.values is not None:
        table = {clean(key): written(f"values.{key}", value) for key, value in rule.values.items()}
        return Rule(_translated(source, table, default, read), fields)
    if default is not None:
        return Rule(_defaulted(source, default, read), fields)
    if isinstance(source, _Field):
        name = source.name  # read here: each call between costs as much as the reading
        return Rule(lambda record: read(record.get(name)), fields)
    return Rule(lambda record: read(source(record)), fields)


def _check_format(pattern: str) -> None:
    try:
        kept = datetime.strptime(_A_DAY.strftime(pattern), pattern).date() == _A_DAY  # noqa: DTZ007 - only its date is used
    except ValueError:
        kept = False
    if not kept:
        raise MappingError("has a format that does not tell day, month and year; write one such as %d-%m-%Y")


def _read_text(value: FieldValue) -> str:
    # What nearly all of them are needs no cleaning: of all white space a space alone is printable.
    if type(value) is str and value.isprintable() and "  " not in value and value == value.strip():
        return value if len(value) <= MAX_TEXT else check_text(value)
    return check_text(read_text(value))


def _translated(
    source: Source, table: Mapping[str, T], default: T | None, read: Callable[[FieldValue], T]
) -> Callable[[Fields], T]:
    def translate(record: Fields) -> T:
        text = read_text(source(record))
        if text in table:
            return table[text]
        if default is not None:
            return default
        if text:
            raise UnreadableError("holds a value that `values` does not list, and has no default")
        return read(None)

    return translate


def _defaulted(source: Source, default: T, read: Callable[[FieldValue], T]) -> Callable[[Fields], T]:
    def fill(record: Fields) -> T:
        value = source(record)
        return default if value is None or not write_text(value).strip() else read(value)

    return fill


class Mapper:
    """The compiled map of one connector; the same contact always gives the same result."""

    def __init__(self, connector: ConnectorConfig, wallet: WalletConfig) -> None:
        """Compile the rules; raises MappingError, which a loaded configuration never does."""
        rules = dict(connector.member.rules())
        texts = {name: _text_rule(name, rule) for name, rule in rules.items() if name not in _NUMBERS}
        flags = {name: _bound(rules[name], read_flag) for name in MAILS if name in rules}
        points = _bound(rules["points"], read_points) if "points" in rules else None
        where = compile_where(connector.where)
        self._uses = {name: rule.fields for name, rule in (texts | flags).items()}
        if points is not None:
            self._uses["points"] = points.fields
        if where is not None:
            self._uses["where"] = where.fields
        self._where = where
        self._email = texts.pop("email").read
        reads = {name: rule.read for name, rule in texts.items()}
        self._brand, self._brand_id = reads.pop("brand_id", None), wallet.brand_id
        self._usual = {"storecard": wallet.storecard} if wallet.storecard else {}
        unread = [name for name in _NEEDED if name not in self._usual]
        self._texts = tuple((dict.fromkeys(unread, _nothing) | reads).items())
        self._points = points.read if points is not None else None
        self._flags = tuple((name, rule.read) for name, rule in flags.items())
        self._witness = None if wallet.witness is None else wallet.witness.casefold()
        self._digest = _digest(connector, wallet)

    @property
    def needs(self) -> frozenset[str]:
        """The CRM fields that the rules and `where` use."""
        return frozenset().union(*self._uses.values())

    @property
    def digest(self) -> str:
        """Text that changes whenever a contact could be mapped otherwise than before: 32 hex digits."""
        return self._digest

    def map(self, contact: Contact) -> Mapped | Refused | Excluded:
        """Return what the contact becomes; never raises for anything that a contact can hold."""
        record = contact.fields
        left_out = None if self._where is None else self._left_out(self._where, record)
        if left_out is not None:
            return left_out
        profile = {**self._usual, "external_reference": contact.record_id}
        mails: tuple[str, ...] = ()
        at = "email"
        try:
            email = self._email(record)
            at = "brand_id"
            brand_id = (self._brand(record) if self._brand is not None else "") or self._brand_id
            if not brand_id:
                return self._refused(at, "is empty, and wallet.brand_id gives no default")
            at = "points"
            points = self._points(record) if self._points is not None else None
            for at, read in self._texts:
                text = read(record)
                if text:
                    profile[at] = text
                elif at in _NEEDED and at not in profile:
                    return self._refused(at, _NEEDED[at])
            for at, asks in self._flags:
                if asks(record):
                    mails = (*mails, at)
        except (UnreadableError, ExpressionError) as error:
            return self._refused(at, str(error))
        email_key = email.casefold()
        if email_key == self._witness:
            return self._refused("email", "is that of wallet.witness, who can be no person")
        return Mapped(email, email_key, brand_id, points, profile, mails)

    def _left_out(self, where: Expression, record: Fields) -> Refused | Excluded | None:
        try:
            included = where.evaluate(record)
        except ExpressionError as error:
            return self._refused("where", str(error))
        if included is True:
            return None
        return Excluded() if included is False else self._refused("where", "is neither true nor false")

    def _refused(self, name: str, problem: str) -> Refused:
        used = ", ".join(sorted(self._uses.get(name, ())))
        origin = f"{name} (from {used})" if used else name
        return Refused(name, f"{origin} {problem}; correct the record, or the map in the configuration")


def _digest(connector: ConnectorConfig, wallet: WalletConfig) -> str:
    content = {
        "version": VERSION,
        "where": connector.where,
        "member": {name: rule.model_dump(exclude_none=True) for name, rule in connector.member.rules()},
        "brand_id": wallet.brand_id,
        "storecard": wallet.storecard,
    }
    if wallet.witness is not None:
        content["witness"] = wallet.witness.casefold()
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()
