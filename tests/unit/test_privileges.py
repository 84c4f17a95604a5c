"""What the user of a state on a server may not do there is told by `check`, with what grants it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest
from postgres import Postgres
from sqlalchemy import select

from syncsvc.errors import StateError
from syncsvc.state.condition import Condition, condition
from syncsvc.state.database import Database
from syncsvc.state.numbers import new_ids
from syncsvc.state.tables import MEMBER, META


class Clerk:
    """A user who owns nothing; `url` is the state as it is named for them."""

    def __init__(self, url: str, name: str, connection: psycopg.Connection) -> None:
        self.url, self.name = url.replace("tests@", f"{name}@"), name
        self._connection = connection

    def run(self, statement: str) -> None:
        """Run a statement as the owner."""
        self._connection.execute(statement.replace("CLERK", self.name).encode())

    def refused(self) -> str:
        """Return why no cycle can run, which `check` says too; what it names is granted then."""
        with pytest.raises(StateError) as caught:
            Database.open(self.url)
        told = str(caught.value)
        assert [it.message for it in condition(self.url).problems] == [told]
        for grant in re.findall(r"GRANT [^;]*", told):
            self.run(grant)
        return told

    def works(self) -> None:
        """Assert that all is well by now."""
        with Database.open(self.url) as database, database.writing() as connection:
            connection.execute(META.insert().values(name="a", value=b"x"))
            assert new_ids(connection, MEMBER, 2)
            connection.execute(META.update().values(value=b"y"))
            connection.execute(META.delete())
        assert condition(self.url) == Condition()


@pytest.fixture
def employ() -> Iterator[Callable[[str], Clerk]]:
    with ExitStack() as undo:

        def employed(url: str) -> Clerk:
            connection = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
            undo.enter_context(connection)
            clerk = Clerk(url, f"clerk{uuid.uuid4().hex[:8]}", connection)
            clerk.run("CREATE ROLE CLERK LOGIN")
            undo.callback(clerk.run, "DROP OWNED BY CLERK; DROP ROLE CLERK")
            return clerk

        yield employed


@pytest.fixture
def clerk(employ: Callable[[str], Clerk], postgres: Postgres) -> Clerk:
    return employ(postgres.database())


def test_who_may_only_look_is_told_what_a_cycle_needs_and_what_grants_it(clerk: Clerk) -> None:
    clerk.run("GRANT SELECT ON ALL TABLES IN SCHEMA public TO CLERK")
    with Database.open_beside(clerk.url) as beside, beside.reading() as connection:
        assert connection.scalars(select(META.c.name)).all() == []
    told = clerk.refused()
    assert "may not INSERT, UPDATE, DELETE on batch, batch_row, brand and 21 more tables, nor use " in told
    assert f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {clerk.name};" in told
    clerk.works()


def test_who_may_do_nothing_is_told_so(clerk: Clerk) -> None:
    assert "may not SELECT, INSERT, UPDATE, DELETE on alembic_version, batch, " in clerk.refused()
    clerk.works()


def test_one_table_that_was_left_out_is_named(clerk: Clerk) -> None:
    clerk.refused()
    clerk.run("REVOKE INSERT ON replica FROM CLERK")
    assert "may not INSERT on replica: GRANT" in clerk.refused()
    clerk.works()


def test_who_may_not_take_numbers_is_told_so(clerk: Clerk) -> None:
    clerk.run("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO CLERK")
    assert "may not use batch_id_seq, brand_id_seq, connector_id_seq and 9 more sequences: GRANT USAGE" in (
        clerk.refused()
    )
    clerk.works()


def test_tables_of_others_in_the_same_schema_do_not_matter(clerk: Clerk) -> None:
    clerk.refused()
    clerk.run("CREATE TABLE of_others (id bigserial PRIMARY KEY)")
    clerk.works()


def test_who_may_make_no_tables_is_told_so(employ: Callable[[str], Clerk], postgres: Postgres) -> None:
    clerk = employ(postgres.empty())
    assert "may not make tables in it: GRANT CREATE, USAGE ON SCHEMA public TO clerk" in clerk.refused()
    clerk.works()


def test_who_owns_no_table_cannot_erase_what_is_free_in_it(clerk: Clerk) -> None:
    clerk.refused()
    with Database.open(clerk.url) as database:
        assert database.scrub() is False


def test_who_may_not_migrate_what_belongs_to_another_is_told_so(clerk: Clerk) -> None:
    clerk.refused()
    clerk.run("UPDATE alembic_version SET version_num = '0017'")
    assert "may not make tables in it: GRANT" in clerk.refused()
    told = clerk.refused()
    assert "may not migrate its tables, of which alembic_version, batch, batch_row and 22 more tables" in told
    assert f"belong to tests: run one cycle as tests, or say ALTER TABLE name OWNER TO {clerk.name}" in told
    clerk.run("UPDATE alembic_version SET version_num = '0018'")  # which the owner's cycle would
    clerk.works()
