"""The URL of a state: read in one way only, so that no piece of a password is ever taken for a host.

What is refused is told without any of its text: whoever wrote a password where none belongs must not find it
in a log.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from urllib.parse import unquote, unquote_plus

_SERVER = re.compile(
    r"postgresql(?:\+psycopg)?://"
    r"(?:(?P<user>[^:@/?#]*)(?::(?P<password>[^@/?#]*))?@)?(?P<places>[^@/?#]*)"
    r"/(?P<dbname>[^@/?#]+)(?:\?(?P<query>[^@?#;]*))?"
)
_PLACE = re.compile(
    r"(?P<host>/[^:]*|[\w.-]*|\[[0-9a-fA-F:.]+(?:%[\w.-]+)?\]|[0-9a-fA-F.]*:[0-9a-fA-F:.]*:[0-9a-fA-F.]*)"
    r"(?::(?P<port>[0-9]*))?"
)
_PORT = re.compile("[0-9]{1,5}")
_NUMBER = re.compile("-?[0-9]{1,9}")
_LISTS = frozenset({"host", "hostaddr", "port"})
_MOST = 65535
_SHOWN = re.compile("[a-z_]{1,40}")

_NAMES = re.compile(r"\w+")
_NUMBERS = frozenset(
    _NAMES.findall(
        "connect_timeout keepalives keepalives_count keepalives_idle keepalives_interval tcp_user_timeout"
    )
)
_SECRETS = frozenset(
    _NAMES.findall("oauth_client_secret password scram_client_key scram_server_key sslpassword")
)
_OPTIONS = (
    _NUMBERS
    | _SECRETS
    | frozenset(
        _NAMES.findall("""
            application_name channel_binding client_encoding dbname fallback_application_name gssdelegation
            gssencmode gsslib host hostaddr krbsrvname load_balance_hosts max_protocol_version
            min_protocol_version oauth_client_id oauth_issuer oauth_scope options passfile port replication
            require_auth requirepeer service servicefile ssl_max_protocol_version ssl_min_protocol_version
            sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation
            sslrootcert sslsni target_session_attrs user
        """)
    )
)
"""What libpq takes: postgresql.org/docs/18/libpq-connect.html#LIBPQ-PARAMKEYWORDS (2026-11)."""

_NO_STATE = "is no URL of a state; write sqlite:///FILE, or postgresql+psycopg://USER@HOST/DATABASE"
_UNREADABLE = (
    "cannot be read as postgresql+psycopg://USER@HOST/DATABASE; percent-encode what user and password hold "
    "beside letters and digits: @ is %40, / is %2F, : is %3A, # is %23, ? is %3F, % is %25"
)
_HOSTS = (
    "names a host or a port that cannot be one; write HOST:PORT with a port from 1 to 65535, or of several "
    "hosts HOST:PORT,HOST:PORT, or host=HOST,HOST&port=PORT,PORT after the ?"
)
_LITERAL = (
    "has a password in it; name a file with it by passfile=FILE after the ?, or write the whole URL as a "
    'secret: { file = "path" } or { env = "NAME" }'
)


def state_problem(url: str, *, secret: bool) -> str | None:
    """Say why a text is no `service.state`, or None; only a `secret` may have a password in it."""
    if url.startswith("sqlite:///"):
        return None if ":memory:" not in url and len(url) > len("sqlite:///") else _NO_STATE
    if not url.startswith(("postgresql://", "postgresql+psycopg://")):
        return _NO_STATE
    try:
        given = server_options(url)
    except ValueError as error:
        return str(error)
    return _LITERAL if not secret and given.keys() & _SECRETS else None


