"""Connectors know which fields they write back, so that others are filled once they are configured."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    text = sa.String(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.String()
    op.add_column("connector", sa.Column("writes", text, nullable=True))
