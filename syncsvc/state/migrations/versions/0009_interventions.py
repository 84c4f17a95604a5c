"""What people do: pauses, decisions on the refusals in quarantine, and sweeps that are asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pause",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("organization_id", sa.Integer(), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=True),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("paused_by", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_by", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_pause_organization_id_organization")
        ),
        sa.ForeignKeyConstraint(
            ["connector_id"], ["connector.id"], name=op.f("fk_pause_connector_id_connector")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pause")),
    )
    where = sa.text("ended_at IS NULL")
    op.create_index("ix_pause_open", "pause", ["organization_id"], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "quarantine_decision",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("record_id", sa.String(), nullable=False),
        sa.Column("side", sa.String(), nullable=False),
        sa.Column("choice", sa.String(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        sa.Column("decided_by", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["connector_id"], ["connector.id"], name=op.f("fk_quarantine_decision_connector_id_connector")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine_decision")),
    )
    op.create_index("ix_quarantine_decision_record", "quarantine_decision", ["connector_id", "record_id"])
    op.add_column("connector", sa.Column("sweep_asked", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("quarantine", sa.Column("dropped_at", sa.BigInteger(), nullable=True))