def server_options(url: str) -> dict[str, str]:
    """Return what a URL of a PostgreSQL server says, by libpq's names: host, port, dbname, user and the rest.

    Several hosts are one text, with commas, and so are their ports; what the query says prevails. Raises
    ValueError, which shows nothing of a secret.
    """
    found = _SERVER.fullmatch(url)
    if found is None or not url.isprintable() or re.search(r"%(?![0-9a-fA-F]{2})", url):
        raise ValueError(_UNREADABLE)
    try:
        parts = {name: unquote(text, errors="strict") for name, text in found.groupdict("").items()}
        query = [
            tuple(unquote_plus(it, errors="strict") for it in option.partition("="))
            for option in (found["query"] or "").split("&")
            if option
        ]
    except UnicodeDecodeError:
        raise ValueError(_UNREADABLE) from None
    if any("\0" in text for text in (*parts.values(), *(it for option in query for it in option))):
        raise ValueError(_UNREADABLE)
    told = {name: parts[name] for name in ("user", "password", "dbname")}
    given = told | _places(parts["places"]) | _options(query)
    hosts, ports = _hosts(given), given.get("port", "").split(",")
    if len(ports) not in {1, len(hosts)} or not all(map(_is_port, ports)):
        raise ValueError(_HOSTS)
    return {name: value for name, value in given.items() if value}


def shown(given: Mapping[str, str]) -> str:
    """Return what a server is called, by what `server_options` returned: its database, and where it is."""
    hosts, ports = _hosts(given), given.get("port", "").split(",")
    places = zip(hosts, ports * len(hosts) if len(ports) == 1 else ports, strict=True)
    told = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in places)
    return f"PostgreSQL database {given['dbname']} on {','.join(it.removesuffix(':') for it in told)}"


def secrets_of_url(url: str) -> list[str]:
    """Return the password in the URL of a state, and what else of it nobody may see."""
    given = {} if url.startswith("sqlite:") else server_options(url)
    return [given[name] for name in sorted(given.keys() & _SECRETS)]


def _options(query: list[tuple[str, ...]]) -> dict[str, str]:
    """Return the options that have a value; hosts, addresses and ports may come one by one."""
    given: dict[str, str] = {}
    secret = any(name in _SECRETS for name, *_ in query)  # whose piece an unknown name may be
    for name, equals, value in query:
        if name not in _OPTIONS:
            called = f" {name}" if _SHOWN.fullmatch(name) and not secret else ""
            meant = "".join(difflib.get_close_matches(name, _OPTIONS, 1)) if called else ""
            remedy = f"did you mean {meant}?" if meant else "correct it, or leave it out"
            raise ValueError(f"has an option{called} that libpq does not know; {remedy}")
        if not equals:
            raise ValueError(f"has an option {name} without a value; write {name}=VALUE")
        if name in given and name not in _LISTS:
            raise ValueError(f"has the option {name} twice; leave out one of them")
        if name in _NUMBERS and value and not _NUMBER.fullmatch(value):
            raise ValueError(f"has an option {name} that is no whole number; write one, or leave it out")
        given[name] = f"{given[name]},{value}" if name in given else value
    given = {name: value for name, value in given.items() if value}
    return _places(given.pop("host", "")) | given


def _places(places: str) -> dict[str, str]:
    """Return host and port of `HOST:PORT`, of one or of several with commas between them."""
    hosts, ports = [], []
    for place in places.split(","):
        found = _PLACE.fullmatch(place)
        if found is None:
            raise ValueError(_HOSTS)
        host = found["host"].strip("[]")
        try:
            if not host.startswith("/"):
                host.encode("idna")  # as it is looked up
        except UnicodeError:
            raise ValueError(_HOSTS) from None
        hosts.append(host)
        ports.append(found["port"] or "")
    given = {"host": ",".join(hosts), "port": ",".join(ports)}
    return {name: text for name, text in given.items() if text.strip(",")}


def _hosts(given: Mapping[str, str]) -> list[str]:
    return (given.get("host") or given.get("hostaddr") or "localhost").split(",")


def _is_port(text: str) -> bool:
    return not text or (_PORT.fullmatch(text) is not None and 0 < int(text) <= _MOST)
