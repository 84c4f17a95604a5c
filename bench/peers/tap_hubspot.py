"""Meltano's tap-hubspot (the package meltano-tap-hubspot), its contacts alone, piped into target-jsonl.

python tap_hubspot.py PORT FOLDER

The first run discovers the catalog and reads the list, later ones ask search for what was modified at or
after the bookmark. All of that is the tap's own, and so is that it asks for every property there is. One
thing is changed in it, from here: where `url_base` of its streams points.

The target has an environment of its own: it pins jsonschema 2.6.0, and the tap's SDK needs a newer one. It
checks each record by the tap's schema and adds it to a file, which it opens for each; its state goes to the
next run. Both processes count. Included is that the files are read once, for a table of ids and points that
tells what is held: a few hundredths of what the first read costs.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

sys.path.pop(0)  # the folder of this file, which bears the package's name

from tap_hubspot.client import PropertyStream
from tap_hubspot.streams import ContactStream
from tap_hubspot.tap import TapHubspot

CONFIG = {"access_token": "token"}
TARGET = Path(__file__).parent / ".env" / "target_jsonl" / "bin" / "target-jsonl"


def catalog(file: Path):
    """Return the tap's catalog with the contacts selected; it is discovered by the first run."""
    if not file.exists():
        found = TapHubspot(config=CONFIG, setup_mapper=False).catalog_dict
        for stream in found["streams"]:
            root = next(it["metadata"] for it in stream["metadata"] if not it["breadcrumb"])
            root["selected"] = stream["tap_stream_id"] == "contacts"
        file.write_text(json.dumps(found))
    return json.loads(file.read_text())


def cell(line, name):
    """Return a text that stands in a line of JSON by its name."""
    return line.partition(f'"{name}": "')[2].partition('"')[0]


def main() -> None:
    """Run once, and print how many contacts are held and their points."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])
    mark = folder / "state.json"
    files = folder / "files"
    told = folder / "target.json"
    told.write_text(json.dumps({"destination_path": str(files)}))
    for stream in (ContactStream, PropertyStream):
        stream.url_base = f"http://127.0.0.1:{port}/crm/v3"
    tap = TapHubspot(
        config=CONFIG,
        catalog=catalog(folder / "catalog.json"),
        state=json.loads(mark.read_text()) if mark.exists() else None,
    )
    target = [TARGET, "-c", told]
    with mark.open("a") as states:
        running = subprocess.Popen(target, stdin=subprocess.PIPE, stdout=states, text=True)
        with running.stdin as output, contextlib.redirect_stdout(output):
            tap.sync_all()
        if running.wait():
            raise SystemExit("target-jsonl failed")
    mark.write_text(mark.read_text().splitlines()[-1])
    with sqlite3.connect(folder / "held.db") as held:
        held.execute("CREATE TABLE IF NOT EXISTS held (id TEXT PRIMARY KEY, points INTEGER) WITHOUT ROWID")
        for file in sorted(files.glob("*.jsonl")):
            with file.open() as lines:
                rows = ((cell(it, "id"), int(cell(it, "loyalty_points"))) for it in lines)
                held.executemany("INSERT OR REPLACE INTO held VALUES (?, ?)", rows)
            file.unlink()
        count, points = held.execute("SELECT count(*), sum(points) FROM held").fetchone()
    print(json.dumps({"held": count, "points": points}))


if __name__ == "__main__":
    main()
