"""On a server: numbers that last, and texts in the order of their bytes, as in a file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "sqlite":
        return  # where both are so by themselves
    found = sa.inspect(connection)
    for table in found.get_table_names():
        changes = []
        for column in found.get_columns(table):
            name = f'ALTER COLUMN "{column["name"]}" TYPE'
            if type(column["type"]) is sa.INTEGER:
                changes.append(f"{name} bigint")
            elif isinstance(column["type"], sa.VARCHAR) and table != "alembic_version":
                changes.append(f'{name} varchar COLLATE "C"')
        if changes:
            op.execute(f'ALTER TABLE "{table}" {", ".join(changes)}')
    # A serial column's sequence ends where its first type did.
    for name in found.get_sequence_names():
        op.execute(f'ALTER SEQUENCE "{name}" AS bigint')
