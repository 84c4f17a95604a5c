"""A running installation moves from one storage to another, and goes on as if nothing had happened."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from enginelab import SETTLED
from grounds import GROUNDS, File, Ground, Tables
from postgres import Postgres
from quicklab import QuickLab
from sqlalchemy import event, select
from town import Answer, command

from syncsvc.errors import LeaseLostError, StateError
from syncsvc.sandbox.faults import Kind
from syncsvc.state.backups import backing_up
from syncsvc.state.condition import condition
from syncsvc.state.copying import copy_state
from syncsvc.state.database import Database
from syncsvc.state.restoration import put_back
from syncsvc.state.tables import ORGANIZATION


def busy(lab: QuickLab) -> None:
    """Bring about something of everything: a doubt, a quarantine, a hold."""
    for number in range(5):
        lab.crm.put(f"r{number}", points=10 + number)
    lab.crm.put("nobody", email=None)
    lab.cycle()
    lab.crm.put("r0", points=50_000)
    lab.crm.put("r1", points=30, name="Zo\u00eb \U0001f600")
    lab.crm.delete("r2")
    lab.fault(Kind.RESET_AFTER)
    lab.cycle()
    lab.fault(Kind.RESET_BEFORE)
    lab.crm.put("r3", points=99)
    lab.cycle()


def move(lab: QuickLab, ground: Ground) -> None:
    lab.close()
    with Database.open(lab.state) as old, Database.open(ground.state) as new:
        copy_state(old, new)
    lab.ground = ground
    lab.restart()


def counters(lab: QuickLab) -> list[tuple[Any, ...]]:
    return [lab.rows(f"SELECT max(id), count(*) FROM {name}")[0] for name in ("batch", "ledger", "member")]


def test_an_installation_moves_to_a_server_and_back_and_loses_nothing(
    open_quick: Callable[..., QuickLab], postgres: Postgres, tmp_path: Path
) -> None:
    GROUNDS.server = None  # it begins in a file, whatever the others do
    lab = open_quick(brakes={"max_points_per_member": 5000})
    busy(lab)
    assert lab.store.settlements.in_doubt()
    before, counted = lab.contents(), counters(lab)
    own, there = lab.ground, Tables(postgres.empty(), [])
    move(lab, there)
    assert counters(lab) == counted
    back = tmp_path / "back"
    back.mkdir()
    lab.close()
    home = File(back)
    with Database.open(there.state) as old, Database.open(home.state) as new:
        copy_state(old, new)
    assert sorted(home.contents().splitlines()) == sorted(before.splitlines())
    lab.restart()
    lab.calm()
    assert lab.release()
    lab.calm()
    lab.balanced()
    lab.silent()
    assert counters(lab)[0][0] > counted[0][0]  # numbers go on where they were
    lab.close()
    there.end()
    lab.ground = own
    lab.restart()


def test_nothing_is_copied_over_what_is_there(quick: QuickLab, postgres: Postgres) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.database.close()
    url = postgres.database()
    with Database.open(quick.state) as old, Database.open(url) as new:
        assert copy_state(old, new)["member"] == 1
        with pytest.raises(StateError, match=r"is not empty: it has rows in .*member"):
            copy_state(old, new)
    quick.restart()
    quick.cycle(SETTLED)


def test_a_source_that_is_read_slowly_loses_no_copy(quick: QuickLab, postgres: Postgres) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.close()
    url, short = postgres.database(), timedelta(seconds=0.2)  # a write ends after half a lease without a word
    with Database.open(quick.state) as old, Database.open(url, short) as new:
        wait = threading.Event().wait

        @event.listens_for(old._storage.engine, "before_cursor_execute")
        def slow(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            if "FROM member" in statement:
                wait(0.4)

        assert copy_state(old, new)["member"] == 1
    quick.restart()


ORGANIZATION_FILE = """
organization_id = "01JCacme"
first_run = "import"
[service]
state = "{state}"
[wallet]
base_url = "http://127.0.0.1:1"
token = {{ env = "NOT_SET" }}
brand_id = "brand-1"
storecard = "card-1"
[connectors.crm]
type = "csv"
path = "none.csv"
key = "id"
[connectors.crm.member]
email = "{{email}}"
name = "{{name}}"
points = "{{points}}"
"""


def run(config: Path, *arguments: str) -> Answer:
    return command("-c", config, "state", "copy", *arguments)


def test_the_command_copies_to_what_is_configured_and_verifies_both(
    quick: QuickLab, postgres: Postgres, tmp_path: Path
) -> None:
    for record in "abc":
        quick.crm.put(record, points=10)
    quick.cycle()
    config, url = tmp_path / "acme.toml", postgres.empty()
    config.write_text(ORGANIZATION_FILE.format(state=url), encoding="utf-8")
    refused = run(config, quick.state)
    assert refused.code == 75, refused.err
    said = "its cycles are run by" if quick.state.startswith("postgresql") else "is in use by"
    assert said in refused.err
    quick.close()
    foreign = tmp_path / "other.toml"
    foreign.write_text(config.read_text(encoding="utf-8").replace("01JCacme", "01JCother"), encoding="utf-8")
    of_others = run(foreign, quick.state)
    assert (of_others.code, "FROM is the state of others (acme): name" in of_others.err) == (2, True)
    told = run(config, quick.state)
    assert told.code == 0, told.err
    assert "3 of member" in told.out
    assert "acme: the books of the original balance" in told.out
    assert "acme: the books of the copy balance" in told.out
    shown = " ".join(told.out.split())
    assert (
        "was the original a backup, or older than what was sent? then first `syncsvc state restore" in shown
    )
    went_on = (
        r"was copied to PostgreSQL database .*, where more may have been sent since, and would award again"
    )
    with pytest.raises(StateError, match=went_on):
        Database.open(quick.state)
    assert re.search(went_on, condition(quick.state).problems[0].message)
    again = run(config, quick.state, f"sqlite:///{tmp_path}/third.db")
    assert (again.code, "was copied to" in again.err) == (75, True)
    Database.open(url).close()
    with Database.open_older(quick.state) as database:
        put_back(database, [], by="ann")
    quick.restart()


def test_a_copy_of_a_backup_runs_no_cycle_before_it_is_taken_on(
    quick: QuickLab, postgres: Postgres, tmp_path: Path
) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    config, url, backup = tmp_path / "acme.toml", postgres.empty(), tmp_path / "backup.db"
    config.write_text(ORGANIZATION_FILE.format(state=url), encoding="utf-8")
    with backing_up(quick.state, backup):
        pass
    assert run(config, f"sqlite:///{backup}").code == 0
    told = rf"was copied from {backup}, beside which no \.gate says that it is the newest, and would award"
    for _ in range(2):
        with pytest.raises(StateError, match=told):
            Database.open(url)
    with Database.open_older(url) as database:
        put_back(database, [], by="ann")
    Database.open(url).close()


def on_server(quick: QuickLab, url: str, target: Path) -> str:
    """Bring what the lab has sent to a server, as the original of more copies."""
    quick.crm.put("a", points=10)
    quick.cycle()
    quick.close()
    with Database.open(quick.state) as old, Database.open(url) as new:
        copy_state(old, new)
    return f"sqlite:///{target}/copy.db"


def test_a_state_with_a_service_that_is_up_is_not_copied(
    quick: QuickLab, postgres: Postgres, config: Path, tmp_path: Path
) -> None:
    url = postgres.empty()
    copy = on_server(quick, url, tmp_path)
    with Database.open(url) as idle:
        idle.leases.serve()
        refused = run(config, url, copy)
        assert (refused.code, not (tmp_path / "copy.db").exists()) == (75, True)
        assert "which may run cycles on it: stop it first; one that was killed is forgotten" in refused.err
    assert run(config, url, copy).code == 0
    quick.restart()


def test_nobody_who_is_up_runs_a_cycle_on_an_original_that_was_copied(
    quick: QuickLab, postgres: Postgres, config: Path, tmp_path: Path
) -> None:
    url = postgres.empty()
    copy = on_server(quick, url, tmp_path)
    with Database.open(url) as idle:
        with idle.reading() as connection:
            organization = connection.scalar(select(ORGANIZATION.c.id))
        assert organization is not None
        assert run(config, url, copy).code == 0
        for _ in range(2):
            with pytest.raises(StateError, match=r"was copied to .*copy\.db, where more may have been sent"):
                idle.leases.hold(organization)
    there = config.with_name("there") / "acme.toml"
    there.parent.mkdir()
    there.write_text(ORGANIZATION_FILE.format(state=url), encoding="utf-8")
    told = command("-c", there, "status")
    assert (told.code, "no cycle runs on it" in told.err) == (1, True)
    with Database.open_older(url) as database:
        put_back(database, [], by="ann")
    with Database.open(url) as again, Database.open(url) as beside:
        lease = again.leases.hold(organization)
        beside.bar("was copied elsewhere, and")
        with pytest.raises(LeaseLostError), again.of(organization, lease).writing():
            pass
    quick.restart()


@pytest.mark.parametrize("other", [False, True])
def test_a_file_that_holds_no_state_is_not_copied_and_stays_as_it_is(
    config: Path, tmp_path: Path, *, other: bool
) -> None:
    source = tmp_path / "source" / "state.db"
    source.parent.mkdir()
    source.touch()
    if other:
        with closing(sqlite3.connect(source)) as connection:
            connection.execute("CREATE TABLE of_others (id INTEGER)")
    before = source.read_bytes()
    told = run(config, f"sqlite:///{source}")
    assert (told.code, told.out) == (2, "")
    said = "the database of something else" if other else "empty"
    assert f"there is no state in FROM: {source} is {said}" in told.err
    assert list(source.parent.iterdir()) == [source]
    assert source.read_bytes() == before
    assert not (tmp_path / "none.db").exists()


def file_of(lab: QuickLab) -> Path:
    return Path(lab.state.removeprefix("sqlite:///"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a configuration whose own state is nowhere, to name both sides of a copy."""
    config = tmp_path / "acme.toml"
    config.write_text(ORGANIZATION_FILE.format(state=f"sqlite:///{tmp_path}/none.db"), encoding="utf-8")
    return config


