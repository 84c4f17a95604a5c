"""Lets the network work while something else is done: what an iterator gives next is asked for ahead."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")

_END: Any = object()


class Ahead(Iterator[T]):
    """An iterator whose next item can be asked for before it is needed; a context manager.

    One item is asked for at a time: by whoever takes it, or, once let to begin, by a thread that carries the
    context (the fields of the log, the cycle's id) of whoever let it.
    """

    def __init__(self, items: Iterator[T]) -> None:
        """Ask for nothing yet."""
        self._items = items
        self._asked: Future[T] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def begin(self) -> None:
        """Let the next item be on its way, if it is not; what goes wrong is raised once it is taken."""
        if self._asked is None:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
            self._asked = self._thread.submit(copy_context().run, self._draw)

    def __next__(self) -> T:
        """Return the next item, waiting for it where it is on its way; raises what the iterator raises."""
        asked, self._asked = self._asked, None
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
        if self._thread is not None:
            self._thread.shutdown()
        if isinstance(self._items, Generator):
            self._items.close()

    def _draw(self) -> T:
        return next(self._items, _END)
