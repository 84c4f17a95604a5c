from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import TypeAdapter
from starlette.types import Message, Receive, Scope, Send

from connectors.salesforce_api import Session
from connectors.salesforce_auth import Auth
from syncsvc.errors import (
    CredentialsError,
    LostAnswerError,
    OperatorError,
    SchemaError,
    SyncError,
    TransientError,
)
from syncsvc.remote.transport import Network
from syncsvc.sandbox.faults import Fault, Kind
from syncsvc.sandbox.salesforce import SalesforceSimulator
from syncsvc.sandbox.server import Authority, Server

TOKEN = ("POST", "/services/oauth2/token")
SOAP = ("POST", "/services/Soap/u/{version}")
LIMITS = "/services/data/v{version}/limits"
DAILY = [{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]
SECRET = "hunter2-very-secret"


class Quiet(Network):
    """Does not wait, but remembers for how long it was asked to; its clocks can be moved."""

    waits: list[float]
    ahead = timedelta(0)
    later = 0.0
    passing = 0.0

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def now(self) -> datetime:
        return super().now() + self.ahead

    def monotonic(self) -> float:
        self.later += self.passing
        return super().monotonic() + self.later


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Stage:
    """One server for many tests, each with an org of its own; where not `dated`, no answer tells the time."""

    org: SalesforceSimulator
    dated = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def undated(message: Message) -> None:
            headers = [header for header in message.get("headers", ()) if header[0] != b"date"]
            await send({**message, "headers": headers} if headers else message)

        await self.org.app(scope, receive, send if self.dated else undated)


@pytest.fixture(scope="module")
def served(authority: Authority) -> Iterator[tuple[Server, Stage]]:
    stage = Stage()
    with Server(stage, authority=authority) as server:
        yield server, stage


@pytest.fixture
def stage(served: tuple[Server, Stage]) -> Stage:
    _, stage = served
    stage.org, stage.dated = SalesforceSimulator(), True
    return stage


@pytest.fixture
def org(stage: Stage) -> SalesforceSimulator:
    return stage.org


@pytest.fixture
def server(served: tuple[Server, Stage], org: SalesforceSimulator) -> Server:
    assert org is served[1].org
    return served[0]


@pytest.fixture
def network(authority: Authority) -> Quiet:
    network = Quiet(ca_file=str(authority.ca_file))
    network.waits = []
    return network


@pytest.fixture
def session(
    server: Server, network: Quiet, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Session]]:
    opened = []
    monkeypatch.setenv("SF_ID", "sandbox-client")
    monkeypatch.setenv("SF_SECRET", "sandbox-secret")

    def open_session(version: str = "67.0", **auth: Any) -> Session:
        auth = auth or {
            "flow": "client_credentials",
            "client_id": {"env": "SF_ID"},
            "client_secret": {"env": "SF_SECRET"},
        }
        parsed = TypeAdapter[Any](Auth).validate_python(auth)
        opened.append(
            Session(server.url, auth=parsed, version=version, timeout=5, reserve="5%", network=network)
        )
        return opened[-1]

    yield open_session
    for each in opened:
        each.close()


@pytest.fixture
def pem(key: rsa.RSAPrivateKey, org: SalesforceSimulator, tmp_path: Path) -> Path:
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    org.public_key = public.decode()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "key.pem"
    path.write_bytes(private)
    return path


@pytest.fixture
def bearer(pem: Path) -> dict[str, Any]:
    return {
        "flow": "jwt",
        "client_id": {"env": "SF_ID"},
        "username": "sync@sandbox.example",
        "private_key": {"file": str(pem)},
    }


