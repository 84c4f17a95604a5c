"""Calls to a simulated Salesforce org without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from syncsvc.sandbox.salesforce import SalesforceSimulator


class Rest:
    """Calls to an org without a socket."""

    def __init__(self, org: SalesforceSimulator) -> None:
        self.transport = httpx.ASGITransport(org.app)
        self.headers: dict[str, str] = {}
        form = {"grant_type": "client_credentials", "client_id": org.client_id}
        given = self("POST", "/services/oauth2/token", data={**form, "client_secret": org.client_secret})
        self.headers["Authorization"] = f"Bearer {given.json()['access_token']}"

    def __call__(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            base = "https://acme.my.salesforce.com"
            async with httpx.AsyncClient(transport=self.transport, base_url=base) as client:
                return await client.request(method, path, headers=self.headers, **more)

        return asyncio.run(ask())
