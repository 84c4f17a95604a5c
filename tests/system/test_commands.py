from __future__ import annotations

import json
import re
import shlex
import socket
from pathlib import Path

import pytest
from town import command, environment, said, settled, until

from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.world import BRAND, World

IMPORT = ("POST", "/v2/import")


def replace(config: Path, old: str, new: str) -> None:
    text = config.read_text(encoding="utf-8")
    assert old in text
    config.write_text(text.replace(old, new), encoding="utf-8")


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def test_check_finds_a_good_installation_in_order(config: Path) -> None:
    answer = command("-c", config, "check")
    assert (answer.code, answer.out.partition("\n")[0]) == (0, "✓ acme: everything is in order"), answer.err
    assert "connectors.marketing: 624,9" in answer.out
    assert f"there is no state in {config.parent / 'acme.db'} yet" in answer.out
    assert command("-c", config, "check", "--json").json() == {"acme": []}


def test_check_tells_a_state_that_knows_somebody_else(config: Path) -> None:
    assert command("-c", config, "once").code == 0
    renamed = config.rename(config.with_name("shop.toml"))
    text = renamed.read_text(encoding="utf-8")
    checked = command("-c", renamed, "check")
    assert (checked.code, "under the name acme" in " ".join(checked.out.split())) == (1, True)
    assert command("-c", renamed, "once").code == 78
    other = text.replace('organization_id = "', 'organization_id = "X')
    assert other != text
    renamed.write_text(other, encoding="utf-8")
    checked = command("-c", renamed, "check", "--json")
    assert (
        "the state does not know shop yet: every contact is new to it" in command("-c", renamed, "check").out
    )


def test_a_plan_is_made_on_a_copy_of_a_state_that_has_sent(world: World, config: Path) -> None:
    while not settled(world):
        assert command("-c", config, "once").code == 0
    world.edit(3)
    planned = command("-c", config, "plan", "--json")
    assert (planned.code, planned.json()[0]["totals"]["changed"] > 0) == (0, True)


def test_check_refuses_a_webhook_that_others_could_read(config: Path) -> None:
    (config.parent / "hook").write_text("http://hooks.example.org/s3cret-path", encoding="utf-8")
    text = config.read_text(encoding="utf-8")
    config.write_text(f'{text}\n[alerts]\nwebhook = {{ file = "{config.parent}/hook" }}\n', encoding="utf-8")
    checked = command("-c", config, "check", "--offline")
    assert (checked.code, "holds no https:// URL" in checked.out) == (1, True)
    assert "s3cret-path" not in checked.out + checked.err


def test_setup_makes_the_missing_field_after_asking(config: Path) -> None:
    replace(config, 'last_updated = "wallet_last_updated"', 'last_updated = "wallet_import_time"')
    assert "syncsvc setup" in command("-c", config, "check").out
    asked = command("-c", config, "setup", stdin="n\n")
    assert (asked.code, "make the contact property wallet_import_time" in asked.err) == (1, True)
    assert command("-c", config, "check").code == 1
    made = command("-c", config, "setup", "--yes", "--json")
    assert (made.code, [step["done"] for step in made.json()["acme"]]) == (0, [True, True])
    assert command("-c", config, "check").code == 0
    assert "every field that is written back exists" in command("-c", config, "setup").out


def test_setup_says_what_is_to_be_made_by_hand_where_it_cannot_make_it(config: Path) -> None:
    replace(config, "Wallet_Last_Updated__c", "Wallet_Zeit__c")
    told = command("-c", config, "setup", "--yes", "--json")
    crm, marketing = told.json()["acme"]
    assert (told.code, crm["done"], marketing["done"]) == (1, False, True)
    made = (
        "create a custom field of type Date/Time, its API name Wallet_Zeit__c, and give the user edit access"
    )
    assert made in crm["message"]
    checked = command("-c", config, "check")
    assert made in " ".join(checked.out.split())


def test_plan_sends_nothing_and_once_delivers_exactly_that_plan(world: World, config: Path) -> None:
    planned = command("-c", config, "plan", "--json")
    assert planned.code == 0, planned.err
    (plan,) = planned.json()
    members = len(world.balances())
    points = sum(it.expected for it in world.balances().values())
    assert (plan["totals"]["new"], plan["totals"]["points"], plan["read"]) == (members, points, 40)
    assert world.noise() == (0, 0, 0)
    assert command("-c", config, "status", "--json").json()["acme"]["status"]["members"] == 0
    assert command("-c", config, "plan", "--json").json() == planned.json()

    delivered = command("-c", config, "once", "--plan", plan["digest"], "--json")
    assert delivered.code == 0, delivered.err
    assert delivered.json()[0]["points_landed"] == points
    assert settled(world)


