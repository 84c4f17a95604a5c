"""The URL of a state: read in one way only, refused in words that show nothing of a password."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq

from syncsvc.errors import ConfigurationError, StateError
from syncsvc.service import ServiceConfig
from syncsvc.state.condition import condition
from syncsvc.state.database import Database
from syncsvc.stateurl import secrets_of_url, server_options, shown, state_problem
from syncsvc.watch.redaction import redacted

HEAD = "postgresql+psycopg://"
ENCODED = "percent-encode what user and password hold"


def told(url: str) -> str:
    """Return why a URL is refused as a literal and as a secret, the same in both."""
    problem = state_problem(url, secret=True)
    assert problem is not None
    assert state_problem(url, secret=False) == problem
    with pytest.raises(StateError) as caught:
        Database.open(url)
    assert str(caught.value) == f"state {problem}"
    assert [it.message for it in condition(url).problems] == [f"state {problem}"]
    return problem


@pytest.mark.parametrize(
    "password",
    [
        "Topone@Toptwo",
        "Topone@Toptwo/Topthree",
        "Topone@Toptwo?Top=three",
        "Topone/Toptwo",
        "Topone?Toptwo",
        "Topone#Toptwo",
        "Topone:Toptwo@Topthree",
        "Topone:1/Top?Top@Topfour",
        "Top%one",
        "Top%",
        "%E4Top",
        "Top%00",
        "Top\none",
    ],
)
def test_a_password_that_is_not_percent_encoded_is_refused_and_shown_in_no_piece(password: str) -> None:
    for rest in ("127.0.0.1:5466/syncsvc", "h/d?sslmode=require", "/d?host=/run/postgresql", "a,b:1/d"):
        problem = told(f"{HEAD}syncsvc:{password}@{rest}")
        assert ENCODED in problem
        assert "Top" not in problem


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_a_password_that_is_percent_encoded_is_what_it_was(password: str) -> None:
    url = f"{HEAD}u:{quote(password, safe='')}@h/d"
    assert server_options(url) == {"user": "u", "password": password, "host": "h", "dbname": "d"}
    assert secrets_of_url(url) == [password]
    assert shown(server_options(url)) == "PostgreSQL database d on h"


@given(st.text(alphabet="Tx@/?#:%;&=,[]0 .", min_size=3, max_size=12))
def test_whatever_a_password_holds_no_piece_of_it_is_taken_for_something_else(password: str) -> None:
    url = f"{HEAD}u:{password}@127.0.0.1:5466/d"
    if state_problem(url, secret=True) is None:
        assert shown(server_options(url)) == "PostgreSQL database d on 127.0.0.1:5466"


def test_a_colon_in_a_password_needs_nothing() -> None:
    assert server_options(f"{HEAD}u:a:b@h/d")["password"] == "a:b"


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("passfle=Top", "an option passfle that libpq does not know; did you mean passfile?"),
        ("prepare_threshold=0", "an option prepare_threshold that libpq does not know; correct it, or leave"),
        ("cursor_factory=Top", "an option cursor_factory that libpq does not know"),
        ("password=Topone&toptwo=Top", "an option that libpq does not know"),
        ("TOP=1", "an option that libpq does not know"),
        ("connect_timeout=Top", "an option connect_timeout that is no whole number"),
        ("connect_timeout=3&connect_timeout=4", "the option connect_timeout twice"),
        ("sslmode", "an option sslmode without a value; write sslmode=VALUE"),
        ("port=Top", "a port that cannot be one"),
        ("port=0", "a port that cannot be one"),
        ("host=a,b&port=1,2,3", "after the ?"),
        ("host=Top..x", "a host or a port that cannot be one"),
        ("sslmode=require?password=Top", ENCODED),
        ("sslmode=require;password=Top", ENCODED),
    ],
)
def test_an_option_that_cannot_be_is_told_by_its_name(option: str, words: str) -> None:
    problem = told(f"{HEAD}u@h/d?{option}")
    assert words in problem
    assert "top" not in problem.lower()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (f"{HEAD}u@h:abc/d", "HOST:PORT,HOST:PORT, or host=HOST,HOST&port=PORT,PORT after the ?"),
        (f"{HEAD}u@h:65536/d", "a port from 1 to 65535"),
        (f"{HEAD}u@a:1,b:c/d", "a port from 1 to 65535"),
        (f"{HEAD}u%3Apw%40h/d", "a host or a port that cannot be one"),
        (f"{HEAD}u@h", f"{HEAD}USER@HOST/DATABASE"),
        ("postgresql+psycopg2://u:pw@h/d", f"write sqlite:///FILE, or {HEAD}USER@HOST/DATABASE"),
        ("mysql://u:pw@h/d", "write sqlite:///FILE"),
        ("pw", "write sqlite:///FILE"),
    ],
)
def test_what_is_no_url_of_a_state_is_told_what_one_is(url: str, words: str) -> None:
    problem = told(url)
    assert words in problem
    assert "pw" not in problem


@pytest.mark.parametrize(
    ("written", "hosts", "ports", "called"),
    [
        ("u@a:1,b:2/d", "a,b", "1,2", "a:1,b:2"),
        ("u@a,b:2/d", "a,b", ",2", "a,b:2"),
        ("u@/d?host=a:1&host=b:2", "a,b", "1,2", "a:1,b:2"),
        ("u@/d?host=a&host=b&port=1&port=2", "a,b", "1,2", "a:1,b:2"),
        ("u@/d?host=a,b&port=1,2", "a,b", "1,2", "a:1,b:2"),
        ("u@a,b/d?port=7", "a,b", "7", "a:7,b:7"),
        ("u@[::1]:5432,b/d", "::1,b", "5432,", "[::1]:5432,b"),
        ("u@/d?host=::1", "::1", None, "[::1]"),
        ("u@:7/d?host=/run/postgresql", "/run/postgresql", "7", "/run/postgresql:7"),
        ("u@%2Frun%2Fpostgresql/d", "/run/postgresql", None, "/run/postgresql"),
        ("u@/d", None, None, "localhost"),
        ("u@h:/d", "h", None, "h"),
        ("u@[fe80::1%25eth0]:7/d", "fe80::1%eth0", "7", "[fe80::1%eth0]:7"),
        ("u@/d?hostaddr=127.0.0.1,127.0.0.2&port=1,2", None, "1,2", "127.0.0.1:1,127.0.0.2:2"),
    ],
)
def test_hosts_are_named_as_libpq_and_sqlalchemy_name_them(
    written: str, hosts: str | None, ports: str | None, called: str
) -> None:
    found = server_options(HEAD + written)
    assert (found.get("host"), found.get("port")) == (hosts, ports)
    assert shown(found) == f"PostgreSQL database d on {called}"


def test_every_option_of_libpq_is_known() -> None:
    for option in pq.Conninfo.get_defaults():
        name = option.keyword.decode()
        value = "1" if name != "host" else "h"
        assert server_options(f"{HEAD}u@h/d?{name}={value}")[name] == value


@pytest.mark.parametrize("page", ["postgresql.md", "replicas/compose.yaml", "replicas/kubernetes.yaml"])
def test_the_urls_of_the_documentation_are_of_states_and_prove_the_server_where_they_say_so(
    page: str,
) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    urls = [it.rstrip(",`") for it in re.findall(r"postgresql\+psycopg://[^\s\"]+", text)]
    written = [it for it in urls if it.startswith(f"{HEAD}syncsvc")]
    assert written
    for url in written:
        assert state_problem(url, secret=True) is None, url
        assert ("sslmode=verify-full" in url) <= ("sslrootcert=" in url), url
    for sign in "@/:#?%":
        assert re.search(rf"{re.escape(sign)}`?\s+is\s+`?{quote(sign, safe='')}", text), sign


def test_a_secret_that_holds_no_state_is_a_mistake_of_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "state"
    service = ServiceConfig.model_validate({"state": {"file": str(file)}})
    for wrong in ("postgresql+psycopg2://u@h/d", f"{HEAD}u:p@w@h/d", f"{HEAD}u@h/d?passfle=x", "rubbish"):
        file.write_text(f"{wrong}\n", encoding="utf-8")
        with pytest.raises(ConfigurationError) as caught:
            _ = service.state_url
        assert str(caught.value) == (f"service.state: what {file} holds {state_problem(wrong, secret=True)}")


def test_a_refusal_is_a_whole_sentence_in_the_log_too() -> None:
    for option in ("passfle=x", "connect_timeout=x", "host=a,b&port=1,2,3"):
        problem = state_problem(f"{HEAD}u@h/d?{option}", secret=True)
        assert redacted(problem) == problem
    literal = state_problem(f"{HEAD}u:pw@h/d", secret=False)
    assert redacted(literal) == literal
