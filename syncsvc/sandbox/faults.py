"""One fault plan for all simulators: what goes wrong on the wire, and when.

A fault strikes a request by method and path. `RESET_BEFORE` and `RESET_AFTER` are the two that look the same
to the client and are not: before, nothing happened on the server; after, everything did.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from syncsvc.sandbox.clock import Clock, RealClock, dating


class Kind(StrEnum):
    """What a fault does."""

    STATUS = "status"  # answers with a status of its own; nothing happens on the server
    DELAY = "delay"  # waits, then goes on as usual, whether or not the client still waits
    RESET_BEFORE = "reset_before"  # the connection breaks before the request is carried out
    RESET_AFTER = "reset_after"  # the connection breaks after the request was carried out
    CUT_BODY = "cut_body"  # carried out, but only half of the answer's body arrives
    HTML = "html"  # a gateway's HTML page instead of the answer; nothing happens on the server
    HTML_AFTER = "html_after"  # a gateway's HTML page, though the request was carried out


@dataclass(slots=True)
class Fault:
    """One rule of the plan.

    Strikes requests whose method equals `method` ("" = any) and whose path matches the regular expression
    `path` (searched), after letting `skip` of them pass, at most `times` times (None = for ever), each with
    probability `chance`.
    """

    kind: Kind
    method: str = ""
    path: str = ""
    times: int | None = 1
    skip: int = 0
    chance: float = 1.0
    status: int = 503
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    struck: int = 0


class FaultPlan:
    """The faults of one simulator; safe to change while it serves."""

    def __init__(self, *, seed: int = 0) -> None:
        """Begin without faults; `seed` decides those with a chance below one."""
        self._faults: list[Fault] = []
        self._random = random.Random(seed)
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Put a fault on the plan and return it, so that `struck` can be read later."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything pass from now on."""
        with self._lock:
            self._faults.clear()

    def pick(self, method: str, path: str) -> Fault | None:
        """Return the fault that strikes this request, counting it, or None."""
        with self._lock:
            for fault in self._faults:
                if fault.method not in {"", method} or not re.search(fault.path, path):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times is not None and fault.struck >= fault.times:
                    continue
                if self._random.random() >= fault.chance:
                    continue
                fault.struck += 1
                return fault
        return None


_GATEWAY_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>gateway</body></html>"


class FaultyApp:
    """A simulator's ASGI application with its fault plan around it; the simulator's clock dates every answer.

    Must be the outermost application: breaking a connection needs the server's own transport.
    """

    def __init__(self, app: ASGIApp, plan: FaultPlan, *, clock: Clock | None = None) -> None:
        """Wrap `app`."""
        self._app = app
        self._plan = plan
        self._clock = clock or RealClock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, with the fault that strikes it."""
        fault = self._plan.pick(scope["method"], scope["path"]) if scope["type"] == "http" else None
        dated = dating(send, self._clock)
        if fault is None:
            await self._app(scope, receive, dated)
            return
        match fault.kind:
            case Kind.DELAY:
                # The request is here whole, so it is carried out even where the client gives up meanwhile.
                arrived = await _arrived(receive)
                await asyncio.sleep(fault.seconds)
                await self._app(scope, arrived, dated)
            case Kind.STATUS:
                await _answer(dated, fault.status, _encode(fault.body), fault.headers)
            case Kind.HTML:
                await _answer(dated, fault.status, _GATEWAY_PAGE, {"content-type": "text/html"})
            case Kind.RESET_BEFORE:
                _break(send)
            case Kind.RESET_AFTER:
                await self._app(scope, receive, _discard)
                _break(send)
            case Kind.HTML_AFTER:
                await self._app(scope, receive, _discard)
                await _answer(dated, fault.status, _GATEWAY_PAGE, {"content-type": "text/html"})
            case Kind.CUT_BODY:
                await self._app(scope, receive, _cutting(dated, send))


async def _arrived(receive: Receive) -> Receive:
    messages = [await receive()]
    while messages[-1].get("more_body", False):
        messages.append(await receive())

    async def again() -> Message:
        return messages.pop(0) if messages else await receive()

    return again


def _encode(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    return b"" if body is None else json.dumps(body).encode()


async def _answer(send: Send, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    own = {"content-type": "application/json", "content-length": str(len(body))}
    merged = own | {name.lower(): value for name, value in headers.items()}
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode(), value.encode()) for name, value in merged.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def _discard(message: Message) -> None:
    del message


def _break(send: Send) -> None:
    # uvicorn hands its request cycle's bound method to the outermost application; the transport is there.
    cycle = send.__self__  # type: ignore[attr-defined]
    cycle.disconnected = True
    cycle.response_complete = True
    cycle.transport.abort()


def _cutting(dated: Send, send: Send) -> Send:
    async def cut(message: Message) -> None:
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            await dated({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            await asyncio.sleep(0)
            _break(send)
        else:
            await dated(message)

    return cut