def test_a_plan_that_no_longer_holds_is_not_delivered(world: World, config: Path) -> None:
    plan = command("-c", config, "plan", "--json").json()[0]
    person = next(world.salesforce_people())
    world.salesforce.update("Contact", person.record_id, {"Loyalty_Points__c": person.points + 35})
    answer = command("-c", config, "once", "--plan", plan["digest"])
    assert answer.code == 1
    assert f"no longer plan {plan['digest']} of 20" in answer.out
    assert "Z: 1 member different, 35 points more" in answer.out
    assert (
        f"(crm {person.record_id} with {person.points + 35} points instead of {person.points})" in answer.out
    )
    assert world.noise() == (0, 0, 0)
    unknown = command("-c", config, "once", "--plan", "0123456789abcdef")
    assert (unknown.code, "which is not remembered" in unknown.out) == (1, True)
    again = command("-c", config, "plan", "--json").json()[0]["digest"]
    assert f"due now is plan {again} (39 new and 0 changed members" in answer.out
    assert command("-c", config, "once", "--plan", again).code == 0
    done = command("-c", config, "once", "--plan", again)
    assert (done.code, "nothing is due now: it was delivered already" in done.out) == (1, True)


def test_the_second_cycle_does_nothing_and_edits_are_delivered_by_later_ones(
    world: World, config: Path
) -> None:
    first = command("-c", config, "once")
    assert first.code == 0
    assert "acme: ok in " in first.out
    assert "sent 39 rows; 39 landed" in first.out
    assert settled(world)
    before = world.noise()
    second = command("-c", config, "once", "--json")
    assert (second.code, world.noise()) == (0, before)
    assert (second.json()[0]["rows_sent"], second.json()[0]["written_back"]) == (0, 0)
    world.edit(2)
    third = command("-c", config, "once", "--json")
    assert (third.code, third.json()[0]["changed"]) == (0, 4)
    # Points wait while the member's last entry in the log is too fresh to prove anything.
    until("the edits", lambda: settled(world) or (command("-c", config, "once").code and False))


def test_a_missing_crm_field_is_named_and_pauses_its_connector_alone(world: World, config: Path) -> None:
    replace(config, "{Loyalty_Points__c}", "{Loyalty_Pionts__c}")
    checked = command("-c", config, "check", "--json")
    assert checked.code == 1
    (problem,) = checked.json()["acme"]
    assert problem["where"].startswith("connectors.crm")
    assert "Loyalty_Pionts__c" in problem["where"] + problem["message"]
    assert problem["remedy"]

    cycle = command("-c", config, "once", "--json")
    assert cycle.code == 1
    assert "Loyalty_Pionts__c" in cycle.json()[0]["errors"][0]
    hubspot = {person.key: person.points for person in world.hubspot_people()}
    assert {it.email: it.awarded for it in world.wallet.members(BRAND)} == hubspot

    standing = command("-c", config, "status")
    assert standing.code == 1
    assert "unreadable crm" in standing.out
    assert "Loyalty_Pionts__c" in standing.out

    replace(config, "{Loyalty_Pionts__c}", "{Loyalty_Points__c}")
    assert command("-c", config, "once").code == 0
    assert command("-c", config, "status").code == 0
    everyone = {person.key for person in world.people()}
    assert {it.email for it in world.wallet.members(BRAND)} == everyone


def test_an_unreachable_wallet_is_passing_trouble_and_the_next_cycle_delivers(
    world: World, config: Path
) -> None:
    nowhere = f"http://127.0.0.1:{closed_port()}"
    replace(config, world.wallet_url, nowhere)
    answer = command("-c", config, "once", "--json")
    assert (answer.code, answer.json()[0]["outcome"]) == (75, "transient")
    assert answer.json()[0]["read"] == 40
    answer = command("-c", config, "plan", "--json")  # the log alone tells whether they were imported already
    (plan,) = answer.json()
    assert (answer.code, "/import/log" in plan["errors"][0]) == (75, True)
    assert plan["totals"]["new"] > 30
    replace(config, nowhere, world.wallet_url)
    assert command("-c", config, "once").code == 0
    assert settled(world)


