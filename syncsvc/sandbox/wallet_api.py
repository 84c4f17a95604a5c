"""What the wallet simulator lets in and how it words a refusal: the rules of a row, tokens, rates, bodies."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from syncsvc.sandbox.clock import Clock
from syncsvc.sandbox.wallet_knobs import Duplicates, EmptyField, PageVersion, WalletKnobs

MAX_USERS = 2000  # imports page, both versions
_WINDOW_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ImportRow:
    """A row that keeps every rule; a profile value of None clears that field."""

    index: int
    brand_id: str
    email: str = field(repr=False)
    points: int
    profile: Mapping[str, Any] = field(repr=False)
    welcome: bool
    update: bool

    @property
    def key(self) -> tuple[str, str]:
        """What makes rows the same member."""
        return self.brand_id, fold(self.email)


def fold(email: str) -> str:
    """Return the form in which emails are compared."""
    return email.strip().casefold()


_WELCOME = {PageVersion.OLD: "welcome_email", PageVersion.NEW: "welcome_mail"}
_REQUIRED = {
    PageVersion.OLD: frozenset({"email", "brand_id", "name", "points", "storecard"}),
    PageVersion.NEW: frozenset({"email", "brand_id", "name", "points"}),
}
_DATES = {
    PageVersion.OLD: frozenset({"start_date", "expires_at"}),
    PageVersion.NEW: frozenset({"start_date", "expires_at", "birthday"}),
}
_TEXTS = frozenset(
    {
        "email",
        "brand_id",
        "name",
        "storecard",
        "phone_number",
        "licenseplate",
        "external_reference",
        "tag_id",
        "location_id",
    }
)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def read_users(body: Mapping[str, Any], knobs: WalletKnobs) -> list[Any]:
    """Return the rows of an import request that names an organization; raises RefusalError otherwise."""
    organization, users = body.get("organization_id"), body.get("users")
    rules = (
        ("organization_id", organization in (None, ""), "is required"),
        ("organization_id", not isinstance(organization, str), "must be a string"),
        ("users", users in (None, "", []), "is required"),
        ("users", not isinstance(users, list), "must be an array"),
        ("users", isinstance(users, list) and len(users) > MAX_USERS, f"must hold at most {MAX_USERS}"),
    )
    found = {name: [f"The {name} field {problem}."] for name, broken, problem in reversed(rules) if broken}
    if knobs.unknown_fields_refused:
        unknown = sorted(body.keys() - {"organization_id", "users"})
        found |= {name: [f"The {name} field is not a known field."] for name in unknown}
    if found or not isinstance(users, list):
        raise invalid(found, knobs)
    return users


def read_rows(
    users: Sequence[Any], knobs: WalletKnobs, storecards: Mapping[str, Sequence[str]]
) -> tuple[list[ImportRow], dict[str, list[str]]]:
    """Return the rows that keep every rule, in order, and the problems of the others by `users.N.field`.

    `storecards` are those of each brand. The organization's first one is that of a row without (newer page).
    """
    errors: dict[str, list[str]] = {}
    rows: list[ImportRow] = []
    for index, user in enumerate(users):
        found = _broken_rules(user, knobs, storecards)
        if found:
            errors.update(_worded(f"users.{index}", found))
        else:
            rows.append(_row(index, user, knobs, storecards))
    if knobs.duplicates == Duplicates.REFUSE:
        times = Counter(row.key for row in rows)
        for row in rows:
            if times[row.key] > 1:
                errors.update(_worded(f"users.{row.index}", {"email": "has a duplicate value"}))
        rows = [row for row in rows if times[row.key] == 1]
    elif knobs.duplicates == Duplicates.LAST_WINS:
        rows = sorted({row.key: row for row in rows}.values(), key=lambda row: row.index)
    return rows, errors


def _worded(prefix: str, found: Mapping[str, str]) -> dict[str, list[str]]:
    keys = {f"{prefix}.{name}" if name else prefix: problem for name, problem in found.items()}
    return {key: [f"The {key} field {problem}."] for key, problem in keys.items()}


def _broken_rules(user: Any, knobs: WalletKnobs, storecards: Mapping[str, Sequence[str]]) -> dict[str, str]:
    if not isinstance(user, dict):
        return {"": "must be an object"}
    found: dict[str, str] = {}
    required = _REQUIRED[PageVersion(knobs.page)]
    for name in sorted(required):
        if user.get(name) is None or (isinstance(user[name], str) and not user[name].strip()):
            found[name] = "is required"
    for name, value in user.items():
        if name in found:
            continue
        if name not in required and value in (None, ""):
            problem = "must not be empty" if knobs.empty_fields == EmptyField.REFUSE else None
        else:
            problem = _broken_rule(name, value, knobs)
        if problem:
            found[name] = problem
    if not found.keys() & {"brand_id", "storecard"}:
        found |= _broken_place(user["brand_id"], user.get("storecard"), storecards)
    return found


def _broken_place(brand: str, card: str | None, storecards: Mapping[str, Sequence[str]]) -> dict[str, str]:
    if brand not in storecards:
        return {"brand_id": "names no brand of the organization"}
    if card and card not in storecards[brand]:
        return {"storecard": "names no storecard of the brand"}
    return {}


def _broken_rule(name: str, value: Any, knobs: WalletKnobs) -> str | None:
    page = PageVersion(knobs.page)
    if name == "points":
        return _broken_points(value, knobs)
    if name in {_WELCOME[page], "update_mail"}:
        whole = isinstance(value, int) and not (isinstance(value, bool) and page == PageVersion.NEW)
        return None if whole and value in (0, 1) else "must be 0 or 1"
    if name not in _TEXTS | _DATES[page]:
        return "is not a known field" if knobs.unknown_fields_refused else None
    if not isinstance(value, str):
        return "must be a string"
    if knobs.max_text is not None and len(value) > knobs.max_text:
        return f"must not be greater than {knobs.max_text} characters"
    known = {"tag_id": knobs.tags, "location_id": knobs.locations}.get(name)
    rules = (
        (name == "email" and not _EMAIL.fullmatch(value.strip()), "must be a valid email address"),
        (known is not None and value not in known, "names none that is known"),
        (name in _DATES[page] and page == PageVersion.NEW and not _is_date(value), "must be YYYY-MM-DD"),
    )
    return next((problem for broken, problem in rules if broken), None)


def _broken_points(value: Any, knobs: WalletKnobs) -> str | None:
    points = _whole(value, knobs)
    if points is None:
        return "must be an integer"
    rules = (
        (points < 0 and knobs.negative_points_refused, "must be at least 0"),
        (points == 0 and knobs.zero_points_refused, "must be at least 1"),
        (knobs.max_points is not None and points > knobs.max_points, f"must not be over {knobs.max_points}"),
    )
    return next((problem for broken, problem in rules if broken), None)


def _whole(value: Any, knobs: WalletKnobs) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and knobs.page == PageVersion.OLD and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    return None


def _is_date(value: str) -> bool:
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


def _row(
    index: int, user: Mapping[str, Any], knobs: WalletKnobs, storecards: Mapping[str, Sequence[str]]
) -> ImportRow:
    page = PageVersion(knobs.page)
    flags = {_WELCOME[page], "update_mail"}
    profile = {
        name: None if value == "" else value
        for name, value in user.items()
        if name not in flags | {"email", "brand_id", "points"}
        and not (value in (None, "") and knobs.empty_fields == EmptyField.IGNORE)
    }
    if not profile.get("storecard"):
        profile["storecard"] = next(card for cards in storecards.values() for card in cards)
    return ImportRow(
        index=index,
        brand_id=user["brand_id"],
        email=user["email"].strip(),
        points=_whole(user["points"], knobs) or 0,
        profile=profile,
        welcome=bool(user.get(_WELCOME[page])),
        update=bool(user.get("update_mail")),
    )


class RefusalError(Exception):
    """A request is refused: a status, and the words of a Laravel server."""

    def __init__(
        self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **body: Any
    ) -> None:
        """Hold the answer."""
        super().__init__(f"{status}: {message}")
        self.status = status
        self.body = {"message": message, **body}
        self.headers = dict(headers or {})

    def answer(self, request: Request, knobs: WalletKnobs) -> Response:
        """Return the answer, which is a redirect where the knobs say so and JSON is not the first wish."""
        wish = request.headers.get("accept", "").split(",")[0]
        if self.status in knobs.redirected and "/json" not in wish and "+json" not in wish:
            page = "<html><body>Redirecting to <a href='/login'>/login</a></body></html>"
            return HTMLResponse(page, 302, {"Location": "/login"})
        return JSONResponse(self.body, self.status, self.headers)


def invalid(errors: Mapping[str, Sequence[str]], knobs: WalletKnobs) -> RefusalError:
    """Return a refusal with status 422 that names the errors, unless the knobs keep them secret."""
    if not knobs.errors_named:
        return RefusalError(422, "The given data was invalid.")
    first = next(iter(errors.values()))[0]
    more = sum(map(len, errors.values())) - 1
    tail = f" (and {more} more error{'s' * (more > 1)})" if more else ""
    return RefusalError(422, first + tail, errors=errors)


async def json_input(request: Request, knobs: WalletKnobs) -> dict[str, Any]:
    """Return the JSON object of the body; nothing where the body is of another type or no object.

    Raises RefusalError where the body is too large or is not the JSON that it claims to be.
    """
    raw = await request.body()
    if knobs.max_body is not None and len(raw) > knobs.max_body:
        raise RefusalError(413, "The body is too large.")
    kind = request.headers.get("content-type", "")
    if not raw or ("/json" not in kind and "+json" not in kind):
        return {}
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RefusalError(knobs.malformed_status, "The body is not valid JSON.") from error
    return value if isinstance(value, dict) else {}


class Gate:
    """Lets requests in by token, ability and rate."""

    def __init__(self, knobs: WalletKnobs, clock: Clock) -> None:
        """Count requests from now on."""
        self._knobs = knobs
        self._clock = clock
        self._windows: dict[str, tuple[datetime, int]] = {}

    def admit(self, request: Request, ability: str) -> None:
        """Let a request in that may use `ability`; raises RefusalError (401, 429, 403) otherwise."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or token not in self._knobs.abilities:
            raise RefusalError(401, "Unauthenticated")
        self._count(token)
        if ability not in self._knobs.abilities[token]:
            raise RefusalError(403, f"The token lacks the ability {ability}.")

    def _count(self, token: str) -> None:
        now = self._clock.now()
        began, used = self._windows.get(token, (now, 0))
        passed = (now - began).total_seconds()
        if passed >= _WINDOW_SECONDS:
            began, used, passed = now, 0, 0.0
        if self._knobs.rate_per_minute is not None and used >= self._knobs.rate_per_minute:
            wait = {"Retry-After": str(math.ceil(_WINDOW_SECONDS - passed))}
            raise RefusalError(429, "Too many requests.", headers=wait if self._knobs.retry_after else {})
        self._windows[token] = (began, used + 1)
