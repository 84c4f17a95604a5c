"""What a plan says of a delivery before it is made: kinds, fields, reasons, and nobody's data unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from enginelab import Lab

from syncsvc.cycle import Cycle
from syncsvc.rules.brakes import ALL
from syncsvc.state.preview import Carried, Effect, Kind, Sample, Skipped

Open = Callable[..., Lab]


def effects(lab: Lab, *, show_values: bool = False) -> dict[Kind, Effect]:
    """Read the CRMs, send nothing, and return what a delivery would do, by kind."""
    lab.wait(60)
    cycle = Cycle(lab.organization, send=False)
    cycle.run()
    lab.allowed = cycle.allowed  # type: ignore[attr-defined]
    found = lab.store.preview.effects(cycle.allowed, show_values=show_values)
    totals = lab.store.outbox.totals(cycle.allowed.most_points)
    if cycle.allowed.flows == ALL:
        assert sum(it.members for it in found) == totals.members
        assert sum(it.points for it in found) == totals.points
    return {it.kind: it for it in found}


def fields(lab: Lab) -> tuple[Carried, ...]:
    found: tuple[Carried, ...] = lab.store.preview.fields(lab.allowed)  # type: ignore[attr-defined]
    return found


@pytest.fixture
def lab(open_lab: Open) -> Lab:
    lab = open_lab(policy={"on_gone": "expire"})
    for number, record in enumerate("abcdef"):
        lab.crm.put(record, points=number)
    return lab


def test_every_new_member_is_counted_and_some_are_named(lab: Lab) -> None:
    found = effects(lab)
    samples = tuple(Sample(f"crm {record}", points, None) for points, record in enumerate("abc"))
    assert found == {Kind.NEW: Effect(Kind.NEW, 6, 15, 5, samples)}
    assert fields(lab) == (
        Carried("external_reference", 6, 0),
        Carried("name", 6, 0),
        Carried("storecard", 6, 0),
    )


def test_what_is_delivered_is_due_no_more(lab: Lab) -> None:
    lab.cycle()
    lab.calm()
    assert effects(lab) == {}
    assert fields(lab) == ()


def test_changes_are_told_by_kind(lab: Lab) -> None:
    lab.calm()
    lab.crm.put("a", name="Other")
    lab.crm.put("b", points=101)
    lab.crm.put("c", name="Other", points=202)
    lab.crm.delete("d")
    lab.crm.put("g", points=7)
    found = effects(lab)
    assert {
        kind: (it.members, it.points, it.largest, it.samples[0].record) for kind, it in found.items()
    } == {
        Kind.NEW: (1, 7, 7, "crm g"),
        Kind.PROFILE: (1, 0, 0, "crm a"),
        Kind.BOTH: (1, 200, 200, "crm c"),
        Kind.POINTS: (1, 100, 100, "crm b"),
        Kind.EXPIRED: (1, 0, 0, found[Kind.EXPIRED].samples[0].record),
    }
    assert Carried("name", 1, 2) in fields(lab), "the rows of points alone change no profile"


def test_values_are_shown_to_those_who_ask_and_to_nobody_else(lab: Lab) -> None:
    lab.crm.put("a", name="Zebrawood")
    assert "Zebrawood" not in repr(effects(lab))
    assert "example.org" not in repr(effects(lab))
    (first, *_) = effects(lab, show_values=True)[Kind.NEW].samples
    values: dict[str, Any] = dict(first.values or {})
    assert (values["email"], values["brand_id"], values["name"]) == ("a@example.org", "brand-1", "Zebrawood")


def test_what_a_brake_holds_is_no_part_of_it(open_lab: Open) -> None:
    lab = open_lab(brakes={"max_points_per_cycle": 50, "max_points_per_member": 40})
    lab.crm.put("a", points=41)
    lab.crm.put("b", points=30)
    lab.crm.put("c", points=25)
    assert {kind: (it.members, it.points) for kind, it in effects(lab).items()} == {Kind.NEW: (3, 0)}


def test_reasons_are_counted_the_most_frequent_first(lab: Lab) -> None:
    for number in range(5):
        lab.crm.put(f"bad{number}", points=-5)
    lab.crm.put("none", email="")
    effects(lab)
    found: tuple[Skipped, ...] = lab.store.preview.skipped()
    assert [(it.side, it.field, it.contacts) for it in found] == [
        ("mapping", "points", 5),
        ("mapping", "email", 1),
    ]
    assert found[0].samples == ("crm bad0", "crm bad1", "crm bad2")
    assert "example.org" not in repr(found)
