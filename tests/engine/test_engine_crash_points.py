"""The process dies at every commit and at both edges of every remote call of one rich cycle.

Two connectors, four batches of points, one of profiles, one batch in doubt from before. The boundaries are
placed here, not by hooks in the product; before each death everything is as it was at the first.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from enginelab import SETTLED, Crash
from quicklab import QuickLab
from soak import LONG, Proven
from sqlalchemy import Connection

from syncsvc.sandbox.faults import Kind

CRM = {"a": 10, "b": 20, "c": 30, "d": 40, "g": 50, "h": 60}
SHOP = {"p": 70, "q": 80}
EARNED = {"a": 18, "b": 25, "c": 34, "d": 44, "g": 50, "h": 60, "moved": 5, "p": 75, "q": 84, "e": 7, "f": 9}
"""What every member has in the end; h's contact becomes moved's, and brings its history along."""
SPREAD = 5
"""Tests over which the boundaries are spread, to run side by side."""


class Reaper:
    """Lets the process die at its `fatal`-th boundary, and counts them by name."""

    def __init__(self, lab: QuickLab, fatal: int | None) -> None:
        self.lab = lab
        self.fatal = fatal
        self.passed: list[str] = []
        self.dead = False
        self._turn = threading.Lock()  # connectors are read and written to at once

    def edge(self, name: str) -> None:
        with self._turn:
            if not self.dead:
                self.passed.append(name)
                self.dead = len(self.passed) == self.fatal
            if self.dead:  # nothing that would still run, such as a `finally`, is carried out
                raise Crash

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Place the boundaries around everything that the process does inside the block."""
        lab = self.lab
        database, crms = lab.database, lab.crms.values()
        storage: Any = database._storage
        writing, serve = storage.writing, lab.serve

        @contextmanager
        def mortal_writing(*held: Any) -> Iterator[Connection]:
            with writing(*held) as connection:
                yield connection
                self.edge("before commit")
            self.edge("after commit")

        async def mortal_serve(scope: Any, *arguments: Any) -> None:
            call = f"{scope['method']} {scope['path']}"
            self.edge(f"before {call}")
            await serve(scope, *arguments)
            self.edge(f"after {call}")

        def mortal_read(read: Any, cursor: str | None) -> Iterator[Any]:
            self.edge("before a read of the CRM")
            for page in read(cursor):
                self.edge("after a page of the CRM")
                yield page

        def mortal_write(write: Any, value: Any) -> Any:
            self.edge("before a write-back")
            outcome = write(value)
            self.edge("after a write-back")
            return outcome

        storage.writing = mortal_writing
        lab.serve = mortal_serve  # type: ignore[method-assign]
        for crm in crms:
            crm.read = lambda cursor, read=crm.read: mortal_read(read, cursor)  # type: ignore[method-assign,misc]
            crm.write = lambda value, write=crm.write: mortal_write(write, value)  # type: ignore[method-assign,misc]
        try:
            yield
        finally:
            del storage.__dict__["writing"], lab.__dict__["serve"]
            for crm in crms:
                del crm.__dict__["read"], crm.__dict__["write"]


def prepare(lab: QuickLab, *, landed: bool) -> None:
    """Bring everything to where the rich cycle begins."""
    crm, shop = lab.crms["crm"], lab.crms["shop"]
    crm.page_size = shop.page_size = 4
    for record, points in CRM.items():
        crm.put(record, points=points)
    for record, points in SHOP.items():
        shop.put(record, points=points)
    shop.put("z", email="a@example.org", points=999)  # linked to a member that another contact owns
    lab.cycle()
    crm.put("a", points=15)
    crm.put("b", points=25)
    lab.fault(Kind.RESET_AFTER if landed else Kind.RESET_BEFORE)
    lab.cycle()

    crm.put("c", points=34)
    crm.put("d", points=44)
    crm.put("e", points=7)
    crm.put("f", points=9)
    shop.put("p", points=74)
    shop.put("q", points=84)
    crm.put("g", name="Eve")
    crm.put("h", email="moved@example.org", points=65)


