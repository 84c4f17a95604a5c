"""The wallet client: what it sends, how it reads the log, and what it makes of every answer."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from syncsvc.config import WalletConfig
from syncsvc.errors import CredentialsError, LostAnswerError, NotSentError, OperatorError, TransientError
from syncsvc.remote.transport import Network
from syncsvc.remote.wallet import WalletClient
from syncsvc.rules.values import instant_or_none
from syncsvc.sandbox.clock import ManualClock
from syncsvc.sandbox.server import Server
from syncsvc.sandbox.wallet import WalletKnobs, WalletSimulator
from syncsvc.sandbox.wallet_knobs import LogBrand, LogTime

MARK = "marked-person"
ORGANIZATION = "01JCSANDBOX0000000000000000"


class Desk:
    """A server that says one thing to everybody and remembers what it was asked."""

    def __init__(self) -> None:
        desk = self
        self.status = 200
        self.body = b'{"success":true,"data":[]}'
        self.headers: dict[str, str] = {}
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                names = {name.lower(): value for name, value in self.headers.items()}
                desk.asked.append((self.command, self.path, names, orjson.loads(raw) if raw else None))
                self.send_response(desk.status)
                for name, value in desk.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(desk.body)))
                self.end_headers()
                self.wfile.write(desk.body)

            do_GET = do_POST = answer  # noqa: N815 - the names the library calls

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                pass  # a client that hangs up is what some of these tests are about

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def log(self, *entries: Any) -> None:
        self.body = orjson.dumps({"success": True, "data": list(entries)})

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


Open = Callable[..., WalletClient]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    monkeypatch.setenv("WALLET_TOKEN", "wallet-sandbox")
    made: list[WalletClient] = []

    def make(url: str, *, network: Network | None = None, **wallet: Any) -> WalletClient:
        config = WalletConfig.model_validate(
            {"base_url": url, "token": {"env": "WALLET_TOKEN"}, "timeout": "5s"} | wallet
        )
        made.append(WalletClient(ORGANIZATION, config, network or Network()))
        return made[-1]

    yield make
    for client in made:
        client.close()


def read(client: WalletClient, brand: str = "brand-1", zone: str = "UTC") -> list[Any]:
    return [
        (email, text, instant_or_none(text, zone=ZoneInfo(zone)))
        for piece in client.log(brand)
        for email, text in piece
    ]


# What is sent.


def test_an_import_carries_the_organization_and_the_users_as_they_are(desk: Desk, opened: Open) -> None:
    users = [{"email": "a@b.example", "points": 5}, {"email": "ünï@b.example", "points": 0}]
    opened(desk.url).import_members(users)
    method, path, headers, body = desk.asked[0]
    assert (method, path) == ("POST", "/v2/import")
    assert body == {"organization_id": ORGANIZATION, "users": users}
    assert headers["authorization"] == "Bearer wallet-sandbox"
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == "application/json"


def test_paths_and_tokens_are_those_of_the_configuration(
    desk: Desk, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_TOKEN", "only-the-log")
    client = opened(
        desk.url + "/api", import_path="/v3/import", log_path="/v3/log", log_token={"env": "LOG_TOKEN"}
    )
    client.import_members([])
    read(client)
    (_, posted, one, _), (_, got, other, _) = desk.asked
    assert (posted, one["authorization"]) == ("/api/v3/import", "Bearer wallet-sandbox")
    assert (got, other["authorization"]) == ("/api/v3/log?brand_id=brand-1", "Bearer only-the-log")


def test_the_brand_of_the_log_stands_in_the_query_or_in_the_body(desk: Desk, opened: Open) -> None:
    read(opened(desk.url), "b & c")
    read(opened(desk.url, log_brand_in="body"), "b & c")
    (_, one, headers, nothing), (method, other, _, body) = desk.asked
    assert one in {"/import/log?brand_id=b+%26+c", "/import/log?brand_id=b%20%26%20c"}
    assert nothing is None
    assert "content-type" not in headers
    assert (method, other, body) == ("GET", "/import/log", {"brand_id": "b & c"})


def test_a_token_file_is_read_anew_for_every_call(desk: Desk, opened: Open, tmp_path: Path) -> None:
    path = tmp_path / "token"
    client = opened(desk.url, token={"file": str(path)})
    for token in ("first\n", "second\n"):
        path.write_text(token)
        client.import_members([])
        read(client)
    sent = [headers["authorization"] for _, _, headers, _ in desk.asked]
    assert sent == ["Bearer first", "Bearer first", "Bearer second", "Bearer second"]


@pytest.mark.parametrize(
    "content", [None, b"", b" \n", b"two words", b"two\nlines", "d\u2013sh".encode(), b"\xff"]
)
def test_a_token_that_cannot_be_sent_is_a_matter_of_credentials_and_nothing_is_asked(
    desk: Desk, opened: Open, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    client = opened(desk.url, token={"file": str(path)})
    with pytest.raises(CredentialsError, match="wallet token"):
        client.import_members([{"email": "a@b.example"}])
    with pytest.raises(CredentialsError, match="wallet token"):
        read(client)
    assert desk.asked == []


# Answers to an import.


def test_every_answer_to_an_import_is_returned_and_never_repeated(desk: Desk, opened: Open) -> None:
    client = opened(desk.url)
    statuses = [200, 201, 202, 301, 307, 400, 401, 403, 404, 405, 409, 413, 422, 429, 500, 502, 503, 504]
    desk.headers = {"Location": desk.url + "/elsewhere", "Retry-After": "9"}
    desk.body = b'{"a":1}'
    for desk.status in statuses:
        answer = client.import_members([])
        assert (answer.status, answer.body, answer.retry_after) == (desk.status, {"a": 1}, 9.0)
    assert [path for _, path, _, _ in desk.asked] == ["/v2/import"] * len(statuses)


@pytest.mark.parametrize("body", [b"", b"<html></html>", b'{"import_id":', b"\xff", b"{'a': 1}", b"NaN"])
def test_a_body_that_is_no_json_is_none(desk: Desk, opened: Open, body: bytes) -> None:
    desk.body = body
    assert opened(desk.url).import_members([]).body is None


def test_an_import_that_never_left_and_one_without_answer_are_two_things(desk: Desk, opened: Open) -> None:
    desk.headers = {"Content-Encoding": "gzip"}
    with pytest.raises(LostAnswerError):
        opened(desk.url).import_members([])
    client = opened(desk.url)
    desk.close()
    with pytest.raises(NotSentError):
        client.import_members([])


def test_the_wallets_clock_is_learnt_from_imports_and_logs(opened: Open) -> None:
    clock = ManualClock(datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC))
    wallet = WalletSimulator(brands=["brand-1"], clock=clock)
    with Server(wallet.app) as server:
        importing, reading = opened(server.url), opened(server.url)
        assert abs(importing.now() - datetime.now(UTC)) < timedelta(minutes=1)
        importing.import_members([])
        read(reading)
        for client in (importing, reading):
            assert abs(client.now() - clock.now()) < timedelta(minutes=1)


# The log.


def test_the_log_tells_emails_as_spelt_with_the_wallets_text_and_its_time(desk: Desk, opened: Open) -> None:
    desk.log(
        {"email": " Ann@Example.org ", "last_updated": "2026-11-22T08:00:00Z", "more": {"x": [1]}},
        {"email": "b@example.org", "last_updated": "2026-11-22"},
    )
    (one, other) = read(opened(desk.url))
    assert one[:2] == ("Ann@Example.org", "2026-11-22T08:00:00Z")
    assert (one[2].at, one[2].resolution) == (datetime(2026, 11, 22, 8, tzinfo=UTC), timedelta(seconds=1))
    assert other[2].resolution == timedelta(days=1)


@pytest.mark.parametrize(
    ("value", "text", "at"),
    [
        (1795334400, "1795334400", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        (1795334400000, "1795334400000", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        (1795334400.5, "1795334400.5", datetime(2026, 11, 22, 8, 0, 0, 500000, tzinfo=UTC)),
        ("1795334400", "1795334400", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("2026-11-22 09:00:00", "2026-11-22 09:00:00", datetime(2026, 11, 22, 8, tzinfo=UTC)),
        ("yesterday", "yesterday", None),
        (True, "True", None),
        (10**18, str(10**18), None),
    ],
)
def test_a_time_may_be_text_or_a_number_and_its_text_is_kept_where_it_cannot_be_read(
    desk: Desk, opened: Open, value: Any, text: str, at: datetime | None
) -> None:
    desk.log({"email": "a@b.example", "last_updated": value})
    ((email, told, instant),) = read(opened(desk.url), zone="Europe/Amsterdam")
    assert (email, told, instant and instant.at) == ("a@b.example", text, at)


def test_entries_that_say_nothing_are_left_out_and_the_others_are_read(desk: Desk, opened: Open) -> None:
    good = {"email": "a@b.example", "last_updated": "2026-11-22T08:00:00Z"}
    junk: list[Any] = [
        None,
        True,
        5,
        "text",
        [],
        [good],
        {},
        {"email": None},
        {"email": 5, "last_updated": "x"},
    ]
    junk += [{"last_updated": "x"}, {"email": ["a"], "last_updated": "x"}, {"email": {"email": "a"}}]
    nothing: list[Any] = [None, "", [], {}, [good]]
    empty: list[Any] = [{"email": "n@b.example", "last_updated": value} for value in nothing]
    desk.log(*junk, *empty, good)
    assert [entry[0] for entry in read(opened(desk.url))] == ["a@b.example"]


def test_an_empty_log_is_a_log(desk: Desk, opened: Open) -> None:
    assert read(opened(desk.url)) == []


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":false,"data":[]}',
        b'{"success":"true","data":[]}',
        b'{"success":null,"data":[]}',
        b'{"data":[]}',
        b'{"success":true,"success":false,"data":[]}',
        b'[{"success":true}]',
        b"null",
        b'"success"',
        b'{"success":true}',
        b'{"success":true,"data":null}',
        b'{"success":true,"data":"none"}',
        b'{"success":true,"data":{}}',
        b'{"success":true,"data":{"item":[{"email":"a@b.example","last_updated":"2026-11-22"}]}}',
        b'{"success":true,"data":{"data":[{"email":"a@b.example","last_updated":"2026-11-22"}]}}',
        b'{"success":true,"data":[{"mail":"a@b.example","last_updated":"2026-11-22"}]}',
        b'{"success":true,"data":[{"email":"a@b.example","updated":"2026-11-22"}]}',
        b'{"success":true,"data":["a@b.example"]}',
    ],
)
def test_what_is_no_log_as_we_know_it_never_counts_as_an_empty_one(
    desk: Desk, opened: Open, body: bytes
) -> None:
    desk.body = body
    with pytest.raises(TransientError):
        read(opened(desk.url))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>MARK</html>",
        b'{"success":true,"data":[{"email":"MARK@b.example","last_updated":"2026-11-22"}',
        b'{"success":true,"data":[{"email":"MARK@b.example","last_updated":"2026-11-22"}]',
        b'{"success":true,"data":[{"email":"MARK@b.ex',
        b'{"success":true,"data":[{"email":"MARK\xff"}]}',
        b'{"success":true,"data":[{"email":"MARK","last_updated":NaN}]}',
        b'{"success":true,"data":[{"email":"MARK","last_updated":1e999}]}',
        b'{"success":true,"data":[{"email":"MARK","last_updated":' + b"9" * 5000 + b"}]}",
        b'{"success":true,"data":[]}{"MARK":1}',
    ],
)
def test_a_log_that_is_not_whole_json_is_lost_and_not_quoted(desk: Desk, opened: Open, body: bytes) -> None:
    desk.body = body.replace(b"MARK", MARK.encode())
    with pytest.raises(LostAnswerError) as caught:
        read(opened(desk.url))
    error: BaseException | None = caught.value
    while error is not None:
        assert MARK not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_nested_junk_in_a_log_is_left_out(desk: Desk, opened: Open) -> None:
    deep = b"[" * 500 + b"]" * 500
    good = b'{"email":"a@b.example","last_updated":"2026-11-22","x":' + deep + b"}"
    odd = b'{"email":"b@b.example","last_updated":' + deep + b"}"
    desk.body = b'{"success":true,"x":' + deep + b',"data":[' + deep + b"," + odd + b"," + good + b"]}"
    assert [entry[0] for entry in read(opened(desk.url))] == ["a@b.example"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, CredentialsError),
        (403, CredentialsError),
        (404, OperatorError),
        (405, OperatorError),
        (422, OperatorError),
        (301, OperatorError),
        (302, OperatorError),
        (308, OperatorError),
        (400, TransientError),
        (408, TransientError),
        (429, TransientError),
        (500, TransientError),
        (502, TransientError),
        (503, TransientError),
        (201, TransientError),
        (206, TransientError),
    ],
)
def test_each_status_of_the_log_is_an_error_by_what_happens_next(
    desk: Desk, opened: Open, status: int, kind: type[Exception]
) -> None:
    desk.status, desk.headers = status, {"Location": "/x", "Retry-After": "17"}
    desk.body = f'{{"success":true,"message":"{MARK}","data":[]}}'.encode()
    with pytest.raises(kind) as caught:
        read(opened(desk.url))
    assert type(caught.value) is kind
    assert str(status) in str(caught.value)
    assert MARK not in str(caught.value)
    if isinstance(caught.value, TransientError):
        assert caught.value.retry_after == 17.0
    assert len(desk.asked) == 1


_READS_A_LONG_LOG = """
import resource, sys
from syncsvc.config import WalletConfig
from syncsvc.remote.transport import Network
from syncsvc.remote.wallet import WalletClient

