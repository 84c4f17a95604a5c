"""Who may call the Dynamics simulator, and how often: Entra's tokens, and the service protection limits.

Sources: OAuth 2.0 client credentials flow of the Microsoft identity platform; Service protection API limits.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from typing import Any

from syncsvc.sandbox.clock import Clock
from syncsvc.sandbox.dynamics_knobs import DynamicsKnobs
from syncsvc.sandbox.dynamics_refusals import limited, no_member, unauthorized


class LoginError(Exception):
    """A token request that Entra refuses: the status, OAuth's error, and Entra's own number of it."""

    def __init__(self, status: int, error: str, number: int, told: str) -> None:
        """Hold the answer."""
        super().__init__(error)
        self.status = status
        self.body: Mapping[str, Any] = {
            "error": error,
            "error_description": f"AADSTS{number}: {told}\r\nTrace ID: sandbox",
            "error_codes": [number],
            "trace_id": "sandbox",
            "correlation_id": "sandbox",
            "error_uri": f"https://login.microsoftonline.com/error?code={number}",
        }


class Access:
    """The one app that is registered, its tokens, and what they have used up."""

    def __init__(
        self,
        *,
        tenant: str,
        client_id: str,
        client_secret: str,
        clock: Clock,
        knobs: DynamicsKnobs,
        seed: int,
    ) -> None:
        """Begin without tokens."""
        self._tenant = tenant
        self._client_id = client_id
        self._secret = client_secret
        self._clock = clock
        self._knobs = knobs
        self._random = random.Random(seed)
        self._tokens: dict[str, float] = {}
        self._calls: deque[tuple[float, float]] = deque()
        self.logins = 0

    def grant(self, tenant: str, form: Mapping[str, str], *, environment: str) -> dict[str, Any]:
        """Return the answer to a token request; `environment` is the URL that is served."""
        self.logins += 1
        if tenant != self._tenant:
            raise LoginError(400, "invalid_request", 90002, f"Tenant '{tenant}' not found.")
        if form.get("grant_type") != "client_credentials":
            raise LoginError(
                400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type."
            )
        if form.get("client_id") != self._client_id:
            raise LoginError(
                400, "unauthorized_client", 700016, "Application was not found in the directory."
            )
        if form.get("client_secret") != self._secret:
            raise LoginError(401, "invalid_client", 7000215, "Invalid client secret provided.")
        scope = form.get("scope", "")
        if not scope.endswith("/.default"):
            raise LoginError(
                400, "invalid_scope", 1002012, f"The provided value for scope {scope} is not valid."
            )
        if scope != f"{environment}/.default":
            raise LoginError(
                400, "invalid_resource", 500011, "The resource principal was not found in the tenant."
            )
        token = f"eyJ0.{self._random.randbytes(24).hex()}"
        self._tokens[token] = self._now() + self._knobs.token_seconds
        lives = self._knobs.token_seconds
        return {"token_type": "Bearer", "expires_in": lives, "ext_expires_in": lives, "access_token": token}

    def expire(self) -> None:
        """Let every token be past its time; new ones are good."""
        self._tokens.clear()

    def admit(self, authorization: str) -> None:
        """Let a caller in whose token is good; raises the 401 or 403 for any other."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or self._tokens.get(token, 0.0) <= self._now():
            raise unauthorized()
        if not self._knobs.member:
            raise no_member()

    def count(self, operations: int) -> dict[str, str]:
        """Count a request of so many operations; returns headers that tell what is left, raises a 429."""
        knobs, now = self._knobs, self._now()
        while self._calls and now - self._calls[0][0] >= knobs.window:
            self._calls.popleft()
        spent = sum(cost for _, cost in self._calls)
        if knobs.limits:
            self._refuse(now, spent)
        self._calls.append((now, operations * knobs.cost))
        left = max(0.0, knobs.execution - spent - operations * knobs.cost)
        return {
            "x-ms-ratelimit-burst-remaining-xrm-requests": str(max(0, knobs.requests - len(self._calls))),
            "x-ms-ratelimit-time-remaining-xrm-requests": f"{left:.2f}",
        }

    def _refuse(self, now: float, spent: float) -> None:
        knobs = self._knobs
        wait = self._calls[0][0] + knobs.window - now if self._calls else knobs.window
        told = wait if knobs.retry_after else None
        if knobs.running_elsewhere + 1 > knobs.concurrent:
            text = f"Number of concurrent requests exceeded the limit of {knobs.concurrent}."
            raise limited("0x80072326", text, 2.0 if knobs.retry_after else None)
        if len(self._calls) >= knobs.requests:
            text = (
                f"Number of requests exceeded the limit of {knobs.requests} over time window of 300 seconds."
            )
            raise limited("0x80072322", text, told)
        if spent >= knobs.execution:
            most = f"{knobs.execution * 1000:,.0f}"
            text = f"Combined execution time of incoming requests exceeded limit of {most} milliseconds."
            raise limited("0x80072321", text, told)

    def _now(self) -> float:
        return self._clock.now().timestamp()