@pytest.fixture
def password(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("SF_PASSWORD", "pw")
    monkeypatch.setenv("SF_TOKEN", "tok")
    return {
        "flow": "password",
        "username": "sync@sandbox.example",
        "password": {"env": "SF_PASSWORD"},
        "security_token": {"env": "SF_TOKEN"},
    }


def answering(org: SalesforceSimulator, status: int, body: Any, path: str = "limits", **more: Any) -> Fault:
    return org.faults.add(Fault(Kind.STATUS, path=path, status=status, body=body, **more))


def test_client_credentials_log_in_once_for_many_calls(
    org: SalesforceSimulator, session: Callable[..., Session]
) -> None:
    speaking = session()
    for _ in range(3):
        assert "DailyApiRequests" in speaking.call("GET", "limits").body
    assert org.requests[TOKEN] == 1
    assert org.requests["GET", LIMITS] == 3


def test_jwt_bearer_logs_in(
    org: SalesforceSimulator, session: Callable[..., Session], bearer: dict[str, Any]
) -> None:
    assert session(**bearer).call("GET", "limits").body
    assert org.requests[TOKEN] == 1


def test_jwt_login_learns_the_servers_clock_from_a_refusal(
    org: SalesforceSimulator, session: Callable[..., Session], network: Quiet, bearer: dict[str, Any]
) -> None:
    network.ahead = timedelta(hours=-1)
    speaking = session(**bearer)
    assert speaking.call("GET", "limits").body
    assert org.requests[TOKEN] == 2
    org.expire_tokens()
    assert speaking.call("GET", "limits").body
    assert org.requests[TOKEN] == 3, "the clock is known by now"


def test_jwt_login_that_is_refused_for_another_reason_is_not_repeated(
    org: SalesforceSimulator, session: Callable[..., Session], bearer: dict[str, Any]
) -> None:
    org.knobs.approved = False
    with pytest.raises(CredentialsError, match=r"invalid_grant: .*pre-authorise"):
        session(**bearer).call("GET", "limits")
    assert org.requests[TOKEN] == 1


def test_a_private_key_that_is_none_is_told_without_quoting_it(
    session: Callable[..., Session], bearer: dict[str, Any], pem: Path
) -> None:
    pem.write_text(SECRET)
    with pytest.raises(CredentialsError, match="private_key") as caught:
        session(**bearer).call("GET", "limits")
    assert SECRET not in str(caught.value)


def test_soap_login_gives_a_session_for_rest(
    org: SalesforceSimulator, session: Callable[..., Session], password: dict[str, Any]
) -> None:
    assert session("64.0", **password).call("GET", "limits").body
    assert org.requests[SOAP] == 1
    assert org.requests[TOKEN] == 0


def test_soap_login_escapes_what_it_sends(
    org: SalesforceSimulator,
    session: Callable[..., Session],
    password: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    org.password = "a<b>&\"c'"
    monkeypatch.setenv("SF_PASSWORD", org.password)
    assert session("64.0", **password).call("GET", "limits").body


def test_soap_login_with_a_wrong_password_names_the_code_alone(
    session: Callable[..., Session], password: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SF_PASSWORD", SECRET)
    with pytest.raises(CredentialsError, match="INVALID_LOGIN") as caught:
        session("64.0", **password).call("GET", "limits")
    assert SECRET not in str(caught.value)
    assert "sandbox.example" not in str(caught.value)


def test_soap_login_to_a_version_without_it_says_which_versions_have_it(
    session: Callable[..., Session], password: dict[str, Any]
) -> None:
    with pytest.raises(OperatorError, match=r"UNSUPPORTED_API_VERSION.*64\.0") as caught:
        session("65.0", **password).call("GET", "limits")
    assert not isinstance(caught.value, CredentialsError)


def test_an_expired_token_is_replaced_once_and_the_call_succeeds(
    org: SalesforceSimulator, session: Callable[..., Session]
) -> None:
    speaking = session()
    speaking.call("GET", "limits")
    org.expire_tokens()
    assert speaking.call("GET", "limits").body
    assert org.requests[TOKEN] == 2
    assert org.requests["GET", LIMITS] == 3


def test_a_token_refused_right_after_login_is_not_replaced_again(
    org: SalesforceSimulator, session: Callable[..., Session]
) -> None:
    org.revoke("Session expired or invalid")
    with pytest.raises(CredentialsError, match="just issued"):
        session().call("GET", "limits")
    assert org.requests[TOKEN] == 2
    assert org.requests["GET", LIMITS] == 2


def test_a_401_that_no_login_cures_is_raised_at_once(
    org: SalesforceSimulator, session: Callable[..., Session]
) -> None:
    org.revoke()
    with pytest.raises(CredentialsError, match="INVALID_SESSION_ID"):
        session().call("GET", "limits")
    assert org.requests[TOKEN] == 1
    assert org.requests["GET", LIMITS] == 1


def test_a_401_without_json_is_an_expired_token_too(
    org: SalesforceSimulator, session: Callable[..., Session]
) -> None:
    answering(org, 401, b"<html>no</html>")
    assert session().call("GET", "limits").body
    assert org.requests[TOKEN] == 2


def test_threads_share_one_login(org: SalesforceSimulator, session: Callable[..., Session]) -> None:
    speaking = session()
    speaking.call("GET", "limits")
    org.expire_tokens()
    together = threading.Barrier(4)
    bodies = []

    def work() -> None:
        together.wait()
        bodies.append(speaking.call("GET", "limits").body)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bodies) == 4
    assert org.requests[TOKEN] == 2


def test_secrets_are_read_again_at_each_login(
    org: SalesforceSimulator, session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    speaking = session()
    speaking.call("GET", "limits")
    org.client_secret = "rotated"
    org.expire_tokens()
    with pytest.raises(CredentialsError, match="invalid_client"):
        speaking.call("GET", "limits")
    monkeypatch.setenv("SF_SECRET", "rotated")
    assert speaking.call("GET", "limits").body


def test_a_secret_that_is_not_set_is_named_by_its_key(
    org: SalesforceSimulator, session: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SF_SECRET")
    with pytest.raises(CredentialsError, match=r"auth\.client_secret: environment variable SF_SECRET"):
        session().call("GET", "limits")
    assert not org.requests


@pytest.mark.parametrize(
    ("error", "description", "remedy"),
    [
        ("invalid_grant", "request not supported on this domain", "My Domain"),
        ("invalid_client", "app must be installed into org", "install the app"),
        ("invalid_grant", f"no client credentials user enabled for {SECRET}", "Run As"),
        ("invalid_client_id", SECRET, "compare the keys"),
    ],
)
def test_a_refused_login_gives_the_code_and_a_remedy(
    org: SalesforceSimulator,
    session: Callable[..., Session],
    error: str,
    description: str,
    remedy: str,
) -> None:
    org.knobs.grant_error = (error, description)
    with pytest.raises(CredentialsError, match=f"HTTP 400 {error}: .*{remedy}") as caught:
        session().call("GET", "limits")
    assert SECRET not in str(caught.value)
    assert org.requests[TOKEN] == 1


@pytest.mark.parametrize("flow", ["client_credentials", "password"])
def test_too_many_logins_pause_for_an_hour_without_another_try(
    org: SalesforceSimulator,
    session: Callable[..., Session],
    password: dict[str, Any],
    flow: str,
) -> None:
    org.knobs.login_limit = 0
    speaking = session() if flow == "client_credentials" else session("64.0", **password)
    with pytest.raises(TransientError, match="too many logins") as caught:
        speaking.call("GET", "limits")
    assert caught.value.retry_after == 3600
    assert org.requests[TOKEN] + org.requests[SOAP] == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(Kind.HTML, path="token", status=503, times=None), TransientError),
        (Fault(Kind.STATUS, path="token", status=500, times=None), TransientError),
        (Fault(Kind.HTML, path="token", status=200, times=None), TransientError),
        (Fault(Kind.STATUS, path="token", status=200, body={"id": "x"}, times=None), TransientError),
        (Fault(Kind.HTML, path="token", status=404, times=None), OperatorError),
        (Fault(Kind.STATUS, path="token", status=302, times=None), OperatorError),
        (Fault(Kind.RESET_AFTER, path="token", times=None), LostAnswerError),
    ],
)
def test_a_login_that_a_gateway_answers_is_classed_by_its_status(
    org: SalesforceSimulator, session: Callable[..., Session], fault: Fault, kind: type[SyncError]
) -> None:
    org.faults.add(fault)
    with pytest.raises(kind):
        session().call("GET", "limits")


@pytest.mark.parametrize("named", [None, "", "http://elsewhere", "https://", "https://h:port", "https://a@b"])
def test_a_token_without_a_usable_host_is_used_at_the_url_of_the_settings(
    org: SalesforceSimulator, session: Callable[..., Session], named: str | None
) -> None:
    session().call("GET", "limits")
    body = {"access_token": next(iter(org.sessions)), "instance_url": named}
    answering(org, 200, body, path="token")
    assert session().call("GET", "limits").body


def test_a_token_is_used_at_the_host_that_it_was_issued_for(
    org: SalesforceSimulator, session: Callable[..., Session], network: Quiet
) -> None:
    org.instance_url = "https://127.0.0.1:9"
    with pytest.raises(TransientError):
        session().call("GET", "limits")
    assert org.requests == {TOKEN: 1}
    assert len(network.waits) == 3


def test_a_login_disturbed_for_a_moment_is_repeated(
    org: SalesforceSimulator, session: Callable[..., Session], network: Quiet
) -> None:
    org.faults.add(Fault(Kind.HTML, path="token", times=2))
    assert session().call("GET", "limits").body
    assert len(network.waits) == 2


def said(code: str, message: str = "") -> list[dict[str, str]]:
    return [{"errorCode": code, "message": message}]


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, said("QUERY_TIMEOUT"), TransientError, "QUERY_TIMEOUT"),
        (400, said("UNABLE_TO_LOCK_ROW"), TransientError, "UNABLE_TO_LOCK_ROW"),
        (500, said("UNKNOWN_EXCEPTION", SECRET), TransientError, "500 UNKNOWN_EXCEPTION"),
        (503, b"<html>down</html>", TransientError, "HTTP 503"),
        (406, b"", TransientError, "HTTP 406"),
        (420, b"", TransientError, "HTTP 420"),
        (
            403,
            said("REQUEST_LIMIT_EXCEEDED", "ConcurrentRequests Limit exceeded."),
            TransientError,
            "at once",
        ),
        (200, f"<html>{SECRET}</html>".encode(), LostAnswerError, "without JSON"),
        (403, said("INSUFFICIENT_ACCESS"), CredentialsError, "INSUFFICIENT_ACCESS"),
        (403, said("API_DISABLED_FOR_ORG"), CredentialsError, "API_DISABLED_FOR_ORG"),
        (400, said("INSUFFICIENT_ACCESS_OR_READONLY"), CredentialsError, "INSUFFICIENT_ACCESS_OR_READONLY"),
        (400, said("TXN_SECURITY_METERING_ERROR", SECRET), CredentialsError, "Exempt from Transaction"),
        (404, said("NOT_FOUND"), OperatorError, "api_version"),
        (410, said("UNSUPPORTED_API_VERSION"), OperatorError, "api_version"),
        (302, b"", OperatorError, "My Domain"),
        (400, said("MALFORMED_QUERY", SECRET), OperatorError, "MALFORMED_QUERY$"),
        (400, said("INVALID_TYPE", "sObject type 'Nope' is not supported."), SchemaError, "the object"),
        (400, said("INVALID_FIELD", "No such column 'Tier__c' on entity 'Contact'."), SchemaError, "Tier__c"),
        (
            400,
            said("INVALID_FIELD", "Didn't understand relationship 'Acount' in field path."),
            SchemaError,
            "Acount",
        ),
        (414, b"<html>URI Too Long</html>", SchemaError, "fewer fields"),
        (431, b"", SchemaError, "fewer fields"),
    ],
)
def test_a_refused_call_is_classed_and_quotes_nothing(
    org: SalesforceSimulator,
    session: Callable[..., Session],
    status: int,
    body: Any,
    kind: type[SyncError],
    words: str,
) -> None:
    fault = answering(org, status, body, times=None)
    with pytest.raises(kind, match=words) as caught:
        session().call("GET", "limits")
    assert type(caught.value) is kind
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    passing = issubclass(kind, TransientError)
    assert fault.struck == (4 if passing else 1), "passing trouble is tried four times, all else once"


