"""The ledger: rows are only added, and each one seals those before it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy import update as sql_update

from syncsvc.rules.settling import Grade
from syncsvc.state.books import Credit, append, link
from syncsvc.state.codes import Entry
from syncsvc.state.database import Database, to_ms
from syncsvc.state.tables import BRAND, LEDGER, MEMBER, ORGANIZATION

NOW = datetime(2026, 11, 22, 8, 0, 0, 123456, tzinfo=UTC)
FIRST = bytes(16)
ANN, BOB = 1, 2

credits_ = st.builds(
    Credit,
    entry=st.sampled_from(Entry),
    points=st.integers(-(2**31), 2**31),
    grade=st.sampled_from(Grade),
    batch_id=st.none() | st.integers(1, 2**31),
    member_id=st.integers(1, 2**31),
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path}/state.db") as opened:
        with opened.writing() as connection:
            connection.execute(
                ORGANIZATION.insert(),
                [
                    {"id": number, "name": f"o{number}", "organization_id": f"01{number}", "points": "add"}
                    for number in (1, 2)
                ],
            )
            connection.execute(
                BRAND.insert(),
                [
                    {"id": 1, "organization_id": 1, "brand_id": "b"},
                    {"id": 2, "organization_id": 2, "brand_id": "b"},
                ],
            )
            members = [(ANN, 1, "ann@example.org"), (BOB, 2, "bob@example.org")]
            connection.execute(
                MEMBER.insert(), [dict(zip(("id", "brand", "email_key"), it, strict=True)) for it in members]
            )
        yield opened


def awarded(points: int, member: int = ANN) -> Credit:
    return Credit(Entry.AWARDED, points, Grade.ANSWER, member_id=member)


def add(database: Database, *entries: Credit, organization: int = 1, now: datetime = NOW) -> None:
    with database.writing() as connection:
        append(connection, organization, entries, now=now)


def chain_holds(database: Database, organization: int = 1) -> bool:
    """Whether every row's digest follows from the row and the one before it."""
    with database.reading() as connection:
        rows = connection.execute(
            select(LEDGER).where(LEDGER.c.organization_id == organization).order_by(LEDGER.c.id)
        ).all()
    digest = FIRST
    for row in rows:
        credit = Credit(Entry(row.entry), row.points, Grade(row.grade), row.batch_id, row.member_id)
        digest = link(digest, credit, row.at)
        if row.digest != digest:
            return False
    return True


def test_entries_are_kept_in_order_with_their_proof_and_time(database: Database) -> None:
    add(database, awarded(5), Credit(Entry.SKIPPED, 7, Grade.PERSON).of(ANN))
    with database.reading() as connection:
        rows = connection.execute(select(LEDGER).order_by(LEDGER.c.id)).all()
    assert [(row.entry, row.points, row.grade, row.member_id, row.at) for row in rows] == [
        (Entry.AWARDED, 5, "answer", ANN, to_ms(NOW)),
        (Entry.SKIPPED, 7, "person", ANN, to_ms(NOW)),
    ]
    assert [row.digest for row in rows] == [
        first := link(FIRST, awarded(5), to_ms(NOW)),
        link(first, Credit(Entry.SKIPPED, 7, Grade.PERSON).of(ANN), to_ms(NOW)),
    ]


def test_nothing_to_add_adds_nothing(database: Database) -> None:
    add(database)
    with database.reading() as connection:
        assert connection.execute(select(LEDGER)).all() == []


def test_the_chain_goes_on_over_transactions_and_openings(tmp_path: Path, database: Database) -> None:
    for number in range(3):
        add(database, awarded(number), awarded(number + 10), now=NOW + timedelta(days=number))
    database.close()
    with Database.open(f"sqlite:///{tmp_path}/state.db") as again:
        add(again, awarded(99))
        assert chain_holds(again)
        with again.reading() as connection:
            digests = connection.scalars(select(LEDGER.c.digest)).all()
    assert len(set(digests)) == len(digests) == 7


def test_each_organization_has_a_chain_of_its_own(database: Database) -> None:
    for _ in range(3):
        add(database, awarded(1))
        add(database, awarded(2, BOB), organization=2)
    assert chain_holds(database, 1)
    assert chain_holds(database, 2)


def test_what_the_callers_transaction_undoes_never_stood_in_the_books(database: Database) -> None:
    add(database, awarded(1))
    with pytest.raises(BrokenPipeError):
        _add_and_fail(database)
    add(database, awarded(3))
    assert chain_holds(database)
    with database.reading() as connection:
        assert list(connection.scalars(select(LEDGER.c.points).order_by(LEDGER.c.id))) == [1, 3]


def _add_and_fail(database: Database) -> None:
    with database.writing() as connection:
        append(connection, 1, [awarded(2)], now=NOW)
        raise BrokenPipeError


@pytest.mark.parametrize(
    "change",
    [
        {"points": 6},
        {"entry": int(Entry.ADOPTED)},
        {"grade": "person"},
        {"at": to_ms(NOW) + 1},
        {"member_id": BOB},
        {"digest": bytes(16)},
    ],
)
def test_a_row_changed_by_hand_breaks_the_chain(database: Database, change: dict[str, object]) -> None:
    add(database, awarded(4), awarded(5), awarded(6))
    with database.writing() as connection:
        connection.execute(sql_update(LEDGER).where(LEDGER.c.points == 5).values(change))
    assert not chain_holds(database)


@pytest.mark.parametrize("points", [4, 5])
def test_a_row_removed_by_hand_breaks_the_chain(database: Database, points: int) -> None:
    add(database, awarded(4), awarded(5), awarded(6))
    assert chain_holds(database)
    with database.writing() as connection:
        connection.execute(LEDGER.delete().where(LEDGER.c.points == points))
    assert not chain_holds(database)


def test_a_number_is_never_given_to_a_second_row(database: Database) -> None:
    add(database, awarded(4), awarded(5))
    with database.writing() as connection:
        connection.execute(LEDGER.delete())
    add(database, awarded(6))
    with database.reading() as connection:
        assert connection.scalar(select(LEDGER.c.id)) == 3


@given(credits_, st.integers(0, 2**42), st.binary(min_size=16, max_size=16))
def test_every_fact_of_a_row_takes_part_in_its_digest(credit: Credit, at: int, before: bytes) -> None:
    digest = link(before, credit, at)
    assert len(digest) == 16
    assert digest == link(before, credit, at)
    others = [
        credit._replace(points=credit.points + 1),
        credit._replace(member_id=credit.member_id + 1),
        credit._replace(batch_id=(credit.batch_id or 0) + 1),
        credit._replace(entry=Entry((credit.entry + 1) % len(Entry))),
        credit._replace(grade=Grade.PERSON if credit.grade is not Grade.PERSON else Grade.ANSWER),
    ]
    digests = [link(before, other, at) for other in others]
    digests += [link(before, credit, at + 1), link(bytes([before[0] ^ 1]) + before[1:], credit, at)]
    assert len({digest, *digests}) == len(digests) + 1


def test_the_order_of_rows_takes_part_in_the_digest() -> None:
    ends = set()
    for order in itertools.permutations([awarded(1), awarded(2), awarded(3)]):
        digest = FIRST
        for credit in order:
            digest = link(digest, credit, 0)
        ends.add(digest)
    assert len(ends) == 6


def test_a_credit_of_a_member_is_the_same_credit() -> None:
    credit = Credit(Entry.MOVED_IN, 5, batch_id=9)
    assert credit.of(ANN) == Credit(Entry.MOVED_IN, 5, Grade.POLICY, 9, ANN)
