"""Contacts of a Rolodex account, a CRM that is small and well-mannered; see `rolodex_simulator` for its API.

A sweep walks the list of contacts by id. Rolodex numbers its changes, and no two have the same number: a poll
asks for those above the last one that was read. The list and the changes hold the records themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import orjson
from pydantic import Field

from syncsvc.errors import CredentialsError, CursorError, OperatorError, SchemaError, TransientError
from syncsvc.model import Contact, FieldValue, Page, Problem, WriteBack, WriteOutcome, Written
from syncsvc.remote.answer import Answer
from syncsvc.remote.connector import Needs
from syncsvc.remote.keyed import KeyedClient
from syncsvc.remote.retry import repeat
from syncsvc.remote.transport import Network
from syncsvc.settings import Duration, Secret, Settings, Url

PAGE = 500  # Rolodex API, "Limits"
BATCH = 100  # the same
_RESULTS = {"ok": Written.WRITTEN, "gone": Written.GONE, "busy": Written.RETRY}


class RolodexSettings(Settings):
    """The keys of a Rolodex account under `[connectors.NAME]`."""

    url: Url = Field(description="the account's address")
    key: Secret = Field(description="an API key that may read and write contacts")
    timeout: Duration = Field(default=timedelta(seconds=30), description="for the whole of each call")


class Rolodex:
    """The contacts of one account; see `syncsvc.remote.connector.Connector`."""

    Settings: ClassVar[type[Settings]] = RolodexSettings

    def __init__(self, settings: RolodexSettings, needs: Needs, network: Network) -> None:
        """Make no request yet."""
        self._needs = needs
        self._network = network
        client = network.client(settings.url, timeout=settings.timeout.total_seconds())
        self._client = KeyedClient(client, settings.key, network, called="Rolodex key")

    def check(self) -> list[Problem]:
        """Return every field that is mapped or written and does not exist, or is not of a fitting type."""
        known = {it["name"]: it["type"] for it in self._ask("GET", "/v1/fields")["fields"]}
        remedy = "create it in Rolodex, or correct the name: its fields are " + ", ".join(sorted(known))
        found = [
            Problem(f"field {name}", "Rolodex has no such field", remedy)
            for name in self._needs.fields
            if name not in known
        ]
        at = self._needs.write.get("last_updated")
        if at is not None and known.get(at, "time") != "time":
            found.append(
                Problem("write_back.last_updated", f"{at} holds no time", "name a field of that type")
            )
        return found

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield the contacts of a sweep (None), or those changed since."""
        if cursor is None:
            return self._sweep(None, "")
        position = _parse(cursor)
        if "since" in position:
            return self._poll(position["since"])
        return self._sweep(position["sweep"], position["after"])

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order."""
        for start in range(0, len(values), BATCH):
            batch = values[start : start + BATCH]
            sent = [
                {"id": value.record_id, "fields": {name: _text(it) for name, it in value.values.items()}}
                for value in batch
            ]
            results = self._ask("PATCH", "/v1/contacts", json={"contacts": sent})["results"]
            if [it["id"] for it in results] != [value.record_id for value in batch]:
                raise TransientError("Rolodex's answer does not tell what became of every contact")
            for it in results:
                result = _RESULTS.get(it["status"], Written.REFUSED)
                detail = "Rolodex finds a field of the contact invalid" if result is Written.REFUSED else ""
                yield WriteOutcome(it["id"], result, detail)

    def close(self) -> None:
        """Give back the connections."""
        self._client.close()

    def _sweep(self, began: int | None, after: str) -> Iterator[Page]:
        while True:
            answer = self._ask("GET", "/v1/contacts", after=after, limit=str(PAGE))
            # The number of the newest change when the sweep began: whatever changes meanwhile is polled.
            began = int(answer["newest"]) if began is None else began
            contacts = [self._contact(it) for it in answer["contacts"]]
            following = answer["next"]
            if following is None:
                yield Page(contacts, _cursor(since=began))
                return
            after = str(following)
            yield Page(contacts, _cursor(sweep=began, after=after))

    def _poll(self, since: int) -> Iterator[Page]:
        while True:
            answer = self._ask("GET", "/v1/changes", since=str(since), limit=str(PAGE))
            since = max((int(it["change"]) for it in answer["contacts"]), default=since)
            yield Page([self._contact(it) for it in answer["contacts"]], _cursor(since=since))
            if not answer["more"]:
                return

    def _contact(self, record: Mapping[str, Any]) -> Contact:
        if record.get("deleted"):
            return Contact(record["id"], {}, gone=True)
        fields: dict[str, FieldValue] = {name: record["fields"][name] or None for name in self._needs.fields}
        return Contact(record["id"], fields)

    def _ask(self, method: str, path: str, *, json: Any = None, **params: str) -> dict[str, Any]:
        """Return the document of a success; every call may be made twice, so what may pass is repeated.

        Raises TransientError for what passes, CredentialsError for a key that is refused, SchemaError for
        fields that do not exist, and OperatorError for any other refusal. None repeats what the answer says.
        """
        if method == "GET" and path != "/v1/fields":
            params["fields"] = ",".join(self._needs.fields)

        def once() -> dict[str, Any]:
            answer = self._client.send(method, path, params=params, json=json)
            return _document(answer, f"{method} {path}", self._needs.fields)

        return repeat(once, network=self._network)


def _document(answer: Answer, what: str, names: Sequence[str]) -> dict[str, Any]:
    status, told = answer.status, f"Rolodex answers {what} with {answer.status}"
    if status in {401, 403}:
        raise CredentialsError(f"{told}: give the connector a key that may read and write contacts")
    if status == 429 or status >= 500:
        raise TransientError(told, retry_after=answer.retry_after)
    try:
        document = answer.json()
    except ValueError:
        document = None
    if 200 <= status < 300 and isinstance(document, dict):
        return document
    if 200 <= status < 300:
        raise TransientError(f"{told} and no whole document")
    if status == 422 and isinstance(document, dict):
        unknown = [name for name in names if name in document.get("unknown", ())]
        if unknown:
            lost = ", ".join(unknown)
            raise SchemaError(f"Rolodex has no field {lost}: create it, or correct the map", fields=unknown)
    raise OperatorError(f"{told}: check url")


def _text(value: str | datetime) -> str:
    return value if isinstance(value, str) else f"{value:%Y-%m-%dT%H:%M:%SZ}"


def _cursor(**position: str | int) -> str:
    return orjson.dumps(position).decode()


def _parse(cursor: str) -> dict[str, Any]:
    kinds: tuple[dict[str, type], ...] = ({"since": int}, {"sweep": int, "after": str})
    try:
        position = orjson.loads(cursor)
        if {name: type(it) for name, it in position.items()} in kinds:
            return dict(position)
    except (ValueError, AttributeError):
        pass
    raise CursorError("the stored cursor is not one of this connector's")
