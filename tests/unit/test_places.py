"""Places: threads wait in their order, however long, as long as others give their places back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from syncsvc.state.places import Places

LONG, SHORT = 60.0, 0.05


def begin(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@contextmanager
def taken_by_another(places: Places) -> Iterator[None]:
    """Let another thread have a place meanwhile."""
    has, done = threading.Event(), threading.Event()

    def stay() -> None:
        with places.taken(patience=LONG):
            has.set()
            done.wait(LONG)

    thread = begin(stay)
    assert has.wait(LONG)
    yield
    done.set()
    thread.join(LONG)


def test_they_are_had_in_the_order_in_which_they_were_asked_for() -> None:
    places, order, threads = Places(2), [], []

    def take(name: int) -> None:
        with places.taken(patience=LONG):
            order.append(name)

    with taken_by_another(places):
        take(0)  # there is a second one
        with places.taken(patience=LONG):
            for name in range(1, 9):
                threads.append(begin(lambda name=name: take(name)))  # type: ignore[misc]
                while len(places._waiting) < name:
                    assert threads[-1].is_alive()
        for thread in threads:
            thread.join(LONG)
    assert order == list(range(9))


def test_a_thread_that_has_one_takes_no_other_and_gives_it_back_once() -> None:
    places = Places(1)
    with places.taken(patience=SHORT), places.taken(patience=SHORT):
        pass
    with taken_by_another(places), pytest.raises(TimeoutError), places.taken(patience=SHORT):
        pass


def test_where_nobody_gives_one_back_waiting_ends() -> None:
    places = Places(1)
    with taken_by_another(places), pytest.raises(TimeoutError), places.taken(patience=SHORT):
        pass
    with places.taken(patience=SHORT):  # who gave up is not waited for
        pass


def test_as_long_as_others_give_theirs_back_nobody_gives_up() -> None:
    places, had = Places(1), threading.Event()

    def take() -> None:
        with places.taken(patience=SHORT):
            had.set()

    with taken_by_another(places):
        waiting = begin(take)
        for _ in range(10):  # longer than it would wait for one that does not move
            places._moved = threading.TIMEOUT_MAX  # one was given back, to somebody who came before
            waiting.join(SHORT / 2)
        assert waiting.is_alive()
        assert not had.is_set()
    assert had.wait(LONG)
