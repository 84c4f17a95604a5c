"""Why a request was not sent, in the words of what to look at: the host, the port, and the likely cause."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator

import httpcore

_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}


def why_unsent(error: Exception, host: str, port: int, *, proxied: bool) -> str:
    """Return what kept a request from leaving for a host; empty where the error's class says all there is.

    `proxied` says that a proxy of the environment stands between: then it is the one that was not reached.
    """
    where = f"{host}:{port}"
    if proxied:
        where = f"the proxy before {where} (HTTPS_PROXY, HTTP_PROXY)"
    if isinstance(error, httpcore.ProxyError):
        return f"{where} refuses the way: allow it there, or name {host} in NO_PROXY"
    told = next((said for it in _causes(error) if (said := _said(it, where))), "")
    if not told and isinstance(error, httpcore.ConnectTimeout):
        return f"{where} does not answer: a firewall between, or it is down"
    return told or (where if isinstance(error, httpcore.ConnectError) else "")


def _said(error: BaseException, where: str) -> str:
    match error:
        case socket.gaierror():
            return f"the name of {where} is not known: correct it, or see to this machine's DNS"
        case ConnectionRefusedError():
            return f"nothing listens on {where}: does it run, and is this its address?"
        case ssl.SSLCertVerificationError():
            told = f"the certificate of {where} is not trusted ({error.verify_message})"
            return (
                f"{told}: name the authority that vouches for it in service.ca_file, or correct the address"
            )
        case ssl.SSLError():
            return f"{where} does not speak TLS as we do: is it http, or another port?"
        case OSError() if error.errno in _NO_WAY:
            return f"there is no way from this machine to {where}: see to its network"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
