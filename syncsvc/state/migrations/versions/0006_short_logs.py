"""A log that leaves members out is noticed: how many it has shown, and since when it is short."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    known = sa.Column("log_known", sa.BigInteger(), server_default=sa.text("0"), nullable=False)
    op.add_column("brand", known)
    op.add_column("brand", sa.Column("log_short_at", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE brand SET log_known = "
        "(SELECT count(*) FROM member WHERE member.brand = brand.id AND member.log_value IS NOT NULL)"
    )
