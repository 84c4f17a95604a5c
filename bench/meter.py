"""What a benchmarked process says of itself: the processor time of its work, and its memory.

The processor time of the whole process, the interpreter's start included, is what the kernel tells `run.py`.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson


@contextmanager
def metered(facts: dict[str, Any]) -> Iterator[None]:
    """Put the processor seconds (user and system) and the wall seconds of the block into `facts`."""
    before, clock = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    yield
    after = resource.getrusage(resource.RUSAGE_SELF)
    facts["wall"] = time.perf_counter() - clock
    facts["user"] = after.ru_utime - before.ru_utime
    facts["system"] = after.ru_stime - before.ru_stime
    facts["work"] = facts["user"] + facts["system"]


def tell(facts: dict[str, Any]) -> None:
    """Print the facts, and the most memory that this process ever held, in bytes."""
    print(orjson.dumps(facts | {"peak": _peak()}).decode(), flush=True)


def _peak() -> int:
    # Not ru_maxrss where it can be helped: a new process begins with its parent's, until it holds more.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(it for it in status.read_text(encoding="ascii").splitlines() if it.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
