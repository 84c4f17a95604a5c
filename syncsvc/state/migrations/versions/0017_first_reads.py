"""Members know whether the first read of a connector brought them; those that are known did their part."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    column = sa.Column("first_read", sa.SmallInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("member", column)
