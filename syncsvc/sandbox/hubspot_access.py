"""Who may call the HubSpot simulator, and how often: tokens, scopes, the token endpoint, the three limits.

Sources: usage guidelines (2026-09), OAuth guides (2026-03), 429 answers recorded by public projects.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

from syncsvc.sandbox.clock import Clock
from syncsvc.sandbox.hubspot_knobs import HubSpotKnobs
from syncsvc.sandbox.hubspot_properties import iso, to_ms
from syncsvc.sandbox.hubspot_refusals import (
    Refusal,
    not_authenticated,
    oauth_refused,
    scopes_missing,
    token_expired,
)

READ = "crm.objects.contacts.read"
WRITE = "crm.objects.contacts.write"
SCHEMA = "crm.schemas.contacts.write"

_TOKEN_SECONDS = 1800
_BURST_MS = 10_000
_SECOND_MS = 1_000


@dataclass(slots=True)
class Token:
    """An access token; `expires` in milliseconds, None = never. `oauth` tokens are told no daily limit."""

    text: str = field(repr=False)
    expires: int | None = None
    oauth: bool = False


@dataclass(frozen=True, slots=True)
class OAuthApp:
    """What the token endpoint wants to see for a refresh."""

    client_id: str
    client_secret: str = field(repr=False)
    refresh_token: str = field(repr=False)


class Access:
    """The tokens of one account and what they have used up."""

    def __init__(self, *, token: str, clock: Clock, knobs: HubSpotKnobs) -> None:
        """Begin with one token that never expires and has every scope."""
        self._clock = clock
        self._knobs = knobs
        self._tokens = {token: Token(token)}
        self._apps: list[OAuthApp] = []
        self._issued = 0
        self._bursts: dict[str, deque[int]] = {}
        self._searches: deque[int] = deque()
        self._day: date | None = None
        self._today = 0
        self.scopes = {READ, WRITE, SCHEMA}

    def add_token(self, text: str) -> None:
        """Accept one more token that never expires."""
        self._tokens[text] = Token(text)

    def add_app(self, app: OAuthApp) -> None:
        """Let the token endpoint serve an app."""
        self._apps.append(app)

    def expire(self, text: str) -> None:
        """Let a token be past its time from now on; raises KeyError for one never given out."""
        self._tokens[text].expires = self._now()

    def revoke(self, text: str) -> None:
        """Know nothing of a token any more; raises KeyError for one never given out."""
        del self._tokens[text]

    def identify(self, authorization: str | None) -> Token:
        """Return the caller's token; raises the 401 that HubSpot answers."""
        scheme, _, text = (authorization or "").partition(" ")
        token = self._tokens.get(text.strip()) if scheme.lower() == "bearer" else None
        if token is None:
            raise not_authenticated()
        if token.expires is not None and self._now() >= token.expires:
            raise token_expired(iso(token.expires))
        return token

    def permit(self, scope: str) -> None:
        """Raise the 403 for a scope that the app does not have."""
        if scope not in self.scopes:
            raise scopes_missing([scope])

    def admit(self, token: Token, *, search: bool) -> dict[str, str]:
        """Count a request and return the rate-limit headers of its answer; raises one of the three 429s.

        Searches have a limit of their own and are not told about it: they carry the daily headers alone.
        """
        now = self._now()
        bucket = self._searches if search else self._bursts.setdefault(token.text, deque())
        while bucket and now - bucket[0] >= (_SECOND_MS if search else _BURST_MS):
            bucket.popleft()
        today = self._clock.now().astimezone(ZoneInfo(self._knobs.time_zone)).date()
        if today != self._day:
            self._day, self._today = today, 0
        if self._knobs.limits:
            self._refuse(token, len(bucket), search=search)
        bucket.append(now)
        self._today += 1
        return self._headers(token, len(bucket), search=search)

    def _refuse(self, token: Token, used: int, *, search: bool) -> None:
        knobs = self._knobs
        if search and used >= knobs.searches_per_second - knobs.foreign_searches_per_second:
            body = {"message": "You have reached your secondly limit.", "category": "RATE_LIMITS"}
            raise Refusal(429, {"status": "error", **body}, self._headers(token, used, search=True))
        if not search and used >= knobs.burst:
            raise self._rate_limit(
                "You have reached your ten_secondly_rolling limit.",
                {
                    "policyName": "TEN_SECONDLY_ROLLING",
                    "groupName": "publicapi:private_app-api-calls-ten-secondly:1",
                },
                self._headers(token, used, search=False),
            )
        if self._today >= knobs.daily - knobs.foreign_daily:
            raise self._rate_limit(
                "You have reached your daily limit.",
                {"policyName": "DAILY", "requestId": f"{self._today:08x}"},
                self._headers(token, used, search=search),
            )

    def _rate_limit(self, message: str, more: Mapping[str, str], headers: Mapping[str, str]) -> Refusal:
        wait = {} if self._knobs.retry_after is None else {"Retry-After": str(self._knobs.retry_after)}
        body = {"status": "error", "message": message, "errorType": "RATE_LIMIT", **more}
        return Refusal(429, body, {**headers, **wait})

    def _headers(self, token: Token, used: int, *, search: bool) -> dict[str, str]:
        knobs = self._knobs
        headers: dict[str, str] = {}
        if not token.oauth:
            left = knobs.daily - knobs.foreign_daily - self._today
            headers["X-HubSpot-RateLimit-Daily"] = str(knobs.daily)
            headers["X-HubSpot-RateLimit-Daily-Remaining"] = str(max(0, left))
        if not search:
            headers["X-HubSpot-RateLimit-Interval-Milliseconds"] = str(_BURST_MS)
            headers["X-HubSpot-RateLimit-Max"] = str(knobs.burst)
            headers["X-HubSpot-RateLimit-Remaining"] = str(max(0, knobs.burst - used))
        return headers

    def refresh(self, form: Mapping[str, str]) -> dict[str, Any]:
        """Return the token endpoint's answer to a refresh; raises the 400 for anything it does not know."""
        if form.get("grant_type") != "refresh_token":
            raise oauth_refused("unsupported_grant_type", "BAD_GRANT_TYPE", "missing or unknown grant_type")
        apps = [app for app in self._apps if app.client_id == form.get("client_id")]
        if not apps or apps[0].client_secret != form.get("client_secret"):
            raise oauth_refused("invalid_client", "BAD_CLIENT_ID", "missing or unknown client id or secret")
        if apps[0].refresh_token != form.get("refresh_token"):
            raise oauth_refused("invalid_grant", "BAD_REFRESH_TOKEN", "missing or unknown refresh token")
        self._issued += 1
        text = f"oauth-{self._issued}"
        self._tokens[text] = Token(text, self._now() + _TOKEN_SECONDS * 1000, oauth=True)
        return {
            "token_type": "bearer",
            "refresh_token": apps[0].refresh_token,
            "access_token": text,
            "hub_id": 1,
            "scopes": sorted(self.scopes),
            "expires_in": _TOKEN_SECONDS,
        }

    def _now(self) -> int:
        return to_ms(self._clock.now())
