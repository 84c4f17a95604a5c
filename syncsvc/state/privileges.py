"""What the user of a state on a server finds and may do there, and what a service needs.

What is missing is told with what grants it.

Privileges: postgresql.org/docs/15/ddl-priv.html.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, text
from sqlmodel import SQLModel

from syncsvc.state import histories, interventions, tables  # noqa: F401 - they declare the tables on the metadata

_RECORD = "alembic_version"  # which is only read, but by migrations, and they are the owner's
_NAMED = 3

_THERE = text(
    "SELECT relname FROM pg_class"
    " WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname = ANY (:b_names)"
)
_LACKS = text(
    "WITH ours AS (SELECT oid, relname FROM pg_class"
    " WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname = ANY (:b_names)),"
    " needs AS (SELECT relname, oid, privilege FROM ours,"
    " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) WITH ORDINALITY AS each (privilege, place)"
    " WHERE place = 1 OR relname <> :b_record)"
    " SELECT relname, privilege FROM needs WHERE NOT has_table_privilege(oid, privilege)"
    " UNION ALL SELECT counter.relname, 'USAGE' FROM pg_class AS counter"
    " JOIN pg_depend ON objid = counter.oid AND deptype = 'a' JOIN ours ON ours.oid = refobjid"
    # A condition beside it would not keep the server from asking it of an index, which it refuses.
    " WHERE CASE counter.relkind WHEN 'S' THEN NOT has_sequence_privilege(counter.oid, 'USAGE')"
    " ELSE false END ORDER BY 1"
).bindparams(bindparam("b_record", _RECORD))
_OTHERS = text(
    "SELECT relname, quote_ident(pg_get_userbyid(relowner)) FROM pg_class"
    " WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND relname = ANY (:b_names)"
    " AND NOT pg_has_role(relowner, 'USAGE') ORDER BY 1"
)
_WHO = text("SELECT quote_ident(current_user), quote_ident(current_schema())")


def gone(connection: Connection) -> str | None:
    """Return the tables that a state has and that are not there, None for none."""
    there = set(_there(connection))
    return _some([name for name in _names() if name not in there], "tables") or None


def taken(connection: Connection) -> str | None:
    """Return the tables of a state's names that are there, None for none."""
    return _some(sorted(_there(connection)), "tables") or None


def _there(connection: Connection) -> Sequence[str]:
    return connection.scalars(_THERE, {"b_names": _names()}).all()


def lacking(connection: Connection) -> str | None:
    """Return what a service needs to do with the tables that are there and may not, None for nothing."""
    lacks = connection.execute(_LACKS, {"b_names": _names()}).all()
    if not lacks:
        return None
    role, schema = connection.execute(_WHO).one()
    counters = sorted({name for name, privilege in lacks if privilege == "USAGE"})
    on = sorted({name for name, privilege in lacks if privilege != "USAGE"})
    missing = {privilege for _, privilege in lacks}
    told, grants = [], []
    if on:
        kinds = ", ".join(it for it in ("SELECT", "INSERT", "UPDATE", "DELETE") if it in missing)
        told.append(f"{kinds} on {_some(on, 'tables')}")
        grants.append(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}")
    if counters:
        told.append(f"use {_some(counters, 'sequences')}")
        grants.append(f"GRANT USAGE, SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}")
    return f"may not {', nor '.join(told)}: {'; '.join(grants)}"


def barring(connection: Connection, *, makes: bool) -> str | None:
    """Return what keeps the user from migrating, None for nothing; `makes` is whether it may make tables."""
    role, schema = connection.execute(_WHO).one()
    if not makes:
        return f"may not make tables in it: GRANT CREATE, USAGE ON SCHEMA {schema} TO {role}"
    others = connection.execute(_OTHERS, {"b_names": _names()}).all()
    if not others:
        return None
    owners = ", ".join(sorted({owner for _, owner in others}))
    theirs = _some([name for name, _ in others], "tables")
    return (
        f"may not migrate its tables, of which {theirs} belong to {owners}: run one cycle as {owners}, or "
        f"say ALTER TABLE name OWNER TO {role} for each of them"
    )


def _names() -> list[str]:
    return [*SQLModel.metadata.tables, _RECORD]


def _some(names: list[str], kind: str) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more {kind}" if more > 0 else "")
