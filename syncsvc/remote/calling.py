"""For which cycle a request is made, told to the server, so that its logs and ours can be joined."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from syncsvc.traces import Span, span

_cycle: ContextVar[str] = ContextVar("cycle", default="")


@contextmanager
def calling_for(cycle: str) -> Iterator[None]:
    """Let every request that this thread makes inside carry the id of a cycle in its User-Agent."""
    token = _cycle.set(cycle)
    try:
        yield
    finally:
        _cycle.reset(token)


def saying(user_agent: str) -> str:
    """Return the User-Agent of a request that is made now: the id of the cycle is a comment in it.

    That is the one place which no server may refuse (RFC 9110, section 10.1.5) and which access logs keep.
    """
    cycle = _cycle.get()
    return f"{user_agent} (cycle {cycle})" if cycle else user_agent


def telling(call: str, host: str) -> AbstractContextManager[Span]:
    """Let a call, given as its method and path, be a span: until the head of its answer."""
    method, _, path = call.partition(" ")
    return span(method, http__request__method=method, url__path=path, server__address=host)
