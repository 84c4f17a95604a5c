"""The first form of the state: contacts, members, batches, the ledger, and what was refused or held."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "meta",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_meta")),
    )
    op.create_table(
        "organization",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("organization_id", sa.String(), nullable=False),
        sa.Column("points", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organization")),
        sa.UniqueConstraint("name", name=op.f("uq_organization_name")),
        sa.UniqueConstraint("organization_id", name=op.f("uq_organization_organization_id")),
    )
    op.create_table(
        "brand",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("brand_id", sa.String(), nullable=False),
        sa.Column("log_read_at", sa.BigInteger(), nullable=True),
        sa.Column("resolution_ms", sa.BigInteger(), nullable=True),
        sa.Column("slowest_ms", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("batch_limit", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_brand_organization_id_organization")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_brand")),
    )
    with op.batch_alter_table("brand", schema=None) as batch_op:
        batch_op.create_index("uq_brand_name", ["organization_id", "brand_id"], unique=True)

    op.create_table(
        "connector",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("position", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("cursor", sa.String(), nullable=True),
        sa.Column("moved_at", sa.BigInteger(), nullable=True),
        sa.Column("sweep_cursor", sa.String(), nullable=True),
        sa.Column("sweep", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("swept_at", sa.BigInteger(), nullable=True),
        sa.Column("mapping", sa.String(), nullable=True),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_connector_organization_id_organization")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_connector")),
    )
    with op.batch_alter_table("connector", schema=None) as batch_op:
        batch_op.create_index("uq_connector_name", ["organization_id", "name"], unique=True)

    op.create_table(
        "cycle",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("facts", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_cycle_organization_id_organization")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cycle")),
    )
    with op.batch_alter_table("cycle", schema=None) as batch_op:
        batch_op.create_index("ix_cycle_organization", ["organization_id", "started_at"], unique=False)

    op.create_table(
        "hold",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("brake", sa.String(), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("released_at", sa.BigInteger(), nullable=True),
        sa.Column("released_by", sa.String(), nullable=True),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_hold_organization_id_organization")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
    )
    with op.batch_alter_table("hold", schema=None) as batch_op:
        batch_op.create_index("ix_hold_organization", ["organization_id"], unique=False)

    op.create_table(
        "batch",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand", sa.Integer(), nullable=False),
        sa.Column("cycle", sa.String(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("outcome", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("row_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("points", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("moved", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("moved_at", sa.BigInteger(), nullable=True),
        sa.Column("settled_at", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("import_id", sa.String(), nullable=True),
        sa.Column("imported", sa.Integer(), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["brand"], ["brand.id"], name=op.f("fk_batch_brand_brand")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batch")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("batch", schema=None) as batch_op:
        batch_op.create_index(
            "ix_batch_open",
            ["brand"],
            unique=False,
            sqlite_where=sa.text("outcome < 3"),
            postgresql_where=sa.text("outcome < 3"),
        )

    op.create_table(
        "quarantine",
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("record_id", sa.String(), nullable=False),
        sa.Column("side", sa.String(), nullable=False),
        sa.Column("field", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["connector_id"], ["connector.id"], name=op.f("fk_quarantine_connector_id_connector")
        ),
        sa.PrimaryKeyConstraint("connector_id", "record_id", "side", name=op.f("pk_quarantine")),
    )
    op.create_table(
        "member",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("brand", sa.Integer(), nullable=False),
        sa.Column("email_key", sa.String(), nullable=False),
        sa.Column("email", sa.String(), nullable=True),
        sa.Column("owner_connector", sa.Integer(), nullable=True),
        sa.Column("owner_record", sa.String(), nullable=True),
        sa.Column("wanted", sa.LargeBinary(length=16), nullable=True),
        sa.Column("delivered", sa.LargeBinary(length=16), nullable=True),
        sa.Column("refused", sa.LargeBinary(length=16), nullable=True),
        sa.Column("payload", sa.LargeBinary(), nullable=True),
        sa.Column("earned", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("credited", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("unsettled", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("open_batch", sa.Integer(), nullable=True),
        sa.Column("quiet_until", sa.BigInteger(), nullable=True),
        sa.Column("log_value", sa.String(), nullable=True),
        sa.Column("log_at", sa.BigInteger(), nullable=True),
        sa.Column("due", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("introduced", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["brand"], ["brand.id"], name=op.f("fk_member_brand_brand")),
        sa.ForeignKeyConstraint(["open_batch"], ["batch.id"], name=op.f("fk_member_open_batch_batch")),
        sa.ForeignKeyConstraint(
            ["owner_connector"], ["connector.id"], name=op.f("fk_member_owner_connector_connector")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_member")),
    )
    with op.batch_alter_table("member", schema=None) as batch_op:
        batch_op.create_index(
            "ix_member_due",
            ["brand", "id"],
            unique=False,
            sqlite_where=sa.text("due = 1"),
            postgresql_where=sa.text("due = 1"),
        )
        batch_op.create_index("uq_member_email", ["brand", "email_key"], unique=True)

    op.create_table(
        "batch_row",
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(length=16), nullable=True),
        sa.Column("points", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("log_before", sa.String(), nullable=True),
        sa.Column("outcome", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("grade", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_batch_row_batch_id_batch")),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name=op.f("fk_batch_row_member_id_member")),
        sa.PrimaryKeyConstraint("batch_id", "position", name=op.f("pk_batch_row")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("batch_row", schema=None) as batch_op:
        batch_op.create_index("ix_batch_row_member", ["member_id"], unique=False)

    op.create_table(
        "contact",
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("record_id", sa.String(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=True),
        sa.Column("state", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(length=16), nullable=True),
        sa.Column("points", sa.BigInteger(), nullable=True),
        sa.Column("seen", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("written_at", sa.BigInteger(), nullable=True),
        sa.Column("written_status", sa.String(), nullable=True),
        sa.Column("write_due", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("first_read", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(
            ["connector_id"], ["connector.id"], name=op.f("fk_contact_connector_id_connector")
        ),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name=op.f("fk_contact_member_id_member")),
        sa.PrimaryKeyConstraint("connector_id", "record_id", name=op.f("pk_contact")),
        sqlite_with_rowid=False,
    )
    with op.batch_alter_table("contact", schema=None) as batch_op:
        batch_op.create_index("ix_contact_member", ["member_id"], unique=False)
        batch_op.create_index(
            "ix_contact_write_due",
            ["connector_id"],
            unique=False,
            sqlite_where=sa.text("write_due = 1"),
            postgresql_where=sa.text("write_due = 1"),
        )

    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("batch_id", sa.Integer(), nullable=True),
        sa.Column("entry", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("grade", sa.String(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=16), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_ledger_batch_id_batch")),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name=op.f("fk_ledger_member_id_member")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_ledger_organization_id_organization")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("ledger", schema=None) as batch_op:
        batch_op.create_index("ix_ledger_member", ["member_id"], unique=False)
        batch_op.create_index("ix_ledger_organization", ["organization_id", "id"], unique=False)

    if op.get_bind().dialect.name == "sqlite":
        _tell_the_planner()


def _tell_the_planner() -> None:
    """Fix what the planner believes of the tables' sizes, as they are in a large state.

    SQLite plans without statistics as if every index were as good as the next, and walks all members to find
    the few that are due. Its own statistics would depend on the moment they were taken; these rows are the
    documented way to keep plans as they are (sqlite.org/lang_analyze.html; sqlite.org/fileformat2.html).
    """
    op.execute("ANALYZE")
    op.execute("DELETE FROM sqlite_stat1")
    statistics = sa.table("sqlite_stat1", sa.column("tbl"), sa.column("idx"), sa.column("stat"))
    op.bulk_insert(
        statistics,
        [
            {"tbl": "member", "idx": "uq_member_email", "stat": "1000000 1000000 1"},
            {"tbl": "member", "idx": "ix_member_due", "stat": "1000 1000 1"},
            {"tbl": "contact", "idx": "contact", "stat": "1000000 1000000 1"},
            {"tbl": "contact", "idx": "ix_contact_member", "stat": "1000000 1"},
            {"tbl": "contact", "idx": "ix_contact_write_due", "stat": "1000 1000"},
            {"tbl": "batch", "idx": None, "stat": "1000"},
            {"tbl": "batch", "idx": "ix_batch_open", "stat": "10 10"},
            {"tbl": "batch_row", "idx": "batch_row", "stat": "1000000 1000 1"},
            {"tbl": "batch_row", "idx": "ix_batch_row_member", "stat": "1000000 2"},
            {"tbl": "ledger", "idx": "ix_ledger_member", "stat": "1000000 2"},
            {"tbl": "ledger", "idx": "ix_ledger_organization", "stat": "1000000 1000000 1"},
            {"tbl": "brand", "idx": "uq_brand_name", "stat": "2 2 1"},
            {"tbl": "connector", "idx": "uq_connector_name", "stat": "2 2 1"},
        ],
    )
