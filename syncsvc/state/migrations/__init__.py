"""The migrations of the state database: each records itself, and each only adds."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from syncsvc.errors import StateError

_FOLDER = Path(__file__).parent


def configuration(engine: Engine) -> Config:
    """Return the migration tool's configuration for an engine."""
    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["engine"] = engine
    return config


def _versions(engine: Engine) -> tuple[str | None, str | None]:
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, ScriptDirectory(str(_FOLDER)).get_current_head()


def forms() -> list[str]:
    """Return every form that this version can read or migrate, its own first."""
    return [script.revision for script in ScriptDirectory(str(_FOLDER)).walk_revisions()]


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version's form, in one transaction each; nothing happens when they are.

    Raises StateError where the database was written by a later version.
    """
    current, head = _versions(engine)
    if current == head:
        return
    if current is not None and current not in forms():
        raise StateError(
            f"the state was written by a later version of syncsvc (form {current}, this one knows {head}): "
            "run that version or a newer one"
        )
    command.upgrade(configuration(engine), "head")
    engine.dispose()  # connections read the planner's statistics when they are opened


def require_current(engine: Engine) -> None:
    """Raise StateError where the tables are not in this version's form."""
    current, head = _versions(engine)
    if current != head:
        raise StateError(
            f"the state's form is {current}, this version needs {head}: run one cycle to migrate it"
        )
