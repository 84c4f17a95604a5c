"""When cycles run: every organization at its own moment of its interval, and few of them at once."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

AT_ONCE = 8
"""Up to so many organizations begin their first cycle at once; more of them spread it over `SPREAD`."""

SPREAD = timedelta(minutes=1)

_MOST_ORGANIZATIONS = 10_000  # threads that may run cycles; one is made when no other is idle
_LOOK_SECONDS, _LOOK_AT_MOST = 1.0, 5.0
_LOOK_SPARES = 20
_PHASE_ORIGIN = datetime(2020, 1, 1, tzinfo=UTC)


def scheduler(count: int) -> BackgroundScheduler:
    """Return the clock for so many organizations, or more; it runs once it is started."""
    # A cycle longer than its interval is no fault, and the next one is simply skipped.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    return BackgroundScheduler(
        timezone=UTC,
        executors={"default": ThreadPoolExecutor(max(count, _MOST_ORGANIZATIONS))},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )


def rest_after(look: float) -> float:
    """Return the seconds from a look at the files to the next, where that one took `look` seconds.

    One, as a rule. Where files are many thousands a look is dear: then 20 times as long as it took, at most
    5 seconds.
    """
    return min(max(_LOOK_SECONDS, _LOOK_SPARES * look), _LOOK_AT_MOST)


def first_run(name: str, every: timedelta, *, now: datetime, count: int) -> datetime:
    """Return when the first cycle of an organization begins, one of `count`.

    Few begin at once. Many would all ask for connections and memory in the same second, so they spread over
    a minute, or over one interval where that is shorter.
    """
    return now if count <= AT_ONCE else now + phase(name, min(every, SPREAD))


def phase(name: str, every: timedelta) -> timedelta:
    """Return where in its interval an organization's cycles begin: spread evenly, the same every time."""
    fraction = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "big") / 2**32
    return fraction * every


def begin_of(name: str, every: timedelta) -> datetime:
    """Return one of the moments at which an organization's cycles begin, long ago."""
    return _PHASE_ORIGIN + phase(name, every)
