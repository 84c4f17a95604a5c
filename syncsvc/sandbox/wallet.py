"""The wallet simulator: members, a ledger of every award, and the few documented endpoints.

Endpoints: POST /v2/import, GET /import/log, GET /brands, GET /members/list (vendor's pages imports, brands
and members, seen 2026-11); anything else is 404. What the pages leave open is turned by `WalletKnobs`. The
ledger is the truth that a client's books are compared with.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from syncsvc.sandbox.clock import Clock, RealClock
from syncsvc.sandbox.faults import FaultPlan, FaultyApp
from syncsvc.sandbox.wallet_api import (
    Gate,
    ImportRow,
    RefusalError,
    fold,
    invalid,
    json_input,
    read_rows,
    read_users,
)
from syncsvc.sandbox.wallet_knobs import (
    BadRows,
    ErrorInside,
    ImportedMembers,
    LogBrand,
    PointsMode,
    WalletKnobs,
    log_value,
)

__all__ = ["Award", "Import", "Member", "WalletKnobs", "WalletSimulator"]

DEFAULT_STORECARD = "card-1"
_PER_PAGE = 15
_LOG_CHUNK = 500


@dataclass(slots=True)
class Member:
    """What is true of a member; `last_updated` is known to the wallet, `logged` is what its log shows.

    `profile` holds the fields as last imported, `awarded` the points that imports brought, `mails` the mails
    sent ("welcome" or "update"), in order.
    """

    brand_id: str
    email: str = field(repr=False)
    profile: dict[str, Any] = field(default_factory=dict, repr=False)
    points: int = 0
    awarded: int = 0
    imports: int = 0
    mails: tuple[str, ...] = ()
    last_updated: datetime | None = None
    logged: datetime | None = None


@dataclass(frozen=True, slots=True)
class Award:
    """A change of one member's points, never zero; `email` is trimmed and case-folded."""

    at: datetime
    brand_id: str
    email: str = field(repr=False)
    points: int
    import_id: str | None
    via: Literal["import", "foreign"]


@dataclass(frozen=True, slots=True)
class Import:
    """A request that was applied: how many rows, and the sum of their points."""

    import_id: str
    at: datetime
    rows: int
    points: int


