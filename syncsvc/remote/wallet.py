"""The Wallet App API: member imports, and the log of when members last received points.

Facts: API page "imports" of api-docs.walletapp.co (both published versions). Redirects are never followed,
the brand of the log stands in the query or the body as configured, and the log is read as a stream.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

import ijson
import orjson

from syncsvc.config import LogBrandIn, Points, WalletConfig
from syncsvc.errors import CredentialsError, LostAnswerError, OperatorError, TransientError
from syncsvc.model import Problem
from syncsvc.remote.answer import Answer
from syncsvc.remote.listing import Listing
from syncsvc.remote.transport import Body, Network
from syncsvc.rules.settling import read_answer
from syncsvc.rules.values import instant_or_none
from syncsvc.settings import Secret

_TOKEN = re.compile(r"[!-~]+")  # what a header can carry; anything else would never leave
_BRANDS = "/brands"
_CHUNK = 256 * 1024
_LOG_SECONDS = 600.0
_NO_PROOF = "without readable times a lost answer is settled by a person: ask the wallet's operator"
_ZONE = "set wallet.timezone to the zone that the log tells its times in"
_COARSE = timedelta(minutes=1)
"""A log that tells the time no finer than this can prove little: see `rules.settling.opening`."""


_MAKE_ONE = (
    "it was revoked, was copied in part, or is no token of this wallet: make one with the abilities `import` "
    "and `brand.import` in the wallet's dashboard, and put it where wallet.token (or log_token) says"
)
_LOG_ABILITY = (
    "give the token this ability in the wallet's dashboard, or name one that has it in wallet.log_token"
)
_GIVE_IT = "put the token where wallet.token (or log_token) says"
_COMPARE = "compare the wallet table with the API's documentation"
_PATH = "check wallet.base_url and wallet.import_path"
_IMPORT_REMEDIES: Mapping[int, str] = {
    HTTPStatus.UNAUTHORIZED: _MAKE_ONE,
    HTTPStatus.FORBIDDEN: (
        "the token is known: give it the ability `import` in the wallet's dashboard, or correct "
        "organization_id"
    ),
    HTTPStatus.NOT_FOUND: _PATH,
    HTTPStatus.METHOD_NOT_ALLOWED: _PATH,
    HTTPStatus.TOO_MANY_REQUESTS: "wait, and check again",
    HTTPStatus.INTERNAL_SERVER_ERROR: "the wallet is down: check again later",
    HTTPStatus.BAD_GATEWAY: "the wallet is down: check again later",
    HTTPStatus.SERVICE_UNAVAILABLE: "the wallet is down: check again later",
}


@dataclass(frozen=True, slots=True)
class ImportAnswer:
    """A whole answer to an import: its status and its JSON, None where it was none."""

    status: int
    body: Any
    retry_after: float | None


class WalletClient:
    """Calls the wallet API for one organization."""

    def __init__(self, organization_id: str, wallet: WalletConfig, network: Network) -> None:
        """Make no request yet."""
        self._organization_id = organization_id
        self._wallet = wallet
        self._network = network
        self._client = network.client(wallet.base_url, timeout=wallet.timeout.total_seconds())
        self._offset = timedelta()

    def now(self) -> datetime:
        """Return the wallet's own clock, as far as its answers have told it."""
        return self._network.now() + self._offset

    def import_members(self, users: Sequence[Mapping[str, Any]]) -> ImportAnswer:
        """Send one import and return the answer, whatever its status.

        Makes exactly one request and never repeats it. Raises NotSentError where nothing can have happened,
        LostAnswerError where anything can.
        """
        content = orjson.dumps({"organization_id": self._organization_id, "users": users})
        answer = self._client.send(
            "POST", self._wallet.import_path, content=content, headers=self._authorization(self._wallet.token)
        )
        self._learn_clock(answer)
        return ImportAnswer(answer.status, _json(answer.body), answer.retry_after)

    def log(self, brand_id: str) -> Iterator[list[tuple[str, str]]]:
        """Yield the brand's log in pieces: (email as the wallet spells it, the wallet's text of its time).

        `wallet.zone` is the zone of texts that carry none. Entries without an email or a text are left
        out. Raises TransientError where the log cannot be read to its end or is no log as we know it (what
        is not there must never count as not moved), OperatorError where a person must act.
        """
        describe = f"GET {self._wallet.log_path}"
        listing, known, strange = Listing(), False, False
        with self._open_log(brand_id) as body:
            for items in _listed(listing, body, describe):
                known = known or any(map(_is_known, items))
                strange = strange or not known
                yield [entry for item in items if (entry := _entry(item)) is not None]
        if listing.success != [True]:
            raise TransientError(f"{describe}: the wallet does not say success")
        if listing.began is None or (strange and not known):
            raise TransientError(f"{describe}: the log holds no entries in a form that is known")

    def check(self, brand_ids: Sequence[str]) -> list[Problem]:
        """Return what keeps the wallet from being used: the tokens, their abilities, each brand's log.

        Raises TransientError where the wallet cannot be asked now.
        """
        problems = []
        for brand_id in brand_ids:
            try:
                problems += self._check_times(brand_id)
            except OperatorError as error:
                problems.append(Problem("wallet", str(error), _remedy(error)))
        try:
            answer = self.import_members([])
        except OperatorError as error:
            return [*problems, Problem("wallet", str(error), _remedy(error))]
        if answer.status not in {HTTPStatus.OK, HTTPStatus.UNPROCESSABLE_ENTITY}:
            told = read_answer(answer.status, answer.body, rows=0).detail
            told = f"POST {self._wallet.import_path} answers an empty import with {told}"
            problems.append(Problem("wallet", told, _IMPORT_REMEDIES.get(answer.status, _COMPARE)))
        return problems

    def brands(self) -> dict[str, str | None] | None:
        """Return the organization of each brand that the token reaches, None where it is not told.

        None in all where the wallet does not tell: the token may lack the ability `brands.get`, which nothing
        else needs. Facts: API page "brands". Raises TransientError where the wallet cannot be asked now.
        """
        answer = self._client.send("GET", _BRANDS, headers=self._authorization(self._wallet.token))
        body = _json(answer.body) if answer.status == HTTPStatus.OK else None
        listed = body.get("data") if isinstance(body, dict) else None
        if not isinstance(listed, list):
            return None
        found: dict[str, str | None] = {}
        for brand in listed:
            if not isinstance(brand, dict) or not isinstance(brand.get("identifier"), str):
                return None
            organization = brand.get("organization")
            told = organization.get("identifier") if isinstance(organization, dict) else None
            found[brand["identifier"]] = told if isinstance(told, str) else None
        return found

    def _check_times(self, brand_id: str) -> list[Problem]:
        """Return what keeps the times at the beginning of a brand's log from proving anything."""
        piece = next(self.log(brand_id), [])
        read = [instant_or_none(text, zone=self._wallet.zone) for _, text in piece]
        told = [instant for instant in read if instant is not None]
        if self._wallet.points is not Points.ADD or not piece:
            return []
        if not told:
            return [Problem("wallet", "the import log tells no time that can be read", _NO_PROOF)]
        coarsest = max(instant.resolution for instant in told)
        if coarsest >= _COARSE:
            return [_coarse(coarsest)]
        if max(instant.at for instant in told) > self.now() + _COARSE:
            return [Problem("wallet", "the import log tells times in the future", _ZONE)]
        return []

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    @contextmanager
    def _open_log(self, brand_id: str) -> Iterator[Body]:
        path, asked = self._wallet.log_path, {"brand_id": brand_id}
        in_body = self._wallet.log_brand_in is LogBrandIn.BODY
        with self._client.stream(
            "GET",
            path,
            params=None if in_body else asked,
            json=asked if in_body else None,
            headers=self._authorization(self._wallet.log_token or self._wallet.token),
            deadline=_LOG_SECONDS,
        ) as (head, body):
            self._learn_clock(head)
            _raise_for_log(head, path)
            yield body

    def _authorization(self, token: Secret) -> dict[str, str]:
        try:
            value = token.read()
        except (KeyError, OSError, UnicodeDecodeError) as error:
            told = f"the wallet token cannot be read: {token.problem()}"
            raise CredentialsError(told, remedy=_GIVE_IT) from error
        if not _TOKEN.fullmatch(value):
            why = token.problem() or "it holds characters that no token has; copy it anew"
            raise CredentialsError(f"the wallet token cannot be used: {why}", remedy=_GIVE_IT)
        return {"Authorization": f"Bearer {value}"}

    def _learn_clock(self, answer: Answer) -> None:
        if answer.date is not None:
            self._offset = answer.date - self._network.now().replace(microsecond=0)


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except ValueError:
        return None


