"""Batches whose rows are older than the history that is kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "batch", sa.Column("pruned", sa.SmallInteger(), server_default=sa.text("0"), nullable=False)
    )
