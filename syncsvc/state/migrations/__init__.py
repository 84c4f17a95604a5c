"""The migrations of the state database: each records itself, and each only adds.

The tool that runs them is loaded where there is something to run: that takes longer than most commands do.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from syncsvc.errors import StateError

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(__file__).parent
_RECORD = "alembic_version"


def configuration(engine: Engine) -> Config:
    """Return the migration tool's configuration for an engine."""
    from alembic.config import Config  # noqa: PLC0415 - see the module

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["engine"] = engine
    return config


@cache
def forms() -> tuple[str, ...]:
    """Return every form that this version can read or migrate, its own first: the migrations' numbers."""
    numbers = (it.stem.partition("_")[0] for it in (_FOLDER / "versions").glob("[0-9]*.py"))
    return tuple(sorted(numbers, reverse=True))


def form(engine: Engine) -> str | None:
    """Return the form of the tables, None where there are none."""
    with engine.connect() as connection:
        if not inspect(connection).has_table(_RECORD):
            return None
        number: str | None = connection.scalar(text(f"SELECT version_num FROM {_RECORD}"))
        return number


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version's form, in one transaction each; nothing happens when they are.

    Raises StateError where the database was written by a later version.
    """
    current, head = form(engine), forms()[0]
    if current == head:
        return
    if current is not None and current not in forms():
        raise too_new(current)
    from alembic import command  # noqa: PLC0415 - see the module

    command.upgrade(configuration(engine), "head")
    engine.dispose()  # connections read the planner's statistics when they are opened


def too_new(found: str) -> StateError:
    """Return the error for tables of a form that this version does not know."""
    return StateError(
        f"the state was written by a later version of syncsvc (form {found}, this one knows {forms()[0]}): "
        "run that version or a newer one"
    )


def require_unmoved(connection: Connection) -> None:
    """Raise StateError where a later version has brought the tables to its form since they were opened."""
    found: str | None = connection.scalar(text(f"SELECT version_num FROM {_RECORD}"))
    if found != forms()[0]:
        raise too_new(str(found))


def none_yet(place: object) -> str:
    """Return what there is to say where no state is yet."""
    return (
        f"there is no state in {place} yet: the first cycle makes it, to which every contact is new; "
        "first_run says whether their points are awarded then, where no brake holds them"
    )


def require_current(engine: Engine) -> None:
    """Raise StateError where the tables are not in this version's form."""
    current, head = form(engine), forms()[0]
    if current is not None and current not in forms():
        raise too_new(current)
    if current != head:
        raise StateError(
            f"the state's form is {current}, this version needs {head}: run one cycle to migrate it"
        )
