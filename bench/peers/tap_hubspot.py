"""Meltano's tap-hubspot (the package meltano-tap-hubspot), its contacts alone, into files of JSON lines.

python tap_hubspot.py PORT FOLDER

The first run discovers the catalog and reads the list, later ones ask search for what was modified at or
after the bookmark. All of that is the tap's own, and so is that it asks for every property there is. One
thing is changed in it, from here: where `url_base` of its streams points.

No target follows. target-jsonl cannot be installed beside the tap: it pins jsonschema 2.6.0, and the tap's
SDK needs a newer one. So the messages that the tap writes to its standard output go to a file of FOLDER, one
a run, where a target would parse and check each of them first: a pipeline with this tap costs more than what
is measured. Included is that the run's file is read once, for the state that the next run starts from and
for a table of ids and points that tells what is held: a few hundredths of what the first read costs.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import sys
import time
from pathlib import Path

sys.path.pop(0)  # the folder of this file, which bears the package's name

from tap_hubspot.client import PropertyStream
from tap_hubspot.streams import ContactStream
from tap_hubspot.tap import TapHubspot

CONFIG = {"access_token": "token"}
RECORD, STATE = '{"type":"RECORD","stream":"contacts","record":{"id":"', '{"type":"STATE"'
POINTS = '"loyalty_points":"'


def catalog(file: Path):
    """Return the tap's catalog with the contacts selected; it is discovered by the first run."""
    if not file.exists():
        found = TapHubspot(config=CONFIG, setup_mapper=False).catalog_dict
        for stream in found["streams"]:
            root = next(it["metadata"] for it in stream["metadata"] if not it["breadcrumb"])
            root["selected"] = stream["tap_stream_id"] == "contacts"
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def rows(written, states):
    """Yield the id and points of each contact that was written, and gather the states."""
    for line in written:
        if line.startswith(RECORD):
            points = line.partition(POINTS)[2].partition('"')[0]
            yield line[len(RECORD) :].partition('"')[0], int(points)
        elif line.startswith(STATE):
            states.append(json.loads(line)["value"])


def main() -> None:
    """Run once, and print how many contacts are held and their points."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    mark = folder / "state.json"
    lines = folder / f"contacts-{time.time_ns()}.jsonl"
    for stream in (ContactStream, PropertyStream):
        stream.url_base = f"http://127.0.0.1:{port}/crm/v3"
    tap = TapHubspot(
        config=CONFIG,
        catalog=catalog(folder / "catalog.json"),
        state=json.loads(mark.read_text()) if mark.exists() else None,
    )
    with lines.open("w") as output, contextlib.redirect_stdout(output):
        tap.sync_all()
    states = []
    with lines.open() as written, sqlite3.connect(folder / "held.db") as held:
        held.execute("CREATE TABLE IF NOT EXISTS held (id TEXT PRIMARY KEY, points INTEGER) WITHOUT ROWID")
        held.executemany("INSERT OR REPLACE INTO held VALUES (?, ?)", rows(written, states))
        count, points = held.execute("SELECT count(*), sum(points) FROM held").fetchone()
    mark.write_text(json.dumps(states[-1]))
    print(json.dumps({"held": count, "points": points}))


if __name__ == "__main__":
    main()