wallet = WalletConfig.model_validate({"base_url": sys.argv[1], "token": {"env": "WALLET_TOKEN"}})
client = WalletClient("o", wallet, Network())
client.import_members([])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(len(piece) for piece in client.log("brand-1")))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.usefixtures("opened")
def test_a_long_log_is_read_as_a_stream(desk: Desk) -> None:
    entry = b'{"email":"member-%07d@example.org","last_updated":"2026-11-22T08:00:00Z"}'
    desk.body = b'{"data":[' + b",".join(entry % number for number in range(200_000)) + b'],"success":true}'
    assert len(desk.body) > 13_000_000
    ran = subprocess.run(
        [sys.executable, "-c", _READS_A_LONG_LOG, desk.url],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    entries, megabytes = map(int, ran.stdout.split())
    assert entries == 200_000
    assert megabytes < 12  # the log alone is more


# The simulator, which refuses what the vendor refuses.


@pytest.fixture
def wallet() -> WalletSimulator:
    return WalletSimulator(brands={"brand-1": ["card-1"], "brand-2": ["card-2"]}, knobs=WalletKnobs())


@pytest.mark.parametrize("form", list(LogTime))
def test_every_form_of_time_that_a_log_may_have_is_read(
    wallet: WalletSimulator, opened: Open, form: LogTime
) -> None:
    wallet.knobs.log_time = form
    wallet.touch("brand-1", "a@b.example")
    with Server(wallet.app) as server:
        ((email, text, instant),) = read(opened(server.url))
    assert (email, text) == ("a@b.example", str(wallet.log_time("brand-1", email)))
    assert abs(instant.at - datetime.now(UTC)) <= instant.resolution + timedelta(minutes=1)


@pytest.mark.parametrize("where", ["query", "body"])
def test_the_simulator_finds_the_brand_where_it_is_configured(
    wallet: WalletSimulator, opened: Open, where: str
) -> None:
    wallet.knobs.log_brand = LogBrand(where)
    wallet.touch("brand-2", "a@b.example")
    with Server(wallet.app) as server:
        assert [entry[0] for entry in read(opened(server.url, log_brand_in=where), "brand-2")] == [
            "a@b.example"
        ]
        other = "body" if where == "query" else "query"
        with pytest.raises(OperatorError):
            read(opened(server.url, log_brand_in=other), "brand-2")


def test_a_wallet_that_is_ready_has_no_problem_and_nobody_is_imported(
    wallet: WalletSimulator, opened: Open
) -> None:
    with Server(wallet.app) as server:
        assert opened(server.url).check(["brand-1", "brand-2"]) == []
    assert wallet.imports == []


@pytest.mark.parametrize(
    ("abilities", "told"),
    [
        ({"import"}, ["403: the token lacks the ability `brand.import` → give the token this ability"]),
        (
            {"brand.import"},
            ["import with 403: the token lacks the ability `import`, or may not act for this"],
        ),
        (set(), ["give the token this ability", "→ the token is known: give it the ability `import`"]),
        (
            None,
            ["401: the token is not accepted → it was revoked", "401: the token is not accepted → it was"],
        ),
    ],
)
def test_check_tells_what_a_token_lacks_and_what_to_do(
    wallet: WalletSimulator, opened: Open, abilities: set[str] | None, told: list[str]
) -> None:
    wallet.knobs.abilities.clear()
    if abilities is not None:
        wallet.knobs.abilities["wallet-sandbox"] = abilities
    with Server(wallet.app) as server:
        problems = opened(server.url).check(["brand-1"])
    assert len(problems) == len(told)
    for problem, words in zip(problems, told, strict=True):
        assert problem.where == "wallet"
        assert words in f"{problem.message} → {problem.remedy}"
        assert "token" in problem.remedy


def test_check_tells_a_wrong_path_a_wrong_brand_and_a_wrong_organization(
    wallet: WalletSimulator, opened: Open
) -> None:
    with Server(wallet.app) as server:
        assert "404" in opened(server.url, import_path="/import").check([])[0].message
        assert "404" in opened(server.url, log_path="/log").check(["brand-1"])[0].message
        assert "422" in opened(server.url).check(["brand-3"])[0].message
        unreachable = server.url
    with pytest.raises(NotSentError):
        opened(unreachable).check(["brand-1"])


def test_check_tells_that_the_token_cannot_be_read(
    opened: Open, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = opened(desk.url)
    monkeypatch.delenv("WALLET_TOKEN")
    assert {problem.message for problem in client.check(["brand-1"])} == {
        "the wallet token cannot be read: environment variable WALLET_TOKEN is not set"
    }
    assert desk.asked == []
