"""The floor: the least that any program could do to hold the same contacts.

    python bench/floor.py PORT FILE [--members | --changes]

Pages through the list of contacts, parses each page, hashes the fields that the benchmark's map reads, and
upserts one row a contact with the position reached, one transaction a page. No retries, no validation, no
points ledger, no write-back: see README.md. With `--members` it holds what the service holds of a first pull:
each contact's member too, found by its email and in the order in which it is due, and what it is to be sent.
With `--changes` it asks what was modified since it last ran, and upserts that.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import sqlite3
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import orjson
from meter import metered, tell

_PATH = (
    "/crm/objects/2026-03/contacts?limit=100&properties="
    "email%2Cfirstname%2Chs_merged_object_ids%2Clastmodifieddate%2Clastname%2Cloyalty_points%2Cwallet_last_updated"
)
_SEARCH = "/crm/objects/2026-03/contacts/search"
_FIELDS = ["email", "firstname", "lastname", "loyalty_points"]
_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16384",
)
_CONTACT = (
    "CREATE TABLE IF NOT EXISTS contact (id TEXT PRIMARY KEY, email TEXT NOT NULL, name TEXT NOT NULL, "
    "points INTEGER NOT NULL, digest BLOB NOT NULL) WITHOUT ROWID"
)
_MEMBERS = """
CREATE TABLE IF NOT EXISTS member (
    id INTEGER PRIMARY KEY, brand INTEGER NOT NULL, email TEXT NOT NULL, contact TEXT NOT NULL,
    digest BLOB NOT NULL, earned INTEGER NOT NULL, due INTEGER NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS member_email ON member (brand, email);
CREATE INDEX IF NOT EXISTS member_due ON member (brand, id) WHERE due = 1;
CREATE TABLE IF NOT EXISTS contact (
    id TEXT PRIMARY KEY, member INTEGER NOT NULL, digest BLOB NOT NULL, points INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS contact_member ON contact (member);
CREATE TABLE IF NOT EXISTS payload (member INTEGER PRIMARY KEY, content BLOB NOT NULL);
"""
_TOGETHER = 2000  # contacts of a transaction, with their members
_RUN = "CREATE TABLE IF NOT EXISTS run (one INTEGER PRIMARY KEY, began INTEGER NOT NULL)"
_POSITION = "CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY, after TEXT NOT NULL)"
_UPSERT = (
    "INSERT INTO contact VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
    "email = excluded.email, name = excluded.name, points = excluded.points, digest = excluded.digest"
)


_MEMBER = "INSERT INTO member VALUES (?, 1, ?, ?, ?, ?, 1) ON CONFLICT DO NOTHING"
_LINKED = "INSERT INTO contact VALUES (?, ?, ?, ?)"
_PAYLOAD = "INSERT INTO payload VALUES (?, ?)"

Row = tuple[str, str, str, int, bytes]


def _row(contact: dict[str, Any]) -> Row:
    fields = contact["properties"]
    email = fields["email"].strip().casefold()
    name = f"{fields['firstname']} {fields['lastname']}".strip()
    content = orjson.dumps([contact["id"], email, name])
    return (
        contact["id"],
        email,
        name,
        int(fields["loyalty_points"]),
        blake2b(content, digest_size=16).digest(),
    )


def _upsert(database: sqlite3.Connection, rows: Sequence[Row], _: int) -> None:
    database.executemany(_UPSERT, rows)


def _admit(database: sqlite3.Connection, rows: Sequence[Row], before: int) -> None:
    """Store new contacts, each with its member and what that is to be sent; `before` are there already."""
    numbered = list(enumerate(rows, before + 1))
    database.executemany(
        _MEMBER,
        [(number, email, key, digest, points) for number, (key, email, _, points, digest) in numbered],
    )
    database.executemany(
        _LINKED, [(key, number, digest, points) for number, (key, _, _, points, digest) in numbered]
    )
    database.executemany(
        _PAYLOAD,
        [
            (number, orjson.dumps({"name": name, "storecard": "card-1", "external_reference": key}))
            for number, (key, _, name, *_) in numbered
        ],
    )


def pull(port: int, file: str, *, members: bool = False) -> int:
    """Hold every contact in `file`, with `members` those too; returns how many there were."""
    http_connection = http.client.HTTPConnection("127.0.0.1", port)
    database = sqlite3.connect(file, isolation_level=None)
    store, together = (_admit, _TOGETHER) if members else (_upsert, 1)
    with contextlib.closing(http_connection), contextlib.closing(database):
        database.executescript(";".join([*_PRAGMAS, _MEMBERS if members else _CONTACT, _POSITION, _RUN]))
        database.execute("REPLACE INTO run VALUES (1, ?)", (_began(),))
        contacts, after = 0, ""
        rows: list[Row] = []
        while True:
            path = f"{_PATH}&after={after}" if after else _PATH
            http_connection.request("GET", path, headers={"Authorization": "Bearer token"})
            page = orjson.loads(http_connection.getresponse().read())
            rows += [_row(contact) for contact in page["results"]]
            after = page.get("paging", {}).get("next", {}).get("after", "")
            if after and len(rows) < together:
                continue
            database.execute("BEGIN IMMEDIATE")
            store(database, rows, contacts)
            database.execute("REPLACE INTO position VALUES (1, ?)", (after,))
            database.execute("COMMIT")
            contacts += len(rows)
            rows = []
            if not after:
                return contacts


def changes(port: int, file: str) -> int:
    """Hold what was modified since the last run on `file`; returns how many contacts that were."""
    http_connection = http.client.HTTPConnection("127.0.0.1", port)
    database = sqlite3.connect(file, isolation_level=None)
    with contextlib.closing(http_connection), contextlib.closing(database):
        database.executescript(";".join(_PRAGMAS))
        (since,) = database.execute("SELECT began FROM run").fetchone()
        found, after, began = 0, "0", _began()
        while after:
            rule = {"propertyName": "lastmodifieddate", "operator": "GTE", "value": str(since)}
            asked = {
                "filterGroups": [{"filters": [rule]}],
                "properties": _FIELDS,
                "limit": 200,
                "after": after,
            }
            headers = {"Authorization": "Bearer token", "Content-Type": "application/json"}
            http_connection.request("POST", _SEARCH, orjson.dumps(asked), headers)
            page = orjson.loads(http_connection.getresponse().read())
            after = page.get("paging", {}).get("next", {}).get("after", "")
            if page["results"]:
                database.execute("BEGIN IMMEDIATE")
                _upsert(database, [_row(contact) for contact in page["results"]], 0)
                database.execute("REPLACE INTO run VALUES (1, ?)", (began,))
                database.execute("COMMIT")
            found += len(page["results"])
        return found


def _began() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    """Pull once and print what it cost."""
    parser = argparse.ArgumentParser(description="The least that a first pull can cost.")
    parser.add_argument("port", type=int)
    parser.add_argument("file")
    parser.add_argument("--members", action="store_true")
    parser.add_argument("--changes", action="store_true")
    options = parser.parse_args()
    facts: dict[str, Any] = {}
    with metered(facts):
        if options.changes:
            facts["read"] = changes(options.port, options.file)
        else:
            facts["read"] = pull(options.port, options.file, members=options.members)
    tell(facts)


if __name__ == "__main__":
    main()