class WalletSimulator:
    """One organization of the wallet, served by `app`; its verbs are safe to call from any thread.

    `brands` are the storecards of each brand, or just the brands, each with `DEFAULT_STORECARD`. `token` has
    every ability of these endpoints; where `log_token` is given, only that one may read the import log.
    `requests` counts what was served, by method and path; a fault that keeps a request from being carried
    out keeps it from being counted.
    """

    def __init__(
        self,
        *,
        brands: Mapping[str, Collection[str]] | Sequence[str],
        organization_id: str = "01JCSANDBOX0000000000000000",
        token: str = "wallet-sandbox",  # noqa: S107 - a token of the sandbox opens nothing
        log_token: str | None = None,
        clock: Clock | None = None,
        faults: FaultPlan | None = None,
        seed: int = 0,
        knobs: WalletKnobs | None = None,
    ) -> None:
        """Begin without members; `seed` decides identifiers and the order of the log."""
        self.organization_id = organization_id
        self.clock: Clock = clock or RealClock()
        self.faults = faults or FaultPlan(seed=seed)
        self.knobs = knobs or WalletKnobs()
        self.ledger: list[Award] = []
        self.imports: list[Import] = []
        self.requests: Counter[tuple[str, str]] = Counter()
        cards = brands if isinstance(brands, Mapping) else dict.fromkeys(brands, (DEFAULT_STORECARD,))
        self._storecards = {brand: tuple(owned) for brand, owned in cards.items()}
        abilities = {"import", "brands.get", "members.get"}
        self.knobs.abilities.setdefault(token, abilities if log_token else abilities | {"brand.import"})
        if log_token:
            self.knobs.abilities.setdefault(log_token, {"brand.import"})
        self._members: dict[str, dict[str, Member]] = {brand: {} for brand in self._storecards}
        self._awarded = 0
        self._agenda: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._random = random.Random(seed)
        self._lock = threading.RLock()
        self._gate = Gate(self.knobs, self.clock)
        self._routes = Starlette(
            routes=[
                Route("/v2/import", self._import, methods=["POST"]),
                Route("/import/log", self._import_log, methods=["GET"]),
                Route("/brands", self._brands, methods=["GET"]),
                Route("/members/list", self._members_list, methods=["GET"]),
            ],
            exception_handlers={RefusalError: self._refused, HTTPException: self._not_routed},
        )
        self._routes.router.redirect_slashes = False
        self.app: ASGIApp = FaultyApp(self._count, self.faults, clock=self.clock)

    # The verbs: what others than the client do, and what is true.

    def award(self, brand_id: str, email: str, points: int) -> None:
        """Move a member's points as a till or the dashboard does; a member who is new signs up."""
        with self._lock:
            self._catch_up()
            now = self.clock.now()
            member = self._member(brand_id, email)
            self._move(member, points, now, None)
            if self.knobs.foreign_moves_log:
                self._stamp([member], now)

    def touch(self, brand_id: str, email: str) -> None:
        """Move a member's entry in the log, and nothing else; a member who is new signs up."""
        with self._lock:
            self._catch_up()
            self._stamp([self._member(brand_id, email)], self.clock.now())

    def remove(self, brand_id: str, email: str) -> None:
        """Remove a member, as the dashboard does; its entry leaves the log."""
        with self._lock:
            del self._members[brand_id][fold(email)]

    def member(self, brand_id: str, email: str) -> Member | None:
        """Return a copy of what is true of a member now, or None where there is none."""
        with self._lock:
            self._catch_up()
            found = self._members[brand_id].get(fold(email))
            return None if found is None else _copy(found)

    def members(self, brand_id: str) -> Iterator[Member]:
        """Yield a copy of every member of a brand, as it is when its turn comes."""
        with self._lock:
            self._catch_up()
            found = list(self._members[brand_id].values())
        for member in found:
            with self._lock:
                copied = _copy(member)
            yield copied

    def awarded(self, brand_id: str, email: str) -> int:
        """Return the points that imports brought to a member, in all."""
        return member.awarded if (member := self.member(brand_id, email)) else 0

    def total_awarded(self) -> int:
        """Return the points that imports brought, in all."""
        with self._lock:
            self._catch_up()
            return self._awarded

    def log_time(self, brand_id: str, email: str) -> str | int | None:
        """Return `last_updated` as the log would send it now, or None where it has no entry."""
        member = self.member(brand_id, email)
        return log_value(member.logged, self.knobs) if member and member.logged else None

    # What happens to members; the lock is held by whoever calls these.

    def _later(self, at: datetime, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (at, next(self._order), action))
        self._catch_up()

    def _catch_up(self) -> None:
        now = self.clock.now()
        while self._agenda and self._agenda[0][0] <= now:
            heapq.heappop(self._agenda)[2]()

    def _member(self, brand_id: str, email: str) -> Member:
        brand = self._members[brand_id]
        return brand.setdefault(fold(email), Member(brand_id, email.strip()))

    def _move(self, member: Member, points: int, at: datetime, import_id: str | None) -> None:
        if not points:
            return
        member.points += points
        if import_id is not None:
            member.awarded += points
            self._awarded += points
        via: Literal["import", "foreign"] = "foreign" if import_id is None else "import"
        self.ledger.append(Award(at, member.brand_id, fold(member.email), points, import_id, via))

    def _stamp(self, members: Sequence[Member], at: datetime) -> None:
        for member in members:
            member.last_updated = at

        def show() -> None:
            for member in members:
                member.logged = at

        self._later(at + timedelta(seconds=self.knobs.log_lag_seconds), show)

    def _apply(self, import_id: str, rows: Sequence[ImportRow], at: datetime) -> None:
        moved = []
        for row in rows:
            known = fold(row.email) in self._members[row.brand_id]
            member = self._member(row.brand_id, row.email)
            member.imports += 1
            if self.knobs.overwrite_profile or not known:
                member.profile |= row.profile
                for name in [name for name, value in row.profile.items() if value is None]:
                    del member.profile[name]
            member.mails += ("welcome",) * row.welcome + ("update",) * row.update
            change = row.points - member.points if self.knobs.points == PointsMode.SET else row.points
            self._move(member, change, at, import_id)
            if row.points or self.knobs.zero_moves_log:
                moved.append(member)
        self.imports.append(Import(import_id, at, len(rows), sum(row.points for row in rows)))
        self._stamp(moved, at)

    # The endpoints.

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.requests[scope["method"], scope["path"]] += 1
        await self._routes(scope, receive, send)

    async def _import(self, request: Request) -> Response:
        self._gate.admit(request, "import")
        body = await json_input(request, self.knobs)
        users = read_users(body, self.knobs)
        if body["organization_id"] != self.organization_id:
            raise RefusalError(self.knobs.foreign_organization_status, "No access to this organization.")
        with self._lock:
            self._catch_up()
            rows, errors = read_rows(users, self.knobs, self._storecards)
            if errors and self.knobs.bad_rows == BadRows.REFUSE_ALL:
                raise invalid(errors, self.knobs)
            import_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
            keys = {row.key for row in rows}
            new = sum(email not in self._members[brand] for brand, email in keys)
            if self.knobs.error_inside != ErrorInside.NOT_APPLIED:
                at = self.clock.now() + timedelta(seconds=self.knobs.apply_seconds)
                self._later(at, lambda: self._apply(import_id, rows[: self.knobs.dies_after_rows], at))
        if self.knobs.dies_after_rows is not None:
            raise RefusalError(500, "Server Error")
        if errors and self.knobs.bad_rows == BadRows.APPLY_GOOD:
            raise invalid(errors, self.knobs)
        count = new if self.knobs.imported_members == ImportedMembers.NEW_MEMBERS else len(rows)
        answer: dict[str, Any] = {"import_id": import_id, "imported_members": count}
        if self.knobs.error_inside != ErrorInside.NONE:
            answer["error"] = "Something went wrong."
        return JSONResponse(answer, self.knobs.success_status)

    async def _import_log(self, request: Request) -> Response:
        self._gate.admit(request, "brand.import")
        places = []
        if self.knobs.log_brand != LogBrand.BODY:
            places.append(dict(request.query_params))
        if self.knobs.log_brand != LogBrand.QUERY:
            places.append(await json_input(request, self.knobs))
        brand = self._brand({name: value for place in places for name, value in place.items()})
        with self._lock:
            self._catch_up()
            entries = [member for member in self._members[brand].values() if member.logged is not None]
            if self.knobs.log_shuffled:
                self._random.shuffle(entries)
        return StreamingResponse(self._log(entries), media_type="application/json")

    async def _log(self, entries: Sequence[Member]) -> AsyncIterator[bytes]:
        yield b'{"success":true,"data":['
        for start in range(0, len(entries), _LOG_CHUNK):
            with self._lock:
                # Each entry is read when it is sent, so a long log is no picture of one moment.
                shown = [self._entry(member) for member in entries[start : start + _LOG_CHUNK]]
            yield (b"," if start else b"") + orjson.dumps(shown)[1:-1]
        yield b"]}"

    def _entry(self, member: Member) -> dict[str, Any]:
        email = member.email.lower() if self.knobs.log_emails_lowered else member.email
        return {"email": email, "last_updated": member.logged and log_value(member.logged, self.knobs)}

    def _brand(self, values: Mapping[str, Any]) -> str:
        brand = values.get("brand_id")
        if brand in (None, ""):
            raise invalid({"brand_id": ["The brand_id field is required."]}, self.knobs)
        if not isinstance(brand, str) or brand not in self._storecards:
            raise invalid({"brand_id": ["The brand_id field names no brand."]}, self.knobs)
        return brand

    async def _brands(self, request: Request) -> Response:
        self._gate.admit(request, "brands.get")
        organization = {"name": "Sandbox", "identifier": self.organization_id}
        brands = [
            {"name": brand, "logo": None, "identifier": brand, "organization": organization}
            for brand in self._storecards
        ]
        return JSONResponse({"message": "Request successful", "data": brands})

    async def _members_list(self, request: Request) -> Response:
        self._gate.admit(request, "members.get")
        values = dict(request.query_params) | await json_input(request, self.knobs)
        brand = self._brand(values)
        asked = {name: str(values[name]) for name in ("page", "per_page") if name in values}
        bad = {name: text for name, text in asked.items() if not (text.isdecimal() and int(text) > 0)}
        if bad:
            raise invalid({name: [f"The {name} field must be at least 1."] for name in bad}, self.knobs)
        with self._lock:
            self._catch_up()
            found = list(self._members[brand].values())
            total = len(found)
            page = int(asked.get("page", "1"))
            per_page = int(asked.get("per_page", str(_PER_PAGE if asked else max(total, 1))))
            shown = [_listed(member) for member in found[(page - 1) * per_page : page * per_page]]
        last = max(1, math.ceil(total / per_page))
        # The vendor's links are cleartext and lack the brand: a client that follows them fails.
        link = f"http://{request.url.netloc}/members/list?per_page={per_page}&page="
        data = {
            "total": total,
            "last_page": last,
            "next_page_url": f"{link}{page + 1}" if page < last else None,
            "per_page": per_page,
            "last_page_url": f"{link}{last}",
            "members": shown,
        }
        return JSONResponse({"message": "Request successful", "data": data})

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RefusalError)  # noqa: S101 - the only class this is registered for
        return error.answer(request, self.knobs)

    async def _not_routed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - the only class this is registered for
        route = request.url.path.strip("/")
        message = f"The route {route} could not be found."
        if error.status_code == 405:
            message = f"The {request.method} method is not supported for route {route}."
        return JSONResponse({"message": message}, error.status_code, error.headers)


def _copy(member: Member) -> Member:
    return replace(member, profile=dict(member.profile))


def _listed(member: Member) -> dict[str, Any]:
    name = str(member.profile.get("name", ""))
    address = dict.fromkeys(("street", "house_number", "postcode", "city", "country"))
    return {
        "email": member.email,
        "full_name": name,
        "identifier": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{member.brand_id}/{fold(member.email)}")),
        "unsubscribed": 0,
        "last_name": name.rpartition(" ")[2],
        "phone_number": member.profile.get("phone_number"),
        "birth_date": member.profile.get("birthday"),
        **address,
    }
