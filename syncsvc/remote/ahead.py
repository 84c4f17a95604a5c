"""Lets the network work while something else is done: what an iterator gives next is asked for ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_END: Any = object()


class Ahead(Iterator[T]):
    """An iterator whose next items can be asked for before they are needed; a context manager.

    One item is asked for at a time: by whoever takes it, or, once let to begin, by a thread that carries the
    context (the fields of the log, the cycle's id) of whoever let it.
    """

    def __init__(self, items: Iterator[T], weigh: Callable[[T], int] = lambda _: 1) -> None:
        """Ask for nothing yet; `weigh` tells what an item counts as, at least 1."""
        self._items = items
        self._weigh = weigh
        self._asked: deque[Future[T]] = deque()
        self._room = 0
        self._thread: ThreadPoolExecutor | None = None

    def begin(self, weight: int = 1) -> None:
        """Let items be on their way, if none is, until they have this weight.

        What goes wrong is raised once it is taken.
        """
        if not self._asked:
            self._room = weight
            self._ask()

    def __next__(self) -> T:
        """Return the next item, waiting for it where it is on its way; raises what the iterator raises."""
        asked = self._asked.popleft() if self._asked else None
        try:
            item = self._draw() if asked is None else asked.result()
        finally:
            del asked  # an error would hold it, and it the error
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
        self._room = 0
        if self._thread is not None:
            self._thread.shutdown(cancel_futures=True)
        self._asked.clear()
        if isinstance(self._items, Generator):
            self._items.close()

    def _ask(self) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._asked.append(self._thread.submit(copy_context().run, self._draw_on))

    def _draw_on(self) -> T:
        item = self._draw()
        if item is not _END:
            self._room -= self._weigh(item)
            if self._room > 0:
                self._ask()  # before this one can be taken: whoever takes it finds the next on its way
        return item

    def _draw(self) -> T:
        return next(self._items, _END)