def test_a_copy_that_knows_all_that_was_sent_may_take_the_place_of_the_original(
    open_quick: Callable[..., QuickLab], postgres: Postgres, config: Path
) -> None:
    GROUNDS.server = None
    lab = open_quick()
    lab.crm.put("a", points=10)
    lab.cycle()
    own, there = lab.ground, Tables(postgres.empty(), [])
    move(lab, there)
    lab.crm.put("b", points=20)
    lab.cycle(SETTLED)
    lab.close()
    lab.ground = own
    file_of(lab).unlink()
    told = run(config, there.state, lab.state)
    assert told.code == 0, told.err
    sent = int(there.rows("SELECT max(id) FROM batch")[0][0])
    mark = file_of(lab).with_name("lab.db.gate").read_text(encoding="utf-8")
    assert int(mark.split()[1]) >= sent  # an older one in its place is refused from now on
    lab.restart()
    lab.calm()
    lab.balanced()
    lab.silent()
    assert [lab.awarded(f"{it}@example.org") for it in "ab"] == [10, 20]
    there.end()


_KILLED = """
import os, signal, sys
from syncsvc.cli import main
from syncsvc.state.mark import MarkedGate
move, marks = MarkedGate.move, []
def moved(self, mark):
    marks.append(mark.batch)
    if {before} and len(marks) == 2:  # the first is the original's
        os.kill(os.getpid(), signal.SIGKILL)
    move(self, mark)
    if len(marks) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
MarkedGate.move = moved
main()
"""


