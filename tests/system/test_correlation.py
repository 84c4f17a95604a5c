"""A cycle can be followed from our log to the access logs of all three services."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send
from town import command

from syncsvc.remote.transport import USER_AGENT
from syncsvc.sandbox.server import Server
from syncsvc.sandbox.world import World


def listen(server: Server, agents: list[str]) -> None:
    """Note the User-Agent of every request from now on."""
    config = server._server.config
    app: ASGIApp = config.loaded_app

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        agents.append(dict(scope["headers"])[b"user-agent"].decode())
        await app(scope, receive, send)

    config.loaded_app = noting


def test_every_service_is_told_the_cycle_that_the_log_names(world: World, config: Path) -> None:
    heard: dict[int, list[str]] = defaultdict(list)
    for number, server in enumerate(world._servers):
        listen(server, heard[number])
    for _ in range(2):
        answer = command("-c", config, "once")
        lines = [json.loads(line) for line in answer.err.splitlines()]
        (cycle,) = {line["cycle"] for line in lines if line["event"] == "cycle_finished"}
        assert {line["cycle"] for line in lines if "organization" in line} == {cycle}
        assert len(heard) == 3
        for agents in heard.values():
            assert set(agents) == {f"{USER_AGENT} (cycle {cycle})"}
            agents.clear()
        world.edit(1)
