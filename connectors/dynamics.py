"""Dynamics 365 contacts (Dataverse): read by change tracking, written back in batches.

A sweep is a tracked read of the whole table and ends with a delta link; a poll asks a link for what has
changed since. Which links are read again, and for how long, is `syncsvc.remote.links`.

A contact that was merged away or deactivated is still a row, and is read as gone. Links are kept whole, but
for the server's name: a token goes nowhere but to `url`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote, urlsplit

from msgspec.structs import replace
from pydantic import Field

from connectors import dynamics_schema
from connectors.dynamics_api import ROLE, Auth, DynamicsApi, Reply, accepted, objects
from syncsvc.errors import CredentialsError, CursorError, OperatorError, SchemaError, TransientError
from syncsvc.model import Contact, FieldValue, Page, Problem, WriteBack, WriteOutcome, Written
from syncsvc.remote.connector import Needs
from syncsvc.remote.links import LinkCursor, Mark, Sweep
from syncsvc.remote.transport import Network
from syncsvc.settings import Duration, Url
from syncsvc.settings import Settings as Table

MOST_ROWS = 5000  # of a page (Page results, 2024-07)
MOST_OPERATIONS = 1000  # of a batch (Execute batch operations, 2023-01)
RENEWAL = timedelta(days=1)  # a link expires after 7 days by default (Use change tracking, 2023-06)

_OWN = "merged,_masterid_value"
_INACTIVE = 1


class DynamicsSettings(Table):
    """The keys of a Dynamics 365 environment."""

    url: Url = Field(examples=["https://acme.crm4.dynamics.com"], description="the environment")
    auth: Auth = Field(description="the app registration that logs in")
    api_version: str = Field(default="9.2", pattern=r"^9\.\d$", description="version of the Web API")
    overlap: Annotated[Duration, Field(gt=timedelta(0), description="how late a change may commit")] = (
        timedelta(minutes=10)
    )
    inactive: Literal["gone", "live"] = Field(default="gone", description="what a deactivated contact is")
    page_size: int = Field(default=1000, ge=1, le=MOST_ROWS, description="contacts of one page")
    batch_size: int = Field(
        default=100, ge=1, le=MOST_OPERATIONS, description="contacts of one call that writes back"
    )
    timeout: Duration = Field(default=timedelta(seconds=60), description="for the whole of each call")


class Dynamics:
    """The contacts of one Dynamics 365 environment; see `syncsvc.remote.connector.Connector`.

    Its application user reads contacts at organization level, and writes those that are written back.
    """

    Settings: ClassVar[type[Table]] = DynamicsSettings

    def __init__(self, settings: DynamicsSettings, needs: Needs, network: Network) -> None:
        """Make no request yet."""
        self._lag = settings.overlap
        self._inactive_is_gone = settings.inactive == "gone"
        self._batch = settings.batch_size
        self._needs = needs
        self._api = DynamicsApi(
            settings.url,
            auth=settings.auth,
            version=settings.api_version,
            timeout=settings.timeout.total_seconds(),
            network=network,
        )
        self._paging = f"odata.maxpagesize={settings.page_size}"
        self._columns = ",".join(sorted({*needs.fields, *_OWN.split(","), "statecode"}))
        self._contacts_path = f"{self._api.root}contacts?"
        self._table = f"{self._contacts_path}$select={self._columns}"

    def check(self) -> list[Problem]:
        """Return what is wrong with the table and the columns that are read and written; three requests."""
        tracked, known = self._definitions()
        dates, lines = (
            objects(self._api.document(self._api.root + path), "value")
            for path in (dynamics_schema.DATES, dynamics_schema.LINES)
        )
        found = list(dynamics_schema.problems(self._needs, known, dates=dates, lines=lines))
        return found if tracked else [dynamics_schema.UNTRACKED, *found]

    def changes(self, cursor: str | None) -> Iterator[Page]:
        """Yield the contacts of a sweep (None), or those changed since; see `Connector.changes`.

        Raises SchemaError where a column that is mapped or written has vanished, and CursorError where the
        environment has forgotten a link, or a cursor was made for other columns than are read now.
        """
        if cursor is None:
            yield from self._sweep(None)
            return
        given = LinkCursor.parse(cursor)
        if given.query != self._columns:
            self._require(self._needs.fields)
            raise CursorError("the stored cursor was made for other columns than are read now")
        if any(not link.startswith(self._contacts_path) for link in given.links()):
            raise CursorError("the stored cursor is not one of this environment's")
        yield from self._poll(given) if given.sweep is None else self._sweep(given.sweep)

    def write_back(self, values: Sequence[WriteBack]) -> Iterator[WriteOutcome]:
        """Yield one outcome per value, in order; see `Connector.write_back`.

        A contact that was merged away passes its values on to its master, unless that one is written in the
        same call. Raises SchemaError where a column that is written does not exist.
        """
        yield from self._write(values, known={value.record_id for value in values})

    def close(self) -> None:
        """Give back the connections."""
        self._api.close()

    def _definitions(self) -> tuple[bool, dict[str, Mapping[str, Any]]]:
        """Return whether changes of contacts are tracked, and the columns by name."""
        document = self._api.document(self._api.root + dynamics_schema.DEFINITION)
        known = dynamics_schema.by_name(objects(document, "Attributes"))
        return bool(document.get("ChangeTrackingEnabled")), known

    def _require(self, names: Collection[str]) -> None:
        tracked, known = self._definitions()
        if lost := sorted(set(names) - known.keys()):
            raise SchemaError(
                f"Dynamics' contacts have no column {', '.join(lost)}: "
                "restore it, or take it out of the configuration",
                fields=lost,
            )
        if not tracked:
            raise OperatorError(f"{dynamics_schema.UNTRACKED.message}: {dynamics_schema.UNTRACKED.remedy}")

    def _sweep(self, begun: Sweep | None) -> Iterator[Page]:
        began = begun.began if begun else self._api.now()
        link = begun.link if begun else ""
        while True:
            document = self._read(link, prefer="" if link else "odata.track-changes")
            contacts = self._contacts(objects(document, "value"), set())
            following = self._link(document, "next", link)
            if not following:
                mark = self._mark(document, None)
                swept = LinkCursor.swept(self._columns, began=began, mark=mark, lag=self._lag)
                yield Page(contacts, swept.encode())
                return
            link = following
            sweep = Sweep(began=began, link=link)
            yield Page(contacts, LinkCursor(query=self._columns, sweep=sweep).encode())

    def _poll(self, cursor: LinkCursor) -> Iterator[Page]:
        reading = cursor.open(self._api.now())
        if reading.timed and not reading.link:
            since = f"{self._table}&$filter=modifiedon%20ge%20{_time(cursor.base.at)}" if cursor.base else ""
            reading = reading.advanced(since, news=False)
        rows: set[str] = set()
        while True:
            document = self._read(reading.link, prefer="")
            unchanged = _is_empty(document) and not reading.timed
            contacts = self._contacts([] if unchanged else objects(document, "value"), rows)
            following = self._link(document, "next", reading.link)
            if not following and reading.timed and cursor.last is not None:
                reading, following = reading.model_copy(update={"timed": False}), cursor.last.link
            reading = reading.advanced(following, news=bool(contacts))
            if not following:
                asked = cursor.base if reading.full and cursor.base and cursor.base.link else cursor.last
                closed = cursor.closed(reading, self._mark(document, asked), lag=self._lag, keep=RENEWAL)
                yield Page(contacts, closed.encode())
                return
            yield Page(contacts, cursor.within(reading).encode())

    def _read(self, link: str, *, prefer: str) -> Mapping[str, Any]:
        """Return a page; raises CursorError where a link is of no use any more."""
        reply = self._api.get(
            link or self._table, prefer=f"{self._paging},{prefer}" if prefer else self._paging
        )
        if reply.status in {400, 404, 410}:
            self._require(self._needs.fields)
            if link:
                raise CursorError(f"Dynamics does not take the stored link any more ({reply.reason})")
        return accepted(reply, self._table)

    def _mark(self, document: Mapping[str, Any], asked: Mark | None) -> Mark:
        """Return the link that ends a read: the one `asked`, where nothing has changed since."""
        link = self._link(document, "delta", "")
        if not link and asked is not None and _is_empty(document):
            return asked
        if not link:
            raise TransientError("Dynamics ended a read of contacts without a delta link")
        return Mark(at=self._api.now(), link=link)

    def _link(self, document: Mapping[str, Any], kind: str, before: str) -> str:
        """Return the path and query of a page's next or delta link, "" where it has none."""
        told = document.get(f"@odata.{kind}Link")
        if told is None:
            return ""
        parts = urlsplit(str(told))
        link = f"{parts.path}?{parts.query}"
        if link == before:
            raise TransientError("Dynamics' list of contacts does not move on")
        if not link.startswith(self._contacts_path):
            raise OperatorError(
                "Dynamics gives a link to something else: compare url and api_version with it"
            )
        return link

    def _contacts(self, found: Sequence[Mapping[str, Any]], rows: set[str]) -> list[Contact]:
        """Return the contacts of a page; `rows` are the ids that the pass has brought as rows so far.

        One that comes as a row and as deleted was restored, or deleted meanwhile: the next full pass tells.
        """
        try:
            contacts = [self._contact(row) for row in found if "contactid" in row]
            deleted = [row["id"].lower() for row in found if "contactid" not in row]
        except (KeyError, AttributeError) as error:
            raise TransientError("Dynamics' answer holds no list of contacts") from error
        rows |= {contact.record_id for contact in contacts}
        return contacts + [Contact(it, {}, gone=True) for it in deleted if it not in rows]

    def _contact(self, row: Mapping[str, Any]) -> Contact:
        fields = {name: _value(row[name]) for name in self._needs.fields if name in row}
        master, inactive = _master(row), row["statecode"] == _INACTIVE
        gone = master is not None or (inactive and self._inactive_is_gone)
        return Contact(row["contactid"].lower(), fields, gone, master)

    def _write(self, values: Sequence[WriteBack], *, known: Collection[str]) -> Iterator[WriteOutcome]:
        for start in range(0, len(values), self._batch):
            batch = values[start : start + self._batch]
            replies = self._update(batch)
            masters = [_master(reply.document) if reply and reply.good else None for reply in replies]
            moved = {
                master: WriteBack(master, value.values)
                for value, master in zip(batch, masters, strict=True)
                if master and master not in known
            }
            written = self._write(list(moved.values()), known={*known, *moved})
            anew = dict(zip(moved, written, strict=True))
            for value, reply, master in zip(batch, replies, masters, strict=True):
                if master is None:
                    yield _outcome(value.record_id, reply)
                    continue
                there = anew.get(master, WriteOutcome(master, Written.MERGED))
                yield replace(there, result=Written.MERGED) if there.result is Written.WRITTEN else there

    def _update(self, batch: Sequence[WriteBack]) -> list[Reply | None]:
        """Return the answer to each value, None for those that a batch which ended early does not answer."""
        contents = [(f"contacts({quote(value.record_id, safe='')})", _wire(value)) for value in batch]
        answered = self._api.patch(contents, select=_OWN)[: len(batch)]
        refused = [it for it in answered if not (it.good or it.passes or it.status == 404)]
        if refused and len(refused) == len(batch):
            self._require({name for value in batch for name in value.values})
            if all(reply.status == 403 for reply in refused):
                raise CredentialsError(f"Dynamics lets no contact be written ({refused[0].reason}): {ROLE}")
        return [*answered, *repeat(None, len(batch) - len(answered))]


def _is_empty(document: Mapping[str, Any]) -> bool:
    """Whether an answer is the one that a link without changes may have (Use change tracking, 2023-06)."""
    return not document.keys() - {"@odata.context"}


def _outcome(record_id: str, reply: Reply | None) -> WriteOutcome:
    if reply is None or reply.passes:
        return WriteOutcome(record_id, Written.RETRY, reply.reason if reply else "not answered")
    if reply.status == 404:
        return WriteOutcome(record_id, Written.GONE)
    if reply.good:
        return WriteOutcome(record_id, Written.WRITTEN)
    return WriteOutcome(record_id, Written.REFUSED, reply.reason)


def _master(row: Mapping[str, Any]) -> str | None:
    """Return the id of the contact that this one was merged into."""
    master = row.get("_masterid_value")
    return master.lower() if row.get("merged") is True and isinstance(master, str) else None


def _value(content: Any) -> FieldValue:
    if content is None or isinstance(content, bool | int | float):
        return content
    return str(content) or None


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _wire(value: WriteBack) -> dict[str, str]:
    return {
        name: content if isinstance(content, str) else _time(content)
        for name, content in value.values.items()
    }
