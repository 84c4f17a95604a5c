"""The doors where a session is granted: the OAuth token endpoint, and the SOAP login of the Partner API.

Facts are from Salesforce Help of 2026 where no other source stands beside them.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import jwt
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncsvc.sandbox.salesforce_access import OLDEST
from syncsvc.sandbox.salesforce_http import Handler, answer
from syncsvc.sandbox.salesforce_org import Org, Session

_LAST_SOAP_LOGIN = 64  # login() is gone from 65.0 on (Salesforce Help 005132110, 2026-04-30)
_LOGIN_HOSTS = ("login.salesforce.com", "test.salesforce.com")
_JWT_SECONDS = 300
_JWT_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class _OAuthError(Exception):
    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.body = {"error": error, "error_description": description}


class Login:
    """Grants sessions, as many an hour as the org allows."""

    def __init__(self, org: Org) -> None:
        """Grant sessions of `org`."""
        self._org = org
        self._logins: deque[datetime] = deque()

    def route(self, path: str, handler: Handler) -> Route:
        """Return the route of a door that anyone may knock at."""

        async def endpoint(request: Request) -> Response:
            body = await request.body()
            with self._org.lock:
                self._org.requests[request.method, path] += 1
                return handler(request, body)

        return Route(path, endpoint, methods=["POST"])

    def token(self, request: Request, body: bytes) -> Response:
        """Answer the token endpoint: a session, or an OAuth error."""
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        try:
            self._check_grant(request, form)
        except _OAuthError as error:
            return answer(error.body, 400)
        instance = self._instance(request)
        granted = {
            "access_token": self._grant(),
            "signature": base64.b64encode(self._org.random.randbytes(32)).decode(),
            "scope": "api",
            "instance_url": instance,
            "id": f"{instance}/id/{self._org.org_id}/{self._org.user_id}",
            "token_type": "Bearer",
            "issued_at": str(int(self._org.clock.now().timestamp() * 1000)),
        }
        return answer(granted)

    def _instance(self, request: Request) -> str:
        return self._org.instance_url.rstrip("/") or f"{request.url.scheme}://{request.headers['host']}"

    def _check_grant(self, request: Request, form: Mapping[str, str]) -> None:
        if self._org.knobs.grant_error:
            raise _OAuthError(*self._org.knobs.grant_error)
        match form.get("grant_type"):
            case "client_credentials":
                if request.headers["host"].partition(":")[0] in _LOGIN_HOSTS:
                    raise _OAuthError("invalid_grant", "request not supported on this domain")
                self._check_client(request, form)
            case "password":
                self._check_client(request, form)
                self._check_password(form)
            case grant if grant == _JWT_GRANT:
                self._check_assertion(request, form)
            case _:
                raise _OAuthError("unsupported_grant_type", "grant type not supported")
        if not self._within_rate():
            raise _OAuthError("invalid_grant", "login rate exceeded")

    def _within_rate(self) -> bool:
        now = self._org.clock.now()
        while self._logins and self._logins[0] <= now - timedelta(hours=1):
            self._logins.popleft()
        if len(self._logins) >= self._org.knobs.login_limit:
            return False
        self._logins.append(now)
        return True

    def _grant(self) -> str:
        token = f"{self._org.org_id[:15]}!{self._org.random.randbytes(24).hex()}"
        self._org.sessions[token] = Session(self._org.clock.now())
        return token

    def _check_client(self, request: Request, form: Mapping[str, str]) -> None:
        scheme, _, basic = request.headers.get("authorization", "").partition(" ")
        client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
        if scheme.lower() == "basic":
            try:
                client_id, _, secret = base64.b64decode(basic, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                client_id = ""
        if client_id != self._org.client_id:
            raise _OAuthError("invalid_client_id", "client identifier invalid")
        if secret != self._org.client_secret:
            raise _OAuthError("invalid_client", "invalid client credentials")

    def _check_password(self, form: Mapping[str, str]) -> None:
        org = self._org
        given = (form.get("username"), form.get("password"))
        if not org.knobs.password_grant or given != (org.username, org.password + org.security_token):
            raise _OAuthError("invalid_grant", "authentication failure")

    def _check_assertion(self, request: Request, form: Mapping[str, str]) -> None:
        audiences = [*(f"https://{host}" for host in _LOGIN_HOSTS), self._instance(request)]
        audiences.append(f"https://{request.headers['host']}")
        # The org's clock may stand elsewhere than this machine's, so times are checked against it below.
        options: Any = {"require": ["iss", "sub", "aud", "exp"]}
        options |= {"verify_exp": False, "verify_nbf": False, "verify_iat": False}
        try:
            claims = jwt.decode(
                form.get("assertion", ""),
                self._org.public_key,
                algorithms=["RS256"],
                audience=audiences,
                options=options,
            )
            left = float(claims["exp"]) - self._org.clock.now().timestamp()
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _OAuthError("invalid_grant", "invalid assertion") from None
        if claims["iss"] != self._org.client_id:
            raise _OAuthError("invalid_client_id", "client identifier invalid")
        if not 0 < left <= _JWT_SECONDS:
            raise _OAuthError("invalid_grant", "invalid assertion")
        if claims["sub"] != self._org.username or not self._org.knobs.approved:
            raise _OAuthError("invalid_grant", "user hasn't approved this consumer")

    def soap(self, request: Request, body: bytes) -> Response:
        """Answer login() of the Partner API: a session, or a fault."""
        version = request.path_params["version"]
        major = int(version[:-2]) if re.fullmatch(r"\d{1,3}\.0", version) else 0
        if not OLDEST <= major <= _LAST_SOAP_LOGIN:
            return _fault("UNSUPPORTED_API_VERSION", "Invalid Api version specified on URL")
        if not self._org.knobs.soap_login:
            return _fault("INVALID_OPERATION", "SOAP API login() is disabled by default in this org.")
        try:
            tree = ET.fromstring(body)  # noqa: S314 - loopback only, and expat bounds the growth of entities
        except ET.ParseError:
            return _fault("INVALID_SOAP_HEADER", "the envelope is not well-formed")
        namespace = "{urn:partner.soap.sforce.com}"
        given = [tree.findtext(f".//{namespace}login/{namespace}{name}") for name in ("username", "password")]
        org = self._org
        if given != [org.username, org.password + org.security_token]:
            told = "Invalid username, password, security token; or user locked out."
            return _fault("INVALID_LOGIN", told)
        if not self._within_rate():
            return _fault("LOGIN_RATE_EXCEEDED", "login rate exceeded")
        server = f"{self._instance(request)}/services/Soap/u/{version}/{org.org_id[:15]}"
        return _envelope(
            '<loginResponse xmlns="urn:partner.soap.sforce.com"><result>'
            f"<metadataServerUrl>{server.replace('/u/', '/m/')}</metadataServerUrl>"
            f"<passwordExpired>false</passwordExpired><sandbox>false</sandbox><serverUrl>{server}</serverUrl>"
            f"<sessionId>{self._grant()}</sessionId><userId>{org.user_id}</userId>"
            f"<userInfo><organizationId>{org.org_id}</organizationId>"
            f"<sessionSecondsValid>{org.knobs.token_seconds:.0f}</sessionSecondsValid></userInfo>"
            "</result></loginResponse>",
            200,
        )


def _envelope(body: str, status: int) -> Response:
    text = (
        '<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope'
        ' xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"'
        ' xmlns:sf="urn:fault.partner.soap.sforce.com"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<soapenv:Body>{body}</soapenv:Body></soapenv:Envelope>"
    )
    return Response(text, status, media_type="text/xml;charset=utf-8")


def _fault(code: str, message: str) -> Response:
    told = escape(message)
    return _envelope(
        f"<soapenv:Fault><faultcode>sf:{code}</faultcode><faultstring>{code}: {told}</faultstring>"
        '<detail><sf:LoginFault xsi:type="sf:LoginFault">'
        f"<sf:exceptionCode>{code}</sf:exceptionCode><sf:exceptionMessage>{told}</sf:exceptionMessage>"
        "</sf:LoginFault></detail></soapenv:Fault>",
        500,
    )
