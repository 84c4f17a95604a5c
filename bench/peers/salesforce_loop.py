"""simple_salesforce's query_all_iter in a loop that somebody would write by hand, into one SQLite table.

python salesforce_loop.py PORT FOLDER
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import sys
from datetime import datetime, timezone
from pathlib import Path

from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce

UPSERT = (
    "INSERT INTO contact VALUES (?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET email = excluded.email, "
    "firstname = excluded.firstname, lastname = excluded.lastname, points = excluded.points"
)
ASKED = "SELECT Id, Email, FirstName, LastName, Points__c FROM Contact"
TOGETHER = 2000


class Plain(HTTPAdapter):
    """Goes to a server without TLS where the library asks for the next page, which it always does with it."""

    def send(self, request, *arguments, **named):
        """Send a request in the clear."""
        request.url = request.url.replace("https://", "http://", 1)
        return super().send(request, *arguments, **named)


def main() -> None:
    """Run once, and print how many contacts are held and their points."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    mark = folder / "since"
    asked = f"{ASKED} WHERE SystemModstamp > {mark.read_text()}" if mark.exists() else ASKED
    begun = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    client = Salesforce(instance="127.0.0.1", session_id="token", version="60.0")
    client.base_url = f"http://127.0.0.1:{port}/services/data/v60.0/"
    client.sf_instance = f"127.0.0.1:{port}"
    client.session.mount("https://", Plain())
    database = sqlite3.connect(folder / "peer.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(
        "CREATE TABLE IF NOT EXISTS contact "
        "(id TEXT PRIMARY KEY, email TEXT, firstname TEXT, lastname TEXT, points INTEGER)"
    )
    found = client.query_all_iter(asked)
    while some := list(itertools.islice(found, TOGETHER)):
        rows = [(it["Id"], it["Email"], it["FirstName"], it["LastName"], it["Points__c"]) for it in some]
        with database:
            database.executemany(UPSERT, rows)
    mark.write_text(begun)
    count, points = database.execute("SELECT count(*), sum(points) FROM contact").fetchone()
    print(json.dumps({"held": count, "points": points}))


if __name__ == "__main__":
    main()
