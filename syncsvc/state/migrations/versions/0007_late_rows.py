"""Rows that land late: until when one may, and which one may have."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("member", sa.Column("late_until", sa.BigInteger(), nullable=True))
    op.add_column("batch_row", sa.Column("late_at", sa.BigInteger(), nullable=True))
    for name, table, column, condition in (
        ("ix_member_late", "member", "brand", "late_until IS NOT NULL"),
        ("ix_batch_row_late", "batch_row", "late_at", "late_at IS NOT NULL"),
    ):
        where = sa.text(condition)
        op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
