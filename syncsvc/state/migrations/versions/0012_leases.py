"""Who runs the cycles of which organization, where processes share a state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text, number = sa.String(), sa.Integer().with_variant(sa.BigInteger(), "postgresql")
    if op.get_bind().dialect.name == "postgresql":
        text = sa.String(collation="C")
    op.create_table(
        "replica",
        sa.Column("id", text, nullable=False),
        sa.Column("name", text, nullable=False),
        sa.Column("serves", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "lease",
        sa.Column("organization_id", number, autoincrement=False, nullable=False),
        sa.Column("owner", text, nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("taken_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"]),
        sa.PrimaryKeyConstraint("organization_id"),
    )
