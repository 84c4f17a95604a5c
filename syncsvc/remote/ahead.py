"""Lets the network work while something else is done: what an iterator gives next is asked for ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, NamedTuple, Self, TypeVar

T = TypeVar("T")

_END: Any = object()


class _Drawn(NamedTuple, Generic[T]):
    """An item, or the error in its place; `last` says that the thread asks for no more."""

    item: T
    error: BaseException | None
    last: bool


class Ahead(Iterator[T]):
    """An iterator whose next items can be asked for before they are needed; a context manager.

    One item is asked for at a time: by whoever takes it, or, once let to begin, by a thread that carries the
    context (the fields of the log, the cycle's id) of whoever let it.
    """

    def __init__(self, items: Iterator[T], weigh: Callable[[T], int] = lambda _: 1) -> None:
        """Ask for nothing yet; `weigh` tells what an item counts as, at least 1."""
        self._items = items
        self._weigh = weigh
        self._drawn: SimpleQueue[_Drawn[T]] = SimpleQueue()
        self._drawing = False  # the last of what the thread draws has not been taken yet
        self._left = False
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, weight: int = 1) -> None:
        """Let items be on their way, if none is, until they have this weight; 0 lets none.

        What goes wrong is raised once it is taken.
        """
        if weight and not self._drawing:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
            self._thread.submit(copy_context().run, self._draw, weight)
            self._drawing = True

    def __next__(self) -> T:
        """Return the next item, waiting for it where it is on its way; raises what the iterator raises."""
        item = self._take() if self._drawing else next(self._items, _END)
        if item is _END:
            raise StopIteration
        return item

    def __enter__(self) -> Self:
        """Return the iterator."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until nothing is on its way any more, forget what it was, and end the iterator."""
        self._left = True
        if self._thread is not None:
            self._thread.shutdown()
        if isinstance(self._items, Generator):
            self._items.close()

    def _take(self) -> T:
        item, error, last = self._drawn.get()
        self._drawing = not last
        if error is None:
            return item
        try:
            raise error
        finally:
            del error  # it holds this frame, which would hold it

    def _draw(self, room: int) -> None:
        """Draw items into the room there is, in their order, and say of the last that it is."""
        last = False
        while not last:
            item, error = _END, None
            try:
                item = next(self._items, _END)
                room -= 0 if item is _END else self._weigh(item)
            except BaseException as raised:  # noqa: BLE001 - raised by who takes it
                item, error = _END, raised
            last = item is _END or room <= 0 or self._left
            self._drawn.put(_Drawn(item, error, last))
