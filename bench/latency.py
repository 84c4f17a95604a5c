"""What a distant network costs: how long requests are waited for, beside the least that they can take.

    python bench/latency.py [--contacts 4000] [--latency 50]

One, two and four connectors, each of which reads and writes the same contacts of one server that answers
late. The floor is the waiting of one connector: its requests, one after the other, since each page names the
next. Judged by the clock: processor time has no part in it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from processes import Standin, cycle_of, organization

_PAGE = 100
_CONNECTOR = "[connectors.marketing"


def organization_of(path: Path, connectors: int, port: int) -> Path:
    """Write an organization with so many connectors that are alike, and return its file."""
    state = f"sqlite:///{path.with_suffix('.db')}"
    text = organization(path, state=state, log_every="24h", port=port).read_text(encoding="utf-8")
    head, table = text.split(_CONNECTOR, 1)
    tables = [
        f"{_CONNECTOR}{table}".replace(_CONNECTOR, f"{_CONNECTOR}{number}") for number in range(connectors)
    ]
    path.write_text("\n".join([head, *tables]), encoding="utf-8")
    return path


def main() -> None:
    """Measure as the command line says, and print a table."""
    parser = argparse.ArgumentParser(description="How long a distant network is waited for.")
    parser.add_argument("--contacts", type=int, default=4000)
    parser.add_argument("--latency", type=float, default=50.0, help="milliseconds")
    options = parser.parse_args()
    os.environ.setdefault("BENCH_TOKEN", "bench-token-0123456789")
    wait = options.latency / 1000
    pages = -(-options.contacts // _PAGE)
    print("| connectors | first read | of the floor | write-back | of the floor | idle | of the floor |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for connectors in (1, 2, 4):
            with Standin(options.contacts, "--latency", str(options.latency)) as standin:
                path = organization_of(Path(folder) / f"{connectors}.toml", connectors, standin.port)
                first = cycle_of(path, [])["report"]["stages"]
                idle = cycle_of(path, [])["report"]["stages"]
            cells = [
                f"{seconds:.2f} s | {seconds / floor:.2f}"
                for seconds, floor in (
                    (first["pull"], (pages + 1) * wait),
                    (first["write_back"], pages * wait),
                    (idle["pull"], wait),
                )
            ]
            print(f"| {connectors} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
