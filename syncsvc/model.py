"""The words that every floor shares: contacts as connectors hand them out, and values written back.

Everything here is frozen. Times are aware UTC, points are whole numbers, ids are strings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from msgspec import Struct

FieldValue = str | int | float | bool | None
"""What a CRM field can hold once a connector has read it; empty is None, never an empty string."""


class Contact(Struct, frozen=True, gc=False):
    """A CRM record as it was read.

    `fields` holds every field that was asked for and that the CRM returned, by the CRM's own names. `gone`
    says that the record was deleted, archived or merged away; its fields may then be missing. `merged_into`
    is the surviving record's id where the CRM tells it; `merged_from` are the ids this record has absorbed.
    `refusal` says why the record cannot be read as a contact, without its values: it goes to quarantine
    under its id, before anything of it is mapped.
    """

    record_id: str
    fields: Mapping[str, FieldValue]
    gone: bool = False
    merged_into: str | None = None
    merged_from: tuple[str, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Contacts that were read together, and the cursor that is safe once they are stored.

    A cursor is plain text that survives a restart. `expected` is how many contacts the whole read will
    bring where the CRM tells it, for progress only.

    `whole` says of a poll that it brings every live contact, since what changed cannot be told apart: the
    engine sweeps instead. `partial` says of a sweep that some records could not be told from each other, so
    that what it does not bring may be among them: nothing is taken for gone.
    """

    contacts: Sequence[Contact]
    cursor: str
    expected: int | None = None
    whole: bool = False
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Allowance:
    """The calls that a CRM allows in a day to all applications of an account together, as an answer told."""

    allowed: int
    left: int
    told_at: datetime


STATUS_LENGTH = 255
"""How many characters a status that is written back has at most: a line of text holds them in every CRM."""


class WriteBack(Struct, frozen=True, gc=False):
    """What one CRM record should hold: the CRM's field names with their new values."""

    record_id: str
    values: Mapping[str, str | datetime]


class Written(StrEnum):
    """What became of one value that was written back."""

    WRITTEN = "written"  # the CRM holds the value now
    GONE = "gone"  # the record is deleted or was never there
    MERGED = "merged"  # the record lives on under another id, and that one holds the value now
    REFUSED = "refused"  # the CRM will not take it; `detail` has its words; a person must act
    RETRY = "retry"  # passing trouble (a row lock); try again in a later cycle


class WriteOutcome(Struct, frozen=True, gc=False):
    """The outcome of one write-back, in the CRM's own words but without personal data.

    `record_id` is the id under which the record lives now: it differs from the one asked for after a merge.
    """

    record_id: str
    result: Written
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something `check` found: where it stands, what is wrong, and what to do about it."""

    where: str
    message: str
    remedy: str
