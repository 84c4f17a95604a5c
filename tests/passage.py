"""A passage between one replica and the PostgreSQL server, which can be cut and stalled."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path
from typing import Self

_AT_ONCE = struct.pack("ii", 1, 0)  # closed with a reset


class Passage:
    """Passes on to the server what comes to an address on loopback, and back."""

    def __init__(self, server: Path, *, silent_upon: bytes = b"") -> None:
        """Lead to the server whose socket is in this folder; stall once, where these bytes would pass."""
        self._silent_upon = silent_upon
        self._server = str(server / ".s.PGSQL.5432")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._closed = False

    @property
    def port(self) -> int:
        found: int = self._listener.getsockname()[1]
        return found

    def cut(self) -> None:
        """Break every connection; new ones are let through."""
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
                    end.shutdown(socket.SHUT_RDWR)

    def stall(self) -> None:
        """Keep back everything, without a word to either side, until it flows again."""
        self._flows.clear()

    def flow(self) -> None:
        """Let through what was kept back, and what comes."""
        self._flows.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.flow()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closed:
                near, _ = self._listener.accept()
                far = socket.socket(socket.AF_UNIX)
                far.connect(self._server)
                with self._lock:
                    self._open |= {near, far}
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=ends, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self._silent_upon and self._silent_upon in data:
                    self._silent_upon = b""
                    self.stall()
                self._flows.wait()
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            if source in self._open:  # the other direction closes the other end
                self._open.discard(source)
                source.close()
