"""HubSpot's recycle bin: contacts that were archived, which no search shows and no modification tells.

The list of archived contacts is in the order of record ids and can be filtered by nothing, so whoever looks
for the latest reads all of it, 100 contacts a call. It keeps them for 90 days (contacts guide, 2026-03).
Contacts that were merged away or erased are not known to be in it: the winner tells of the one, from the bin
too, a sweep of the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.hubspot_api import MERGED, HubSpotApi, absorbed, accepted, following, records
from syncsvc.errors import CursorError, TransientError
from syncsvc.model import Contact

PAGE = 100  # contacts guide 2026-03: at most 100 a page
LOOK_PAGES = 10
"""Calls that a look between two sweeps may cost; a fuller bin is left to the sweeps."""

FULL_EVERY = timedelta(days=1)
"""When to look again into a bin that was too full."""


class RecycleBin:
    """The archived contacts of one account."""

    def __init__(self, api: HubSpotApi) -> None:
        """Make no request yet."""
        self._api = api

    def page(
        self, after: str, *, before: datetime, since: datetime | None = None
    ) -> tuple[list[Contact], str]:
        """Return the next contacts that were archived in that time, and where the next page begins, or "".

        Raises CursorError where HubSpot does not take the position any more.
        """
        params = {"archived": "true", "limit": str(PAGE), "properties": MERGED}
        answer = self._api.ask("GET", self._api.contacts, params=params | ({"after": after} if after else {}))
        if answer.status == 400 and after:
            raise CursorError("HubSpot does not take the position in the list of archived contacts any more")
        document = accepted(answer, f"GET {self._api.contacts}")
        position = following(document.get("paging")) or ""
        if position and position == after:
            raise TransientError("HubSpot's list of archived contacts does not move on")
        found: list[Contact] = []
        for record in records(document):
            if _archived_within(record, since, before):
                into = record["id"]
                # Its own list may never have been read: whoever was merged into it is gone with it.
                found += [
                    Contact(old, {}, gone=True, merged_into=into)
                    for old in absorbed(into, record["properties"].get(MERGED))
                ]
                found.append(Contact(into, {}, gone=True))
        return found, position

    def look(self, since: datetime | None, *, before: datetime) -> tuple[list[Contact], bool]:
        """Return who was archived in that time, and whether the bin could be looked through to its end."""
        found: list[Contact] = []
        after = ""
        for _ in range(LOOK_PAGES):
            contacts, after = self.page(after, before=before, since=since)
            found += contacts
            if not after:
                return found, True
        return found, False


def _archived_within(record: Mapping[str, Any], since: datetime | None, before: datetime) -> bool:
    """Return whether a record was archived in that time, or at a time that its answer does not tell."""
    if record.get("archived") is False:
        return False
    try:
        at = datetime.fromisoformat(record["archivedAt"])
    except (KeyError, TypeError, ValueError):
        return True
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return (since is None or since <= at) and at < before
