"""What is said of a PostgreSQL server that cannot be used: each trouble with its own next step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from passage import Passage
from postgres import Postgres

from syncsvc.errors import StateError, StateUnreadyError
from syncsvc.state import server
from syncsvc.state.database import Database
from syncsvc.state.server import Server, telling
from syncsvc.watch.redaction import redacted

AT = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '
CERTIFICATE = "sslrootcert=FILE in the URL of state"
OPTION = "correct this option in the URL of state"


def told(error: Exception) -> str:
    with pytest.raises(StateError) as caught, telling(Server("PostgreSQL database d on h")):
        raise error
    return str(caught.value)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (f'{AT}root certificate file "/home/sync/.postgresql/root.crt" does not exist', CERTIFICATE),
        (f"{AT}SSL error: certificate verify failed: self-signed certificate", CERTIFICATE),
        (f'{AT}server certificate for "a" does not match host name "b"', "name the server in state as its"),
        (f'{AT}server certificate for "a" (and 2 other names) does not match host name "b"', "as its certif"),
        (f"{AT}server does not support SSL, but SSL was required", "turn on SSL at the server"),
        (
            f'{AT}could not open certificate file "/x": No such file or directory',
            "correct sslcert and sslkey",
        ),
        (f'{AT}private key file "/x" has group or world access', "correct sslcert and sslkey"),
        ('connection is bad: definition of service "x" not found', "correct service in the URL"),
        ('connection is bad: invalid sslmode value: "x"', OPTION),
        ('connection is bad: invalid "ssl_min_protocol_version" value: "x"', OPTION),
        ('connection is bad: weak sslmode "require" may not be used with sslrootcert=system', OPTION),
        (f'{AT}FATAL:  unrecognized configuration parameter "x"', OPTION),
        (f'{AT}FATAL:  invalid value for parameter "client_encoding": "x"', OPTION),
        (f"{AT}session is read-only", "what target_session_attrs asks for"),
        (f"{AT}fe_sendauth: no password supplied", "passfile=FILE in the URL of state, of mode 0600"),
        (
            f'{AT}FATAL:  no pg_hba.conf entry for host "h", user "u", database "d", no encryption',
            "allow user, database and address in the server's pg_hba.conf",
        ),
        (f'{AT}FATAL:  Peer authentication failed for user "u"', "in the server's pg_hba.conf"),
        (f'{AT}FATAL:  password authentication failed for user "u"', "correct user and password"),
        (f'{AT}FATAL:  role "u" is not permitted to log in', "ALTER ROLE NAME LOGIN"),
        (f'{AT}FATAL:  role "u" does not exist', "make it: createuser NAME"),
        (
            f'{AT}FATAL:  database "d" does not exist',
            "make it: createdb --owner USER --template template0 ",
        ),
        (f'{AT}FATAL:  permission denied for database "d"', "GRANT CONNECT ON DATABASE NAME"),
        (f'{AT}FATAL:  database "d" is not currently accepting connections', "ALLOW_CONNECTIONS true"),
        (f"{AT}FATAL:  remaining connection slots are reserved for roles with SUPERUSER", "max_connections"),
        (f"{AT}FATAL:  sorry, too many clients already", "raise max_connections"),
        (f"{AT}FATAL:  the database system is starting up", "the server is starting or stopping"),
        (f"{AT}FATAL:  something that nobody has heard of", "the server is reached and refuses: see its log"),
        (f"{AT}Connection refused", "check that the server runs"),
        ("failed to resolve host 'h': Name or service not known", "check that the server runs"),
        ("connection timeout expired", "check that the server runs"),
    ],
)
def test_each_trouble_of_connecting_has_its_own_next_step(said: str, remedy: str) -> None:
    answer = told(psycopg.OperationalError(f"{said}\nand more"))
    assert answer.startswith(f"the state in PostgreSQL database d on h cannot be used: {said}; ")
    assert remedy in answer.rpartition(said)[2]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (StateUnreadyError, f"{AT}Connection refused"),
        (StateUnreadyError, "failed to resolve host 'h': Name or service not known"),
        (StateUnreadyError, f"{AT}session is read-only"),
        (StateUnreadyError, f"{AT}FATAL:  the database system is starting up"),
        (StateUnreadyError, f"{AT}FATAL:  sorry, too many clients already"),
        (StateUnreadyError, f"{AT}FATAL:  something that nobody has heard of"),
        (StateError, f'{AT}FATAL:  password authentication failed for user "u"'),
        (StateError, f'{AT}FATAL:  database "d" does not exist'),
        (StateError, f"{AT}SSL error: certificate verify failed: self-signed certificate"),
        (StateError, 'connection is bad: invalid sslmode value: "x"'),
    ],
)
def test_what_passes_is_told_from_what_a_person_mends(kind: type[StateError], said: str) -> None:
    with pytest.raises(StateError) as caught, telling(Server("s")):
        raise psycopg.OperationalError(said)
    assert type(caught.value) is kind


def test_of_several_hosts_each_is_told_and_one_that_may_come_back_is_waited_for() -> None:
    tries = [
        "- host: 'b', port: 5432, hostaddr: '10.0.0.2': connection failed: session is read-only",
        "- host: 'a', port: 5432, hostaddr: '10.0.0.1': connection failed: password authentication failed",
    ]
    said = "connection failed: the last one\nMultiple connection attempts failed. All failures were:\n"
    with pytest.raises(StateUnreadyError) as caught, telling(Server("s")):
        raise psycopg.OperationalError(said + "\n".join(tries))
    first, second = (it.removeprefix("- ") for it in reversed(tries))
    assert f"cannot be used: {first}; {second}; correct user and password" in str(caught.value)
    assert "; or no host of state is what target_session_attrs asks for" in str(caught.value)


def test_a_server_that_falls_silent_as_it_is_looked_at_is_told(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.3)
    with Passage(postgres.folder, silent_upon=b"server_version_num") as passage:
        url = postgres.database().replace(str(postgres.folder), f"127.0.0.1&port={passage.port}")
        with pytest.raises(StateUnreadyError, match="no answer within 0 s; check that the server runs"):
            Database.open_beside(url)


def test_an_option_that_an_older_libpq_does_not_know_is_told() -> None:
    assert OPTION in told(psycopg.ProgrammingError('invalid connection option "sslnegotiation"\n'))


def test_a_mistake_of_ours_stays_one() -> None:
    with pytest.raises(psycopg.ProgrammingError), telling(Server("s")):
        raise psycopg.ProgrammingError("the query has 1 placeholder but 2 parameters were passed")


def test_every_next_step_is_whole_in_the_log() -> None:
    steps = [*server._REMEDIES.values(), *server._SAID.values(), server._AWAY]
    assert [redacted(it) for it in steps] == steps


def test_a_refused_password_is_said_to_be_read_at_the_start_of_a_service() -> None:
    answer = told(psycopg.OperationalError(f'{AT}FATAL:  password authentication failed for user "u"'))
    assert "a secret is read when a service starts: restart it once that has changed" in answer


@contextmanager
def role(postgres: Postgres, name: str, how: str) -> Iterator[None]:
    postgres.run(f"CREATE ROLE {name} {how}")
    try:
        yield
    finally:
        postgres.run(f"DROP ROLE {name}")


def refused(url: str) -> str:
    with pytest.raises(StateError) as caught:
        Database.open(url)
    return str(caught.value)


def test_what_a_real_server_refuses_has_its_own_next_step(postgres: Postgres) -> None:
    url = postgres.database()
    name = re.search(r"d\w{32}", url)
    assert name is not None
    nobody = refused(url.replace("tests@", "nobody_here@"))
    assert 'role "nobody_here" does not exist; make it: createuser NAME' in nobody
    with role(postgres, "barred", "NOLOGIN"):
        assert "not permitted to log in; ALTER ROLE" in refused(url.replace("tests@", "barred@"))
    with role(postgres, "stranger", "LOGIN"):
        postgres.run(f"REVOKE CONNECT ON DATABASE {name[0]} FROM PUBLIC")
        assert "; GRANT CONNECT ON DATABASE" in refused(url.replace("tests@", "stranger@"))
    postgres.run(f"ALTER DATABASE {name[0]} ALLOW_CONNECTIONS false")
    assert "; ALTER DATABASE NAME ALLOW_CONNECTIONS" in refused(url)
    with Passage(postgres.folder) as passage:
        over_tcp = postgres.database().partition("?")[0].replace("@/", f"@127.0.0.1:{passage.port}/")
        assert "SSL was required; turn on SSL" in refused(f"{over_tcp}?sslmode=verify-full")
    assert f'"x"; {OPTION}' in refused(f"{postgres.database()}&sslmode=x")
    assert f'"x"; {OPTION}' in refused(f"{postgres.database()}&options=-c%20x%3D1")
