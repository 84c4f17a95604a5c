"""Indexes of batches: a cycle looks at the newest ones, however long the history is."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_batch_brand", "batch", ["brand", "id"])
    op.create_index("ix_batch_cycle", "batch", ["cycle"])
