"""Serves a simulator over real HTTP or HTTPS on a loopback port of its own choosing."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import trustme
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

_START_SECONDS = 10.0


class Authority:
    """A certificate authority that only this process knows; its certificate is written to `ca_file`."""

    def __init__(self, folder: Path) -> None:
        """Make the authority and write its certificate into `folder`."""
        self._ca = trustme.CA()
        self.ca_file = folder / "sandbox-ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self._server = self._ca.issue_cert("localhost", "127.0.0.1")

    def configure(self, context: ssl.SSLContext) -> None:
        """Let a server context present a certificate of this authority."""
        self._server.configure_cert(context)


class _Connection(H11Protocol):
    """A connection that ends at once with its server: TLS would wait for the client to say goodbye too."""

    def shutdown(self) -> None:
        self.transport.abort()


class Server:
    """A simulator being served, from `start` to `stop`; also a context manager."""

    def __init__(self, app: ASGIApp, *, authority: Authority | None = None, port: int = 0) -> None:
        """Prepare to serve `app`; over TLS where an authority is given."""
        config = uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            http=_Connection,
            ws="none",
            proxy_headers=False,
            server_header=False,
            date_header=False,  # answers tell the simulator's clock
            timeout_graceful_shutdown=1,
        )
        config.load()
        if authority is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.configure(context)
            config.ssl = context
        self._tls = authority is not None
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="sandbox-server", daemon=True)

    def _run(self) -> None:
        with contextlib.suppress(KeyboardInterrupt, SystemExit):  # the latter where the port is taken
            self._server.run()

    def start(self) -> Self:
        """Serve in a thread; returns once the port is open. Raises RuntimeError where it cannot be opened."""
        self._thread.start()
        until = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if time.monotonic() > until or not self._thread.is_alive():
                raise RuntimeError("the sandbox server did not start: is its port taken?")
            time.sleep(0.005)
        return self

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self._server.servers[0].sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The base URL, without a trailing slash."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """Stop serving, break the connections that are left, and wait for the thread."""
        self._server.should_exit = True
        self._thread.join(timeout=_START_SECONDS)

    def __enter__(self) -> Self:
        """Start."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()
