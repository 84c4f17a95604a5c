"""What was settled once stays settled: a name, a contact that returns, a change of what points mean."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from enginelab import LOG, Lab

from syncsvc.errors import ConfigurationError
from syncsvc.sandbox.faults import Kind
from syncsvc.watch.report import Outcome


def test_an_organization_under_another_name_is_refused_instead_of_awarded_anew(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.cycle()
    with pytest.raises(ConfigurationError, match='set name = "acme"'):
        lab.restart(name="acme-eu")
    assert lab.awarded("a@example.org") == 10


def test_a_deleted_contact_that_returns_under_another_email_waits_for_a_person(lab: Lab) -> None:
    lab.crm.put("a", points=100)
    lab.cycle()
    lab.crm.delete("a")
    lab.cycle()
    lab.crm.put("a", points=100, email="other@example.org")
    report = lab.cycle()
    assert (lab.awarded("other@example.org"), report.quarantined) == (0, 1)


def test_points_that_were_off_are_awarded_once_they_are_turned_on(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab(wallet={"points": "off"})
    lab.crm.put("a", points=30)
    lab.cycle()
    assert lab.awarded("a@example.org") == 0
    lab.restart(wallet={"points": "add"})
    lab.calm()
    assert lab.awarded("a@example.org") == 30
    lab.balanced()


def test_profiles_flow_while_the_log_cannot_be_read(lab: Lab) -> None:
    lab.crm.put("a", points=10)
    lab.crm.put("b", points=20)
    lab.cycle()
    lab.crm.put("a", points=15)
    lab.crm.put("b", points=20, name="Zoe")
    lab.fault(Kind.STATUS, LOG, times=None)
    report = lab.cycle(after=600)
    assert (report.outcome, report.lanes) == (Outcome.TRANSIENT, {"profile": 1})
    assert lab.profile("b@example.org")["name"] == "Zoe"
    assert lab.awarded("a@example.org") == 10


def test_a_brand_whose_transaction_was_undone_leaves_no_number_behind(lab: Lab) -> None:
    scope = lab.store.intake._scope
    with contextlib.suppress(ZeroDivisionError), scope.database.writing() as connection:
        first = scope.brand(connection, "brand-new")
        assert scope.brand(connection, "brand-new") == first
        raise ZeroDivisionError
    with scope.database.writing() as connection:
        other = scope.brand(connection, "brand-other")
        assert scope.brand(connection, "brand-new") != other


@pytest.mark.parametrize("mode", ["adopt_points", "adopt"])
def test_a_contact_that_the_first_read_could_not_map_is_adopted_when_it_can_be(
    open_lab: Callable[..., Lab], mode: str
) -> None:
    lab = open_lab(first_run=mode)
    lab.crm.put("a", points=100, email="no email")
    lab.cycle()
    lab.crm.put("a", points=100, email="a@example.org")
    lab.cycle()
    assert lab.awarded("a@example.org") == 0
    lab.crm.put("a", points=107, email="a@example.org")
    lab.calm()
    assert lab.awarded("a@example.org") == 7
