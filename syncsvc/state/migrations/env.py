"""Runs the migrations on the engine it is given; called by the migration tool only."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from syncsvc.state import histories, interventions, tables  # noqa: F401 - they declare the tables on the metadata

engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        transaction_per_migration=True,
        transactional_ddl=True,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()
