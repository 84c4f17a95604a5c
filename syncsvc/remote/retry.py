"""Repeating what may be repeated: counted, jittered, capped, within a budget, and interruptible."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_exponential_jitter

from syncsvc.errors import TransientError
from syncsvc.remote.transport import Network

T = TypeVar("T")

ATTEMPTS = 4
BUDGET_SECONDS = 30.0


def repeat(
    call: Callable[[], T], *, network: Network, attempts: int = ATTEMPTS, budget: float = BUDGET_SECONDS
) -> T:
    """Return what `call` returns, repeating it while it raises TransientError.

    Only for calls that may be made twice. Waits what the error's `retry_after` says, else an exponential
    time with jitter (0.5 s to 8 s). A wait that would exceed `budget` seconds in all is not begun: the
    error is raised, and the next cycle resumes. Raises StoppedError when the process is asked to stop.
    """
    backoff = wait_exponential_jitter(multiplier=0.5, max=8.0, jitter=0.5)
    waited = 0.0

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after if isinstance(error, TransientError) else None
        return asked if asked is not None else backoff(state)

    def give_up(state: RetryCallState) -> bool:
        nonlocal waited
        waited += state.upcoming_sleep
        return waited > budget or stop_after_attempt(attempts)(state)

    # Nearly every first call succeeds, and what counts the others costs more than many a call.
    try:
        return call()
    except TransientError as error:
        failed = [error]

    def again() -> T:
        if failed:
            raise failed.pop()
        return call()

    return Retrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait,
        stop=give_up,
        sleep=network.sleep,
        reraise=True,
    )(again)
