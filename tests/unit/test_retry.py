"""Repeating: only what passes, counted, capped, within a budget, and never after a request to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncsvc.errors import (
    CredentialsError,
    CursorError,
    LostAnswerError,
    NotSentError,
    OperatorError,
    SchemaError,
    StateError,
    StoppedError,
    TransientError,
)
from syncsvc.remote.retry import ATTEMPTS, BUDGET_SECONDS, repeat
from syncsvc.remote.transport import Network


class Unhurried(Network):
    """A network whose waits take no time and are remembered."""

    def __init__(self, *, stop_in: int | None = None) -> None:
        self.waits: list[float] = []
        self._stop_in = stop_in

    def sleep(self, seconds: float) -> None:
        if self._stop_in is not None and len(self.waits) >= self._stop_in:
            raise StoppedError("asked to stop while waiting")
        self.waits.append(seconds)


class Failing:
    """A call that raises each of its errors once, then returns how often it was made."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return self.calls


def failing(times: int, **more: float) -> Failing:
    return Failing(*(TransientError(f"no. {number}", **more) for number in range(times)))


def test_a_call_that_succeeds_is_made_once_and_waits_for_nothing() -> None:
    network = Unhurried()
    assert repeat(failing(0), network=network) == 1
    assert network.waits == []


@pytest.mark.parametrize("error", [TransientError("x"), NotSentError("x"), LostAnswerError("x")])
def test_passing_trouble_is_repeated(error: Exception) -> None:
    network = Unhurried()
    assert repeat(Failing(error), network=network) == 2
    assert len(network.waits) == 1


@pytest.mark.parametrize(
    "error",
    [
        OperatorError("x"),
        CredentialsError("x"),
        SchemaError("x"),
        CursorError("x"),
        StateError("x"),
        StoppedError("x"),
        ValueError("x"),
        OSError("x"),
    ],
)
def test_no_other_error_is_ever_repeated(error: Exception) -> None:
    network, call = Unhurried(), Failing(error)
    with pytest.raises(type(error)):
        repeat(call, network=network)
    assert (call.calls, network.waits) == (1, [])


def test_the_last_error_is_raised_as_it_is_once_the_attempts_are_used() -> None:
    network, call = Unhurried(), failing(99)
    with pytest.raises(TransientError, match=f"no. {ATTEMPTS - 1}"):
        repeat(call, network=network)
    assert (call.calls, len(network.waits)) == (ATTEMPTS, ATTEMPTS - 1)


def test_an_error_of_another_kind_ends_the_repeating() -> None:
    call = Failing(TransientError("x"), CredentialsError("y"), TransientError("z"))
    with pytest.raises(CredentialsError):
        repeat(call, network=Unhurried())
    assert call.calls == 2


def test_the_attempts_of_one_call_are_not_counted_for_the_next() -> None:
    network = Unhurried()
    for _ in range(5):
        assert repeat(failing(ATTEMPTS - 1), network=network) == ATTEMPTS


def test_the_wait_is_what_the_remote_side_asked_for() -> None:
    network = Unhurried()
    call = Failing(TransientError("x", retry_after=7.0), TransientError("x", retry_after=0.0))
    assert repeat(call, network=network) == 3
    assert network.waits == [7.0, 0.0]


def test_without_a_word_of_the_remote_side_the_wait_grows_with_jitter_up_to_eight_seconds() -> None:
    seen: list[list[float]] = []
    for _ in range(20):
        network = Unhurried()
        repeat(failing(8), network=network, attempts=9, budget=1000)
        assert all(0.5 <= wait <= 8.0 for wait in network.waits)
        for number, wait in enumerate(network.waits[:4]):
            assert 0.5 * 2**number <= wait <= 0.5 * 2**number + 0.5
        assert network.waits[-1] == 8.0
        seen.append(network.waits)
    assert len({waits[0] for waits in seen}) > 1


def test_a_wait_that_would_exceed_the_budget_is_not_begun() -> None:
    network, call = Unhurried(), failing(9, retry_after=BUDGET_SECONDS + 1)
    with pytest.raises(TransientError) as caught:
        repeat(call, network=network)
    assert (call.calls, network.waits) == (1, [])
    assert caught.value.retry_after == BUDGET_SECONDS + 1


def test_the_budget_is_for_all_waits_together() -> None:
    network, call = Unhurried(), failing(9, retry_after=12.0)
    with pytest.raises(TransientError):
        repeat(call, network=network, attempts=9, budget=30.0)
    assert network.waits == [12.0, 12.0]


@given(
    asked=st.lists(st.none() | st.floats(0, 100), max_size=8),
    attempts=st.integers(1, 8),
    budget=st.floats(0, 100),
)
def test_neither_attempts_nor_budget_are_ever_exceeded(
    asked: list[float | None], attempts: int, budget: float
) -> None:
    network = Unhurried()
    call = Failing(*(TransientError("x", retry_after=seconds) for seconds in asked))
    try:
        assert repeat(call, network=network, attempts=attempts, budget=budget) == len(asked) + 1
    except TransientError:
        assert call.calls == attempts or len(network.waits) < len(asked)
    assert call.calls <= attempts
    assert sum(network.waits) <= budget


def test_a_request_to_stop_ends_the_repeating_without_another_call() -> None:
    call = failing(9)
    with pytest.raises(StoppedError):
        repeat(call, network=Unhurried(stop_in=1))
    assert call.calls == 2


def test_a_real_wait_is_interrupted_by_the_request_to_stop() -> None:
    stop = threading.Event()

    def call() -> None:
        stop.set()
        raise TransientError("x", retry_after=29.0)

    asked: Callable[[], None] = call
    with pytest.raises(StoppedError):
        repeat(asked, network=Network(stop=stop))
