"""Sweeps that could not tell every record from the others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("connector", sa.Column("partial", sa.BigInteger(), nullable=True))
