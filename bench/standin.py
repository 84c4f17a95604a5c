"""A fast stand-in for HubSpot and the wallet, so that a benchmark measures the daemon and not its servers.

    python bench/standin.py 1000000        prints {"port": 40123} and serves until it is ended

Contacts have the ids 1 to N, person<id>@example.com and a stamp months ago, with `--apart` one a millisecond
after that of the contact before; pages are rendered as they are asked for. What is kept is a few numbers per
contact (awarded points, times), so memory stays flat. It checks no token and little else: whether an answer
is right is a question for the simulators. Unlike HubSpot's, a contact's stamp does not move by what is
written back.

HubSpot: list, search, batch/update, properties; 403 for properties of anything but contacts, as a token gets
that may read contacts alone. Salesforce, for its peer alone: the query of all contacts or of those modified
since. Wallet: POST /v2/import, GET /import/log. And, of its own:
POST /standin/changed?count=N   gives contacts 1 to N one more point and a stamp of now
GET  /standin/totals            requests by path, rows imported, points awarded, values written back
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
from people import People, iso

MAX_USERS = 2000
_LIST_LIMIT, _SEARCH_LIMIT, _BATCH_LIMIT = 100, 200, 100
_QUERY_PAGE = 2000
_PROPERTIES = (
    "createdate",
    "email",
    "firstname",
    "hs_object_id",
    "lastmodifieddate",
    "lastname",
    "loyalty_points",
)
_RECORD = (
    b'{"attributes":{"type":"Contact","url":"/services/data/v60.0/sobjects/Contact/%d"},"Id":"%d",'
    b'"Email":"person%d@example.com","FirstName":"First%d","LastName":"Last%d","Points__c":%d.0}'
)
_SINCE = re.compile(r"SystemModstamp > (\S+)")
_EMAIL = re.compile(r"person([0-9]+)@example\.com", re.IGNORECASE)

Query = dict[str, list[str]]
Reply = tuple[int, Any]


class StandinError(Exception):
    """A request that even a stand-in cannot answer; carries the status."""

    def __init__(self, status: int, message: str) -> None:
        """Hold the answer."""
        super().__init__(message)
        self.status = status


class Standin:
    """Answers requests; one instance serves every connection."""

    def __init__(self, people: People) -> None:
        """Serve these people."""
        self._people = people
        self._requests: Counter[str] = Counter()
        self._rows = self._written = self._imports = 0
        objects = r"/crm/(?:v3/objects|objects/[^/]+)/(?:contacts|0-1)"
        properties = r"/crm/(?:v3/properties|properties/[^/]+)/(?:contacts|0-1)"
        self._routes: list[tuple[str, re.Pattern[str], Callable[[Query, bytes], Reply]]] = [
            ("GET", re.compile(objects), self._list),
            ("POST", re.compile(objects + "/search"), self._search),
            ("POST", re.compile(objects + "/batch/update"), self._update),
            ("GET", re.compile(properties), self._properties),
            ("GET", re.compile(r"/crm/v3/properties/[^/]+"), self._forbidden),
            ("GET", re.compile(r"/services/data/v[0-9.]+/query/"), self._query),
            ("GET", re.compile(r"/services/data/v[0-9.]+/query/[0-9]+-[0-9]+"), self._query),
            ("POST", re.compile("/v2/import"), self._import),
            ("POST", re.compile("/standin/changed"), self._change),
            ("GET", re.compile("/standin/totals"), self._totals),
        ]

    def answer(self, method: str, path: str, query: Query, body: bytes) -> Reply:
        """Return the status and the JSON of an answer, as bytes where it is rendered already."""
        self._requests[f"{method} {path}"] += 1
        for wanted, pattern, handler in self._routes:
            if wanted == method and pattern.fullmatch(path):
                try:
                    return handler(query | {"path": [path]}, body)
                except (ValueError, TypeError, KeyError, AttributeError) as error:
                    raise StandinError(400, f"not understood ({type(error).__name__})") from error
        raise StandinError(404, "not served here")

    def log(self) -> Iterator[bytes]:
        """Yield the whole import log, in pieces."""
        self._requests["GET /import/log"] += 1
        yield b'{"success":true,"data":['
        for number, piece in enumerate(self._people.log()):
            yield b"," + piece if number else piece
        yield b"]}"

    def _list(self, query: Query, _: bytes) -> Reply:
        if query.get("archived") == ["true"]:
            return 200, b'{"results":[]}'
        limit = int(query.get("limit", ["10"])[0])
        first = int(query.get("after", ["1"])[0])
        if not 1 <= limit <= _LIST_LIMIT:
            raise StandinError(400, "limit is 1 to 100")
        ids = range(max(first, 1), min(first + limit, self._people.contacts + 1))
        after = str(ids.stop) if ids.stop <= self._people.contacts else None
        return 200, self._page(ids, _asked(",".join(query.get("properties", [])).split(",")), after)

    def _search(self, _: Query, body: bytes) -> Reply:
        asked = orjson.loads(body)
        limit, offset = int(asked.get("limit", 10)), int(asked.get("after") or 0)
        if not 1 <= limit <= _SEARCH_LIMIT or offset + limit > 10_000:
            raise StandinError(400, "limit is 1 to 200, paging ends at 10000")
        start, until, above = 0, 2**62, 0
        for rule in (rule for group in asked.get("filterGroups", [])[:1] for rule in group["filters"]):
            name, operator = rule["propertyName"], rule["operator"]
            if name == "hs_object_id" and operator in {"GT", "GTE"}:
                above = int(rule["value"]) - (operator == "GTE")
            elif name == "lastmodifieddate" and operator in {"GT", "GTE", "BETWEEN", "LT", "LTE"}:
                if operator.startswith("L"):
                    until = _milliseconds(rule["value"]) - (operator == "LT")
                else:
                    start = _milliseconds(rule["value"]) + (operator == "GT")
                    until = _milliseconds(rule["highValue"]) if operator == "BETWEEN" else until
            else:
                raise StandinError(400, "this filter is not served here")
        found = self._people.changed(start, until, above)
        shown = found[offset : offset + limit]
        after = str(offset + limit) if offset + limit < len(found) else None
        page = self._page(shown, _asked(asked.get("properties", [])), after)
        return 200, b'{"total":%d,%s' % (len(found), page[1:])

    def _query(self, query: Query, _: bytes) -> Reply:
        rest = query["path"][0].rpartition("/")[2]  # what the last answer named: since when, and from where
        since = _SINCE.search(query["q"][0]) if "q" in query else None
        start, first = (int(it) for it in rest.split("-")) if rest else (0, 0)
        start = _milliseconds(since[1]) + 1 if since else start
        found = self._people.changed(start, 2**62, 0)
        shown = found[first : first + _QUERY_PAGE]
        rows = [_RECORD % (it, it, it, it, it, self._people.points(it)) for it in shown]
        more = first + len(shown) < len(found)
        path = b"/services/data/v60.0/query/%d-%d" % (start, first + len(shown))
        end = b'"done":false,"nextRecordsUrl":"%s"' % path if more else b'"done":true'
        return 200, b'{"totalSize":%d,%s,"records":[%s]}' % (len(found), end, b",".join(rows))

    def _page(self, ids: Sequence[int], names: frozenset[str], after: str | None) -> bytes:
        results = b",".join([self._people.rendered(contact, names) for contact in ids])
        paging = b',"paging":{"next":{"after":"%s"}}' % after.encode() if after else b""
        return b'{"results":[%s]%s}' % (results, paging)

    def _update(self, _: Query, body: bytes) -> Reply:
        inputs = orjson.loads(body)["inputs"]
        if len(inputs) > _BATCH_LIMIT:
            raise StandinError(400, "100 inputs at most")
        now = iso(time.time_ns() // 1_000_000).decode()
        for one in inputs:
            if not 1 <= int(one["id"]) <= self._people.contacts:
                raise StandinError(400, "no such contact")
            self._people.write(int(one["id"]), one["properties"])
        self._written += len(inputs)
        common = {"createdAt": self._people.created, "updatedAt": now, "archived": False}
        results = [{"id": one["id"], "properties": one["properties"], **common} for one in inputs]
        return 200, {"status": "COMPLETE", "startedAt": now, "completedAt": now, "results": results}

    def _properties(self, _: Query, __: bytes) -> Reply:
        kinds = dict.fromkeys((*_PROPERTIES, "wallet_status"), ("string", "text"))
        kinds["wallet_last_updated"] = ("datetime", "date")
        writable = {"modificationMetadata": {"readOnlyValue": False}}
        results = [
            {"name": name, "type": kind, "fieldType": form, **writable}
            for name, (kind, form) in kinds.items()
        ]
        return 200, {"results": results}

    def _forbidden(self, _: Query, __: bytes) -> Reply:
        raise StandinError(403, "this token may read contacts alone")

    def _import(self, _: Query, body: bytes) -> Reply:
        users = orjson.loads(body)["users"]
        if not 1 <= len(users) <= MAX_USERS:
            raise StandinError(422, "users must hold 1 to 2000")
        rows = []
        for user in users:
            found = _EMAIL.fullmatch(user["email"])
            if found is None or not 1 <= int(found[1]) <= self._people.contacts:
                raise StandinError(422, "an email that no contact has")
            rows.append((int(found[1]), user["points"]))
        second = int(time.time())
        for contact, points in rows:
            self._people.import_row(contact, points, second)
        self._imports += 1
        self._rows += len(rows)
        return 200, {"import_id": str(uuid.UUID(int=self._imports)), "imported_members": len(rows)}

    def _change(self, query: Query, _: bytes) -> Reply:
        self._people.change(int(query["count"][0]))
        return 200, {"changed": int(query["count"][0])}

    def _totals(self, _: Query, __: bytes) -> Reply:
        totals = {
            "requests": dict(self._requests),
            "imports": self._imports,
            "rows": self._rows,
            "awarded": sum(self._people.awarded),
            "written_back": self._written,
        }
        return 200, totals


def _asked(names: list[str]) -> frozenset[str]:
    return frozenset(names) - {"", *_PROPERTIES}


def _milliseconds(value: str) -> int:
    text = str(value)
    return int(text) if text.isdecimal() else int(datetime.fromisoformat(text).timestamp() * 1000)


async def _serve(
    standin: Standin, latency: float, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    method, target, _ = head[: head.index(b"\r\n")].decode("ascii").split(" ")
    length = re.search(rb"\r\ncontent-length:[ \t]*([0-9]+)", head, re.IGNORECASE)
    body = await reader.readexactly(int(length[1])) if length else b""
    await asyncio.sleep(latency)
    url = urlsplit(target)
    if (method, url.path) == ("GET", "/import/log"):
        writer.write(
            b"HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" % _date()
        )
        for piece in standin.log():
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return
    try:
        status, answer = standin.answer(method, url.path, parse_qs(url.query), body)
    except StandinError as error:
        status, answer = error.status, {"message": str(error)}
    rendered = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    writer.write(
        b"HTTP/1.1 %d Answer\r\nDate: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        % (status, _date(), len(rendered))
    )
    writer.write(rendered)
    await writer.drain()


def _date() -> bytes:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()


async def _run(standin: Standin, port: int, latency: float) -> None:
    open_connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The other side may leave between two requests, or in the middle of one.
        with contextlib.closing(writer), contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await _serve(standin, latency, reader, writer)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve_all(reader, writer))
        open_connections[task] = writer
        task.add_done_callback(open_connections.pop)

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(orjson.dumps({"port": server.sockets[0].getsockname()[1]}).decode(), flush=True)
    await stop.wait()
    server.close()
    for writer in open_connections.values():
        writer.transport.abort()
    await asyncio.gather(*open_connections)


def main() -> None:
    """Serve until ended by a signal."""
    parser = argparse.ArgumentParser(description="A fast stand-in for HubSpot and the wallet.")
    parser.add_argument("contacts", type=int)
    parser.add_argument(
        "--members", type=int, default=0, help="how many are in the import log from the start"
    )
    parser.add_argument("--apart", action="store_true", help="first stamps are a millisecond apart")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds before each answer")
    options = parser.parse_args()
    if not 0 <= options.members <= options.contacts:
        parser.error("--members is at most the number of contacts")
    people = People(options.contacts, options.members, apart=options.apart)
    asyncio.run(_run(Standin(people), options.port, options.latency / 1000))


if __name__ == "__main__":
    main()
