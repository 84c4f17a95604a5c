"""Stories of contacts that are merged, move, go and come back, told in short, and what is awarded in all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest
from enginelab import LOG
from quicklab import QuickLab
from test_engine_restore import put

from syncsvc.doubts import cases
from syncsvc.sandbox.faults import Kind
from syncsvc.sandbox.wallet_knobs import PointsMode
from syncsvc.state.doubts import Choice

Settings = Mapping[str, Any]
MOVE: Settings = {"policy": {"on_email_change": "move"}}
TWO: Settings = {"connectors": {"crm": {}, "shop": {}}}
PLAIN: Settings = {
    **MOVE,
    "connectors": {"crm": {}, "shop": {"member": {"email": "{email}", "name": "{name}"}}},
}
ADOPT: Settings = {"first_run": "adopt_points"}
FOREVER = 1_000_000


class Story(NamedTuple):
    """What happens, and the least and the most that may be awarded in all: `due`, where no more is said.

    a@s100: contact a has the email s and 100 points, a@-: it has none; -a: it is deleted; a>b: it is merged
    into b, which alone tells; a<b: into b, as the tombstone of a tells;
    a>b": as both tell. A dot is a cycle, ! one that reads
    everything, ~ cycles until all is settled, ? lets the next import's answer be lost, % the request, and the
    log be silent for a while, ?? and %% until ^; x lets it be refused. From 0 on, rows without points do not
    move the log. B keeps a backup, P puts it back; L says of
    what is held that it landed, N that it did not. R runs on without the shop, R' without the CRM, A with
    both; S sets points instead of adding them, S' adds again. shop: is said before what happens there.
    """

    settings: Settings
    steps: str
    due: int
    most: int | None = None


SHARED = {
    "gone while points are set, and back elsewhere": Story(MOVE, "a@a100 ~ S -a ~ S' ~ a@y100 ~", 100),
    "gone while points are set, and merged": Story({}, "S a@a100 c@c0 ~ -a ~ S' ~ a>c c@c100 ~", 100),
    "its connector out while points are set, and back elsewhere": Story(
        {**MOVE, **TWO}, "shop:a@a100 c@c0 ~ S R ~ S' ~ A shop:a@y100 ~", 100
    ),
    "gone, and merged while points are set": Story({}, "a@a100 c@c0 ~ -a ~ S ~ a>c c@c100 ~", 200),
    "moved in doubt, gone, proven, and back": Story(MOVE, "b@f50 ?? . b@b50 . -b . ^ ~ b@b90 ~", 90),
    "moved in doubt, gone, refuted, and back": Story(MOVE, "b@f50 %% . b@b50 . -b . ^ ~ b@b90 ~", 90),
    "moved in doubt, gone, proven, and back elsewhere": Story(
        MOVE, "b@f50 ?? . b@b50 . -b . ^ ~ b@c90 ~", 90
    ),
    "moved in doubt, gone, refuted, and back elsewhere": Story(
        MOVE, "b@f50 %% . b@b50 . -b . ^ ~ b@c90 ~", 90
    ),
    "moved in doubt, with more owed, gone, proven, and back": Story(
        MOVE, "b@f50 ?? . b@b70 . -b . ^ ~ b@c90 ~", 90
    ),
    "merged in doubt, gone, proven, and back": Story({}, "b@f50 c@c0 ?? . b>c c@c50 . -c . ^ ~ c@c90 ~", 90),
    "merged in doubt, gone, proven, and merged on": Story(
        {}, "b@f50 c@c0 d@d0 ?? . b>c c@c50 . -c . ^ ~ c>d d@d90 ~", 90
    ),
    "restored after the other was merged": Story(MOVE, "a@s100 b@b0 . x@s0 . -a . x>b . a@s100 . !", 100),
    "restored after the other moved": Story(MOVE, "a@s100 . x@s0 . -a . x@x0 . a@s100 . !", 100),
    "both are gone, one is merged": Story(MOVE, "a@s100 b@b0 . x@s0 . -a -x . x>b . a@s100 . !", 100),
    "one goes and one moves at once": Story(MOVE, "a@s100 . x@s0 . -a x@x0 . a@s100 . !", 100),
    "told merged after the other moved": Story(MOVE, "x@s100 . a@s0 b@b0 . -x . a@a0 . x>b b@b100 . !", 100),
    "two into two": Story(
        MOVE, "x@s100 . y@s130 b@b0 c@c0 . -x ! ! -y . x>b b@b100 . y>c c@c130 . !", 130, 230
    ),
    "merged into one that was never read alive": Story(MOVE, 'a@t50 . c@u0 a>c" c@u50 b@w0 c>b b@w50 .', 50),
    "merged into one that was never read alive, long before": Story(
        MOVE, "b@t50 a@w0 . d@u0 b<d d@u50 -d . d@u50 d>a a@w50 .", 50
    ),
    "passed on over its own": Story(
        MOVE, "x@s100 t@a0 . y@s130 z@s0 . -x ! ! y@a130 . x>y y@a230 . -t ! !", 130, 230
    ),
    "duplicates are merged one by one": Story(
        MOVE, "a@s100 b@b0 . z@s0 . a>b b@b100 . z>b . b@b150 . !", 150
    ),
    "who stayed is merged into who left": Story(MOVE, "a@s100 . z@s0 . a@a100 . z>a . a@a150 . !", 150),
    "there and back": Story(MOVE, "a@s100 . z@s0 . a@a100 . a@s100 . -z ! a@s150 ! !", 150),
    "two lives of one source": Story(
        MOVE,
        "o@t0 w@t0 . a@s100 . z@s0 . -a . z@z0 . c@s60 . d@s0 . -c . a>w w@t100 . c>w w@t160 . w@w160 ~",
        160,
    ),
    "one row comes twice": Story(
        MOVE,
        "o@t0 w@t0 . a@s100 . b@s0 . d@s0 . a@s150 ? . a>w w@t150 . b>w . ~ w@w150 ~ w@w190 ~",
        190,
    ),
    "passed on to who was paid in a former life": Story(
        MOVE, "a@s100 . z@s0 . -a . z@z0 . y@s0 . a@s100 . -y ! !", 100
    ),
    "passed on, and gone again": Story(
        MOVE, "a@s100 . z@s0 . -a . z@z0 . y@s0 . a@s0 . -y . -a . a@a100 ! !", 100
    ),
    "owed, paid, and owed to another": Story(MOVE, "a@s100 x . -a . n@s150 a@a100 . ~", 150),
    "owed, paid, and owed to others": Story(
        MOVE, "a@s40 ~ a@s100 ? . -a . ~ n@s150 ~ n@s200 x . -n x . m@s0 ~ a@a100 ~", 150
    ),
    "points are set from then on": Story({}, "a@a100 . a@a150 ? . S ~", 150),
    "a row moves before its outcome, and comes twice": Story(
        MOVE, "y@s100 w@t0 . x@s0 . y@s150 ? . -y . x>w . ~ y>w w@t150 ~ w@t190 ~", 190
    ),
    "owed, and the next owner moves, who has no points": Story(
        PLAIN, "a@s100 shop:m@s0 shop:n@s0 ~ a@s150 x . x -a . x shop:m@n0 . ~ a@y150 . ~", 150
    ),
    "owed, and the next owner comes to have points": Story(
        PLAIN, "a@s100 shop:n@s0 ~ a@s150 x . x -a . x A . x . ~ a@y150 . ~", 150
    ),
    "restored after the other moved, beside a doubt": Story(
        MOVE, "a@s100 ~ z@s0 . a@s150 ? . -a . z@z0 . a@s150 . ~", 150
    ),
    "restored after the other was merged, beside a doubt": Story(
        {}, "a@s100 b@b0 ~ z@s0 . a@s150 ? . -a . z>b . a@s150 . ~", 150
    ),
    "both leave, beside a doubt": Story(MOVE, "a@s100 ~ z@s0 . a@s150 ? . -a . -z . a@a150 z@z0 . ~", 150),
    "one leaves after the other, beside a doubt": Story(
        MOVE, "a@s100 ~ z@s0 . a@s150 ?? . -a . z@z0 . a@a150 . ^ ~", 150
    ),
    "the other leaves first, beside a doubt": Story(
        MOVE, "a@s100 ~ z@s0 . a@s150 ?? . -a . -z . a@a150 . z@z150 . ^ ~", 150
    ),
    "a row moves, and its new account is not its member": Story(
        MOVE, "y@s100 a@t200 . x@s0 w@t0 . y@s150 ? . y@y150 . -a . x>w . ~ a>y y@y350 ~", 350
    ),
}
RETIRED = {
    "merged meanwhile": Story(TWO, "a@a100 b@b0 . R' . a>b b@b100 A . ~", 100),
    "moved meanwhile": Story({**MOVE, **TWO}, "a@a100 . R' . a@y100 A . ~", 100),
    "moved meanwhile, with points in doubt": Story({**MOVE, **TWO}, "a@a100 ? . R' . a@y130 A . ~", 130),
    "moved meanwhile, with fewer points than are in doubt": Story(
        {**MOVE, **TWO}, "a@a100 ? . a@a80 . R' . a@y130 A . ~", 130
    ),
    "moved meanwhile, after a merge": Story(
        {**MOVE, **TWO}, "a@a100 b@b50 . b>a a@a150 . R' . a@y170 A . ~", 170
    ),
    "moved meanwhile, after it came back unread": Story(
        {**MOVE, **TWO}, "a@s100 . z@s0 . -a . a@s100 . -z . R' . a@y130 A . ~", 130
    ),
    "moved meanwhile, from one that left, beside a doubt": Story(
        {**MOVE, **TWO}, "a@s100 shop:z@s0 ~ a@s150 ? . R' . shop:z@z0 . a@s150 A . ~", 150
    ),
    "back as it was": Story(TWO, "a@a100 b@b0 . R' . a@a120 A . ~", 120),
    "no heir": Story(TWO, "a@s100 . shop:z@s0 . R . -a . n@s150 . ~", 150),
}
ADOPTED = {
    "moves": Story({**MOVE, **ADOPT}, "a@-100 b@b7 . a@s100 ~ a@y150 ~", 50),
    "comes back": Story(ADOPT, "a@-100 b@b7 . a@s100 ~ -a . a@s150 ~", 50),
    "merged into one that stays as it was": Story(ADOPT, "a@s100 z@s0 ~ z>a ~ a@s150 ~", 50),
    "merged unread into one that stays as it was": Story(ADOPT, "a@-100 b@b7 . a>b ~ b@b57 ~", 50),
    "passed on beside a doubt": Story(ADOPT, "a@s50 z@s80 ~ a@s90 % . -a . ! ~ z@s100 ~", 20),
    "moved beside a doubt": Story(
        {**ADOPT, **MOVE}, "a@s50 z@s80 b@b0 ~ b@b40 % . z@b80 -b . ! ~ z@b100 ~", 20
    ),
    "earns": Story(ADOPT, "a@-100 b@b7 . a@s100 ~ a@s150 ~", 50),
    "merged": Story(ADOPT, "a@-100 b@b7 . a>b b@b107 ~ b@b117 ~", 10),
    "passed on": Story({**MOVE, **ADOPT}, "a@s50 z@s80 ~ -a ~ z@s100 ~", 20),
    "owns nothing at first": Story({**MOVE, **ADOPT}, "a@s50 z@s100 ~ z@z100 ~ z@z130 ~", 30),
}
RESTORED = {
    "linked": Story(MOVE, "a@s50 ~ B z@z100 ~ z@s100 ~ P ~ z@z100 ~", 150),
    "quarantined, then merged": Story({}, "a@a10 z@z100 ~ B z@z150 ~ z@-150 ~ P ~ z>a a@a160 ~", 160),
    "merged before": Story({}, "a@a10 z@z100 ~ B z@z150 ~ z>a a@a160 ~ P ~ L ~", 160),
    "merged before, with one that is not known": Story({}, "a@a10 ~ B z@z100 ~ z>a a@a110 ~ P ~ L ~", 110),
    "gone in the backup": Story({}, "a@s100 z@s0 ~ B P ~ z>a ~ a@s150 ~", 150),
    "passed on since, and nothing was awarded": Story({}, "a@s10 z@s100 ~ B -a P . ~ N ~ z@s150 ~", 150),
    "passed on to who was away": Story(MOVE, "a@s0 z@s0 ~ B z@z100 ~ z@s100 . -a P ~ L ~", 100),
    "in doubt, then merged": Story({}, "a@a100 b@b0 ~ a@a150 % . B a>b b@b150 . ~ P ~ L ~", 150),
    "in doubt, and another has a stake": Story(
        MOVE, "0 a@s100 z@s0 ~ a@s150 %% . a@a150 . . B ^ ~ z@s200 P ~ L ~", 150
    ),
    "merged, then in doubt": Story({}, "a@a100 b@b0 ~ a@a150 % . a>b b@b150 . B ~ P ~ L ~", 150),
    "in doubt, then shared and left": Story(MOVE, "a@a100 z@a0 ~ a@a150 % . B a@y150 . ~ P ~ L ~", 150),
    "merged with one that is not known, and new itself": Story(
        {}, "a@a10 ~ B z@z100 ~ b@b0 z>b b@b100 P ~ L ~", 110
    ),
    "taken over from a connector that is out": Story(
        {**MOVE, **TWO}, "a@s0 shop:z@s0 ~ B shop:z@z100 ~ shop:z@s100 . R' P ~ L ~", 100
    ),
    "merged with one that is not known, as the other tells": Story(
        MOVE, "a@s50 b@b0 ~ B n@n40 ~ n<a a@s90 P ~ L ~", 90
    ),
    "a connector that comes back later": Story(TWO, "a@a100 shop:b@b50 ~ R ~ B P ~ a@a150 A . ~", 200),
    "another connector comes back, as one moves": Story(
        {**MOVE, **TWO}, "a@s100 z@s0 b@b0 shop:x@x0 ~ R ~ B z@z50 ~ z@s50 ~ P ~ A z@b50 ~ z@z50 ~", 150
    ),
    "another connector comes back, as one is merged": Story(
        TWO, "a@a100 z@z50 c@c0 shop:x@x0 ~ R ~ B z@z90 ~ z@-90 ~ P ~ A c@-0 z>c ~ c@c90 ~", 190
    ),
    "another connector comes back, beside a doubt": Story(
        {**TWO, **MOVE}, "a@a100 z@a0 shop:x@x0 ~ R ~ B P ~ a@a150 %% . a@y150 . A . ^ ~", 150
    ),
    "owed, then merged into one that is gone": Story(
        MOVE, "a@a100 b@b0 ~ a@a150 x . B a>b b@b150 ~ -b P ~ L ~", 150
    ),
    "in doubt, then merged into one that is gone": Story(
        MOVE, "a@a100 b@b0 ~ a@a150 % . B a>b b@b150 ~ -b P ~ L ~", 150
    ),
    "new since, and under another email by now": Story({}, "b@b0 ~ B a@t50 ~ a@s50 P ~ L ~", 50),
    "new since, and its new email is held": Story({}, "b@b0 ~ B a@t50 ~ a@s50 ~ P ~ L ~", 50),
    "new since, and not awarded yet": Story({}, "b@b0 ~ B a@t50 P ~ N ~", 50),
    "a connector that is out": Story(TWO, "shop:a@a100 ~ B shop:a@a150 ~ R P . A ~ L ~", 150),
    "moved before": Story(MOVE, "z@z100 ~ B z@z150 ~ z@n150 ~ P ~ L ~", 150),
    "moved before, to one that is gone": Story(MOVE, "z@z100 b@b0 ~ B z@z150 ~ -b z@b150 ~ P ~", 150),
    "passed on before": Story(MOVE, "a@s10 ~ B z@z100 ~ z@s100 ~ -a . P ~ L ~", 110),
    "quarantined, then linked": Story(MOVE, "a@s10 z@z100 ~ B z@z150 ~ z@-150 . P ~ z@s150 ~ -a ~", 160),
}
STORIES = {
    f"{chapter}: {name}": story
    for chapter, stories in (
        ("shared", SHARED),
        ("retired", RETIRED),
        ("adopted late", ADOPTED),
        ("restored", RESTORED),
    )
    for name, story in stories.items()
}


class Teller:
    """Lets a story happen."""

    def __init__(self, lab: QuickLab) -> None:
        self.lab = lab
        self.backup = ""

    def tell(self, steps: str) -> None:
        for step in steps.split():
            crm, _, what = step.rpartition(":")
            if not self.cycles(what) and not self.copies(what):
                self.happens(crm or "crm", what)

    def cycles(self, what: str) -> bool:
        lab = self.lab
        match what:
            case "." | "!":
                lab.cycle(full=what == "!")
            case "~":
                lab.calm()
                lab.cycle(full=True)
                lab.calm()
            case "x":
                lab.fault(Kind.STATUS, status=429)
            case "?" | "%" | "??" | "%%":
                lab.fault(Kind.RESET_AFTER if what[0] == "?" else Kind.RESET_BEFORE)
                lab.fault(Kind.STATUS, LOG, skip=1, times=FOREVER if what[1:] else 20, status=503)
            case "0":
                lab.wallet.knobs.zero_moves_log = False
            case "^":
                lab.wallet.faults.clear()
            case _:
                return False
        return True

    def copies(self, what: str) -> bool:
        match what:
            case "B":
                self.backup = self.lab.ground.contents()
            case "P":
                put(self.lab, self.backup)
            case "L" | "N":
                self.says(Choice.LANDED if what == "L" else Choice.REFUTED)
            case "R":
                self.lab.restart(connectors={"crm": {}})
            case "R'":
                self.lab.restart(connectors={"shop": {}})
            case "S" | "S'":
                self.lab.wallet.knobs.points = PointsMode.SET if what == "S" else PointsMode.ADD
                self.lab.restart(wallet={"points": "set" if what == "S" else "add"})
            case "A":
                self.lab.restart(connectors=TWO["connectors"])
            case _:
                return False
        return True

    def says(self, choice: Choice) -> None:
        store = self.lab.store
        held = [it for it in cases(store, self.lab.organization.config.wallet) if it.suspect.held]
        assert held
        for it in held:
            which, now = {it.suspect.row: it.evidence}, self.lab.clock.now()
            store.doubts.decide(it.suspect.batch, choice, which, by="ann", now=now)

    def happens(self, where: str, what: str) -> None:
        crm = self.lab.crms[where]
        if what[0] == "-":
            crm.delete(what[1:])
        elif ">" in what:
            crm.merge(what[2], what[0], told_by="both" if what[3:] else "winner")
        elif "<" in what:
            crm.tombstones = True
            crm.merge(what[2], what[0], told_by="loser")
        else:
            email = None if what[2] == "-" else f"{what[2]}@example.org"
            crm.put(what[0], email=email, points=int(what[3:]))


@pytest.mark.parametrize("name", STORIES)
def test_what_is_awarded_in_all(open_quick: Callable[..., QuickLab], name: str) -> None:
    story = STORIES[name]
    lab = open_quick(brakes={"max_gone_share": "100%"}, **story.settings)
    Teller(lab).tell(story.steps)
    said = lab.store.accounts.summary()
    assert (said.in_flight, said.in_doubt, said.held, said.owed) == (0, 0, 0, 0)
    assert story.due <= lab.wallet.total_awarded() <= (story.most or story.due)
    assert lab.differences() == []
