"""Places: threads wait in their order, however long, as long as others give their places back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from syncsvc.state.places import Places

LONG, SHORT = 60.0, 0.05


def begun(work: Callable[[], None], places: Places) -> threading.Thread:
    """Start a thread, and return it once it waits for a place."""
    before = len(places._waiting)
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while len(places._waiting) == before and thread.is_alive():
        pass
    return thread


def test_they_are_had_in_the_order_in_which_they_were_asked_for() -> None:
    places, order = Places(2), []
    with ExitStack() as held:
        held.enter_context(places.taken(patience=LONG))

        def take(name: int) -> None:
            with places.taken(patience=LONG):
                order.append(name)

        second = threading.Thread(target=take, args=(0,))
        second.start()
        second.join(LONG)  # there is another place
        with Places(1).taken(patience=LONG):
            pass
        full = threading.Event()
        done = threading.Event()

        def stay() -> None:
            with places.taken(patience=LONG):
                full.set()
                done.wait(LONG)

        stays = threading.Thread(target=stay)
        stays.start()
        assert full.wait(LONG)
        threads = [begun(lambda name=name: take(name), places) for name in range(1, 9)]  # type: ignore[misc]
    for thread in threads:
        thread.join(LONG)
    done.set()
    stays.join(LONG)
    assert order == list(range(9))


def test_a_thread_that_has_one_takes_no_other() -> None:
    places = Places(1)
    with places.taken(patience=SHORT), places.taken(patience=SHORT):
        pass
    with places.taken(patience=SHORT):  # and it was given back, once
        thread = begun(lambda: places.taken(patience=LONG).__enter__(), places)
        assert thread.is_alive()
    thread.join(LONG)
    assert not thread.is_alive()


def test_where_nobody_gives_one_back_waiting_ends() -> None:
    places, told = Places(1), threading.Event()

    def wait() -> None:
        with pytest.raises(TimeoutError), places.taken(patience=SHORT):
            pass
        told.set()

    with places.taken(patience=LONG):
        threading.Thread(target=wait).start()
        assert told.wait(LONG)
    with places.taken(patience=SHORT):  # who gave up is not waited for
        pass


def test_as_long_as_others_give_theirs_back_nobody_gives_up() -> None:
    places, stop, had = Places(2), threading.Event(), threading.Event()

    def wait() -> None:
        with places.taken(patience=SHORT):
            had.set()

    with ExitStack() as held:
        held.enter_context(places.taken(patience=LONG))
        busy = threading.Event()

        def come_and_go() -> None:
            with places.taken(patience=LONG):
                busy.set()
                stop.wait(LONG)

        thread = threading.Thread(target=come_and_go)
        thread.start()
        assert busy.wait(LONG)
        waiting = begun(wait, places)
        for _ in range(10):  # longer than its patience, in which places move
            waiting.join(SHORT / 2)
            places._moved = threading.TIMEOUT_MAX  # as if one had just been given back
        assert waiting.is_alive()
        assert not had.is_set()
    assert had.wait(LONG)
    stop.set()
    thread.join(LONG)