def test_a_missing_field_is_named_in_the_error(
    org: SalesforceSimulator, session: Callable[..., Session]
) -> None:
    answering(
        org, 400, said("INVALID_FIELD", "\nSELECT Email,A__c\nNo such column 'A__c' on entity 'Contact'.")
    )
    with pytest.raises(SchemaError) as caught:
        session().call("GET", "limits")
    assert caught.value.fields == ("A__c",)


def test_a_server_that_asks_to_wait_is_obeyed(
    org: SalesforceSimulator, session: Callable[..., Session], network: Quiet
) -> None:
    answering(org, 503, b"", headers={"retry-after": "7"})
    assert session().call("GET", "limits").body
    assert network.waits == [7.0]


def test_the_daily_limit_is_not_hammered(org: SalesforceSimulator, session: Callable[..., Session]) -> None:
    fault = answering(org, 403, DAILY, times=None)
    with pytest.raises(TransientError, match="daily API limit") as caught:
        session().call("GET", "limits")
    assert fault.struck == 1
    assert caught.value.retry_after == 900


@pytest.mark.parametrize(
    ("usage", "spared"),
    [
        ("api-usage=96/100", True),
        ("per-app-api-usage=1/250(appName=x); api-usage=96/100", True),
        ("api-usage=95/100", True),
        ("api-usage=94/100", False),
        ("per-app-api-usage=249/250(appName=x);api-usage=1/100", False),
        ("", False),
        ("api-usage=many", False),
    ],
)
def test_the_last_calls_of_the_day_are_left_to_others(
    org: SalesforceSimulator,
    session: Callable[..., Session],
    network: Quiet,
    usage: str,
    *,
    spared: bool,
) -> None:
    fault = answering(org, 200, {"ok": True}, times=None, headers={"Sforce-Limit-Info": usage})
    speaking = session()
    assert speaking.call("GET", "limits").body == {"ok": True}, "what was answered is not thrown away"
    if not spared:
        speaking.call("GET", "limits")
        return
    with pytest.raises(TransientError, match=r"the last 5 are kept for its other apps \(reserve\)"):
        speaking.call("GET", "limits")
    assert fault.struck == 1
    network.ahead = timedelta(seconds=901)
    assert speaking.call("GET", "limits").body, "after a while it looks again"


