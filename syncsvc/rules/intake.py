"""What a contact that was read means for the state: mapped, excluded, refused or gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from msgspec import Struct

from syncsvc.model import Contact, FieldValue
from syncsvc.rules.fingerprint import Fingerprinter
from syncsvc.rules.mapping import Excluded, Mapped, Mapper, Refused
from syncsvc.rules.values import UnreadableError, read_instant

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ContactState(IntEnum):
    """Where a contact stands."""

    ACTIVE = 0  # mapped to a member
    EXCLUDED = 1  # does not match `where`
    QUARANTINED = 2  # refused for a reason
    GONE = 3  # deleted, archived, merged away or vanished


_ACTIVE, _EXCLUDED, _QUARANTINED, _GONE = ContactState  # on the class, each costs more than a comparison


class Intake(Struct, frozen=True, gc=False):
    """A contact as it was read and mapped; `mapped` is set exactly where `state` is ACTIVE.

    `written_at` (milliseconds since 1970, whole seconds) and `written_status` are what its write-back fields
    hold in the CRM.
    """

    record_id: str
    state: ContactState
    fingerprint: bytes
    mapped: Mapped | None = None
    field: str = ""
    reason: str = ""
    written_at: int | None = None
    written_status: str | None = None
    merged_from: tuple[str, ...] = ()
    merged_into: str | None = None

    @property
    def points(self) -> int | None:
        """The total that the CRM says was earned, None where it says nothing."""
        return None if self.mapped is None else self.mapped.points


def _storable(text: str) -> str:
    """Return a text as every state can hold it: PostgreSQL holds no NUL, and none has a meaning in a CRM."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


class Reader:
    """Reads contacts of one connector."""

    def __init__(self, mapper: Mapper, fingerprinter: Fingerprinter, write_back: Mapping[str, str]) -> None:
        """Map with `mapper`; `write_back` names the CRM field of each fact that is written back."""
        self._mapper = mapper
        self._fingerprinter = fingerprinter
        self._time_field = write_back.get("last_updated", "")
        self._status_field = write_back.get("status", "")

    def read(self, contact: Contact) -> Intake:
        """Return what a contact means; never raises for anything that a contact can hold."""
        return self._intake(contact, self._result(contact))

    def read_all(self, contacts: Sequence[Contact]) -> list[Intake]:
        """Return what each contact of a page means, as `read` does."""
        # In two rounds: the code of both together does not stay in a processor's nearest cache.
        results = [self._result(contact) for contact in contacts]
        return [self._intake(contact, result) for contact, result in zip(contacts, results, strict=True)]

    def _result(self, contact: Contact) -> Mapped | Refused | Excluded | None:
        if contact.gone:
            return None
        return Refused("record", contact.refusal) if contact.refusal else self._mapper.map(contact)

    def _intake(self, contact: Contact, result: Mapped | Refused | Excluded | None) -> Intake:
        record_id, fields = _storable(contact.record_id), contact.fields
        state, mapped, field, reason = _ACTIVE, None, "", ""
        match result:
            case Mapped():
                fingerprint = self._fingerprinter.member(result.brand_id, result.email_key, result.profile)
                mapped = result
            case Excluded():
                fingerprint, state = self._fingerprinter.absence("excluded"), _EXCLUDED
            case Refused(field, reason):
                fingerprint = self._fingerprinter.absence("refused", field, reason)
                state = _QUARANTINED
            case None:
                gone = self._fingerprinter.absence("gone")
                return Intake(record_id, _GONE, gone, merged_into=contact.merged_into)
        at, status = fields.get(self._time_field), fields.get(self._status_field)
        written_at = None if at is None else self._written_at(at)
        written_status = None if status is None else _storable(str(status))
        merged_from = contact.merged_from
        return Intake(
            record_id, state, fingerprint, mapped, field, reason, written_at, written_status, merged_from
        )

    @staticmethod
    def _written_at(value: FieldValue) -> int | None:
        try:
            at = read_instant(value).at
        except UnreadableError:  # something else stands there; it is overwritten
            return None
        return (at - _EPOCH) // timedelta(seconds=1) * 1000
