"""Reading goes on where it was cut: nothing is lost, and no cursor moves without its page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from enginelab import Crash, Lab

from syncsvc.errors import TransientError
from syncsvc.stages import pull
from syncsvc.watch.report import Outcome

CONTACTS = 12
PAGE = 3


def fill(lab: Lab) -> None:
    lab.crm.page_size = PAGE
    for number in range(CONTACTS):
        lab.crm.put(f"r{number:02}", points=number + 1)


def all_awarded(lab: Lab, by: int = 0) -> bool:
    found = [lab.awarded(f"r{number:02}@example.org") for number in range(CONTACTS)]
    return found == [number + 1 + by for number in range(CONTACTS)]


@pytest.mark.parametrize("after", range(5))
def test_a_sweep_cut_after_any_page_goes_on_from_there(lab: Lab, after: int) -> None:
    fill(lab)
    lab.crm.fail(TransientError("the CRM is down"), after=after)
    assert lab.cycle().outcome is Outcome.TRANSIENT
    stored = lab.value("SELECT count(*) FROM contact")
    assert stored == min(CONTACTS, PAGE * after)
    report = lab.cycle()
    echoes = min(CONTACTS, PAGE * after) if after == CONTACTS // PAGE else 0  # the last cursor starts to poll
    assert report.read == CONTACTS - stored + echoes
    assert all_awarded(lab)
    lab.balanced()


@pytest.mark.parametrize("after", range(4))
def test_a_poll_cut_after_any_page_goes_on_from_there(lab: Lab, after: int) -> None:
    fill(lab)
    lab.cycle()
    lab.cycle()
    for number in range(CONTACTS):
        lab.crm.put(f"r{number:02}", points=number + 101)
    lab.crm.fail(TransientError("the CRM is down"), after=after)
    lab.cycle()
    assert lab.value("SELECT count(*) FROM contact WHERE points > 100") == PAGE * after
    assert lab.value("SELECT cursor FROM connector") == str(2 * CONTACTS + PAGE * after)
    pages = lab.crm.pages
    assert lab.cycle().outcome is Outcome.OK
    assert lab.crm.pages - pages >= CONTACTS // PAGE - after
    assert all_awarded(lab, by=100)
    lab.balanced()


@pytest.mark.parametrize("after", range(1, 4))
def test_a_process_that_dies_between_pages_has_stored_them_with_their_cursor(
    lab: Lab, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "TOGETHER", 1)  # else pages as small as these are stored together
    fill(lab)
    lab.crm.fail(Crash(), after=after)
    with pytest.raises(Crash):
        lab.cycle()
    assert lab.value("SELECT count(*) FROM contact") == PAGE * after
    assert lab.value("SELECT sweep_cursor FROM connector").endswith(f":r{PAGE * after - 1:02}")
    lab.restart()
    lab.cycle()
    assert all_awarded(lab)


def test_a_process_that_dies_before_small_pages_are_stored_together_reads_them_again(lab: Lab) -> None:
    fill(lab)
    lab.crm.fail(Crash(), after=2)
    with pytest.raises(Crash):
        lab.cycle()
    assert lab.value("SELECT count(*) FROM contact") == 0
    assert lab.value("SELECT sweep_cursor FROM connector") is None
    lab.restart()
    lab.cycle()
    assert all_awarded(lab)


def test_what_was_read_before_a_cut_is_delivered_at_once(lab: Lab) -> None:
    fill(lab)
    lab.crm.fail(TransientError("the CRM is down"), after=2)
    report = lab.cycle()
    assert (report.outcome, report.rows_landed) == (Outcome.TRANSIENT, 2 * PAGE)


def test_a_lost_cursor_means_that_everything_is_read_again(lab: Lab) -> None:
    fill(lab)
    lab.cycle()
    lab.cycle()
    lab.crm.put("r00", points=50)
    lab.crm.cursors_lost = True
    report = lab.cycle()
    assert len(lab.said("cursor_lost")) == 1
    assert report.read == CONTACTS
    assert lab.awarded("r00@example.org") == 50
    lab.balanced()


def test_an_old_cursor_in_the_middle_of_a_sweep_begins_the_sweep_anew(lab: Lab) -> None:
    fill(lab)
    lab.crm.fail(TransientError("the CRM is down"), after=2)
    lab.cycle()
    lab.crm.cursors_lost = True
    lab.cycle()
    lab.cycle()
    assert all_awarded(lab)
    lab.balanced()


def test_a_contact_made_while_a_sweep_is_cut_is_not_taken_for_vanished(lab: Lab) -> None:
    fill(lab)
    lab.cycle()
    lab.cycle()
    lab.crm.fail(TransientError("the CRM is down"), after=3)
    lab.cycle(full=True)
    # The poll of the next cycle brings the contact; the sweep is past its place in the order.
    lab.crm.put("a-new-one", points=5)
    report = lab.cycle()
    assert report.gone == 0
    assert lab.value("SELECT state FROM contact WHERE record_id = 'a-new-one'") == 0


def test_a_contact_made_again_while_a_sweep_is_cut_is_not_taken_for_vanished(lab: Lab) -> None:
    fill(lab)
    lab.crm.put("a-former-one")
    lab.cycle()
    lab.crm.delete("a-former-one")
    lab.cycle()
    lab.crm.fail(TransientError("the CRM is down"), after=3)
    lab.cycle(full=True)
    lab.crm.put("a-former-one", points=5)
    assert lab.cycle().gone == 0
    assert lab.value("SELECT state FROM contact WHERE record_id = 'a-former-one'") == 0


def test_a_sweep_that_began_under_another_mapping_is_not_taken_for_complete(
    open_lab: Callable[..., Lab],
) -> None:
    lab = open_lab(connectors={"crm": {"write_back": {}}})  # or our own write-backs would bring each contact
    fill(lab)
    lab.crm.fail(TransientError("the CRM is down"), after=2)
    lab.cycle()
    mapped = {"email": "{email}", "name": "Mx {name}", "points": "{points}"}
    lab.restart(connectors={"crm": {"write_back": {}, "member": mapped}})
    lab.calm()
    names = {lab.profile(f"r{number:02}@example.org")["name"] for number in range(CONTACTS)}
    assert names == {"Mx Ada"}


def test_a_changed_mapping_reads_everything_again_and_sends_what_differs(lab: Lab) -> None:
    fill(lab)
    lab.crm.put("r00", name="Zoe")
    lab.cycle()
    lab.cycle()
    mapped = {
        "email": "{email}",
        "name": {"field": "name", "values": {"Zoe": "Ms Zoe"}, "default": "Ada"},
        "points": "{points}",
    }
    lab.restart(connectors={"crm": {"member": mapped}})
    report = lab.cycle()
    assert (report.read, report.rows_sent, report.points_sent) == (CONTACTS, 1, 0)
    assert lab.profile("r00@example.org")["name"] == "Ms Zoe"
    assert lab.cycle().changed == 0


def test_a_stop_between_pages_is_obeyed_and_resumed(lab: Lab) -> None:
    fill(lab)
    report = lab.cycle(stopping=lambda: lab.crm.pages >= 2)
    assert report.outcome is Outcome.STOPPED
    assert lab.value("SELECT count(*) FROM contact") == 2 * PAGE
    lab.cycle()
    assert all_awarded(lab)


def test_a_sweep_comes_when_it_is_due_and_finds_what_polling_missed(open_lab: Callable[..., Lab]) -> None:
    lab = open_lab(schedule={"sweep_every": "1h"})
    fill(lab)
    lab.cycle()
    lab.cycle()
    lab.crm.records["r03"]["points"] = 400  # a change that the feed never tells
    lab.cycle(after=1800)
    assert lab.awarded("r03@example.org") == 4
    lab.cycle(after=1801)
    assert lab.awarded("r03@example.org") == 400


def test_a_sweep_that_lost_its_place_does_not_count_as_read(lab: Lab) -> None:
    lab.crm.page_size = 1
    for number in range(3):
        lab.crm.put(f"r{number}")
    lab.crm.fail(TransientError("the CRM is down"), after=1)
    lab.cycle()
    lab.crm.cursors_lost = True
    assert lab.cycle().connectors["crm"].read_until is None
    assert lab.cycle().connectors["crm"].read_until is not None
