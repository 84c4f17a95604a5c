"""Write-backs that failed are tried again later; what is left of a CRM's daily calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "write_retry",
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("record_id", sa.String(), nullable=False),
        sa.Column("tries", sa.SmallInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("log_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["connector_id"], ["connector.id"], name=op.f("fk_write_retry_connector_id_connector")
        ),
        sa.PrimaryKeyConstraint("connector_id", "record_id", name=op.f("pk_write_retry")),
    )
    for name in ("calls_allowed", "calls_left", "calls_told_at"):
        op.add_column("connector", sa.Column(name, sa.BigInteger(), nullable=True))
