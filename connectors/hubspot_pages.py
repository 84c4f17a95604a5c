"""Pages of HubSpot contacts: read straight into records of the properties that were asked for.

What else HubSpot sends of a contact is passed over, and the form of what is read is checked on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from msgspec import UNSET, Meta, Struct, ValidationError, defstruct
from msgspec.json import Decoder
from msgspec.structs import astuple

from connectors.hubspot_api import MERGED, absorbed
from syncsvc.model import Contact

MODIFIED = "lastmodifieddate"  # contacts alone: search finds nothing by hs_lastmodifieddate, without a word

_USUAL = Annotated[str, Meta(min_length=1)] | None
T = TypeVar("T")


class Record(Struct, Generic[T], gc=False):
    """A contact as HubSpot sends it: its id, which is a number, and its properties, one after the other."""

    id: str
    properties: T


class RecordPage(Struct, Generic[T], gc=False):
    """The contacts that an answer holds, and what it tells of those that follow."""

    results: list[Record[T]]
    paging: Any = None
    total: Any = None


class Pages:
    """Reads the answers that hold contacts with these properties, of which each may be missing."""

    def __init__(self, fields: Sequence[str]) -> None:
        """Contacts get these `fields`; when they were modified and what they absorbed is read with them."""
        self._fields = tuple(fields)
        names = list(dict.fromkeys([*fields, MODIFIED, MERGED]))
        self._modified, self._merged = names.index(MODIFIED), names.index(MERGED)
        keys = {f"property_{place}": name for place, name in enumerate(names)}
        self._usual, self._any = (
            Decoder(
                RecordPage[  # type: ignore[misc]  # its properties are known only now
                    defstruct("Properties", [(key, kind, UNSET) for key in keys], rename=keys, gc=False)
                ]
            )
            for kind in (_USUAL, Any)
        )

    def read(self, body: bytes) -> RecordPage[Any] | None:
        """Return the page in an answer, None where it holds none; raises ValueError where it is not whole.

        Each property then is a text, or None where it is empty: null in one answer and "" in another.
        """
        try:
            page = self._usual.decode(body)
        except ValidationError:
            try:
                page = self._any.decode(body)
            except ValidationError:
                return None
            for record in page.results:
                values = astuple(record.properties)
                record.properties = type(record.properties)(*(_text(value) for value in values))
        return page if all(record.id.isdecimal() for record in page.results) else None

    def contact(self, record: Record[Any]) -> Contact:
        """Return a record as a contact, without the fields that it lacks."""
        values = astuple(record.properties)
        fields = dict(zip(self._fields, values))  # noqa: B905 - what follows the fields is no field
        if UNSET in values:
            fields = {name: value for name, value in fields.items() if value is not UNSET}
        merged = values[self._merged]
        return Contact(record.id, fields, merged_from=absorbed(record.id, merged) if merged else ())

    def stamp(self, record: Record[Any]) -> datetime | None:
        """Return when a record was modified, None where it does not tell."""
        try:
            at = datetime.fromisoformat(astuple(record.properties)[self._modified])
        except (TypeError, ValueError):
            return None
        return at if at.tzinfo else at.replace(tzinfo=UTC)


def _text(value: Any) -> Any:
    return value or None if type(value) is str else value if value is None or value is UNSET else str(value)
