"""Contacts that share emails: they are merged, move, go and come back, also while points are in doubt."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from enginelab import LOG, MEMBER_MAP
from quicklab import QuickLab
from soak import LONG, SOAK, Proven

from syncsvc.sandbox.faults import Kind

LIVES = 500 if SOAK else 4
STEPS = 12
EMAILS = ["a@example.org", "b@example.org", "shared@example.org"]
MOST = 3
"""Contacts of one CRM, so that they meet."""


class Life:
    """One life; `worth` is what each contact has said at last, those included that are gone."""

    def __init__(self, lab: QuickLab, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.lab = lab
        lab.begin_anew(f"life{seed}")
        self.scope = lab.store.reports._scope.organization_id
        self.worth: dict[tuple[str, str], int] = {}
        self.made = 0
        self.verbs: list[Callable[[str], None]] = [
            self.make,
            self.earn,
            self.earn,
            self.move,
            self.merge,
            self.merge,
            self.delete,
            self.restore,
        ]

    def make(self, crm: str) -> None:
        if len(self.lab.crms[crm].records) < MOST:
            self.made += 1
            record = f"{crm}{self.random.randrange(100)}-{self.made}"
            self.worth[crm, record] = self.random.choice([0, 50, 100])
            self.lab.crms[crm].put(record, email=self.random.choice(EMAILS), points=self.worth[crm, record])

    def earn(self, crm: str) -> None:
        if record := self.one(crm):
            self.worth[crm, record] += self.random.choice([10, 50])
            self.lab.crms[crm].put(record, points=self.worth[crm, record])

    def move(self, crm: str) -> None:
        if record := self.one(crm):
            self.lab.crms[crm].put(record, email=self.random.choice(EMAILS))

    def merge(self, crm: str) -> None:
        """Merge one into another, perhaps one that was deleted before."""
        winner = self.one(crm)
        losers = [it for at, it in self.worth if at == crm and it != winner]
        if winner and losers:
            loser = self.random.choice(losers)
            told_by = self.random.choice(["both", "winner", "loser"])
            told_by = told_by if loser in self.lab.crms[crm].records else "winner"
            self.lab.crms[crm].merge(winner, loser, told_by=told_by)
            self.worth[crm, winner] += self.worth.pop((crm, loser))
            self.lab.crms[crm].put(winner, points=self.worth[crm, winner])

    def delete(self, crm: str) -> None:
        if record := self.one(crm):
            self.lab.crms[crm].delete(record)

    def restore(self, crm: str) -> None:
        """Bring one back that was deleted, perhaps under another email."""
        gone = [it for at, it in self.worth if at == crm and it not in self.lab.crms[crm].records]
        if gone:
            record = self.random.choice(gone)
            email = self.random.choice(EMAILS)
            self.lab.crms[crm].put(record, email=email, points=self.worth[crm, record])

    def one(self, crm: str) -> str | None:
        return self.random.choice(sorted(self.lab.crms[crm].records) or [None])

    def step(self) -> None:
        for _ in range(self.random.randint(1, 3)):
            self.random.choice(self.verbs)(self.random.choice(["crm", "crm", "shop"]))
        if self.random.random() < 0.5:
            self.lab.fault(self.random.choice([Kind.RESET_BEFORE, Kind.RESET_AFTER]))
        if self.random.random() < 0.6:
            times = self.random.randint(1, 5)
            self.lab.fault(Kind.STATUS, LOG, skip=self.random.randint(0, 1), times=times, status=503)
        self.lab.cycle(full=self.random.random() < 0.2)

    def check(self, points_of: set[str]) -> None:
        assert self.lab.differences() == [], self.seed
        said = self.lab.store.accounts.summary()
        unsettled = said.in_flight + said.in_doubt + said.held
        assert said.earned == said.credited + unsettled + said.owed - said.fallen_behind, self.seed
        known = f"""SELECT max(credited) FROM member JOIN brand ON brand.id = member.brand
            WHERE organization_id = {self.scope}"""
        paid = self.lab.wallet.total_awarded() + unsettled + said.owed
        assert (self.lab.value(known) or 0) <= paid, self.seed
        most = sum(points for (crm, _), points in self.worth.items() if crm in points_of)
        assert self.lab.wallet.total_awarded() <= most, self.seed


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize("shop_has_points", [True, False])
def test_contacts_that_share_emails_are_awarded_nothing_twice(
    open_quick: Callable[..., QuickLab], proven: Proven, *, shop_has_points: bool
) -> None:
    shop = {} if shop_has_points else {"member": {it: MEMBER_MAP[it] for it in ("email", "name")}}
    lab = open_quick(
        connectors={"crm": {}, "shop": shop},
        policy={"on_email_change": "move"},
        brakes={"max_gone_share": "100%"},
    )
    for seed in range(LIVES):
        life = Life(lab, seed)
        for _ in range(STEPS):
            life.step()
            life.check({"crm", "shop"} if shop_has_points else {"crm"})
        lab.calm()
        lab.cycle(full=True)
        lab.calm()
        life.check({"crm", "shop"} if shop_has_points else {"crm"})
        assert lab.value("SELECT count(*) FROM stake") == 0, seed
    proven("lives of contacts that share emails", LIVES)
