"""The knobs of the Dynamics simulator: how environments differ, and what goes wrong in one.

Defaults are the documented behaviour. What is marked *unverified* no source settles: its default is what asks
more of a client, where that is still an answer the documents allow.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class DynamicsKnobs:
    """How the simulated environment behaves; may be changed while it serves. Contacts are named by id."""

    # Change tracking.
    tracking: bool = True  # "Track changes" is on for the contact table
    expire_days: float = 7.0  # ExpireChangeTrackingInDays of the organization; 7, 30 and 90 were documented
    expired_status: int = 400  # of an expired delta link; unverified
    token_at_end: bool = (
        True  # a delta link counts from a read's last page on, not from its first; unverified
    )
    token_waits: bool = False  # a delta link counts no further than the oldest uncommitted change; unverified
    by_version: bool = True  # changes come in the order of their versions ("usually"); else in that of ids
    idle_answer: str = (
        "whole"  # where nothing changed: whole (no rows, a link), empty ({}), none (204); unverified
    )
    ghosts: bool = False  # a record deleted and restored since is told as both, deleted last; unverified
    commit_delay: float = 0.0  # seconds from a person's change, and its version, to its commit
    short_pages: bool = False  # pages hold half of what was asked for, and every other one nothing

    # Writing.
    locked: set[str] = field(default_factory=set)  # writes end in the database's timeout
    refused: dict[str, str] = field(default_factory=dict)  # id: what a plug-in says against every write
    forbidden: set[str] = field(default_factory=set)  # records that the application user may not write
    merged_writable: bool = True  # a record that was merged away takes writes; unverified
    read_only_refused: bool = False  # a column that cannot be updated is an error, else ignored; unverified
    length_needed: bool = True  # a batch's part says how long its body is; recorded by one project
    empty_is_null: bool = True  # an empty text is read back as null; unverified

    # Who may call, and how often; the limits are per application user and web server.
    token_seconds: int = 3599
    member: bool = True  # the app is an application user of the environment
    may_read: bool = True  # it reads contacts at organization level
    limits: bool = True
    requests: int = 6000  # in `window` seconds
    window: float = 300.0
    execution: float = 1200.0  # seconds of work in `window` seconds
    cost: float = 0.01  # seconds of work of one operation
    concurrent: int = 52
    running_elsewhere: int = 0  # requests of the same user, now
    retry_after: bool = True  # a 429 names its wait
