from __future__ import annotations

from pathlib import Path

import pytest
from postgres import Postgres
from town import Service, command, settled, until

from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.world import World

PHONE = "+31612345678"
SECRETS = {
    "ACME_WALLET_TOKEN": "wallet-5ecret-marked",
    "SF_SECRET": "salesforce-5ecret-marked",
    "HUBSPOT_TOKEN": "pat-na1-5ecret-marked-0001",
}


def marks(world: World) -> set[str]:
    """Everything that must never be shown: emails, names, plates, phones, and every secret."""
    people = {person.email for person in world.people()} | {"@example.com", "@marked.example"}
    return people | {"Zebrawood", "SB-0000", PHONE, *SECRETS.values(), *world.environment.values()} - {
        world.salesforce.client_id
    }


def leaks(world: World, texts: dict[str, str]) -> dict[str, set[str]]:
    found = {what: {mark for mark in marks(world) if mark in text} for what, text in texts.items()}
    return {what: held for what, held in found.items() if held}


def spoil(world: World) -> None:
    """Give contacts what a validator, the wallet or a CRM refuses, each with a marked value in it."""
    first, second, third, *_ = world.salesforce_people()
    update = world.salesforce.update
    update("Contact", first.record_id, {"LastName": "Zebrawood", "Loyalty_Points__c": -17})
    update("Contact", second.record_id, {"Email": "zoe@marked.example", "LastName": "Zebrawood"})
    update("Contact", third.record_id, {"License_Plate__c": "SB-0000" * 10, "LastName": "Zebrawood" * 5})
    world.hubspot.update(next(world.hubspot_people()).record_id, {"loyalty_points": "12.5"})


def let_things_fail(world: World) -> None:
    """Let every service fail in many ways, echoing what it was sent."""
    echo = {"message": f"bad value member1@example.com Zebrawood {PHONE}", "errors": {"users.0.email": ["x"]}}
    wallet, hubspot, salesforce = world.wallet.faults, world.hubspot.faults, world.salesforce.faults
    for method, path in (("POST", "/v2/import"), ("GET", "/import/log")):
        for status in (422, 500):
            wallet.add(Fault(Kind.STATUS, method, path, status=status, body=echo))
        wallet.add(Fault(Kind.HTML, method, path, status=502))
        wallet.add(Fault(Kind.RESET_AFTER, method, path))
    for plan in (hubspot, salesforce):
        plan.add(Fault(Kind.STATUS, status=400, body=echo))
        plan.add(Fault(Kind.CUT_BODY))


@pytest.fixture
def config(world: World) -> Path:
    return world.write_organization(every="200ms", settle_after="1s", listen="127.0.0.1:0", log_level="debug")


def test_no_command_shows_a_secret_or_a_person(
    world: World, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(world)
    person = next(world.hubspot_people())
    texts: dict[str, str] = {}

    def run(what: str, *arguments: object) -> None:
        for form in ([], ["--json"]):
            answer = command("-c", config, *arguments, *form)
            texts[f"{what} {form}"] = answer.out + answer.err
            if what == "explain":  # its answer is about a person; the log beside it is not
                texts[f"{what} {form}"] = answer.err
            assert answer.out + answer.err, what

    for name in ("check", "plan", "once", "status"):
        run(name, name)
    let_things_fail(world)
    for number in range(3):
        world.edit(1)
        run(f"failing {number}", "once")
    for name in ("sweep", "status", "release", "doubt", "books"):
        run(name, name)
    for by in ("member", "cycle", "batch", "day"):
        run(f"books by {by}", "books", "--by", by)
    run("books verified", "books", "--verify")
    run("another plan", "once", "--plan", "0123456789abcdef")
    run("decided", "doubt", "1", "landed", "--yes")
    run("history", "doubt", "--history")
    run("explain", "explain", person.email)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for name in ("check", "once", "status"):
        run(f"{name} with wrong secrets", name)
    assert not leaks(world, texts)


def test_the_service_logs_no_secret_and_no_person_at_debug_level(
    world: World, config: Path, tmp_path: Path
) -> None:
    spoil(world)
    let_things_fail(world)
    with Service(config, tmp_path) as service:
        until("failures", lambda: service.events("batch_not_landed"))
        until("quarantine", lambda: service.events("contact_quarantined"))
        texts = {path: service.get(path)[1] for path in ("/metrics", "/readyz", "/healthz")}
        assert service.stop() == 0
        assert not leaks(world, texts | {"log": service.text()})


def test_a_person_is_forgotten_beside_the_running_service(world: World, config: Path, tmp_path: Path) -> None:
    with Service(config, tmp_path) as service:
        until("a first delivery", lambda: settled(world))
        gone = next(world.salesforce_people())
        others = {it.key for it in world.people()} - {gone.key}
        there = command("-c", config, "forget", gone.email)
        assert there.code == 1
        assert f"crm {gone.record_id} is there as far as is known" in there.err
        assert "nothing was erased" in there.err
        world.salesforce.delete("Contact", gone.record_id)
        until("seen gone", lambda: _gone(config, gone.email))
        asked = command("-c", config, "forget", gone.email, stdin="n\n")
        assert (asked.code, "This cannot be undone" in asked.err) == (1, True)
        done = command("-c", config, "forget", gone.email.upper(), "--yes")
        assert (done.code, "points stay under forgotten:" in done.out) == (0, True), done
        kept = b"".join(it.read_bytes() for it in world.folder.glob("acme.db*")).lower()
        assert gone.key.encode() not in kept
        assert min(others).encode() in kept
        assert command("-c", config, "forget", gone.email, "--yes").code == 1
        assert command("-c", config, "books", "--verify").code == 0
        assert service.stop() == 0


def test_of_a_person_that_is_forgotten_on_a_server_is_said_what_still_holds_it(
    world: World, config: Path, postgres: Postgres
) -> None:
    text, url = config.read_text(encoding="utf-8"), postgres.database()
    config.write_text(text.replace(f"sqlite:///{world.folder / 'acme.db'}", url), encoding="utf-8")
    while not settled(world):
        assert command("-c", config, "once").code == 0
    gone = next(world.salesforce_people())
    world.salesforce.delete("Contact", gone.record_id)
    while not _gone(config, gone.email):
        assert command("-c", config, "once").code == 0
    done = command("-c", config, "forget", gone.email, "--yes")
    assert done.code == 0
    assert "nothing of the person is left" not in done.out
    said = " ".join(done.out.split())
    assert "no query finds the person in the state any more; erase it in the wallet too" in said
    assert "its log, its replicas and backups hold the person for as long as they are kept" in said


def _gone(config: Path, email: str) -> bool:
    (life,) = command("-c", config, "explain", email, "--json").json()
    return all(it["state"] == "gone" for it in life["contacts"])