def play(lab: QuickLab, fatal: int | None, *, after: float) -> list[str]:
    """Let the process die at a boundary of the rich cycle and life go on; returns those it passed."""
    crm, shop = lab.crms["crm"], lab.crms["shop"]
    reaper = Reaper(lab, fatal)
    try:
        with reaper.watching():
            lab.cycle(after=after)
    except Crash:
        lab.restart()
    whole_batches(lab)

    crm.put("a", points=18, name="Bea")
    shop.put("p", points=75)
    crm.delete("g")
    for wait in (SETTLED,):
        lab.cycle(after=wait)
        not_too_much(lab)
    lab.cycle(after=SETTLED, full=True)
    return reaper.passed


def wallet_calls(passed: list[str]) -> list[str]:
    """Return the edges of calls to the wallet, which come in one order whichever connector is faster."""
    return [it for it in passed if " /" in it]


def whole_batches(lab: QuickLab) -> None:
    """Assert that whatever the wallet has applied was written down before it was sent."""
    rows = "SELECT count(*) FROM batch b JOIN brand ON brand.id = b.brand WHERE organization_id ="
    assert len(lab.wallet.imports) <= lab.value(f"{rows} {lab.scope}")


def not_too_much(lab: QuickLab) -> None:
    for email, paid in lab.truth().items():
        assert paid <= EARNED[email.partition("@")[0]], email


def whole(lab: QuickLab) -> None:
    lab.silent()
    assert lab.truth() == {f"{name}@example.org": points for name, points in EARNED.items()}
    assert lab.profile("a@example.org")["name"] == "Bea"
    assert "expires_at" in lab.profile("h@example.org")
    assert lab.quarantine() == {}
    for crm in lab.crms.values():
        for record in crm.records.values():
            assert record["wallet_status"] == "imported"
            assert record["wallet_time"] == lab.wallet.log_time("brand-1", str(record["email"]))
    booked = f"FROM member JOIN brand ON brand.id = member.brand WHERE organization_id = {lab.scope}"
    assert lab.rows(f"SELECT sum(credited), sum(unsettled) {booked}") == [(sum(EARNED.values()), 0)]


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize("part", range(SPREAD))
@pytest.mark.parametrize(
    ("landed", "after"),
    [(False, SETTLED), (True, SETTLED), (False, 60)],
    ids=["the doubt is refuted", "the doubt has landed", "the doubt stays"],
)
def test_a_death_at_any_boundary_of_a_rich_cycle_loses_and_doubles_nothing(
    tmp_path: Path, part: int, proven: Proven, *, landed: bool, after: float
) -> None:
    connectors: dict[str, Any] = {"crm": {}, "shop": {}}
    policy = {"on_email_change": "move"}
    with QuickLab(tmp_path, connectors=connectors, policy=policy, wallet={"batch_size": 2}) as lab:
        prepare(lab, landed=landed)
        begun = lab.keep()
        boundaries = play(lab, None, after=after)
        whole(lab)
        kinds = Counter(boundaries)
        print(len(boundaries), dict(kinds))  # noqa: T201 - the count is part of the proof
        assert kinds["before POST /v2/import"] == kinds["after POST /v2/import"] >= 4
        assert kinds["before GET /import/log"] == kinds["after GET /import/log"] >= 2
        assert kinds["before a read of the CRM"] == 2
        assert kinds["after a page of the CRM"] >= 3
        assert kinds["before a write-back"] == kinds["after a write-back"] >= 8
        assert kinds["before commit"] == kinds["after commit"] >= 20
        deaths = range(1 + part, len(boundaries) + 1, SPREAD)
        for fatal in deaths:
            lab.go_back(begun)
            passed = play(lab, fatal, after=after)
            assert len(passed) == fatal
            assert not Counter(passed) - kinds
            calls = wallet_calls(passed)
            assert calls == wallet_calls(boundaries)[: len(calls)]
            whole(lab)
    proven("deaths at a boundary of a cycle", len(deaths))
