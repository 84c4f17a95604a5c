"""The codes that stand in the tables: lanes, outcomes, ledger entries and what write-backs wait for."""

from __future__ import annotations

from enum import IntEnum


class Lane(IntEnum):
    """What a batch's rows are."""

    PROFILE = 0  # may be sent again: no points, or points that set the balance
    POINTS = 1  # adds points: never sent again without proof


class Outcome(IntEnum):
    """What is known about a batch row; the batch itself carries the least settled of its rows."""

    OPEN = 0  # claimed; the request may be under way
    DOUBT = 1  # sent, and neither proven applied nor proven not applied
    HELD = 2  # in doubt for so long that a person decides
    LANDED = 3  # proven applied
    REFUTED = 4  # proven not applied
    RELEASED = 5  # unproven, but safe to send again
    REFUSED = 6  # the wallet named this row as bad; proven not applied
    SKIPPED = 7  # given up by policy or a person: its points count as settled though nobody knows


class Entry(IntEnum):
    """Why points stand in the ledger."""

    AWARDED = 0  # a batch row landed
    ADOPTED = 1  # they were in the wallet before this service was
    MOVED_OUT = 2  # they left with a contact whose email changed
    MOVED_IN = 3  # they came with a contact whose email changed
    SKIPPED = 4  # an unsettled award that policy or a person closed without sending it again


class FirstRead(IntEnum):
    """What the points of a contact mean that could not be mapped, once it can be."""

    PAST = 0  # what they always mean
    RUNNING = 1  # its connector's first read met it: what `first_run` says
    RESTORED = 2  # adopted, as when a state was put back since it was mapped last: perhaps awarded
    MOVED = 3  # a state was put back in which it owns no, or another member: perhaps awarded elsewhere


RESTORED = "restored"
"""Stands for the cycle of batches that may have been sent after a state which was put back."""


class WriteDue(IntEnum):
    """Whether a CRM record is to be looked at by the write-back."""

    NO = 0
    YES = 1
    ECHO = 2  # it was written, and has not come home as a change yet


HELD = "held"
"""The status of a contact of whose member something is kept back."""
