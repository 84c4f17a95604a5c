"""The floor: the least that any program could do to hold the same contacts.

    python bench/floor.py PORT FILE

Pages through the list of contacts, parses each page, hashes the fields that the benchmark's map reads, and
upserts one row a contact with the position reached, one transaction a page. No retries, no validation, no
members, no points ledger, no write-back: see README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import sqlite3
from hashlib import blake2b
from typing import Any

import orjson
from meter import metered, tell

_PATH = (
    "/crm/objects/2026-03/contacts?limit=100&properties="
    "email%2Cfirstname%2Chs_merged_object_ids%2Clastmodifieddate%2Clastname%2Cloyalty_points%2Cwallet_last_updated"
)
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
_POSITION = "CREATE TABLE IF NOT EXISTS position (one INTEGER PRIMARY KEY, after TEXT NOT NULL)"
_UPSERT = (
    "INSERT INTO contact VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
    "email = excluded.email, name = excluded.name, points = excluded.points, digest = excluded.digest"
)


def _row(contact: dict[str, Any]) -> tuple[str, str, str, int, bytes]:
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


def pull(port: int, file: str) -> int:
    """Hold every contact in `file`; returns how many there were."""
    http_connection = http.client.HTTPConnection("127.0.0.1", port)
    database = sqlite3.connect(file, isolation_level=None)
    with contextlib.closing(http_connection), contextlib.closing(database):
        for statement in (*_PRAGMAS, _CONTACT, _POSITION):
            database.execute(statement)
        contacts, after = 0, ""
        while True:
            path = f"{_PATH}&after={after}" if after else _PATH
            http_connection.request("GET", path, headers={"Authorization": "Bearer token"})
            page = orjson.loads(http_connection.getresponse().read())
            rows = [_row(contact) for contact in page["results"]]
            after = page.get("paging", {}).get("next", {}).get("after", "")
            database.execute("BEGIN IMMEDIATE")
            database.executemany(_UPSERT, rows)
            database.execute("REPLACE INTO position VALUES (1, ?)", (after,))
            database.execute("COMMIT")
            contacts += len(rows)
            if not after:
                return contacts


def main() -> None:
    """Pull once and print what it cost."""
    parser = argparse.ArgumentParser(description="The least that a first pull can cost.")
    parser.add_argument("port", type=int)
    parser.add_argument("file")
    options = parser.parse_args()
    facts: dict[str, Any] = {}
    with metered(facts):
        facts["read"] = pull(options.port, options.file)
    tell(facts)


if __name__ == "__main__":
    main()
