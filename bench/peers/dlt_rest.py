"""dlt: its REST source into SQLite, merged by id. The first run reads the list, later ones ask search.

python dlt_rest.py PORT FOLDER
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path

import dlt
from dlt.sources.rest_api import rest_api_source

FIELDS = ["email", "firstname", "lastname", "loyalty_points", "lastmodifieddate"]


def source(port: int, since: int | None):
    """Return the contacts, those modified after `since` (milliseconds) where it is known."""
    cursor = {"type": "cursor", "cursor_path": "paging.next.after"}
    if since is None:
        endpoint = {
            "path": "crm/v3/objects/contacts",
            "params": {"limit": 100, "properties": ",".join(FIELDS)},
            "paginator": {**cursor, "cursor_param": "after"},
        }
    else:
        rule = {"propertyName": "lastmodifieddate", "operator": "GT", "value": str(since)}
        endpoint = {
            "path": "crm/v3/objects/contacts/search",
            "method": "POST",
            "json": {"filterGroups": [{"filters": [rule]}], "properties": FIELDS, "limit": 200},
            "paginator": {**cursor, "cursor_body_path": "after"},
        }
    return rest_api_source(
        {
            "client": {
                "base_url": f"http://127.0.0.1:{port}/",
                "auth": {"type": "bearer", "token": "token"},
            },
            "resources": [
                {
                    "name": "contacts",
                    "primary_key": "id",
                    "write_disposition": "merge",
                    "endpoint": {**endpoint, "data_selector": "results"},
                }
            ],
        }
    )


def main() -> None:
    """Run once, and print how many contacts are held and their points."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    mark, file = folder / "since", folder / "peer__crm.db"
    since = int(mark.read_text()) if mark.exists() else None
    begun = time.time_ns() // 1_000_000
    pipeline = dlt.pipeline(
        pipeline_name="peer",
        pipelines_dir=str(folder / "dlt"),
        dataset_name="crm",
        destination=dlt.destinations.sqlalchemy(credentials=f"sqlite:///{folder / 'peer.db'}"),
    )
    pipeline.run(source(port, since))
    mark.write_text(str(begun))
    with sqlite3.connect(file) as held:
        count, points = held.execute(
            "SELECT count(*), sum(CAST(properties__loyalty_points AS INTEGER)) FROM contacts"
        ).fetchone()
    print(json.dumps({"held": count, "points": points}))


if __name__ == "__main__":
    main()
