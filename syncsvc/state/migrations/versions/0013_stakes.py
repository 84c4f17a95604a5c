"""Who left a shared member: its stakes in what is unsettled there, and what it counts of what was paid."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text, number = sa.String(), sa.Integer().with_variant(sa.BigInteger(), "postgresql")
    if op.get_bind().dialect.name == "postgresql":
        text = sa.String(collation="C")
    op.add_column(
        "inheritance", sa.Column("owed", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column(
        "inheritance", sa.Column("life", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    )
    op.add_column("inheritance", sa.Column("parts", text, nullable=True))
    op.create_table(
        "stake",
        sa.Column("id", number, nullable=False),
        sa.Column("batch_id", number, nullable=False),
        sa.Column("position", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("points", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("member_id", number, nullable=False),
        sa.Column("connector_id", number, nullable=False),
        sa.Column("record_id", text, nullable=False),
        sa.Column("heir_id", number, nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batch.id"], name=op.f("fk_stake_batch_id_batch")),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name=op.f("fk_stake_member_id_member")),
        sa.ForeignKeyConstraint(
            ["connector_id"], ["connector.id"], name=op.f("fk_stake_connector_id_connector")
        ),
        sa.ForeignKeyConstraint(["heir_id"], ["member.id"], name=op.f("fk_stake_heir_id_member")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stake")),
    )
    op.create_index("ix_stake_record", "stake", ["connector_id", "record_id"])
    for column in ("batch_id", "heir_id"):
        op.create_index(op.f(f"ix_stake_{column}"), "stake", [column])
    op.create_table(
        "counted",
        sa.Column("heir_id", number, nullable=False),
        sa.Column("source_id", number, nullable=False),
        sa.Column("life", number, autoincrement=False, nullable=False),
        sa.Column("points", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.ForeignKeyConstraint(["heir_id"], ["member.id"], name=op.f("fk_counted_heir_id_member")),
        sa.ForeignKeyConstraint(["source_id"], ["member.id"], name=op.f("fk_counted_source_id_member")),
        sa.PrimaryKeyConstraint("heir_id", "source_id", "life", name=op.f("pk_counted")),
    )