@pytest.mark.parametrize("before", [True, False])
def test_a_copy_that_was_killed_as_it_was_marked_can_be_made_again(
    quick: QuickLab, config: Path, tmp_path: Path, *, before: bool
) -> None:
    busy(quick)
    quick.close()
    source, copy = (f"sqlite:///{tmp_path}/{it}.db" for it in ("source", "copy"))
    with Database.open(quick.state) as old, Database.open(source) as new:
        copy_state(old, new)
    killer = [sys.executable, "-c", _KILLED.format(before=before)]
    asked = ["-c", str(config), "state", "copy", source, copy]
    killed = subprocess.run([*killer, *asked], check=False, capture_output=True, text=True)
    assert killed.returncode == -9, killed.stderr
    if not before:
        with pytest.raises(StateError, match="knows nothing, in the place of a state that has sent"):
            Database.open(copy)
    assert run(config, source, copy).code == 0
    Database.open(copy).close()
    quick.restart()


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        (None, "is the place of a state that has sent 2 batches, and"),
        ("0123456789abcdef 1", "is the place of a state that has sent 1 batches, and"),  # of another history
        ("?", ".gate is damaged, which says"),
    ],
)
def test_a_copy_that_may_not_know_all_that_was_sent_is_refused_and_nothing_is_made(
    open_quick: Callable[..., QuickLab], postgres: Postgres, config: Path, mark: str | None, said: str
) -> None:
    GROUNDS.server = None
    lab = open_quick()
    lab.crm.put("a", points=10)
    lab.cycle()
    lab.close()
    url = postgres.empty()
    assert run(config, lab.state, url).code == 0
    lab.ground.change("DELETE FROM meta WHERE name = 'barred'")  # of which a version before knew nothing
    lab.restart()
    lab.crm.put("b", points=20)
    lab.cycle(SETTLED)
    lab.close()
    aside, gate = file_of(lab).with_name("aside.db"), file_of(lab).with_name("lab.db.gate")
    file_of(lab).rename(aside)
    if mark is not None:
        gate.write_text(mark, encoding="utf-8")
    before = gate.read_bytes()
    told = run(config, url, lab.state)
    assert told.code == 75
    assert said in told.err
    assert "Copy the newest there is; where this is the newest, name another file" in told.err
    assert "restore" not in told.err
    assert (file_of(lab).exists(), gate.read_bytes()) == (False, before)
    if mark is None:  # what the message says can be done
        assert run(config, url, f"sqlite:///{config.parent}/another.db").code == 0
    aside.rename(file_of(lab))


def test_books_that_do_not_balance_are_told(quick: QuickLab, tmp_path: Path) -> None:
    quick.crm.put("a", points=10)
    quick.cycle()
    config = tmp_path / "acme.toml"
    config.write_text(ORGANIZATION_FILE.format(state=f"sqlite:///{tmp_path}/copy.db"), encoding="utf-8")
    quick.ground.change("UPDATE member SET credited = 11")
    quick.close()
    told = run(config, quick.state, "--json")
    assert told.code == 1, told.err
    assert json.loads(told.out)["differences"]["copy"]["acme"] >= 1
    quick.ground.change("UPDATE member SET credited = 10")
    quick.restart()
