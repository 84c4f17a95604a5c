"""Any three events in one member's life, in any order, end with exactly what was earned.

What was awarded is read from the wallet's own ledger. A small model beside it knows the only thing that the
log can be wrong about: another writer who moves an entry just when a request of ours was lost.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from enginelab import BRAND, SETTLED
from quicklab import Moment, QuickLab
from soak import LONG, SOAK, Proven

from syncsvc.sandbox.faults import Kind

START = 100
WINDOW = SETTLED
"""Seconds after a request within which an entry that moves is taken for its effect."""


class Story:
    """One contact's life; `high` is the most that its CRM ever said it earned.

    `lost` are points to `lost_to` whose request never arrived, which nobody knows yet, since `lost_at`;
    `deceived` those that another writer made look landed.
    """

    def __init__(self, lab: QuickLab, *, cycles: bool = False) -> None:
        self.lab = lab
        lab.crm.overlap = 3
        self.cycles = cycles
        self.number = 0
        self.record = "r0"
        self.email = "e0@example.org"
        self.sent_to = self.email
        self.alive, self.unread = True, False
        self.total = self.high = START
        self.lost, self.lost_to, self.lost_at = 0, self.email, lab.clock.now()
        self.deceived = 0
        lab.crm.put(self.record, email=self.email, points=self.total)
        lab.cycle()

    # The events.

    def award(self) -> None:
        self._earn(50)
        self._put()

    def spend(self) -> None:
        self._earn(-30)
        self._put()

    def edit(self) -> None:
        self._put(name="Eve")

    def edit_back(self) -> None:
        self._put(name="Ada")

    def change_email(self) -> None:
        if self.unread:  # a contact whose first email nobody has read is another person
            self._put()
            self.cycle()
        self.number += 1
        self.email = f"e{self.number}@example.org"
        self._put()

    def delete(self) -> None:
        if self.alive:
            self.lab.crm.delete(self.record)
            self.alive = False

    def create_again(self) -> None:
        # Under an email that nobody has read yet it would be another person too.
        for _ in range(3):
            if self.email != self.sent_to:
                self.cycle(SETTLED, full=True)
        self.email = self.sent_to  # the change of a contact that went before it was read never was
        fields = dict(self.lab.crm.records.get(self.record, {"name": "Ada"}))
        self.delete()
        self.number += 1
        self.record, self.alive, self.unread = f"r{self.number}", True, True
        fields = {"name": fields["name"], "email": self.email, "points": self.total}
        self.lab.crm.put(self.record, **fields)

    def lose_before(self) -> None:
        self._earn(50)
        self._put()
        fault = self.lab.fault(Kind.RESET_BEFORE)
        self.cycle()
        points = self._sent_points()
        if fault.struck and points:
            self.lost, self.lost_to, self.lost_at = points, self.email, self.lab.clock.now()

    def lose_after(self) -> None:
        self._earn(50)
        self._put()
        self.lab.fault(Kind.RESET_AFTER)
        self.cycle()

    def commit_late(self) -> None:
        self._earn(50)
        self.lab.crm.put("else", email="else@example.org")
        self.lab.crm.commit_late(self.record, 1, email=self.email, points=self.total)
        self.alive = True
        self.lab.wallet.knobs.apply_seconds = 90
        self.lab.fault(Kind.HTML_AFTER, status=502)
        self.cycle()
        self.lab.wallet.knobs.apply_seconds = 0

    def write_elsewhere(self) -> None:
        for member in list(self.lab.wallet.members(BRAND)):
            self.lab.wallet.touch(BRAND, member.email)
        passed = (self.lab.clock.now() - self.lost_at).total_seconds()
        if self.lost and passed <= WINDOW and self.lab.wallet.member(BRAND, self.lost_to):
            self._deceive()

    def _deceive(self) -> None:
        self.deceived += self.lost
        self.lost = 0

    def _sent_points(self) -> int:
        return sum(row["points"] for row in self.lab.sent)

    def cycle(self, after: float = 60, *, full: bool = False) -> None:
        self.lab.cycle(after, full=full)
        self.lab.wallet.faults.clear()
        self.unread = self.unread and not self.alive
        if (self.lab.clock.now() - self.lost_at).total_seconds() > SETTLED:
            self.lost = 0
        if self.lab.wallet.member(BRAND, self.email) is not None:
            self.sent_to = self.email

    def _earn(self, points: int) -> None:
        self.total += points
        self.high = max(self.high, self.total)

    def _put(self, **fields: str) -> None:
        self.lab.crm.put(self.record, email=self.email, points=self.total, **fields)
        self.alive = True

    # The proof.

    def play(self, verb: str) -> None:
        VERBS[verb](self)
        if self.cycles and verb != "cycle":
            self.cycle()
        self.never_more()

    def never_more(self) -> None:
        assert sum(self.lab.truth().values()) <= self.high

    def end(self) -> None:
        self.cycle(SETTLED)
        self.never_more()
        if self.lab.quarantine():  # an email change waited for the end of a doubt
            self.cycle(SETTLED, full=True)
            self.never_more()
        awarded = sum(self.lab.truth().values())
        if self.alive:
            assert self.total <= awarded + self.deceived <= self.high
        self.lab.silent()
        books = f"FROM member JOIN brand ON brand.id = member.brand WHERE organization_id = {self.lab.scope}"
        assert self.lab.rows(f"SELECT sum(credited), sum(unsettled) {books}") == [
            (awarded + self.deceived, 0)
        ]
        if self.deceived:  # what rests on no more than the window is told in the books
            graded = "SELECT sum(points) FROM ledger WHERE grade = 'window' AND organization_id ="
            assert self.lab.value(f"{graded} {self.lab.scope}") >= self.deceived
        assert self.lab.quarantine() == {}
        if self.alive:
            record = self.lab.crm.records[self.record]
            assert record["wallet_status"] == "imported"
            assert self.lab.profile(self.email)["name"] == record["name"]
            assert record["wallet_time"] == self.lab.wallet.log_time(BRAND, self.email)


VERBS: dict[str, Callable[[Story], None]] = {
    "award": Story.award,
    "spend-down": Story.spend,
    "edit": Story.edit,
    "edit back": Story.edit_back,
    "email change": Story.change_email,
    "delete": Story.delete,
    "re-create": Story.create_again,
    "lost answer before commit": Story.lose_before,
    "lost answer after commit": Story.lose_after,
    "late commit": Story.commit_late,
    "another writer moves the log": Story.write_elsewhere,
    "cycle": Story.cycle,
}

HALVES = (tuple(VERBS)[:6], tuple(VERBS)[6:])


class Teller:
    """Tells stories; those that begin alike go on from the moment at which they part."""

    def __init__(self, lab: QuickLab, *, cycles: bool) -> None:
        self.lab = lab
        begun = Story(lab, cycles=cycles)
        self._told: list[tuple[str, Story, Moment]] = [("", begun, lab.keep())]

    def tell(self, verbs: Sequence[str]) -> None:
        """Play a story to its end, and prove it."""
        path = ["", *verbs[:-1]]
        while path[: len(self._told)] != [verb for verb, _, _ in self._told]:
            del self._told[-1]
        _, before, moment = self._told[-1]
        self.lab.go_back(moment)
        story = copy.copy(before)
        for verb in verbs[len(self._told) - 1 : -1]:
            story.play(verb)
            self._told.append((verb, copy.copy(story), self.lab.keep()))
        story.play(verbs[-1])
        story.end()


def tell(folder: Path, stories: Sequence[Sequence[str]], *, cycles: bool = False) -> int:
    """Play stories, in the order of what they have in common; returns how many."""
    failed: dict[str, str] = {}
    with QuickLab(folder, policy={"on_email_change": "move"}) as lab:
        teller = Teller(lab, cycles=cycles)
        for verbs in stories:
            try:
                teller.tell(verbs)
            except AssertionError as error:
                failed[", ".join(verbs)] = str(error).partition("\n")[0]
    assert failed == {}
    return len(stories)


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize("half", range(len(HALVES)))
@pytest.mark.parametrize("first", VERBS)
def test_every_sequence_of_three_events_ends_with_what_was_earned(
    tmp_path: Path, first: str, half: int, proven: Proven
) -> None:
    stories = [(first, second, third) for second in HALVES[half] for third in VERBS]
    proven("sequences of three events", tell(tmp_path, stories))


@pytest.mark.timeout(LONG)
@pytest.mark.parametrize("first", VERBS)
def test_every_sequence_of_events_with_cycles_between_ends_with_what_was_earned(
    tmp_path: Path, first: str, proven: Proven
) -> None:
    """Two events; three in the soak."""
    thirds = [(third,) for third in VERBS] if SOAK else [()]
    stories = [(first, second, *third) for second in VERBS for third in thirds]
    proven("sequences of events with cycles between", tell(tmp_path, stories, cycles=True))