def _listed(listing: Listing, body: Body, describe: str) -> Iterator[list[Any]]:
    """Yield what a log's `data` lists; raises TransientError where it is no list, LostAnswerError if cut."""
    ended = False
    while not ended:
        chunk = body.read(_CHUNK)
        ended = not chunk
        try:
            items = listing.close() if ended else listing.feed(chunk)
        except ijson.JSONError:  # its text repeats a piece of the log
            raise LostAnswerError(f"{describe}: the log is not whole JSON") from None
        if listing.began not in {None, "start_array"}:
            raise TransientError(f"{describe}: the log's data is no list of entries")
        if items:
            yield items


def _is_known(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("email"), str) and "last_updated" in item


def _entry(item: Any) -> tuple[str, str] | None:
    try:
        email, value = item["email"], item["last_updated"]
    except (KeyError, TypeError):
        return None
    if type(email) is not str:
        return None
    if type(value) is str:
        return (email.strip(), value) if value else None
    return (email.strip(), str(value)) if isinstance(value, int | float) else None


def _raise_for_log(head: Answer, path: str) -> None:
    describe = f"GET {path}: {head.status}"
    match head.status:
        case HTTPStatus.OK:
            return
        case HTTPStatus.UNAUTHORIZED:
            raise CredentialsError(f"{describe}: the token is not accepted", remedy=_MAKE_ONE)
        case HTTPStatus.FORBIDDEN:
            told = f"{describe}: the token lacks the ability `brand.import`"
            raise CredentialsError(told, remedy=_LOG_ABILITY)
        case HTTPStatus.TOO_MANY_REQUESTS:
            raise TransientError(f"{describe}: too many requests", retry_after=head.retry_after)
        case HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED:
            raise OperatorError(f"{describe}: no such log; check wallet.log_path and the brand")
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            raise OperatorError(
                f"{describe}: the brand is refused; check wallet.brand_id, wallet.log_brand_in"
            )
        case status if status // 100 == 3:
            raise OperatorError(f"{describe}: a redirect; wallet.base_url is not the API's")
        case _:
            raise TransientError(f"{describe}: the wallet failed", retry_after=head.retry_after)


def _coarse(resolution: timedelta) -> Problem:
    told = "whole days" if resolution >= timedelta(days=1) else f"steps of {resolution}"
    return Problem(
        "wallet",
        f"the import log tells the time in {told}: a second award within one leaves no trace in it, so a "
        "member gets points once in that time at most, and only long after its last ones",
        "ask the wallet's operator for exact times in the log",
    )


def _remedy(error: OperatorError) -> str:
    return (error.remedy or _MAKE_ONE) if isinstance(error, CredentialsError) else _COMPARE
