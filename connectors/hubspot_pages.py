"""Pages of HubSpot contacts: read straight into records of the properties that were asked for.

What else HubSpot sends of a contact is passed over, and the form of what is read is checked on the way.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypedDict, TypeVar

from msgspec import Meta, Struct, ValidationError
from msgspec.json import Decoder

from connectors.hubspot_api import MERGED, absorbed
from syncsvc.model import Contact, FieldValue

MODIFIED = "lastmodifieddate"  # contacts alone: search finds nothing by hs_lastmodifieddate, without a word

_USUAL = Annotated[str, Meta(min_length=1)] | None
T = TypeVar("T")


class Record(Struct, Generic[T], gc=False):
    """A contact as HubSpot sends it: its id, which is a number, and those of its properties that are read."""

    id: str
    properties: T


class RecordPage(Struct, Generic[T], gc=False):
    """The contacts that an answer holds, and what it tells of those that follow."""

    results: list[Record[T]]
    paging: Any = None
    total: Any = None


Properties = dict[str, FieldValue]


class Pages:
    """Reads the answers that hold contacts with these properties, of which each may be missing."""

    def __init__(self, fields: Collection[str]) -> None:
        """Contacts get these `fields`; when they were modified and what they absorbed is read with them."""
        self._beside = [name for name in (MODIFIED, MERGED) if name not in fields]
        names = [*fields, *self._beside]
        self._usual, self._any = (_decoder(names, kind) for kind in (_USUAL, Any))

    def read(self, body: bytes) -> RecordPage[Properties] | None:
        """Return the page in an answer, None where it holds none; raises ValueError where it is not whole.

        Each property then is a text, or None where it is empty: null in one answer and "" in another.
        """
        try:
            page = self._decoded(body)
        except (ValidationError, RecursionError):  # another form, or lists in lists without end
            return None
        return page if all(record.id.isdecimal() for record in page.results) else None

    def _decoded(self, body: bytes) -> RecordPage[Properties]:
        try:
            return self._usual.decode(body)
        except ValidationError:
            page = self._any.decode(body)
        for record in page.results:
            record.properties = {name: _text(value) for name, value in record.properties.items()}
        return page

    def contact(self, record: Record[Properties]) -> Contact:
        """Return a record as a contact, whose fields its properties become."""
        fields = record.properties
        merged = fields.get(MERGED)
        for name in self._beside:
            fields.pop(name, None)
        return Contact(record.id, fields, merged_from=absorbed(record.id, merged) if merged else ())


def _decoder(names: Collection[str], kind: Any) -> Decoder[RecordPage[Properties]]:
    properties: Any = TypedDict("properties", dict.fromkeys(names, kind), total=False)  # type: ignore[misc]
    return Decoder(RecordPage[properties])


def stamp(record: Record[Properties]) -> datetime | None:
    """Return when a record was modified, None where it does not tell."""
    try:
        at = datetime.fromisoformat(str(record.properties[MODIFIED]))
    except (KeyError, ValueError):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _text(value: Any) -> str | None:
    return value or None if type(value) is str else None if value is None else str(value)