def test_the_answer_tells_the_servers_clock_when_it_was_asked(
    org: SalesforceSimulator, session: Callable[..., Session], network: Quiet
) -> None:
    answering(org, 200, {"ok": True}, headers={"Date": "Tue, 06 May 2031 07:08:09 GMT"})
    assert session().call("GET", "limits").asked == datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
    network.passing = 90.5
    answering(org, 200, {"ok": True}, headers={"Date": "Tue, 06 May 2031 07:08:09 GMT"})
    assert session().call("GET", "limits").asked == datetime(2031, 5, 6, 7, 6, 39, tzinfo=UTC)


def test_where_the_server_tells_no_time_it_is_ours(
    org: SalesforceSimulator, stage: Stage, session: Callable[..., Session], network: Quiet
) -> None:
    stage.dated = False
    network.ahead = timedelta(days=400)
    answering(org, 200, {"ok": True})
    asked = session().call("GET", "limits").asked
    assert abs(asked - network.now()) < timedelta(seconds=10)


def test_an_unreachable_org_is_passing_trouble(network: Quiet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SF_ID", "x")
    monkeypatch.setenv("SF_SECRET", "y")
    auth = {
        "flow": "client_credentials",
        "client_id": {"env": "SF_ID"},
        "client_secret": {"env": "SF_SECRET"},
    }
    speaking = Session(
        "https://127.0.0.1:9",
        auth=TypeAdapter[Any](Auth).validate_python(auth),
        version="67.0",
        timeout=1,
        reserve="5%",
        network=network,
    )
    with pytest.raises(TransientError, match=r"not sent|no answer"):
        speaking.call("GET", "limits")
    speaking.close()


def test_neither_tokens_nor_user_names_show_in_reprs(
    session: Callable[..., Session], bearer: dict[str, Any]
) -> None:
    speaking = session(**bearer)
    speaking.call("GET", "limits")
    token = speaking._login.token()
    assert token.session_id not in repr(token)
    assert "sandbox.example" not in repr(speaking._login._auth)


def test_the_assertion_lives_three_minutes(
    session: Callable[..., Session], bearer: dict[str, Any], org: SalesforceSimulator
) -> None:
    speaking = session(**bearer)
    assertion = speaking._login._assertion(speaking._login._auth)
    claims = jwt.decode(
        assertion, org.public_key, algorithms=["RS256"], audience="https://login.salesforce.com"
    )
    left = claims["exp"] - datetime.now(UTC).timestamp()
    assert 170 < left <= 180
