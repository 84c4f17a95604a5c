from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from town import Service as SystemService
from town import until

from syncsvc.sandbox.demo import Service, Story, Teller
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.handover import hand_over
from syncsvc.sandbox.world import BRAND, World

SYNCSVC = [sys.executable, "-m", "syncsvc"]

# Somebody else imports too: with the first live edits, a member is awarded its points a second time.
FOREIGN = """
import json, urllib.request
from syncsvc.cli import main
from syncsvc.sandbox.world import BRAND, World

edit = World.edit

def edit_and_award(world, count):
    edit(world, count)
    person = next(world.salesforce_people())
    user = {"email": person.email, "name": "A B", "brand_id": BRAND, "storecard": "card-1", "points": 7}
    body = json.dumps({"organization_id": world.wallet.organization_id, "users": [user]}).encode()
    headers = {"Authorization": "Bearer wallet-sandbox", "Content-Type": "application/json"}
    asked = urllib.request.Request(world.wallet_url + "/v2/import", body, headers)
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 200

World.edit = edit_and_award
main(["demo", "--contacts", "10"])
"""


def test_the_demo_shows_everything_and_its_verdict_holds() -> None:
    ran = subprocess.run([*SYNCSVC, "demo", "--contacts", "12"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    assert list(dict.fromkeys(it["event"] for it in events)) == [
        "world_started",
        "first_delivery",
        "live_edits",
        "contact_deleted",
        "answer_lost",
        "doubt_settled",
        "restarted",
        "settled",
        "holds",
        "verdict",
        "demo_finished",
    ]
    holds = {it["side"]: it["records"] for it in events if it["event"] == "holds"}
    assert holds == {"Salesforce": 11, "HubSpot": 12, "wallet": 23}
    claims = {it["claim"]: it["holds"] for it in events if it["event"] == "verdict"}
    assert claims == {
        "every point arrived exactly once": True,
        "the wallet's time stands on every contact": True,
        "a cycle without changes is silent": True,
        "the service stops cleanly": True,
    }
    assert "what each side now holds" in ran.stderr
    assert "✓ │ every point arrived exactly once" in ran.stderr
    assert "example.com" not in ran.stdout + ran.stderr


def test_the_demo_fails_when_a_member_is_awarded_twice() -> None:
    ran = subprocess.run([sys.executable, "-c", FOREIGN], capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    events = [json.loads(line) for line in ran.stdout.splitlines()]
    claims = {it["claim"]: it["holds"] for it in events if it["event"] == "verdict"}
    assert claims["every point arrived exactly once"] is False
    assert claims["the story came to its end"] is False
    assert events[-1]["passed"] is False
    assert "✗ │ every point arrived exactly once" in ran.stderr


def test_a_verdict_names_points_that_are_missing_and_times_that_differ(world: World, tmp_path: Path) -> None:
    story = Story(world, Service(tmp_path / "x.toml", {}), Teller(), seconds=1, faults=False)
    points, times = story._verdict()
    assert (points.holds, "0 awarded" in points.facts) == (False, True)
    assert (times.holds, times.facts) == (True, "40 of 40")
    world.wallet.touch(BRAND, list(world.hubspot_people())[-1].email)
    assert [(it.holds, it.facts) for it in story._verdict()[1:]] == [(False, "39 of 40")]


def test_a_wait_that_takes_too_long_ends_the_story_with_a_red_verdict(
    world: World, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Complaining(Service):
        def start(self) -> None:
            super().start()
            until("a complaint", lambda: self.watch() or self.complaints)

    world.wallet.knobs.abilities.clear()
    service = Complaining(config, world.environment)
    try:
        story = Story(world, service, Teller(), seconds=1, faults=False)
        findings = story.play()
    finally:
        service.stop()
    assert [it.holds for it in findings[:2]] == [False, False]
    told = capsys.readouterr().out
    assert "first delivery: not done 1 s after the start (--seconds)" in told
    assert "stage_needs_operator" in told, "it says what the service complained of"


def test_a_service_that_dies_ends_the_story_with_a_red_verdict(
    world: World, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(config.read_text(encoding="utf-8").replace("sqlite:///", "sqlite:////nowhere"))
    service = Service(config, world.environment)
    findings = Story(world, service, Teller(), seconds=200, faults=False).play()
    assert not findings[0].holds
    assert "exit code 75" in findings[0].facts
    assert "the state in" in capsys.readouterr().out


def test_on_a_terminal_the_demo_shows_progress_and_no_service_outlives_it(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*SYNCSVC, "demo", "--contacts", "10", "--keep"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    ) as process:
        os.close(theirs)
        try:
            shown = b""

            def started() -> bool:
                nonlocal shown
                shown += os.read(ours, 4096)
                return b"waiting for live edits" in shown

            until("progress", started)
            assert "three simulators: Salesforce 10 contacts" in shown.decode(errors="replace")
            assert b'"event"' not in shown
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) != 0
        finally:
            process.kill()
            os.close(ours)
    (folder,) = tmp_path.glob("syncsvc-demo-*")
    assert "service_stopped" in (folder / "acme.log").read_text(encoding="utf-8")


def test_a_demo_that_is_kept_hands_over_simulators_that_do_not_fail_and_a_page_to_look_at(
    world: World, tmp_path: Path
) -> None:
    world.wallet.faults.add(Fault(Kind.RESET_BEFORE, "POST", "/v2/import"))
    told = hand_over(world, every="200ms", settle_after="1s")
    assert world.wallet.faults.pick("POST", "/v2/import") is None
    (port,) = re.findall(r"syncsvc run +# and look at http://127\.0\.0\.1:(\d+)/", told)
    with SystemService(world.folder / "acme.toml", tmp_path) as service:
        assert service.wait_for("service_started")[0]["port"] == int(port)
        until("a good cycle on the page", lambda: "1 organization, all well" in service.get("/")[1])
        assert service.stop() == 0
