"""The migrations: from nothing to today's tables, recorded, once, and never over a later version's."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, inspect
from sqlalchemy.schema import CreateIndex, CreateTable
from sqlmodel import SQLModel

from syncsvc.errors import StateError
from syncsvc.state import histories, interventions, migrations, tables
from syncsvc.state.database import Database

OURS = {
    tables.table(row).name
    for module in (tables, interventions, histories)
    for row in vars(module).values()
    if isinstance(row, type) and issubclass(row, SQLModel) and row is not SQLModel
}
HEAD = "0018"
OLD = [
    "INSERT INTO organization (id, name, organization_id, points) VALUES (1, 'acme', '01JC', 'add')",
    "INSERT INTO connector (id, organization_id, name, cursor) VALUES (1, 1, 'crm', 'c')",
    "INSERT INTO contact (connector_id, record_id, write_due) VALUES (1, 'r1', 1)",
    "INSERT INTO quarantine VALUES (1, 'r2', 'mapping', 'email', 'why', 0)",
    "INSERT INTO brand (id, organization_id, brand_id) VALUES (1, 1, 'brand-1')",
    "INSERT INTO member (id, brand, email_key, earned, credited) VALUES (1, 1, 'a@b.c', 7, 7)",
    "INSERT INTO batch (id, brand, cycle, digest, claimed_at) VALUES (1, 1, 'c', x'00', 0)",
    "INSERT INTO batch_row (batch_id, position, member_id, points) VALUES (1, 0, 1, 7)",
]
"""What a state of the first form may hold."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "state.db"
    Database.open(f"sqlite:///{path}").close()
    return path


def engine_of(path: Path) -> Engine:
    return create_engine(f"sqlite:///{path}")


@contextlib.contextmanager
def plain(path: Path):  # type: ignore[no-untyped-def]  # noqa: ANN201 - a connection of the standard library
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection
        connection.commit()


def schema(path: Path) -> dict[str, str]:
    with plain(path) as connection:
        return dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


def squeezed(sql: str) -> str:
    return "".join(sql.split()).replace('"', "").lower()


def test_an_empty_file_comes_to_hold_every_table(path: Path) -> None:
    assert len(OURS) == 24
    assert {name for name, sql in schema(path).items() if sql.startswith("CREATE TABLE")} == {
        *OURS,
        "alembic_version",
        "sqlite_sequence",
        "sqlite_stat1",
    }


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT id FROM member WHERE brand = 1 AND due = 1 AND id > 5 ORDER BY id LIMIT 9", "ix_member_due"),
        ("SELECT count(*) FROM member WHERE brand IN (SELECT id FROM brand) AND due = 1", "ix_member_due"),
        ("SELECT 1 FROM contact WHERE connector_id = 1 AND write_due = 1", "ix_contact_write_due"),
        (
            (
                "UPDATE contact SET write_due = 1 WHERE member_id IN (SELECT value FROM json_each('[1]')) "
                "AND connector_id IN (1, 2)"
            ),
            "ix_contact_member",
        ),
        ("SELECT 1 FROM batch WHERE brand IN (SELECT id FROM brand) AND outcome < 3", "ix_batch_open"),
        ("SELECT id FROM member WHERE brand = 1 AND late_until < 5", "ix_member_late"),
    ],
)
def test_what_every_cycle_asks_is_answered_by_a_small_index(path: Path, query: str, index: str) -> None:
    with plain(path) as connection:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert index in plan


def test_the_migrated_tables_are_those_the_code_works_with(path: Path) -> None:
    engine = engine_of(path)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, SQLModel.metadata) == []
    engine.dispose()


def test_tables_without_a_rowid_and_with_ids_that_are_never_used_again_are_made_so(path: Path) -> None:
    made = schema(path)
    without = {name for name, sql in made.items() if "WITHOUT ROWID" in sql}
    never_again = {name for name, sql in made.items() if "AUTOINCREMENT" in sql}
    assert without == {"contact", "batch_row", "plan_row"}
    assert never_again == {"batch", "ledger"}


