"""Shares: work spreads over replicas, settles, and nobody's organization is left alone."""

from __future__ import annotations

import pytest

from syncsvc.rules.sharing import Orphans, beyond, fair_share


@pytest.mark.parametrize("organizations", [0, 1, 2, 3, 7, 40, 1000])
@pytest.mark.parametrize("replicas", [1, 2, 3, 5])
def test_all_shares_together_hold_every_organization_and_are_even(organizations: int, replicas: int) -> None:
    share = fair_share(organizations, replicas)
    assert (replicas - 1) * share < organizations + replicas
    assert share * replicas >= organizations


@pytest.mark.parametrize("organizations", [1, 5, 12, 100])
@pytest.mark.parametrize("before", [1, 2, 4])
def test_a_replica_that_comes_has_its_share_after_one_look_of_each_and_nothing_moves_after(
    organizations: int, before: int
) -> None:
    held: list[set[str]] = [set() for _ in range(before)]
    names = [f"o{it}" for it in range(organizations)]
    moves = []
    for look in range(6):
        if look == 2:
            held.append(set())
        share, moved = fair_share(organizations, len(held)), 0
        for mine in held:
            let_go = set(beyond(share, dict.fromkeys(sorted(mine), False)))
            mine.difference_update(let_go)
            moved += len(let_go)
        for mine in held:
            free = [it for it in names if not any(it in them for them in held)]
            mine.update(free[: max(0, share - len(mine))])
        moves.append(moved)
        assert sorted(it for mine in held for it in mine) == sorted(names)
        assert max(len(mine) for mine in held) <= share
    assert moves[0] == moves[1] == moves[3] == moves[4] == moves[5] == 0


def test_those_that_wait_are_let_go_before_those_that_run() -> None:
    assert set(beyond(1, {"a": True, "b": False, "c": False})) == {"b", "c"}
    assert set(beyond(0, {"a": True, "b": False})) == {"a", "b"}
    assert beyond(3, {"a": True}) == []


def test_what_nobody_takes_for_a_while_is_taken_whatever_the_share_is() -> None:
    orphans = Orphans(30)
    for now in (0, 1, 2, 30):  # however often it is looked
        assert orphans.look({"a", "b"}, (), now=now) == set()
    assert orphans.look({"a"}, (), now=31) == {"a"}
    assert orphans.look((), (), now=32) == set()
    assert orphans.look({"a"}, (), now=33) == set()


def test_what_is_kept_beyond_the_share_counts_again_and_is_kept_for_longer_each_time() -> None:
    orphans, now, spans = Orphans(30), 0.0, []
    for _ in range(10):
        orphans.keep(["a"], now=now)
        begun = now
        while orphans.kept:
            now += 10
            orphans.look((), {"a"}, now=now)
        spans.append(now - begun)
        assert orphans.look({"a"}, (), now=now) == set()  # it was let go, and nobody took it
    assert spans == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]
    orphans.look((), (), now=now)  # somebody else has it
    orphans.keep(["a"], now=now)
    orphans.look((), {"a"}, now=now + 30)
    assert list(orphans.kept) == []
