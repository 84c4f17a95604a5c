"""Items that are asked for before they are needed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from syncsvc.errors import TransientError
from syncsvc.remote.ahead import Ahead

WHO: ContextVar[str] = ContextVar("who", default="nobody")
LONG = 10.0


def numbers(asked: list[int], at: threading.Event | None = None) -> Iterator[int]:
    for number in range(3):
        asked.append(number)
        if at is not None:
            at.set()
        yield number


def test_nothing_is_asked_before_it_is_needed_or_let_begin() -> None:
    asked: list[int] = []
    with Ahead(numbers(asked)) as ahead:
        assert asked == []
        assert next(ahead) == 0
        assert asked == [0]


def test_what_was_let_begin_is_asked_while_nobody_takes_it_and_once() -> None:
    asked: list[int] = []
    at = threading.Event()
    with Ahead(numbers(asked, at)) as ahead:
        ahead.begin()
        assert at.wait(LONG)
        ahead.begin()
        assert list(ahead) == [0, 1, 2]
        ahead.begin()
        assert list(ahead) == []
    assert asked == [0, 1, 2]


@pytest.mark.parametrize(("weight", "come"), [(1, 1), (2, 2), (3, 2), (4, 3), (9, 3)])
def test_so_many_are_asked_ahead_as_have_the_weight(weight: int, come: int) -> None:
    asked: list[int] = []
    with Ahead(numbers(asked), lambda number: 1 + number % 2) as ahead:
        ahead.begin(weight)
        ahead._thread.shutdown()  # type: ignore[union-attr]
        ahead.begin(weight)
        assert len(asked) == come
        assert list(ahead) == [0, 1, 2]
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("weight", [1, 2, 9])
def test_items_come_in_their_order_though_whoever_let_them_begin_is_held_up(
    weight: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    class HeldUp(ThreadPoolExecutor):
        def submit(self, *given: Any) -> Any:  # type: ignore[override]
            asked = super().submit(*given)
            if threading.current_thread() is threading.main_thread():
                asked.result(LONG)
                ended.wait(0.2 if weight > 1 else 0)
            return asked

    def five() -> Iterator[int]:
        yield from range(5)
        ended.set()

    monkeypatch.setattr("syncsvc.remote.ahead.ThreadPoolExecutor", HeldUp)
    with Ahead(five()) as ahead:
        ahead.begin(weight)
        assert list(ahead) == [0, 1, 2, 3, 4]


def test_what_came_before_an_error_is_taken_before_it_is_raised() -> None:
    def failing() -> Iterator[int]:
        yield from (1, 2)
        raise TransientError("a page is missing")

    with Ahead(failing()) as ahead:
        ahead.begin(9)
        assert [next(ahead), next(ahead)] == [1, 2]
        with pytest.raises(TransientError, match="a page is missing"):
            next(ahead)
        assert list(ahead) == []


def test_nothing_more_is_asked_once_it_is_left() -> None:
    leaves, inside = threading.Event(), threading.Event()
    asked: list[int] = []

    def slow() -> Iterator[int]:
        for number in range(9):
            asked.append(number)
            inside.set()
            leaves.wait(LONG)
            yield number

    with Ahead(slow()) as ahead:
        ahead.begin(9)
        assert inside.wait(LONG)
        ahead._left = True  # what leaving does first
        leaves.set()
    assert asked == [0]


def test_an_error_is_raised_where_its_item_would_be_taken() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise TransientError("a page is missing")

    with Ahead(failing()) as ahead:
        assert next(ahead) == 1
        ahead.begin()
        with pytest.raises(TransientError, match="a page is missing"):
            next(ahead)


def test_what_is_asked_ahead_is_asked_in_the_name_of_whoever_let_it_begin() -> None:
    def who() -> Iterator[str]:
        while True:
            yield WHO.get()

    with Ahead(who()) as ahead:
        token = WHO.set("ann")
        ahead.begin()
        WHO.reset(token)
        assert [next(ahead), next(ahead)] == ["ann", "nobody"]


def test_nothing_is_on_its_way_any_more_once_it_is_left() -> None:
    leaves = threading.Event()
    left: list[bool] = []

    def slow() -> Iterator[int]:
        left.append(leaves.wait(LONG))
        yield 1

    with Ahead(slow()) as ahead:
        ahead.begin()
        leaves.set()
    assert left == [True]