def test_every_index_is_made_with_its_condition(path: Path) -> None:
    made = schema(path)
    engine = engine_of(path)
    wanted = {
        str(index.name): str(CreateIndex(index).compile(engine))
        for table in SQLModel.metadata.tables.values()
        if table.name in OURS
        for index in table.indexes
    }
    engine.dispose()
    assert {name: squeezed(made[name]) for name in wanted} == {
        name: squeezed(sql) for name, sql in wanted.items()
    }
    partial = {name for name, sql in made.items() if "INDEX" in sql and "WHERE" in sql}
    assert partial == {
        "ix_member_due",
        "ix_member_late",
        "ix_contact_write_due",
        "ix_batch_open",
        "ix_batch_row_account",
        "ix_batch_row_late",
        "ix_pause_open",
        "ix_inheritance_owed",
    }


def test_the_tables_hold_the_same_constraints_as_the_code(path: Path) -> None:
    made = schema(path)
    engine = engine_of(path)
    found = inspect(engine)
    for table in SQLModel.metadata.tables.values():
        if table.name not in OURS:
            continue
        keys = {
            (tuple(key["constrained_columns"]), key["referred_table"])
            for key in found.get_foreign_keys(table.name)
        }
        assert keys == {((key.parent.name,), key.column.table.name) for key in table.foreign_keys}
        assert tuple(found.get_pk_constraint(table.name)["constrained_columns"]) == tuple(
            column.name for column in table.primary_key
        )
        uniques = str(CreateTable(table).compile(engine)).count("UNIQUE")
        assert made[table.name].count("UNIQUE") == uniques
    engine.dispose()


def test_the_form_is_recorded(path: Path) -> None:
    with plain(path) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(HEAD,)]


def test_there_is_one_line_of_migrations() -> None:
    folder = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert folder.get_heads() == [HEAD]
    assert folder.get_bases() == ["0001"]


def test_migrating_twice_changes_nothing(path: Path) -> None:
    with plain(path) as connection:
        connection.execute("INSERT INTO meta (name, value) VALUES ('a', x'00')")
    before = path.read_bytes()
    engine = engine_of(path)
    migrations.upgrade(engine)
    migrations.require_current(engine)
    engine.dispose()
    assert path.read_bytes() == before


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with plain(path) as connection:
        connection.execute("CREATE TABLE hold (something_else TEXT)")
    before = schema(path)
    with pytest.raises(StateError, match="already exists"):
        Database.open(f"sqlite:///{path}")
    left = {name: sql for name, sql in schema(path).items() if name != "alembic_version"}
    assert left == before
    with plain(path) as connection:
        connection.execute("DROP TABLE hold")
    Database.open(f"sqlite:///{path}").close()


def test_a_state_of_a_later_version_is_refused_and_left_alone(path: Path) -> None:
    with plain(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999_later'")
    before = path.read_bytes()
    engine = engine_of(path)
    for refuses in (migrations.upgrade, migrations.require_current):
        with pytest.raises(StateError, match=rf"later version.*0999_later.*{HEAD}.*run that version"):
            refuses(engine)
    engine.dispose()
    assert path.read_bytes() == before


def test_a_state_without_a_form_is_not_current(tmp_path: Path) -> None:
    engine = engine_of(tmp_path / "empty.db")
    with pytest.raises(StateError, match="run one cycle"):
        migrations.require_current(engine)
    engine.dispose()


def test_a_file_of_the_first_form_keeps_what_it_holds(path: Path, tmp_path: Path) -> None:
    made, path = schema(path), tmp_path / "old.db"
    engine = engine_of(path)
    command.upgrade(migrations.configuration(engine), "0001")
    engine.dispose()
    with plain(path) as connection:
        for statement in OLD:
            connection.execute(statement)
    Database.open(f"sqlite:///{path}").close()
    assert schema(path) == made
    with plain(path) as connection:
        assert connection.execute("SELECT cursor, calls_left, partial FROM connector").fetchall() == [
            ("c", None, None)
        ]
        assert connection.execute("SELECT record_id, write_due FROM contact").fetchall() == [("r1", 1)]
        assert connection.execute(
            "SELECT email_key, credited, expired, late_until FROM member"
        ).fetchall() == [("a@b.c", 7, 0, None)]
        assert connection.execute("SELECT points, account_id, late_at FROM batch_row").fetchall() == [
            (7, None, None)
        ]
        assert connection.execute("SELECT name, retired, sweep_asked FROM connector").fetchall() == [
            ("crm", 0, 0)
        ]
        assert connection.execute("SELECT reason, dropped_at FROM quarantine").fetchall() == [("why", None)]
        assert connection.execute("SELECT count(*) FROM pause, quarantine_decision").fetchall() == [(0,)]
        assert connection.execute("SELECT name, expires FROM organization").fetchall() == [("acme", 0)]