def test_an_unreachable_crm_leaves_the_other_one_working(world: World, config: Path) -> None:
    nowhere = f"http://127.0.0.1:{closed_port()}"
    replace(config, world.hubspot_url, nowhere)
    checked = command("-c", config, "check", "--json")
    assert checked.code == 75
    assert [it["where"] for it in checked.json()["acme"]] == ["connectors.marketing"]
    cycle = command("-c", config, "once")
    assert cycle.code == 75
    assert "marketing" in cycle.out
    assert len(list(world.wallet.members(BRAND))) == 20
    replace(config, nowhere, world.hubspot_url)
    assert command("-c", config, "once").code == 0
    assert settled(world)


def test_a_refused_token_fails_its_connector_by_name_and_no_other(
    world: World, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUBSPOT_TOKEN", "pat-na1-revoked-0000-0000")
    checked = command("-c", config, "check", "--json")
    assert checked.code == 1
    assert [it["where"] for it in checked.json()["acme"]] == ["connectors.marketing"]
    cycle = command("-c", config, "once", "--json")
    assert (cycle.code, cycle.json()[0]["outcome"]) == (1, "degraded")
    assert len(list(world.wallet.members(BRAND))) == 20


def test_a_bad_contact_is_quarantined_with_its_reason_and_stops_nobody(world: World, config: Path) -> None:
    person = next(world.salesforce_people())
    world.salesforce.update("Contact", person.record_id, {"Loyalty_Points__c": -5})
    (plan,) = command("-c", config, "plan", "--json").json()
    (refusal,) = plan["refusals"]
    assert (refusal["connector"], refusal["record"], refusal["field"]) == ("crm", person.record_id, "points")
    assert (plan["quarantined"], plan["skipped"][0]["samples"]) == (1, [f"crm {person.record_id}"])
    told = command("-c", config, "plan")
    assert (told.code, f"crm {person.record_id}" in told.out, "@" in told.out) == (1, True, False)
    assert "@example.com, brand_id" in command("-c", config, "plan", "--show-values").out
    assert command("-c", config, "once").code == 1
    assert world.wallet.member(BRAND, person.email) is None
    assert len(list(world.wallet.members(BRAND))) == len(world.balances()) - 1
    assert command("-c", config, "status").code == 1

    world.salesforce.update("Contact", person.record_id, {"Loyalty_Points__c": 5})
    assert command("-c", config, "once").code == 0
    assert settled(world)


def test_what_a_brake_holds_goes_once_it_is_released(world: World, config: Path) -> None:
    replace(config, "[brakes]", "[brakes]\nmax_points_per_cycle = 1000")
    (plan,) = command("-c", config, "plan", "--json").json()
    assert "max_points_per_cycle" in plan["brakes"][0]
    shown = command("-c", config, "plan")
    assert re.search(r"members of these, held +│ +0 │\n│ points to award +│ +0 │", shown.out)
    assert said(shown, "cycle_finished")["plan"] is True
    assert command("-c", config, "once").code == 1
    assert world.wallet.ledger == []  # profiles flow, points do not

    (hold,) = command("-c", config, "release", "--json").json()["acme"]
    assert hold["brake"] == "max_points_per_cycle"
    assert "held by max_points_per_cycle" in command("-c", config, "status").out
    listed = command("-c", config, "release")
    assert (listed.code, f"syncsvc -c {config} release {hold['id']}" in listed.out) == (1, True)
    nobody = command("-c", config, "release", 99)
    assert (nobody.code, nobody.out) == (1, "")
    assert command("-c", config, "release", hold["id"], stdin="n\n").code == 1
    assert command("-c", config, "release", "--json").json() == {"acme": [hold]}

    released = command("-c", config, "release", hold["id"], "--by", "Ann", "--yes")
    assert (released.code, "released by Ann" in released.out) == (0, True)
    assert said(released, "hold_released")["brake"] == "max_points_per_cycle"
    while not settled(world):  # points wait until the entry of the profile's import is older
        assert command("-c", config, "once").code == 0
    world.edit(20)
    assert command("-c", config, "once").code == 1, "a release lets one delivery go, not all"


def test_where_nothing_is_held_the_list_of_it_is_no_trouble(config: Path) -> None:
    assert command("-c", config, "once").code == 0
    listed = command("-c", config, "release")
    assert (listed.code, "nothing is held" in listed.out) == (0, True)


def test_a_lost_state_awards_nobody_again(world: World, config: Path) -> None:
    while not settled(world):
        assert command("-c", config, "once").code == 0
    points = world.wallet.total_awarded()
    for file in world.folder.glob("acme.db*"):
        file.unlink()
    (plan,) = command("-c", config, "plan", "--json").json()
    assert "max_elsewhere" in plan["brakes"][0]
    shown = command("-c", config, "plan").out
    assert "deliver exactly this" not in shown
    due = plan["totals"]["new"]
    assert re.search(rf"members of these, held +│ +{due} │\n│ points to award +│ +0 │", shown)
    for lost in (command("-c", config, "once"), command("-c", config, "once")):
        assert (lost.code, "max_elsewhere" in lost.out) == (1, True)
    listed = command("-c", config, "release")
    (hold,) = command("-c", config, "release", "--json").json()["acme"]
    assert f"syncsvc -c {config} release {hold['id']} --adopt" in listed.out
    asks = {"--award": "Award them all the same?", "--adopt": "Count their points as awarded"}
    for option, asked in asks.items():
        assert asked in command("-c", config, "release", hold["id"], option, stdin="n\n").err
    for options in ((), tuple(asks)):
        unsaid = command("-c", config, "release", hold["id"], "--yes", *options)
        assert (unsaid.code, "put that one in place" in unsaid.err) == (2, True)
    assert command("-c", config, "release", "--json").json() == {"acme": [hold]}
    adopted = command("-c", config, "release", hold["id"], "--adopt", "--by", "Ann", "--yes")
    assert (adopted.code, "members count as awarded and mailed" in adopted.out) == (0, True)
    assert said(adopted, "hold_released")["adopted"] > 0
    assert command("-c", config, "once").code == 0
    assert world.wallet.total_awarded() == points
    world.edit(5)
    while not settled(world):
        assert command("-c", config, "once").code == 0
    assert command("-c", config, "books", "--verify").code == 0


def test_a_plan_names_the_command_that_delivers_it(config: Path) -> None:
    def told(*asked: object) -> str:
        return command(*asked).out.partition("deliver exactly this: syncsvc ")[2].partition("\n")[0]

    (plan,) = command("-c", config, "plan", "--json").json()
    deliver = f"once --plan {plan['digest']}"
    with environment({"SYNCSVC_CONFIG": str(config)}):
        assert told("plan") == deliver
    assert told("-c", config, "plan") == f"-c {config} {deliver}"
    own, service = re.split(r"(?=\[service\])", config.read_text(encoding="utf-8"))
    service, rest = re.split(r"(?=\[schedule\])", service)
    config.write_text(own + rest, encoding="utf-8")
    config.with_name("service.toml").write_text(service, encoding="utf-8")
    assert told("-c", config.parent, "plan") == f"-c {config} {deliver}"
    assert command(*shlex.split(told("-c", config.parent, "plan"))).code == 0


def test_only_what_was_imported_elsewhere_can_be_adopted(config: Path) -> None:
    replace(config, "[brakes]", "[brakes]\nmax_points_per_cycle = 1000")
    assert command("-c", config, "once").code == 1
    (hold,) = command("-c", config, "release", "--json").json()["acme"]
    refused = command("-c", config, "release", hold["id"], "--adopt", "--yes")
    assert (refused.code, "--adopt and --award are for max_elsewhere" in refused.err) == (2, True)
    refused = command("-c", config, "release", "--adopt")
    assert (refused.code, "name the number of a hold" in refused.err) == (2, True)


def test_explain_tells_the_life_of_a_member(world: World, config: Path) -> None:
    person = next(world.salesforce_people())
    command("-c", config, "once")
    told = command("-c", config, "explain", f" {person.email.upper()} ")
    assert told.code == 0
    assert "the member is up to date: everything the CRM says is in the wallet" in told.out
    assert f"crm {person.record_id}: owner, active, points {person.points}" in told.out
    assert f"credited: points {person.points}, why awarded" in told.out
    (life,) = command("-c", config, "explain", person.email, "--json").json()
    assert (life["earned"], life["credited"], life["unsettled"]) == (person.points, person.points, 0)
    unknown = command("-c", config, "explain", "nobody@example.com")
    assert (unknown.code, "no member has this email" in unknown.out) == (1, True)


def test_a_lost_answer_is_told_as_doubt_until_the_log_settles_it(world: World, config: Path) -> None:
    replace(config, 'settle_after = "1s"', 'settle_after = "1h"')
    world.wallet.faults.add(Fault(Kind.RESET_BEFORE, *IMPORT))
    person = next(world.salesforce_people())
    assert command("-c", config, "once").code == 75
    standing = command("-c", config, "status", "--json")
    assert standing.code == 1
    assert standing.json()["acme"]["status"]["rows_in_doubt"] > 0
    assert "got no answer and is in doubt" in command("-c", config, "explain", person.email).out
    assert world.wallet.total_awarded() == 0


def test_sweep_reads_everything_again_and_sends_nothing(world: World, config: Path) -> None:
    command("-c", config, "once")
    before = world.noise()
    swept = command("-c", config, "sweep", "--json")
    assert (swept.code, world.noise()) == (0, before)
    assert swept.json()[0]["read"] >= 40


def test_status_tells_where_every_connector_stands(world: World, config: Path) -> None:
    early = command("-c", config, "status")
    assert early.code == 75
    assert "run a cycle first" in early.err
    command("-c", config, "once")
    told = command("-c", config, "status")
    points = sum(it.expected for it in world.balances().values())
    assert told.code == 0
    assert f"acme: 39 members, 0 to send, points {points:,} of {points:,} credited, 0 unsettled" in told.out
    status = command("-c", config, "status", "--json").json()["acme"]["status"]
    assert [(it["name"], it["contacts"]) for it in status["connectors"]] == [("crm", 20), ("marketing", 20)]


@pytest.mark.parametrize("name", ["check", "plan", "once", "sweep", "run", "status"])
def test_a_wrong_configuration_is_told_whole_and_nothing_starts(
    world: World, config: Path, name: str
) -> None:
    replace(config, 'first_run = "import"', 'first_run = "maybe"')
    replace(config, 'every = "200ms"', 'evry = "200ms"')
    replace(config, 'token = { env = "HUBSPOT_TOKEN" }', 'token = "pat-na1-literal-secret"')
    replace(config, 'points = "{loyalty_points}"', 'pionts = "{loyalty_points}"')
    answer = command("-c", config, name)
    assert (answer.code, answer.out) == (78, "")
    lines = answer.err.splitlines()
    keys = ["first_run", "schedule.evry", "connectors.marketing.token", "connectors.marketing.member.pionts"]
    assert [line.split(": ")[1] for line in lines] == keys
    assert all(line.startswith(f"{config}:") for line in lines)
    assert "literal-secret" not in answer.err
    assert "did you mean every?" in answer.err
    assert not (world.folder / "acme.db").exists()
    assert not sum(world.wallet.requests.values())


def test_a_missing_secret_is_a_problem_of_the_configuration(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HUBSPOT_TOKEN")
    monkeypatch.delenv("ACME_WALLET_TOKEN")
    answer = command("-c", config, "once")
    assert answer.code == 78
    assert [line for line in answer.err.splitlines() if "HUBSPOT_TOKEN is not set" in line]
    assert [line for line in answer.err.splitlines() if "ACME_WALLET_TOKEN is not set" in line]
    assert command("-c", config, "check", "--offline").code == 0


def test_usage_errors_exit_with_2(config: Path, tmp_path: Path) -> None:
    assert command("once").code == 2
    assert command("-c", config, "once", "--no-such-option").code == 2
    (tmp_path / "two").mkdir()
    for name in ("one", "two"):
        other = tmp_path / "two" / f"{name}.toml"
        text = config.read_text(encoding="utf-8").replace('organization_id = "', f'organization_id = "{name}')
        start, end = text.index("[service]"), text.index("[schedule]")
        other.write_text(text[:start] + text[end:], encoding="utf-8")
    answer = command("-c", tmp_path / "two", "once", "--plan", "0000000000000000")
    assert (answer.code, "one organization's file" in answer.err) == (2, True)


def test_schema_is_one_json_document_with_every_connector() -> None:
    schema = command("schema").json()
    assert schema["title"] == "syncsvc configuration"
    assert {"connector.csv", "connector.hubspot", "connector.salesforce"} <= schema["$defs"].keys()


def test_json_is_all_that_stands_on_standard_output(world: World, config: Path) -> None:
    person = next(world.salesforce_people())
    replace(config, 'log_level = "info"', 'log_level = "debug"')
    for arguments in (
        ["check"],
        ["plan"],
        ["once"],
        ["sweep"],
        ["status"],
        ["release"],
        ["books"],
        ["doubt"],
        ["doubt", "--history"],
        ["books", "--by", "member"],
        ["books", "--verify"],
        ["explain", person.email],
    ):
        answer = command("-c", config, *arguments, "--json")
        assert answer.code == 0, (arguments, answer)
        json.loads(answer.out)
        assert all(json.loads(line)["event"] for line in answer.err.splitlines())
