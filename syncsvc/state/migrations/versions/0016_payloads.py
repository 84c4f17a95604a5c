"""Payloads in a table of their own: within the members' rows each left a hole once it was delivered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "payload",
        sa.Column("member_id", sa.Integer().with_variant(sa.BigInteger(), "postgresql"), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["member_id"], ["member.id"], name=op.f("fk_payload_member_id_member")),
        sa.PrimaryKeyConstraint("member_id", name=op.f("pk_payload")),
    )
    op.execute("INSERT INTO payload SELECT id, payload FROM member WHERE payload IS NOT NULL")
    op.drop_column("member", "payload")
