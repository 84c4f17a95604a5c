"""What is left of a person: payloads go with their delivery, all else with `forget`; the books stay."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from enginelab import SETTLED, Lab

from syncsvc.sandbox.faults import Kind

Open = Callable[..., Lab]
EMAIL = "marked.person@example.org"
NAME = "Marked Surname"


def files(lab: Lab) -> bytes:
    """Return every byte that lies on the disk, of pages that are free and of the write-ahead log too."""
    return b"".join(it.read_bytes() for it in lab.folder.glob("lab.db*"))


def holds(lab: Lab, text: str) -> bool:
    return lab.ground.holds(text)


def put(lab: Lab, record: str = "p", email: str = EMAIL, **more: object) -> None:
    lab.crm.put(record, **{"email": email, "name": NAME, "points": 120, **more})


def settle(lab: Lab, gone: str = "p") -> None:
    """Deliver, delete the contact in the CRM, and see it gone."""
    lab.cycle()
    lab.crm.delete(gone)
    lab.cycle()


def test_a_payload_is_nowhere_on_the_disk_once_it_is_delivered(lab: Lab) -> None:
    put(lab)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    assert holds(lab, NAME)  # it may have to be sent again
    lab.cycle(SETTLED)
    lab.cycle(SETTLED)
    lab.wait(25 * 3600)  # a row that was lost may land late, for a day
    lab.crm.put("q", email="other@example.org", name="Somebody", points=1)
    lab.cycle()
    assert lab.awarded(EMAIL) == 120
    assert not holds(lab, NAME)
    assert not holds(lab, "Somebody")
    assert holds(lab, EMAIL)  # the key of the member


def test_payloads_of_many_pages_are_nowhere_on_the_disk_once_they_are_delivered(lab: Lab) -> None:
    for number in range(300):
        put(lab, f"p{number}", f"p{number}@example.org", name=f"{NAME} {number} " + "x" * 200)
    lab.cycle()
    assert lab.value("SELECT count(*) FROM ledger") == 300
    assert not holds(lab, NAME)


def test_a_person_is_erased_and_the_books_still_balance(lab: Lab) -> None:
    put(lab)
    put(lab, "q", "other@example.org", points=5)
    settle(lab)
    credited = lab.value("SELECT sum(points) FROM ledger")
    logged = lab.value(f"SELECT log_value FROM member WHERE email_key = '{EMAIL}'")
    (trace,) = lab.store.erasure.forget(EMAIL)
    assert (trace.credited, list(trace.records), trace.obstacles) == (120, [("crm", "p")], [])
    assert lab.database.scrub()
    assert lab.store.erasure.traces(EMAIL) == []
    assert not holds(lab, EMAIL)
    assert not holds(lab, NAME)
    assert logged is not None
    assert lab.value(f"SELECT credited FROM member WHERE email_key = '{trace.pseudonym}'") == 120
    assert lab.value("SELECT sum(points) FROM ledger") == credited
    assert lab.differences() == []
    assert lab.rows("SELECT 1 FROM batch_row WHERE fingerprint IS NULL AND log_before IS NULL") != []


def test_one_cycle_after_an_erasure_is_silent(lab: Lab) -> None:
    put(lab)
    settle(lab)
    lab.store.erasure.forget(EMAIL)
    before = lab.wallet.requests.copy()
    lab.cycle(1)
    assert lab.wallet.requests == before


@pytest.mark.parametrize("policy", ["hold", "move"])
def test_a_forgotten_person_whose_record_is_restored_is_awarded_nothing_twice(
    open_lab: Open, policy: str
) -> None:
    lab = open_lab(policy={"on_email_change": policy})
    put(lab)
    settle(lab)
    lab.store.erasure.forget(EMAIL)
    put(lab)
    lab.calm()
    assert lab.awarded(EMAIL) == 120
    put(lab, points=150)
    lab.calm()
    assert lab.awarded(EMAIL) == (120 if policy == "hold" else 150)


def test_a_contact_that_is_there_stands_in_the_way(lab: Lab) -> None:
    put(lab)
    lab.cycle()
    before = lab.contents()
    (trace,) = lab.store.erasure.forget(EMAIL)
    assert "crm p is there as far as is known: delete it in the CRM" in trace.obstacles[0]
    assert lab.contents() == before


def test_a_contact_that_where_leaves_out_does_not(open_lab: Open) -> None:
    lab = open_lab(connectors={"crm": {"where": "optout != 'yes'"}})
    put(lab, optout="no")
    lab.cycle()
    put(lab, optout="yes")
    lab.cycle()
    (trace,) = lab.store.erasure.forget(EMAIL)
    assert trace.obstacles == []
    put(lab, optout="yes", points=130)
    lab.calm()
    lab.database.scrub()
    assert not holds(lab, EMAIL)
    assert lab.awarded(EMAIL) == 120


def test_an_import_without_an_outcome_stands_in_the_way(lab: Lab) -> None:
    put(lab)
    lab.fault(Kind.RESET_BEFORE)
    lab.cycle()
    lab.crm.delete("p")
    lab.cycle(1)
    (trace,) = lab.store.erasure.forget(EMAIL)
    assert ["doubt" in it for it in trace.obstacles] == [True]


def test_an_expiry_that_was_not_sent_yet_stands_in_the_way(open_lab: Open) -> None:
    lab = open_lab(policy={"on_gone": "expire"})
    put(lab)
    lab.cycle()
    lab.crm.delete("p")
    lab.fault(Kind.STATUS, status=401)
    lab.cycle()
    (trace,) = lab.store.erasure.forget(EMAIL)
    assert ["still to be sent" in it for it in trace.obstacles] == [True]
    lab.calm()
    (trace,) = lab.store.erasure.forget(EMAIL)
    assert trace.obstacles == []


def test_a_person_without_a_contact_of_ours_is_not_found(lab: Lab) -> None:
    assert lab.store.erasure.forget("nobody@example.org") == []
