"""The PostgreSQL server of a state: whether it can be used, and how its troubles are told.

Codes: postgresql.org/docs/15/errcodes-appendix.html.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, inspect
from sqlalchemy import exc as sa_exc

from syncsvc.errors import StateError, StateUnreadyError
from syncsvc.state import migrations, privileges
from syncsvc.state.replicas import alive
from syncsvc.stateurl import server_options, shown

ANSWER_SECONDS = 20.0
"""How long the first answer of a server may take."""

OLDEST = 15
"""The oldest version that the tests are run on."""

_GONE = "somebody has changed its tables: put a backup back, as docs/operations.md says; none is made anew"
_CREATEDB = "createdb --owner USER --template template0 --encoding UTF8 NAME"
_READ_ONLY, _MAY_NOT = "25006", "42501"
_PASSES = {
    _READ_ONLY: "point state at the primary (with several hosts, target_session_attrs=read-write finds it); "
    "where it is the primary, turn off default_transaction_read_only of the role, the database or the server",
    "53100": "make room on the server's disk",
    "53200": "give the server more memory",
    "53300": "raise max_connections, or the user's or the database's limit; a process takes up to 31",
    "55P03": "another transaction holds what this one needs; see pg_stat_activity; it is tried again",
    "57014": "the server took too long; see what it is busy with; it is tried again",
    "57P01": "the server is being stopped; a service goes on once it is back",
    "57P02": "the server fell; a service goes on once it is back",
    "57P03": "the server is starting or stopping; a service goes on once it is back",
    "25P03": "this process stopped for so long that another one must not wait for it; it is tried again",
    "40001": "it is tried again",
    "40P01": "it is tried again",
}
"""Troubles that pass without anything changed here."""
_REMEDIES = {
    **_PASSES,
    "28000": "correct user and password, or what pg_hba.conf allows",
    "28P01": "correct user and password, as docs/postgresql.md says; a secret is read when a service starts: "
    "restart it once that has changed",
    "3D000": f"make it: {_CREATEDB}; or correct the name in state",
    "3F000": "make the schema that search_path names, or correct it in state",
    _MAY_NOT: "grant the user of state the right to make and use tables in its schema",
    "42P01": _GONE,
    "42703": _GONE,
}
_AUTHORITY = (
    "name the file of the authority that signed the server's certificate by sslrootcert=FILE in the URL of "
    "state, as docs/postgresql.md says; or renew that certificate"
)
_OPTION = "correct this option in the URL of state, or the variable PG... that sets it"
_STANDBY = "no host of state is what target_session_attrs asks for; a service goes on once one is"
_REFUSES = "the server is reached and refuses: see its log; it is tried again"
_SAID = {
    "root certificate|certificate verify failed": _AUTHORITY,
    "does not match host name|server's host name": "name the server in state as its certificate names it, or "
    "give it a certificate of that name",
    "does not support SSL": "turn on SSL at the server (ssl = on), or correct sslmode in the URL of state: "
    "without SSL anybody in between can read what passes",
    "certificate file|client certificate|private key file": "correct sslcert and sslkey in the URL of state; "
    "a key is for its owner alone (mode 0600)",
    "definition of service|service file": "correct service in the URL of state, or the file that "
    "PGSERVICEFILE names (~/.pg_service.conf)",
    "invalid .*value|invalid connection option|could not match|could not parse": _OPTION,
    "configuration parameter|command-line argument|weak sslmode|requirement|channel binding": _OPTION,
    "session is (?:not )?read-only|hot standby": _STANDBY,
    "no password supplied": "give one: passfile=FILE in the URL of state, of mode 0600 and with a line for "
    "this host, port, database and user; or make the URL a secret with the password in it",
    r"pg_hba\.conf|(?:Peer|Ident) authentication failed": "allow user, database and address in the server's "
    "pg_hba.conf, and reload it; where it says no encryption, sslmode=require may be what lacks",
    "is not permitted to log in": "ALTER ROLE NAME LOGIN, or correct the user in state",
    'role ".*" does not exist': "make it: createuser NAME; or correct the user in state",
    "permission denied for database": "GRANT CONNECT ON DATABASE NAME to the user of state",
    "is not currently accepting": "ALTER DATABASE NAME ALLOW_CONNECTIONS true, or name another in state",
    'database ".*" does not exist': _REMEDIES["3D000"],
    "connection slots|too many c": _REMEDIES["53300"],
    "authentication failed": _REMEDIES["28P01"],
    "the database system is": _REMEDIES["57P03"],
    "FATAL:": _REFUSES,
}
"""What is said while a connection is made, when the driver tells no code; the first that fits counts."""

_AWAY = "check that the server runs and that this machine reaches it; a service goes on once it is back"
_PASSING = {*_PASSES.values(), _STANDBY, _REFUSES, _AWAY}


@dataclass(frozen=True, slots=True)
class Server:
    """Where a state is, told without its password."""

    shown: str

    @classmethod
    def named(cls, url: str) -> Server:
        """Return the server and database of a URL."""
        return cls(shown(server_options(url)))

    def __str__(self) -> str:
        return self.shown

    def examine(self, engine: Engine, *, writes: bool) -> int:
        """Return the number of the schema that the tables are in.

        Raises StateError where they cannot be used, or not be written and made where that is asked.
        """
        with engine.connect() as connection, answered(connection.connection, self, ANSWER_SECONDS):
            asked = (
                "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),"
                " (SELECT oid::bigint FROM pg_namespace WHERE nspname = current_schema()),"
                " current_setting('server_version'),"
                " current_setting('transaction_read_only') = 'on',"
                " has_schema_privilege(current_schema(), 'CREATE')"
            )
            number, encoding, schema, version, read_only, makes = connection.exec_driver_sql(asked).one()
        if number < OLDEST * 10_000:
            raise StateError(
                f"{self} is PostgreSQL {version}: syncsvc is tested on {OLDEST} and newer; upgrade the server"
            )
        if encoding != "UTF8":
            raise StateError(
                f"{self} has the encoding {encoding}: names in other scripts would not fit; make one with "
                f"{_CREATEDB}"
            )
        if schema is None:
            raise StateError(f"{self} has no schema to make tables in: {_REMEDIES['3F000']}")
        if writes and read_only:
            raise StateUnreadyError(f"{self} may only be read: {_REMEDIES[_READ_ONLY]}")
        if writes and (barred := _barred(engine, makes=makes)):
            raise StateError(f"the user of {self} {barred}")
        form = migrations.form(engine)
        with engine.connect() as connection:
            if form == migrations.forms()[0] and (gone := privileges.gone(connection)):
                raise StateError(f"{self} has no {gone}: {_GONE}")
            taken = privileges.taken(connection) if form is None else None
            if taken and migrations.form(engine) is None:  # else another process has just made them
                raise StateError(
                    f"{self} has {taken}, and is no state: name a database of its own, or a schema "
                    "(options=-csearch_path=NAME in the URL of state)"
                )
        return int(schema)


def require_nobody_older(server: Server, engine: Engine) -> None:
    """Raise StateUnreadyError where a process runs cycles on tables that are to be migrated."""
    form, head = migrations.form(engine), migrations.forms()[0]
    if form == head or form not in migrations.forms():
        return
    with engine.connect() as connection:
        if not inspect(connection).has_table("replica"):
            return
        names = alive(connection.connection.cursor().execute)
    if names:
        raise StateUnreadyError(
            f"{server} is of form {form}, with which {', '.join(names)} still works; stop every process of "
            f"that version first, and start this one then, which brings it to form {head}; one that was "
            "killed is forgotten within service.lease"
        )


def _barred(engine: Engine, *, makes: bool) -> str | None:
    """Return what a service needs and the user may not, with what grants it; None where that is nothing."""
    with engine.connect() as connection:
        if lacks := privileges.lacking(connection):
            return lacks
    head, *older = migrations.forms()
    form = migrations.form(engine)
    if form == head or form not in {None, *older}:
        return None
    with engine.connect() as connection:
        return privileges.barring(connection, makes=makes)


@contextlib.contextmanager
def telling(server: Server) -> Iterator[None]:
    """Turn what the server says of itself into StateError, and what passes into StateUnreadyError.

    A mistake of ours stays one.
    """
    try:
        yield
    except sa_exc.TimeoutError as error:
        raise StateUnreadyError(
            f"{server} cannot be used: every connection is in use; {_REMEDIES['53300']}"
        ) from error
    except sa_exc.DBAPIError as error:
        if _is_of_the_server(error.orig):
            raise _unusable(server, error.orig) from error
        raise
    except Exception as error:
        if type(error).__module__.startswith("psycopg") and _is_of_the_server(error):  # at the beginning
            raise _unusable(server, error) from error
        raise


@contextlib.contextmanager
def answered(connection: Any, server: Server, seconds: float) -> Iterator[None]:
    """Let the driver wait for an answer for so long, whoever is silent: the server, or one between.

    Raises StateUnreadyError then; the connection is of no use any more.
    """
    late = threading.Event()

    def give_up() -> None:
        late.set()
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise StateUnreadyError(
                f"{server} cannot be used: no answer within {seconds:.0f} s; {_AWAY}"
            ) from error
        raise
    finally:
        timer.cancel()


def is_read_only(error: BaseException) -> bool:
    """Return whether a write was refused as nothing can be written, by this connection if not at all."""
    return getattr(getattr(error, "orig", error), "sqlstate", None) == _READ_ONLY


def _is_of_the_server(error: Any) -> bool:
    code = getattr(error, "sqlstate", None)
    kinds = {kind.__name__ for kind in type(error).__mro__}
    refused = code is None and "invalid connection option" in str(error)  # an older libpq knows fewer
    return code in _REMEDIES or "OperationalError" in kinds or refused


def _unusable(server: Server, error: Any) -> StateError:
    code = getattr(error, "sqlstate", None)
    lines = (str(error).strip() or type(error).__name__).splitlines()
    # Of several hosts the first line tells the last one alone.
    tries = sorted(it.removeprefix("- ") for it in lines if it.startswith("- host")) or lines[:1]
    remedies = list(dict.fromkeys(_remedy(code, said) for said in tries))
    kind = StateUnreadyError if _PASSING & set(remedies) else StateError
    return kind(f"the state in {server} cannot be used: {'; '.join(tries)}; {'; or '.join(remedies)}")


def _remedy(code: str | None, said: str) -> str:
    found = _REMEDIES.get(code or "")
    return found or next((it for words, it in _SAID.items() if re.search(words, said)), _AWAY)
