"""History that goes along: what an heir inherits, whose points an unsettled row is, expiries of ours."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _flag(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger(), server_default=sa.text("0"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "inheritance",
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("record_id", sa.String(), nullable=False),
        sa.Column("member_id", sa.Integer(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["connector_id"], ["connector.id"], name=op.f("fk_inheritance_connector_id_connector")
        ),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name=op.f("fk_inheritance_member_id_member")),
        sa.PrimaryKeyConstraint("connector_id", "record_id", "member_id", name=op.f("pk_inheritance")),
    )
    op.add_column("organization", _flag("expires"))
    op.add_column("connector", _flag("retired"))
    op.add_column("member", _flag("expired"))
    account = sa.Column("account_id", sa.Integer(), sa.ForeignKey("member.id"), nullable=True)
    op.add_column("batch_row", account, inline_references=True)  # else the whole table would be written anew
    moved = sa.text("account_id IS NOT NULL")
    op.create_index(
        "ix_batch_row_account", "batch_row", ["account_id"], sqlite_where=moved, postgresql_where=moved
    )
