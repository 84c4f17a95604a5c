"""An index of histories that wait for points yet to be paid: members that are owed nothing are passed by.

And contacts that own a member have had their points adopted: what they earn from then on is theirs.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    owed = sa.text("owed > 0")
    op.create_index(
        "ix_inheritance_owed", "inheritance", ["member_id"], sqlite_where=owed, postgresql_where=owed
    )
    op.execute(
        """UPDATE contact SET first_read = 0 WHERE first_read = 1 AND EXISTS (SELECT 1 FROM member
            WHERE member.id = contact.member_id AND member.owner_connector = contact.connector_id
            AND member.owner_record = contact.record_id)"""
    )
