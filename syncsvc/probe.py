"""Whether the service of a container delivers: what a health check asks, at a fraction of a command's cost.

`python -m syncsvc.probe` reads where `service.listen` is from the configuration that SYNCSVC_CONFIG names,
asks /readyz there, prints the answer, and exits 0 or 1. Where `listen` is off there is nobody to ask: then a
service is well that holds its file, or that was heard of on its server within a lease. Of several on a
server it is one of this machine, and a container is one: what those of others do proves nothing of it.
"""

from __future__ import annotations

import os
import sys
import tomllib
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syncsvc.state import locks

SERVICE_FILE = "service.toml"
LISTEN = "127.0.0.1:9464"
STATE = "sqlite:///syncsvc.db"
_SECONDS = 4.0
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - an address that is asked, not opened


def probe(path: Path) -> tuple[bool, str]:
    """Return whether the service of a configuration is well, and what it says of itself."""
    try:
        service = _service(path)
    except (OSError, ValueError, AttributeError) as error:  # the service tells the lines of it
        return False, f"{path} cannot be read ({type(error).__name__}): see `syncsvc check --offline`"
    listen = service.get("listen", LISTEN)
    if not listen:
        return _is_run(service.get("state", STATE))
    host, _, port = str(listen).rpartition(":")
    url = f"http://{_ANY.get(host, host)}:{port}/readyz"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS) as answer:
            return True, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as refusal:
        with refusal:
            return False, refusal.read().decode(errors="replace")
    except OSError as error:
        return False, f"{url} does not answer: {getattr(error, 'reason', error)}"


def _service(path: Path) -> Mapping[str, Any]:
    file = path / SERVICE_FILE if path.is_dir() else path
    if not file.exists() and path.is_dir():
        return {}
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    beside = file.with_name(SERVICE_FILE)
    if "service" not in data and beside.is_file():
        data = tomllib.loads(beside.read_text(encoding="utf-8"))
    service: Mapping[str, Any] = data.get("service", {})
    return service


def _is_run(written: Any) -> tuple[bool, str]:
    if isinstance(written, str) and written.startswith("sqlite:///"):
        state = written.removeprefix("sqlite:///")
        number = locks.holder(Path(state))
        if number is None:
            return False, f"no process runs cycles on {state}"
        told = f"process {number} runs cycles on {state}"
    else:
        # It takes a while to load, and is seldom wanted.
        from syncsvc.errors import SyncError  # noqa: PLC0415
        from syncsvc.service import ServiceConfig  # noqa: PLC0415
        from syncsvc.state.postgres import StateServer  # noqa: PLC0415
        from syncsvc.state.replicas import is_of_this_machine  # noqa: PLC0415

        try:
            url = ServiceConfig.model_validate({"state": written}).state_url
            state, names = StateServer.services(url)
        except (SyncError, ValueError) as error:
            return False, str(error)
        ours = ", ".join(filter(is_of_this_machine, names))
        if not ours:
            others = f"; those of other machines are not asked about: {', '.join(names)}" if names else ""
            return False, f"no service of this machine is heard of on {state}{others}"
        told = f"{ours} is heard of on {state}"
    return True, f"{told}; service.listen is off: how its cycles go is not known"


if __name__ == "__main__":
    well, told = probe(Path(os.environ.get("SYNCSVC_CONFIG", ".")))
    sys.stdout.write(told.strip() + "\n")
    sys.exit(not well)
