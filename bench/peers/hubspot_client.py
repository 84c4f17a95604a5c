"""HubSpot's official client in a loop that somebody would write by hand, into one SQLite table.

python hubspot_client.py PORT FOLDER
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path

from hubspot import HubSpot
from hubspot.crm.contacts import PublicObjectSearchRequest

FIELDS = ["email", "firstname", "lastname", "loyalty_points", "lastmodifieddate"]
UPSERT = (
    "INSERT INTO contact VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET email = excluded.email, "
    "firstname = excluded.firstname, lastname = excluded.lastname, points = excluded.points"
)


def pages(contacts, since):
    """Yield pages: of the list, or of those modified after `since`."""
    after = None
    while True:
        if since is None:
            page = contacts.basic_api.get_page(limit=100, properties=FIELDS, after=after)
        else:
            rule = {"propertyName": "lastmodifieddate", "operator": "GT", "value": str(since)}
            asked = PublicObjectSearchRequest(
                filter_groups=[{"filters": [rule]}], properties=FIELDS, limit=200, after=after
            )
            page = contacts.search_api.do_search(public_object_search_request=asked)
        yield page.results
        if not page.paging or not page.paging.next:
            return
        after = page.paging.next.after


def main() -> None:
    """Run once, and print how many contacts are held and their points."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    mark = folder / "since"
    since = int(mark.read_text()) if mark.exists() else None
    begun = time.time_ns() // 1_000_000
    client = HubSpot(access_token="token")
    client.config["host"] = f"http://127.0.0.1:{port}"
    database = sqlite3.connect(folder / "peer.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(
        "CREATE TABLE IF NOT EXISTS contact "
        "(id TEXT PRIMARY KEY, email TEXT, firstname TEXT, lastname TEXT, points INTEGER)"
    )
    for found in pages(client.crm.contacts, since):
        rows = [(it.id, *(it.properties.get(name) for name in FIELDS[:4])) for it in found]
        with database:
            database.executemany(UPSERT, rows)
    mark.write_text(str(begun))
    count, points = database.execute("SELECT count(*), sum(points) FROM contact").fetchone()
    print(json.dumps({"held": count, "points": points}))


if __name__ == "__main__":
    main()
