"""The witness: a row of the organization's own in each points batch, and its entry in the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("brand", sa.Column("witness_value", sa.String(), nullable=True))
    for name in ("witness_log_at", "witness_stray_at"):
        op.add_column("brand", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("batch", sa.Column("witness", sa.Integer(), nullable=True))
    op.add_column("batch", sa.Column("witness_before", sa.String(), nullable=True))
    op.add_column("batch", sa.Column("witness_until", sa.BigInteger(), nullable=True))
